"""JPEG, PNG, TIFF, BMP, WebP, GIF, AVIF and HEIC files to RGB pages, by Pillow.

Runs in the decoder (decoder_worker.py).

Each opener takes a file's bytes, its name for people and the limits, and returns one function for
each page, which decodes it. A file that is damaged, too large or cut short raises, in the opener or
where a page is decoded.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial

from PIL import Image, features
from PIL.TiffImagePlugin import TiffImageFile

from pulse_edge.errors import ScanError
from pulse_edge.page import truncation
from pulse_edge.page.file_errors import (
    AS_PNG,
    Limits,
    check_size,
    page_name,
    raise_if_cut_short,
    require_library,
    too_many_pages,
)
from pulse_edge.page.rgb_page import rgb_page

Decode = Callable[[], Image.Image]
"""Gives a page: RGB, upright, without metadata."""


def picture(fmt: str, data: bytes, name: str, limits: Limits) -> list[Decode]:
    """Open the only picture of a WebP or AVIF."""
    return [partial(_decode_picture, fmt, data, name, limits)]


def _decode_picture(fmt: str, data: bytes, name: str, limits: Limits) -> Image.Image:
    # A phone's JPEG may hold a preview or a depth map behind the photograph (MPO): not an
    # animation.
    with Image.open(io.BytesIO(data), formats=[fmt]) as image:
        if fmt != "JPEG" and getattr(image, "is_animated", False):
            raise ScanError(f"{name}: is an animation, and a page is one still picture. {AS_PNG}")
        return rgb_page(image, name, limits)


def png(data: bytes, name: str, limits: Limits) -> list[Decode]:
    """Open a PNG. Its checksums are verified: Pillow itself stops reading at the last pixel."""

    def decode() -> Image.Image:
        decoded = _decode_picture("PNG", data, name, limits)
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            image.verify()
        return decoded

    return [decode]


def bmp(data: bytes, name: str, limits: Limits) -> list[Decode]:
    """Open a BMP. One with run lengths must end in its end mark: Pillow fills missing pixels up."""
    packed = int.from_bytes(data[30:34], "little") in (1, 2) and data[14:18] != b"\x0c\0\0\0"
    if packed and data.rstrip(b"\0")[-1:] != b"\1":  # 0 1 ends it
        raise_if_cut_short(name, "a BMP", truncation.MISSING_PART)

    def decode() -> Image.Image:
        decoded = _decode_picture("BMP", data, name, limits)
        if not packed:
            check_tail(
                decoded, [memoryview(data)[int.from_bytes(data[10:14], "little") :]], name, "a BMP"
            )
        return decoded

    return [decode]


def check_tail(decoded: Image.Image, pixels: list[memoryview], name: str, what: str) -> None:
    """Raise ScanError where uncompressed pixels end in zeros, and the page in a band of their
    colour.

    `pixels`: pieces of the file in their order. Zeros count from a 50th of them on: black edges of
    scanned pages are as long.
    """
    tail = 0
    for piece in reversed(pixels):
        zeros = truncation.blank_tail(piece)
        tail += zeros
        if zeros < len(piece):
            break
    if tail and tail >= sum(map(len, pixels)) // 50:
        import numpy as np

        from pulse_edge.page.unfilled import unfilled_share

        if unfilled_share(np.asarray(decoded), certain=0.0):
            raise_if_cut_short(name, what, truncation.MISSING_PART)


def webp(data: bytes, name: str, limits: Limits) -> list[Decode]:
    """Open a WebP. Its size is checked first: libwebp allocates memory when the file is opened."""
    if size := truncation.webp_size(data):
        check_size(size, name, limits)
    raise_if_cut_short(name, "a WebP picture", truncation.webp(data))
    return picture("WEBP", data, name, limits)


def jpeg(data: bytes, name: str, limits: Limits) -> list[Decode]:
    """Open a JPEG, whose data must reach its last block.

    Where the data stop early libjpeg fills up with grey, and Pillow does not report it.
    """

    def decode() -> Image.Image:
        decoded = _decode_picture("JPEG", data, name, limits)
        if not whole_jpeg(data):
            raise ScanError(
                f"{name}: is a JPEG whose lower part is missing. Copy or take the picture again."
            )
        return decoded

    return [decode]


_NOISE = bytes(n * 73 % 251 for n in range(2048))
_FILLING = _NOISE + b"".join(
    bytes([0xFF, 0xD0 + n]) + _NOISE for n in range(8)
)  # after each restart marker too


def whole_jpeg(data: bytes) -> bool:
    """Whether a JPEG's data reach its last block.

    Bytes inserted before the end marker show it: after a whole picture they are skipped, in a
    picture with a hole they become part of it.
    """
    end = truncation.jpeg_end(data)
    return end >= 0 and _thumbnail(data[:end]) == _thumbnail(data[:end] + _FILLING)


def _thumbnail(jpeg: bytes) -> bytes:
    """Return grey pixels of a JPEG without its end marker: one in eight, which is faster, or all of
    a progressive one."""
    with Image.open(io.BytesIO(jpeg + b"\xff\xd9"), formats=["JPEG"]) as image:
        if "progressive" not in image.info:  # a loss there may show in fine detail only
            image.draft("L", (max(1, image.width // 8), max(1, image.height // 8)))
        return image.tobytes()


def gif(data: bytes, name: str, limits: Limits) -> list[Decode]:
    """Open the first picture of a GIF: those after it blink, or show later states of the first."""
    raise_if_cut_short(name, "a GIF", truncation.gif(data))

    def decode() -> Image.Image:
        with Image.open(io.BytesIO(data), formats=["GIF"]) as image:
            return rgb_page(image, name, limits)

    return [decode]


def avif(data: bytes, name: str, limits: Limits) -> list[Decode]:
    """Open an AVIF, where Pillow was built with its library."""
    if not features.check("avif"):
        raise ScanError(
            f"{name}: is an AVIF picture, which the Pillow of this machine does not read. {AS_PNG}"
        )
    from PIL import AvifImagePlugin

    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # each thread takes address space, which is limited
    raise_if_cut_short(name, "an AVIF picture", truncation.avif(data))
    return picture("AVIF", data, name, limits)


def heic(data: bytes, name: str, limits: Limits) -> list[Decode]:
    """Open the main picture of a phone's HEIC."""
    require_library("pillow_heif", "heic", name, "a HEIC picture")
    raise_if_cut_short(name, "a HEIC picture", truncation.heic(data))
    import pillow_heif

    pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)

    def decode() -> Image.Image:
        with Image.open(
            io.BytesIO(data), formats=["HEIF"]
        ) as image:  # libheif has turned it: its EXIF says 1 now
            return rgb_page(image, name, limits)

    return [decode]


def tiff(data: bytes, name: str, limits: Limits) -> list[Decode]:
    """Open every page of a TIFF except masks and smaller copies of other pages."""
    frames = []
    with Image.open(io.BytesIO(data), formats=["TIFF"]) as image:
        assert isinstance(image, TiffImageFile)
        for n in range(limits.pages + 1):  # n_frames would count millions of empty pages
            try:
                image.seek(n)
            except EOFError:
                break
            if n == limits.pages:
                raise too_many_pages(name, limits)
            # NewSubfileType and SubfileType: a smaller copy of another page, or a mask for it.
            if not (image.tag_v2.get(254, 0) & 0b101 or image.tag_v2.get(255) == 2):
                frames.append(n)
    if not frames:
        raise ScanError(f"{name}: holds a preview only, as raw files of cameras do. {AS_PNG}")
    return [
        partial(_tiff_page, data, page_name(name, number, len(frames)), limits, frame)
        for number, frame in enumerate(frames, 1)
    ]


def _tiff_page(data: bytes, name: str, limits: Limits, frame: int) -> Image.Image:
    with Image.open(io.BytesIO(data), formats=["TIFF"]) as image:
        assert isinstance(image, TiffImageFile)
        image.seek(frame)
        tags = image.tag_v2
        compression = tags.get(259, 1)
        offsets, lengths = tags.get(273, tags.get(324, ())), tags.get(279, tags.get(325, ()))
        parts = list(zip(offsets, lengths, strict=False))
        if compression != 1:  # Pillow itself raises where raw pixels are too few
            raise_if_cut_short(
                name, "a TIFF", truncation.strips(data, parts, ones=compression not in (2, 3, 4))
            )
            if compression == 7 and not bytes(tags.get(347, b"\xff\xd9")).endswith(b"\xff\xd9"):
                raise_if_cut_short(
                    name, "a TIFF", truncation.MISSING_PART
                )  # tables for all JPEG strips may lie at the file's end
        decoded = rgb_page(image, name, limits)
    if compression == 1:
        pieces = [memoryview(data)[offset : offset + length] for offset, length in parts]
        check_tail(decoded, pieces, name, "a TIFF")
    return decoded
