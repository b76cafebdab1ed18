"""The report on measurements in docs/ is what its figures give today."""

from __future__ import annotations

import json
import re

from checkout import ROOT

from calibration.measurements.figures import MeasurementFigures
from calibration.measurements.tables import tables
from calibration.records import as_json, from_json
from calibration.report.tables import markdown_tables

FOLDER = ROOT / "docs" / "measurement-accuracy"


def stored() -> MeasurementFigures:
    return from_json(MeasurementFigures, json.loads((FOLDER / "report.json").read_text("utf-8")))


def test_figures_survive_reading_and_writing() -> None:
    assert as_json(stored()) == json.loads((FOLDER / "report.json").read_text("utf-8"))


def test_the_tables_are_those_of_the_figures() -> None:
    text = (FOLDER / "report.md").read_text("utf-8")
    lines = markdown_tables([table for table in tables(stored()) if not table.folded])
    assert "\n".join(lines) in text


def test_every_drawing_is_there() -> None:
    links = re.findall(r"!\[.*\]\((.*)\)", (FOLDER / "report.md").read_text("utf-8"))
    assert len(links) == 8
    assert all((FOLDER / link).read_text("utf-8").startswith("<svg") for link in links)
