"""Read real recordings:

WFDB files, and recordings packed into an .npz with their labels in a .json of the same name. Every
recording is converted to ten seconds at 500 Hz in standard lead order. Signals whose leads do not
span 0.3 to 15 mV, by their median, are refused: copies of public data with wrong gains exist, while
one loose electrode is everyday life. Measurements are unknown; labels are known as far as the
source states them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.synthetic.findings import CODE15, CPSC, LEADS, PTBXL, Labels
from calibration.synthetic.recording import HZ, SAMPLES, SECONDS, UNKNOWN, Recording
from calibration.synthetic.wfdb import RecordingError, read_header, read_signals

SPAN_MV = (0.3, 15.0)

SCP: Mapping[str, str] = {
    "AFIB": "AF",
    "1AVB": "I-AVB",
    "LPR": "I-AVB",
    "CLBBB": "LBBB",
    "CRBBB": "RBBB",
    "PAC": "PAC",
    "PVC": "PVC",
    "STD_": "STD",
    "STE_": "STE",
    "SBRAD": "SB",
    "STACH": "ST",
}
"""PTB-XL's SCP-ECG statements with the meaning of CPSC's and CODE-15's labels (LPR: prolonged PR
interval).
"""
SNOMED: Mapping[str, str] = {
    "164889003": "AF",
    "270492004": "I-AVB",
    "164909002": "LBBB",
    "733534002": "LBBB",
    "59118001": "RBBB",
    "713427006": "RBBB",
    "284470004": "PAC",
    "63593006": "PAC",
    "427172004": "PVC",
    "17338001": "PVC",
    "164884008": "PVC",
    "429622005": "STD",
    "164931005": "STE",
    "426177001": "SB",
    "427084000": "ST",
}
"""The same for the SNOMED CT codes of the PhysioNet challenges 2020 and 2021."""
SNOMED_NORMAL = frozenset({"426783006", "426177001", "427084000"})
"""Sinus rhythm, and its slow and fast forms, which the synthetic labels do not count as abnormal
either.
"""


@dataclass(frozen=True, eq=False)
class Packed:
    """The recordings of one .npz file; each is converted when it is asked for."""

    path: Path
    microvolt: NDArray[np.int16]  # (recordings, 12, samples)
    hz: float
    order: tuple[str, ...]  # the file's lead names
    entries: tuple[
        Mapping[str, Any], ...
    ]  # the .json: ecg_id, patient_id, fold, scp_codes, superclass, report, ...

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Recording:
        entry = self.entries[index]
        return _recording(
            self.microvolt[index] / 1000.0,
            self.hz,
            self.order,
            labels=ptbxl_labels(entry["scp_codes"], entry["superclass"]),
            source=f"{self.path.name}:{entry['ecg_id']}",
            statement=str(entry.get("report", "")),
        )

    def __iter__(self) -> Iterator[Recording]:
        return (self[i] for i in range(len(self)))


def open_packed(path: Path) -> Packed:
    """`NAME.npz` (signal_uV int16 (recordings, 12, samples), fs, leads) with `NAME.json` (a list of
    as many entries).
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            signal, hz, leads = (
                file["signal_uV"],
                float(file["fs"]),
                tuple(str(name) for name in file["leads"]),
            )
        entries = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, KeyError, ValueError) as error:
        raise RecordingError(
            f"{path}: is not a packed set of ECGs with a .json next to it ({error})"
        ) from error
    if (
        signal.dtype != np.int16
        or signal.ndim != 3
        or len(signal) != len(entries)
        or signal.shape[1] != len(leads)
    ):
        raise RecordingError(
            f"{path}: {signal.dtype} {signal.shape} does not fit {len(entries)} entries, {len(leads)} leads"
        )
    return Packed(path, signal, hz, leads, tuple(entries))


def read_wfdb(path: Path, start: float = 0.0) -> Recording:
    """Ten seconds of a WFDB recording (`path` with or without .hea) from `start` seconds; shorter
    ones end in NaN.
    """
    header = read_header(path if path.suffix == ".hea" else path.with_name(path.name + ".hea"))
    signal = read_signals(header)
    codes = [code.strip() for code in header.comment("Dx").split(",") if code.strip()]
    classes = [
        name.strip() for name in (header.comment("Labels") or header.comment("LABEL")).split(",")
    ]
    first = round(start * header.hz)
    return _recording(
        signal[:, first : first + round(SECONDS * header.hz)],
        header.hz,
        tuple(channel.name for channel in header.channels),
        labels=snomed_labels(codes, classes),
        source=header.path.stem,
        statement=header.comment("Dx"),
    )


def ptbxl_labels(scp_codes: Iterable[str], superclass: Iterable[str]) -> Labels:
    """Labels of a PTB-XL recording. Its statements are complete, so others count as absent."""
    classes = set(superclass)
    return _labels({SCP[code] for code in scp_codes if code in SCP}, classes == {"NORM"}, classes)


def snomed_labels(codes: list[str], classes: Iterable[str] = ()) -> Labels:
    """Labels of a PhysioNet challenge recording; unknown where the header states nothing."""
    labelled = set(classes) & set(PTBXL)
    if not codes:
        return Labels(
            None, None, tuple(name for name in PTBXL if name in labelled) if labelled else None
        )
    words = {SNOMED[code] for code in codes if code in SNOMED}
    return _labels(words, set(codes) <= SNOMED_NORMAL, labelled or None)


def _labels(words: set[str], normal: bool, superclass: set[str] | None) -> Labels:
    """Words of the three data sets; CPSC's NORM only where nothing else of its nine is there."""
    cpsc = words & set(CPSC) or ({"NORM"} if normal else set())
    code15 = {"1dAVb" if name == "I-AVB" else name for name in words}
    return Labels(
        cpsc=tuple(name for name in CPSC if name in cpsc),
        code15=tuple(name for name in CODE15 if name in code15),
        ptbxl=None if superclass is None else tuple(name for name in PTBXL if name in superclass),
    )


def _recording(
    mv: NDArray[np.float64],
    hz: float,
    order: tuple[str, ...],
    labels: Labels,
    source: str,
    statement: str,
) -> Recording:
    """(channels, samples) mV in any lead order -> Recording."""
    rows = {name.strip().lower(): row for name, row in zip(order, mv, strict=True)}
    if absent := [name for name in LEADS if name.lower() not in rows]:
        raise RecordingError(
            f"{source}: leads {', '.join(absent)} are missing; all twelve are needed"
        )
    signal = resample(np.stack([rows[name.lower()] for name in LEADS]), hz)[:, :SAMPLES]
    signal = np.pad(signal, ((0, 0), (0, SAMPLES - signal.shape[1])), constant_values=np.nan)
    check_span(signal, source)
    rounded = (np.round(signal * 1000) / 1000).astype(np.float32)
    return Recording(rounded, None, labels, UNKNOWN, source=source, statement=statement)


def check_span(signal: NDArray[np.float64], source: str) -> None:
    """RecordingError unless the median of the leads' spans lies between 0.3 and 15 mV."""
    spans = [float(np.ptp(row[np.isfinite(row)])) for row in signal if np.isfinite(row).any()]
    middle = float(np.median(spans)) if spans else 0.0
    if not SPAN_MV[0] <= middle <= SPAN_MV[1]:
        raise RecordingError(
            f"{source}: its leads span {middle:.3g} mV, not 0.3 to 15 mV; check the gain in its header"
        )


def resample(signal: NDArray[np.float64], hz: float) -> NDArray[np.float64]:
    """(leads, n) at `hz` -> the same stretch at 500 Hz, band-limited; ends are mirrored, NaN stays
    NaN.
    """
    if hz == HZ or not signal.size:
        return signal
    n, source_hz = signal.shape[1], round(hz)
    place = np.arange(n)
    filled = np.stack([_filled(row, place) for row in signal])
    block = source_hz // gcd(source_hz, HZ)
    pad = min(n - 1, source_hz // 2) // block * block
    tail = pad + (-n) % block
    padded = np.pad(filled, ((0, 0), (pad, tail)), mode="reflect", reflect_type="odd")
    size = padded.shape[1] * HZ // source_hz
    spectrum = np.fft.rfft(padded, axis=1)
    at_500 = np.fft.irfft(spectrum[:, : size // 2 + 1], size, axis=1) * size / padded.shape[1]
    first, length = pad * HZ // source_hz, round(n * HZ / source_hz)
    nearest = np.minimum(np.round(np.arange(length) * source_hz / HZ).astype(int), n - 1)
    return np.where(np.isfinite(signal[:, nearest]), at_500[:, first : first + length], np.nan)


def _filled(row: NDArray[np.float64], place: NDArray[np.int64]) -> NDArray[np.float64]:
    """Gaps bridged by straight lines, for the Fourier transform; a lead without data becomes zero."""
    finite = np.isfinite(row)
    return np.interp(place, place[finite], row[finite]) if finite.any() else np.zeros_like(row)
