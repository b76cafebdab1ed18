"""DICOM files -> pages: a 12-lead waveform drawn by `waveform`, the pages of an encapsulated PDF, or pictures.

Waveforms after PS3.3 A.34.3 and C.10.9 (General ECG, Waveform). Runs in the process that decodes: see decoder.py.
"""

from __future__ import annotations

import io
import logging
import re
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from . import pdf, pictures, waveform, whole
from .errors import PageRefused, ScanError
from .pictures import AS_PNG, Decode, Limits

_DEFLATED = b"1.2.840.10008.1.2.1.99"
_ENCAPSULATED_PDF = "1.2.840.10008.5.1.4.1.1.104.1"
_JPEG = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")
"""Baseline and extended."""
_MARKED = "1.2.840.10008.1.2.4."
"""Of all that is JPEG, JPEG-LS or JPEG 2000: ends with an end marker."""
_RLE = "1.2.840.10008.1.2.5"


def pages(data: bytes, name: str, limits: Limits) -> list[Decode]:
    """A 12-lead waveform drawn as a page, the pages of an encapsulated PDF, or the pictures."""
    pictures.needs("pydicom", "dicom", name, "a DICOM file")
    import pydicom

    if _DEFLATED in data:  # pydicom unpacks it whole, however large it becomes
        raise ScanError(f"{name}: is a DICOM file in deflated form, which is not read. {AS_PNG}")
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    found = pydicom.dcmread(io.BytesIO(data))
    if "WaveformSequence" in found:
        return [partial(page, found, name)]
    if found.get("SOPClassUID") == _ENCAPSULATED_PDF:
        return pdf.pages(bytes(found.EncapsulatedDocument).rstrip(b"\0"), name, limits)
    if "PixelData" in found:
        return _captures(found, name, limits)
    raise ScanError(f"{name}: is a DICOM file with neither an ECG nor a picture in it. {AS_PNG}")


def _captures(found: Any, name: str, limits: Limits) -> list[Decode]:
    """Secondary captures: RGB or grey, each frame a page."""
    frames = max(1, int(found.get("NumberOfFrames", 1) or 1))
    if frames > limits.pages:
        raise PageRefused(f"{name}: has {frames} pictures; {limits.pages} is the limit. Export the ECG page alone.")
    pictures.check_size((int(found.Columns), int(found.Rows)), name, limits)
    if not _syntax(found):
        raise ScanError(f"{name}: does not say how its picture is packed. {AS_PNG}")
    return [partial(_capture, found, n, pictures.numbered(name, n + 1, frames), limits) for n in range(frames)]


def _syntax(found: Any) -> str:
    return str(getattr(getattr(found, "file_meta", None), "TransferSyntaxUID", ""))


def _capture(found: Any, n: int, name: str, limits: Limits) -> Image.Image:
    from pydicom.pixels import apply_color_lut, pixel_array

    _check_frame(found, n, name)
    pixels = np.asarray(pixel_array(found, index=n))
    kind = str(found.PhotometricInterpretation)
    if kind == "PALETTE COLOR":
        pixels = np.asarray(apply_color_lut(pixels, found))
        bits = int(found.RedPaletteColorLookupTableDescriptor[2])
    else:
        bits = int(found.BitsStored)
    if pixels.dtype.kind not in "ui" or int(found.get("PixelRepresentation", 0)):
        raise ScanError(f"{name}: has grey values of an unknown range. {AS_PNG}")
    grey = (pixels >> (bits - 8) if bits > 8 else pixels).astype(np.uint8)
    if kind == "MONOCHROME1":
        grey = 255 - grey
    page = pictures.page(Image.fromarray(grey), name, limits)
    if not _packed(found):
        length = len(found.PixelData) // max(1, int(found.get("NumberOfFrames", 1) or 1))
        pictures.check_tail(page, [memoryview(found.PixelData)[n * length : (n + 1) * length]], name, "a DICOM picture")
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
        why = None if pictures.whole_jpeg(data) else whole.HOLE
    else:
        why = whole.compressed(data) if syntax == _RLE else whole.jpeg2000(data)
    pictures.cut_short(name, "a DICOM picture", why)


def page(found: Any, name: str) -> Image.Image:
    """The page of a data set with a WaveformSequence; `name` is the file's, for messages. Raises ScanError, PageRefused.

    Lead names come from the code of each channel, and from its meaning where the code is a maker's own.
    """
    groups = [g for g in found.WaveformSequence if int(g.NumberOfWaveformChannels) >= 8]
    if not groups:
        raise PageRefused(f"{name}: holds fewer than 8 channels: no 12-lead ECG. Export the resting 12-lead ECG.")
    group = groups[0]  # the rhythm comes first; averaged beats follow
    hz, values = float(group.SamplingFrequency), _samples(group, name)
    leads = {}
    for channel, column in zip(group.ChannelDefinitionSequence, values.T, strict=True):
        lead = _lead_name(channel)
        if lead and lead not in leads:
            leads[lead] = _millivolts(channel, column, name)
    leads = waveform.completed(leads)
    if missing := [lead for lead in waveform.LEADS if lead not in leads]:
        raise PageRefused(f"{name}: lacks lead {', '.join(missing)}. Export the resting 12-lead ECG.")
    if not 50 <= hz <= 50_000 or values.shape[0] < hz:
        raise ScanError(f"{name}: holds less than a second of ECG, or no sensible sampling rate ({hz:g} Hz).")
    return waveform.draw(leads, hz)


def _samples(group: Any, name: str) -> npt.NDArray[np.float64]:
    """(samples, channels) of the first ten seconds; no more is drawn."""
    kinds = {"SB": "<i1", "UB": "<u1", "SS": "<i2", "US": "<u2", "SL": "<i4", "UL": "<u4"}
    kind = kinds.get(str(group.WaveformSampleInterpretation))
    if kind is None:
        raise ScanError(
            f"{name}: keeps its ECG as {group.WaveformSampleInterpretation}, which is not read. Export the page as PNG."
        )
    channels, raw = int(group.NumberOfWaveformChannels), bytes(group.WaveformData)
    whole = int(group.NumberOfWaveformSamples)
    wanted = whole * channels * np.dtype(kind).itemsize
    if whole < 1 or not wanted <= len(raw) <= wanted + 1 or len(group.ChannelDefinitionSequence) != channels:
        raise ScanError(
            f"{name}: is a DICOM file whose ECG is cut short or of another length than it says. Export it again."
        )
    drawn = min(whole, round(waveform.SECONDS * float(group.SamplingFrequency)) + 1)
    values = np.frombuffer(raw, kind, drawn * channels).reshape(drawn, channels).astype(np.float64)
    padding = group.get("WaveformPaddingValue")
    if padding is not None:
        number = (
            np.frombuffer(bytes(padding)[: np.dtype(kind).itemsize], kind) if isinstance(padding, bytes) else [padding]
        )
        values[values == float(number[0])] = np.nan
    return values


def _millivolts(channel: Any, values: npt.NDArray[np.float64], name: str) -> npt.NDArray[np.float64]:
    units = channel.get("ChannelSensitivityUnitsSequence")
    unit = str(units[0].CodeValue) if units else ""
    scale = {"uV": 1e-3, "mV": 1.0, "V": 1e3, "nV": 1e-6}.get(unit)
    if scale is None:
        raise ScanError(f"{name}: does not say in which unit its ECG is kept. Export it again, or the page as PNG.")
    factor = float(channel.ChannelSensitivity) * float(channel.get("ChannelSensitivityCorrectionFactor", 1) or 1)
    return (values * factor + float(channel.get("ChannelBaseline", 0) or 0)) * scale


# MDC (2:1) and SCP-ECG (5.6.3-9-1) number the leads alike.
_LEAD_CODES = {str(n): f"V{n - 2}" for n in range(3, 9)} | {"1": "I", "2": "II"}
_LEAD_CODES |= {"61": "III", "62": "aVR", "63": "aVL", "64": "aVF"}
_LEAD_MEANING = re.compile(r"(?:lead\s+)?(aV[RLF]|V[1-6]|I{1,3})\b", re.IGNORECASE)


def _lead_name(channel: Any) -> str | None:
    source = channel.get("ChannelSourceSequence")
    if source and (code := re.fullmatch(r"(?:2:|5\.6\.3-9-)(\d+)", str(source[0].get("CodeValue", "")))):
        return _LEAD_CODES.get(code[1])
    said = str(source[0].get("CodeMeaning", "")) if source else str(channel.get("ChannelLabel", ""))
    meant = _LEAD_MEANING.match(said.strip())
    return next((lead for lead in waveform.LEADS if meant and lead.lower() == meant[1].lower()), None)
