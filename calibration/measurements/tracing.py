"""How near a traced signal is to the printed one: signal-to-noise ratio and correlation.

Each lead may be shifted by up to 0.2 s, and has an offset of its own, as in the digitisation
challenges of PhysioNet (2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.measurements.pages import PrintedSignal
from pulse_edge.measurement.signal import LEADS, TracedSignal

SHIFT = 100
"""Samples by which a lead may be shifted: 0.2 s."""
SHORTEST = 100
"""Samples that a comparison needs: 0.2 s."""
OVERLAP = 0.7
"""Share of a traced lead that must lie where the lead is printed; less, and it shows another
stretch of the page."""


@dataclass(frozen=True)
class LeadTrace:
    """One lead or rhythm strip of a page against what was printed."""

    lead: str
    strip: bool
    reported: bool
    """Whether the tracing gives it out."""
    score: float
    """The tracing's own estimate of being right; 1 for strips, which have none."""
    coverage: float
    """Share of the printed samples that were traced."""
    correlation: float | None
    """None where less than 0.2 s was traced or printed."""
    power: float
    """Sum of squares of the printed samples that were compared, mV squared."""
    error: float
    """Sum of squares of the differences."""


@dataclass(frozen=True)
class Match:
    """A traced lead at the shift that fits best."""

    correlation: float
    power: float
    error: float


def compare(printed: NDArray[np.floating], traced: NDArray[np.floating]) -> Match | None:
    """Compare a traced lead (n,) with the printed one (m,), both NaN where there is nothing.

    A lead that lies where it was not printed has correlation 0 and an error as large as itself. None
    where less than 0.2 s was traced, or printed at all.
    """
    at = np.flatnonzero(np.isfinite(traced))
    if at.size < SHORTEST or np.isfinite(printed).sum() < SHORTEST:
        return None
    output = traced[at].astype(np.float64)
    padded = np.full(int(at[-1]) + 2 * SHIFT + 1, np.nan)
    size = min(len(printed), len(padded) - SHIFT)
    padded[SHIFT : SHIFT + size] = printed[:size]
    best: Match | None = None
    for shift in range(2 * SHIFT + 1):
        match = _match(padded[at + shift], output)
        if match and (best is None or match.error * best.power < best.error * match.power):
            best = match
    if best is not None:
        return best
    power = float(((output - output.mean()) ** 2).sum())
    return Match(0.0, power, power)


def _match(truth: NDArray[np.float64], output: NDArray[np.float64]) -> Match | None:
    both = np.isfinite(truth)
    count = int(both.sum())
    if count < max(SHORTEST, OVERLAP * output.size):
        return None
    if count < output.size:
        truth, output = truth[both], output[both]
    truth, output = truth - truth.mean(), output - output.mean()
    power, own = float(truth @ truth), float(output @ output)
    product = float(truth @ output)
    error = max(0.0, power + own - 2 * product)
    return Match(product / max(power * own, 1e-12) ** 0.5, max(power, 1e-9), error)


def lead_traces(printed: PrintedSignal, signal: TracedSignal) -> tuple[LeadTrace, ...]:
    """Compare all printed leads, then the rhythm strips that were traced, top to bottom."""
    traces = []
    for n, lead in enumerate(LEADS):
        truth, traced = printed.millivolts[n], signal.millivolts[n]
        if np.isfinite(truth).any() or np.isfinite(traced).any():
            traces.append(_trace(lead, truth, traced, signal.scores[n]))
    names = [lead for lead, _ in signal.strips]
    for lead, truth in printed.strips:
        place = names.index(lead) if lead in names else None
        traced = np.zeros(0, np.float32) if place is None else signal.strips[place][1]
        traces.append(_trace(lead, truth, traced, 1.0, strip=True))
    shown = [lead for lead, _ in printed.strips]
    for lead, traced in signal.strips:
        if lead not in shown:  # a name that no printed strip has is wrong whatever it looks like
            power = float(np.nansum((traced - np.nanmean(traced)) ** 2)) if traced.size else 0.0
            traces.append(LeadTrace(lead, True, True, 1.0, 0.0, 0.0, power, power))
    return tuple(traces)


def _trace(
    lead: str,
    truth: NDArray[np.floating],
    traced: NDArray[np.floating],
    score: float,
    *,
    strip: bool = False,
) -> LeadTrace:
    reported = bool(np.isfinite(traced).any()) and score > 0
    match = compare(truth, traced) if reported else None
    samples = int(np.isfinite(traced).sum()) if reported else 0
    coverage = min(1.0, samples / max(1, int(np.isfinite(truth).sum())))
    if match is None:
        return LeadTrace(lead, strip, reported, score, coverage, None, 0.0, 0.0)
    return LeadTrace(
        lead, strip, reported, score, coverage, match.correlation, match.power, match.error
    )


def decibels(traces: Sequence[LeadTrace]) -> float | None:
    """Signal-to-noise ratio of these leads together; None where none could be compared."""
    power, error = sum(t.power for t in traces), sum(t.error for t in traces)
    return 10 * float(np.log10(power / max(error, 1e-9))) if power else None
