"""Where a threshold lies between good and bad pages, and whether it refuses one."""

from __future__ import annotations

import numpy as np

from pulse_edge.page.quality_limits import LIMITS


def midway(name: str, good: list[dict[str, float]], bad: list[dict[str, float]]) -> float:
    high = LIMITS[name].high_is_bad
    least, most = (min, max) if high else (max, min)
    worst = most(f[name] for f in good if name in f)
    mildest = least((f[name] for f in bad if name in f), default=worst)
    if (mildest <= worst) if high else (mildest >= worst):
        return worst
    return (
        (worst + mildest) / 2
        if name == "ecg"
        else float(np.sqrt(max(worst, 1e-3) * max(mildest, 1e-3)))
    )


def refused(name: str, facts: dict[str, float], limit: float) -> bool:
    if name not in facts:
        return False
    return facts[name] > limit if LIMITS[name].high_is_bad else facts[name] < limit
