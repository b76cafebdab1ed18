"""Any picture file a clinic has -> an upright RGB page without metadata."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import PageRefused, ScanError

MAX_PIXELS = 100_000_000
"""Larger pages are refused before they are decoded: an A4 sheet at 600 dpi has 35 million."""
MAX_BYTES = 1 << 28
_FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP")
_OTHERS = ((b"%PDF", "a PDF"), (b"GIF8", "a GIF"), (b"ftypheic", "HEIC"), (b"ftypmif1", "HEIC"), (b"DICM", "DICOM"))
_RESAVE = "Export the page as PNG or JPEG."
_BROKEN = (OSError, ValueError, SyntaxError, EOFError, struct.error, IndexError, KeyError, TypeError, OverflowError)


@dataclass(frozen=True)
class Page:
    """A page: RGB, upright by EXIF, without metadata."""

    image: Image.Image
    sha256: str
    """Of the file's bytes; of size and pixels where an image was given."""
    name: str
    """For people: the path as given, `-` for standard input, `#2` behind it for the second page of a file."""


def read(source: str | os.PathLike[str] | Image.Image) -> Page:
    """The only page of `source`. Raises ScanError (several pages too: see `read_all`) and PageRefused."""
    pages = read_all(source)
    if len(pages) > 1:
        raise ScanError(f"{source}: has {len(pages)} pages. Read them with scan.read_all.")
    return pages[0]


def read_all(source: str | os.PathLike[str] | Image.Image) -> list[Page]:
    """Every page of a file (several in a TIFF only), of `-` for standard input, or of an open image."""
    if isinstance(source, Image.Image):
        page = _rgb(ImageOps.exif_transpose(source), "image")
        digest = hashlib.sha256(f"{page.width}x{page.height}".encode() + page.tobytes()).hexdigest()
        return [Page(page, digest, "image")]
    name = os.fspath(source)
    data = _bytes(name)
    digest = hashlib.sha256(data).hexdigest()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        images = _decode(data, name)
    several = len(images) > 1
    return [Page(image, digest, f"{name}#{i}" if several else name) for i, image in enumerate(images, 1)]


def _bytes(name: str) -> bytes:
    try:
        if name == "-":
            data = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            path = Path(name)
            if path.exists() and not path.is_file():
                raise ScanError(f"{name}: is no file. Name the picture itself.")
            with open(path, "rb") as f:
                data = f.read(MAX_BYTES + 1)
    except OSError as e:
        raise ScanError(f"{name}: cannot be read ({e.strerror}). Check the name and its permissions.") from None
    if not data:
        raise ScanError(f"{name}: is empty. Copy or take the picture again.")
    if len(data) > MAX_BYTES:
        raise PageRefused(f"{name}: is larger than {MAX_BYTES >> 20} MiB. {_RESAVE}")
    return data


def _decode(data: bytes, name: str) -> list[Image.Image]:
    Image.init()  # all plugins: `formats` names some that PIL does not load by itself
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            frames = getattr(image, "n_frames", 1)
            if getattr(image, "is_animated", False) and image.format not in ("TIFF", "MPO"):
                raise ScanError(f"{name}: is an animation, not a page. {_RESAVE}")
            # A phone's MPO holds a preview behind the photograph.
            count = frames if image.format == "TIFF" else 1
            pages = []
            for i in range(count):
                image.seek(i)
                _check_size(image.size, name)
                image.load()
                pages.append(_rgb(_upright(image), name))
            return pages
    except UnidentifiedImageError:
        kind = next((k for magic, k in _OTHERS if magic in data[:144]), "no picture that this version reads")
        raise ScanError(f"{name}: is {kind} (JPEG, PNG, TIFF, BMP and WebP are read). {_RESAVE}") from None
    except Image.DecompressionBombError:
        raise PageRefused(f"{name}: has more than {MAX_PIXELS:,} pixels. Save it smaller.") from None
    except _BROKEN as e:
        raise ScanError(f"{name}: is truncated or damaged ({e}). Copy or take the picture again.") from None


def _check_size(size: tuple[int, int], name: str) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise PageRefused(f"{name}: {size[0]} x {size[1]} pixels, more than {MAX_PIXELS:,}. Save it smaller.")
    if min(size) < 1:
        raise ScanError(f"{name}: has no pixels. Take the picture again.")


def _upright(image: Image.Image) -> Image.Image:
    """Turned by EXIF; a damaged EXIF block does not make a good picture unreadable."""
    try:
        return ImageOps.exif_transpose(image)
    except _BROKEN:
        return image


def _rgb(image: Image.Image, name: str) -> Image.Image:
    """RGB over white paper. A wide-gamut profile is left alone, as in the model's training (PIL's convert)."""
    _check_size(image.size, name)
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))  # convert() would clip at 255
    elif image.mode in ("I", "F"):
        values = np.asarray(image, np.float64)
        low, high = (
            (0.0, 65535.0) if image.mode == "I" and 255 < values.max() <= 65535 else (values.min(), values.max())
        )
        scaled = (values - low) * (255 / (high - low)) if high > low else np.full_like(values, 255)
        image = Image.fromarray(scaled.astype(np.uint8))
    if "A" in image.mode or "a" in image.mode or "transparency" in image.info:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    page = image.convert("RGB")
    clean = Image.new("RGB", page.size)
    clean.paste(page)
    return clean
