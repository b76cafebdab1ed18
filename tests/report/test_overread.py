"""A report and its reader's version: what follows from each decision, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys

import jsonschema
import pytest
from overreads import AT, LATER, READER, judged, read_page
from reports import report

from export.schema import report_schema
from pulse_edge.errors import UsageError
from pulse_edge.measurement.measurements import Measurement
from pulse_edge.report import stored
from pulse_edge.report.confirmation import (
    UNCONFIRMED,
    AddedFinding,
    Confirmation,
    Decision,
    FindingDecision,
    FindingReview,
    TextReview,
    Verdict,
)
from pulse_edge.report.overread import (
    Difference,
    agreement,
    confirmed,
    confirmed_json,
    differences,
)
from pulse_edge.report.report import Report

TEXT = (TextReview(0, "agreed"),)


def decided(*findings: FindingReview, **more: object) -> Confirmation:
    """Decisions about a report, with its text agreed."""
    return Confirmation(READER, findings=findings, **({"texts": TEXT} | more))  # type: ignore[arg-type]


def verdicts(report: Report) -> dict[str, str | None]:
    assert report.confirmation is not None
    return {r.statement: r.verdict for r in report.confirmation.findings}


def test_report_is_unconfirmed_until_a_reader_decides() -> None:
    assert read_page().overread == UNCONFIRMED == "Unconfirmed: requires physician overread"


def test_reader_who_agrees_has_the_verdicts_of_the_software() -> None:
    page = read_page()
    result = confirmed(page, agreement(page, READER), AT)
    assert verdicts(result) == {"AFIB": "present", "LVH": "absent", "PVC": "not assessable"}
    assert result.confirmation is not None
    assert result.confirmation.overall == "agreed"
    assert result.overread == (
        "Confirmed without change by Dr Amina Diallo, "
        "2026-03-04T05:06:07Z (2026-03-04 06:06:07 +0100)"
    )
    assert differences(result) == []
    assert result.findings == page.findings


@pytest.mark.parametrize(
    ("software", "decision", "given", "verdict"),
    [
        ("present", "agreed", None, "present"),
        ("present", "agreed", "present", "present"),
        ("present", "rejected", None, "absent"),
        ("absent", "rejected", None, "present"),
        ("present", "changed", "not assessable", "not assessable"),
        ("absent", "changed", "present", "present"),
        ("uncertain", "agreed", None, "not assessable"),
        ("uncertain", "changed", "present", "present"),
    ],
)
def test_verdict_follows_from_the_decision(
    software: str, decision: FindingDecision, given: Verdict | None, verdict: Verdict
) -> None:
    page = report(findings=(judged("AFIB", software),))
    result = confirmed(page, decided(FindingReview("AFIB", decision, given)))
    assert verdicts(result) == {"AFIB": verdict}


@pytest.mark.parametrize(
    ("software", "decision", "given", "words"),
    [
        ("present", "changed", None, "is missing or not called a change"),
        ("present", "changed", "present", "is what the software says"),
        ("uncertain", "changed", "not assessable", "is what the software says"),
        ("present", "agreed", "absent", "AFIB is present, agreed, and also absent"),
        ("uncertain", "rejected", None, "has no opposite"),
        ("present", "judged", "absent", "not called a change"),
    ],
)
def test_decision_without_sense_is_refused(
    software: str, decision: FindingDecision, given: Verdict | None, words: str
) -> None:
    page = report(findings=(judged("AFIB", software),))
    with pytest.raises(UsageError, match=words):
        confirmed(page, decided(FindingReview("AFIB", decision, given)))


@pytest.mark.parametrize("decision", ["changed", "judged"])
def test_reader_judges_a_finding_that_was_only_ranked(decision: FindingDecision) -> None:
    page = read_page()
    given = agreement(page, READER).findings
    result = confirmed(page, decided(*given, FindingReview("STE", decision, "present")), AT)
    assert result.confirmation is not None
    assert result.confirmation.findings[-1] == FindingReview("STE", "judged", "present")
    assert result.confirmation.overall == "agreed"
    assert differences(result) == [Difference("STE", "ST elevation", "no verdict", "present", "")]


@pytest.mark.parametrize("decision", ["agreed", "rejected"])
def test_rank_is_no_verdict_to_agree_with(decision: FindingDecision) -> None:
    page = read_page()
    given = agreement(page, READER).findings
    with pytest.raises(UsageError, match="STE has no verdict of the software"):
        confirmed(page, decided(*given, FindingReview("STE", decision)))


def test_every_verdict_and_text_needs_a_decision() -> None:
    with pytest.raises(UsageError, match="no decision about LVH, PVC, the text of answer 1"):
        confirmed(read_page(), decided(FindingReview("AFIB", "agreed"), texts=()))


def test_whole_report_is_rejected_without_single_decisions() -> None:
    result = confirmed(read_page(), Confirmation(READER, overall="rejected"), AT)
    assert result.overread.startswith("Rejected as a whole, do not use: read by Dr Amina Diallo, ")


@pytest.mark.parametrize(
    ("added", "words"),
    [
        ((AddedFinding(statement="AFIB"),), "AFIB is added, and it is a finding already"),
        ((AddedFinding(statement="WPW"),) * 2, "WPW is added, and it is a finding already"),
        ((AddedFinding(statement="XYZ"),), "XYZ is no statement of the fixed list"),
        ((AddedFinding("Brugada"),) * 2, "Brugada is added twice"),
    ],
)
def test_added_finding_is_new_and_listed(added: tuple[AddedFinding, ...], words: str) -> None:
    page = read_page()
    given = agreement(page, READER).findings
    with pytest.raises(UsageError, match=words):
        confirmed(page, decided(*given, added=added))


def test_added_findings_have_the_names_of_the_list_or_the_readers_words() -> None:
    page = read_page()
    added = (AddedFinding(statement="WPW", name="wpw?"), AddedFinding("Brugada pattern"))
    result = confirmed(page, decided(*agreement(page, READER).findings, added=added))
    assert [d.name for d in differences(result)] == [
        "Brugada pattern", "Wolff-Parkinson-White pattern"
    ]  # fmt: skip
    assert result.confirmation is not None
    assert result.confirmation.overall == "changed"


@pytest.mark.parametrize("name", ["WPW", "wpw", "Wolff-Parkinson-White pattern"])
def test_words_of_the_fixed_list_are_its_statement(name: str) -> None:
    result = confirmed(report(), decided(added=(AddedFinding(name),)), AT)
    assert result.confirmation is not None
    assert result.confirmation.added == (
        AddedFinding("Wolff-Parkinson-White pattern", statement="WPW"),
    )
    with pytest.raises(UsageError, match="AFIB is added, and it is a finding already"):
        confirmed(read_page(), decided(added=(AddedFinding("Atrial fibrillation"),)))


@pytest.mark.parametrize(
    ("findings", "words"),
    [
        ((FindingReview("AFIB", "agreed"), FindingReview("AFIB", "rejected")), "decided twice"),
        ((FindingReview("NORM", "agreed"),), "NORM is no finding of page.png"),
    ],
)
def test_decision_about_another_report_is_refused(
    findings: tuple[FindingReview, ...], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        confirmed(read_page(), decided(*findings))


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ((TextReview(0, "agreed"),) * 2, r"answers \[1, 1\]; page.png has 1"),
        ((TextReview(1, "agreed"),), r"answers \[2\]; page.png has 1"),
        ((TextReview(0, "changed", "Sinus rhythm."),), "edited text of answer 1 is the software's"),
    ],
)
def test_decision_about_another_text_is_refused(texts: tuple[TextReview, ...], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        confirmed(report(), Confirmation(READER, texts=texts))


@pytest.mark.parametrize(
    ("overall", "decision", "words"),
    [
        ("agreed", "rejected", "is agreed as a whole, and the decisions make it changed"),
        ("changed", "agreed", "is changed as a whole, and the decisions make it agreed"),
    ],
)
def test_whole_and_parts_say_the_same(
    overall: Decision, decision: FindingDecision, words: str
) -> None:
    page = report(findings=(judged("AFIB", "present"),))
    with pytest.raises(UsageError, match=words):
        confirmed(page, decided(FindingReview("AFIB", decision), overall=overall))


def test_correction_names_the_confirmation_that_it_replaces() -> None:
    page = read_page()
    first = confirmed(page, agreement(page, READER), AT)
    second = confirmed(first, agreement(page, "Dr Ben Okri"), LATER)
    assert first.confirmation is not None
    assert second.confirmation is not None
    assert second.confirmation.number == 2
    assert second.confirmation.corrects is not None
    assert second.confirmation.corrects.sha256 == first.confirmation.sha256
    assert second.overread.endswith(
        "; replaces what Dr Amina Diallo confirmed, 2026-03-04T05:06:07Z"
    )


def test_time_is_the_programs_whatever_the_form_says() -> None:
    given = Confirmation(READER, texts=TEXT, time="1999-01-01T00:00:00Z", number=7)
    result = confirmed(report(), given, AT)
    assert result.confirmation is not None
    assert (result.confirmation.time, result.confirmation.number) == (AT.utc, 1)


def test_json_of_a_report_begins_with_notice_and_overread() -> None:
    page = read_page()
    for result in (page, confirmed(page, agreement(page, READER), AT)):
        fields = json.loads(result.to_json())
        assert list(fields)[:2] == ["notice", "overread"]
        assert fields["overread"] == result.overread
        jsonschema.validate(fields, report_schema())


def test_stored_report_is_read_back() -> None:
    page = read_page()
    added = (AddedFinding("Brugada pattern"),)
    result = confirmed(page, decided(*agreement(page, READER).findings, added=added), AT)
    for one in (page, result):
        assert stored.parse(one.to_json()) == one


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", "missing"),
        ("[]", "is no object"),
        ("nonsense", "Expecting value"),
        ('{"file": "x", "error": "y", "exit_code": 3}', "says why a page has no answer"),
    ],
)
def test_what_is_no_report_is_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        stored.parse(text)


def test_stored_report_that_claims_a_confirmation_is_refused() -> None:
    fields = json.loads(read_page().to_json()) | {"overread": f"Confirmed by {READER}"}
    with pytest.raises(UsageError, match="its overread and its confirmation say different things"):
        stored.parse(json.dumps(fields))


def test_json_of_a_report_is_confirmed_without_its_measurements_being_touched() -> None:
    source = read_page(measurements=(Measurement("rate", "rate", 76.0, "bpm", 3.0, ("II",)),))
    fields = json.loads(source.to_json())
    given = agreement(source, READER).to_json()
    result = confirmed_json(fields, given)
    assert list(result) == list(fields)
    assert result["measurements"] == fields["measurements"]
    assert stored.from_json(result).confirmation is not None
    assert result["overread"].startswith("Confirmed without change by Dr Amina Diallo, ")
    again = confirmed_json(result, given)
    assert (
        again["confirmation"]["corrects"]["sha256"]
        == Confirmation.from_json(result["confirmation"]).sha256
    )


def test_confirming_json_loads_no_numpy() -> None:
    code = (
        "import sys, json; from pulse_edge.report.overread import confirmed_json; "
        "confirmed_json(json.load(sys.stdin), {'reader': 'A', 'overall': 'rejected'}); "
        "assert not {'numpy', 'cv2'} & set(sys.modules)"
    )
    text = read_page().to_json()
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_json_that_is_no_report_is_not_confirmed() -> None:
    with pytest.raises(UsageError, match="Read the page again"):
        confirmed_json({"file": "x"}, {"reader": READER})
