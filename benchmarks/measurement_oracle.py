"""Delineation by neurokit2 on the recordings that cardiologists marked, next to this project's.

An oracle for benchmarks: neurokit2 delineates each lead alone by the prominence of its waves
(`ecg_delineate`; Makowski and others 2021, Emrich and others 2024). Of its methods this one came
nearest to the marks in lead II: on 25 recordings its median error of the QRS was 20 ms, that of the
method by wavelets 71 ms. As with the marks, an interval of the twelve leads begins with the third
earliest onset and ends with the third latest end over the leads; `lead II` is what the library
gives of that lead alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from calibration.measurements.agreement import agreements
from calibration.measurements.pages import TruthPage
from calibration.measurements.results import Comparison, PageResult, marked, of_signal
from calibration.measurements.sets import Plan, pages
from calibration.measurements.tables import quantities
from calibration.report.table import Table
from pulse_edge.measurement.signal import LEADS, SAMPLES_PER_SECOND

OURS, TWELVE, SINGLE = "pulse-edge", "neurokit2, twelve leads", "neurokit2, lead II"
COMPARED = ("rate", "pr", "qrs", "qt")
POINTS = ("ECG_P_Onsets", "ECG_R_Onsets", "ECG_R_Offsets", "ECG_T_Offsets")
TRIMMED = 3
"""Third earliest onset and third latest end."""

Results = dict[str, list[PageResult]]


def results(plan: Plan, say: Callable[[str], None]) -> Results:
    """Measure each marked recording three ways."""
    outcome: Results = {OURS: [], TWELVE: [], SINGLE: []}
    for number, page in enumerate(pages(plan, "recordings")):
        assert page.printed is not None
        ours = of_signal(page, page.printed.as_traced())
        outcome[OURS].append(ours)
        points = delineated(page.printed.millivolts)
        outcome[TWELVE].append(_result(ours, page, intervals(points)))
        lead = {"II": points.get("II", {})}
        outcome[SINGLE].append(_result(ours, page, intervals(lead)))
        if number % 20 == 19:
            say(f"{number + 1} recordings")
    return outcome


def tables(outcome: Results) -> list[Table]:
    """One table for each way."""
    return [
        quantities(
            f"{name}, against the marks of cardiologists",
            [one for one in agreements(rows) if one.name in COMPARED],
        )
        for name, rows in outcome.items()
    ]


def delineated(millivolts: npt.NDArray[np.float32]) -> dict[str, dict[str, float]]:
    """Median distance in ms from the R peak to each point, for each lead; and the rate of lead II
    as `rate`."""
    import neurokit2

    peaks = neurokit2.ecg_peaks(
        neurokit2.ecg_clean(millivolts[LEADS.index("II")], sampling_rate=SAMPLES_PER_SECOND),
        sampling_rate=SAMPLES_PER_SECOND,
    )[1]["ECG_R_Peaks"]
    rows: dict[str, dict[str, float]] = {}
    for n, lead in enumerate(LEADS):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                signal = neurokit2.ecg_clean(millivolts[n], sampling_rate=SAMPLES_PER_SECOND)
                points = neurokit2.ecg_delineate(
                    signal, peaks, sampling_rate=SAMPLES_PER_SECOND, method="prominence"
                )[1]
            except (ValueError, IndexError, ZeroDivisionError, KeyError):
                continue  # it raises where a lead has too few waves
        rows[lead] = _distances(points, peaks)
    if len(peaks) > 1 and "II" in rows:
        rr = float(np.median(np.diff(peaks))) / SAMPLES_PER_SECOND
        rows["II"]["rate"] = 60 / rr
    return rows


def _distances(points: Mapping[str, Any], peaks: Sequence[int]) -> dict[str, float]:
    distances = {}
    for name in POINTS:
        at = np.asarray(points[name], float)
        both = at[: len(peaks)] - np.asarray(peaks[: len(at)], float)
        both = both[np.isfinite(both)]
        if both.size:
            distances[name] = float(np.median(both)) * 1000 / SAMPLES_PER_SECOND
    return distances


def intervals(points: Mapping[str, Mapping[str, float]]) -> dict[str, float | None]:
    """Intervals in ms over the leads, and the rate."""
    p_onset, onset = (_trimmed(points, name, 1) for name in POINTS[:2])
    end, t_end = (_trimmed(points, name, -1) for name in POINTS[2:])
    return {
        "rate_median": points.get("II", {}).get("rate"),
        "pr": _span(p_onset, onset),
        "qrs": _span(onset, end),
        "qt": _span(onset, t_end),
    }


def _trimmed(points: Mapping[str, Mapping[str, float]], name: str, way: int) -> float | None:
    values = sorted((row[name] for row in points.values() if name in row), reverse=way < 0)
    return values[min(TRIMMED, len(values)) - 1] if values else None


def _span(first: float | None, last: float | None) -> float | None:
    return None if first is None or last is None else last - first


def _result(ours: PageResult, page: TruthPage, values: Mapping[str, float | None]) -> PageResult:
    """Our result of a page with the oracle's values."""
    rows = tuple(
        Comparison(
            key, value, None, "" if value is not None else "no points", None, marked(key, page)
        )
        for key, value in values.items()
    )
    return replace(ours, comparisons=rows)
