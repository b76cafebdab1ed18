"""From a reader's form to a confirmation."""

from __future__ import annotations

from typing import Any

import pytest

from pulse_edge.errors import UsageError
from pulse_edge.report.confirmation import MAX_ITEMS, Confirmation
from pulse_edge.web.overread_form import confirmation, overread_form


def finding(statement: str, verdict: str | None, urgency: int = 2) -> dict[str, Any]:
    return {
        "statement": statement,
        "name": statement.lower(),
        "verdict": verdict,
        "urgency": urgency,
        "rank": 1,
    }


REPORT = {
    "findings": [
        finding("SR", "present", 4),
        finding("STE", "present", 1),
        finding("AFIB", "absent"),
        finding("MI", "uncertain", 1),
        finding("PAC", None),
    ],
    "answers": [{"text": "Sinus rhythm."}],
}


def decided(**fields: str) -> dict[str, Any]:
    return confirmation({k.replace("_", "-"): v for k, v in fields.items()}, REPORT)


def test_present_and_uncertain_findings_need_the_readers_own_choice() -> None:
    form = overread_form(REPORT, None)
    assert [f.statement for f in form.judged] == ["STE", "MI", "SR"]
    for choices in form.judged:
        assert choices.default not in [choice.value for choice in choices.choices]


def test_absent_findings_are_agreed_with_unless_the_reader_changes_them() -> None:
    (absent,) = overread_form(REPORT, None).absent
    assert (absent.statement, absent.default) == ("AFIB", "agreed")


def test_findings_without_a_verdict_may_stay_without_a_decision() -> None:
    (ranked,) = overread_form(REPORT, None).open
    assert (ranked.statement, ranked.default) == ("PAC", "")


@pytest.mark.parametrize(
    ("statement", "choice", "decision"),
    [
        ("STE", "agreed", {"decision": "agreed"}),
        ("STE", "absent", {"decision": "rejected", "verdict": "absent"}),
        ("STE", "not assessable", {"decision": "changed", "verdict": "not assessable"}),
        ("AFIB", "present", {"decision": "rejected", "verdict": "present"}),
        ("MI", "present", {"decision": "changed", "verdict": "present"}),
        ("PAC", "absent", {"decision": "judged", "verdict": "absent"}),
    ],
)
def test_a_choice_becomes_a_decision(statement: str, choice: str, decision: dict) -> None:
    sent = confirmation({f"finding-{statement}": choice}, REPORT)
    assert sent["findings"] == [{"statement": statement, **decision}]


def test_no_choice_is_no_decision() -> None:
    assert decided(finding_PAC="")["findings"] == []


def test_an_edited_text_is_a_change_even_where_agree_is_chosen() -> None:
    sent = decided(text_0="agreed", edited_0="Sinus rhythm.\r\nOld LBBB.")
    assert sent["texts"] == [
        {"answer": 0, "decision": "changed", "text": "Sinus rhythm.\nOld LBBB."}
    ]


def test_a_text_that_is_the_same_is_agreed_with() -> None:
    sent = decided(text_0="changed", edited_0="Sinus rhythm.")
    assert sent["texts"] == [{"answer": 0, "decision": "agreed"}]


@pytest.mark.parametrize("decision", ["changed", "agreed"])
def test_a_text_that_was_emptied_is_not_agreed_with(decision: str) -> None:
    sent = decided(text_0=decision, edited_0=" ", reader="Dr Diallo")
    with pytest.raises(UsageError, match="lacks an edited version"):
        Confirmation.from_json(sent)


def test_a_rejected_text_carries_no_edits() -> None:
    sent = decided(text_0="rejected", edited_0="Something else.")
    assert sent["texts"] == [{"answer": 0, "decision": "rejected"}]


def test_each_line_adds_a_finding() -> None:
    sent = decided(added="  lead reversal \r\n\r\nold  infarct")
    assert sent["added"] == [
        {"name": "lead reversal", "verdict": "present"},
        {"name": "old infarct", "verdict": "present"},
    ]


def test_too_many_lines_are_refused_instead_of_shortened() -> None:
    sent = decided(added="\n".join(map(str, range(MAX_ITEMS + 1))), reader="Dr Diallo")
    with pytest.raises(UsageError, match=f"{MAX_ITEMS} is the limit"):
        Confirmation.from_json(sent)


def test_a_reading_can_be_rejected_as_a_whole() -> None:
    assert decided(overall="rejected")["overall"] == "rejected"
    assert "overall" not in decided(overall="")


def test_differences_are_what_the_reader_decided_otherwise() -> None:
    given = {
        "findings": [
            {"statement": "STE", "decision": "rejected", "verdict": "absent"},
            {"statement": "SR", "decision": "agreed", "verdict": "present"},
        ],
        "added": [{"name": "lead reversal", "statement": None, "verdict": "present"}],
    }
    form = overread_form(REPORT, given)
    assert [(d.name, d.verdict) for d in form.differences] == [
        ("ste", "absent"),
        ("lead reversal", "present"),
    ]


def test_an_absent_finding_is_not_added_as_present() -> None:
    with pytest.raises(UsageError, match="only findings that are present are added"):
        decided(added="No atrial fibrillation")


def test_an_added_statement_of_the_fixed_list_is_named_by_its_key() -> None:
    assert decided(added="Left ventricular hypertrophy")["added"] == [
        {"statement": "LVH", "verdict": "present"}
    ]


@pytest.mark.parametrize(
    ("line", "decision"),
    [
        ("atrial fibrillation", {"decision": "rejected", "verdict": "present"}),
        ("sinus rhythm", {"decision": "agreed"}),
    ],
)
def test_an_added_finding_that_the_report_has_is_a_decision_about_it(line: str, decision) -> None:
    sent = decided(added=line)
    assert sent["added"] == []
    (review,) = sent["findings"]
    assert {k: v for k, v in review.items() if k != "statement"} == decision


def test_a_text_that_was_emptied_is_a_change_without_a_text() -> None:
    sent = decided(text_0="agreed", edited_0=" ")
    assert sent["texts"] == [{"answer": 0, "decision": "changed", "text": ""}]
