"""`pulse-edge measure`: text, JSON, CSV, WFDB records, pictures and exit codes, without a kit."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import measured_pages
import numpy as np
import pytest
from PIL import Image

from calibration.synthetic.wfdb import read_header, read_signals
from pulse_edge.measurement.page_json import as_json
from pulse_edge.measurement.signal import LEADS
from pulse_edge.measurement.summary import LABELS


def measure(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder, on a machine without a kit."""
    command = [sys.executable, "-m", "pulse_edge", "measure", *map(str, arguments)]
    env = os.environ | {"PULSE_EDGE_KIT": str(folder / "no-kit")}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a page, a blank picture that is refused, and a file that is no picture."""
    folder = tmp_path_factory.mktemp("pages")
    measured_pages.write(folder)
    Image.new("RGB", (800, 600), "white").save(folder / "blank.png")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


def test_text_has_each_value_with_its_uncertainty(folder: Path) -> None:
    done = measure(folder, "page.png")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:2] == ["# page.png", "12 of 12 leads traced, layout 3x4+1, 25 mm/s, 10 mm/mV"]
    rate = measured_pages.measured()["rate"]
    assert f"Ventricular rate: mean {rate.value:.0f} bpm ± {rate.uncertainty:.0f}" in done.stdout
    assert "Rhythm: ventricular activity, regular, P waves before the QRS" in done.stdout


@pytest.fixture(scope="module")
def written(folder: Path) -> subprocess.CompletedProcess[str]:
    """A run over all three files with JSON, WFDB records and pictures."""
    return measure(
        folder, "page.png", "broken.png", "blank.png", "--json", "--wfdb", "w", "--plot", "p"
    )  # fmt: skip


def test_json_has_an_object_for_each_page(written: subprocess.CompletedProcess[str]) -> None:
    page, broken, blank = map(json.loads, written.stdout.splitlines())
    assert page["layout"] == "3x4+1"
    assert page["gain_certain"] is True
    assert list(page["lead_scores"]) == list(LEADS)
    by_key = {m["key"]: m for m in page["measurements"]}
    assert by_key["rate"]["value"] == pytest.approx(measured_pages.true_rate(), abs=1)
    assert LABELS.keys() <= by_key.keys()
    beats = [beat["seconds"] for beat in page["beats"]]
    assert len(beats) == pytest.approx(measured_pages.true_rate() / 6, abs=1.5)
    assert (broken["exit_code"], blank["exit_code"]) == (1, 3)


def test_json_has_the_published_limits_for_age_and_sex() -> None:
    measured = measured_pages.measured()
    limits = {}
    for person in ((None, None), (40.0, "male"), (40.0, "female")):
        page = as_json(replace(measured, age_years=person[0], sex=person[1]))
        by_key = {m["key"]: m["limits"] for m in page["measurements"]}
        limits[person[1]] = [limit["high"] for limit in by_key["st_j.V2"]]
    assert limits == {None: [], "male": [0.2], "female": [0.15]}


def test_worst_page_is_the_exit_code(written: subprocess.CompletedProcess[str]) -> None:
    assert written.returncode == 3
    assert "error: broken.png" in written.stderr
    assert "error: blank.png" in written.stderr
    assert "Traceback" not in written.stderr


def test_wfdb_record_holds_the_traced_signal(
    written: subprocess.CompletedProcess[str], folder: Path
) -> None:
    assert written.returncode == 3
    signal = measured_pages.measured().signal.millivolts
    values = read_signals(read_header(folder / "w" / "page_png.hea"))
    assert np.array_equal(np.isnan(values), np.isnan(signal))
    assert np.nanmax(np.abs(values - signal)) <= 0.001


def test_picture_of_the_page_is_written(
    written: subprocess.CompletedProcess[str], folder: Path
) -> None:
    assert written.returncode == 3
    assert [path.name for path in (folder / "p").iterdir()] == ["page_png.png"]
    assert Image.open(folder / "p" / "page_png.png").size == (1345, 730)


def test_csv_has_a_row_for_each_measurement(folder: Path) -> None:
    done = measure(folder, "page.png", "--csv")
    assert done.returncode == 0, done.stderr
    rows = {row["measurement"]: row for row in csv.DictReader(io.StringIO(done.stdout))}
    assert LABELS.keys() <= rows.keys()
    rate = rows["rate"]
    assert (rate["file"], rate["unit"], rate["reason"]) == ("page.png", "bpm", "")
    assert float(rate["value"]) == pytest.approx(measured_pages.true_rate(), abs=1)
    assert rate["leads"].split() == list(LEADS)
    for row in rows.values():
        assert bool(row["value"]) != bool(row["reason"])


def test_second_run_numbers_its_files_and_the_header_names_its_own_signal(folder: Path) -> None:
    (folder / "again").mkdir()
    for name in ("page_png.hea", "page_png.dat"):
        (folder / "again" / name).write_text("earlier")
    assert measure(folder, "page.png", "--wfdb", "again").returncode == 0
    header = read_header(folder / "again" / "page_png-2.hea")
    assert {channel.file for channel in header.channels} == {"page_png-2.dat"}
    assert np.isfinite(read_signals(header)).any()
    assert (folder / "again" / "page_png.dat").read_text() == "earlier"


def test_forced_page_without_a_trace_has_no_rate(folder: Path) -> None:
    done = measure(folder, "blank.png", "--force", "--json")
    assert done.returncode == 0, done.stderr
    page = json.loads(done.stdout)
    assert {m["value"] for m in page["measurements"] if m["key"].startswith("rate")} == {None}
    assert page["reasons"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("page.png", "--json", "--csv"), "choose one"),
        (("page.png", "--age", "-1"), "--age"),
        (("page.png", "--sex", "x"), "--sex"),
        ((), "PAGE"),
    ],
    ids=["two forms", "age", "sex", "no page"],
)
def test_wrong_usage_ends_with_code_2(arguments: tuple[str, ...], word: str, folder: Path) -> None:
    done = measure(folder, *arguments)
    assert done.returncode == 2
    assert word in done.stderr
    assert done.stdout == ""


def test_unwritable_folder_is_one_line_with_the_next_step(folder: Path) -> None:
    (folder / "file").write_text("")
    done = measure(folder, "page.png", "--plot", "file/below")
    assert done.returncode == 1
    assert "choose another folder" in done.stderr
    assert "Traceback" not in done.stderr
