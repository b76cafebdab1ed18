"""Retained texts, long entries, and hashed names."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from audit_logs import verify_error

from pulse_edge.audit_log import log as logs
from pulse_edge.audit_log.entries import Retained, answer_entry
from pulse_edge.audit_log.log import AuditLog
from pulse_edge.common import files
from pulse_edge.errors import AuditLogError


def two_pages(tmp_path: Path) -> tuple[AuditLog, Path]:
    """A record of two pages, and the file of the first."""
    page = tmp_path / "scans" / "Erika Mustermann.png"
    page.parent.mkdir()
    page.write_bytes(b"a page")
    log = AuditLog(tmp_path / "log")
    for name, digest in (
        (str(page), hashlib.sha256(b"a page").hexdigest()),
        ("other.pdf#2", "f" * 64),
    ):
        report = {
            "page_sha256": digest,
            "kit": {"id": "kit"},
            "device": "cpu",
            "file": name,
            "versions": {},
        }
        log.append(
            answer_entry(report, {"question": "q", "text": "t", "tokens": 3, "complete": True}, {})
        )
    return log, page


@pytest.mark.skipif(os.name != "posix", reason="links of POSIX")
def test_no_text_is_retained_or_removed_through_a_link(tmp_path: Path) -> None:
    log, other = AuditLog(tmp_path / "log"), tmp_path / "other" / "2000-01-01"
    log.append({})
    other.mkdir(parents=True)
    (other / f"{'0' * 64}.json").write_text("somebody's")
    (log.folder / "retained").rmdir()
    (log.folder / "retained").symlink_to(other.parent)
    with pytest.raises(AuditLogError, match="retained: is a link"):
        log.append({}, Retained(1, {"answer": "x"}, None))
    with pytest.raises(AuditLogError, match="retained: is a link"):
        log.forget()
    assert [path.name for path in other.parent.rglob("*")] == ["2000-01-01", f"{'0' * 64}.json"]


def test_text_that_cannot_be_retained_leaves_no_half_and_no_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = AuditLog(tmp_path / "log")
    log.append({})

    def full(_file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "sync", full)
    with pytest.raises(
        AuditLogError, match=r"retained.* cannot be written \(No space left on device\)"
    ):
        log.append({}, Retained(1, {"answer": "x" * 2000}, None))
    assert [path for path in (log.folder / "retained").rglob("*") if path.is_file()] == []
    assert log.verify().entries == 1


def test_retained_text_goes_after_its_days_and_the_entry_stays(
    small: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = small.append({}, Retained(30, {"answer": "x"}, None))
    assert json.loads(small.retained(item)["texts"].read_text()) == {"answer": "x"}
    today = datetime.date.today()

    class Later(datetime.date):
        @classmethod
        def today(cls) -> datetime.date:
            return today + datetime.timedelta(days=31)

    monkeypatch.setattr(logs.datetime, "date", Later)
    small.forget()
    assert small.retained(item) == {}
    assert small.verify().entries == 6


def test_changed_or_removed_retained_text_is_found(small: AuditLog) -> None:
    path = small.retained(small.append({}, Retained(30, {"answer": "x"}, None)))["texts"]
    path.write_text("{}")
    assert "the texts retained with entry 6 was altered" in verify_error(small.folder)
    path.unlink()
    assert "the texts retained with entry 6 is missing" in verify_error(small.folder)


def test_too_long_entry_is_refused_and_the_log_continues(small: AuditLog) -> None:
    before = (small.folder / "entries.log").read_bytes()
    with pytest.raises(
        AuditLogError, match=r"entry of 1,\d{3},\d{3} bytes is not written; 1,048,576 is the limit"
    ):
        small.append({"text": "x" * (1 << 20)})
    assert (small.folder / "entries.log").read_bytes() == before
    small.append({"text": "x" * ((1 << 20) - 100)})
    assert small.append({}).number == 7
    assert small.verify().entries == len(list(small.entries())) == 7


def test_long_entry_of_another_version_is_read(
    small: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(logs, "MAX_LINE", 1 << 30)
        small.append({"text": "x" * 1_100_000})
    small.append({})
    assert small.verify().entries == len(list(small.entries())) == 7


def test_power_cut_behind_a_long_entry_is_repaired(
    small: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = (small.folder / "head").read_bytes()
    small.append({"text": "x" * 1_000_000})
    (small.folder / "head").write_bytes(head)
    assert small.append({}).number == 7
    assert small.verify().entries == 7


def test_long_name_of_a_kit_is_shortened(tmp_path: Path) -> None:
    report = {
        "page_sha256": "0" * 64,
        "kit": {"id": "k" * 1_100_000, "sha256": "1" * 64},
        "device": "cpu",
        "file": "x",
    }
    report |= {"versions": {"v" * 2000: "w" * 2000}, "answers": [], "findings": []}
    answer = {"question": "q" * 2_000_000, "text": "t" * 2_000_000, "tokens": 1, "complete": True}
    log = AuditLog(tmp_path / "log")
    fields = log.append(answer_entry(report, answer, {"threads": None})).fields
    assert fields["kit"] == {"id": "k" * 499 + "\u2026", "sha256": "1" * 64}
    assert len((tmp_path / "log" / "entries.log").read_bytes()) < 4000
    assert log.verify().entries == 1


def test_hash_of_a_name_cannot_be_tried_without_the_folder(tmp_path: Path) -> None:
    log, _page = two_pages(tmp_path)
    other, _page = two_pages(Path(shutil.copytree(tmp_path / "scans", tmp_path / "b" / "x").parent))
    hashes = {next(record.entries()).fields["file_hash"] for record in (log, other)}
    assert len(hashes) == 2
    assert hashlib.sha256(b"Erika Mustermann.png").hexdigest() not in hashes
    assert b"Erika" not in (log.folder / "entries.log").read_bytes()


def test_retained_text_is_not_shown_after_its_day(
    small: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = small.append({}, Retained(0, {"answer": "x"}, None))
    file = small.retained(item)["texts"]
    foreign = file.with_name("thesis.txt")
    foreign.write_text("mine")
    today = datetime.date.today()

    class Tomorrow(datetime.date):
        @classmethod
        def today(cls) -> datetime.date:
            return today + datetime.timedelta(days=1)

    monkeypatch.setattr(logs.datetime, "date", Tomorrow)
    assert small.retained(item) == {}
    assert file.exists()
    assert small.verify().entries == 6
    assert small.forget() == 1
    assert not file.exists()
    assert foreign.read_text() == "mine"
