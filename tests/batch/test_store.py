"""A batch's folder and database: settings, locks, rights, and what survives a kill."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from batches import Desk, lines, report, rows, run
from checkout import ROOT

from pulse_edge.batch import source_files
from pulse_edge.batch import work as batch_work
from pulse_edge.batch.store import Store
from pulse_edge.errors import (
    BatchError,
    FolderError,
)

KILLS = 6
WORKER = """
import sys
from dataclasses import replace
from pathlib import Path
sys.path[:0] = [sys.argv[3]]
from batches import Desk, run
print("begun", flush=True)
run(Path(sys.argv[1]), Path(sys.argv[2]), Desk())
"""


def test_other_settings_need_another_folder(pages: Path, tmp_path: Path) -> None:
    run(pages, tmp_path / "out", Desk())
    with pytest.raises(BatchError, match="was begun with another kit"):
        Store(tmp_path / "out", {"kit": "other"})


def test_two_processes_do_not_share_a_folder(tmp_path: Path) -> None:
    with (
        Store(tmp_path, {}),
        pytest.raises(BatchError, match=r"another pulse-edge works on it\. Wait"),
    ):
        Store(tmp_path, {})
    Store(tmp_path, {}).close()


def test_unfinished_files_of_a_killed_process_are_removed(pages: Path, tmp_path: Path) -> None:
    run(pages, tmp_path / "out", Desk())
    (tmp_path / "out" / "pages").mkdir()
    for folder in (tmp_path / "out", tmp_path / "out" / "pages"):
        (folder / ".unfinished-x").write_text("half")
    run(pages, tmp_path / "out", Desk())
    assert not list((tmp_path / "out").rglob(".unfinished-*"))


@pytest.mark.skipif(os.name != "posix", reason="kills as POSIX has them")
def test_batch_continues_after_kills_at_any_moment(pages: Path, tmp_path: Path) -> None:
    for n in range(20):
        shutil.copy(pages / "a.png", pages / f"more-{n:02}.png")
    words = [
        sys.executable,
        "-c",
        WORKER,
        str(pages),
        str(tmp_path / "out"),
        str(ROOT / "tests" / "support"),
    ]
    for kill in range(KILLS):
        worker = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert worker.stdout is not None
        worker.stdout.readline()
        time.sleep(0.02 * kill)
        worker.kill()
        assert worker.communicate()[1] == b""
        shutil.rmtree(tmp_path / "out") if kill == KILLS // 2 and (
            tmp_path / "out"
        ).exists() else None
    assert run(pages, tmp_path / "out", Desk()) == (0, 23, 1)
    assert len(lines(tmp_path / "out")) == len(rows(tmp_path / "out")) == 24
    assert not list((tmp_path / "out").rglob(".unfinished-*"))


@pytest.mark.skipif(os.name != "posix", reason="rights of POSIX")
def test_files_of_a_batch_are_for_its_owner_alone(pages: Path, tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        run(pages, tmp_path / "new", Desk())
        (tmp_path / "there").mkdir(mode=0o755)
        with Store(tmp_path / "there", {"kit": "k"}) as store:
            store.add(source_files.files([str(pages)], tmp_path / "there"))
            batch_work.run(store, Desk().work())
            store.export()
            files = {
                path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "there").iterdir()
            }
    finally:
        os.umask(old)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "there").stat().st_mode & 0o777 == 0o755
    assert {
        "batch.sqlite",
        "batch.sqlite-wal",
        "batch.sqlite-shm",
        "results.csv",
        "results.jsonl",
    } <= files.keys()
    assert set(files.values()) == {0o600}


def test_database_readable_by_others_is_closed_to_them(pages: Path, tmp_path: Path) -> None:
    run(pages, tmp_path / "out", Desk())
    (tmp_path / "out" / "batch.sqlite").chmod(0o644)
    run(pages, tmp_path / "out", Desk())
    assert os.name != "posix" or (tmp_path / "out" / "batch.sqlite").stat().st_mode & 0o777 == 0o600


def test_folder_with_other_files_is_refused(pages: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for name in (".unfinished-thesis", "results.csv", "lock"):
        (tmp_path / "out" / name).write_text("mine")
    with pytest.raises(FolderError, match="holds files and has no"):
        Store(tmp_path / "out", {})
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == {
        ".unfinished-thesis": "mine", "results.csv": "mine", "lock": "mine",
    }  # fmt: skip


def test_folder_with_the_database_of_another_program_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "lock").touch(mode=0o644)
    with contextlib.closing(sqlite3.connect(folder / "batch.sqlite")) as db:
        db.execute("CREATE TABLE jobs (id)")
    before = {path.name: (path.read_bytes(), path.stat().st_mode) for path in folder.iterdir()}
    with pytest.raises(FolderError, match="holds files and has no"):
        Store(folder, {})
    assert {
        path.name: (path.read_bytes(), path.stat().st_mode) for path in folder.iterdir()
    } == before


def test_damaged_database_is_one_line(tmp_path: Path) -> None:
    Store(tmp_path / "out", {}).close()
    (tmp_path / "out" / "batch.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(BatchError, match=r"batch.sqlite: file is not a database"):
        Store(tmp_path / "out", {})


def test_full_disk_is_one_line_and_costs_no_finished_page(pages: Path, tmp_path: Path) -> None:
    desk = Desk()
    with Store(tmp_path / "out", {"kit": "k"}) as store:
        store.add(source_files.files([str(pages)], tmp_path / "out"))
        store.put(1, 1, report("a.png"))
        pages_now = store._db.connection.execute("PRAGMA page_count").fetchone()[0]
        store._db.connection.execute(f"PRAGMA max_page_count = {pages_now}")
        with pytest.raises(BatchError, match=r"full\. Look at the disk"):
            store.put(2, 1, report("b.png", "long " * 9999))
    run(pages, tmp_path / "out", desk)
    assert desk.done == ["b.png", "c.png"]
