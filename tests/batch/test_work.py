"""Reading the work list: every page once, whatever happens in between."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from batches import Desk, lines, rows, run
from PIL import Image

from pulse_edge.batch import source_files
from pulse_edge.batch import work as batch_work
from pulse_edge.batch.store import Counts, Store
from pulse_edge.batch.work import Work
from pulse_edge.errors import (
    AuditLogError,
    EngineError,
    OutputError,
)
from pulse_edge.report import writers
from pulse_edge.report.report import Report


def finished(out: Path) -> int:
    if not (out / "batch.sqlite").exists():
        return 0
    with sqlite3.connect(f"file:{out / 'batch.sqlite'}?mode=ro", uri=True) as db:
        try:
            return int(db.execute("SELECT count(*) FROM pages").fetchone()[0])
        except sqlite3.OperationalError:
            return 0


def test_every_page_has_a_result_or_the_reason_why_not(pages: Path, tmp_path: Path) -> None:
    assert run(pages, tmp_path / "out", Desk()) == (0, 3, 1)
    assert [Path(line["file"]).name for line in lines(tmp_path / "out")] == [
        "a.png",
        "b.png",
        "c.png",
        "d.png",
    ]
    assert "is text or XML" in lines(tmp_path / "out")[3]["error"]
    assert [row["state"] for row in rows(tmp_path / "out")] == ["answered"] * 3 + ["failed"]


def test_finished_page_is_not_read_again(pages: Path, tmp_path: Path) -> None:
    desk = Desk()
    run(pages, tmp_path / "out", desk)
    run(pages, tmp_path / "out", desk)
    assert desk.done == ["a.png", "b.png", "c.png"]


def test_interrupted_page_is_read_again_and_finished_ones_stay(pages: Path, tmp_path: Path) -> None:
    desk = Desk()
    desk.fails["b.png"] = KeyboardInterrupt()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        run(pages, tmp_path / "out", desk)
    desk.fails.clear()
    assert run(pages, tmp_path / "out", desk) == (0, 3, 1)
    assert desk.done == ["a.png", "b.png", "c.png"]


def test_pages_of_one_file_are_committed_one_by_one(tmp_path: Path) -> None:
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


def test_failed_page_is_noted_and_the_others_continue(pages: Path, tmp_path: Path) -> None:
    desk = Desk()
    desk.fails["b.png"] = EngineError("b.png: llama.cpp failed.")
    run(pages, tmp_path / "out", desk)
    assert [line.get("error") for line in lines(tmp_path / "out")][1] == "b.png: llama.cpp failed."


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("float division by zero"), MemoryError(), OSError(5, "I/O error")]
)
def test_unexpected_error_on_a_page_is_noted_too(
    pages: Path, tmp_path: Path, error: Exception
) -> None:
    desk = Desk()
    desk.fails["b.png"] = error
    assert run(pages, tmp_path / "out", desk) == (0, 3, 1)
    assert desk.done == ["a.png", "c.png"]
    text = lines(tmp_path / "out")[1]["error"]
    assert text.startswith(f"{pages / 'b.png'}: ")
    assert "memory" in text if isinstance(error, MemoryError) else type(error).__name__ in text


def test_answer_that_cannot_be_logged_ends_the_batch(pages: Path, tmp_path: Path) -> None:
    desk = Desk()
    desk.fails["b.png"] = AuditLogError("the audit log is full.")
    with pytest.raises(AuditLogError):
        run(pages, tmp_path / "out", desk)
    assert desk.done == ["a.png"]


def test_documents_that_cannot_be_made_cost_their_page_only(pages: Path, tmp_path: Path) -> None:
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


def test_page_that_crashes_the_program_is_read_once_more_and_then_failed(
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


def test_page_interrupted_on_purpose_is_never_failed(pages: Path, tmp_path: Path) -> None:
    desk = Desk()
    desk.fails["b.png"] = KeyboardInterrupt()  # type: ignore[assignment]
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            run(pages, tmp_path / "out", desk)
    desk.fails.clear()
    run(pages, tmp_path / "out", desk)
    assert desk.done == ["a.png", "b.png", "c.png"]


def test_unreadable_page_of_a_file_leaves_the_others(tmp_path: Path) -> None:
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


def test_failed_files_are_read_again_with_retry(pages: Path, tmp_path: Path) -> None:
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


def test_repaired_file_is_read_again(pages: Path, tmp_path: Path) -> None:
    desk = Desk()
    run(pages, tmp_path / "out", desk)
    shutil.copy(pages / "a.png", pages / "d.png")
    assert run(pages, tmp_path / "out", desk) == (0, 4, 0)


def test_file_name_used_for_another_page_gives_another_result(pages: Path, tmp_path: Path) -> None:
    desk = Desk()
    run(pages, tmp_path / "out", desk)
    Image.new("RGB", (99, 99)).save(pages / "a.png")
    run(pages, tmp_path / "out", desk)
    assert desk.done == ["a.png", "b.png", "c.png", "a.png"]
    assert len(rows(tmp_path / "out")) == 5


def test_unwritable_folder_ends_the_batch_and_fails_no_page(pages: Path, tmp_path: Path) -> None:
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
