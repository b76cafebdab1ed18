"""What a page plotted from a recording shows, and its remarks for the reader."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recordings as rec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recordings import Group
from waveforms import BEATS, checked, part, reasons, refused

from pulse_edge.errors import PageRefused, ScanError
from pulse_edge.measurement import admission as final
from pulse_edge.page import admission, dicom_waveform, plotted_page, quality, reader

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("pydicom.waveforms")

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


def test_an_ordinary_recording_is_good_without_a_reason() -> None:
    page = checked(Group(BEATS, 250))
    output = admission.facts(page)
    assert (output["verdict"], output["leads"], output["layout"], output["reasons"]) == (
        "good",
        12,
        "3x4+1",
        [],
    )
    assert (output["sheet"]["rotation"], output["grid"]["pixels_per_mm"], output["changed"]) == (
        0,
        8.0,
        False,
    )
    assert output["recording"]["leads"]["V1"] == pytest.approx(2.5, abs=0.01)
    assert output["recording"]["leads"]["II"] == pytest.approx(10, abs=0.01)


def noise(
    seconds: float = 10, hz: float = 250, mv: float = 0.4, rate: float = 5.0
) -> dict[str, np.ndarray]:
    """Coarse fibrillation: noise of some 5 Hz."""
    dice = np.random.default_rng(3)
    n = round(seconds * hz)
    window = np.hanning(round(hz / rate))
    some = {
        lead: np.convolve(dice.normal(size=n + 400), window, "same")[200 : 200 + n]
        for lead in rec.LEADS
    }
    return {lead: mv * v / np.abs(v).max() * 2 for lead, v in some.items()}


@pytest.mark.parametrize(
    "rhythm", ["fibrillation", "sine", "asystole", "drift", "agonal", "wander"]
)
def test_no_network_judges_a_plotted_rhythm(rhythm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (
        "page.rectify.flatten",
        "page.rectify.describe",
        "page.quality.judge",
        "page.orientation.turn_log_odds",
        "page.orientation.layout_probabilities",
    ):
        monkeypatch.setattr(
            f"pulse_edge.{module}", lambda *a, **k: pytest.fail("the page was looked at")
        )
    t = np.arange(2500) / 250
    drift, beat = 0.02 * np.sin(2 * np.pi * 0.2 * t), rec.beats(("I",), 10, 250)["I"]
    alone = {
        "fibrillation": None,
        "sine": np.sin(2 * np.pi * 3 * t),
        "asystole": np.zeros(2500),
        "drift": drift,
        "agonal": np.where(
            (t > 3) & (t < 3.4) | (t > 8) & (t < 8.4), np.sin(2 * np.pi * 2.5 * t), drift
        ),
        "wander": beat + 2.5 * np.sin(2 * np.pi * 0.25 * t),
    }[rhythm]
    signals = noise() if alone is None else dict.fromkeys(rec.LEADS, alone)
    page = checked(Group(signals, 250))
    assert page.quality.verdict in (quality.GOOD, quality.USABLE)
    assert (page.quality.leads, page.flat.sheet.rotation, page.flat.image) == (
        12,
        0,
        page.page.image,
    )
    flat = {"asystole": "All leads are flat lines", "drift": "All leads are flat lines"}.get(rhythm)
    assert ("flat" in reasons(page)) == (flat is not None or rhythm == "agonal")
    if flat:
        assert flat in reasons(page)["flat"]


@pytest.mark.parametrize(("seconds", "each"), [(1, "1"), (2.5, "2.5"), (5, "2.5"), (8, "2.5")])
def test_a_short_recording_says_how_short(seconds: float, each: str) -> None:
    page = checked(Group(part(*rec.LEADS, stop=seconds), 250))
    assert (page.quality.verdict, page.quality.leads) == (quality.USABLE, 12)
    assert f"Only {seconds:.1f} of 10 seconds" in reasons(page)["seconds"]
    assert f"{each} of each lead" in reasons(page)["seconds"]


def test_less_than_a_second_is_refused_for_that() -> None:
    refused(
        rec.file(Group(part(*rec.LEADS, stop=0.6), 250)), "0.6 seconds of ECG", error=PageRefused
    )


@pytest.mark.parametrize("samples", [4950, 4999, 5000, 5001, 5010, 5400])
def test_some_samples_more_or_less_are_a_whole_page(samples: int) -> None:
    signals = rec.beats(rec.LEADS, samples / 500, 500)
    page = checked(Group(signals, 500))
    assert (page.quality.verdict, page.quality.leads) == (quality.GOOD, 12)
    assert page.page.image.width == 2192 + max(0, 8 * math.ceil(25 * (samples / 500 - 10) - 0.5))


def test_a_long_recording_has_a_page_for_every_ten_seconds() -> None:
    signals = rec.beats(rec.LEADS, 24, 250)
    pages = [
        admission.check(page)
        for page in reader.read_all(rec.file(Group(signals, 250), sop=rec.GENERAL))
    ]
    spans = [(p.page.plot.first, p.page.plot.last) for p in pages if p.page.plot]
    assert spans == [(0, 10), (10, 20), (14, 24)]
    assert all(p.quality.verdict == quality.USABLE and p.quality.leads == 12 for p in pages)
    assert "seconds 14.0 to 24.0 of 24.0: page 3 of 3" in reasons(pages[2])["part"]


def test_a_holter_recording_is_refused_for_its_length() -> None:
    many = {lead: np.zeros(50 * 700) for lead in rec.LEADS}
    refused(rec.file(Group(many, 50)), "12 minutes", "5 minutes are the limit", error=PageRefused)


def test_leads_that_were_never_recorded_do_not_count() -> None:
    signals = BEATS | {"V3": np.full(2500, math.nan), "aVL": np.full(2500, math.nan)}
    page = checked(Group(signals, 250, padding=-32768))
    assert (page.quality.verdict, page.quality.leads) == (quality.USABLE, 10)
    assert "Leads aVL and V3 were never recorded." in reasons(page)["leads"]


def test_two_leads_are_no_page_and_none_no_file() -> None:
    signals = {
        lead: mv if lead in ("I", "II") else np.full(2500, math.nan) for lead, mv in BEATS.items()
    }
    page = reader.read(rec.file(Group(signals, 250, padding=-32768)))
    with pytest.raises(PageRefused, match="were never recorded"):
        final.admit(page, straighten=True, force=False)
    refused(
        rec.file(Group({lead: np.full(2500, math.nan) for lead in BEATS}, 250, padding=-32768)),
        "no lead was recorded",
    )


def test_a_gap_is_named() -> None:
    signals = {lead: mv.copy() for lead, mv in BEATS.items()}
    for second in range(0, 10, 2):
        signals["V4"][250 * second : 250 * second + 125] = math.nan
    page = checked(Group(signals, 250, padding=-32768))
    assert "Lead V4 has gaps: up to 0.5 seconds" in reasons(page)["gaps"]
    assert page.quality.leads == 12


def test_a_gap_is_avoided_where_that_can_be() -> None:
    signals = {lead: mv.copy() for lead, mv in BEATS.items()}
    signals["V4"][2000:2250] = math.nan
    page = checked(Group(signals, 250, padding=-32768))
    assert page.quality.verdict == quality.GOOD
    assert page.page.plot is not None
    assert page.page.plot.leads["V4"] == pytest.approx(2.5, abs=0.01)


def ink(page: admission.CheckedPage, row: int, column: int) -> np.ndarray:
    """Pixels above 0 mV, at a row, that the trace of a column reaches."""
    cv2 = pytest.importorskip("cv2")
    rest, zero = 128 + 500 * column, page.quality.rows[row]
    dark = np.asarray(page.flat.image)[:, rest + 120 : rest + 490].max(axis=2) < 100
    _, labels = cv2.connectedComponents(dark.astype(np.uint8))
    on_line = labels[round(zero) - 2 : round(zero) + 2]
    return zero - 0.5 - np.flatnonzero((labels == on_line.max()).any(axis=1))


@pytest.mark.parametrize(
    ("tall", "gain"),
    [(1.0, 10), (2.9, 10), (4.4, 5), (-2.9, 10), (-4.4, 5), (8.0, 2.5), (-8.0, 2.5)],
)
def test_tall_waves_are_plotted_whole_at_the_stated_gain(tall: float, gain: float) -> None:
    zeros = dict.fromkeys(rec.LEADS, np.zeros(2500))
    spike = rec.beats(("I",), 10, 250, tall=tall)["I"]
    for lead, row, column in (("aVR", 0, 1), ("V3", 2, 2)):
        page = checked(Group(zeros | {lead: spike}, 250))
        assert page.page.plot is not None
        assert page.page.plot.gain == gain
        result = ink(page, row, column)
        high = result.max() if tall > 0 else result.min()
        peak = (max(spike, key=abs) - np.median(spike)) * gain * 8
        assert high == pytest.approx(
            peak + math.copysign(1.1, tall), abs=2
        )  # half a pen's width is 1.1 pixels
        assert ("gain" in reasons(page)) == (gain != 10)
        pulse = np.asarray(page.flat.image)[:, 60:100].max(axis=2) < 100
        rows = (
            page.quality.rows[0]
            - 0.5
            - np.flatnonzero(pulse[: round(page.quality.rows[0]) + 10].any(axis=1))
        )
        assert rows.max() == pytest.approx(8 * gain + 1.1, abs=1)


def test_waves_too_tall_for_any_gain_are_named() -> None:
    spike = rec.beats(("I",), 10, 250, tall=40)["I"]
    page = checked(Group(BEATS | {"V2": spike}, 250))
    assert "Lead V2 cannot be shown whole" in reasons(page)["cut off"]


@pytest.mark.parametrize("jump", [6.0, -6.0, 30.0])
def test_a_lead_whose_baseline_jumps_stays_in_its_strip(jump: float) -> None:
    signals = {lead: mv.copy() for lead, mv in BEATS.items()}
    signals["V2"][1250:1875] += jump
    page = checked(Group(signals, 250))
    assert "lead V2" in reasons(page)["baseline"]
    assert f"by {abs(jump):.1f} mV" in reasons(page)["baseline"]
    assert "gain" not in reasons(page)
    plain = checked(Group(BEATS, 250))
    assert (
        np.abs(
            np.asarray(page.flat.image)[:, 1130:1620].astype(int)
            - np.asarray(plain.flat.image)[:, 1130:1620]
        ).mean()
        < 0.5
    )


def test_a_jump_of_a_lead_elsewhere_does_not_matter() -> None:
    signals = {lead: mv.copy() for lead, mv in BEATS.items()}
    signals["V2"][:600] += 6.0  # V2 is drawn from second 5 to 7.5
    assert checked(Group(signals, 250)).quality.verdict == quality.GOOD


def test_facts_survive_json() -> None:
    import json

    about = reader.read(rec.file(Group(part(*rec.EIGHT, stop=5), 250))).plot
    assert about is not None
    assert plotted_page.from_json(json.loads(json.dumps(about.to_json()))) == about


@pytest.mark.parametrize("about", [{}, {"leads": 3}, [], "x", {"pixels_per_mm": math.nan}])
def test_broken_facts_raise(about: Any) -> None:
    with pytest.raises(ValueError, match=r"facts|scale"):
        plotted_page.from_json(about)


GOOD = (
    "02a",
    "02d",
    "06d",
    "09a",
    "09b",
    "09d",
    "10a",
    "10b",
    "10c",
    "11",
    "12",
    "13",
    "14b",
    "14c",
)
SAID = {
    "01a": ("seconds",),
    "01b": ("seconds",),
    "01d": ("baseline",),
    "01e": ("seconds",),
    "02b": ("flat",),
    "02e": ("gain", "baseline"),
    "02f": ("flat",),
    "07": ("gain",),
    "08": ("part",),
    "14a": ("grid",),
}


@pytest.mark.parametrize("start", [*GOOD, *SAID])
def test_clinic_files_give_expected_verdict_and_remarks(shared: Path, start: str) -> None:
    folder = shared / "faults" / "intake"
    if not folder.is_dir():
        pytest.skip("needs the folder of failing inputs")
    (path,) = folder.glob(f"{start}_*.dcm")
    pages = [admission.check(page) for page in reader.read_all(path)]
    assert len(pages) == (6 if start == "08" else 1)
    for page in pages:
        assert (page.quality.leads, page.quality.layout, page.flat.sheet.rotation) == (
            12,
            "3x4+1",
            0,
        )
        assert page.quality.verdict == (quality.GOOD if start in GOOD else quality.USABLE)
        assert tuple(r.check for r in page.quality.reasons) == SAID.get(start, ())


def test_a_carts_own_file_is_read_as_pydicom_reads_it() -> None:
    path = pydicom.data.get_testdata_file("waveform_ecg.dcm", download=False)
    if path is None:
        pytest.skip("needs the example file of pydicom")
    result = pydicom.dcmread(path)
    expected = pydicom.waveforms.multiplex_array(result, 0, as_raw=False).T / 1000  # microvolts
    recording = dicom_waveform.recording(result, "x")
    assert all(
        np.allclose(recording.leads[lead].mv, mv)
        for lead, mv in zip(rec.LEADS, expected, strict=True)
    )
    page = admission.check(reader.read(path))
    assert (page.quality.verdict, page.quality.leads) == (quality.GOOD, 12)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from([rec.LITTLE, rec.IMPLICIT, rec.BIG]),
    st.booleans(),
    st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), max_size=10),
)
def test_damaged_recordings_give_pages_or_our_errors(
    syntax: str, preamble: bool, changes: list[tuple[int, int]]
) -> None:
    groups = (
        Group(part(*rec.EIGHT, stop=1.5), 250, offset=0.0),
        Group(part("II", stop=3), 250, padding=-32768),
    )
    broken = bytearray(rec.file(*groups, syntax=syntax, preamble=preamble))
    for at, value in changes:
        broken[at % len(broken)] = value
    try:
        for page in reader.read_all(bytes(broken)):
            assert admission.check(page).quality.verdict
    except (ScanError, PageRefused) as e:
        assert len(str(e).splitlines()) == 1


def test_files_that_hold_one_ecg_in_many_ways_give_one_page(shared: Path) -> None:
    folder = shared / "faults" / "intake"
    if not folder.is_dir():
        pytest.skip("needs the folder of failing inputs")
    ways = ("09a", "09b", "09d", "10a", "10b", "10c", "11", "13")
    assert (
        len({reader.read(next(folder.glob(f"{way}_*.dcm"))).image.tobytes() for way in ways}) == 1
    )
    with pytest.raises(ScanError, match="sensitivity"):
        reader.read(next(folder.glob("10d_*.dcm")))
