"""Measure the trace of a page: from a file, or from a page that admission has traced."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

from pulse_edge.measurement import admission
from pulse_edge.measurement.admission import TracedPage
from pulse_edge.measurement.facts import TracedRows
from pulse_edge.measurement.measure import SignalMeasurements, measure_signal
from pulse_edge.measurement.measurements import Measurement
from pulse_edge.measurement.signal import TracedSignal
from pulse_edge.page import reader

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
    """Wall time of measuring; tracing is part of admission."""
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
    traced: TracedPage, age_years: float | None = None, sex: Sex | None = None
) -> PageMeasurement:
    """Measure the trace of a page that admission has traced."""
    start = time.perf_counter()
    signal, rows = traced.trace.signal, traced.trace.rows
    result = measure_signal(signal, age_years)
    seconds = time.perf_counter() - start
    return PageMeasurement(traced.checked.page.name, signal, rows, result, seconds, age_years, sex)
