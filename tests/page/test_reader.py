"""scan.py: any picture file a clinic has -> upright RGB pages without metadata. All material is made here."""

from __future__ import annotations

import hashlib
import io
import os
import random
import socket
import struct
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkout import SHARED
from picture_files import blocks, chunk, encoded, several
from PIL import Image, ImageCms, ImageFile, PngImagePlugin, features

from pulse_edge.errors import PageRefused, PulseEdgeError, ScanError
from pulse_edge.page import pictures, reader

SHARED = SHARED / "ecg"
WHITE, RED, BLACK = (255, 255, 255), (255, 0, 0), (0, 0, 0)
ORIENTATION = 274
# What a viewer does with a stored picture for each EXIF orientation, as array operations.
TURNS = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: np.rot90,
}


def array(page: reader.Page) -> np.ndarray:
    return np.asarray(page.image)


def pixel(data: bytes, x: int = 0, y: int = 0) -> tuple[int, ...]:
    return tuple(array(reader.read(data))[y, x].tolist())


def png(
    width: int, height: int, rows: bytes, depth: int = 8, colour: int = 0, before: bytes = b""
) -> bytes:
    """By hand, for what Pillow does not write. colour: 0 grey, 2 RGB; `before`: chunks before the pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    size = len(rows) // max(height, 1)
    lines = b"".join(b"\0" + rows[y * size : (y + 1) * size] for y in range(height))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + before
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )


def tiff(
    width: int,
    height: int,
    bits: int,
    photometric: int,
    pixels: bytes,
    order: str = "<",
    **more: int,
) -> bytes:
    """One uncompressed grey strip, by hand. `more`: t339=2 sets tag 339."""
    tags = {
        256: width,
        257: height,
        258: bits,
        259: 1,
        262: photometric,
        277: 1,
        278: height,
        279: len(pixels),
    }
    tags |= {int(name[1:]): value for name, value in more.items()}
    tags[273] = 8 + 2 + 12 * (len(tags) + 1) + 4
    entries = b"".join(
        struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in sorted(tags.items())
    )
    start = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8)
    return start + struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + pixels


def refused(source: Any, *words: str, kind: type[PulseEdgeError] = ScanError) -> str:
    """The error's message, which must be one line, name the source, and hold `words`."""
    with pytest.raises(PulseEdgeError) as caught:
        reader.read(source)
    message = str(caught.value)
    assert type(caught.value) is kind
    assert len(message.splitlines()) == 1
    name = "image" if isinstance(source, bytes | Image.Image) else str(source)
    assert message.startswith(f"{name}: ")
    assert message.endswith((".", "scan.png"))
    for word in words:
        assert word in message
    return message


# ------------------------------------------------------------------------------------------------ what a page is


def test_a_page_is_rgb_and_knows_its_file_and_hash(tmp_path: Path) -> None:
    path = tmp_path / "scan.png"
    blocks().save(path)
    page = reader.read(path)
    assert (page.image.mode, page.image.size, page.name) == ("RGB", (48, 32), str(path))
    assert page.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "TIFF", "BMP", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_plain_pictures_give_exactly_pils_rgb(fmt: str, mode: str) -> None:
    data = encoded(blocks().convert(mode), fmt)
    assert np.array_equal(
        array(reader.read(data)), np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    )


def test_content_counts_and_the_name_does_not(tmp_path: Path) -> None:
    path = tmp_path / "scan.pdf"
    path.write_bytes(encoded(blocks(), "PNG"))
    assert np.array_equal(array(reader.read(path)), np.asarray(blocks()))


def test_bytes_and_open_files_read_like_their_file(tmp_path: Path) -> None:
    path = tmp_path / "scan.png"
    blocks().save(path)
    with path.open("rb") as file:
        from_file = reader.read(file)
    from_bytes = reader.read(path.read_bytes())
    assert (from_file.name, from_bytes.name) == (str(path), "image")
    assert from_file.sha256 == from_bytes.sha256 == reader.read(str(path)).sha256


def test_a_dash_reads_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(blocks(), "PNG")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    page = reader.read("-")
    assert (page.name, page.sha256) == ("-", hashlib.sha256(data).hexdigest())


def test_an_open_image_is_hashed_by_size_and_pixels_and_left_as_it_was() -> None:
    image = blocks().convert("P")
    page = reader.read(image)
    assert page.sha256 == hashlib.sha256(b"48x32" + image.convert("RGB").tobytes()).hexdigest()
    assert (page.name, image.mode) == ("image", "P")
    page.image.putpixel((0, 0), RED)
    assert reader.read(image).sha256 == page.sha256


def test_nothing_about_the_patient_or_the_place_stays_on_the_page() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    exif[0x010E] = "Jane Doe"
    exif.get_ifd(0x8825)[1] = "N"
    options = {
        "exif": exif,
        "icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    }
    text = PngImagePlugin.PngInfo()
    text.add_text("Patient", "Jane Doe")
    for data in (
        encoded(blocks(), "JPEG", comment="Jane Doe", dpi=(300, 300), xmp=b"<x/>", **options),
        encoded(blocks(), "PNG", pnginfo=text, **options),
        encoded(blocks(), "TIFF", tiffinfo={270: "Jane Doe"}, dpi=(300, 300)),
        encoded(blocks(), "WEBP", xmp=b"<x/>", **options),
    ):
        image = reader.read(data).image
        assert type(image) is Image.Image
        assert image.info == {}
        assert dict(image.getexif()) == {}


# -------------------------------------------------------------------------------------------------- comes out right


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP"])
def test_exif_turns_the_page_upright(fmt: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    plain, turned = encoded(blocks(), fmt), encoded(blocks(), fmt, exif=exif)
    assert np.array_equal(array(reader.read(turned)), TURNS[orientation](array(reader.read(plain))))


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_a_tiffs_orientation_is_applied_once(compression: str, orientation: int) -> None:
    data = encoded(blocks(), "TIFF", tiffinfo={ORIENTATION: orientation}, compression=compression)
    assert np.array_equal(array(reader.read(data)), TURNS[orientation](np.asarray(blocks())))


def test_an_open_image_is_turned_by_its_exif_too() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    image = Image.open(io.BytesIO(encoded(blocks(), "PNG", exif=exif)))
    assert np.array_equal(array(reader.read(image)), TURNS[6](np.asarray(blocks())))


def test_exif_behind_the_pixels_of_a_png_counts() -> None:
    data = encoded(blocks(), "PNG")
    exif = Image.Exif()
    exif[ORIENTATION] = 8
    late = data[:-12] + chunk(b"eXIf", exif.tobytes()[6:]) + data[-12:]
    assert np.array_equal(array(reader.read(late)), TURNS[8](np.asarray(blocks())))


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_turns_nothing(orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    assert np.array_equal(
        array(reader.read(encoded(blocks(), "PNG", exif=exif))), np.asarray(blocks())
    )


@pytest.mark.parametrize(
    "block", [b"", b"\0" * 40, b"MM\0*\0\0\0\x08\xff\xff", b"II*\0\xff\xff\xff\x7f", b"II*\0\0"]
)
def test_a_broken_exif_block_leaves_a_good_picture_readable(block: bytes) -> None:
    data = encoded(blocks(), "JPEG", exif=b"Exif\0\0" + block)
    assert np.array_equal(
        array(reader.read(data)), np.asarray(Image.open(io.BytesIO(encoded(blocks(), "JPEG"))))
    )


def test_a_palette_is_looked_up() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *WHITE])
    image.putpixel((1, 0), 1)
    for fmt in ("PNG", "TIFF", "BMP"):
        assert array(reader.read(encoded(image, fmt))).tolist() == [[list(RED), list(WHITE)]]


@pytest.mark.parametrize("transparency", [0, b"\0\xff"])
def test_a_transparent_palette_entry_shows_white_paper(transparency: int | bytes) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*BLACK, *RED])
    image.putpixel((1, 0), 1)
    data = encoded(image, "PNG", transparency=transparency)
    assert array(reader.read(data)).tolist() == [[list(WHITE), list(RED)]]


def test_half_transparent_ink_is_mixed_with_white_paper() -> None:
    assert pixel(encoded(Image.new("RGBA", (1, 1), (255, 0, 0, 128)), "PNG")) == (255, 127, 127)
    assert pixel(encoded(Image.new("LA", (1, 1), (0, 51)), "PNG")) == (204, 204, 204)
    assert pixel(encoded(Image.new("RGBA", (1, 1), (0, 0, 0, 0)), "WEBP", lossless=True)) == WHITE


def test_opaque_alpha_changes_nothing() -> None:
    image = blocks()
    image.putalpha(255)
    assert np.array_equal(array(reader.read(encoded(image, "PNG"))), np.asarray(blocks()))


def test_alpha_that_is_multiplied_in_is_taken_out() -> None:
    grey = Image.frombytes("LA", (2, 1), bytes([64, 128, 255, 255]))
    data = bytearray(encoded(grey, "TIFF"))
    entry = data.index(
        struct.pack("<HHI", 338, 3, 1)
    )  # ExtraSamples: 2 unassociated -> 1 associated
    data[entry + 8] = 1
    assert Image.open(io.BytesIO(data)).mode == "La"
    first, second = array(reader.read(bytes(data)))[0]
    assert abs(int(first[0]) - 191) <= 1  # 64 of ink, and half of white paper
    assert second.tolist() == list(WHITE)


def test_a_transparent_colour_shows_white_paper() -> None:
    assert pixel(encoded(Image.new("RGB", (1, 1), RED), "PNG", transparency=RED)) == WHITE
    assert pixel(encoded(Image.new("L", (1, 1), 7), "PNG", transparency=7)) == WHITE
    assert pixel(encoded(Image.new("1", (1, 1), 0), "PNG", transparency=0)) == WHITE
    sixteen = png(
        2, 1, struct.pack(">2H", 1000, 1001), 16, before=chunk(b"tRNS", struct.pack(">H", 1000))
    )
    assert array(reader.read(sixteen))[0, :, 0].tolist() == [255, 3]


def test_a_bmp_whose_alpha_nobody_filled_in_shows_its_colours() -> None:
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII", 108, 2, 1, 1, 32, 3, 8, 0, 0, 0, 0) + masks + bytes(52)

    def bmp(*bgra: int) -> bytes:
        return b"BM" + struct.pack("<IHHI", 130, 0, 0, 122) + header + bytes(bgra)

    assert array(reader.read(bmp(0, 0, 255, 0, 1, 2, 3, 0))).tolist() == [[list(RED), [3, 2, 1]]]
    assert array(reader.read(bmp(0, 0, 255, 0, 1, 2, 3, 255))).tolist() == [
        [list(WHITE), [3, 2, 1]]
    ]


@pytest.mark.parametrize("fmt", ["PNG", "TIFF", "BMP"])
def test_one_bit_is_black_and_white(fmt: str) -> None:
    image = Image.frombytes("1", (8, 1), b"\x0f")
    assert array(reader.read(encoded(image, fmt)))[0, :, 0].tolist() == [0] * 4 + [255] * 4


@pytest.mark.parametrize("compression", ["group3", "group4"])
def test_a_fax_is_black_on_white(compression: str) -> None:
    image = blocks().convert("1")
    data = encoded(image, "TIFF", compression=compression)
    assert np.array_equal(array(reader.read(data)), np.asarray(image.convert("RGB")))


def test_a_fax_of_standard_resolution_is_stretched_to_square_pixels() -> None:
    page = reader.read(
        encoded(Image.new("1", (1728, 1078), 1), "TIFF", compression="group4", dpi=(204, 98))
    )
    assert page.image.size == (1728, 2244)
    turned = {ORIENTATION: 6, 282: 204.0, 283: 98.0, 296: 2}
    page = reader.read(encoded(Image.new("1", (1728, 1078), 1), "TIFF", tiffinfo=turned))
    assert page.image.size == (2244, 1728)


@pytest.mark.parametrize("dpi", [(204, 196), (72, 720), (0, 98)])
def test_other_resolutions_stretch_nothing(dpi: tuple[int, int]) -> None:
    assert reader.read(encoded(Image.new("1", (40, 20), 1), "TIFF", dpi=dpi)).image.size == (40, 20)
    assert reader.read(encoded(Image.new("RGB", (40, 20)), "TIFF", dpi=(300, 98))).image.size == (
        40,
        20,
    )


RAMP = np.array([[0, 255, 256, 257, 32768, 65280, 65535]], np.uint16)
RAMP_IN_8_BITS = [0, 0, 1, 1, 128, 255, 255]


@pytest.mark.parametrize(
    "data",
    [
        png(7, 1, RAMP.astype(">u2").tobytes(), 16),
        tiff(7, 1, 16, 1, RAMP.tobytes()),
        tiff(7, 1, 16, 1, RAMP.astype(">u2").tobytes(), ">"),
        encoded(Image.fromarray(RAMP), "TIFF", compression="tiff_lzw"),
    ],
    ids=["png", "tiff", "big endian", "lzw"],
)
def test_sixteen_bit_grey_is_scaled_from_its_full_range(data: bytes) -> None:
    assert array(reader.read(data))[0].tolist() == [[v] * 3 for v in RAMP_IN_8_BITS]


def test_pils_32_bit_images_in_16_bit_range_are_16_bit_grey() -> None:
    assert (
        array(reader.read(Image.fromarray(RAMP.astype(np.int32))))[0, :, 0].tolist()
        == RAMP_IN_8_BITS
    )


def test_sixteen_bit_grey_where_zero_is_white_is_turned_over() -> None:
    assert array(reader.read(tiff(7, 1, 16, 0, RAMP.tobytes())))[0, :, 0].tolist() == [
        255 - v for v in RAMP_IN_8_BITS
    ]


def test_twelve_bit_grey_is_scaled_from_its_own_range() -> None:
    assert array(reader.read(tiff(4, 1, 12, 1, bytes.fromhex("000fff80000f"))))[
        0, :, 0
    ].tolist() == [0, 255, 128, 0]


def test_sixteen_bit_rgb_drops_its_low_bits_as_grey_does() -> None:
    assert pixel(png(1, 1, struct.pack(">3H", 65535, 32768, 255), 16, 2)) == (255, 128, 0)


@pytest.mark.parametrize(
    "data",
    [
        tiff(2, 1, 32, 1, struct.pack("<2I", 0, 1)),
        tiff(2, 1, 16, 1, struct.pack("<2h", -5, 5), t339=2),
        tiff(2, 1, 32, 1, struct.pack("<2f", 0, 1), t339=3),
    ],
    ids=["32 bit", "signed", "float"],
)
def test_grey_of_unknown_range_is_no_page(data: bytes) -> None:
    refused(data, "unknown range", "8-bit PNG")


def test_cmyk_white_is_white_and_red_is_red() -> None:
    for fmt in ("JPEG", "TIFF"):
        assert pixel(encoded(Image.new("CMYK", (8, 8), (0, 0, 0, 0)), fmt)) == WHITE
        assert pixel(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), fmt)) == pytest.approx(
            RED, abs=2
        )
        assert pixel(encoded(Image.new("CMYK", (8, 8), (0, 0, 0, 255)), fmt)) == BLACK


def test_ycck_white_is_white_and_red_is_red() -> None:
    # Adobe stores the negative of the four inks, and of the first three luma and chroma of its complement: no ink at all
    # is Y 0, K 255; red (magenta and yellow, full) is the luma and chroma of cyan.
    for stored, colour in (
        ((0, 128, 128, 255), WHITE),
        ((179, 171, 1, 255), RED),
        ((0, 128, 128, 0), BLACK),
    ):
        negative = Image.new("CMYK", (8, 8), tuple(255 - v for v in stored))
        data = bytearray(encoded(negative, "JPEG", quality=100))
        at = data.index(b"Adobe")
        assert data[at + 11] == 0
        data[at + 11] = 2  # "these are YCCK"
        assert pixel(bytes(data)) == pytest.approx(colour, abs=2)


def test_lab_and_ycbcr_come_out_in_their_colours() -> None:
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    for colour in (WHITE, RED, BLACK):
        flat = Image.new("RGB", (8, 8), colour)
        as_lab = ImageCms.profileToProfile(flat, srgb, lab, outputMode="LAB")
        assert as_lab is not None
        assert pixel(encoded(as_lab, "TIFF")) == pytest.approx(colour, abs=6)
        assert pixel(encoded(flat.convert("YCbCr"), "TIFF")) == pytest.approx(colour, abs=2)
        assert pixel(encoded(flat, "TIFF", compression="jpeg")) == pytest.approx(colour, abs=2)


def test_a_colour_profile_leaves_the_numbers_alone() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    assert pixel(encoded(Image.new("RGB", (1, 1), (10, 200, 30)), "PNG", icc_profile=profile)) == (
        10,
        200,
        30,
    )


# ------------------------------------------------------------------------------------------------------ several pages


def test_read_all_gives_every_page_of_a_tiff_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "scan.tiff"
    path.write_bytes(several(blocks(seed=1), blocks(8, 16, seed=2).convert("L"), blocks(seed=3)))
    pages = reader.read_all(path)
    assert [page.name for page in pages] == [f"{path}#1", f"{path}#2", f"{path}#3"]
    assert [page.image.size for page in pages] == [(48, 32), (8, 16), (48, 32)]
    assert np.array_equal(array(pages[2]), np.asarray(blocks(seed=3)))
    assert len({page.sha256 for page in pages}) == 1


def test_read_of_several_pages_names_their_number(tmp_path: Path) -> None:
    path = tmp_path / "scan.tiff"
    path.write_bytes(several(blocks(), blocks()))
    refused(path, "2 pages")


def test_a_damaged_page_among_good_ones_is_no_silent_loss() -> None:
    data = several(blocks(64, 64), blocks(64, 64))
    with pytest.raises(ScanError):
        reader.read_all(data[:-6000])


def test_a_preview_is_not_a_page() -> None:
    small = Image.new("RGB", (4, 4))
    small.encoderinfo = {"tiffinfo": {254: 1}}
    assert reader.read(several(blocks(), small)).image.size == (48, 32)
    refused(encoded(small, "TIFF", tiffinfo={254: 1}), "preview")


def test_pages_too_large_together_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MAX_TOTAL_PIXELS", 2 * 48 * 32)
    assert len(reader.read_all(several(blocks(), blocks()))) == 2
    with pytest.raises(
        PageRefused,
        match=r"has 3 pages, and its first 3 have 3,073 pixels together; 3,072 is the limit",
    ):
        reader.read_all(several(blocks(), blocks(), Image.new("1", (1, 1))))


def test_endless_pages_are_refused() -> None:
    page = Image.new("1", (1, 1))
    assert len(reader.read_all(several(*[page] * reader.MAX_PAGES))) == reader.MAX_PAGES
    refused(several(*[page] * (reader.MAX_PAGES + 1)), "100 pages", kind=PageRefused)


@pytest.mark.parametrize("fmt", ["PNG", "WEBP"])
def test_an_animation_is_no_page(fmt: str) -> None:
    refused(several(blocks(seed=1), blocks(seed=2), fmt=fmt), "animation")


def test_of_a_phones_two_pictures_the_photograph_is_the_page() -> None:
    data = several(blocks(seed=1), blocks(seed=2), fmt="MPO")
    assert Image.open(io.BytesIO(data)).format == "MPO"
    assert np.array_equal(array(reader.read(data)), np.asarray(Image.open(io.BytesIO(data))))


# ------------------------------------------------------------------------------------------------------- what is no page


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\xff\x0a\x7f\x02", "JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"PK\x03\x04\x14\0", "archive or office document"),
        (b"<?xml version='1.0'?><AnnotatedECG/>\n", "text or XML"),
        ("Ableitung;Dauer\nII;10 s, größer\n".encode(), "text or XML"),
        (b"BM is body mass\n" * 9, "text or XML"),
        (bytes(4096), "no picture"),
    ],
)
def test_another_kind_of_file_is_named_with_the_way_out(
    tmp_path: Path, content: bytes, what: str
) -> None:
    path = tmp_path / "scan.png"
    path.write_bytes(content)
    refused(path, what, "Export the page as PNG")


def test_of_a_gif_the_first_picture_is_the_page() -> None:
    first = blocks(seed=1).quantize(200)
    for data in (encoded(first, "GIF"), several(first, blocks(seed=2).quantize(200), fmt="GIF")):
        assert np.array_equal(array(reader.read(data)), np.asarray(first.convert("RGB")))


def test_a_gif_that_is_cut_short_anywhere_or_filled_with_zeros_is_no_page() -> None:
    data = encoded(blocks().quantize(200), "GIF")
    for end in (*range(20, len(data) - 1, 97), len(data) - 1):
        refused(data[:end], "GIF")
        refused(data[:end] + bytes(max(0, len(data) - end)))


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow was built without AVIF")
def test_an_avif_is_read_turned_as_it_says_and_not_where_it_is_cut_short() -> None:
    picture = blocks(96, 64)
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    data = encoded(picture, "AVIF", quality=100, subsampling="4:4:4", exif=exif)
    page = array(reader.read(data))
    assert page.shape == (96, 64, 3)
    assert np.abs(page.astype(int) - np.rot90(np.asarray(picture), -1)).mean() < 4
    for end in (40, len(data) // 2, len(data) - 1):
        refused(data[:end])
        refused(data[:end] + bytes(len(data) - end)) if end < len(data) - 1 else None


def with_segment(jpeg: bytes, marker: int, body: bytes) -> bytes:
    return jpeg[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def test_a_photograph_with_a_gain_map_or_a_film_behind_it_is_the_photograph() -> None:
    photo, gain = encoded(blocks(seed=1), "JPEG"), encoded(blocks(seed=2).convert("L"), "JPEG")
    wanted = np.asarray(Image.open(io.BytesIO(photo)))
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><rdf:Description hdrgm:Version="1.0" GCamera:MotionPhoto="1"/></x:xmpmeta>'
    several_of_one = several(blocks(seed=1), blocks(seed=2), fmt="MPO")
    film = (
        struct.pack(">I4s4sI", 16, b"ftyp", b"mp42", 0)
        + struct.pack(">I4s", 5008, b"mdat")
        + bytes(range(250)) * 20
    )
    for data in (
        with_segment(photo, 0xE1, xmp) + gain,
        with_segment(photo, 0xE1, xmp) + film,
        with_segment(photo, 0xE1, xmp) + gain + film,
        with_segment(several_of_one, 0xE1, xmp),
        with_segment(several_of_one, 0xE1, xmp) + film,
    ):
        assert np.array_equal(array(reader.read(data)), wanted)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_a_page_of_a_large_sheet_is_halved_by_means_of_four(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = blocks().convert(mode)
    whole = reader.read(picture).image
    monkeypatch.setattr(pictures, "HALVED", 48 * 32 - 1)
    halved = reader.read(picture).image
    assert halved.size == (24, 16)
    assert np.abs(np.asarray(halved).astype(int) - np.asarray(whole.reduce(2))).max() <= 1


def test_a_missing_file_an_empty_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    refused(tmp_path / "gone.png", "no such file")
    refused(tmp_path / "link.png", "no such file")
    refused(tmp_path / "empty.png", "is empty")
    refused(tmp_path, "is a folder")
    refused(tmp_path / "empty.png" / "scan.png", "cannot be opened")


@pytest.mark.parametrize(
    ("name", "shown"), [("a\nb.png", r"a\nb.png"), ("\udcff.png", r"\udcff.png"), ("\0", r"\x00")]
)
def test_a_strange_name_stays_one_line_that_can_be_printed(name: str, shown: str) -> None:
    with pytest.raises(ScanError) as caught:
        reader.read(name)
    assert str(caught.value).startswith(f"{shown}: ")
    str(caught.value).encode()


def test_an_empty_name_is_no_file() -> None:
    with pytest.raises(ScanError, match=r'^"": no such file'):
        reader.read("")


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything"
)
def test_a_file_without_the_right_to_read_it_is_named(tmp_path: Path) -> None:
    path = tmp_path / "scan.png"
    blocks().save(path)
    path.chmod(0)
    refused(path, "may not be read")


def test_no_permission_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(_path: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(reader.os, "stat", forbidden)
    with pytest.raises(ScanError, match="may not be read"):
        reader.read(tmp_path / "scan.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no such files here")
def test_a_pipe_a_socket_and_a_device_are_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path has to be short
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "pipe or a device", "standard input")
    refused(Path("/dev/zero"), "pipe or a device")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("s")
        refused(tmp_path / "s", "pipe or a device")


def test_a_terminal_as_standard_input_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.BytesIO):
        def isatty(self) -> bool:
            return True

    for stdin in (None, io.TextIOWrapper(Terminal())):
        monkeypatch.setattr(sys, "stdin", stdin)
        refused("-", "standard input")


def test_a_file_opened_as_text_is_told(tmp_path: Path) -> None:
    path = tmp_path / "scan.txt"
    path.write_text("II")
    with path.open() as file, pytest.raises(ScanError, match="binary mode"):
        reader.read(file)  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------------------- too large


def test_a_bomb_is_refused_by_its_header() -> None:
    header = struct.pack(">IIBBBBB", 20000, 10000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"")
    refused(bomb, "200,000,000 pixels", "100,000,000 is the limit", "300 dpi", kind=PageRefused)


def test_a_page_over_our_limit_and_under_pillows_is_refused_by_its_header() -> None:
    header = struct.pack(">IIBBBBB", 12000, 10000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"")
    refused(bomb, "120,000,000 pixels (12000 x 10000)", kind=PageRefused)


def test_a_page_between_pillows_warning_and_our_limit_is_read_in_silence(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Image, "MAX_IMAGE_PIXELS", 1000
    )  # 48 x 32 is 1.5 times that, as 100 MP is to 89
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert reader.read(encoded(blocks(), "PNG")).image.size == (48, 32)
    assert capfd.readouterr() == ("", "")
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_more_bytes_than_the_limit_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "MAX_BYTES", 1 << 20)
    path = tmp_path / "scan.png"
    path.write_bytes(bytes((1 << 20) + 1))
    refused(path, "1 is the limit", kind=PageRefused)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))
    refused("-", "more than 1 MiB", kind=PageRefused)


def test_text_that_unpacks_to_gigabytes_is_not_unpacked() -> None:
    text = b"Comment\0\1\0\0\0" + zlib.compress(bytes(3 << 20))
    refused(png(1, 1, b"\0", before=chunk(b"iTXt", text)), "PNG", "too large")


# ------------------------------------------------------------------------------------------------------------- damaged


@pytest.mark.parametrize(
    ("fmt", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("BMP", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "jpeg"}),
    ],
)
def test_a_file_cut_short_anywhere_is_no_page(fmt: str, options: dict[str, Any]) -> None:
    data = encoded(blocks(), fmt, **options)
    # The last four bytes of a PNG are the checksum of nothing.
    end = len(data) - 4 if fmt == "PNG" else len(data)
    for length in {*range(16, end, len(data) // 40), end - 1}:
        with pytest.raises(ScanError):
            reader.read(data[:length])


def cut_in_half(progressive: bool = False) -> bytes:
    data = encoded(blocks(256, 256), "JPEG", quality=95, progressive=progressive)
    return data[: len(data) // 2]


@pytest.mark.parametrize("progressive", [False, True])
def test_half_a_jpeg_with_an_end_marker_is_no_page(progressive: bool) -> None:
    data = cut_in_half(progressive) + b"\xff\xd9"
    Image.open(io.BytesIO(data)).load()  # Pillow takes it
    refused(data, "lower part is missing")


def test_half_a_jpeg_filled_up_with_zeros_is_no_page() -> None:
    data = cut_in_half() + bytes(1 << 20)
    Image.open(io.BytesIO(data)).load()  # Pillow takes it
    refused(data, "lower part is missing")


def test_half_a_jpeg_is_no_page_even_where_the_program_lets_pillow_read_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(ScanError, match="LOAD_TRUNCATED_IMAGES"):
        reader.read(cut_in_half())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"progressive": True},
        {"subsampling": 0},
        {"restart_marker_rows": 1},
        {"quality": 5},
        {"optimize": True},
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_whole_jpeg_is_never_taken_for_half_a_one(mode: str, options: dict[str, Any]) -> None:
    for size in ((1, 1), (8, 8), (100, 33)):
        image = blocks(104, 40).crop((0, 0, *size)).convert(mode)
        assert reader.read(encoded(image, "JPEG", **options)).image.size == size
        assert reader.read(encoded(Image.new(mode, size), "JPEG", **options)).image.size == size


def test_what_stands_behind_a_jpegs_end_is_ignored() -> None:
    data = encoded(blocks(), "JPEG")
    for tail in (b"\0" * 1000, b"MotionPhoto\xff\xd9", b"\xff"):
        assert np.array_equal(array(reader.read(data + tail)), array(reader.read(data)))


def test_no_bit_of_a_png_changes_unnoticed() -> None:
    data = encoded(blocks(), "PNG")
    for at in range(16, len(data) - 12, 3):
        changed = bytearray(data)
        changed[at] ^= 4
        with pytest.raises(PulseEdgeError):
            reader.read(bytes(changed))


def test_no_pixels_are_no_page() -> None:
    refused(png(0, 5, b""), "PNG")
    refused(Image.new("RGB", (0, 5)), "no pixels")


@pytest.mark.parametrize(
    "magic",
    [
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"II*\0",
        b"MM\0*",
        b"II+\0",
        b"BM" + bytes(12) + b"\x28\0\0\0",
        b"RIFF\0\1\0\0WEBPVP8 ",
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_garbage_behind_a_valid_beginning_is_no_page(magic: bytes, seed: int) -> None:
    with pytest.raises(PulseEdgeError):
        reader.read(magic + random.Random(seed).randbytes(2000))
    with pytest.raises(ScanError):
        reader.read(magic)


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "TIFF", "BMP", "WEBP", "MPO"])
def test_a_file_with_changed_bytes_gives_a_page_or_one_of_our_errors(fmt: str) -> None:
    data = (
        several(blocks(), blocks(), fmt=fmt) if fmt in ("TIFF", "MPO") else encoded(blocks(), fmt)
    )
    dice = random.Random(0)
    for _ in range(150):
        changed = bytearray(data)
        for _ in range(dice.choice((1, 3, 20))):
            changed[dice.randrange(min(len(changed), dice.choice((200, len(changed)))))] = (
                dice.choice((0, 1, 127, 255))
            )
        try:
            assert reader.read_all(bytes(changed))
        except (ScanError, PageRefused) as e:
            assert len(str(e).splitlines()) == 1


def test_an_open_image_that_cannot_be_decoded_is_no_page() -> None:
    refused(Image.open(io.BytesIO(cut_in_half())), "PIL image")


# -------------------------------------------------------------------------------------------------------- real pictures


def test_every_real_picture_is_a_page_or_one_of_our_errors(
    capfd: pytest.CaptureFixture[str],
) -> None:
    files = sorted(
        f for folder in ("images", "negatives") for f in (SHARED / folder).rglob("*") if f.is_file()
    )
    if not files:
        pytest.skip(f"no pictures under {SHARED}")
    not_read = set()
    for path in files:
        try:
            reader.read_all(path)
        except (ScanError, PageRefused) as e:
            assert str(path) in str(e)
            not_read.add(path.name)
    assert not_read == {"sk_truncated.jpg"}
    assert capfd.readouterr() == ("", "")
