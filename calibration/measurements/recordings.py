"""Recordings that pages are made of, and the reference values that cardiologists' marks give.

In: `NAME.npz` with `signal_uV` (int16, (n, 12, samples)), `fs` and `leads`, and `NAME.json` with as
many rows, as a list or below `records`. A row has an `ecg_id`, `record` or `id`; `reference` holds
reference values of LUDB's marks where there are marks, and `pacing` is filled for paced hearts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.synthetic.real import resample
from pulse_edge.errors import BenchError
from pulse_edge.measurement.signal import LEADS

Signals = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class MarkedRecording:
    """One 12-lead recording."""

    name: str
    millivolts: Signals
    """(12, samples) at 500 Hz, order of `LEADS`."""
    marks: Mapping[str, Any] = field(default_factory=dict)
    """Reference values of cardiologists' marks; empty where no one marked it."""
    paced: bool = False
    """Paced hearts have no marked P waves, whatever their atria do."""


@dataclass(frozen=True, eq=False)
class PackedFile:
    """The arrays and rows of one pair of files."""

    path: Path
    arrays: Mapping[str, NDArray[Any]]
    rows: Sequence[Mapping[str, Any]]

    def millivolts(self, index: int) -> Signals:
        """Recording number `index`, (12, samples) at 500 Hz in the order of `LEADS`."""
        names = [str(name).lower() for name in self.arrays["leads"]]
        order = [names.index(lead.lower()) for lead in LEADS]
        signal = self.arrays["signal_uV"][index][order] / 1000.0
        return resample(signal, float(self.arrays["fs"])).astype(np.float32)


def open_file(path: Path) -> PackedFile:
    """Read `NAME.npz` and `NAME.json`; BenchError where they are absent or do not fit."""
    path = path.with_name(path.name.removesuffix(".npz") + ".npz")
    listing = path.with_suffix(".json")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        rows = json.loads(listing.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BenchError(
            f"{path}: cannot be read with {listing.name} ({error}); give NAME.npz and NAME.json"
        ) from error
    rows = rows["records"] if isinstance(rows, dict) and "records" in rows else rows
    if absent := [name for name in ("signal_uV", "fs", "leads") if name not in arrays]:
        raise BenchError(f"{path}: has no array {', '.join(absent)}; write the file with them")
    signals, leads = arrays["signal_uV"], {str(name).lower() for name in arrays["leads"]}
    if missing := [lead for lead in LEADS if lead.lower() not in leads]:
        raise BenchError(f"{path}: has no lead {', '.join(missing)}; all twelve are needed")
    if signals.ndim != 3 or signals.shape[1] != len(arrays["leads"]) or not len(signals):
        raise BenchError(
            f"{path}: signal_uV has the shape {signals.shape}; (recordings, leads, samples) is needed"
        )
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BenchError(f"{listing}: is no list of rows; write one object for each recording")
    return PackedFile(path, arrays, rows)


def recordings(folder: Path, names: Sequence[str]) -> Iterator[MarkedRecording]:
    """Every recording of the named files below `folder`; the same recording comes once.

    Raises BenchError.
    """
    listed: set[str] = set()
    for name in names:
        file = open_file(folder / name)
        if len(file.rows) != len(file.arrays["signal_uV"]):
            raise BenchError(
                f"{file.path}: holds {len(file.arrays['signal_uV'])} recordings, its .json "
                f"{len(file.rows)} rows; write one row for each"
            )
        for index, row in enumerate(file.rows):
            label = f"{'ludb' if 'waves' in row else file.path.stem.split('_')[0]}-{identity(row)}"
            if label in listed:
                continue
            listed.add(label)
            yield MarkedRecording(
                label, file.millivolts(index), row.get("reference") or {}, bool(row.get("pacing"))
            )


def identity(row: Mapping[str, Any]) -> str:
    """Identity of a row's recording in its own database."""
    return str(row.get("ecg_id", row.get("record", row.get("id", "?"))))
