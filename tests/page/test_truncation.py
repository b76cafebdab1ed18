"""Half a page is no page, whatever kind of file it comes in. All material is made here."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from documents import dicom, pdf, picture_file
from PIL import Image, ImageDraw

from pulse_edge.errors import ScanError
from pulse_edge.page import admission, quality, reader, truncation
from pulse_edge.page.unfilled import unfilled_share

pillow_heif = pytest.importorskip("pillow_heif")
pydicom = pytest.importorskip("pydicom")


def sheet(width: int = 660, height: int = 510) -> Image.Image:
    """Coloured grid and a dark trace on white, with a margin: something to see in every line."""
    page = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(page)
    for x in range(8, width - 8, 8):
        pen.line([(x, 8), (x, height - 8)], (240, 170, 170))
    for y in range(8, height - 8, 8):
        pen.line([(8, y), (width - 8, y)], (240, 170, 170))
    dice = np.random.default_rng(3)
    for row in range(4):
        middle = 60 + row * 120
        pen.line(
            [(x, middle + int(dice.integers(-30, 30))) for x in range(10, width - 10, 3)],
            (20, 20, 20),
            2,
        )
    return page


def saved(fmt: str, **options: Any) -> bytes:
    out = io.BytesIO()
    page = sheet()
    if options.get("compression") in ("group3", "group4"):
        page = page.convert("1")
    if fmt == "HEIF":
        pillow_heif.from_pillow(page).save(out, quality=80)
    else:
        page.save(out, fmt, **options)
    return out.getvalue()


def in_pdf(name: bytes, body: bytes) -> bytes:
    head = (
        b"<</Type/XObject/Subtype/Image/Width 660/Height 510/ColorSpace/DeviceRGB"
        b"/BitsPerComponent 8"
    )
    picture = head + b"/Filter/%s/Length %d>>stream\n%s\nendstream" % (name, len(body), body)
    return pdf(b"792 0 0 612 0 0 cm /F Do", more=(picture,))


def rle8() -> bytes:
    """A BMP with run lengths, which Pillow does not write."""
    page = sheet().convert("L").quantize(16)
    body = b""
    for row in np.asarray(page)[::-1]:
        ends = np.flatnonzero(np.diff(row)) + 1
        for part in np.split(row, ends):
            for start in range(0, len(part), 255):
                body += bytes([len(part[start : start + 255]), part[0]])
        body += b"\0\0"
    body += b"\0\1"
    palette = np.zeros((256, 4), np.uint8)
    colours = np.array(page.getpalette(), np.uint8).reshape(-1, 3)
    palette[: len(colours), :3] = colours[:, ::-1]
    start = 14 + 40 + 1024
    header = struct.pack("<IiiHHIIiiII", 40, *page.size, 1, 8, 1, len(body), 2835, 2835, 256, 0)
    return (
        b"BM"
        + struct.pack("<IHHI", start + len(body), 0, 0, start)
        + header
        + palette.tobytes()
        + body
    )


def compressed_dicom(kind: str) -> bytes:
    result = pydicom.dcmread(io.BytesIO(picture_file(np.asarray(sheet()))))
    if kind == "RLE":
        result.compress(pydicom.uid.RLELossless)
    else:
        result.file_meta.TransferSyntaxUID = pydicom.uid.JPEGBaseline8Bit
        result.PhotometricInterpretation = "YBR_FULL_422"
        result.PixelData = pydicom.encaps.encapsulate([saved("JPEG")])
        result["PixelData"].is_undefined_length = True
    out = io.BytesIO()
    pydicom.dcmwrite(out, result, enforce_file_format=True)
    return out.getvalue()


FILES = {
    "JPEG": saved("JPEG"),
    "progressive JPEG": saved("JPEG", progressive=True),
    "PNG": saved("PNG"),
    "BMP": saved("BMP"),
    "BMP with run lengths": rle8(),
    "WebP": saved("WEBP"),
    "lossless WebP": saved("WEBP", lossless=True),
    "HEIC": saved("HEIF"),
    "TIFF": saved("TIFF"),
    **{
        f"TIFF {c}": saved("TIFF", compression=c)
        for c in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "group4")
    },
    "PDF with JPEG": in_pdf(b"DCTDecode", saved("JPEG")),
    "PDF with pixels": in_pdf(b"FlateDecode", zlib.compress(sheet().tobytes())),
    "DICOM": picture_file(np.asarray(sheet())),
    "DICOM with RLE": compressed_dicom("RLE"),
    "DICOM with JPEG": compressed_dicom("JPEG"),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_whole_file_is_a_page(kind: str) -> None:
    assert reader.read(FILES[kind]).image.width in (660, 3300)


@pytest.mark.parametrize("stored", [0.4, 0.6, 0.8, 0.9])
@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_broken_off_is_no_page(kind: str, stored: float) -> None:
    with pytest.raises(ScanError):
        reader.read_all(FILES[kind][: int(stored * len(FILES[kind]))])


@pytest.mark.parametrize("stored", [0.4, 0.6, 0.8, 0.9])
@pytest.mark.parametrize("kind", FILES)
def test_a_file_whose_tail_was_never_written_is_no_page(kind: str, stored: float) -> None:
    data = FILES[kind]
    end = int(stored * len(data))
    with pytest.raises(ScanError):
        reader.read_all(data[:end] + bytes(len(data) - end))


@pytest.mark.parametrize("stored", [0.4, 0.6, 0.8, 0.9])
@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_whole_pdf_round_half_a_jpeg_is_no_page(stored: float, options: dict[str, Any]) -> None:
    body = saved("JPEG", **options)
    with pytest.raises(ScanError, match="cut short"):
        reader.read_all(in_pdf(b"DCTDecode", body[: int(stored * len(body))]))


@pytest.mark.parametrize("stored", [0.4, 0.9])
def test_a_whole_pdf_round_half_the_pixels_is_no_page(stored: float) -> None:
    body = zlib.compress(sheet().tobytes())
    with pytest.raises(ScanError, match="cut short"):
        reader.read_all(in_pdf(b"FlateDecode", body[: int(stored * len(body))]))


@pytest.mark.parametrize("quality_", [30, 80, 95])
@pytest.mark.parametrize("fill_", ["white", "grey", "black"])
def test_a_blank_lower_half_is_no_cut_webp(fill_: str, quality_: int) -> None:
    page = sheet(1320, 1020)
    ImageDraw.Draw(page).rectangle((0, 400, 1320, 1020), fill_)
    for options in ({"quality": quality_}, {"lossless": True}):
        out = io.BytesIO()
        page.save(out, "WEBP", **options)
        assert truncation.webp(out.getvalue()) is None


def test_decoders_own_word_that_data_are_missing_counts() -> None:
    data = picture_file(np.asarray(sheet()))
    short = dicom(
        **{
            name: pydicom.dcmread(io.BytesIO(data))[name].value
            for name in (
                "Rows",
                "Columns",
                "SamplesPerPixel",
                "PhotometricInterpretation",
                "BitsAllocated",
                "BitsStored",
                "HighBit",
                "PixelRepresentation",
                "PlanarConfiguration",
            )
        },
        PixelData=sheet().tobytes()[:-2000],
    )
    with pytest.raises(ScanError):
        reader.read_all(short)


# --- pictures that were saved again after they were loaded in part --------------------------------

COLOURS = {
    "grey": (128, 128, 128),
    "black": (0, 0, 0),
    "light grey": (200, 200, 200),
    "green": (64, 255, 0),
}


@pytest.mark.parametrize("side", range(4))
@pytest.mark.parametrize("colour", COLOURS)
def test_a_band_of_one_colour_that_cuts_the_page_is_a_filling(colour: str, side: int) -> None:
    page = np.array(sheet())
    page[int(0.8 * len(page)) :] = COLOURS[colour]
    assert unfilled_share(np.rot90(page, side)) == pytest.approx(0.2, abs=0.01)


def test_margins_frames_and_backgrounds_are_no_filling() -> None:
    page = np.array(sheet())
    assert unfilled_share(page) == 0
    for colour in COLOURS.values():
        framed = np.array(Image.new("RGB", (800, 700), colour))
        framed[95:605, 70:730] = page  # a viewer's window, a scanner's lid
        assert unfilled_share(framed) == 0
        letterbox = np.concatenate(
            [
                np.full((120, 660, 3), colour, np.uint8),
                page,
                np.full((90, 660, 3), colour, np.uint8),
            ]
        )
        assert unfilled_share(letterbox) == 0
    assert unfilled_share(np.concatenate([page, np.full((300, 660, 3), 255, np.uint8)])) == 0
    strip = np.concatenate(
        [page, np.full((40, 660, 3), 255, np.uint8), np.zeros((30, 660, 3), np.uint8)]
    )
    assert unfilled_share(strip) == 0  # the scanner's edge below a page with its margin


def test_a_line_that_is_repeated_to_the_end_is_a_filling() -> None:
    page = np.array(sheet())
    page[300:] = page[300]
    assert unfilled_share(page) == pytest.approx(210 / 510, abs=0.02)


@pytest.mark.parametrize("stored", [0.35, 0.45, 0.62, 0.8])
@pytest.mark.parametrize("colour", COLOURS)
def test_the_example_page_with_a_part_never_filled_in_is_refused(
    colour: str, stored: float
) -> None:
    page = example().copy()
    ImageDraw.Draw(page).rectangle(
        (0, int(page.height * stored), page.width, page.height), COLOURS[colour]
    )
    judged = admission.check(reader.Page(page, "0" * 64, "x")).quality
    assert (judged.verdict, judged.reasons[0].check) == (quality.REFUSED, "unfilled")


def test_the_example_page_itself_is_good() -> None:
    assert admission.check(reader.Page(example(), "0" * 64, "x")).quality.verdict == quality.GOOD


def example() -> Image.Image:
    from pathlib import Path

    return Image.open(Path(admission.__file__).parents[1] / "assets" / "example_page.png").convert(
        "RGB"
    )
