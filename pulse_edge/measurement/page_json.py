"""A page's measurements as the JSON object that `measure --json` prints."""

from __future__ import annotations

import dataclasses
from typing import Any

from pulse_edge.measurement.criteria import limits_for
from pulse_edge.measurement.page import PageMeasurement
from pulse_edge.measurement.signal import LEADS


def as_json(measured: PageMeasurement) -> dict[str, Any]:
    """Return the JSON object that `measure --json` prints about a page, without the signal."""
    signal = measured.signal
    return {
        "file": measured.file,
        "layout": signal.layout,
        "millimetres_per_second": signal.millimetres_per_second,
        "millimetres_per_millivolt": signal.millimetres_per_millivolt,
        "speed_certain": signal.speed_certain,
        "gain_certain": signal.gain_certain,
        "lead_scores": dict(zip(LEADS, (round(s, 3) for s in signal.scores), strict=True)),
        "reasons": list(signal.reasons),
        "age_years": measured.age_years,
        "sex": measured.sex,
        "measurements": [
            dataclasses.asdict(m) | {"limits": _limits(m.key, measured.age_years, measured.sex)}
            for m in measured.measurements
        ],
        "beats": [dataclasses.asdict(beat) for beat in measured.result.beats],
        "seconds": round(measured.seconds, 3),
    }


def _limits(key: str, age_years: float | None, sex: str | None) -> list[dict[str, Any]]:
    """Return the limits of a measurement that were published for this age and sex."""
    names = ("low", "finding_below", "high", "finding_above", "source")
    return [
        {name: getattr(limit, name) for name in names} for limit in limits_for(key, age_years, sex)
    ]
