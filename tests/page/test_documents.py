"""scan.py: PDF, HEIC and DICOM files become pages like any other, behind their extras. All material
is made here."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

import numpy as np
import pytest
from checkout import ROOT
from documents import LETTER, RED_BOX, dicom, pdf, picture_file, waveform_file
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pulse_edge.errors import PageRefused, PulseEdgeError, ScanError
from pulse_edge.page import decoder_client, reader

pytest.importorskip("pypdfium2")
pillow_heif = pytest.importorskip("pillow_heif")


def refused(data: bytes, *words: str) -> str:
    with pytest.raises(PulseEdgeError) as caught:
        reader.read_all(data)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    for word in words:
        assert word in message
    return message


def cpu_seconds() -> float:
    """Of this process and of those it has waited for: a busy machine stretches the clock only."""
    return sum(os.times()[:4])


# --- PDF ------------------------------------------------------------------------------------------


def test_a_pdf_page_is_rendered_at_300_dpi() -> None:
    image = reader.read(pdf(RED_BOX)).image
    assert image.size == (3300, 2550)
    assert image.getpixel((100, 100)) == (255, 0, 0)
    assert image.getpixel((3000, 2000)) == (255, 255, 255)


def test_every_page_of_a_pdf_is_read() -> None:
    assert [p.name for p in reader.read_all(pdf(RED_BOX, b""))] == ["image#1", "image#2"]


def test_a_scan_wrapped_in_a_huge_pdf_page_comes_out_at_the_size_of_a_sheet() -> None:
    assert max(reader.read(pdf(RED_BOX, size=(6600, 5100))).image.size) == 3600


def picture_in_pdf(size: tuple[int, int], width: int, height: int, part: float = 1.0) -> bytes:
    """A page of `size` points with a picture of `width` x `height` pixels over `part` of its width
    and height."""
    body = bytes(range(251)) * (width * height // 251 + 1)
    head = (
        b"<</Type/XObject/Subtype/Image/Width %d/Height %d/ColorSpace/DeviceGray/BitsPerComponent 8"
        % (
            width,
            height,
        )
    )
    picture = head + b"/Length %d>>stream\n%s\nendstream" % (width * height, body[: width * height])
    return pdf(
        b"%g 0 0 %g 0 0 cm /F Do" % (part * size[0], part * size[1]), size=size, more=(picture,)
    )


def test_a_page_in_another_unit_is_rendered_at_300_dpi_of_its_true_size() -> None:
    image = reader.read(pdf(b"1 0 0 rg 0 30 40 31 re f", size=(79, 61), page=b"/UserUnit 10")).image
    assert image.size == (3292, 2542)
    assert image.getpixel((100, 100)) == (255, 0, 0)
    assert reader.read(pdf(RED_BOX, page=b"/UserUnit 10")).image.size == (3300, 2550)
    assert reader.read(pdf(b"", size=(79, 61))).image.size == (330, 255)


@pytest.mark.parametrize("size", [(158, 99), (60, 38), (300, 188)])
def test_a_picture_on_a_small_page_keeps_its_own_pixels(size: tuple[int, int]) -> None:
    across, _ = reader.read(picture_in_pdf(size, 1100, 690)).image.size
    assert across == pytest.approx(max(1100, size[0] * 300 / 72), abs=7)


def test_a_fine_picture_on_a_sheet_is_not_made_coarser_and_a_logo_changes_nothing() -> None:
    assert reader.read(picture_in_pdf((396, 306), 2000, 1545)).image.width == pytest.approx(
        2000, abs=7
    )
    assert reader.read(picture_in_pdf(LETTER, 2000, 1545, part=0.1)).image.size == (3300, 2550)


def test_filled_in_form_fields_are_rendered() -> None:
    look = (
        b"<</Type/XObject/Subtype/Form/BBox[0 0 200 100]/Length 27>>stream\n0 0 1 rg 0 0 200"
        b" 100 re f  \nendstream"
    )
    field = (
        b"<</Type/Annot/Subtype/Widget/FT/Tx/T(name)/V(Doe)/F 4/Rect[400 100 600 200]/AP<</N 5"
        b" 0 R>>>>"
    )
    form = pdf(
        RED_BOX, more=(look, field), page=b"/Annots[6 0 R]", catalog=b"/AcroForm<</Fields[6 0 R]>>"
    )
    image = reader.read(form).image
    assert image.getpixel((2083, 1925)) == (0, 0, 255)
    assert image.getpixel((100, 100)) == (255, 0, 0)


def test_twelve_pages_of_a4_are_read_and_too_many_are_counted() -> None:
    assert len(reader.read_all(pdf(*[b""] * 12, size=(595, 842)))) == 12
    refused(pdf(*[b""] * 101), "101 pages; 100 is the limit")


def test_a_bad_page_leaves_the_others() -> None:
    data = pdf(RED_BOX, b"", RED_BOX).replace(
        b"/MediaBox[0 0 792 612]", b"/MediaBox[0 0 792 0  ]", 2
    )
    data = data.replace(b"/MediaBox[0 0 792 0  ]", b"/MediaBox[0 0 792 612]", 1)
    with reader.Document(data) as document:
        pages = list(document)
    assert [isinstance(page, reader.Page) for page in pages] == [True, False, True] or len(
        pages
    ) == 3
    assert "image#2" in pages[1].name


def test_a_broken_pdf_is_no_page() -> None:
    refused(b"%PDF-1.7 nothing", "PDF", "PNG")
    refused(pdf(RED_BOX)[:300], "PDF")


def test_a_pdf_of_ten_thousand_pages_is_refused_in_time() -> None:
    data, start = pdf(*[b""] * 10_000), cpu_seconds()
    refused(data, "10000 pages; 100 is the limit")
    assert cpu_seconds() - start < 5


def test_a_form_that_draws_itself_ends() -> None:
    form = (
        b"<</Type/XObject/Subtype/Form/BBox[0 0 99 99]/Resources<</XObject<</F 5 0 R>>>>"
        b"/Length 5>>stream\n/F Do\nendstream"
    )
    assert reader.read(pdf(b"/F Do", more=(form,))).image.size == (3300, 2550)


def test_a_pdf_that_would_draw_for_ever_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_client, "PAGE_SECONDS", 1)
    forms = []
    for level in range(12):  # each form draws the next one twenty times
        inner = b"/N Do " * 20 if level < 11 else RED_BOX
        named = b"/Resources<</XObject<</N %d 0 R>>>>" % (6 + level)
        forms.append(
            b"<</Type/XObject/Subtype/Form/BBox[0 0 99 99]%s/Length %d>>stream\n%s\nendstream"
            % (named, len(inner), inner)
        )
    decoder_client.stop()  # what it has used before counts from here on
    start = cpu_seconds()
    refused(pdf(b"/F Do", more=tuple(forms)))
    assert cpu_seconds() - start < 5


# --- HEIC -----------------------------------------------------------------------------------------


def heic(image: Image.Image, **options: Any) -> bytes:
    out = io.BytesIO()
    pillow_heif.from_pillow(image).save(out, quality=90, **options)
    return out.getvalue()


def test_a_heic_picture_is_a_page_without_metadata() -> None:
    image = Image.new("RGB", (64, 48), (200, 30, 30))
    exif = Image.Exif()
    exif[0x010E] = "Jane Doe"
    page = reader.read(heic(image, exif=exif.tobytes())).image
    assert (page.size, page.mode, page.info) == ((64, 48), "RGB", {})
    assert page.getpixel((30, 20)) == pytest.approx((200, 30, 30), abs=8)


def test_half_a_heic_is_no_page() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (256, 256, 3), np.uint8))
    data = heic(noise)
    refused(data[: len(data) // 2], "HEIC")


# --- DICOM ----------------------------------------------------------------------------------------


def test_a_waveform_is_plotted_as_a_page_of_known_scale() -> None:
    page = reader.read(waveform_file()).image
    assert page.size == (((16 + 250 + 8) * 8), (12 + 4 * 36 + 14) * 8)
    assert page.info == {}


def test_a_waveform_without_a_chest_lead_is_refused_by_name() -> None:
    refused(waveform_file(("I", "II", "V1", "V2", "V3", "V4", "V5", "III")), "V6")


def test_a_waveform_shorter_than_it_says_is_no_page() -> None:
    refused(waveform_file(short=400), "length")


def test_a_waveform_in_an_unknown_unit_is_no_page() -> None:
    refused(waveform_file(unit="mm"), "unit")


def test_an_encapsulated_pdf_is_read_like_the_pdf() -> None:
    inside = pdf(RED_BOX)
    data = dicom(
        SOPClassUID="1.2.840.10008.5.1.4.1.1.104.1",
        EncapsulatedDocument=inside + b"\0" * (len(inside) % 2),
    )
    assert np.array_equal(
        np.asarray(reader.read(data).image), np.asarray(reader.read(inside).image)
    )


def test_secondary_captures_come_out_in_their_colours() -> None:
    colour = np.zeros((4, 6, 3), np.uint8)
    colour[:, :3] = (255, 0, 0)
    assert np.array_equal(np.asarray(reader.read(picture_file(colour)).image), colour)
    grey = np.full((4, 6), 3000, np.uint16)
    assert (
        reader.read(picture_file(grey, BitsStored=12, HighBit=11)).image.getpixel((0, 0))
        == (187,) * 3
    )
    inverted = picture_file(np.zeros((4, 6), np.uint8), PhotometricInterpretation="MONOCHROME1")
    assert reader.read(inverted).image.getpixel((0, 0)) == (255,) * 3


def test_a_dicom_with_wrong_lengths_is_no_page() -> None:
    data = picture_file(np.zeros((64, 64, 3), np.uint8), Rows=60_000, Columns=60_000)
    refused(data, "limit")
    refused(picture_file(np.zeros((64, 64, 3), np.uint8), Rows=640))
    refused(picture_file(np.zeros((64, 64, 3), np.uint8))[:2000])


def test_a_dicom_with_neither_ecg_nor_picture_is_no_page() -> None:
    refused(dicom(StudyDescription="x"), "neither")


# --- extras, fuzz ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "extra", "data"),
    [
        ("pypdfium2", "pdf", b"%PDF-1.7"),
        ("pillow_heif", "heic", b"\0\0\0\x18ftypheic"),
        ("pydicom", "dicom", bytes(128) + b"DICM"),
    ],
)
def test_a_missing_library_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, module: str, extra: str, data: bytes
) -> None:
    monkeypatch.setattr(reader, "find_spec", lambda name: None)
    refused(data, module.replace("_", "-"), f"pulse-edge[{extra}]")


def test_reading_a_plain_picture_loads_none_of_the_three_libraries() -> None:
    import subprocess

    code = (
        "import sys,io; from PIL import Image; from pulse_edge.page import reader;"
        " reader.read(Image.new('RGB',(9,9)))\n"
    )
    code += "assert not {'pydicom','pypdfium2','pillow_heif'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


SEEDS = [
    heic(Image.new("RGB", (40, 30))),
    waveform_file(hz=100),
    picture_file(np.zeros((9, 9, 3), np.uint8)),
]


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=12),
    st.integers(0, 10**6),
)
def test_damaged_heic_and_dicom_give_pages_or_our_errors(
    data: bytes, changes: list[tuple[int, int]], cut: int
) -> None:
    broken = bytearray(data)
    for at, value in changes:
        broken[at % len(broken)] = value
    try:
        assert reader.read_all(bytes(broken[: 140 + cut % len(broken)]))
    except (ScanError, PageRefused) as e:
        assert len(str(e).splitlines()) == 1


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=8),
    st.integers(0, 10**6),
)
def test_damaged_pdfs_give_pages_or_our_errors(changes: list[tuple[int, int]], cut: int) -> None:
    broken = bytearray(pdf(RED_BOX, size=(40, 30)))
    for at, value in changes:
        broken[8 + at % (len(broken) - 8)] = value
    try:
        assert reader.read_all(bytes(broken[: 200 + cut % len(broken)]))
    except (ScanError, PageRefused) as e:
        assert len(str(e).splitlines()) == 1
