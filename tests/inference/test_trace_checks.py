"""The words of an answer against the trace, in prose and in JSON."""

from __future__ import annotations

import json

import measured_pages
import pytest

from pulse_edge.inference.json_strings import strings_in
from pulse_edge.inference.trace_checks import AnswerText, checks_of
from pulse_edge.measurement.checks import Check

RATE = measured_pages.true_rate()


def checks(answer: str, *, prose: bool = False) -> tuple[Check, ...]:
    return checks_of(measured_pages.measured(), [AnswerText("Report.", answer, prose)], [])


def test_strings_of_json_are_checked_as_text_is() -> None:
    wrong = f"The heart rate is {RATE + 40:.0f} bpm."
    (in_text,) = checks(wrong, prose=True)
    (in_json,) = checks(json.dumps({"summary": wrong, "certainty": 0.9}))
    assert in_text.verdict == in_json.verdict == "contradicted"
    assert in_text.sentence == in_json.sentence


def test_offsets_are_those_of_the_whole_answer() -> None:
    answer = json.dumps(
        {"patient": 'Mr "Ö"', "notes": ["café\n", f"Rate {RATE:.0f} bpm, regular rhythm."]}
    )
    for check in checks(answer):
        assert answer[check.start : check.end] == check.text
    assert [check.verdict for check in checks(answer)] == ["supported", "supported"]


def test_escaped_characters_before_the_words_do_not_move_the_offsets() -> None:
    answer = json.dumps({"a": f'\\"\u00e9\n Heart rate {RATE:.0f} bpm'})
    (check,) = checks(answer)
    assert answer[check.start : check.end] == check.text


def test_yes_and_no_take_their_topic_from_the_key() -> None:
    (check,) = checks('{"atrialFibrillation": "yes"}')
    assert (check.topic, check.verdict) == ("atrial fibrillation", "contradicted")
    (check,) = checks('{"atrial_fibrillation": "no"}')
    assert check.verdict == "supported"


def test_keys_are_no_statements() -> None:
    assert checks('{"atrial fibrillation": 0.1, "bradycardia": [], "asystole": {}}') == ()


def test_each_check_names_its_answer() -> None:
    texts = [AnswerText("", '{"a": "ok"}', False), AnswerText("", f"Rate {RATE:.0f} bpm.")]
    assert [c.answer for c in checks_of(measured_pages.measured(), texts, [])] == [1]


@pytest.mark.parametrize(
    ("answer", "texts"),
    [
        ('{"a": "x\\u00e9\\ud83d\\ude00y", "b": {"c": ["d", ""]}}', ["xé😀y", "d", ""]),
        ('["\\\\", "\\""]', ["\\", '"']),
        ("7", []),
    ],
)
def test_strings_come_as_they_are_read(answer: str, texts: list[str]) -> None:
    strings = list(strings_in(answer))
    assert [string.text for string in strings] == texts
    assert all(len(string.offsets) == len(string.text) + 1 for string in strings)
