"""A PDF's pages, drawn by pdfium at 300 dpi. Runs in the process that decodes (decoder.py): the text layer is never read.

pdfium cannot be stopped from inside: a page of a few hundred bytes may ask for more drawing than a year has time for.
It also draws what it can get of a picture that is cut short, so each picture's own data are looked at.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from functools import partial
from typing import Any

from PIL import Image

from . import pictures, whole
from .errors import ScanError
from .pictures import AS_PNG, Decode, Limits

DPI = 300
LONGEST = 3600
"""Pixels of the longer side at most: an A4 page at 300 dpi has 3508. A scan wrapped as a page of 2200 x 1700 points, as
if it were metres of paper, comes out at the size of a sheet."""


def pages(data: bytes, name: str, limits: Limits) -> list[Decode]:
    """Every page of a PDF."""
    pictures.needs("pypdfium2", "pdf", name, "a PDF")
    import pypdfium2

    pictures.cut_short(name, "a PDF", whole.pdf(data))
    try:
        document = pypdfium2.PdfDocument(data)
        count = len(document)
    except pypdfium2.PdfiumError as e:
        raise _damaged(name, e) from e
    if count > limits.pages:
        raise pictures.too_many_pages(name, limits)
    if not count:
        raise ScanError(f"{name}: is a PDF without pages. Save it again. {AS_PNG}")
    return [partial(_page, document, n, pictures.numbered(name, n + 1, count), limits) for n in range(count)]


def _page(document: Any, n: int, name: str, limits: Limits) -> Image.Image:
    import pypdfium2

    try:
        page = document[n]
        width, height = page.get_size()
        if not (0 < width < 1e6 and 0 < height < 1e6):
            raise ScanError(f"{name}: is a page of a PDF that has no size. Save it again. {AS_PNG}")
        scale = min(DPI / 72, LONGEST / max(width, height)) * (1 - 1e-7)  # pdfium rounds up
        pictures.check_size((max(1, round(width * scale)), max(1, round(height * scale))), name, limits)
        for picture in _pictures(page):
            pictures.cut_short(name, "a page of a PDF with a picture", _hole(picture))
        drawn: Image.Image = page.render(scale=scale, rev_byteorder=True, prefer_bgrx=False).to_pil().convert("RGB")
        page.close()
    except pypdfium2.PdfiumError as e:
        raise _damaged(name, e) from e
    return drawn


def _damaged(name: str, error: Exception) -> ScanError:
    why = " ".join(str(error).split()) or type(error).__name__
    if "password" in why.lower():
        return ScanError(f"{name}: is a PDF locked with a password. Save it again without one. {AS_PNG}")
    return ScanError(f"{name}: is a PDF that is cut short, damaged or empty ({why[:120]}). Save it again. {AS_PNG}")


_OBJECTS = 20_000
"""Objects of a page that are looked at for pictures: a tenth of a second. A drawn ECG has some thousands."""


def _pictures(page: Any) -> Iterator[Any]:
    import pypdfium2

    for n, found in enumerate(page.get_objects(max_depth=4)):
        if n >= _OBJECTS:
            return
        if isinstance(found, pypdfium2.PdfImage):
            yield found


def _hole(picture: Any) -> str | None:
    """Why a picture in a PDF is cut short."""
    filters = picture.get_filters()
    last = filters[-1] if filters else ""
    if last in ("DCTDecode", "DCT"):
        return None if pictures.whole_jpeg(_data(picture, filters)) else whole.HOLE
    if last == "JPXDecode":
        return whole.jpeg2000(_data(picture, filters))
    if last in ("CCITTFaxDecode", "CCF", "JBIG2Decode"):
        return whole.compressed(_data(picture, filters), ones=False)
    return _too_few_pixels(picture)


def _data(picture: Any, filters: list[str]) -> bytes:
    """A compressed picture as it would stand in a file of its own."""
    return bytes(picture.get_data(decode_simple=len(filters) > 1))


_SLACK = 1024
"""Bytes that may follow the last pixel."""


def _too_few_pixels(picture: Any) -> str | None:
    """Why unpacked pixels are fewer than the picture's size asks for: no number of bits and channels fits their count."""
    import pypdfium2.raw as pdfium

    width, height, about = ctypes.c_uint(), ctypes.c_uint(), pdfium.FPDF_IMAGEOBJ_METADATA()
    if not pdfium.FPDFImageObj_GetImagePixelSize(picture, width, height):
        return None
    length = pdfium.FPDFImageObj_GetImageDataDecoded(picture, None, 0)
    sizes = {(width.value * bits * n + 7) // 8 * height.value for bits in (1, 2, 4, 8, 16) for n in (1, 3, 4)}
    if any(size <= length <= size + _SLACK for size in sizes):
        return None
    if not pdfium.FPDFImageObj_GetImageMetadata(picture, picture.page.raw, about):
        return None
    wanted = (width.value * about.bits_per_pixel + 7) // 8 * height.value
    return whole.HOLE if length < wanted else None
