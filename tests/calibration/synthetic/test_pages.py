"""Synthetic pages: geometry to the pixel, all layouts, and nothing on them that gives a label away."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from calibration.synthetic import (
    FINDINGS,
    LAYOUTS,
    LEADS,
    Page,
    PageStyle,
    draw,
    page_at,
    random_style,
    synthesize,
)
from calibration.synthetic import example as made

PLAIN = PageStyle(
    grid="none", join="none", ink=(0, 0, 0), ink_px=1.0, header=(), footer=(), px_per_mm=5.0
)
RECORD = synthesize(1, ("LBBB",), noise=0)


def dark(page: Page) -> np.ndarray:
    return page.image.min(axis=2) < 200


@pytest.mark.parametrize("gain", [5.0, 10.0, 20.0])
@pytest.mark.parametrize("speed", [25.0, 50.0])
def test_a_calibration_pulse_is_one_millivolt_high_and_a_fifth_of_a_second_wide(
    gain: float, speed: float
) -> None:
    page = draw(
        RECORD, replace(PLAIN, gain=gain, speed=speed, seconds=10 * 25 / speed, names="left")
    )
    pulse = page.pulses[0]
    middle = round(pulse.x0 + pulse.width / 2)
    top = np.flatnonzero(dark(page)[:, middle])[0]
    assert pulse.y0 - top == pytest.approx(gain * 5.0, abs=1)
    sides = np.flatnonzero(
        dark(page)[round(pulse.y0 - pulse.height / 2), : round(page.traces[0].x0)]
    )
    assert sides[-1] - sides[0] == pytest.approx(0.2 * speed * 5.0, abs=1.5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_ink_lies_where_the_ground_truth_says(layout: str) -> None:
    page = draw(RECORD, replace(PLAIN, layout=layout, px_per_mm=4.37))
    ink, (height, width) = dark(page), page.image.shape[:2]
    for trace in page.traces:
        points = np.round(trace.points(RECORD)).astype(int)
        inside = points[(points[:, 1] >= 0) & (points[:, 1] < height) & (points[:, 0] < width)]
        assert len(inside) > 0.95 * len(points)
        assert ink[inside[:, 1], inside[:, 0]].mean() > 0.98


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("gain", [5.0, 10.0, 20.0])
def test_every_layout_draws_all_twelve_leads_over_the_whole_time(layout: str, gain: float) -> None:
    page = draw(RECORD, replace(PLAIN, layout=layout, gain=gain))
    assert {trace.lead for trace in page.traces} == set(LEADS)
    for row in range(len(LAYOUTS[layout])):
        cuts = [(trace.start, trace.stop) for trace in page.traces if trace.row == row]
        assert cuts[0][0] == 0
        assert cuts[-1][1] == 5000
        assert all(a[1] == b[0] for a, b in pairwise(cuts))


def test_grid_lines_are_one_and_five_millimetres_apart() -> None:
    page = draw(
        RECORD,
        replace(
            PLAIN, grid="lines", px_per_mm=10.0, pulse="none", major=(150, 0, 0), minor=(240, 0, 0)
        ),
    )
    edge = page.image[-5, :, 1].astype(int)
    lines = np.flatnonzero((edge < np.roll(edge, 1)) & (edge <= np.roll(edge, -1)))
    assert np.median(np.diff(lines)) == 10
    red = page.image[-5, :, 0].astype(int)
    major = np.flatnonzero((red < 230) & (red <= np.roll(red, 1)) & (red < np.roll(red, -1)))
    assert set(np.diff(major)) == {50}


def test_a_beat_is_found_at_its_pixel_column() -> None:
    page = draw(RECORD, PLAIN)
    rhythm, beat = page.traces[-1], RECORD.beats[3]
    points = rhythm.points(RECORD)
    near = np.abs(points[:, 0] - rhythm.x_at(beat.peak)) < 1
    away = np.abs(points[:, 1] - rhythm.y0)
    assert away[near].max() > 0.5 * away.max()


def test_missing_samples_stay_blank() -> None:
    signal = RECORD.signal.copy()
    signal[LEADS.index("V4")] = np.nan
    page = draw(replace(RECORD, signal=signal), PLAIN)
    trace = next(t for t in page.traces if t.lead == "V4")
    box = page.image[
        round(trace.y0 - 5) : round(trace.y0 + 5), round(trace.x0 + 3) : round(trace.x0 + 200)
    ]
    assert (box == 255).all()


def test_pages_carry_no_name_measurement_or_diagnosis() -> None:
    forbidden = {
        *FINDINGS,
        *FINDINGS.values(),
        "NORM",
        "bpm",
        "PR",
        "QRS",
        "QT",
        "Name",
        "sinus",
        "normal",
    }
    for seed in range(200):
        style = random_style(np.random.default_rng(seed))
        words = " ".join([*style.header, *style.footer])
        assert not [word for word in forbidden if word in words.replace("12-lead ECG", "").split()]
        assert "block" not in words


def test_looks_do_not_depend_on_the_record() -> None:
    normal, any_ = page_at(3, 7, prevalence={}), page_at(3, 7)
    assert normal.style == any_.style
    assert normal.recording.labels.cpsc == ("NORM",)


def test_random_pages_use_every_layout_and_stay_near_the_size_models_see() -> None:
    styles = [random_style(np.random.default_rng(seed)) for seed in range(300)]
    assert {style.layout for style in styles} == set(LAYOUTS)
    assert {style.speed for style in styles} == {25.0, 50.0}
    assert {style.gain for style in styles} == {5.0, 10.0, 20.0}
    assert all(950 < style.size_px[0] < 1650 and 350 < style.size_px[1] < 1500 for style in styles)


def test_an_unknown_choice_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="4x3"):
        PageStyle(layout="4x3")


def test_the_example_page_is_reproduced() -> None:
    with Image.open(made.PATH) as file:
        stored, drawn_with = np.asarray(file.convert("RGB")), file.info["Software"]
    again = made.example().image
    assert stored.shape == again.shape
    differs = (stored != again).any(axis=2)
    if drawn_with == made.versions():
        assert not differs.any()
    else:
        assert differs.mean() < 0.02
    assert made.PATH.stat().st_size < 400_000
