"""`pulse-edge audit`, and what commands put into the log."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import pulse_edge
from pulse_edge.audit_log.entries import Retained, answer_entry
from pulse_edge.audit_log.log import AuditLog
from pulse_edge.report.report import INTENDED_USE

PAGE = Path(pulse_edge.__file__).parent / "assets" / "example_page.png"


def run(*arguments: object, log: Path, **how: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pulse_edge", *map(str, arguments)]
    env = os.environ | {"PULSE_EDGE_AUDIT_LOG": str(log)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env, **how)  # type: ignore[call-overload,no-any-return]


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.stat().st_mode, path.stat().st_mtime_ns)
        for path in (folder, *folder.rglob("*"))
    }


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


def listed(log: AuditLog, *words: object) -> list[str]:
    """Numbers of the entries that are listed."""
    done = run("audit", "list", *words, log=log.folder)
    return [line.split()[0] for line in done.stdout.splitlines()]


def test_every_answer_is_logged_without_names_and_texts(tiny_kit: Path, tmp_path: Path) -> None:
    page = Path(shutil.copy(PAGE, tmp_path / "Erika Mustermann.png"))
    questions = ("-q", "Is Erika well?", "-q", "What is the rate?")
    done = run(
        "interpret",
        page,
        "--kit",
        tiny_kit,
        "--threads",
        1,
        "--max-tokens",
        4,
        *questions,
        log=tmp_path / "log",
    )
    assert done.returncode == 0, done.stderr
    assert AuditLog(tmp_path / "log").verify().entries == 2
    assert b"Erika" not in b"".join(
        p.read_bytes() for p in (tmp_path / "log").rglob("*") if p.is_file()
    )
    listed = run("audit", "list", log=tmp_path / "log").stdout.splitlines()
    assert len(listed) == 2
    assert "4 tokens, cut off" in listed[0]


def test_retain_stores_texts_and_picture_and_show_shows_them(
    tiny_kit: Path, tmp_path: Path
) -> None:
    done = run(
        "interpret",
        PAGE,
        "--kit",
        tiny_kit,
        "--threads",
        1,
        "--max-tokens",
        4,
        "--retain",
        2,
        log=tmp_path / "log",
    )
    *_, answer, intended_use = done.stdout.splitlines()
    assert intended_use == INTENDED_USE
    shown = run("audit", "show", 1, log=tmp_path / "log").stdout
    assert json.dumps(answer, ensure_ascii=False)[1:-1] in shown
    item = next(AuditLog(tmp_path / "log").entries())
    assert AuditLog(tmp_path / "log").retained(item)["picture"].read_bytes().startswith(b"\x89PNG")


def test_interrupted_answer_is_logged(tiny_kit: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pulse_edge",
        "interpret",
        str(PAGE),
        "--kit",
        str(tiny_kit),
        "--threads",
        "1",
        "--no-measure",  # measured reports are held back until the answer ends
    ]
    env = os.environ | {"PULSE_EDGE_AUDIT_LOG": str(tmp_path / "log")}
    process = subprocess.Popen(
        [*command, "--max-tokens", "3900"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env
    )
    assert process.stdout is not None
    assert any(line.startswith(b"Page:") for line in process.stdout)
    assert process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert [e.fields["ended"] for e in AuditLog(tmp_path / "log").entries()] == ["broken off"]


def test_no_answer_without_a_place_for_the_log(tiny_kit: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run("interpret", PAGE, "--kit", tiny_kit, "--threads", 1, log=tmp_path / "file")
    assert (done.returncode, done.stdout) == (1, "")
    assert "is no folder, so it cannot hold the audit log" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_verify_says_where_the_log_is_broken(small: AuditLog) -> None:
    assert run("audit", "verify", log=small.folder).stdout.startswith(
        f"{small.folder}: 5 entries are as they were"
    )
    data = bytearray((small.folder / "entries.log").read_bytes())
    data[-5] ^= 1
    (small.folder / "entries.log").write_bytes(data)
    done = run("audit", "verify", log=small.folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert "entry 5 was altered" in done.stderr


def test_reading_changes_no_file(small: AuditLog) -> None:
    small.append({"n": 5}, Retained(30, {"answer": "x"}, None))
    (small.folder / "retained" / "2001-01-01").mkdir()
    (small.folder / "retained" / "2001-01-01" / ("a" * 64 + ".json")).write_text("{}")
    with open(small.folder / "entries.log", "ab") as file:
        file.write(b"half a line")
    before = snapshot(small.folder)
    for words in (("list",), ("show", 6), ("verify",), ("export",)):
        assert run("audit", *words, log=small.folder).returncode == 0, words
    assert snapshot(small.folder) == before


def test_copy_without_marker_and_lock_can_be_read(small: AuditLog, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    for name in ("entries.log", "head"):
        shutil.copy(small.folder / name, tmp_path / "copy")
    before = snapshot(tmp_path / "copy")
    assert run("audit", "verify", "--audit-log", tmp_path / "copy", log=tmp_path).stdout.startswith(
        f"{tmp_path / 'copy'}: 5 "
    )
    assert snapshot(tmp_path / "copy") == before


@pytest.mark.parametrize(
    "command", [("list",), ("show", 1), ("verify",), ("export",), ("forget",), ("agreement",)]
)
def test_commands_say_where_there_is_no_log_and_make_none(
    tmp_path: Path, command: tuple[object, ...]
) -> None:
    done = run("audit", *command, "--audit-log", tmp_path / "gone", log=tmp_path / "other")
    assert (done.returncode, done.stdout) == (1, "")
    assert str(tmp_path / "gone") in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_entries_of_a_page_are_found_by_file_name_and_hash(tmp_path: Path) -> None:
    log, page = two_pages(tmp_path)
    first, second = (item.fields for item in log.entries())
    assert listed(log) == ["1", "2"]
    assert listed(log, "--page", page) == ["1"]
    renamed = page.rename(tmp_path / "renamed.png")
    assert listed(log, "--page", renamed) == ["1"]
    assert listed(log, "--page", "Erika Mustermann.png") == ["1"]
    assert listed(log, "--page", "/elsewhere/other.pdf") == ["2"]
    assert listed(log, "--page", first["page_sha256"][:12]) == ["1"]
    assert listed(log, "--page", second["file_hash"][:8].upper()) == ["2"]
    done = run("audit", "list", "--page", "absent.png", log=log.folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no entry is about absent.png" in done.stderr


def test_list_shows_utc_and_local_time_of_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        log, _page = two_pages(tmp_path)
    finally:
        monkeypatch.undo()
        time.tzset()
    fields = next(log.entries()).fields
    utc = datetime.datetime.fromisoformat(fields["time"].replace("Z", "+00:00"))
    local = datetime.datetime.fromisoformat(fields["local_time"])
    assert local.utcoffset() == datetime.timedelta(hours=5, minutes=30)
    assert abs(utc - local) < datetime.timedelta(seconds=1.1)
    line = run("audit", "list", log=log.folder).stdout.splitlines()[0]
    assert (
        f"{fields['time']} ({local:%Y-%m-%d %H:%M:%S} +0530) file {fields['file_hash'][:12]} page "
        in line
    )


def test_entries_of_other_versions_are_listed(small: AuditLog) -> None:
    small.append({"kit": "old", "time": "some day", "tokens": "\x1b[2K", "page_sha256": None})
    done = run("audit", "list", log=small.folder)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 6
    assert "\x1b" not in done.stdout
    assert run("audit", "export", "--format", "csv", log=small.folder).returncode == 0


def test_export_replaces_a_file_only_when_asked_to(small: AuditLog, tmp_path: Path) -> None:
    precious, link = tmp_path / "precious.txt", tmp_path / "link.txt"
    precious.write_text("precious")
    link.symlink_to(precious)
    for target in (precious, link):
        done = run("audit", "export", "-o", target, log=small.folder)
        assert done.returncode == 2
        assert f"{target}: exists, and is not replaced" in done.stderr
    assert run("audit", "export", "-o", link, "--overwrite", log=small.folder).returncode == 0
    assert len(link.read_text().splitlines()) == 5
    assert precious.read_text() == "precious"


def test_export_gives_every_entry(tiny_kit: Path, tmp_path: Path) -> None:
    run(
        "interpret",
        PAGE,
        PAGE,
        "--kit",
        tiny_kit,
        "--threads",
        1,
        "--max-tokens",
        2,
        log=tmp_path / "log",
    )
    lines = run("audit", "export", log=tmp_path / "log").stdout.splitlines()
    assert [json.loads(line)["entry"] for line in lines] == [1, 2]
    table = tmp_path / "table.csv"
    assert (
        run("audit", "export", "--format", "csv", "-o", table, log=tmp_path / "log").returncode == 0
    )
    assert len(table.read_text().splitlines()) == 3
