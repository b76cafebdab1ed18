"""Recordings with labels that a benchmark of the checks states things about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from calibration.measurements.recordings import identity, open_file

Signal = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Recording:
    """One recording and what is known of it."""

    name: str
    millivolts: Signal
    """(12, samples)."""
    age: float | None
    sex: Literal["male", "female"] | None
    labels: frozenset[str]
    """PTB-XL's codes; LUDB's words are translated to them."""
    complete: bool
    """Whether the labels name everything, so that what is not named is absent."""
    reference: dict[str, Any] = field(default_factory=dict)
    """LUDB's reference values."""


LUDB_CODES = {
    "Sinus rhythm": "SR",
    "Sinus bradycardia": "SBRAD",
    "Sinus tachycardia": "STACH",
    "Sinus arrhythmia": "SARRH",
    "Irregular sinus rhythm": "SARRH",
    "Atrial fibrillation": "AFIB",
    "Atrial flutter, typical": "AFLT",
    "Complete left bundle branch block": "CLBBB",
    "Complete right bundle branch block": "CRBBB",
    "Incomplete right bundle branch block": "IRBBB",
    "Incomplete left bundle branch block": "ILBBB",
    "Non-specific intravintricular conduction delay": "IVCD",
    "I degree av block": "1AVB",
    "Iii degree av-block": "3AVB",
}


SETS = ("ludb_dev", "ptbxl_cases_dev", "records/ptbxl_fold9")
"""The recordings on which the rules were tuned. `records/ptbxl_train` was not looked at for them."""


def recordings(shared: Path, sets: Sequence[str] = SETS) -> Iterator[Recording]:
    """All recordings of the sets."""
    for path in sets:
        for name, signal, row in _rows(shared / "ecg" / path):
            if path == "ludb_dev":
                yield _ludb(name, signal, row)
            elif not str(row.get("also_in", "")).endswith("ptbxl_fold9.npz"):
                yield _ptbxl(name, signal, row)


def _ludb(name: str, signal: Signal, row: Mapping[str, Any]) -> Recording:
    words = [w for key in ("rhythm", "conduction", "extrasystoles", "pacing") for w in row[key]]
    codes = {LUDB_CODES[w] for w in words if w in LUDB_CODES}
    codes |= {"PACE"} if row["pacing"] else set()
    codes |= {"ECTOPIC"} if row["extrasystoles"] else set()
    sex = SEXES.get(row["sex"])
    return Recording(
        f"ludb-{name}", signal, _age(row["age"]), sex, frozenset(codes), True, row["reference"]
    )


def _ptbxl(name: str, signal: Signal, row: Mapping[str, Any]) -> Recording:
    codes = set(row["scp_codes"] or ()) | ({row["group"]} if "group" in row else set())
    sex = SEXES.get(str(row["sex"] or "").removesuffix(".0"))
    return Recording(
        f"ptbxl-{name}", signal, _age(row["age"]), sex, frozenset(codes), bool(row["scp_codes"])
    )


SEXES: dict[str, Literal["male", "female"]] = {
    "M": "male",
    "F": "female",
    "0": "male",
    "1": "female",
}


def _rows(path: Path) -> Iterator[tuple[str, Signal, Mapping[str, Any]]]:
    file = open_file(path)
    for index, row in enumerate(file.rows):
        yield identity(row), file.millivolts(index), row


def _age(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
