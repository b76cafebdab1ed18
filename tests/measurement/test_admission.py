"""The final verdict on a page: leads, cut-off traces, flat lines and which way is up, by the trace.

Pages are drawn and composed here, from seeded recordings.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from calibration.synthetic import PageStyle, draw, synthesize
from calibration.synthetic.recording import Recording
from pulse_edge.measurement import admission
from pulse_edge.measurement.admission import TracedPage
from pulse_edge.measurement.checks import check_answers
from pulse_edge.measurement.conditions import Person
from pulse_edge.measurement.page import PageMeasurement, measure_page
from pulse_edge.measurement.signal import LEADS
from pulse_edge.page import quality, reader

ROW_MM = {"12x1": 15.0, "6x2": 22.0}
SIDES = ("left", "right", "top", "bottom")
RATES = ("rate", "rate_median", "atrial_rate")


def drawn(layout: str = "3x4+1", recording: Recording | None = None, **style: object) -> np.ndarray:
    look = PageStyle(layout=layout, px_per_mm=5.0, row_mm=ROW_MM.get(layout, 30.0))
    return draw(recording or person(), replace(look, **style)).image  # type: ignore[arg-type]


@functools.cache
def person(seed: int = 3) -> Recording:
    return synthesize(seed, ())


def without_beats(*leads: str) -> Recording:
    """A recording in which these leads are a resting pen's line; all of them without a name."""
    signal = person().signal.copy()
    rows = [LEADS.index(lead) for lead in leads or LEADS]
    signal[rows] = np.random.default_rng(4).normal(0, 0.004, (len(rows), signal.shape[1]))
    return replace(person(), signal=signal)


def checked(page: np.ndarray, *, straighten: bool = True) -> TracedPage:
    image = Image.fromarray(np.ascontiguousarray(page))
    return admission.check(reader.Page(image, "", "page.png"), straighten=straighten)


def checks(page: TracedPage) -> list[str]:
    return [reason.check for reason in page.checked.quality.reasons]


def rates(measured: PageMeasurement) -> list[float | None]:
    return [measured[key].value for key in RATES]


# --- how many leads ---------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["3x4", "3x4+1", "3x4+3", "6x2", "12x1"])
def test_complete_page_has_twelve_leads_and_passes_untouched(layout: str) -> None:
    page = Image.fromarray(drawn(layout))
    result = admission.check(reader.Page(page, "", "page.png")).checked
    assert (result.quality.verdict, result.quality.leads) == (quality.GOOD, 12)
    assert result.quality.layout == layout
    assert result.flat.image is page


def test_page_whose_print_is_lost_has_twelve_leads_by_its_trace() -> None:
    page = checked(drawn("3x4", names="none"))
    assert page.checked.quality.leads == 12
    assert "leads" not in checks(page)


@pytest.mark.parametrize(
    ("layout", "side"),
    [
        *((layout, side) for layout in ("3x4", "3x4+1", "6x2") for side in SIDES),
        ("12x1", "top"),
        ("12x1", "bottom"),
    ],
)
def test_half_a_page_has_not_all_leads(layout: str, side: str) -> None:
    page = drawn(layout)
    height, width = (n // 2 for n in page.shape[:2])
    half = {
        "left": page[:, :width],
        "right": page[:, width:],
        "top": page[:height],
        "bottom": page[height:],
    }
    result = checked(half[side])
    assert result.checked.quality.verdict != quality.GOOD
    assert result.checked.quality.leads < 12
    if result.checked.quality.verdict == quality.USABLE:
        assert "leads" in checks(result)


def test_page_without_its_first_row_has_not_all_leads() -> None:
    """What remains has as many rows as a page of another layout."""
    page = drawn("3x4+1")
    result = checked(page[round((16 + 0.9 * 30) * 5) :])
    assert "leads" in checks(result)
    assert result.checked.quality.leads < 12


def test_page_without_its_strip_is_complete() -> None:
    page = drawn("3x4+1")
    result = checked(page[: -((30 + 10 - 4) * 5)])
    assert result.checked.quality.leads == 12


def test_two_ecgs_side_by_side_are_refused() -> None:
    one, two = drawn(), drawn(recording=person(8))
    gap = np.full((one.shape[0], 10, 3), 255, np.uint8)
    result = checked(np.hstack([one, gap, two]))
    assert result.checked.quality.verdict == quality.REFUSED
    assert checks(result)[0] == "ecgs"
    assert rates(measure_page(result)) == [None, None, None]


def test_two_ecgs_far_apart_are_no_good_page() -> None:
    one, two = drawn(), drawn(recording=person(8))
    gap = np.full((one.shape[0], 100, 3), 255, np.uint8)
    result = checked(np.hstack([one, gap, two]))
    assert result.checked.quality.verdict != quality.GOOD
    assert rates(measure_page(result)) == [None, None, None]


def test_two_ecgs_one_below_the_other_are_refused() -> None:
    result = checked(np.vstack([drawn(), drawn(recording=person(8))]))
    assert result.checked.quality.verdict == quality.REFUSED
    assert checks(result)[0] == "ecgs"
    assert rates(measure_page(result)) == [None, None, None]


# --- flat lines, noise, paper -------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["3x4+1", "6x2", "12x1"])
def test_page_without_a_heartbeat_says_so_first(layout: str) -> None:
    result = checked(drawn(layout, without_beats()))
    judged = result.checked.quality
    assert judged.verdict != quality.GOOD
    if judged.verdict == quality.USABLE:
        assert judged.reasons[0].check == "flat"
        assert "asystole, or the leads were off" in judged.reasons[0].advice
        assert measure_page(result)["asystole"].value == 1.0
    assert rates(measure_page(result)) == [None, None, None]


def test_words_about_a_page_without_a_heartbeat_are_contradicted() -> None:
    measured = measure_page(checked(drawn(recording=without_beats())))
    text = "Sinus bradycardia. The heart rate is 42 bpm, and the PR interval is 160 ms."
    checked_words = check_answers([("What does it show?", text)], measured.measurements, Person())
    verdicts = [c.verdict for c in checked_words]
    assert verdicts
    assert set(verdicts) == {"contradicted"}


@pytest.mark.parametrize("lead", ["V2", "aVL", "V6"])
def test_one_flat_lead_is_named(lead: str) -> None:
    result = checked(drawn("12x1", without_beats(lead)))
    reasons = {r.check: r.advice for r in result.checked.quality.reasons}
    assert result.checked.quality.verdict == quality.USABLE
    assert f"Lead {lead} is a flat line" in reasons["flat"]


def test_page_with_beats_in_every_lead_has_no_flat_line() -> None:
    assert admission.flat_leads(checked(drawn()).trace) == ()


def test_noise_in_place_of_a_signal_has_no_rate() -> None:
    noise = np.random.default_rng(2).normal(0, 0.2, person().signal.shape).astype(np.float32)
    result = checked(drawn(recording=replace(person(), signal=noise)))
    assert rates(measure_page(result)) == [None, None, None]


def test_blank_grid_is_refused() -> None:
    nothing = np.full(person().signal.shape, np.nan, np.float32)
    page = drawn(recording=replace(person(), signal=nothing), names="none", pulse="none")
    assert checked(page).checked.quality.verdict == quality.REFUSED


# --- which way is up ------------------------------------------------------------------------------

TURNS = {
    "half a turn": (lambda a: a[::-1, ::-1], (180, False)),
    "mirrored": (lambda a: a[:, ::-1], (0, True)),
    "upside-down mirror image": (lambda a: a[::-1], (180, True)),
}


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("layout", ["3x4", "3x4+1", "6x2", "12x1"])
def test_turned_page_without_print_comes_back_pixel_for_pixel(layout: str, turn: str) -> None:
    page = drawn(layout, names="none")
    change, expected = TURNS[turn]
    flat = checked(change(page)).checked.flat
    assert (flat.sheet.rotation, flat.sheet.mirrored) == expected
    assert np.array_equal(np.asarray(flat.image), page)


@pytest.fixture
def misled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks that take every page for upside down, and are certain of it."""
    from pulse_edge.page import orientation

    monkeypatch.setattr(orientation, "turn_log_odds", lambda *_a: np.array([0.0, 0.0, 60.0, 0.0]))
    monkeypatch.setattr(orientation, "mirror_log_odds", lambda *_a: np.array([0.0] + [-60.0] * 3))


@pytest.mark.usefixtures("misled")
@pytest.mark.parametrize("layout", ["3x4", "3x4+1", "6x2", "12x1"])
def test_trace_turns_back_a_page_that_the_networks_turned_wrongly(layout: str) -> None:
    page = Image.fromarray(drawn(layout))
    result = admission.check(reader.Page(page, "", "page.png")).checked
    assert result.flat.image is page
    assert not result.flat.changed
    assert result.flat.sheet.rotation == 0
    assert result.quality.verdict == quality.GOOD


@pytest.mark.usefixtures("misled")
def test_page_whose_pixels_stay_warns_that_it_is_upside_down() -> None:
    page = drawn()[::-1, ::-1]
    result = checked(page, straighten=False)
    assert np.array_equal(np.asarray(result.checked.flat.image), page)
    assert "orientation" in checks(result)


# --- what is cut off ------------------------------------------------------------------------------


def test_calibration_pulse_at_the_border_is_no_cut_off_trace(shared: Path) -> None:
    for name in ("eik_00029.jpg", "eik_00033.jpg", "eik_00041.jpg"):
        page = reader.read(shared / "ecg" / "images" / "photo" / name)
        assert "cut off" not in checks(admission.check(page)), name


def test_waves_at_the_border_are_cut_off(shared: Path) -> None:
    for name in ("photo/eik_00045.jpg", "render/eik_00007.png"):
        page = reader.read(shared / "ecg" / "images" / name)
        assert "cut off" in checks(admission.check(page)), name


def test_incomplete_pages_warn_about_their_leads(shared: Path) -> None:
    for name in ("eik_00005.jpg", "eik_00008.jpg"):
        page = reader.read(shared / "ecg" / "images" / "photo" / name)
        assert "leads" in checks(admission.check(page)), name


def test_leads_are_counted_where_the_layout_is_not_clear(shared: Path) -> None:
    for name in ("render/eik_00016.jpg", "render/eik_00017.png", "photo/eik_00039.jpg"):
        judged = admission.check(reader.read(shared / "ecg" / "images" / name)).checked.quality
        assert judged.leads == 12, name
        assert "leads" not in [r.check for r in judged.reasons], name
