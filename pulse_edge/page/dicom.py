"""DICOM files -> pages: a waveform read by `dicom_waveform` and drawn by `waveform`, an encapsulated PDF, or pictures.

Runs in the process that decodes: see decoder_worker.py.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pulse_edge.errors import PageRefused, ScanError
from pulse_edge.page import dicom_waveform, ecg_plot, pdf, pictures, truncation
from pulse_edge.page.pictures import AS_PNG, Decode, Limits

_DEFLATED = b"1.2.840.10008.1.2.1.99"
_ENCAPSULATED_PDF = "1.2.840.10008.5.1.4.1.1.104.1"
_JPEG = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")
"""Baseline and extended."""
_MARKED = "1.2.840.10008.1.2.4."
"""Of all that is JPEG, JPEG-LS or JPEG 2000: ends with an end marker."""
_RLE = "1.2.840.10008.1.2.5"


def pages(data: bytes, name: str, limits: Limits) -> Sequence[Decode | ecg_plot.Draw]:
    """A 12-lead waveform drawn as pages, the pages of an encapsulated PDF, or the pictures."""
    pictures.needs("pydicom", "dicom", name, "a DICOM file")
    import pydicom

    if _DEFLATED in data:  # pydicom unpacks it whole, however large it becomes
        raise ScanError(f"{name}: is a DICOM file in deflated form, which is not read. {AS_PNG}")
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    # Without preamble a file begins with its first element, or with the mark that follows the preamble.
    found = pydicom.dcmread(io.BytesIO(data.removeprefix(b"DICM")), force=True)
    if "WaveformSequence" in found:
        return ecg_plot.pages(dicom_waveform.recording(found, name))
    if found.get("SOPClassUID") == _ENCAPSULATED_PDF:
        return pdf.pages(bytes(found.EncapsulatedDocument).rstrip(b"\0"), name, limits)
    if "PixelData" in found:
        return _captures(found, name, limits)
    raise ScanError(f"{name}: is a DICOM file with neither an ECG nor a picture in it. {AS_PNG}")


def _captures(found: Any, name: str, limits: Limits) -> list[Decode]:
    """Secondary captures: RGB or grey, each frame a page."""
    frames = max(1, int(found.get("NumberOfFrames", 1) or 1))
    if frames > limits.pages:
        raise PageRefused(
            f"{name}: has {frames} pictures; {limits.pages} is the limit. Export the ECG page alone."
        )
    pictures.check_size((int(found.Columns), int(found.Rows)), name, limits)
    if not _syntax(found):
        raise ScanError(f"{name}: does not say how its picture is packed. {AS_PNG}")
    return [
        partial(_capture, found, n, pictures.numbered(name, n + 1, frames), limits)
        for n in range(frames)
    ]


def _syntax(found: Any) -> str:
    return str(getattr(getattr(found, "file_meta", None), "TransferSyntaxUID", ""))


def _capture(found: Any, n: int, name: str, limits: Limits) -> Image.Image:
    from pydicom.pixels import apply_color_lut, pixel_array

    _check_frame(found, n, name)
    pixels = np.asarray(pixel_array(found, index=n))
    kind = str(found.PhotometricInterpretation)
    if kind.startswith("MONOCHROME"):
        grey = _grey(pixels, found, name)
    else:
        bits = int(found.BitsStored)
        if kind == "PALETTE COLOR":
            pixels = np.asarray(apply_color_lut(pixels, found))
            bits = int(found.RedPaletteColorLookupTableDescriptor[2])
        if pixels.dtype.kind not in "ui" or int(found.get("PixelRepresentation", 0)):
            raise _unknown_range(name)
        grey = (pixels >> (bits - 8) if bits > 8 else pixels).astype(np.uint8)
    page = pictures.page(Image.fromarray(grey), name, limits)
    if not _packed(found):
        length = len(found.PixelData) // max(1, int(found.get("NumberOfFrames", 1) or 1))
        pictures.check_tail(
            page,
            [memoryview(found.PixelData)[n * length : (n + 1) * length]],
            name,
            "a DICOM picture",
        )
    return _square(page, found, name, limits)


def _unknown_range(name: str) -> ScanError:
    return ScanError(f"{name}: has grey values of an unknown range. {AS_PNG}")


def _grey(pixels: npt.NDArray[Any], found: Any, name: str) -> npt.NDArray[np.uint8]:
    """(H, W): what a viewer shows, by the file's own window and polarity (PS3.3 C.7.6.3, C.11.1, C.11.2).

    Every stored number is looked up in a table: to reckon with each pixel would take eight times the memory.
    """
    bits, signed = int(found.BitsStored), bool(int(found.get("PixelRepresentation", 0) or 0))
    if pixels.dtype.kind not in "ui" or not 1 <= bits <= 16:
        raise _unknown_range(name)
    table = _window(found, bits, signed)
    if table is None:
        if signed:
            raise _unknown_range(name)
        # 8 bits in the room of more, without a word of that: paper would be as dark as ink.
        used = 8 if bits > 8 and int(pixels.max()) < 256 else bits
        numbers = np.arange(1 << bits)
        shown = numbers >> (used - 8) if used >= 8 else numbers * 255 // ((1 << used) - 1)
        table = np.minimum(shown, 255).astype(np.uint8)
    # MONOCHROME1 always comes with INVERSE: both together turn the picture once.
    shape = str(found.get("PresentationLUTShape", "") or "").strip().upper()
    if str(found.PhotometricInterpretation) == "MONOCHROME1" or shape == "INVERSE":
        table = 255 - table
    return np.asarray(table[pixels.astype(np.uint16, copy=False) & ((1 << bits) - 1)], np.uint8)


def _window(found: Any, bits: int, signed: bool) -> npt.NDArray[np.uint8] | None:
    """(2 ** bits,): grey of each stored number, a negative one behind the positive ones; None without window and rescaling."""
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    lookup, window = (
        found.get("VOILUTSequence"),
        found.get("WindowWidth") is not None and "WindowCenter" in found,
    )
    rescaled = bool(found.get("ModalityLUTSequence")) or (
        "RescaleSlope" in found and "RescaleIntercept" in found
    )
    if not (lookup or window or rescaled):
        return None
    numbers = np.arange(-(1 << (bits - 1)), 1 << (bits - 1)) if signed else np.arange(1 << bits)
    values = np.asarray(apply_modality_lut(numbers, found))
    shown = np.asarray(
        apply_voi_lut(values if not lookup else np.round(values).astype(np.int64), found),
        np.float64,
    )
    low, high = float(shown.min()), float(shown.max())
    if lookup:
        low, high = 0.0, float(2 ** int(found.VOILUTSequence[0].LUTDescriptor[2]) - 1)
    elif window:  # what the window makes of the smallest and of the largest number there are
        low, high = sorted(np.asarray(apply_voi_lut(np.array([-1e12, 1e12]), found)).tolist())
    grey = np.clip(np.round((shown - low) * (255 / max(high - low, 1e-9))), 0, 255).astype(np.uint8)
    return np.roll(grey, -(1 << (bits - 1))) if signed else grey


_STRETCHED = 0.01
"""Share by which a pixel's sides may differ and it still counts as square."""


def _square(page: Image.Image, found: Any, name: str, limits: Limits) -> Image.Image:
    """Stretch a picture whose pixels are not square: PixelAspectRatio is height to width, as all spacings are."""
    for keyword in (
        "PixelAspectRatio",
        "PixelSpacing",
        "NominalScannedPixelSpacing",
        "ImagerPixelSpacing",
    ):
        sides = found.get(keyword)
        if sides is None or isinstance(sides, str) or len(sides) != 2:
            continue
        down, across = (float(side) for side in sides)
        if (
            not (down > 0 and across > 0 and 0.1 <= down / across <= 10)
            or abs(down / across - 1) <= _STRETCHED
        ):
            continue
        size = (
            round(page.width * max(1.0, across / down)),
            round(page.height * max(1.0, down / across)),
        )
        pictures.check_size(size, name, limits)
        return page.resize(size, Image.Resampling.BICUBIC)
    return page


def _packed(found: Any) -> bool:
    return _syntax(found).startswith((_MARKED, _RLE))


def _check_frame(found: Any, n: int, name: str) -> None:
    """Raise ScanError where a compressed frame is cut short; pydicom itself counts the pixels of others."""
    from pydicom.encaps import get_frame

    syntax = _syntax(found)
    if not _packed(found):
        return
    frames = max(1, int(found.get("NumberOfFrames", 1) or 1))
    data = get_frame(bytes(found.PixelData), n, number_of_frames=frames)
    if syntax in _JPEG:
        why = None if pictures.whole_jpeg(data) else truncation.HOLE
    else:
        why = truncation.compressed(data) if syntax == _RLE else truncation.jpeg2000(data)
    pictures.cut_short(name, "a DICOM picture", why)
