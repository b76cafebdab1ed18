"""The pages of each set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from measurement_data import recording, write_packed
from PIL import Image

from calibration.measurements.pages import scale_printed
from calibration.measurements.sets import Plan, pages
from calibration.synthetic.style import ROWS, PageStyle
from pulse_edge.errors import BenchError
from pulse_edge.measurement.signal import LEADS


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Three recordings, the first with marks."""
    rows: list[dict[str, Any]] = [{"id": 1, "reference": {"rate_bpm": 60.0}}, {"id": 2}, {"id": 3}]
    write_packed(tmp_path / "some", [recording(n) for n in range(3)], rows)
    return Plan(tmp_path, recordings=("some",))


@pytest.mark.parametrize("name", ["synthetic", "distorted", "scans"])
def test_the_same_seed_gives_the_same_pages(plan: Plan, name: str) -> None:
    one, two = ([(p.name, p.picture) for p in pages(plan, name)] for _ in range(2))
    assert one == two
    assert len(one) == 3
    assert one != [(p.name, p.picture) for p in pages(replace(plan, seed=1), name)]


def test_recordings_without_marks_are_not_measured_from_the_signal(plan: Plan) -> None:
    assert [p.name for p in pages(plan, "recordings")] == ["some-1"]


def test_no_more_pages_than_asked_for(plan: Plan) -> None:
    assert len(list(pages(replace(plan, pages=2), "synthetic"))) == 2


def test_a_page_shows_each_lead_where_its_truth_says(plan: Plan) -> None:
    for page in pages(plan, "synthetic"):
        assert page.printed is not None
        shown = np.isfinite(page.printed.millivolts).sum(axis=1)
        rows = ROWS[page.printed.layout]
        total = page.printed.millivolts.shape[1]
        assert np.abs(shown - total / len(rows[0])).max() <= 1, page.name
        strips = [row[0] for row in rows if len(row) == 1 < len(rows[0])]
        assert [lead for lead, _ in page.printed.strips] == strips


def test_only_usual_scales_are_clear_without_a_pulse() -> None:
    assert scale_printed(PageStyle(pulse="none"))
    assert scale_printed(PageStyle(pulse="left", gain=5.0))
    assert not scale_printed(PageStyle(pulse="none", gain=5.0))


def photographs(folder: Path, **row: object) -> None:
    rows: list[dict[str, Any]] = [
        {"record": "00012", "has_signal": True, "file": "page.jpg"} | row,
        {"has_signal": False},
    ]
    valid = np.ones((1, 12, 5000), bool)
    write_packed(folder / "photos", [recording(1)], rows, valid=valid)


def test_photographs_come_with_the_printed_columns_and_strip(tmp_path: Path) -> None:
    photographs(tmp_path)
    Image.new("RGB", (40, 30)).save(tmp_path / "page.jpg")
    (page,) = pages(Plan(tmp_path, photographs="photos"), "photos")
    assert page.printed is not None
    assert (page.name, page.group) == ("page", "ptbxl-12")
    assert np.isfinite(page.printed.millivolts).sum(axis=1).tolist() == [1250] * 12
    assert [lead for lead, _ in page.printed.strips] == ["II"]
    assert np.flatnonzero(np.isfinite(page.printed.millivolts[LEADS.index("aVL")]))[0] == 1250


def test_a_photograph_that_is_absent_is_named(tmp_path: Path) -> None:
    photographs(tmp_path)
    with pytest.raises(BenchError, match=r"page\.jpg: cannot be read"):
        list(pages(Plan(tmp_path, photographs="photos"), "photos"))


def test_photographs_without_their_signals_are_refused(tmp_path: Path) -> None:
    photographs(tmp_path, has_signal=False)
    with pytest.raises(BenchError, match="1 for 0 rows"):
        list(pages(Plan(tmp_path, photographs="photos"), "photos"))


def test_a_folder_without_photographs_is_refused(plan: Plan) -> None:
    with pytest.raises(BenchError, match="holds nothing for the set photos"):
        list(pages(plan, "photos"))
