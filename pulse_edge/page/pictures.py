"""JPEG, PNG, TIFF, BMP, WebP, GIF, AVIF and HEIC -> upright RGB pages, by Pillow. Runs in the process that decodes: see decoder_worker.py.

Each opener takes a file's bytes, its name for people and the limits, and gives one call for each page, which decodes
it. What is damaged, too large or cut short raises, by itself or where it is decoded.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

from PIL import ExifTags, Image, UnidentifiedImageError, features
from PIL.TiffImagePlugin import TiffImageFile

from pulse_edge.errors import PageRefused, PulseEdgeError, ScanError
from pulse_edge.page import truncation

MAX_PIXELS = 100_000_000
"""Of a page, checked before it is decoded. An A4 sheet at 600 dpi has 35 million."""
HALVED = 40_000_000
"""Pixels from which on a page is halved where it is decoded, by means of 2 x 2: A3 at 600 dpi becomes A3 at 300 dpi. An A4
sheet at 600 dpi stays as it is."""
MAX_PAGES = 100
AS_PNG = "Export the page as PNG (300 dpi is plenty)."
SMALLER = "Save it again as PNG at 300 dpi: that is 9 million pixels for an A4 page."
AGAIN = "Copy the file again, or scan the page again, or export it as PNG."


@dataclass(frozen=True)
class Limits:
    """What a file may ask for."""

    pixels: int = MAX_PIXELS
    """Of one page."""
    pages: int = MAX_PAGES


Decode = Callable[[], Image.Image]
"""Gives a page: RGB, upright, without metadata."""


def cut_short(name: str, what: str, why: str | None) -> None:
    """Raise ScanError where there is a reason why a file is cut short."""
    if why is not None:
        raise ScanError(f"{name}: is {what} that is cut short: {why}. {AGAIN}")


def needs(module: str, extra: str, name: str, what: str) -> None:
    """Raise ScanError, with what to install, where a library for a kind of file is missing."""
    if find_spec(module) is None:
        raise not_installed(module, extra, name, what)


def not_installed(module: str, extra: str, name: str, what: str) -> ScanError:
    """A library for a kind of file is missing: what to install."""
    return ScanError(
        f"{name}: is {what}, and {module.replace('_', '-')} is not installed. "
        f"Install it (pip install 'pulse-edge[{extra}]'), or export the page as PNG."
    )


def reason(error: Exception, name: str, what: str, limits: Limits) -> PulseEdgeError:
    """The project's own error for whatever a decoder raised: damaged files bring out any exception there is."""
    if isinstance(error, PulseEdgeError):
        return error
    if isinstance(
        error, Image.DecompressionBombError
    ):  # Pillow's own limit, twice ours, comes before our look
        pixels = re.search(r"\d+", str(error))
        return too_large(name, int(pixels[0]) if pixels else limits.pixels, limits)
    if isinstance(error, MemoryError):
        return PageRefused(f"{name}: takes more memory to read than a page may. {SMALLER}")
    why = short(error)
    if isinstance(error, UnidentifiedImageError):
        why = "its header makes no sense"
    elif isinstance(error, RecursionError):
        why = "it is nested too deeply"
    return ScanError(
        f"{name}: is a {what} that is cut short, damaged or of a rare kind ({why}). "
        f"Copy or scan the page again, or export it as PNG."
    )


def short(error: object) -> str:
    """What an error or a warning says, in one line of 120 characters at most."""
    return (" ".join(str(error).split()) or type(error).__name__)[:120]


def numbered(name: str, number: int, count: int) -> str:
    """A page's name: that of its file, with its number where there are several."""
    return f"{name}#{number}" if count > 1 else name


# ------------------------------------------------------------------------------------------------ one file, one page


def picture(fmt: str, data: bytes, name: str, limits: Limits) -> list[Decode]:
    """The one picture of a BMP, WebP, PNG or JPEG."""
    return [partial(_picture, fmt, data, name, limits)]


def _picture(fmt: str, data: bytes, name: str, limits: Limits) -> Image.Image:
    # A phone's JPEG may hold a preview or a depth map behind the photograph (MPO): not an animation.
    with Image.open(io.BytesIO(data), formats=[fmt]) as image:
        if fmt != "JPEG" and getattr(image, "is_animated", False):
            raise ScanError(f"{name}: is an animation, and a page is one still picture. {AS_PNG}")
        return page(image, name, limits)


def png(data: bytes, name: str, limits: Limits) -> list[Decode]:
    """The picture of a PNG, whose checksums are looked at too: Pillow stops reading at the last pixel."""

    def decode() -> Image.Image:
        found = _picture("PNG", data, name, limits)
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            image.verify()
        return found

    return [decode]


def bmp(data: bytes, name: str, limits: Limits) -> list[Decode]:
    """The picture of a BMP. One with run lengths must end in its end mark: Pillow fills up what is missing."""
    packed = int.from_bytes(data[30:34], "little") in (1, 2) and data[14:18] != b"\x0c\0\0\0"
    if packed and data.rstrip(b"\0")[-1:] != b"\1":  # 0 1 ends it
        cut_short(name, "a BMP", truncation.HOLE)

    def decode() -> Image.Image:
        found = _picture("BMP", data, name, limits)
        if not packed:
            check_tail(
                found, [memoryview(data)[int.from_bytes(data[10:14], "little") :]], name, "a BMP"
            )
        return found

    return [decode]


def check_tail(found: Image.Image, pixels: list[memoryview], name: str, what: str) -> None:
    """Raise ScanError where pixels that are not compressed end in zeros, and the page in a band of their colour.

    `pixels`: pieces of the file in their order. A 50th of them is looked for: black edges of scanned pages are as long.
    """
    tail = 0
    for piece in reversed(pixels):
        zeros = truncation.blank_tail(piece)
        tail += zeros
        if zeros < len(piece):
            break
    if tail and tail >= sum(map(len, pixels)) // 50:
        import numpy as np

        from pulse_edge.page import unfilled as fill

        if fill.unfilled(np.asarray(found), sure=0.0):
            cut_short(name, what, truncation.HOLE)


def webp(data: bytes, name: str, limits: Limits) -> list[Decode]:
    """The picture of a WebP, whose size is looked at first: libwebp takes the memory when it is opened."""
    if size := truncation.webp_size(data):
        check_size(size, name, limits)
    cut_short(name, "a WebP picture", truncation.webp(data))
    return picture("WEBP", data, name, limits)


def jpeg(data: bytes, name: str, limits: Limits) -> list[Decode]:
    """The picture of a JPEG, whole.

    Where the data stop early libjpeg fills up with grey, and Pillow does not say so.
    """

    def decode() -> Image.Image:
        found = _picture("JPEG", data, name, limits)
        if not whole_jpeg(data):
            raise ScanError(
                f"{name}: is a JPEG whose lower part is missing. Copy or take the picture again."
            )
        return found

    return [decode]


_NOISE = bytes(n * 73 % 251 for n in range(2048))
_FILLING = _NOISE + b"".join(
    bytes([0xFF, 0xD0 + n]) + _NOISE for n in range(8)
)  # behind each restart marker too


def whole_jpeg(data: bytes) -> bool:
    """Whether a JPEG's data reach to its last block.

    Bytes slipped in before the end marker tell: behind a whole picture they are skipped, in a picture with a hole they
    become part of it.
    """
    end = truncation.jpeg_end(data)
    return end >= 0 and _thumbnail(data[:end]) == _thumbnail(data[:end] + _FILLING)


def _thumbnail(jpeg: bytes) -> bytes:
    """Grey pixels of a JPEG without its end marker: one in eight, which is much faster, or all of a progressive one."""
    with Image.open(io.BytesIO(jpeg + b"\xff\xd9"), formats=["JPEG"]) as image:
        if "progressive" not in image.info:  # what is missing there may show in fine detail only
            image.draft("L", (max(1, image.width // 8), max(1, image.height // 8)))
        return image.tobytes()


def gif(data: bytes, name: str, limits: Limits) -> list[Decode]:
    """The first picture of a GIF: those behind it blink, or show later states of the first."""
    cut_short(name, "a GIF", truncation.gif(data))

    def decode() -> Image.Image:
        with Image.open(io.BytesIO(data), formats=["GIF"]) as image:
            return page(image, name, limits)

    return [decode]


def avif(data: bytes, name: str, limits: Limits) -> list[Decode]:
    """The picture of an AVIF, where Pillow was built with its library."""
    if not features.check("avif"):
        raise ScanError(
            f"{name}: is an AVIF picture, which the Pillow of this machine does not read. {AS_PNG}"
        )
    from PIL import AvifImagePlugin

    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # each thread takes address space, which is bounded
    cut_short(name, "an AVIF picture", truncation.avif(data))
    return picture("AVIF", data, name, limits)


def heic(data: bytes, name: str, limits: Limits) -> list[Decode]:
    """The main picture of a phone's HEIC."""
    needs("pillow_heif", "heic", name, "a HEIC picture")
    cut_short(name, "a HEIC picture", truncation.heic(data))
    import pillow_heif

    pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)

    def decode() -> Image.Image:
        with Image.open(
            io.BytesIO(data), formats=["HEIF"]
        ) as image:  # turned already: its EXIF says 1 by now
            return page(image, name, limits)

    return [decode]


# ---------------------------------------------------------------------------------------------------------------- TIFF


def tiff(data: bytes, name: str, limits: Limits) -> list[Decode]:
    """Every page of a TIFF but smaller copies of others and masks."""
    places = []
    with Image.open(io.BytesIO(data), formats=["TIFF"]) as image:
        assert isinstance(image, TiffImageFile)
        for n in range(
            limits.pages + 1
        ):  # not n_frames: counting millions of empty pages takes for ever
            try:
                image.seek(n)
            except EOFError:
                break
            if n == limits.pages:
                raise too_many_pages(name, limits)
            # NewSubfileType and SubfileType: a smaller copy of another page, or a mask for it.
            if not (image.tag_v2.get(254, 0) & 0b101 or image.tag_v2.get(255) == 2):
                places.append(n)
    if not places:
        raise ScanError(f"{name}: holds a preview only, as raw files of cameras do. {AS_PNG}")
    return [
        partial(_tiff_page, data, numbered(name, number, len(places)), limits, place)
        for number, place in enumerate(places, 1)
    ]


def _tiff_page(data: bytes, name: str, limits: Limits, place: int) -> Image.Image:
    with Image.open(io.BytesIO(data), formats=["TIFF"]) as image:
        assert isinstance(image, TiffImageFile)
        image.seek(place)
        tags = image.tag_v2
        compression = tags.get(259, 1)
        offsets, lengths = tags.get(273, tags.get(324, ())), tags.get(279, tags.get(325, ()))
        parts = list(zip(offsets, lengths, strict=False))
        if compression != 1:  # Pillow itself finds raw pixels too short
            cut_short(
                name, "a TIFF", truncation.strips(data, parts, ones=compression not in (2, 3, 4))
            )
            if compression == 7 and not bytes(tags.get(347, b"\xff\xd9")).endswith(b"\xff\xd9"):
                cut_short(
                    name, "a TIFF", truncation.HOLE
                )  # tables for all JPEG strips, which may lie at the file's end
        found = page(image, name, limits)
    if compression == 1:
        pieces = [memoryview(data)[offset : offset + length] for offset, length in parts]
        check_tail(found, pieces, name, "a TIFF")
    return found


def too_many_pages(name: str, limits: Limits, count: int | None = None) -> PageRefused:
    """More pages than a file may have; `count` of them, where that is known."""
    many = (
        f"more than {limits.pages} pages, the limit"
        if count is None
        else f"{count} pages; {limits.pages} is the limit"
    )
    return PageRefused(f"{name}: has {many}. Save the ECG pages as a file of their own.")


# ------------------------------------------------------------------------------------------ open image -> RGB page


def page(image: Image.Image, name: str, limits: Limits) -> Image.Image:
    """An open picture as RGB, upright, without metadata."""
    check_size(image.size, name, limits)
    tiff: dict[int, Any] = dict(
        getattr(image, "tag_v2", {})
    )  # before `load`, which turns a TIFF and drops that tag
    image.load()
    found = (
        _halved(image, name, tiff)
        if image.width * image.height > HALVED
        else _rgb(image, name, tiff)
    )
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a damaged EXIF block does not make a good picture unreadable
        turn = None
    if turn is not None:
        found = found.transpose(turn)
    found = _square_pixels(found, image, name, tiff, limits)
    found.info.clear()
    return found


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def check_size(size: tuple[int, int], name: str, limits: Limits) -> None:
    """Raise where a page has no pixels, or more than the limit."""
    if min(size) < 1:
        raise ScanError(
            f"{name}: has no pixels ({size[0]} x {size[1]}). Copy or scan the page again."
        )
    if size[0] * size[1] > limits.pixels:
        raise too_large(name, size[0] * size[1], limits, f" ({size[0]} x {size[1]})")


def too_large(name: str, pixels: int, limits: Limits, size: str = "") -> PageRefused:
    """More pixels than a page may have."""
    return PageRefused(
        f"{name}: has {pixels:,} pixels{size}; {limits.pixels:,} is the limit. {SMALLER}"
    )


def _rgb(image: Image.Image, name: str, tiff: dict[int, Any]) -> Image.Image:
    """A new RGB image: what `convert("RGB")` gives, where that is right.

    A wide-gamut profile is not applied: the model was trained on the bare numbers of `convert("RGB")`.
    """
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        image = Image.fromarray(_eight_bits(image, name, tiff))
    if image.mode == "La":
        image = image.convert("LA")  # the only way on from grey with the alpha multiplied in
    # An alpha of zeros everywhere is one that nobody filled in: 32-bit BMPs are full of them.
    unfilled = (
        image.format == "BMP"
        and image.mode == "RGBA"
        and image.getchannel("A").getextrema()[1] == 0
    )
    if not image.has_transparency_data or unfilled:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    paper = Image.new("RGB", layer.size, "white")
    paper.paste(layer, mask=layer)
    return paper


def _halved(image: Image.Image, name: str, tiff: dict[int, Any]) -> Image.Image:
    """`_rgb` of a large picture, half as wide and high; before the copies are made, where its mode can be averaged."""
    if image.mode in ("L", "RGB") and not image.has_transparency_data:
        return image.reduce(2).convert("RGB")
    return _rgb(image, name, tiff).reduce(2)


def _eight_bits(image: Image.Image, name: str, tiff: dict[int, Any]) -> Any:
    """(H, W) uint8 grey of a picture with more than 8 bits; `convert` would cut everything above 255 off."""
    import numpy as np  # 40 ms, for pictures that few files hold

    values = np.asarray(image)
    # Nothing says which number of these is black and which is white, and by the smallest and largest one a single speck
    # would decide. A PIL "I" in 16-bit range is Pillow's other way of holding 16 bits; a TIFF's is signed or 32 bit.
    signed_or_wide = image.mode == "I" and (bool(tiff) or values.min() < 0 or values.max() > 0xFFFF)
    if image.mode == "F" or signed_or_wide:
        raise ScanError(
            f"{name}: has grey values of an unknown range (mode {image.mode}). Save it as an 8-bit PNG."
        )
    bits = tiff.get(258, (16,))[0]
    # The low bits are dropped, as Pillow does for 16-bit RGB.
    grey = (values >> (bits - 8)).astype(np.uint8)
    if tiff.get(262) == 0:
        grey = 255 - grey  # 0 is white: Pillow inverts up to 8 bits, and forgets it for 16
    if isinstance(clear := image.info.get("transparency"), int):
        grey[values == clear] = 255
    return grey


_FAX = 1.9, 2.2
"""Between these lie 204 x 98, 203 x 98 and 200 x 100 dpi."""


def _resolution(image: Image.Image, tiff: dict[int, Any]) -> tuple[float, float]:
    """Pixels for a length across and down, in whatever unit; (1, 1) where a picture does not say."""
    found = (
        (tiff.get(282, 1), tiff.get(283, 1))
        if tiff
        else image.info.get("dpi") or image.info.get("jfif_density")
    )
    try:
        across, down = (float(value) for value in found or image.info.get("aspect") or (1, 1))
    except (TypeError, ValueError, ZeroDivisionError):
        return 1.0, 1.0
    return (across, down) if math.isfinite(across) and math.isfinite(down) else (1.0, 1.0)


def _square_pixels(
    page: Image.Image, image: Image.Image, name: str, tiff: dict[int, Any], limits: Limits
) -> Image.Image:
    """Stretch a fax: sent at 204 x 98 dpi it arrives at half its height, as whatever kind of picture its server makes of it.

    Other pictures' resolutions are often wrong; where this one is, the page's grid will tell.
    """
    across, down = _resolution(image, tiff)
    ratio = max(across, down) / min(across, down) if min(across, down) > 0 else 1.0
    if not (1.5 < ratio < 3 if image.mode == "1" else _FAX[0] < ratio < _FAX[1]):
        return page
    if tiff.get(274, 1) >= 5:  # lies on its side
        across, down = down, across
    best = max(across, down)
    size = round(page.width * best / across), round(page.height * best / down)
    check_size(size, name, limits)
    return page.resize(size, Image.Resampling.BICUBIC)
