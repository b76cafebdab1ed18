"""What a reader's confirmation may hold."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from overreads import READER

from pulse_edge.errors import UsageError
from pulse_edge.report.confirmation import (
    MAX_COMMENT,
    MAX_READER,
    MAX_TEXT,
    AddedFinding,
    Confirmation,
    Correction,
    FindingReview,
    TextReview,
)

FULL = Confirmation(
    READER,
    overall="changed",
    findings=(FindingReview("AFIB", "changed", "absent", "P waves in V1"),),
    added=(AddedFinding("Brugada pattern"), AddedFinding(statement="WPW", verdict="absent")),
    texts=(TextReview(0, "changed", "Sinus rhythm."),),
    conclusion="Sinus rhythm.",
    comment="Second sheet of the day.",
    number=2,
    corrects=Correction("Dr B", "2026-01-01T00:00:00Z", "0" * 64),
)


def test_confirmation_survives_its_json() -> None:
    text = json.dumps(FULL.to_json())
    assert Confirmation.from_json(json.loads(text)) == FULL


def test_reader_alone_is_a_confirmation_in_json() -> None:
    assert Confirmation.from_json({"reader": READER}) == Confirmation(READER)


def test_line_ends_of_browsers_become_line_feeds() -> None:
    value = {"reader": READER, "texts": [{"answer": 0, "decision": "changed", "text": "a\r\nb\rc"}]}
    assert Confirmation.from_json(value).texts[0].text == "a\nb\nc"


def test_hash_changes_with_any_field() -> None:
    assert FULL.sha256 == Confirmation.from_json(FULL.to_json()).sha256
    assert FULL.sha256 != replace(FULL, comment="").sha256


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({}, "confirmation lacks reader"),
        ({"reader": "A", "who": 1}, "confirmation has unknown who"),
        ({"reader": " "}, "the reader's name is empty"),
        ({"reader": "A\nB"}, r"the reader's name, A\nB, has spaces at an end, or characters"),
        ({"reader": "A\u202eB"}, "characters that cannot be printed"),
        ({"reader": "A" * (MAX_READER + 1)}, "reader's name has 101 characters; 100 is the limit"),
        ({"reader": 7}, "confirmation.reader is 7, expected str"),
        ({"reader": "A", "overall": "fine"}, "confirmation.overall is 'fine', expected one of"),
        (
            {"reader": "A", "findings": [{"statement": "AFIB", "decision": "maybe"}]},
            "confirmation.findings[0].decision is 'maybe'",
        ),
        (
            {"reader": "A", "findings": [{"statement": "AFIB", "decision": "agreed", "comment": "x" * 2001}]},
            f"comment on AFIB has {MAX_COMMENT + 1:,} characters",
        ),
        ({"reader": "A", "added": [{"verdict": "present"}]}, "an added finding has no name"),
        (
            {"reader": "A", "texts": [{"answer": 0, "decision": "agreed", "text": "x"}]},
            "the text of answer 1 is agreed and has an edited version",
        ),
        (
            {"reader": "A", "texts": [{"answer": 0, "decision": "changed"}]},
            "the text of answer 1 is changed and lacks an edited version",
        ),
        ({"reader": "A", "conclusion": "x" * (MAX_TEXT + 1)}, "the conclusion has 20,001"),
        (
            {"reader": "A", "added": [{"name": "x"}] * 101},
            "has 101 items of a kind; 100 is the limit",
        ),
    ],
)  # fmt: skip
def test_what_is_no_confirmation_is_refused_with_the_field(
    value: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError) as raised:
        Confirmation.from_json(value)
    assert words in str(raised.value)


@pytest.mark.parametrize("name", ["Др Иванова", "佐藤 健", "د. ليلى", "N'Diaye-Müller"])
def test_reader_may_have_a_name_of_any_alphabet(name: str) -> None:
    assert Confirmation(name).reader == name


@pytest.mark.parametrize("name", ["\u3164", "\u200d", "...", "\u2800", "123"])
def test_reader_without_a_letter_has_no_name(name: str) -> None:
    with pytest.raises(UsageError, match="reader's name"):
        Confirmation(name)
