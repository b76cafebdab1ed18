"""Any picture file that a clinic has becomes upright RGB pages without metadata. All material is
made here."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import struct
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from picture_files import blocks, chunk, encoded, several
from PIL import Image, ImageCms, PngImagePlugin, features
from reading import array, png, refused

from pulse_edge.errors import PageRefused, ScanError
from pulse_edge.page import reader, rgb_page

ORIENTATION = 274
WHITE, RED, BLACK = (255, 255, 255), (255, 0, 0), (0, 0, 0)


def test_page_is_rgb_with_name_and_hash_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "scan.png"
    blocks().save(path)
    page = reader.read(path)
    assert (page.image.mode, page.image.size, page.name) == ("RGB", (48, 32), str(path))
    assert page.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "TIFF", "BMP", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_plain_pictures_give_the_rgb_of_pillow(fmt: str, mode: str) -> None:
    data = encoded(blocks().convert(mode), fmt)
    assert np.array_equal(
        array(reader.read(data)), np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    )


def test_kind_of_file_is_recognised_by_content(tmp_path: Path) -> None:
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


def test_metadata_of_patient_and_place_is_removed() -> None:
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


def test_a_damaged_page_among_good_ones_raises() -> None:
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


def test_photograph_of_a_phones_two_pictures_is_the_page() -> None:
    data = several(blocks(seed=1), blocks(seed=2), fmt="MPO")
    assert Image.open(io.BytesIO(data)).format == "MPO"
    assert np.array_equal(array(reader.read(data)), np.asarray(Image.open(io.BytesIO(data))))


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


def test_first_picture_of_a_gif_is_the_page() -> None:
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
    expected = np.asarray(Image.open(io.BytesIO(photo)))
    xmp = (
        b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><rdf:Description hdrgm:Version="1.0"'
        b' GCamera:MotionPhoto="1"/></x:xmpmeta>'
    )
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
        assert np.array_equal(array(reader.read(data)), expected)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_a_large_page_is_halved_by_averages_of_four(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = blocks().convert(mode)
    whole = reader.read(picture).image
    monkeypatch.setattr(rgb_page, "HALVED", 48 * 32 - 1)
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


def test_missing_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_file_opened_as_text_is_refused_with_advice(tmp_path: Path) -> None:
    path = tmp_path / "scan.txt"
    path.write_text("II")
    with path.open() as file, pytest.raises(ScanError, match="binary mode"):
        reader.read(file)  # type: ignore[arg-type]


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
