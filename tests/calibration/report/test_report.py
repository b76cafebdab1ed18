"""The files of an accuracy report."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from given_results import CHOICE_TASK, results, two_kits

from calibration.ecgbench import open_bench
from calibration.report.write import Options, report
from pulse_edge.errors import BenchError, UsageError


class Reader(HTMLParser):
    """Counts tags, and notes what a file would have to load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.counts: dict[str, int] = {}
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.loaded += [
            v for k, v in attrs if k in ("src", "href") and v and not v.startswith("data:")
        ]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read(path: Path) -> Reader:
    reader = Reader()
    reader.feed(path.read_text())
    assert reader.open == []
    return reader


def test_the_html_is_one_file_with_drawings_and_pages_inside(
    synthetic_bench: Path, tmp_path: Path
) -> None:
    samples = list(
        open_bench(synthetic_bench).samples(CHOICE_TASK, lambda _: None, pictures=False)
    )[:3]
    folder = tmp_path / "results"
    lines = [
        {"gold": s.turns[0][1], "text": s.turns[0][1], "image": s.image, "question_id": s.id}
        for s in samples
    ]
    wrong = [line | {"text": "<none>", "turn": {"kld": [0.01], "same": [1]}} for line in lines]
    results(folder, {"f16": {CHOICE_TASK: lines}, "q4": {CHOICE_TASK: wrong}})
    report(folder, tmp_path / "report", Options(bench=synthetic_bench))
    reader = read(tmp_path / "report" / "report.html")
    assert reader.loaded == []
    assert reader.counts["svg"] == 2
    assert reader.counts["img"] == len(samples)
    assert "&lt;none&gt;" in (tmp_path / "report" / "report.html").read_text()

    hidden = Options(bench=synthetic_bench, hidden=(CHOICE_TASK,))
    report(folder, tmp_path / "hidden", hidden)
    assert "img" not in read(tmp_path / "hidden" / "report.html").counts
    assert "The page is not shown." in (tmp_path / "hidden" / "report.html").read_text()
    with pytest.raises(UsageError, match="no task ptb"):
        report(folder, tmp_path / "hidden", Options(bench=synthetic_bench, hidden=("ptb",)))


def test_force_replaces_a_report_and_nothing_else(tmp_path: Path) -> None:
    source, target = two_kits(tmp_path, "AA", "BB"), tmp_path / "report"
    report(source, target)
    report(source, target, Options(force=True))
    (target / "letter.txt").write_text("mine")
    with pytest.raises(BenchError, match="holds other files"):
        report(source, target, Options(force=True))
    assert (target / "letter.txt").read_text() == "mine"
    other = tmp_path / "other"
    other.mkdir()
    (other / "report.html").write_text("another program's")
    for force in (False, True):
        with pytest.raises(BenchError, match=r"exists already|holds other files"):
            report(source, other, Options(force=force))
    assert (other / "report.html").read_text() == "another program's"


def test_pages_that_are_gone_are_reported_as_not_shown(tmp_path: Path) -> None:
    report(two_kits(tmp_path, "AA", "BB"), tmp_path / "report")
    reader = read(tmp_path / "report" / "report.html")
    assert "img" not in reader.counts
    assert "The page is not shown." in (tmp_path / "report" / "report.html").read_text()


def test_the_reference_comes_first_and_every_kit_has_a_verdict(tmp_path: Path) -> None:
    report(two_kits(tmp_path, "A" * 40, "A" * 20 + "B" * 20), tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()
    assert text.index("**f16**: The reference") < text.index(
        f"**q4**: 9.0 MB. Worse by more than chance in {CHOICE_TASK}."
    )
    figures = json.loads((tmp_path / "report" / "report.json").read_text())
    assert list(figures["kits"]) == ["f16", "q4"]
    assert len(figures["flips"]) == 20


def test_a_small_number_of_questions_is_reported_as_a_limit(tmp_path: Path) -> None:
    figures = report(two_kits(tmp_path, "A" * 200, "A" * 200), tmp_path / "report")
    assert f"{CHOICE_TASK}: 200 questions carry ±7 points at worst." in figures.limits


def test_a_report_replaces_an_older_one_and_nothing_else(tmp_path: Path) -> None:
    folder = two_kits(tmp_path, "AA", "AB")
    report(folder, tmp_path / "report")
    report(folder, tmp_path / "report")
    (tmp_path / "report" / "notes.txt").write_text("mine")
    with pytest.raises(BenchError, match="exists already"):
        report(folder, tmp_path / "report")
