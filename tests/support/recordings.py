"""DICOM waveform objects made for tests: every unit, label style, arrangement of groups, rate and
length.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Signals = Mapping[str, npt.NDArray[np.float64]]

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
EIGHT = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
FIFTEEN = (*LEADS, "V3R", "V8", "V9")
NUMBERS = {
    "I": 1,
    "II": 2,
    **{f"V{n}": n + 2 for n in range(1, 8)},
    "V3R": 11,
    "V4R": 12,
    "X": 16,
    "Y": 17,
    "Z": 18,
}
NUMBERS |= {"III": 61, "aVR": 62, "aVL": 63, "aVF": 64, "-aVR": 65, "V8": 66, "V9": 67}
"""MDC and SCP-ECG codes."""

TWELVE_LEAD, GENERAL = "1.2.840.10008.5.1.4.1.1.9.1.1", "1.2.840.10008.5.1.4.1.1.9.1.2"
LITTLE, IMPLICIT, BIG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"


def sines(leads: Sequence[str], seconds: float, hz: float) -> dict[str, npt.NDArray[np.float64]]:
    """Millivolts: each lead a sine of its own height, phase and rhythm, so that no lead passes for
    another.
    """
    t = np.arange(round(seconds * hz)) / hz
    return {lead: wave(lead, t) for lead in leads}


def wave(lead: str, seconds: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Millivolts of a lead of `sines` at these moments.

    III, aVR, aVL and aVF agree with I and II.
    """
    one, two = _sine(0, seconds), _sine(1, seconds)
    limb = {
        "I": one,
        "II": two,
        "III": two - one,
        "aVR": -(one + two) / 2,
        "aVL": one - two / 2,
        "aVF": two - one / 2,
    }
    return limb[lead] if lead in limb else _sine(2 + list(NUMBERS).index(lead), seconds)


def _sine(n: int, seconds: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return (0.3 + 0.02 * n) * np.sin(2 * np.pi * (0.8 + 0.05 * n) * seconds + n)


def beats(
    leads: Sequence[str], seconds: float, hz: float, *, tall: float = 1.0
) -> dict[str, npt.NDArray[np.float64]]:
    """Millivolts: P, QRS and T of Gaussians at 75 a minute, each lead of its own height."""
    t = np.arange(round(seconds * hz)) / hz % 0.8
    one = sum(
        h * np.exp(-(((t - at) / w) ** 2))
        for h, at, w in ((0.1, 0.15, 0.03), (1, 0.35, 0.015), (0.25, 0.6, 0.06))
    )
    return {lead: tall * (1 - 0.05 * n) * np.asarray(one) for n, lead in enumerate(leads)}


@dataclass(frozen=True)
class Group:
    """A multiplex group."""

    signals: Signals
    hz: float = 500.0
    offset: float | None = None
    """Seconds."""
    originality: str | None = "ORIGINAL"
    label: str | None = None
    unit: str = "uV"
    unit_meaning: str = ""
    step: float | None = 2.5
    """Sensitivity in microvolts, whatever the unit; None: absent."""
    correction: float = 1.0
    baseline: float = 0.0
    """In `unit`."""
    names: str = "MDC"
    """A style of NAMES, or "none"."""
    kind: str = "SS"
    bits: int = 16
    """Stored."""
    extend: bool = True
    """False: fewer bits than 16 are stored without their sign."""
    padding: int | None = None
    """For NaN."""
    count: int | None = None
    """Samples that it says it has."""
    more: dict[str, Any] = field(default_factory=dict)


def _spanish(lead: str) -> str:
    return f"D{lead}" if lead in ("I", "II", "III") else lead


NAMES = {
    # style: code value, scheme, meaning, label of a lead
    "MDC": lambda lead: (f"2:{NUMBERS[lead]}", "MDC", f"Lead {lead}", ""),
    "MDC number": lambda lead: (str((2 << 16) + NUMBERS[lead]), "MDC", "", ""),
    "MDC name": lambda lead: (f"MDC_ECG_LEAD_{lead.upper()}", "MDC", "", ""),
    "SCP": lambda lead: (f"5.6.3-9-{NUMBERS[lead]}", "SCPECG", f"Lead {lead}", ""),
    "code alone": lambda lead: (f"2:{NUMBERS[lead]}", "MDC", "", "channel"),
    "own code, meaning": lambda lead: (f"C{NUMBERS[lead]}", "99ACME", f"Lead {lead} (surface)", ""),
    "own code, label": lambda lead: (f"C{NUMBERS[lead]}", "99ACME", "", f"Lead {lead}"),
    "label": lambda lead: ("", "", "", lead),
    "capitals": lambda lead: ("", "", "", f"LEAD {lead.upper()}"),
    "DI": lambda lead: ("", "", "", _spanish(lead)),
    "D1": lambda lead: ("", "", "", f"D{len(lead)}" if lead in ("I", "II", "III") else lead),
    "German": lambda lead: ("", "", "", f"Ableitung {lead}"),
    "French": lambda lead: ("", "", "", f"Dérivation {_spanish(lead)}"),
    "IEC chest": lambda lead: ("", "", "", lead.replace("V", "C") if lead[0] == "V" else lead),
    "underscores": lambda lead: ("", "", "", f"ECG_{lead}"),
}


def file(
    *groups: Group,
    syntax: str = LITTLE,
    preamble: bool = True,
    sop: str = TWELVE_LEAD,
    charset: str | None = "ISO_IR 192",
) -> bytes:
    """A DICOM file with these groups."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import dcmwrite, write_dataset

    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop, "1.2.3"
    if charset is not None:
        dataset.SpecificCharacterSet = charset
    dataset.PatientName = "Doe^Jane"
    dataset.WaveformSequence = [_group(group, syntax) for group in groups]
    if not preamble:
        out = DicomBytesIO()
        out.is_little_endian, out.is_implicit_VR = syntax != BIG, syntax == IMPLICIT
        write_dataset(out, dataset)
        return bytes(out.getvalue())
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID, dataset.file_meta.MediaStorageSOPInstanceUID = (
        sop,
        "1.2.3",
    )
    file = io.BytesIO()
    dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


UNITS = {
    "uV": 1e-3,
    "\u00b5V": 1e-3,
    "\u03bcV": 1e-3,
    "UV": 1e-3,
    "mV": 1.0,
    "MV": 1.0,
    "mv": 1.0,
    "nV": 1e-6,
    "V": 1e3,
}
UNITS |= {"microvolt": 1e-3, "Millivolts": 1.0}
"""Millivolts of a unit, as devices write it: both micro signs, any case."""


def _group(group: Group, syntax: str) -> Any:
    from pydicom.dataset import Dataset

    out = Dataset()
    if group.offset is not None:
        out.MultiplexGroupTimeOffset = str(1000 * group.offset)
    if group.originality is not None:
        out.WaveformOriginality = group.originality
    if group.label is not None:
        out.MultiplexGroupLabel = group.label
    kind = np.dtype(
        {"SB": "i1", "UB": "u1", "SS": "i2", "US": "u2", "SL": "i4", "UL": "u4"}[group.kind]
    )
    scale = UNITS.get(group.unit, 1e-3)
    values = np.stack(list(group.signals.values()), axis=1)
    steps = np.round(
        (values - group.baseline * scale) / ((group.step or 2.5) * 1e-3 * group.correction)
    )
    whole = np.where(np.isnan(steps), group.padding or 0, steps).astype(np.int64)
    if not group.extend:
        whole &= (1 << group.bits) - 1
    out.NumberOfWaveformChannels = whole.shape[1]
    out.NumberOfWaveformSamples = len(whole) if group.count is None else group.count
    out.SamplingFrequency = f"{group.hz:g}"
    out.ChannelDefinitionSequence = [_channel(lead, group) for lead in group.signals]
    out.WaveformBitsAllocated, out.WaveformSampleInterpretation = 8 * kind.itemsize, group.kind
    order = ">" if syntax == BIG else "<"
    if group.padding is not None:
        out.add_new(
            "WaveformPaddingValue",
            "OW" if kind.itemsize > 1 else "OB",
            _bytes(np.array([group.padding]), kind, order),
        )
    out.add_new("WaveformData", "OW" if kind.itemsize > 1 else "OB", _bytes(whole, kind, order))
    for keyword, value in group.more.items():
        setattr(out, keyword, value)
    return out


def _bytes(values: npt.NDArray[np.int64], kind: Any, order: str) -> bytes:
    data = values.astype(kind)
    if kind.itemsize == 4 and order == ">":  # OW: words of 16 bits, the lower one first
        return data.astype("<i4").view("<u2").astype(">u2").tobytes()
    return bytes(data.astype(kind.newbyteorder(order)).tobytes()).ljust(2, b"\0")


def _channel(lead: str, group: Group) -> Any:
    from pydicom.dataset import Dataset

    code, scheme, meaning, label = (
        NAMES[group.names](lead) if group.names != "none" else ("", "", "", "channel")
    )
    channel, source, units = Dataset(), Dataset(), Dataset()
    if code:
        source.CodeValue, source.CodingSchemeDesignator, source.CodeMeaning = code, scheme, meaning
        channel.ChannelSourceSequence = [source]
    if label:
        channel.ChannelLabel = label
    units.CodeValue, units.CodingSchemeDesignator, units.CodeMeaning = (
        group.unit,
        "UCUM",
        group.unit_meaning or group.unit,
    )
    if group.step is not None:
        channel.ChannelSensitivity = f"{group.step * 1e-3 / UNITS.get(group.unit, 1e-3):.6g}"
    channel.ChannelSensitivityUnitsSequence = [units]
    channel.ChannelSensitivityCorrectionFactor, channel.ChannelBaseline = (
        f"{group.correction:g}",
        f"{group.baseline:g}",
    )
    channel.WaveformBitsStored = group.bits
    return channel
