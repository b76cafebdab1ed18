"""Do traced leads run forward in time, and are they the right way up?

In: twelve leads in millivolts under the names that they were traced as. Out: log odds. A page that
is turned by half a turn runs backward and upside down, a mirror image one of the two, and the leads
have the names of others: T waves precede the QRS, and V4 to V6 or II point down.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pulse_edge.measurement.filters import samples
from pulse_edge.measurement.signal import SAMPLES_PER_SECOND, Millivolts

Values = npt.NDArray[np.float64]

SHORTEST = SAMPLES_PER_SECOND // 2
"""Samples of a lead that are enough to say which way it points."""
SLOPE_MS, SMOOTH_MS = 10.0, 80.0
"""Half the distance over which the slope is taken, and the width over which its square is averaged."""
STEEP, HIGHEST = 0.4, 0.985
"""Share of that quantile of the slope from which on a part is a QRS."""
APART_MS = 200.0
"""Time between two QRS complexes at least."""
NEAR_MS, FAR_MS = 90.0, 380.0
"""Where the T wave is looked for after a QRS, and its mirror image before it."""
BLUNT_MS = 30.0
"""Width over which these parts are averaged, so that no other QRS counts for more than a wave."""
PRESENT = 0.95
"""Share of that time that must be traced."""
LEAST_MV = 0.05
"""Range of a lead, below which it points nowhere."""
BY_LEAD = (3.34, 0.67, -0.98, -1.56, 1.89, 1.69, -0.11, -0.13, -2.8, 0.86, 0.83, 1.59)
BY_T_WAVES, OFFSET = 5.83, -4.4
"""Weights of a logistic regression: 363 recordings of LUDB and PTB-XL with noise of 0.02 mV, drawn
in four layouts, against the same turned by half a turn and mirrored. Fitted on half of the
recordings, upright pages of the other half have 0 to 9 (96 %), pages turned by half a turn -16 to
0, mirror images -14 to 2.7."""


def upright_log_odds(millivolts: Millivolts, forward: float) -> float:
    """Log odds that leads (12, samples) are those of an upright page; 0 without any lead.

    `forward` as `t_after_qrs` gives it.
    """
    directions = np.array([direction(lead) for lead in millivolts])
    if not directions.any():
        return 0.0
    return float(BY_LEAD @ directions + BY_T_WAVES * forward + OFFSET)


def direction(lead: npt.NDArray[np.float32]) -> float:
    """Which way the largest deflection from the median points: 1 up, -1 down, 0 neither or
    unknown."""
    values = lead[np.isfinite(lead)].astype(np.float64)
    if values.size < SHORTEST:
        return 0.0
    up, down = (float(v) for v in np.quantile(values - np.median(values), [0.995, 0.005]))
    return (up + down) / max(up - down, LEAST_MV)


def t_after_qrs(millivolts: Millivolts) -> float:
    """How much more of a wave follows the QRS than precedes it: 1 all, -1 all of it precedes.

    Mean over the leads; 0 where no QRS shows the time around it.
    """
    shares = [s for lead in millivolts if (s := _share(lead.astype(np.float64))) is not None]
    return float(np.mean(shares)) if shares else 0.0


def _share(lead: Values) -> float | None:
    there = np.isfinite(lead)
    far, near, blunt = samples(FAR_MS), samples(NEAR_MS), samples(BLUNT_MS)
    if there.sum() < 2 * (far + near):
        return None
    values = np.nan_to_num(lead)
    shares = []
    for beat in _steep_parts(values, there):
        first, last = beat - far, beat + far
        if first < 0 or last >= lead.size or there[first:last].mean() < PRESENT:
            continue
        level = float(np.median(values[first:last]))
        box = np.ones(blunt) / blunt
        before, after = (
            float(np.square(np.convolve(part - level, box, "valid")).sum())
            for part in (values[first : beat - near], values[beat + near : last])
        )
        shares.append((after - before) / max(after + before, 1e-9))
    return float(np.median(shares)) if shares else None


def _steep_parts(values: Values, there: npt.NDArray[np.bool_]) -> list[int]:
    """Samples of the QRS complexes of one lead."""
    half, width = samples(SLOPE_MS), samples(SMOOTH_MS)
    slope = np.zeros_like(values)
    slope[half:-half] = values[2 * half :] - values[: -2 * half]
    slope[~there] = 0
    energy = np.convolve(np.square(slope), np.ones(width) / width, "same")
    steep = np.flatnonzero(energy > STEEP * np.quantile(energy, HIGHEST))
    if not steep.size:
        return []
    groups = np.split(steep, np.flatnonzero(np.diff(steep) > samples(APART_MS)) + 1)
    return [int(group[np.argmax(energy[group])]) for group in groups]
