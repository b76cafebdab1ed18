"""Traced pages against the signals that they were drawn from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from calibration.synthetic.pages import Page, draw
from calibration.synthetic.recording import Recording
from calibration.synthetic.signals import synthesize
from calibration.synthetic.style import PageStyle
from pulse_edge.measurement.digitise import Digitised, digitise
from pulse_edge.measurement.signal import LEADS, SAMPLES_PER_SECOND

SEEN = {"3x4": 0.1, "3x4+1": 0.1, "3x4+3": 0.1, "6x2": 0.1, "12x1": 0.1}


def recording() -> Recording:
    return synthesize(np.random.default_rng(7))


def traced(page: Page, **layouts: float) -> Digitised:
    scale = None if page.style.grid == "none" else page.px_per_mm
    return digitise(page.image, scale, scale, {**SEEN, page.style.layout: 0.8, **layouts})


def snr(page: Page, lead: str, values: np.ndarray[Any, Any]) -> float:
    """Decibels of a traced lead against what was drawn, at the best of shifts up to 0.04 s,
    whatever the offset."""
    trace = next(t for t in page.traces if t.lead == lead)
    truth = np.full(5000 + 40, np.nan)
    truth[20 + trace.start : 20 + trace.stop] = page.recording.lead(lead)[trace.start : trace.stop]
    best = -99.0
    for shift in range(-20, 21):
        part = truth[20 + shift : 20 + shift + len(values)]
        both = np.isfinite(part) & np.isfinite(values[: len(part)])
        want, got = part[both], values[: len(part)][both]
        want, got = want - want.mean(), got - got.mean()
        best = max(best, 10 * np.log10((want**2).sum() / max(((want - got) ** 2).sum(), 1e-9)))
    return float(best)


@pytest.mark.parametrize("layout", ["3x4", "3x4+1", "3x4+3", "6x2", "12x1"])
def test_every_layout_is_traced_into_its_leads(layout: str) -> None:
    page = draw(recording(), PageStyle(layout=layout, row_mm=26.0))
    signal = traced(page).signal
    assert signal.layout == layout
    assert np.median([snr(page, lead, signal.millivolts[n]) for n, lead in enumerate(LEADS)]) > 14
    assert min(signal.scores) > 0.8


def test_limbs_of_a_coloured_trace_do_not_bend_the_grid() -> None:
    """A dark red trace has a tint as the lines have, and would draw them towards itself."""
    style = PageStyle(
        px_per_mm=4.2,
        row_mm=32.0,
        minor=(247, 197, 197),
        major=(242, 144, 144),
        minor_mm=0.15,
        major_mm=0.3,
        ink=(90, 10, 20),
        ink_px=2.2,
        pulse="none",
        join="none",
    )
    page = draw(recording(), style)
    signal = traced(page).signal
    assert np.median([snr(page, lead, signal.millivolts[n]) for n, lead in enumerate(LEADS)]) > 14


@pytest.mark.parametrize("join", ["none", "bar", "ticks", "dots", "gap"])
def test_what_separates_columns_is_no_trace(join: str) -> None:
    page = draw(recording(), PageStyle(join=join))
    signal = traced(page).signal
    assert min(snr(page, lead, signal.millivolts[n]) for n, lead in enumerate(LEADS)) > 6
    assert (
        np.nanmax(np.abs(signal.millivolts)) < 1.15 * np.nanmax(np.abs(page.recording.signal)) + 0.3
    )


@pytest.mark.parametrize(("gain", "speed"), [(5.0, 25.0), (10.0, 25.0), (20.0, 25.0), (10.0, 50.0)])
@pytest.mark.parametrize("end", ["left", "right"])
def test_gain_and_speed_come_from_the_calibration_pulse(
    gain: float, speed: float, end: str
) -> None:
    seconds = 10.0 if speed == 25 else 5.0
    layout = "3x4" if speed == 25 else "6x2"
    style = PageStyle(
        layout=layout, gain=gain, speed=speed, seconds=seconds, pulse=end, row_mm=50.0
    )
    result = traced(draw(recording(), style))
    signal = result.signal
    assert (signal.millimetres_per_millivolt, signal.gain_certain) == (gain, True)
    assert (signal.millimetres_per_second, signal.speed_certain) == (speed, True)
    assert result.rows.pulse == end


def test_without_a_pulse_gain_and_speed_are_assumed_and_not_certain() -> None:
    signal = traced(draw(recording(), PageStyle(pulse="none", gain=5.0))).signal
    assert (signal.millimetres_per_millivolt, signal.gain_certain, signal.speed_certain) == (
        10.0,
        False,
        False,
    )


def test_a_page_without_a_grid_is_scaled_by_its_pulse() -> None:
    page = draw(recording(), PageStyle(grid="none"))
    signal = traced(page).signal
    assert signal.gain_certain
    assert np.median([snr(page, lead, signal.millivolts[n]) for n, lead in enumerate(LEADS)]) > 12


def test_leads_start_where_they_were_printed() -> None:
    signal = traced(draw(recording(), PageStyle(layout="3x4", join="none"))).signal
    first = {
        lead: np.flatnonzero(signal.valid[n])[0] / SAMPLES_PER_SECOND
        for n, lead in enumerate(LEADS)
    }
    for lead, start in (("I", 0.0), ("aVR", 2.5), ("V1", 5.0), ("V4", 7.5)):
        assert first[lead] == pytest.approx(start, abs=0.05)


def test_a_gap_in_the_ink_is_a_gap_in_the_signal() -> None:
    page = draw(recording(), PageStyle(layout="12x1", row_mm=20.0, grid="none"))
    trace = page.traces[0]
    left, right = round(trace.x_at(4.0)), round(trace.x_at(4.5))
    image = page.image.copy()
    image[round(trace.y0) - 60 : round(trace.y0) + 60, left:right] = page.style.paper
    signal = traced(replace(page, image=image)).signal
    missing = ~signal.valid[0, round(4.05 * SAMPLES_PER_SECOND) : round(4.45 * SAMPLES_PER_SECOND)]
    assert missing.all()


def test_peaks_keep_their_height() -> None:
    page = draw(recording(), PageStyle(layout="12x1", row_mm=34.0, join="none", ink_px=2.0))
    signal = traced(page).signal
    for n, lead in enumerate(LEADS):
        want, got = (
            np.ptp(page.recording.lead(lead)),
            np.nanmax(signal.millivolts[n]) - np.nanmin(signal.millivolts[n]),
        )
        assert got == pytest.approx(want, rel=0.12, abs=0.08)


def test_the_rhythm_strip_is_named_after_the_lead_it_shows() -> None:
    page = draw(recording(), PageStyle(layout="3x4+1"))
    ((name, strip),) = traced(page).signal.strips
    assert name == "II"
    assert np.isfinite(strip).mean() > 0.95


def test_a_bent_page_is_traced_along_its_own_grid() -> None:
    page = draw(recording(), PageStyle(px_per_mm=6.0))
    height, width = page.image.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    bent = cv2.remap(
        page.image,
        x + 9 * np.sin(2 * np.pi * x / width).astype(np.float32),
        y + 7 * np.sin(2 * np.pi * x / width).astype(np.float32),
        cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REPLICATE,
    )
    signal = traced(replace(page, image=bent)).signal
    assert signal.layout == "3x4+1"
    assert np.median([snr(page, lead, signal.millivolts[n]) for n, lead in enumerate(LEADS)]) > 9


def test_flat_lines_are_a_fact() -> None:
    record = recording()
    still = replace(record, signal=np.zeros_like(record.signal))
    result = traced(draw(still, PageStyle()))
    assert result.rows.all_flat
    assert len(result.rows.rows) == 4
    assert not traced(draw(record, PageStyle())).rows.all_flat


def test_a_grid_without_traces_gives_no_leads() -> None:
    record = recording()
    empty = replace(record, signal=np.full_like(record.signal, np.nan))
    result = traced(draw(empty, PageStyle(pulse="none", join="none")))
    assert result.signal.scores == (0.0,) * 12
    assert result.signal.reasons


@pytest.mark.parametrize("side", ["left", "right"])
def test_half_a_page_gives_no_leads(side: str) -> None:
    page = draw(recording(), PageStyle())
    half = page.image.shape[1] // 2
    image = page.image[:, :half] if side == "left" else page.image[:, half:]
    result = traced(replace(page, image=np.ascontiguousarray(image)), partial=0.9)
    assert result.signal.scores == (0.0,) * 12
    assert "too short" in result.signal.reasons[0]


def test_noise_gives_no_leads() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (700, 1200, 3)).astype(np.uint8)
    assert digitise(noise, 4.6, 4.6, SEEN).signal.scores == (0.0,) * 12


def test_polarity_of_the_limb_leads_tells_a_mirrored_or_turned_page() -> None:
    page = draw(recording(), PageStyle())
    upright = dict(traced(page).rows.polarity.directions)
    mirrored = traced(replace(page, image=np.ascontiguousarray(page.image[::-1])))
    turned = dict(mirrored.rows.polarity.directions)
    assert upright["II"] == 1
    assert upright["aVR"] == -1
    assert turned.get("II") != 1 or turned.get("aVR") != -1


def test_a_frame_round_the_traces_is_no_row() -> None:
    page = draw(recording(), PageStyle(layout="3x4+1", px_per_mm=6.0))
    height, width = page.image.shape[:2]
    image = page.image.copy()
    cv2.rectangle(image, (12, 40), (width - 12, height - 30), (0, 0, 0), 2)
    signal = traced(replace(page, image=image)).signal
    assert signal.layout == "3x4+1"
    assert np.median([snr(page, lead, signal.millivolts[n]) for n, lead in enumerate(LEADS)]) > 14


def test_half_a_pulse_leaves_the_speed_uncertain() -> None:
    style = PageStyle(layout="12x1", speed=12.5, row_mm=20.0, px_per_mm=6.0)
    signal = traced(draw(recording(), style)).signal
    assert (signal.millimetres_per_second, signal.speed_certain) == (25.0, False)


def test_a_coloured_grid_as_dark_as_the_trace_does_not_cut_qrs_complexes() -> None:
    style = PageStyle(
        px_per_mm=8.0,
        row_mm=36.0,
        paper=(225, 230, 228),
        major=(110, 66, 72),
        minor=(225, 230, 228),
        major_mm=0.35,
        ink=(66, 70, 72),
        ink_px=1.6,
        soft_px=0.8,
    )
    page = draw(recording(), style)
    _, packed = cv2.imencode(".jpg", page.image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    image = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)[:, :, ::-1]
    signal = traced(replace(page, image=np.ascontiguousarray(image))).signal
    assert signal.layout == "3x4+1"
    assert min(snr(page, lead, signal.millivolts[n]) for n, lead in enumerate(LEADS)) > 9


def test_a_rule_below_the_traces_is_no_row() -> None:
    page = draw(recording(), PageStyle(layout="6x2", row_mm=26.0, px_per_mm=6.0))
    height, width = page.image.shape[:2]
    image = page.image.copy()
    image[height - 20 : height - 18, 10 : width - 10] = 0
    signal = traced(replace(page, image=image)).signal
    assert signal.layout == "6x2"
    assert np.median([snr(page, lead, signal.millivolts[n]) for n, lead in enumerate(LEADS)]) > 14
