"""How far a measurement may be from the truth.

Each figure is half the width of the interval that holds the truth in 95 of 100 cases, measured on the 100 development
recordings of LUDB (Kalyakulina and others, IEEE Access 8, 2020, 186181) with `benchmarks/measurement_signal.py`: 12 leads of
10 s, and printed columns of 2.5 s with noise of 18 dB.
"""

from __future__ import annotations

LONG, COLUMNS = "10 s of each lead", "columns"

_ERRORS: dict[str, tuple[float, float]] = {
    # key: (10 s of each lead, columns of 2.5 s)
    "rate": (1.0, 1.5),
    "rate_median": (1.0, 1.5),
    "rr_mean": (10.0, 15.0),
    "rr_median": (10.0, 15.0),
    "p_duration": (30.0, 40.0),
    "pr": (20.0, 28.0),
    "qrs": (24.0, 28.0),
    "qt": (36.0, 40.0),
    "qtc_bazett": (38.0, 42.0),
    "qtc_fridericia": (38.0, 42.0),
    "qrs_axis": (8.0, 12.0),
    "st_j": (0.04, 0.06),
    "st_j60": (0.04, 0.06),
}


def uncertainty_of(key: str, columns: bool) -> float | None:
    """Uncertainty of a measurement by its key without the lead; None where it is not measured in the table's recordings."""
    errors = _ERRORS.get(key.split(".")[0])
    return None if errors is None else errors[1 if columns else 0]
