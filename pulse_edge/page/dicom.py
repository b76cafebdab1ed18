"""Read DICOM files as pages: a plotted waveform, an encapsulated PDF, or pictures.

dicom_waveform.py reads the waveform, ecg_plot.py plots it.

Runs in the decoder (decoder_worker.py).
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
from pulse_edge.page import dicom_waveform, ecg_plot, file_errors, pdf, pictures, truncation
from pulse_edge.page.file_errors import AS_PNG, Limits
from pulse_edge.page.pictures import Decode
from pulse_edge.page.rgb_page import rgb_page

_DEFLATED = b"1.2.840.10008.1.2.1.99"
_ENCAPSULATED_PDF = "1.2.840.10008.5.1.4.1.1.104.1"
_JPEG = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")
"""JPEG baseline and extended."""
_WITH_END_MARKER = "1.2.840.10008.1.2.4."
"""Beginning of the syntaxes of JPEG, JPEG-LS and JPEG 2000, whose data end with an end marker."""
_RLE = "1.2.840.10008.1.2.5"


def pages(data: bytes, name: str, limits: Limits) -> Sequence[Decode | ecg_plot.Draw]:
    """Open a DICOM file: a 12-lead waveform plotted as pages, the pages of an encapsulated PDF, or
    its pictures."""
    file_errors.require_library("pydicom", "dicom", name, "a DICOM file")
    import pydicom

    if _DEFLATED in data:  # pydicom unpacks it whole, however large it becomes
        raise ScanError(f"{name}: is a DICOM file in deflated form, which is not read. {AS_PNG}")
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    # A file without a preamble begins with its first element, or with the mark that follows a
    # preamble.
    dataset = pydicom.dcmread(io.BytesIO(data.removeprefix(b"DICM")), force=True)
    if "WaveformSequence" in dataset:
        return ecg_plot.pages(dicom_waveform.recording(dataset, name))
    if dataset.get("SOPClassUID") == _ENCAPSULATED_PDF:
        return pdf.pages(bytes(dataset.EncapsulatedDocument).rstrip(b"\0"), name, limits)
    if "PixelData" in dataset:
        return _secondary_captures(dataset, name, limits)
    raise ScanError(f"{name}: is a DICOM file with neither an ECG nor a picture in it. {AS_PNG}")


def _secondary_captures(dataset: Any, name: str, limits: Limits) -> list[Decode]:
    """Open the pictures of a secondary capture, RGB or grey: each frame is a page."""
    frames = max(1, int(dataset.get("NumberOfFrames", 1) or 1))
    if frames > limits.pages:
        raise PageRefused(
            f"{name}: has {frames} pictures; {limits.pages} is the limit. Export the ECG page "
            "alone."
        )
    file_errors.check_size((int(dataset.Columns), int(dataset.Rows)), name, limits)
    if not _syntax(dataset):
        raise ScanError(f"{name}: does not say how its picture is packed. {AS_PNG}")
    return [
        partial(_secondary_capture, dataset, n, file_errors.page_name(name, n + 1, frames), limits)
        for n in range(frames)
    ]


def _syntax(dataset: Any) -> str:
    return str(getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", ""))


def _secondary_capture(dataset: Any, n: int, name: str, limits: Limits) -> Image.Image:
    from pydicom.pixels import apply_color_lut, pixel_array

    _check_frame(dataset, n, name)
    pixels = np.asarray(pixel_array(dataset, index=n))
    kind = str(dataset.PhotometricInterpretation)
    if kind.startswith("MONOCHROME"):
        grey = _grey(pixels, dataset, name)
    else:
        bits = int(dataset.BitsStored)
        if kind == "PALETTE COLOR":
            pixels = np.asarray(apply_color_lut(pixels, dataset))
            bits = int(dataset.RedPaletteColorLookupTableDescriptor[2])
        if pixels.dtype.kind not in "ui" or int(dataset.get("PixelRepresentation", 0)):
            raise _unknown_range(name)
        grey = (pixels >> (bits - 8) if bits > 8 else pixels).astype(np.uint8)
    page = rgb_page(Image.fromarray(grey), name, limits)
    if not _is_compressed(dataset):
        length = len(dataset.PixelData) // max(1, int(dataset.get("NumberOfFrames", 1) or 1))
        pictures.check_tail(
            page,
            [memoryview(dataset.PixelData)[n * length : (n + 1) * length]],
            name,
            "a DICOM picture",
        )
    return _square_pixels(page, dataset, name, limits)


def _unknown_range(name: str) -> ScanError:
    return ScanError(f"{name}: has grey values of an unknown range. {AS_PNG}")


def _grey(pixels: npt.NDArray[Any], dataset: Any, name: str) -> npt.NDArray[np.uint8]:
    """Return what a viewer displays (H, W), by the file's own window and polarity (PS3.3 C.7.6.3,
    C.11.1, C.11.2).

    Every stored number is looked up in a table: computing with each pixel would take eight times
    the memory.
    """
    bits, signed = int(dataset.BitsStored), bool(int(dataset.get("PixelRepresentation", 0) or 0))
    if pixels.dtype.kind not in "ui" or not 1 <= bits <= 16:
        raise _unknown_range(name)
    table = _window(dataset, bits, signed)
    if table is None:
        if signed:
            raise _unknown_range(name)
        # 8 bits stored as more, without saying so: paper would be as dark as ink.
        used = 8 if bits > 8 and int(pixels.max()) < 256 else bits
        numbers = np.arange(1 << bits)
        displayed = numbers >> (used - 8) if used >= 8 else numbers * 255 // ((1 << used) - 1)
        table = np.minimum(displayed, 255).astype(np.uint8)
    # MONOCHROME1 always comes with INVERSE: both together turn the picture once.
    shape = str(dataset.get("PresentationLUTShape", "") or "").strip().upper()
    if str(dataset.PhotometricInterpretation) == "MONOCHROME1" or shape == "INVERSE":
        table = 255 - table
    return np.asarray(table[pixels.astype(np.uint16, copy=False) & ((1 << bits) - 1)], np.uint8)


def _window(dataset: Any, bits: int, signed: bool) -> npt.NDArray[np.uint8] | None:
    """Return the grey (2 ** bits,) of each stored number, negative ones last.

    It is None without window and rescaling.
    """
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    lookup, window = (
        dataset.get("VOILUTSequence"),
        dataset.get("WindowWidth") is not None and "WindowCenter" in dataset,
    )
    rescaled = bool(dataset.get("ModalityLUTSequence")) or (
        "RescaleSlope" in dataset and "RescaleIntercept" in dataset
    )
    if not (lookup or window or rescaled):
        return None
    numbers = np.arange(-(1 << (bits - 1)), 1 << (bits - 1)) if signed else np.arange(1 << bits)
    values = np.asarray(apply_modality_lut(numbers, dataset))
    displayed = np.asarray(
        apply_voi_lut(values if not lookup else np.round(values).astype(np.int64), dataset),
        np.float64,
    )
    low, high = float(displayed.min()), float(displayed.max())
    if lookup:
        low, high = 0.0, float(2 ** int(dataset.VOILUTSequence[0].LUTDescriptor[2]) - 1)
    elif window:  # the window's outputs for the smallest and the largest numbers
        low, high = sorted(np.asarray(apply_voi_lut(np.array([-1e12, 1e12]), dataset)).tolist())
    grey = np.clip(np.round((displayed - low) * (255 / max(high - low, 1e-9))), 0, 255).astype(
        np.uint8
    )
    return np.roll(grey, -(1 << (bits - 1))) if signed else grey


_SQUARE_WITHIN = 0.01
"""Share by which the sides of a square pixel may differ."""


def _square_pixels(page: Image.Image, dataset: Any, name: str, limits: Limits) -> Image.Image:
    """Stretch a picture whose pixels are not square: PixelAspectRatio is height to width, as all
    spacings are."""
    for keyword in (
        "PixelAspectRatio",
        "PixelSpacing",
        "NominalScannedPixelSpacing",
        "ImagerPixelSpacing",
    ):
        sides = dataset.get(keyword)
        if sides is None or isinstance(sides, str) or len(sides) != 2:
            continue
        down, across = (float(side) for side in sides)
        if (
            not (down > 0 and across > 0 and 0.1 <= down / across <= 10)
            or abs(down / across - 1) <= _SQUARE_WITHIN
        ):
            continue
        size = (
            round(page.width * max(1.0, across / down)),
            round(page.height * max(1.0, down / across)),
        )
        file_errors.check_size(size, name, limits)
        return page.resize(size, Image.Resampling.BICUBIC)
    return page


def _is_compressed(dataset: Any) -> bool:
    return _syntax(dataset).startswith((_WITH_END_MARKER, _RLE))


def _check_frame(dataset: Any, n: int, name: str) -> None:
    """Raise ScanError where a compressed frame is cut short.

    pydicom itself counts the pixels of others.
    """
    from pydicom.encaps import get_frame

    syntax = _syntax(dataset)
    if not _is_compressed(dataset):
        return
    frames = max(1, int(dataset.get("NumberOfFrames", 1) or 1))
    data = get_frame(bytes(dataset.PixelData), n, number_of_frames=frames)
    if syntax in _JPEG:
        why = None if pictures.whole_jpeg(data) else truncation.MISSING_PART
    else:
        why = truncation.compressed(data) if syntax == _RLE else truncation.jpeg2000(data)
    file_errors.raise_if_cut_short(name, "a DICOM picture", why)
