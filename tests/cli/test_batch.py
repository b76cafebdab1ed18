"""`pulse-edge batch` with a kit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

from batches import lines
from PIL import Image
from waiting import wait_until

import pulse_edge
from pulse_edge.audit_log.log import AuditLog
from pulse_edge.report.report import FORCED

PAGE = Path(pulse_edge.__file__).parent / "assets" / "example_page.png"


def pulse_edge_batch(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "pulse_edge", "batch", *map(str, arguments)]


def comparable(out: Path) -> list[tuple[str, str]]:
    """What must not depend on interruptions."""
    return [
        (Path(line["file"]).name, json.dumps(line.get("answers") or line["error"]))
        for line in lines(out)
    ]


def finished(out: Path) -> int:
    if not (out / "batch.sqlite").exists():
        return 0
    with sqlite3.connect(f"file:{out / 'batch.sqlite'}?mode=ro", uri=True) as db:
        try:
            return int(db.execute("SELECT count(*) FROM pages").fetchone()[0])
        except sqlite3.OperationalError:
            return 0


def test_killed_batch_gives_the_results_of_an_unbroken_one(tiny_kit: Path, tmp_path: Path) -> None:
    (tmp_path / "pages").mkdir()
    for n in range(5):
        Image.open(PAGE).convert("RGB").rotate(n).save(tmp_path / "pages" / f"{n}.png")
    (tmp_path / "pages" / "3.png").write_bytes(b"no picture")
    how = ("--kit", tiny_kit, "--threads", 1, "--max-tokens", 4, "-q", "Rate?", "-q", "Rhythm?")
    process = subprocess.Popen(
        pulse_edge_batch(tmp_path / "pages", "-o", tmp_path / "killed", *how)
    )
    wait_until(lambda: finished(tmp_path / "killed") >= 1, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for out in ("killed", "whole"):
        done = subprocess.run(
            pulse_edge_batch(tmp_path / "pages", "-o", tmp_path / out, *how),
            capture_output=True,
            check=False,
        )
        assert done.returncode == 1, done.stderr  # a page that is none
    assert comparable(tmp_path / "killed") == comparable(tmp_path / "whole")
    assert len(lines(tmp_path / "killed")) == 5


def test_documents_of_every_page_are_in_the_batch_folder(tiny_kit: Path, tmp_path: Path) -> None:
    how = (
        "--kit",
        tiny_kit,
        "--threads",
        1,
        "--max-tokens",
        2,
        "--format",
        "html",
        "--format",
        "json",
    )
    done = subprocess.run(
        pulse_edge_batch(PAGE, "-o", tmp_path / "out", *how),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "1 file was read, 0 could not be" in done.stdout
    assert {path.name.split(".", 1)[1] for path in (tmp_path / "out" / "pages").iterdir()} == {
        "html",
        "json",
    }


def test_watch_answers_added_files(tiny_kit: Path, tmp_path: Path) -> None:
    (tmp_path / "pages").mkdir()
    how = ("--kit", tiny_kit, "--threads", 1, "--max-tokens", 2, "--watch")
    process = subprocess.Popen(
        pulse_edge_batch(tmp_path / "pages", "-o", tmp_path / "out", *how),
        stderr=subprocess.PIPE,
        text=True,
    )
    shutil.copy(PAGE, tmp_path / "pages")
    results = tmp_path / "out" / "results.jsonl"
    wait_until(lambda: results.exists() and lines(tmp_path / "out"), process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "interrupted"
    assert "answered (0 files left, 0 s)" in errors


def test_forced_pages_are_answered_and_logged_as_forced(
    tiny_kit: Path, pages: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (800, 600), "white").save(pages / "a.png")
    command = [
        *pulse_edge_batch(pages / "a.png", "-o", tmp_path / "out"),
        "--kit",
        str(tiny_kit),
        "--threads",
        "1",
    ]
    command += ["--max-tokens", "2", "--force", "--no-rectify"]
    env = os.environ | {"PULSE_EDGE_AUDIT_LOG": str(tmp_path / "log")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    (line,) = lines(tmp_path / "out")
    assert (line["quality"]["verdict"], line["quality"]["forced"]) == ("refused", True)
    assert FORCED in line["notice"]
    (entry,) = AuditLog(tmp_path / "log").entries()
    assert (
        entry.fields["settings"]["page"]["force"],
        entry.fields["settings"]["page"]["rectify"],
    ) == (
        True,
        False,
    )
    without = subprocess.run(command[:-2], capture_output=True, text=True, check=False, env=env)
    assert without.returncode == 1
    assert "was begun with another page.force and page.rectify" in without.stderr
    assert entry.fields["settings"]["model"]["force_kit"] is False
