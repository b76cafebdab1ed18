"""Check traced leads against one another: what is printed at the same time obeys Einthoven's and
Goldberger's laws.

In: twelve leads in millivolts. Out: by how much each lead's score is reduced, which lead a rhythm
strip shows, and how far the leads are from obeying the laws.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pulse_edge.measurement.signal import LEADS, SAMPLES_PER_SECOND, Millivolts

AGREES = 0.8
"""Correlation of one lead with what the two others say from which on three leads agree."""
DOUBTED = 0.5
"""By what the scores of three leads that do not agree are multiplied."""
SAME = 0.9
"""Correlation with a lead from which on a rhythm strip is taken for it."""
_SHIFTS = (-12, -6, 0, 6, 12)
"""Samples by which rows of a bent page may be off from one another."""
_TRIPLES = (("II", (("I", 1.0), ("III", 1.0))), ("aVR", (("aVL", -1.0), ("aVF", -1.0))))


def agreement(millivolts: Millivolts) -> float:
    """Give how well the limb leads obey the laws, 0.05 to 1: the mean correlation of the triples
    that are there."""
    matches = [v for v, _ in triples(millivolts) if not np.isnan(v)]
    return float(np.clip(np.mean(matches), 0.05, 1)) if matches else 0.5


def factors(millivolts: Millivolts) -> npt.NDArray[np.float64]:
    """Give a factor (12,) for the score of each lead: 1, or DOUBTED for limb leads that contradict
    one another."""
    out = np.ones(len(LEADS))
    for correlation, leads in triples(millivolts):
        if correlation < AGREES:  # false where it is NaN
            for lead in leads:
                out[LEADS.index(lead)] = DOUBTED
    return out


def triples(millivolts: Millivolts) -> list[tuple[float, tuple[str, ...]]]:
    """Correlation of one lead with what the other two of a triple say, NaN where one is missing;
    and the leads."""
    out = []
    for name, parts in _TRIPLES:
        sides = [sign * millivolts[LEADS.index(part)].astype(np.float64) for part, sign in parts]
        lead = millivolts[LEADS.index(name)]
        values = [_correlation(lead, sides[0] + np.roll(sides[1], shift)) for shift in _SHIFTS]
        out.append((max(values), (name, *(part for part, _ in parts))))
    return out


def strip_lead(strip: npt.NDArray[np.float32], millivolts: Millivolts, usual: str) -> str:
    """Give the lead that a rhythm strip (samples,) shows: the one it is most like at the time at
    which both are printed."""
    alike = [
        max(_correlation(strip, np.roll(lead, shift)) for shift in _SHIFTS) for lead in millivolts
    ]
    scores = np.nan_to_num(np.array(alike), nan=-1.0)
    if scores[LEADS.index(usual)] > SAME - 0.1 or scores.max() < SAME:
        return usual
    return LEADS[int(np.argmax(scores))]


@dataclass(frozen=True)
class Residuals:
    """What remains of three leads whose sum should be zero: root mean square of the sum over that of
    the three leads, 0 where they obey, about 1 where they have nothing to do with one another.

    NaN where they share less than a second. LUDB drawn as complete pages: 0.1 to 0.4; photographs
    up to 0.9.
    """

    einthoven: float
    """I + III - II."""
    goldberger: float
    """aVR + aVL + aVF."""
    einthoven_again: float
    """aVR + aVF - aVL: small where the second column shows I, II and III once more."""
    goldberger_again: float
    """V4 + V5 + V6: small where these are the augmented limb leads once more."""
    goldberger_first: float
    """I + II + III: small where these are the augmented limb leads."""


def residuals(millivolts: Millivolts) -> Residuals:
    """Measure how far the leads (12, samples) are from obeying the laws under their names."""
    rows = dict(zip(LEADS, millivolts[:, ::_EVERY].astype(np.float64), strict=True))
    return Residuals(
        _residual(rows["I"], rows["III"], -rows["II"]),
        _residual(rows["aVR"], rows["aVL"], rows["aVF"]),
        _residual(rows["aVR"], rows["aVF"], -rows["aVL"]),
        _residual(rows["V4"], rows["V5"], rows["V6"]),
        _residual(rows["I"], rows["II"], rows["III"]),
    )


_EVERY = 3
"""Every third sample is enough for residuals: 6 ms."""


def _residual(*parts: npt.NDArray[np.float64]) -> float:
    """Residual of three leads whose sum should be zero, at the shifts that fit best."""
    best = float("nan")
    for shifts in itertools.product((0,), *2 * [[s // _EVERY for s in _SHIFTS]]):
        moved = np.stack([np.roll(part, n) for part, n in zip(parts, shifts, strict=True)])
        both = moved[:, np.isfinite(moved).all(axis=0)]
        if both.shape[1] < SAMPLES_PER_SECOND / _EVERY:
            continue
        both = both - np.median(both, axis=1, keepdims=True)
        size = float(np.square(both).sum(axis=0).mean())
        if size > 0:
            value = float(np.sqrt(np.square(both.sum(axis=0)).mean() / size))
            best = value if np.isnan(best) else min(best, value)
    return best


def _correlation(one: npt.NDArray[np.floating], two: npt.NDArray[np.floating]) -> float:
    """Correlation of two leads where both have values; NaN where they share less than a second."""
    both = np.isfinite(one) & np.isfinite(two)
    if both.sum() < SAMPLES_PER_SECOND:
        return float("nan")
    a, b = (v[both].astype(np.float64) - float(np.mean(v[both])) for v in (one, two))
    size = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum() / size) if size > 0 else float("nan")
