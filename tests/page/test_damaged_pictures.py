"""Damaged pictures are never read as pages; whole ones always are."""

from __future__ import annotations

import io
import random
from typing import Any

import numpy as np
import pytest
from checkout import SHARED
from picture_files import blocks, encoded, several
from PIL import Image, ImageFile
from reading import array, png, refused

from pulse_edge.errors import PageRefused, PulseEdgeError, ScanError
from pulse_edge.page import reader

ECG = SHARED / "ecg"


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
    # The last four bytes of a PNG are the checksum of an empty chunk.
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
def test_whole_jpeg_is_never_refused_as_cut_short(mode: str, options: dict[str, Any]) -> None:
    for size in ((1, 1), (8, 8), (100, 33)):
        image = blocks(104, 40).crop((0, 0, *size)).convert(mode)
        assert reader.read(encoded(image, "JPEG", **options)).image.size == size
        assert reader.read(encoded(Image.new(mode, size), "JPEG", **options)).image.size == size


def test_bytes_after_the_end_of_a_jpeg_are_ignored() -> None:
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
def test_garbage_after_a_valid_beginning_is_refused(magic: bytes, seed: int) -> None:
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


def test_every_real_picture_is_a_page_or_one_of_our_errors(
    capfd: pytest.CaptureFixture[str],
) -> None:
    files = sorted(
        f for folder in ("images", "negatives") for f in (ECG / folder).rglob("*") if f.is_file()
    )
    if not files:
        pytest.skip(f"no pictures under {ECG}")
    not_read = set()
    for path in files:
        try:
            reader.read_all(path)
        except (ScanError, PageRefused) as e:
            assert str(path) in str(e)
            not_read.add(path.name)
    assert not_read == {"sk_truncated.jpg"}
    assert capfd.readouterr() == ("", "")
