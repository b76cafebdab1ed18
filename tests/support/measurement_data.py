"""Small recordings and results of measured pages, made for tests of the report on measurements."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from calibration.measurements.results import Comparison, PageResult
from calibration.measurements.tracing import LeadTrace
from calibration.synthetic import synthesize
from pulse_edge.measurement.signal import LEADS


def recording(seed: int) -> npt.NDArray[np.float32]:
    """A synthetic heart without findings: (12, 5000) mV."""
    return synthesize(seed, ()).signal


def write_packed(
    path: Path,
    signals: Sequence[npt.NDArray[np.floating]],
    rows: Sequence[Mapping[str, Any]],
    *,
    hz: int = 500,
    leads: Sequence[str] = LEADS,
    **arrays: npt.NDArray[Any],
) -> None:
    """Write `path`.npz and `path`.json."""
    path.parent.mkdir(parents=True, exist_ok=True)
    microvolt = np.round(np.stack(signals) * 1000).astype(np.int16)
    content: dict[str, Any] = {
        "signal_uV": microvolt,
        "fs": np.array(hz),
        "leads": np.array(leads),
        **arrays,
    }
    np.savez(path.with_name(path.name + ".npz"), **content)
    path.with_name(path.name + ".json").write_text(json.dumps({"records": rows}), encoding="utf-8")


def trace(lead: str, correlation: float | None, *, strip: bool = False) -> LeadTrace:
    """A reported lead with 20 dB; None is a lead that is not reported."""
    if correlation is None:
        return LeadTrace(lead, strip, False, 0.0, 0.0, None, 0.0, 0.0)
    return LeadTrace(lead, strip, True, 0.99, 1.0, correlation, 100.0, 1.0)


def result(
    name: str,
    leads: Sequence[LeadTrace] = (),
    comparisons: Sequence[Comparison] = (),
    **fields: Any,
) -> PageResult:
    """One page."""
    usual: dict[str, Any] = {
        "group": name,
        "refused": "",
        "scale_printed": True,
        "layout": "3x4",
        "seconds": 1.0,
        "processor_seconds": 0.5,
        "peak_bytes": 2**20,
        "pixels": 1_000_000,
    }
    return PageResult(
        name=name, leads=tuple(leads), comparisons=tuple(comparisons), **(usual | fields)
    )


def comparison(
    key: str,
    value: float | None,
    *,
    printed: float | None = None,
    marked: float | None = None,
    uncertainty: float | None = None,
) -> Comparison:
    """One value against the truth; without a value it has a reason."""
    reason = "" if value is not None else "no beats"
    return Comparison(key, value, uncertainty, reason, printed, marked)
