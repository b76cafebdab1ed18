"""The report of the miniature in docs/ is what its figures give today."""

from __future__ import annotations

import json

from checkout import ROOT

from calibration.figures import ReportFigures
from calibration.records import as_json, from_json
from calibration.report.tables import markdown
from calibration.report.verdicts import verdict

FOLDER = ROOT / "docs" / "miniature-accuracy"


def stored() -> ReportFigures:
    return from_json(ReportFigures, json.loads((FOLDER / "report.json").read_text("utf-8")))


def test_figures_survive_reading_and_writing() -> None:
    assert as_json(stored()) == json.loads((FOLDER / "report.json").read_text("utf-8"))


def test_the_markdown_is_that_of_the_figures() -> None:
    assert markdown(stored()) == (FOLDER / "report.md").read_text("utf-8")


def test_the_verdicts_are_those_of_the_figures() -> None:
    figures = stored()
    assert figures.verdicts == {name: verdict(figures, name, None, None) for name in figures.kits}
