"""Confirmed pages become a test set that `calibration` reads."""

from __future__ import annotations

import dataclasses
import stat
from pathlib import Path

import pytest
from overreads import AT, LATER, READER, log_with, read_page

from calibration import ecgbench
from calibration.truths import known_pages
from pulse_edge.audit_log import local_test_set
from pulse_edge.audit_log.confirmations import ConfirmationLogger
from pulse_edge.audit_log.local_test_set import LocalTestSet
from pulse_edge.audit_log.log import AuditLog
from pulse_edge.common.paths import EXAMPLE_PAGE
from pulse_edge.errors import UsageError
from pulse_edge.report.confirmation import AddedFinding, Confirmation, FindingReview, TextReview
from pulse_edge.report.overread import agreement, confirmed
from pulse_edge.report.report import Report

GIVEN = Confirmation(
    READER,
    findings=(
        FindingReview("AFIB", "rejected"),
        FindingReview("LVH", "agreed"),
        FindingReview("PVC", "agreed"),
        FindingReview("STE", "judged", "present"),
    ),
    added=(AddedFinding("Brugada pattern"), AddedFinding(statement="WPW")),
    texts=(TextReview(0, "agreed"),),
)
TRUTHS = {"AFIB": False, "WPW": True, "LVH": False, "STE": True}


def confirmed_log(folder: Path, *pages: Report, retain_days: int | None = 30) -> AuditLog:
    log = log_with(folder, *pages, retain_days=retain_days, picture=EXAMPLE_PAGE.read_bytes)
    for page in pages:
        ConfirmationLogger(log)(dataclasses.asdict(confirmed(page, GIVEN, AT)))
    return log


def known(folder: Path) -> list[dict[str, bool]]:
    """The truths that `calibration` reads, after a look at every sample."""
    bench = ecgbench.open_bench(folder)
    problems: list[ecgbench.Problem] = []
    for task in bench.tasks:
        assert list(bench.samples(task, problems.append))
    assert problems == []
    return [page.truths for page in known_pages(bench, problems.append)]


def test_calibration_reads_the_readers_verdicts_back(tmp_path: Path) -> None:
    log = confirmed_log(tmp_path / "log", read_page())
    result = local_test_set.write(log, tmp_path / "set")
    assert result == LocalTestSet(1, 4, without_picture=0, without_verdict=0)
    assert known(tmp_path / "set") == [TRUTHS]
    bench = ecgbench.open_bench(tmp_path / "set")
    samples = list(bench.samples("ecgqa-test", lambda _: None))
    assert {s.turns[0][0].split("?")[0]: s.chosen for s in samples} == {
        "Does this ECG show atrial fibrillation": ("no",),
        "Does this ECG show Wolff-Parkinson-White pattern": ("yes",),
        "Does this ECG show left ventricular hypertrophy": ("no",),
        "Does this ECG show ST elevation": ("yes",),
    }
    assert samples[0].picture == EXAMPLE_PAGE.read_bytes()


def test_correction_gives_the_truth(tmp_path: Path) -> None:
    page = read_page()
    log = confirmed_log(tmp_path / "log", page)
    first = confirmed(page, GIVEN, AT)
    second = confirmed(first, agreement(first, "Dr Ben Okri"), LATER)
    ConfirmationLogger(log)(dataclasses.asdict(second))
    local_test_set.write(log, tmp_path / "set")
    assert known(tmp_path / "set") == [{"AFIB": True, "LVH": False}]


def test_pages_without_picture_are_left_out_and_counted(tmp_path: Path) -> None:
    log = confirmed_log(tmp_path / "log", read_page())
    other = read_page(page_sha256="2" * 64)
    log_with(tmp_path / "log", other)
    ConfirmationLogger(log)(dataclasses.asdict(confirmed(other, GIVEN, AT)))
    result = local_test_set.write(log, tmp_path / "set")
    assert (result.pages, result.without_picture) == (1, 1)


def test_page_without_a_verdict_is_left_out_and_counted(tmp_path: Path) -> None:
    log = confirmed_log(tmp_path / "log", read_page())
    other = read_page(page_sha256="2" * 64)
    log_with(tmp_path / "log", other, retain_days=30, picture=EXAMPLE_PAGE.read_bytes)
    rejected = confirmed(other, Confirmation(READER, overall="rejected"), AT)
    ConfirmationLogger(log)(dataclasses.asdict(rejected))
    result = local_test_set.write(log, tmp_path / "set")
    assert (result.pages, result.without_verdict) == (1, 1)


def test_nothing_is_written_unless_pictures_were_retained(tmp_path: Path) -> None:
    log = confirmed_log(tmp_path / "log", read_page(), retain_days=None)
    with pytest.raises(UsageError, match="no confirmed page with a verdict and a retained picture"):
        local_test_set.write(log, tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_folder_is_new_and_its_owners_alone(tmp_path: Path) -> None:
    log = confirmed_log(tmp_path / "log", read_page())
    local_test_set.write(log, tmp_path / "set")
    for path in ((tmp_path / "set"), *(tmp_path / "set").rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
    with pytest.raises(UsageError, match=r"is not empty\. Name a new folder"):
        local_test_set.write(log, tmp_path / "set")


def test_set_has_no_name_of_reader_or_file(tmp_path: Path) -> None:
    page = read_page(file="Erika Mustermann.png")
    log = confirmed_log(tmp_path / "log", page)
    local_test_set.write(log, tmp_path / "set")
    content = b"".join(p.read_bytes() for p in (tmp_path / "set").glob("*.json*"))
    assert not any(word in content for word in (b"Erika", b"Diallo"))
    assert not list((tmp_path / "set").rglob("*Erika*"))
