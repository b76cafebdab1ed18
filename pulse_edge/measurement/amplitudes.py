"""Levels, amplitudes and axes of the median beat, and how far the leads obey Einthoven's and
Goldberger's laws."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pulse_edge.measurement.beats import Channel
from pulse_edge.measurement.filters import Samples, samples, smooth
from pulse_edge.measurement.signal import LEADS, SAMPLES_PER_SECOND
from pulse_edge.measurement.waves import MedianBeat, Waves

LEAST_MV = 0.04
"""Deflections of the QRS below this do not count as Q, R or S."""
REFERENCE_MS = 18.0
"""The level just before the QRS is the zero of all amplitudes, as in the common standards for
electrocardiography."""

FRONTAL = np.array(
    [
        [1.0, 0.0],
        [0.5, np.sqrt(3) / 2],
        [-0.5, np.sqrt(3) / 2],
        [-0.75, -np.sqrt(3) / 4],
        [0.75, -np.sqrt(3) / 4],
        [0.0, np.sqrt(3) / 2],
    ]
)
"""(6, 2) share of the frontal vector's right-to-left and downward component in I, II, III, aVR,
aVL, aVF: Einthoven's triangle with Goldberger's leads as they are recorded, 0.87 times as high."""
MIN_COMPONENT = 0.8
"""Shortest length of the two frontal directions that the present leads span, if an axis is to be
computed."""


@dataclass(frozen=True)
class QrsShape:
    """Amplitudes of one lead's QRS in mV, signed; 0 for a deflection that is not there."""

    q: float
    r: float
    s: float
    q_duration: float
    """ms"""


def levelled(beat: MedianBeat, waves: Waves) -> Samples:
    """Median beats with the level before the QRS as zero: (12, WIDTH)."""
    part = beat.millivolts[:, waves.qrs_onset - samples(REFERENCE_MS) : waves.qrs_onset]
    exists = np.isfinite(part)
    level = np.where(exists, part, 0).sum(axis=1) / np.maximum(exists.sum(axis=1), 1)
    return np.asarray(beat.millivolts - np.where(exists.any(axis=1), level, np.nan)[:, None])


def qrs_shape(values: Samples, waves: Waves) -> QrsShape | None:
    """Measure Q, R and S of one levelled lead: the highest point is R, what is negative before it
    Q, after it S.

    Without any R the whole negative deflection is Q. None if the QRS is not whole.
    """
    part = smooth(values, 2)[waves.qrs_onset : waves.qrs_end + 1]
    if not part.size or not np.isfinite(part).all():
        return None
    top = int(np.argmax(part))
    if part[top] < LEAST_MV:
        depth = min(float(part.min()), 0.0)
        negative = np.flatnonzero(part < -LEAST_MV)
        width = (
            float(negative[-1] - negative[0] + 1) * 1000 / SAMPLES_PER_SECOND
            if negative.size
            else 0.0
        )
        return QrsShape(depth if depth < -LEAST_MV else 0.0, 0.0, 0.0, width)
    q, s = (float(side.min()) if side.size else 0.0 for side in (part[:top], part[top:]))
    width = 0.0
    if q < -LEAST_MV:
        crossing = np.flatnonzero(part[: top + 1] >= 0)
        after = crossing[crossing > int(np.argmin(part[:top]))]
        width = float(after[0] if after.size else top) * 1000 / SAMPLES_PER_SECOND
    return QrsShape(
        q if q < -LEAST_MV else 0.0, float(part[top]), s if s < -LEAST_MV else 0.0, width
    )


def level_at(values: Samples, sample: int) -> float | None:
    """Mean level of 10 ms around a sample of one levelled lead; None where the lead ends before."""
    part = values[max(sample - 2, 0) : sample + 3]
    return float(part.mean()) if part.size == 5 and np.isfinite(part).all() else None


def wave_height(values: Samples, first: int, last: int) -> float | None:
    """Largest deflection between two samples, signed; None where the lead ends before."""
    part = smooth(values, 4)[first : last + 1]
    if not part.size or not np.isfinite(part).all():
        return None
    return float(part[int(np.argmax(np.abs(part)))])


def frontal_axis(
    values: Samples, first: int, last: int, straight: bool
) -> tuple[float, float, tuple[str, ...]] | None:
    """Axis in degrees (-180, 180], its uncertainty in degrees from the disagreement of the leads,
    and the leads used.

    The vector whose components best explain the net areas of the limb leads; `straight` takes off
    the line between the two ends first. None where the limb leads span no plane.
    """
    part = values[:6, first : last + 1]
    if straight and part.shape[1] > 1:
        share = np.linspace(0, 1, part.shape[1])
        part = part - (part[:, :1] * (1 - share) + part[:, -1:] * share)
    present = np.isfinite(part).all(axis=1)
    if part.shape[1] < 2 or present.sum() < 2:
        return None
    areas = part[present].sum(axis=1)
    design = FRONTAL[present]
    if np.linalg.svd(design, compute_uv=False)[-1] < MIN_COMPONENT / 2:
        return None
    vector, *_ = np.linalg.lstsq(design, areas, rcond=None)
    residual = areas - design @ vector
    freedom = max(int(present.sum()) - 2, 1)
    spread = np.sqrt(
        float(residual @ residual) / freedom * float(np.linalg.inv(design.T @ design).max())
    )
    length = float(np.hypot(*vector))
    doubt = float(np.degrees(np.arctan2(2 * spread, max(length, 1e-9))))
    leads = tuple(LEADS[n] for n in np.flatnonzero(present))
    return float(np.degrees(np.arctan2(vector[1], vector[0]))), doubt, leads


def law_residual(
    channels: tuple[Channel, ...], leads: tuple[str, str, str], signs: tuple[int, int, int]
) -> float | None:
    """Root mean square of a signed sum of three leads in mV about its median, where all three are
    traced.

    None if they share less than 0.6 s.
    """
    columns = {c.lead: c.millivolts for c in channels if not c.strip}
    if not all(lead in columns for lead in leads):
        return None
    stack = np.stack([columns[lead] for lead in leads])
    shared = stack[:, np.isfinite(stack).all(axis=0)]
    if shared.shape[1] < samples(600):
        return None
    rest = np.asarray(signs) @ shared
    return float(np.sqrt(np.mean(np.square(rest - np.median(rest)))))
