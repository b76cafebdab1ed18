"""A batch: every page once, whatever happens in between."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from batches import Desk, report, run
from checkout import ROOT
from PIL import Image

import pulse_edge
from pulse_edge.audit_log.log import AuditLog
from pulse_edge.batch import source_files
from pulse_edge.batch import work as batch_work
from pulse_edge.batch.store import Counts, Store
from pulse_edge.batch.work import Work
from pulse_edge.cli import batch
from pulse_edge.errors import (
    AuditLogError,
    BatchError,
    EngineError,
    FolderError,
    OutputError,
    PageRefused,
    UsageError,
)
from pulse_edge.report import writers
from pulse_edge.report.report import FORCED, INTENDED_USE, UNCALIBRATED, Finding, Report

PAGE = Path(pulse_edge.__file__).parent / "assets" / "example_page.png"


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text("utf-8").splitlines()]


def rows(out: Path) -> list[dict[str, str]]:
    with open(out / "results.csv", encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def pulse_edge_batch(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "pulse_edge", "batch", *map(str, arguments)]


def test_every_page_has_a_result_and_what_is_unreadable_its_reason(
    pages: Path, tmp_path: Path
) -> None:
    assert run(pages, tmp_path / "out", Desk()) == (0, 3, 1)
    assert [Path(line["file"]).name for line in lines(tmp_path / "out")] == [
        "a.png",
        "b.png",
        "c.png",
        "d.png",
    ]
    assert "is text or XML" in lines(tmp_path / "out")[3]["error"]
    assert [row["state"] for row in rows(tmp_path / "out")] == ["answered"] * 3 + ["failed"]


def test_a_finished_page_is_not_read_again(pages: Path, tmp_path: Path) -> None:
    desk = Desk()
    run(pages, tmp_path / "out", desk)
    run(pages, tmp_path / "out", desk)
    assert desk.done == ["a.png", "b.png", "c.png"]


def test_what_was_begun_is_done_again_and_what_was_finished_stays(
    pages: Path, tmp_path: Path
) -> None:
    desk = Desk()
    desk.fails["b.png"] = KeyboardInterrupt()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        run(pages, tmp_path / "out", desk)
    desk.fails.clear()
    assert run(pages, tmp_path / "out", desk) == (0, 3, 1)
    assert desk.done == ["a.png", "b.png", "c.png"]


def test_pages_of_one_file_are_finished_one_by_one(tmp_path: Path) -> None:
    sheets = [Image.new("RGB", (60, 60), color) for color in ("white", "grey", "black")]
    (tmp_path / "pages").mkdir()
    sheets[0].save(tmp_path / "pages" / "fax.tiff", save_all=True, append_images=sheets[1:])
    desk = Desk()
    desk.fails["fax.tiff#2"] = KeyboardInterrupt()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "pages", tmp_path / "out", desk)
    desk.fails.clear()
    run(tmp_path / "pages", tmp_path / "out", desk)
    assert desk.done == ["fax.tiff#1", "fax.tiff#2", "fax.tiff#3"]
    assert [row["page"] for row in rows(tmp_path / "out")] == ["1", "2", "3"]


def test_a_page_that_fails_is_noted_and_the_others_go_on(pages: Path, tmp_path: Path) -> None:
    desk = Desk()
    desk.fails["b.png"] = EngineError("b.png: llama.cpp failed.")
    run(pages, tmp_path / "out", desk)
    assert [line.get("error") for line in lines(tmp_path / "out")][1] == "b.png: llama.cpp failed."


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("float division by zero"), MemoryError(), OSError(5, "I/O error")]
)
def test_a_page_that_fails_in_a_way_nobody_foresaw_is_noted_too(
    pages: Path, tmp_path: Path, error: Exception
) -> None:
    desk = Desk()
    desk.fails["b.png"] = error
    assert run(pages, tmp_path / "out", desk) == (0, 3, 1)
    assert desk.done == ["a.png", "c.png"]
    said = lines(tmp_path / "out")[1]["error"]
    assert said.startswith(f"{pages / 'b.png'}: ")
    assert "memory" in said if isinstance(error, MemoryError) else type(error).__name__ in said


def test_what_cannot_be_put_on_record_still_stops_everything(pages: Path, tmp_path: Path) -> None:
    desk = Desk()
    desk.fails["b.png"] = AuditLogError("the audit log is full.")
    with pytest.raises(AuditLogError):
        run(pages, tmp_path / "out", desk)
    assert desk.done == ["a.png"]


def test_what_is_wrong_with_a_page_stands_in_its_row_and_in_the_line_about_it(
    pages: Path, tmp_path: Path
) -> None:
    desk, notes = Desk(), []
    advice = "Only 9 of 12 leads were found. Take the picture again."
    quality = {"verdict": "usable", "leads": 9, "reasons": [{"check": "leads", "advice": advice}]}
    unrated = Finding(
        "AFIB", "atrial fibrillation", "rhythm", 2, {}, 1, 2.0, None, False, None, UNCALIBRATED
    )

    def answer(page: Any) -> Report:
        if "b.png" in page.name:
            raise PageRefused("b.png: This does not look like an ECG page.")
        return replace(report(page.name), quality=quality, findings=(unrated,))

    with Store(tmp_path / "out", {"kit": "k"}) as store:
        store.add(source_files.files([str(pages)], tmp_path / "out"))
        teller = batch.ProgressNotes(store, lambda text, **_how: notes.append(text))
        batch_work.run(store, replace(desk.work(), answer=answer, note=teller))
        store.export()
    a, b, _c, d = sorted(rows(tmp_path / "out"), key=lambda row: row["file"])
    assert (a["state"], a["verdict"], a["leads"], a["reasons"]) == (
        "answered",
        "usable",
        "9",
        advice,
    )
    assert a["findings"] == f"AFIB: no verdict, rank 1 ({UNCALIBRATED})"
    assert a["intended_use"] == INTENDED_USE
    assert (b["state"], d["state"]) == ("refused", "failed")
    assert f"a.png: answered, with doubts: {advice}" in notes[0]


def test_documents_that_cannot_be_written_cost_their_page_only(pages: Path, tmp_path: Path) -> None:
    desk = Desk()

    def documents(_report: Report, page: Any, _name: str) -> None:
        if "b.png" in page.name:
            raise ValueError("no such glyph")

    with Store(tmp_path / "out", {"kit": "k"}) as store:
        store.add(source_files.files([str(pages)], tmp_path / "out"))
        batch_work.run(store, Work(desk.answer, lambda *_a: None, documents, lambda *_a: None))
        store.export()
        assert (store.failed_pages(), store.exit_code()) == (1, 1)
    assert [bool(line.get("error")) for line in lines(tmp_path / "out")] == [
        False,
        True,
        False,
        True,
    ]


def test_a_page_that_crashes_the_program_is_tried_once_more_and_then_marked(
    pages: Path, tmp_path: Path
) -> None:
    desk = Desk()
    desk.fails["b.png"] = KeyboardInterrupt()  # type: ignore[assignment]  # what a crash leaves behind: begun, not finished
    for attempt in range(2):
        with Store(tmp_path / "out", {"kit": "k"}) as store:
            if attempt:
                assert store.note_crash()
            store.add(source_files.files([str(pages)], tmp_path / "out"))
            with pytest.raises(KeyboardInterrupt):
                batch_work.run(store, desk.work())
    with Store(tmp_path / "out", {"kit": "k"}) as store:
        assert store.note_crash()
        batch_work.run(store, desk.work())
        store.export()
        assert not store.note_crash()
    assert desk.done == ["a.png", "c.png"]
    assert "ended the program 2 times" in lines(tmp_path / "out")[1]["error"]


def test_pages_that_were_interrupted_on_purpose_are_never_marked(
    pages: Path, tmp_path: Path
) -> None:
    desk = Desk()
    desk.fails["b.png"] = KeyboardInterrupt()  # type: ignore[assignment]
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            run(pages, tmp_path / "out", desk)
    desk.fails.clear()
    run(pages, tmp_path / "out", desk)
    assert desk.done == ["a.png", "b.png", "c.png"]


def test_one_page_of_a_file_that_cannot_be_read_leaves_the_others(tmp_path: Path) -> None:
    from documents import RED_BOX, pdf

    broken = (
        b"<</Type/XObject/Subtype/Image/Width 64/Height 64/ColorSpace/DeviceRGB/BitsPerComponent 8"
    )
    broken += b"/Filter/DCTDecode/Length 9>>stream\n\xff\xd8\xff\xe0\0\2abc\nendstream"
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "three.pdf").write_bytes(
        pdf(RED_BOX, b"9 0 0 9 0 0 cm /F Do", RED_BOX, more=(broken,))
    )
    desk = Desk()
    assert run(tmp_path / "pages", tmp_path / "out", desk) == (0, 1, 0)
    assert desk.done == ["three.pdf#1", "three.pdf#3"]
    assert [row["state"] for row in rows(tmp_path / "out")] == ["answered", "failed", "answered"]


def test_what_failed_is_tried_again_when_asked_for(pages: Path, tmp_path: Path) -> None:
    desk = Desk()
    desk.fails["b.png"] = EngineError("b.png: llama.cpp failed.")
    run(pages, tmp_path / "out", desk)
    desk.fails.clear()
    run(pages, tmp_path / "out", desk)
    assert desk.done == ["a.png", "c.png"]
    run(pages, tmp_path / "out", desk, retry=True)
    assert desk.done == ["a.png", "c.png", "b.png"]
    assert [line.get("error") is None for line in lines(tmp_path / "out")] == [
        True,
        True,
        True,
        False,
    ]


def test_a_file_that_was_mended_is_read_again(pages: Path, tmp_path: Path) -> None:
    desk = Desk()
    run(pages, tmp_path / "out", desk)
    shutil.copy(pages / "a.png", pages / "d.png")
    assert run(pages, tmp_path / "out", desk) == (0, 4, 0)


def test_a_name_that_is_used_for_another_page_gives_another_result(
    pages: Path, tmp_path: Path
) -> None:
    desk = Desk()
    run(pages, tmp_path / "out", desk)
    Image.new("RGB", (99, 99)).save(pages / "a.png")
    run(pages, tmp_path / "out", desk)
    assert desk.done == ["a.png", "b.png", "c.png", "a.png"]
    assert len(rows(tmp_path / "out")) == 5


def test_another_question_needs_another_folder(pages: Path, tmp_path: Path) -> None:
    run(pages, tmp_path / "out", Desk())
    with pytest.raises(BatchError, match="was begun with another kit"):
        Store(tmp_path / "out", {"kit": "other"})


def test_two_processes_do_not_work_on_one_folder(tmp_path: Path) -> None:
    with (
        Store(tmp_path, {}),
        pytest.raises(BatchError, match=r"another pulse-edge works on it\. Wait"),
    ):
        Store(tmp_path, {})
    Store(tmp_path, {}).close()


def test_what_a_killed_process_left_half_written_is_removed(pages: Path, tmp_path: Path) -> None:
    run(pages, tmp_path / "out", Desk())
    (tmp_path / "out" / "pages").mkdir()
    for folder in (tmp_path / "out", tmp_path / "out" / "pages"):
        (folder / ".unfinished-x").write_text("half")
    run(pages, tmp_path / "out", Desk())
    assert not list((tmp_path / "out").rglob(".unfinished-*"))


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


@pytest.mark.skipif(os.name != "posix", reason="kills as POSIX has them")
def test_kills_at_any_moment_leave_a_batch_that_goes_on(pages: Path, tmp_path: Path) -> None:
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
def test_what_a_batch_knows_is_for_its_owner_alone(pages: Path, tmp_path: Path) -> None:
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


def test_a_database_that_others_could_read_is_closed_to_them(pages: Path, tmp_path: Path) -> None:
    run(pages, tmp_path / "out", Desk())
    (tmp_path / "out" / "batch.sqlite").chmod(0o644)
    run(pages, tmp_path / "out", Desk())
    assert os.name != "posix" or (tmp_path / "out" / "batch.sqlite").stat().st_mode & 0o777 == 0o600


def test_a_folder_with_other_files_is_no_batch_s(pages: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for name in (".unfinished-thesis", "results.csv", "lock"):
        (tmp_path / "out" / name).write_text("mine")
    with pytest.raises(FolderError, match="holds files and has no"):
        Store(tmp_path / "out", {})
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == {
        ".unfinished-thesis": "mine", "results.csv": "mine", "lock": "mine",
    }  # fmt: skip


def test_a_database_of_another_program_does_not_make_a_folder_a_batch_s(tmp_path: Path) -> None:
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


def test_names_and_answers_in_the_table_are_no_formulas_wherever_it_is_split(
    pages: Path, tmp_path: Path
) -> None:
    class Hostile(Desk):
        def answer(self, page: Any) -> Report:
            return report("scan;=1+1;.png", "a\t=cmd|' /C calc'!A0\n=2\r\n@SUM(1)")

    run(pages, tmp_path / "out", Hostile())
    for separator in ",;\t":
        with open(tmp_path / "out" / "results.csv", encoding="utf-8-sig", newline="") as file:
            for row in csv.reader(file, delimiter=separator):
                assert not [cell for cell in row if cell.strip()[:1] in tuple("=+-@")]


def test_a_damaged_store_is_one_line(tmp_path: Path) -> None:
    Store(tmp_path / "out", {}).close()
    (tmp_path / "out" / "batch.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(BatchError, match=r"batch.sqlite: file is not a database"):
        Store(tmp_path / "out", {})


def test_a_full_disk_is_one_line_and_costs_no_finished_page(pages: Path, tmp_path: Path) -> None:
    desk = Desk()
    with Store(tmp_path / "out", {"kit": "k"}) as store:
        store.add(source_files.files([str(pages)], tmp_path / "out"))
        store.put(1, 1, report("a.png"))
        pages_now = store._db.execute("PRAGMA page_count").fetchone()[0]
        store._db.execute(f"PRAGMA max_page_count = {pages_now}")
        with pytest.raises(BatchError, match=r"full\. Look at the disk"):
            store.put(2, 1, report("b.png", "long " * 9999))
    run(pages, tmp_path / "out", desk)
    assert desk.done == ["b.png", "c.png"]


def test_lists_patterns_and_folders_name_the_same_pages(pages: Path, tmp_path: Path) -> None:
    names = sorted(str(p) for p in pages.iterdir())
    (tmp_path / "list.txt").write_text("\n".join(names))
    (tmp_path / "list0.txt").write_bytes(b"\0".join(map(os.fsencode, names)))
    for source in (pages, tmp_path / "list.txt", tmp_path / "list0.txt", f"{pages}/*.png"):
        assert [path for path, *_ in source_files.files([str(source)], tmp_path / "out")] == names


def test_hidden_files_and_the_batch_itself_are_not_pages(pages: Path) -> None:
    (pages / ".hidden.png").write_bytes(b"")
    (pages / "Thumbs.db").write_bytes(b"")
    (pages / "out").mkdir()
    (pages / "out" / "page.png").write_bytes(b"")
    found = [Path(path).name for path, *_ in source_files.files([str(pages)], pages / "out")]
    assert found == ["a.png", "b.png", "c.png", "d.png"]


def test_folders_that_are_left_out_are_listed_and_count(
    pages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (pages / "linked").symlink_to(tmp_path / "elsewhere")
    (pages / "within").symlink_to(pages)  # all of it is read anyway
    (pages / "closed").mkdir()
    (pages / "d.png").unlink()
    real = os.scandir

    def scandir(path: Any = ".") -> Any:  # root, as tests may run, could look into it
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert run(pages, tmp_path / "out", Desk()) == (0, 3, 2)
    said = {Path(line["file"]).name: line.get("error") for line in lines(tmp_path / "out")}
    assert "cannot be read (Permission denied)" in said["closed"]
    assert "links are not followed" in said["linked"]
    assert "within" not in said
    with Store(tmp_path / "out", {"kit": "k"}) as store:
        assert store.exit_code() == 1
    monkeypatch.undo()  # the right was given
    (pages / "linked").unlink()
    assert run(pages, tmp_path / "out", Desk()) == (0, 3, 0)
    with Store(tmp_path / "out", {"kit": "k"}) as store:
        assert store.exit_code() == 0


def test_a_pattern_names_the_folders_that_it_cannot_look_into(
    pages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pages / "closed").mkdir()
    real = os.scandir

    def scandir(path: Any = ".") -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = list(source_files.files([f"{pages}/**/*.png"], tmp_path / "out"))
    assert (str(pages / "closed"), source_files.UNREADABLE_FOLDER, 0) in found
    assert len(found) == 5


def test_a_source_without_files_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="names no file"):
        list(source_files.files([str(tmp_path)], tmp_path / "out"))


def test_a_file_that_still_grows_waits(pages: Path) -> None:
    settled = source_files.Settled()
    found = [("a", 10, 1), ("b", 10, 1)]
    assert list(settled(iter(found))) == []
    assert list(settled(iter([("a", 10, 1), ("b", 20, 2)]))) == [("a", 10, 1)]


HOSTILE = (
    "=cmd|'C'!A0.png",
    "line\nbreak.png",
    "\x1b[31mred\x1b]0;title\x07.png",
    "<b>&.png",
    "\U0001f4a9" * 62 + ".png",
    "\u202egnp.txet",
)


def test_hostile_names_and_answers_break_no_export(tmp_path: Path) -> None:
    (tmp_path / "pages").mkdir()
    for name in HOSTILE:
        shutil.copy(PAGE, tmp_path / "pages" / name)
    with open(os.fsencode(tmp_path / "pages") + b"/\xff\xfe.png", "wb") as file:
        file.write(PAGE.read_bytes())
    answers = [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        " =1",
        "\uff1d1",
        "a\r\n=1\x1b[2J\u202e",
        '"quoted", text',
    ]
    desk = Desk()

    def answer(page: Any) -> Report:
        desk.answer(page)
        return report(page.name, answers[len(desk.done) % len(answers)])

    with Store(tmp_path / "out", {}) as store:
        store.add(source_files.files([str(tmp_path / "pages")], tmp_path / "out"))
        batch_work.run(store, Work(answer, *[lambda *_a: None] * 3))
        store.export()
    assert len(lines(tmp_path / "out")) == len(rows(tmp_path / "out")) == 7
    for row in rows(tmp_path / "out"):
        for cell in row.values():
            assert not cell.lstrip().startswith(("=", "+", "-", "@", "\uff1d"))
            assert not {"\x1b", "\x07", "\u202e", "\r"} & set(cell)


def comparable(out: Path) -> list[tuple[str, str]]:
    """What must not depend on interruptions."""
    return [
        (Path(line["file"]).name, json.dumps(line.get("answers") or line["error"]))
        for line in lines(out)
    ]


def test_a_batch_that_was_killed_gives_what_an_unbroken_one_gives(
    tiny_kit: Path, tmp_path: Path
) -> None:
    (tmp_path / "pages").mkdir()
    for n in range(5):
        Image.open(PAGE).convert("RGB").rotate(n).save(tmp_path / "pages" / f"{n}.png")
    (tmp_path / "pages" / "3.png").write_bytes(b"no picture")
    how = ("--kit", tiny_kit, "--threads", 1, "--max-tokens", 4, "-q", "Rate?", "-q", "Rhythm?")
    process = subprocess.Popen(
        pulse_edge_batch(tmp_path / "pages", "-o", tmp_path / "killed", *how)
    )
    while finished(tmp_path / "killed") < 1:
        assert process.poll() is None
        time.sleep(0.01)
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


def test_documents_of_every_page_lie_beside_the_results(tiny_kit: Path, tmp_path: Path) -> None:
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


def finished(out: Path) -> int:
    if not (out / "batch.sqlite").exists():
        return 0
    with sqlite3.connect(f"file:{out / 'batch.sqlite'}?mode=ro", uri=True) as db:
        try:
            return int(db.execute("SELECT count(*) FROM pages").fetchone()[0])
        except sqlite3.OperationalError:
            return 0


def test_watch_answers_what_comes_in(tiny_kit: Path, tmp_path: Path) -> None:
    (tmp_path / "pages").mkdir()
    how = ("--kit", tiny_kit, "--threads", 1, "--max-tokens", 2, "--watch")
    process = subprocess.Popen(
        pulse_edge_batch(tmp_path / "pages", "-o", tmp_path / "out", *how),
        stderr=subprocess.PIPE,
        text=True,
    )
    shutil.copy(PAGE, tmp_path / "pages")
    while not (tmp_path / "out" / "results.jsonl").exists() or not lines(tmp_path / "out"):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "interrupted"
    assert "answered (0 files left, 0 s)" in errors


def test_refused_pages_are_answered_with_force_and_it_is_on_record(
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
    assert (entry.fields["settings"]["force"], entry.fields["settings"]["straighten"]) == (
        True,
        False,
    )
    without = subprocess.run(command[:-2], capture_output=True, text=True, check=False, env=env)
    assert without.returncode == 1
    assert "was begun with another page.force and page.rectify" in without.stderr
    assert entry.fields["settings"]["force_kit"] is False


def test_a_folder_that_takes_no_documents_stops_the_batch_and_marks_no_page(
    pages: Path, tmp_path: Path
) -> None:
    desk = Desk()

    def documents(report: Report, _page: Any, name: str) -> None:
        target = writers.Target(pages / "a.png", name)  # a file where a folder should be
        writers.write(target, ["json"], report, Image.new("RGB", (9, 9)))

    with Store(tmp_path / "out", {"kit": "k"}) as store:
        store.add(source_files.files([str(pages)], tmp_path / "out"))
        with pytest.raises(
            OutputError, match=r"a\.png.* cannot be written .*so there are no documents"
        ):
            batch_work.run(store, Work(desk.answer, lambda *_a: None, documents, lambda *_a: None))
        assert (store.failed_pages(), store.counts()) == (0, Counts(4, 0, 0))
