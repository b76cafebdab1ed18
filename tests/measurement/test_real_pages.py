"""A published page against its published signal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from calibration.synthetic.wfdb import read_header, read_signals
from pulse_edge.measurement import admission
from pulse_edge.measurement.digitise import digitise
from pulse_edge.measurement.signal import LEADS, TracedSignal
from pulse_edge.page import reader

PIXELS_PER_MM = 7.882


def test_a_rendered_page_gives_back_its_recording(shared: Path) -> None:
    page = np.asarray(
        Image.open(shared / "ecg" / "images" / "render" / "cinc_00005.png").convert("RGB")
    )
    header = read_header(shared / "ecg" / "records" / "cinc2024" / "00005_hr.hea")
    truth, names = read_signals(header), [c.name.lower() for c in header.channels]
    signal = digitise(page, PIXELS_PER_MM, PIXELS_PER_MM, {"3x4+1": 1.0}).signal
    assert (signal.layout, signal.gain_certain, signal.millimetres_per_millivolt) == (
        "3x4+1",
        True,
        10.0,
    )
    alike = []
    for n, lead in enumerate(LEADS):
        got = signal.millivolts[n]
        want = truth[names.index(lead.lower())]
        values = []
        for shift in range(-60, 61, 2):
            moved = np.roll(got, shift)[: len(want)]
            both = np.isfinite(moved) & np.isfinite(want[: len(moved)])
            values.append(np.corrcoef(moved[both], want[: len(moved)][both])[0, 1])
        alike.append(max(values))
    assert np.median(alike) == pytest.approx(1.0, abs=0.08)


def traced(path: Path) -> TracedSignal:
    return admission.check(reader.read(Image.open(path).convert("RGB"))).trace.signal


def test_a_page_in_a_frame_is_traced_in_its_layout(shared: Path) -> None:
    signal = traced(shared / "ecg" / "images" / "render" / "ptbxl_report_449.png")
    assert signal.layout == "3x4+1"
    assert signal.valid.any(axis=1).all()


def test_a_short_pulse_on_a_scan_leaves_the_speed_uncertain(shared: Path) -> None:
    signal = traced(shared / "ecg" / "images" / "scan" / "jmao_test.jpg")
    assert (signal.layout, signal.millimetres_per_second, signal.speed_certain) == (
        "6x2",
        25.0,
        False,
    )
    assert signal.valid.any(axis=1).sum() >= 10


def test_a_black_and_white_scan_with_a_black_grid_is_untraceable(shared: Path) -> None:
    signal = traced(shared / "ecg" / "images" / "scan" / "kg_906806490_bwscan.png")
    assert not signal.valid.any()
    assert signal.reasons
