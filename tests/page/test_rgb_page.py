"""Pictures of every mode become upright RGB pages with the right colours."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from picture_files import blocks, chunk, encoded
from PIL import Image, ImageCms
from reading import array, pixel, png, refused, tiff

from pulse_edge.page import reader

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


def test_bmp_with_empty_alpha_shows_its_colours() -> None:
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
    # Adobe stores the negative of the four inks, and of the first three luma and chroma of its
    # complement: no ink at all is Y 0, K 255; red (magenta and yellow, full) is the luma and chroma
    # of cyan.
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
