from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pulse_edge import scan
from pulse_edge.errors import PageRefused, ScanError


def test_sixteen_bits_keep_their_range(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 256, dtype=np.uint16)[None].repeat(8, 0)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    pixels = np.asarray(scan.read(tmp_path / "a.png").image)
    assert np.array_equal(pixels[0, :, 0], np.arange(256))


def test_transparent_means_white_paper(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "a.png")
    assert np.asarray(scan.read(tmp_path / "a.png").image).min() == 255


def test_exif_turns_the_page_and_is_left_behind(tmp_path: Path) -> None:
    image = Image.new("RGB", (6, 4), "white")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", exif=exif)
    page = scan.read(tmp_path / "a.jpg").image
    assert page.size == (4, 6)
    assert not page.getexif()


def test_a_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 20000, 10000, 8, 2, 0, 0, 0)
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b""))
    with pytest.raises(PageRefused, match="pixels"):
        scan.read(tmp_path / "a.png")


def test_half_a_picture_is_no_picture(tmp_path: Path) -> None:
    whole = io.BytesIO()
    Image.effect_noise((200, 200), 50).save(whole, "JPEG")
    (tmp_path / "a.jpg").write_bytes(whole.getvalue()[:5000])
    with pytest.raises(ScanError, match="truncated"):
        scan.read(tmp_path / "a.jpg")


def test_a_directory_is_no_page(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match=r"directory|no file"):
        scan.read(tmp_path)
