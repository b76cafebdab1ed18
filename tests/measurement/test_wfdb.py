"""Traced signals as WFDB records, read back by the reader of the calibration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import measured_pages
import numpy as np
import pytest

from calibration.synthetic.wfdb import Header, read_header, read_signals
from pulse_edge.measurement import wfdb
from pulse_edge.measurement.signal import LEADS, SAMPLES_PER_SECOND, TracedSignal


def read_back(folder: Path, signal: TracedSignal, *comments: str) -> tuple[Header, np.ndarray]:
    for ending, content in wfdb.record(signal, "page", comments).items():
        (folder / f"page{ending}").write_bytes(content)
    header = read_header(folder / "page.hea")
    return header, read_signals(header)


def test_record_gives_back_the_millivolts(tmp_path: Path) -> None:
    signal = measured_pages.measured().signal
    header, values = read_back(tmp_path, signal, "traced from a page")
    assert tuple(channel.name for channel in header.channels) == LEADS
    assert (header.hz, header.samples) == (SAMPLES_PER_SECOND, signal.millivolts.shape[1])
    assert np.array_equal(np.isnan(values), np.isnan(signal.millivolts))
    assert np.nanmax(np.abs(values - signal.millivolts)) <= 0.001
    assert header.comments == ("traced from a page",)


def test_sample_that_was_not_traced_is_the_missing_value() -> None:
    millivolts = np.zeros((12, 3), np.float32)
    millivolts[1, 2] = np.nan
    signal = replace(measured_pages.measured().signal, millivolts=millivolts)
    stored = np.frombuffer(wfdb.record(signal, "page")[".dat"], "<i2").reshape(3, 12)
    assert stored[2, 1] == -32768
    assert (stored == 0).sum() == 35


@pytest.mark.parametrize("value", [40.0, -40.0])
def test_value_out_of_range_is_clipped_and_stays_a_value(value: float, tmp_path: Path) -> None:
    millivolts = np.full((12, 600), value, np.float32)
    signal = replace(measured_pages.measured().signal, millivolts=millivolts)
    _, values = read_back(tmp_path, signal)
    assert np.allclose(values, np.sign(value) * 32.767)


def test_comment_of_several_lines_is_one_line(tmp_path: Path) -> None:
    header, _ = read_back(tmp_path, measured_pages.measured().signal, "from a\npage.png 16 0")
    assert header.comments == ("from a page.png 16 0",)
