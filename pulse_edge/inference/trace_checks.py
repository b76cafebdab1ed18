"""Measure the trace of an admitted page, and check what the model says against it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pulse_edge.inference.json_strings import strings_in
from pulse_edge.measurement.checks import Check, check_answers, check_findings
from pulse_edge.measurement.conditions import Person
from pulse_edge.measurement.page import PageMeasurement, measure_page

if TYPE_CHECKING:
    from pulse_edge.inference.request import MeasurementOptions
    from pulse_edge.measurement.admission import TracedPage
    from pulse_edge.report.report import Finding


@dataclass(frozen=True)
class AnswerText:
    """An answer as far as it is checked."""

    question: str
    text: str
    prose: bool = True
    """False: JSON, whose strings are checked as texts of their own."""


def measured(traced: TracedPage | None, options: MeasurementOptions) -> PageMeasurement | None:
    """Measure an admitted page; None where that is not wanted, or the page was not admitted."""
    if traced is None or not options.enabled:
        return None
    return measure_page(traced, options.age_years, options.sex)


def checks_of(
    page: PageMeasurement | None,
    answers: Sequence[AnswerText],
    findings: Sequence[Finding],
) -> tuple[Check, ...]:
    """Check each answer, then each finding; none without measurements."""
    if page is None:
        return ()
    person = Person(page.age_years, page.sex)
    return (
        *(
            replace(check, answer=n)
            for n, answer in enumerate(answers)
            for check in _of_answer(answer, page, person)
        ),
        *check_findings(findings, page.measurements, person),
    )


def _of_answer(answer: AnswerText, page: PageMeasurement, person: Person) -> Iterator[Check]:
    """Check a text, or the strings of a JSON answer; offsets are those of the whole answer."""
    if answer.prose:
        yield from check_answers([(answer.question, answer.text)], page.measurements, person)
        return
    for string in strings_in(answer.text):
        # A bare yes or no takes its topic from the key, as it would from a question.
        question = f"Is there {string.key}?" if string.key else ""
        for check in check_answers([(question, string.text)], page.measurements, person):
            if check.start is not None and check.end is not None:
                start, end = string.offsets[check.start], string.offsets[check.end]
                yield replace(check, start=start, end=end)
