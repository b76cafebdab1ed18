"""Figures of a set, and the report's files."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from measurement_data import comparison, recording, result, trace, write_packed

from calibration.__main__ import cli
from calibration.measurements import report
from calibration.measurements.figures import set_figures
from calibration.measurements.goals import GOALS
from calibration.measurements.pages import TruthPage, whole
from calibration.measurements.recordings import recordings
from calibration.measurements.results import Memory, PageResult, measured
from calibration.measurements.run import collect, measurements
from calibration.measurements.sets import Plan, pages
from calibration.measurements.tables import tables
from pulse_edge.errors import UsageError
from pulse_edge.measurement.signal import LEADS


def page(number: int, correlation: float | None = 0.99) -> PageResult:
    rate = comparison("rate", None if correlation is None else 70.0 + number, printed=70.0)
    leads = [trace(lead, correlation) for lead in LEADS]
    return result(f"page {number}", leads, [rate])


def test_wrong_leads_and_pages_without_a_trace_are_counted() -> None:
    figures = set_figures("photos", [page(0), page(1, 0.5), page(2, None), page(3)])
    assert figures.untraced.value == 0.25
    assert figures.leads is not None
    assert (figures.leads.printed, figures.leads.reported) == (48, 36)
    assert figures.leads.wrong.value == pytest.approx(1 / 3)
    assert figures.leads.wrong_leads[0] == "page 1: I (0.50)"
    assert figures.snr.value == pytest.approx(20.0)


def test_pages_whose_scale_is_not_printed_are_left_out() -> None:
    figures = set_figures("synthetic", [page(0), replace(page(1, 0.5), scale_printed=False)])
    assert (figures.pages, figures.scale_missing) == (2, 1)
    assert figures.leads is not None
    assert figures.leads.wrong_leads == ()


def test_kinds_of_pages_are_told_apart() -> None:
    pages = [
        replace(page(n, 0.5 if n else None), kind="fax" if n % 2 else "fold") for n in range(4)
    ]
    figures = set_figures("distorted", pages)
    assert [(k.kind, k.pages, k.untraced.value) for k in figures.kinds] == [
        ("fax", 2, 0.0),
        ("fold", 2, 0.5),
    ]
    assert figures.kinds[0].leads.wrong.value == 1.0
    assert set_figures("photos", [page(0)]).kinds == ()


def test_the_worst_pages_come_first_and_untraced_ones_last() -> None:
    figures = set_figures("photos", [page(0), page(9), page(1, 0.5), page(2, None)])
    assert [w.name for w in figures.worst] == ["page 1", "page 9", "page 0", "page 2"]
    assert "rate off by +9 bpm" in figures.worst[1].why


def test_goals_say_what_was_missed() -> None:
    plan = Plan(Path("."), sets=("photos",))
    rows = next(
        t for t in tables(collect(plan, {"photos": [page(0), page(1, 0.5)]})) if t.title == "Goals"
    ).rows
    verdicts = {row[1]: row[-1] for row in rows}
    assert verdicts["reported leads with a correlation below 0.8"] == "MISSED"
    assert verdicts["median SNR"] == "reached"
    assert {goal.figures_of for goal in GOALS} == {"synthetic", "scans", "photos"}


def written(folder: Path) -> Path:
    """A report of two sets without pages of their own."""
    results = {"photos": [page(n) for n in range(4)], "scans": [page(n, None) for n in range(2)]}
    folder.mkdir()
    figures = collect(Plan(Path("data"), sets=("photos", "scans")), results)
    report.write(folder, figures, results, {("photos", "page 3"): b"a picture"})
    return folder


def test_the_html_loads_nothing(tmp_path: Path) -> None:
    html = (written(tmp_path / "report") / "report.html").read_text("utf-8")
    assert not re.search(r"(src|href)=\"(?!data:|#)", html)
    assert "data:image/jpeg;base64," in html
    assert html.count("<svg") == 1  # a set without values has no plot


def test_the_markdown_links_its_drawings(tmp_path: Path) -> None:
    folder = written(tmp_path / "report")
    links = re.findall(r"!\[.*\]\((.*)\)", (folder / "report.md").read_text("utf-8"))
    assert links == ["figures/photos-1.svg"]
    assert (folder / links[0]).read_text("utf-8").startswith("<svg")


def test_every_page_is_a_line_of_its_own(tmp_path: Path) -> None:
    folder = written(tmp_path / "report")
    lines = [json.loads(line) for line in (folder / "pages.jsonl").read_text().splitlines()]
    assert [line["set"] for line in lines] == ["photos"] * 4 + ["scans"] * 2
    assert json.loads((folder / "report.json").read_text())["sets"][0]["name"] == "photos"
    assert report.is_report(folder)


def test_a_folder_with_other_files_is_no_report(tmp_path: Path) -> None:
    folder = written(tmp_path / "report")
    (folder / "letter.txt").write_text("mine")
    assert not report.is_report(folder)


# --- measuring ----------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two recordings, one with reference values."""
    reference: dict[str, Any] = {
        "rate_bpm": 70.0,
        "p_present": True,
        "qrs_axis_certain": False,
        "st_j_uv": [0] * 12,
        "st_j60_uv": [None] * 12,
    }
    rows: list[dict[str, Any]] = [{"id": 1, "reference": reference}, {"id": 2}]
    write_packed(tmp_path / "some", [recording(n) for n in range(2)], rows)
    return tmp_path


def marked(data: Path) -> TruthPage:
    return whole(next(iter(recordings(data, ["some"]))))


def test_a_recording_is_compared_with_its_marks(data: Path) -> None:
    rows = {row.key: row for row in measured(marked(data), Memory.begin()).comparisons}
    assert rows["rate_median"].marked == 70.0
    assert rows["p_present"].value == rows["p_present"].marked == 1.0
    assert rows["qrs_axis"].marked is None  # the marks are not certain of it
    assert rows["st_j.V1"].marked == 0.0
    assert rows["st_j60.V1"].marked is None


def test_paced_hearts_have_no_truth_about_p_waves(data: Path) -> None:
    rows = measured(replace(marked(data), paced=True), Memory.begin()).comparisons
    assert next(row for row in rows if row.key == "p_present").marked is None


def test_a_file_that_is_no_page_is_refused_and_counted(data: Path) -> None:
    one = next(iter(pages(Plan(data, recordings=("some",)), "synthetic")))
    outcome = measured(replace(one, picture=b"no picture"), Memory.begin())
    assert outcome.refused
    assert {row.reason for row in outcome.comparisons} == {"the page was refused"}
    assert not any(lead.reported for lead in outcome.leads)


def test_a_run_measures_pages_and_writes_a_report(data: Path, tmp_path: Path) -> None:
    plan = Plan(data, sets=("recordings", "synthetic"), pages=2, recordings=("some",), seed=3)
    lines: list[str] = []
    figures = measurements(tmp_path / "report", plan, False, lines.append)
    assert [(one.name, one.pages) for one in figures.sets] == [("recordings", 1), ("synthetic", 2)]
    assert lines == ["Recordings: 1 pages", "Synthetic pages: 2 pages"]
    synthetic = figures.sets[1]
    assert synthetic.snr.value is not None
    assert synthetic.snr.value > 10
    assert synthetic.peak_bytes is None or synthetic.peak_bytes > 2**20
    assert report.is_report(tmp_path / "report")


def test_an_unknown_set_is_a_usage_error(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no set faxes; the sets are recordings, synthetic"):
        measurements(tmp_path / "report", Plan(data, sets=("faxes",)), False, print)


def test_wrong_inputs_give_one_line_and_write_nothing(data: Path, tmp_path: Path) -> None:
    target = tmp_path / "report"
    for arguments, words, code in (
        (("--data", str(data / "nowhere")), "nowhere: is no folder", 2),
        (("--data", str(data), "--sets", "photos"), "holds nothing for the set photos", 1),
        (("--data", str(data), "--recordings", "other"), "other.npz: cannot be read", 1),
    ):
        outcome = CliRunner().invoke(cli, ["measurements", "-o", str(target), *arguments])
        assert words in f"{outcome.output}{outcome.exception}", outcome.output
        assert getattr(outcome.exception, "exit_code", outcome.exit_code) == code
        assert not target.exists()
