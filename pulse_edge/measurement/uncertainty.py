"""How far a measurement may be from the truth.

Each figure is half the width of the interval that holds the truth in 95 of 100 cases, measured with
`benchmarks/measurement_signal.py` on the 100 development recordings of LUDB (Kalyakulina and
others, IEEE Access 8, 2020, 186181), paced and ectopic ones included, with noise 18 dB below the
signal. Intervals, axis and ST levels are compared with the marks of cardiologists, who disagree
with one another by much of it; amplitudes with those of the same recording without noise.
"""

from __future__ import annotations

from enum import Enum


class Extent(Enum):
    """For how long the leads are traced."""

    LONG = 0
    """10 s of each lead."""
    COLUMNS_AND_STRIP = 1
    """Columns of 2.5 s, and a rhythm strip of 10 s."""
    COLUMNS = 2
    """Columns of 2.5 to 5 s alone."""


_ERRORS: dict[str, tuple[float, float, float]] = {
    # key: (10 s, columns and strip, columns)
    "rate": (2.5, 2.9, 2.5),
    "rate_median": (2.5, 2.9, 2.5),
    "rr_mean": (25.0, 28.0, 25.0),
    "rr_median": (25.0, 28.0, 25.0),
    "p_duration": (53.0, 50.0, 53.0),  # against the widest of all leads: 18 ms of it are that
    "pr": (16.0, 25.0, 33.0),
    "qrs": (22.0, 24.0, 27.0),
    "qt": (30.0, 36.0, 36.0),
    "qrs_axis": (3.5, 5.7, 8.8),
    "st_j": (0.034, 0.059, 0.064),
    "st_j60": (0.032, 0.060, 0.064),
    "p": (0.021, 0.085, 0.094),
    "q": (0.019, 0.069, 0.072),
    "r": (0.025, 0.088, 0.091),
    "s": (0.020, 0.097, 0.099),
    "t": (0.019, 0.102, 0.113),
}


def uncertainty_of(key: str, extent: Extent) -> float | None:
    """Uncertainty of a measurement, with or without a lead in its key; None where the truth is not
    known well enough."""
    errors = _ERRORS.get(key.split(".")[0])
    return None if errors is None else errors[extent.value]
