"""Trace a page and measure it: from a file, or from a page that admission has checked."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pulse_edge.measurement.digitise import Digitised, digitise, nothing
from pulse_edge.measurement.facts import TracedRows
from pulse_edge.measurement.measure import SignalMeasurements, measure_signal
from pulse_edge.measurement.measurements import Measurement
from pulse_edge.measurement.signal import TracedSignal
from pulse_edge.page import admission, reader
from pulse_edge.page.admission import CheckedPage

PARTIAL, THREE_COLUMNS = "partial", "4x3"
"""Layout of a page on which admission does not find all leads, and the layout that the left three
columns of a 3x4 page with a strip look like: their leads would get other names."""
Sex = Literal["male", "female"]


@dataclass(frozen=True)
class PageMeasurement:
    """The traced signal of one page and its measurements."""

    file: str
    signal: TracedSignal
    rows: TracedRows
    """Plain facts about the rows that hold a trace."""
    result: SignalMeasurements
    seconds: float
    """Wall time of tracing and measuring."""
    age_years: float | None = None
    """Patient's age, as given."""
    sex: Sex | None = None
    """Patient's sex, as given."""

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """Every measurement, with its value or the reason why there is none."""
        return self.result.measurements

    def __getitem__(self, key: str) -> Measurement:
        """Return the measurement of a key such as `rate`; KeyError for an unknown key."""
        return self.result[key]


def measure(
    source: reader.Source,
    *,
    age_years: float | None = None,
    sex: Sex | None = None,
    force: bool = False,
) -> PageMeasurement:
    """Read a page, flatten and judge it, trace it and measure the trace.

    `age_years` and `sex` select limits that depend on them. `force` also measures a page that was
    refused.
    Raises ScanError where the file is no page, PageRefused where the page cannot be read.
    """
    page = source if isinstance(source, reader.Page) else reader.read(source)
    return measure_page(admission.admit(page, straighten=True, force=force), age_years, sex)


def measure_page(
    checked: CheckedPage, age_years: float | None = None, sex: Sex | None = None
) -> PageMeasurement:
    """Trace and measure a page that admission has checked."""
    start = time.perf_counter()
    traced = trace(checked)
    result = measure_signal(traced.signal, age_years)
    seconds = time.perf_counter() - start
    return PageMeasurement(
        checked.page.name, traced.signal, traced.rows, result, seconds, age_years, sex
    )


def trace(checked: CheckedPage) -> Digitised:
    """Trace a checked page; leads that cannot be traced are missing, with the reasons."""
    flat, quality = checked.flat, checked.quality
    if quality.layout is None:
        return nothing("The page does not look like an ECG, so no trace was followed.")
    layouts = dict(flat.layout)
    layouts[quality.layout] = max(layouts.get(quality.layout, 0.0), 0.5)
    traced = digitise(
        np.asarray(flat.image),
        flat.grid.across if flat.grid else None,
        flat.grid.down if flat.grid else None,
        layouts,
        quality.rows,
    )
    if quality.layout == PARTIAL and traced.signal.layout == THREE_COLUMNS:
        return nothing("Leads are missing, and what remains could be read as another layout.")
    return traced
