"""Measure the trace of an admitted page, and check what the model says against it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pulse_edge.measurement.checks import Check, check_answers, check_findings
from pulse_edge.measurement.conditions import Person
from pulse_edge.measurement.page import PageMeasurement, measure_page

if TYPE_CHECKING:
    from pulse_edge.inference.request import MeasurementOptions
    from pulse_edge.measurement.admission import TracedPage
    from pulse_edge.report.report import Finding


def measured(traced: TracedPage | None, options: MeasurementOptions) -> PageMeasurement | None:
    """Measure an admitted page; None where that is not wanted, or the page was not admitted."""
    if traced is None or not options.enabled:
        return None
    return measure_page(traced, options.age_years, options.sex)


def checks_of(
    page: PageMeasurement | None,
    answers: Sequence[tuple[str, str]],
    findings: Sequence[Finding],
) -> tuple[Check, ...]:
    """Check the (question, text) of each answer, then each finding; none without measurements."""
    if page is None:
        return ()
    person = Person(page.age_years, page.sex)
    return (
        *check_answers(answers, page.measurements, person),
        *check_findings(findings, page.measurements, person),
    )
