"""The results of a batch as JSON lines and as a table."""

from __future__ import annotations

import csv
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from batches import Desk, lines, report, rows, run

import pulse_edge
from pulse_edge.batch import source_files
from pulse_edge.batch import work as batch_work
from pulse_edge.batch.store import Store
from pulse_edge.batch.work import Work
from pulse_edge.cli import batch
from pulse_edge.errors import (
    PageRefused,
)
from pulse_edge.report.confirmation import UNCONFIRMED
from pulse_edge.report.report import INTENDED_USE, UNCALIBRATED, Contradiction, Finding, Report

PAGE = Path(pulse_edge.__file__).parent / "assets" / "example_page.png"
HOSTILE = (
    "=cmd|'C'!A0.png",
    "line\nbreak.png",
    "\x1b[31mred\x1b]0;title\x07.png",
    "<b>&.png",
    "\U0001f4a9" * 62 + ".png",
    "\u202egnp.txet",
)


def test_faults_of_a_page_are_in_its_row_and_in_its_note(pages: Path, tmp_path: Path) -> None:
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
    assert a["overread"] == UNCONFIRMED
    assert (b["state"], d["state"]) == ("refused", "failed")
    assert f"a.png: answered, with doubts: {advice}" in notes[0]


def test_pages_that_the_trace_contradicts_come_first(pages: Path, tmp_path: Path) -> None:
    sentence = 'The text says "42 bpm"; the trace shows 76 bpm.'
    against_trace = Contradiction("measurement", (), sentence)

    class Contradicted(Desk):
        def answer(self, page: Any) -> Report:
            plain = super().answer(page)
            return (
                replace(plain, contradictions=(against_trace,)) if "b" in page.name[-5:] else plain
            )

    run(pages, tmp_path / "out", Contradicted())
    table = rows(tmp_path / "out")
    assert Path(table[0]["file"]).name == "b.png"
    assert [row["contradictions"] for row in table] == [sentence, *[""] * (len(table) - 1)]


def test_cells_of_the_table_are_no_formulas_wherever_it_is_split(
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


def test_hostile_names_and_answers_break_no_results(tmp_path: Path) -> None:
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
