"""Confirmations in the audit log."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import pytest
from overreads import AT, LATER, READER, judged, log_with, read_page
from reports import report, uncalibrated

from pulse_edge.audit_log.confirmations import ConfirmationLogger, software_verdict
from pulse_edge.audit_log.entries import Entry, sha256
from pulse_edge.audit_log.log import AuditLog
from pulse_edge.errors import AuditLogError, UsageError
from pulse_edge.report.confirmation import AddedFinding, Confirmation, FindingReview, TextReview
from pulse_edge.report.overread import agreement, confirmed
from pulse_edge.report.report import Report

CHANGED = Confirmation(
    READER,
    findings=(
        FindingReview("AFIB", "rejected", comment="P waves of Erika Mustermann"),
        FindingReview("LVH", "agreed"),
        FindingReview("PVC", "agreed"),
        FindingReview("STE", "judged", "absent"),
    ),
    added=(AddedFinding("Brugada pattern"), AddedFinding(statement="WPW")),
    texts=(TextReview(0, "changed", "Erika is well."),),
    conclusion="Normal.",
)


def logged(log: AuditLog, one: Report, **options: int) -> Entry:
    return ConfirmationLogger(log, options.get("retain_days"))(dataclasses.asdict(one))


def test_entry_has_both_versions_and_refers_to_the_answers(tmp_path: Path) -> None:
    page = read_page()
    log = log_with(tmp_path / "log", page)
    answers = [entry.hash for entry in log.entries()]
    fields = logged(log, confirmed(page, CHANGED, AT)).fields
    assert fields["refers_to"] == answers
    assert len(answers) == 2
    assert (fields["reader"], fields["overall"], fields["number"]) == (READER, "changed", 1)
    assert fields["corrects"] is None
    assert (fields["time"], fields["local_time"]) == (AT.utc, AT.local)
    assert {k: [*v.values()] for k, v in fields["findings"].items()} == {
        "AFIB": ["present", True, "rejected", "absent"],
        "LVH": ["absent", True, "agreed", "absent"],
        "PVC": ["uncertain", True, "agreed", "not assessable"],
        "STE": ["present", False, "judged", "absent"],
    }
    assert [(a["statement"], a["reader"]) for a in fields["added"]] == [
        (None, "present"), ("WPW", "present")
    ]  # fmt: skip
    assert fields["texts"][0]["software_sha256"] == sha256("Sinus rhythm.")
    assert fields["texts"][0]["reader_sha256"] == sha256("Erika is well.")
    assert log.verify().entries == 3


def test_log_holds_the_readers_name_and_no_text(tmp_path: Path) -> None:
    page = read_page(file="Erika Mustermann.png")
    log = log_with(tmp_path / "log", page)
    logged(log, confirmed(page, CHANGED, AT))
    content = b"".join(p.read_bytes() for p in log.folder.rglob("*") if p.is_file())
    assert READER.encode() in content
    assert not any(word in content for word in (b"Erika", b"Brugada", b"Normal."))


def test_readers_texts_are_retained_where_asked(tmp_path: Path) -> None:
    page = read_page()
    log = log_with(tmp_path / "log", page)
    entry = logged(log, confirmed(page, CHANGED, AT), retain_days=2)
    texts = json.loads(log.retained(entry)["texts"].read_text())
    assert texts["confirmation"]["texts"][0]["text"] == "Erika is well."
    assert log.verify().entries == 3


def test_correction_is_an_entry_of_its_own(tmp_path: Path) -> None:
    page = read_page()
    log = log_with(tmp_path / "log", page)
    first = confirmed(page, CHANGED, AT)
    entry = logged(log, first)
    second = logged(log, confirmed(first, agreement(page, "Dr Ben Okri"), LATER))
    assert (second.fields["corrects"], second.fields["number"]) == (entry.hash, 2)
    assert log.verify().entries == 4
    assert ConfirmationLogger(log).last(dataclasses.asdict(page)) == Entry(
        4, second.hash, second.fields
    )


def test_report_is_confirmed_once(tmp_path: Path) -> None:
    page = read_page()
    log = log_with(tmp_path / "log", page)
    logged(log, confirmed(page, CHANGED, AT))
    with pytest.raises(
        UsageError, match=r"Dr Amina Diallo has confirmed this report already.*entry 3"
    ):
        logged(log, confirmed(page, agreement(page, "Dr Ben Okri"), LATER))
    assert log.verify().entries == 3


def test_correction_without_its_confirmation_is_refused(tmp_path: Path) -> None:
    page = read_page()
    log = log_with(tmp_path / "log", page)
    first = confirmed(page, CHANGED, AT)
    with pytest.raises(UsageError, match="corrects a confirmation that is not in this audit log"):
        logged(log, confirmed(first, agreement(page, READER), LATER))


@pytest.mark.parametrize("change", ["text", "finding", "page", "kit", "sheet"])
def test_altered_report_is_not_confirmed(tmp_path: Path, change: str) -> None:
    page = read_page(file="scan.pdf#1")
    log = log_with(tmp_path / "log", page)
    altered = {
        "text": replace(page, answers=(replace(page.answers[0], text="All well."),)),
        "finding": replace(page, findings=(judged("AFIB", "absent"), *page.findings[1:])),
        "page": replace(page, page_sha256="2" * 64),
        "kit": replace(page, kit=replace(page.kit, sha256="3" * 64)),
        "sheet": replace(page, file="scan.pdf#2"),
    }[change]
    with pytest.raises(UsageError, match="answers are not in this audit log, or were altered"):
        logged(log, confirmed(altered, agreement(altered, READER), AT))
    assert log.verify().entries == 2


def test_no_log_is_made_for_a_confirmation(tmp_path: Path) -> None:
    with pytest.raises(AuditLogError, match="there is no audit log"):
        logged(AuditLog(tmp_path / "log"), confirmed(report(), agreement(report(), READER), AT))
    assert list(tmp_path.iterdir()) == []


def test_uncalibrated_finding_counts_by_the_side_of_its_log_odds() -> None:
    ranked = uncalibrated(STE=0.1, PACE=-0.1, WPW=0.0)
    sides = [software_verdict(dataclasses.asdict(finding)) for finding in ranked]
    assert sides == [
        "absent" if f.statement == "PACE" else "present" if f.statement == "STE" else None
        for f in ranked
    ]
