"""The lines in front of an answer, and their removal from a conversation that comes back."""

from __future__ import annotations

import pytest
from fake_service import report_json

from pulse_edge.report.report import DEMONSTRATION
from pulse_edge.web import marks


def test_contradictions_stand_above_the_text_and_are_counted_in_the_first_line() -> None:
    first, second, *rest = marks.before_text(report_json()).split("\n")
    assert first == f"[{marks.UNCONFIRMED}. {DEMONSTRATION}. 1 CONTRADICTION.]"
    assert second == "CONTRADICTION: The text says 130 ms; the trace shows 170 ms (± 24)."
    assert rest == ["", ""]


def test_a_report_without_contradictions_has_one_line() -> None:
    report = report_json() | {"contradictions": [], "notice": ""}
    assert marks.before_text(report) == f"[{marks.UNCONFIRMED}.]\n\n"


@pytest.mark.parametrize("text", ["Sinus rhythm.", "One.\n\nTwo.\n- three", "[x] odd"])
def test_marks_come_off_an_answer(text: str) -> None:
    report = report_json()
    assert marks.without_marks(marks.before_text(report) + text) == text
    unchecked = marks.before_unchecked_text([DEMONSTRATION]) + text
    assert marks.without_marks(unchecked + marks.after_unchecked_text(report)) == text
    assert marks.without_marks(text) == text


def test_a_notice_of_several_lines_stays_in_the_first() -> None:
    report = report_json() | {"notice": "ONE\nTWO", "contradictions": []}
    assert marks.before_text(report) == f"[{marks.UNCONFIRMED}. ONE. TWO.]\n\n"


def test_the_field_holds_what_the_report_says() -> None:
    report = report_json()
    field = marks.field("id-1", report)
    assert field["reading"] == "id-1"
    assert field["unconfirmed"] is True
    assert field["notices"] == [DEMONSTRATION]
    assert {name: report[name] for name in marks.REPORT_FIELDS}.items() <= field.items()
