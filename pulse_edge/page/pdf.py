"""A PDF's pages, rendered by pdfium at 300 dpi, with filled-in form fields.

Runs in the process that decodes (decoder_worker.py): the text layer is never read.

pdfium cannot be interrupted: a page of a few hundred bytes may ask for more drawing than a year has
time for. It also draws a picture that is cut short as far as its data go, so the data of each
picture are checked.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

from PIL import Image

from pulse_edge.errors import ScanError
from pulse_edge.page import file_errors, pictures, truncation
from pulse_edge.page.file_errors import AS_PNG, Limits
from pulse_edge.page.pictures import Decode

DPI = 300
"""Resolution at which a page is rendered, unless a picture on it is finer."""
LONGEST = 3600
"""Pixels of the longer side at most: an A4 page at 300 dpi has 3508. A scan that is wrapped as a
page of 2200 x 1700 points comes out at the size of a sheet."""
_SMALL = 420
"""Points of the longer side below which a page may be in another unit (UserUnit): 15 cm are too
short for a 12-lead ECG."""
_COVERS = 0.25
"""Share of the page from which on a picture's own resolution counts: a logo does not make a page
finer."""


def pages(data: bytes, name: str, limits: Limits) -> list[Decode]:
    """Open every page of a PDF."""
    file_errors.require_library("pypdfium2", "pdf", name, "a PDF")
    import pypdfium2

    file_errors.raise_if_cut_short(name, "a PDF", truncation.pdf(data))
    try:
        document = pypdfium2.PdfDocument(data)
        with contextlib.suppress(
            pypdfium2.PdfiumError
        ):  # a page without its fields is better than no page
            document.init_forms()
        count = len(document)
    except pypdfium2.PdfiumError as e:
        raise _damage_error(name, e) from e
    if count > limits.pages:
        raise file_errors.too_many_pages(name, limits, count)
    if not count:
        raise ScanError(f"{name}: is a PDF without pages. Save it again. {AS_PNG}")
    return [
        partial(_page, document, n, file_errors.page_name(name, n + 1, count), limits)
        for n in range(count)
    ]


def _page(document: Any, n: int, name: str, limits: Limits) -> Image.Image:
    import pypdfium2

    try:
        page = document[n]
        width, height = page.get_size()
        if not (0 < width < 1e6 and 0 < height < 1e6):
            raise ScanError(f"{name}: is a page of a PDF that has no size. Save it again. {AS_PNG}")
        dots = DPI / 72
        if max(width, height) < _SMALL:
            dots *= _user_unit(document, n)
        for picture in _pictures(page):
            file_errors.raise_if_cut_short(
                name, "a page of a PDF with a picture", _truncation(picture)
            )
            dots = max(dots, _dots(picture, width * height))
        scale = min(dots, LONGEST / max(width, height)) * (1 - 1e-7)  # pdfium rounds up
        file_errors.check_size(
            (max(1, round(width * scale)), max(1, round(height * scale))), name, limits
        )
        rendered: Image.Image = (
            page.render(scale=scale, rev_byteorder=True, prefer_bgrx=False).to_pil().convert("RGB")
        )
        page.close()
    except pypdfium2.PdfiumError as e:
        raise _damage_error(name, e) from e
    return rendered


def _user_unit(document: Any, n: int) -> float:
    """Return the 72nds of an inch that a page's unit stands for, 1 and more.

    pdfium ignores it, and its API does not give it. A copy of the page alone, which pdfium writes
    in plain text, shows it.
    """
    import pypdfium2

    copy, file = pypdfium2.PdfDocument.new(), io.BytesIO()
    try:
        copy.import_pages(document, [n])
        copy.save(file)
    finally:
        copy.close()
    unit = re.search(rb"/UserUnit\s+(\d{1,6}(?:\.\d{1,6})?)", file.getbuffer())
    return max(1.0, float(unit[1])) if unit else 1.0


def _dots(picture: Any, area: float) -> float:
    """Return the pixels of a picture for a point of the page.

    It is 0 where it covers little of the page's `area`.
    """
    import pypdfium2

    try:
        left, bottom, right, top = picture.get_bounds()
        across, down = picture.get_px_size()
    except pypdfium2.PdfiumError:
        return 0.0
    wide, high = right - left, top - bottom
    if min(wide, high) <= 0 or wide * high < _COVERS * area:
        return 0.0
    return float(max(max(across, down) / max(wide, high), min(across, down) / min(wide, high)))


def _damage_error(name: str, error: Exception) -> ScanError:
    """Return the error for a PDF that pdfium cannot read."""
    why = " ".join(str(error).split()) or type(error).__name__
    if "password" in why.lower():
        return ScanError(
            f"{name}: is a PDF locked with a password. Save it again without one. {AS_PNG}"
        )
    return ScanError(
        f"{name}: is a PDF that is cut short, damaged or empty ({why[:120]}). Save it again. "
        f"{AS_PNG}"
    )


_OBJECTS = 20_000
"""Objects of a page that are searched for pictures, which takes a tenth of a second. An ECG of
lines has some thousands."""


def _pictures(page: Any) -> Iterator[Any]:
    import pypdfium2

    for n, page_object in enumerate(page.get_objects(max_depth=4)):
        if n >= _OBJECTS:
            return
        if isinstance(page_object, pypdfium2.PdfImage):
            yield page_object


def _truncation(picture: Any) -> str | None:
    """Return why a picture in a PDF is cut short, None where it is whole."""
    filters = picture.get_filters()
    last = filters[-1] if filters else ""
    if last in ("DCTDecode", "DCT"):
        return None if pictures.whole_jpeg(_data(picture, filters)) else truncation.MISSING_PART
    if last == "JPXDecode":
        return truncation.jpeg2000(_data(picture, filters))
    if last in ("CCITTFaxDecode", "CCF", "JBIG2Decode"):
        return truncation.compressed(_data(picture, filters), ones=False)
    return _too_few_pixels(picture)


def _data(picture: Any, filters: list[str]) -> bytes:
    """Return the bytes that a compressed picture would have in a file of its own."""
    return bytes(picture.get_data(decode_simple=len(filters) > 1))


_SLACK = 1024
"""Bytes that may follow the last pixel."""


def _too_few_pixels(picture: Any) -> str | None:
    """Return why an unpacked picture is cut short: no number of bits and channels fits its count of
    bytes."""
    import pypdfium2.raw as pdfium

    width, height, metadata = ctypes.c_uint(), ctypes.c_uint(), pdfium.FPDF_IMAGEOBJ_METADATA()
    if not pdfium.FPDFImageObj_GetImagePixelSize(picture, width, height):
        return None
    length = pdfium.FPDFImageObj_GetImageDataDecoded(picture, None, 0)
    sizes = {
        (width.value * bits * n + 7) // 8 * height.value
        for bits in (1, 2, 4, 8, 16)
        for n in (1, 3, 4)
    }
    if any(size <= length <= size + _SLACK for size in sizes):
        return None
    if not pdfium.FPDFImageObj_GetImageMetadata(picture, picture.page.raw, metadata):
        return None
    expected = (width.value * metadata.bits_per_pixel + 7) // 8 * height.value
    return truncation.MISSING_PART if length < expected else None
