"""A batch without a kit: given reports, and the run over them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from pulse_edge.batch import source_files
from pulse_edge.batch import work as batch_work
from pulse_edge.batch.store import Counts, Store
from pulse_edge.batch.work import Work
from pulse_edge.report.report import Answer, KitSummary, Report


def report(name: str, text: str = "An answer.") -> Report:
    kit = KitSummary("kit", "0" * 64, False)
    return Report("", name, "1" * 64, (Answer("What?", text, 3, True),), kit, "cpu", {}, {}, 80)


class Desk:
    """A Work that needs no model, and notes what it did."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.fails: dict[str, Exception] = {}

    def answer(self, page: Any) -> Report:
        if error := self.fails.get(Path(page.name).name):
            raise error
        self.done.append(Path(page.name).name)
        return report(page.name)

    def work(self) -> Work:
        return Work(self.answer, lambda *_a: None, lambda *_a: None, lambda *_a: None)


def run(pages: Path, out: Path, desk: Desk, *, retry: bool = False) -> Counts:
    with Store(out, {"kit": "k"}) as store:
        store.add(source_files.files([str(pages)], out))
        if retry:
            store.retry()
        batch_work.run(store, desk.work())
        store.export()
        return store.counts()


def lines(out: Path) -> list[dict[str, Any]]:
    """The results of a batch as JSON objects."""
    return [json.loads(line) for line in (out / "results.jsonl").read_text("utf-8").splitlines()]


def rows(out: Path) -> list[dict[str, str]]:
    """The results of a batch as rows of its table."""
    with open(out / "results.csv", encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))
