"""Recordings and their reference values, from packed files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from measurement_data import recording, write_packed

from calibration.measurements.recordings import open_file, recordings
from pulse_edge.errors import BenchError
from pulse_edge.measurement.signal import LEADS


def test_leads_come_in_the_usual_order_and_at_500_hz(tmp_path: Path) -> None:
    signal = recording(1)[:, ::2]
    write_packed(tmp_path / "some", [signal[::-1]], [{"id": 7}], hz=250, leads=LEADS[::-1])
    (one,) = recordings(tmp_path, ["some"])
    assert one.name == "some-7"
    assert one.millivolts.shape == (12, 5000)
    assert np.abs(one.millivolts[:, ::2] - signal).max() < 0.02


def test_reference_values_and_pacing_are_read(tmp_path: Path) -> None:
    rows = [{"id": 1, "waves": {}, "reference": {"rate_bpm": 61.0}, "pacing": ["VVI"]}]
    write_packed(tmp_path / "marked", [recording(1)], rows)
    (one,) = recordings(tmp_path, ["marked"])
    assert (one.name, one.marks, one.paced) == ("ludb-1", {"rate_bpm": 61.0}, True)


def test_a_recording_in_two_files_comes_once(tmp_path: Path) -> None:
    for name in ("ptbxl_a", "ptbxl_b"):
        write_packed(tmp_path / name, [recording(1)], [{"ecg_id": 173}])
    assert [r.name for r in recordings(tmp_path, ["ptbxl_a", "ptbxl_b"])] == ["ptbxl-173"]


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"nothing\.npz: cannot be read"):
        list(recordings(tmp_path, ["nothing"]))


def test_a_row_too_few_is_refused(tmp_path: Path) -> None:
    write_packed(tmp_path / "some", [recording(1), recording(2)], [{"id": 1}])
    with pytest.raises(BenchError, match=r"holds 2 recordings, its \.json 1 rows"):
        list(recordings(tmp_path, ["some"]))


def test_a_missing_lead_is_named(tmp_path: Path) -> None:
    write_packed(tmp_path / "some", [recording(1)[:11]], [{"id": 1}], leads=LEADS[:11])
    with pytest.raises(BenchError, match="has no lead V6"):
        open_file(tmp_path / "some")


def test_a_missing_array_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "some.npz", signal_uV=np.zeros((1, 12, 9), np.int16))
    (tmp_path / "some.json").write_text("[{}]", encoding="utf-8")
    with pytest.raises(BenchError, match="has no array fs, leads"):
        open_file(tmp_path / "some")


@pytest.mark.parametrize("text", ["{", json.dumps({"records": "none"}), json.dumps([1])])
def test_rows_that_are_no_list_of_objects_are_refused(tmp_path: Path, text: str) -> None:
    write_packed(tmp_path / "some", [recording(1)], [{"id": 1}])
    (tmp_path / "some.json").write_text(text, encoding="utf-8")
    with pytest.raises(BenchError, match=r"some\.(npz|json)"):
        open_file(tmp_path / "some")
