"""Plain facts about the rows of a page, which say whether it is a whole, upright ECG."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pulse_edge.measurement.consistency import Residuals, residuals
from pulse_edge.measurement.polarity import t_after_qrs, upright_log_odds
from pulse_edge.measurement.signal import LEADS, Millivolts

FLAT_MM = 1.0
"""A trace whose 0.5 and 99.5 percentiles lie less than this apart is a flat line."""
UNKNOWN = Residuals(*5 * (float("nan"),))
"""Residuals of a page on which no leads were traced."""


@dataclass(frozen=True)
class Polarity:
    """What the leads say, under the names that they were traced as, about which way up the page
    is."""

    directions: tuple[tuple[str, int], ...] = ()
    """(lead, 1 or -1) for I, II and aVR: whether the largest deflection goes up or down; 0 where
    neither is clearly larger."""
    residuals: Residuals = field(default=UNKNOWN)
    """How far the leads are from obeying Einthoven's and Goldberger's laws, before any lead is left
    out."""
    upright: float = 0.0
    """Log odds that the leads run forward in time and are the right way up."""
    forward: float = 0.0
    """How much more of a wave follows the QRS than precedes it, -1 to 1."""


@dataclass(frozen=True)
class TracedRows:
    """What was found on the rows of a page."""

    rows: tuple[float, ...]
    """Pixels from the page's top to each row that holds a trace."""
    flat: tuple[bool, ...]
    """Whether the trace of each row is a flat line."""
    seconds: float
    """From the left end of the leftmost trace to the right end; 0 where there is none."""
    pulse: str
    """`left`, `right`, `both` or empty: at which end of the rows a calibration pulse stands."""
    polarity: Polarity = field(default_factory=Polarity)

    @property
    def all_flat(self) -> bool:
        """Whether there are traces, and all of them are flat lines."""
        return bool(self.flat) and all(self.flat)


def is_flat(y_mm: np.typing.NDArray[np.float32]) -> bool:
    """Whether a trace, in millimetres, is a flat line; baseline wander over more than 2 seconds
    does not count."""
    there = y_mm[np.isfinite(y_mm)]
    if there.size < 50:
        return True
    low, high = np.quantile(there, [0.005, 0.995])
    return bool(high - low < FLAT_MM)


def polarity(millivolts: Millivolts) -> Polarity:
    """Describe which way the leads (12, samples) point, and how far they obey the laws."""
    forward = t_after_qrs(millivolts)
    return Polarity(
        _directions(millivolts),
        residuals(millivolts),
        upright_log_odds(millivolts, forward),
        forward,
    )


def _directions(millivolts: Millivolts) -> tuple[tuple[str, int], ...]:
    """Direction of the largest deflection from the median of I, II and aVR."""
    out = []
    for name in ("I", "II", "aVR"):
        lead = millivolts[LEADS.index(name)]
        there = lead[np.isfinite(lead)]
        if there.size < 250:
            continue
        up, down = (float(v) for v in np.quantile(there - np.median(there), [0.995, 0.005]))
        out.append((name, 1 if up > 1.3 * -down else -1 if -down > 1.3 * up else 0))
    return tuple(out)
