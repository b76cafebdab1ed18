"""dicom_waveform.py and admission: recordings of every cart become pages with their facts, or are refused for the true reason."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recordings as rec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recordings import Group

from pulse_edge.errors import PageRefused, PulseEdgeError, ScanError
from pulse_edge.page import admission, dicom_waveform, plotted_page, quality, reader
from pulse_edge.page.dicom_waveform import lead_named
from pulse_edge.page.recording import Recording, Signal, complete_leads

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("pydicom.waveforms")

BEATS = rec.beats(rec.LEADS, 10, 250)
QUICK = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


def read(*groups: Group, **options: Any) -> Recording:
    """The recording of a file with these groups."""
    import io

    data = rec.file(*groups, **options)
    return dicom_waveform.recording(pydicom.dcmread(io.BytesIO(data), force=True), "x")


def same(recording: Recording, signals: Mapping[str, np.ndarray], within: float = 0.002) -> None:
    """Every lead holds these millivolts."""
    for lead, mv in signals.items():
        found = recording.leads[lead].mv
        assert found.shape == mv.shape
        assert np.array_equal(np.isnan(found), np.isnan(mv))
        assert np.nan_to_num(np.abs(found - mv)).max() < within, lead


def checked(*groups: Group, **options: Any) -> admission.CheckedPage:
    """The only page of a file with these groups, as `check` sees it."""
    return admission.check(reader.read(rec.file(*groups, **options)))


def reasons(page: admission.CheckedPage) -> dict[str, str]:
    """Check and advice of each reason."""
    return {r.check: r.advice for r in page.quality.reasons}


def refused(data: bytes, *words: str, error: type[PulseEdgeError] = PulseEdgeError) -> None:
    """The file is refused with these words."""
    with pytest.raises(error) as caught:
        reader.read_all(data)
    assert all(word in str(caught.value) for word in words), caught.value
    assert "damaged or of a rare kind" not in str(caught.value)


# ---------------------------------------------------------------------------------------------------------- lead names


@pytest.mark.parametrize("style", rec.NAMES)
def test_leads_are_known_by_any_style_of_name(style: str) -> None:
    same(read(Group(BEATS, 250, names=style)), BEATS)


@pytest.mark.parametrize("style", ["MDC", "SCP", "label", "German"])
def test_fifteen_leads_are_all_read(style: str) -> None:
    signals = rec.beats(rec.FIFTEEN, 5, 250)
    same(read(Group(signals, 250, names=style)), signals)


@pytest.mark.parametrize(
    ("text", "lead"),
    [
        ("Lead I (Einthoven)", "I"),
        ("aVF, augmented voltage, foot", "aVF"),
        ("AVR", "aVR"),
        ("-aVR", "-aVR"),
        ("DIII", "III"),
        ("d2", "II"),
        ("C4R", "V4R"),
        ("rV4", "V4R"),
        ("MDC_ECG_LEAD_V9", "V9"),
        ("Derivação DII", "II"),
        ("V1-V2", None),
        ("I / II", None),
        ("IV", None),
        ("V10", None),
        ("V", None),
        ("Ical", None),
        ("DV1", None),
        ("resp", None),
        ("Impedance", None),
        ("X1", None),
        ("", None),
    ],
)
def test_a_name_names_a_lead_or_none(text: str, lead: str | None) -> None:
    assert lead_named(text) == lead


def test_a_makers_code_that_looks_like_a_chest_lead_is_not_taken_for_it() -> None:
    same(read(Group(BEATS, 250, names="own code, label")), BEATS)  # its codes are C1, C2 ...


def test_a_code_is_believed_before_a_label() -> None:
    group = Group(BEATS, 250, names="code alone")  # all labels say "channel"
    same(read(group), BEATS)


def test_channels_that_are_no_lead_are_named() -> None:
    signals = BEATS | {"Z": BEATS["I"]}
    data = rec.file(Group(signals, 250))
    data = data.replace(b"2:18", b"9:18").replace(b"Lead Z", b"PACER ")
    page = admission.check(reader.read(data))
    assert page.quality.leads == 12
    assert '"PACER"' in reasons(page)["not shown"]


def test_a_recording_without_lead_names_is_refused_for_that() -> None:
    refused(
        rec.file(Group(BEATS, 250, names="none")),
        "names none of its 12 channels",
        error=PageRefused,
    )
    refused(
        rec.file(Group({"V1": BEATS["V1"], "V2": BEATS["V2"]}, 250)),
        "lacks lead I, II, III",
        error=PageRefused,
    )


# --------------------------------------------------------------------------------------------------- units and samples


@pytest.mark.parametrize("unit", rec.UNITS)
def test_a_millivolt_is_a_millivolt_in_any_unit(unit: str) -> None:
    same(read(Group(BEATS, 250, unit=unit)), BEATS)


def test_a_unit_that_is_a_makers_own_code_is_known_by_its_meaning() -> None:
    same(read(Group(BEATS, 250, unit="U1", unit_meaning="microvolt")), BEATS)


@pytest.mark.parametrize(
    ("charset", "wrong"),
    [("ISO_IR 100", None), ("ISO_IR 192", None), ("ISO_IR 192", b"ISO_IR 100")],
)
def test_a_micro_sign_is_known_in_any_character_set(charset: str, wrong: bytes | None) -> None:
    import io

    data = rec.file(Group(BEATS, 250, unit="\u00b5V"), charset=charset)
    if wrong:
        data = data.replace(charset.encode(), wrong)
    same(dicom_waveform.recording(pydicom.dcmread(io.BytesIO(data)), "x"), BEATS)


@pytest.mark.parametrize("unit", ["mm", "pV", "A", "mmHg", "bit"])
def test_another_unit_is_refused_for_that(unit: str) -> None:
    refused(rec.file(Group(BEATS, 250, unit=unit)), "unit", error=ScanError)


def test_a_missing_sensitivity_is_the_reason_that_is_given() -> None:
    refused(rec.file(Group(BEATS, 250, step=None)), "sensitivity is missing", error=ScanError)


@QUICK
@given(
    st.sampled_from(list(rec.UNITS)),
    st.sampled_from([0.5, 1.0, 2.5, 4.88, 5.0]),
    st.sampled_from([1.0, 0.5, 2.0]),
    st.sampled_from([rec.LITTLE, rec.IMPLICIT, rec.BIG]),
    st.booleans(),
    st.sampled_from(["SS", "SL"]),
)
def test_units_steps_and_byte_orders_give_the_same_millivolts(
    unit: str, step: float, correction: float, syntax: str, preamble: bool, kind: str
) -> None:
    group = Group(BEATS, 250, unit=unit, step=step, correction=correction, kind=kind)
    same(read(group, syntax=syntax, preamble=preamble), BEATS, within=0.006)


@pytest.mark.parametrize(
    ("kind", "baseline"), [("US", -20_000.0), ("UB", -3000.0), ("UL", -20_000.0), ("SB", 0.0)]
)
def test_unsigned_and_short_samples_are_read(kind: str, baseline: float) -> None:
    step = 50.0 if kind.endswith("B") else 2.5
    same(read(Group(BEATS, 250, kind=kind, baseline=baseline, step=step)), BEATS, within=0.03)


@pytest.mark.parametrize("extend", [True, False])
@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("syntax", [rec.LITTLE, rec.BIG])
def test_fewer_bits_are_sign_extended(bits: int, extend: bool, syntax: str) -> None:
    signals = rec.sines(rec.LEADS, 5, 250)  # as far below as above 0
    same(
        read(Group(signals, 250, bits=bits, extend=extend, padding=-32768), syntax=syntax), signals
    )


def test_numbers_round_the_middle_of_twelve_bits_are_not_taken_for_negative_ones() -> None:
    signals = rec.sines(rec.LEADS, 5, 250)
    same(read(Group(signals, 250, bits=12, baseline=-2048 * 2.5)), signals)


def test_more_bits_than_there_are_said_to_be_are_refused() -> None:
    signals = rec.beats(rec.LEADS, 5, 250, tall=9.0)
    with pytest.raises(ScanError, match="10 bits"):
        read(Group(signals, 250, bits=10))


@pytest.mark.parametrize("syntax", [rec.LITTLE, rec.BIG])
@pytest.mark.parametrize("padding", [-32768, 30000])
def test_padding_is_no_voltage(padding: int, syntax: str) -> None:
    signals = {lead: mv.copy() for lead, mv in BEATS.items()}
    signals["V3"][:] = math.nan
    signals["V4"][1900:2100] = math.nan
    same(read(Group(signals, 250, padding=padding), syntax=syntax), signals)


@pytest.mark.parametrize("count", [0, 100, 2499, 2501, 10**6])
def test_a_wrong_count_of_samples_is_refused(count: int) -> None:
    with pytest.raises((ScanError, PageRefused)):
        read(Group(BEATS, 250, count=count))


def test_companded_samples_and_strange_rates_are_refused_for_that() -> None:
    refused(rec.file(Group(BEATS, 250, more={"WaveformSampleInterpretation": "MB"})), "MB")
    refused(rec.file(Group(BEATS, 7)), "sampling rate (7 samples a second)")


def test_a_file_without_preamble_is_the_same_page() -> None:
    whole = rec.file(Group(BEATS, 250))
    expected = reader.read(whole).image
    for data in (
        rec.file(Group(BEATS, 250), preamble=False),
        whole[128:],
        rec.file(Group(BEATS, 250), syntax=rec.BIG),
    ):
        assert np.array_equal(np.asarray(reader.read(data).image), np.asarray(expected))


# -------------------------------------------------------------------------------------------------------------- groups


def part(*leads: str, start: float = 0.0, stop: float = 10.0) -> dict[str, np.ndarray]:
    """Some leads of BEATS, and some of their seconds."""
    return {lead: BEATS[lead][round(250 * start) : round(250 * stop)] for lead in leads}


@QUICK
@given(st.lists(st.integers(1, 11), max_size=4, unique=True), st.randoms(), st.booleans())
def test_any_division_into_groups_gives_the_same_recording(
    cuts: list[int], dice: Any, offsets: bool
) -> None:
    leads = list(rec.LEADS)
    dice.shuffle(leads)
    edges = [0, *sorted(cuts), 12]
    groups = [
        Group(part(*leads[a:b]), 250, offset=0.0 if offsets else None) for a, b in pairwise(edges)
    ]
    recording = read(*groups)
    same(recording, BEATS)
    assert (recording.seconds, recording.computed, recording.not_shown) == (10.0, (), ())


COLUMNS = (("I", "II", "III"), ("aVR", "aVL", "aVF"), ("V1", "V2", "V3"), ("V4", "V5", "V6"))


def test_columns_with_their_own_times_are_put_in_their_places() -> None:
    groups = [
        Group(part(*c, start=2.5 * n, stop=2.5 * n + 2.5), 250, offset=2.5 * n)
        for n, c in enumerate(COLUMNS)
    ]
    page = checked(*groups, Group(part("II"), 500 / 2, offset=0.0))
    assert (page.quality.verdict, page.quality.leads) == (quality.GOOD, 12)
    whole = reader.read(rec.file(Group(BEATS, 250)))
    differ = np.asarray(whole.image).astype(int) - np.asarray(page.flat.image)
    # Only the sample in common with the next column, and each lead's own baseline, may differ.
    assert (np.abs(differ).max(axis=2) > 60).mean() < 0.002


def test_columns_in_another_order_of_time_are_found_where_they_were_recorded() -> None:
    order = COLUMNS[::-1]
    groups = [
        Group(part(*c, start=2.5 * n, stop=2.5 * n + 2.5), 250, offset=2.5 * n)
        for n, c in enumerate(order)
    ]
    page = checked(*groups)
    assert page.quality.leads == 12
    assert page.page.plot is not None
    assert min(page.page.plot.leads.values()) > 2.4
    assert "Lead II has gaps: up to 7.5 seconds" in reasons(page)["gaps"]  # the rhythm strip


def test_columns_without_times_are_shown_side_by_side() -> None:
    page = checked(*(Group(part(*c, stop=2.5), 250) for c in COLUMNS))
    assert page.quality.leads == 12
    assert "2.5 of 10 seconds" in reasons(page)["seconds"]


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    ("originality", "label"), [("DERIVED", None), (None, "MEDIAN BEAT"), (None, "Representative")]
)
def test_a_rhythm_is_drawn_and_an_averaged_beat_is_not(
    first: bool, originality: str | None, label: str | None
) -> None:
    beat = Group(rec.beats(rec.LEADS, 1.2, 250, tall=2), 250, originality=originality, label=label)
    rhythm = Group(BEATS, 250, label="RHYTHM")
    recording = read(*((beat, rhythm) if first else (rhythm, beat)))
    same(recording, BEATS)
    assert not recording.averaged


def test_an_averaged_beat_alone_is_refused_for_that() -> None:
    refused(
        rec.file(Group(rec.beats(rec.LEADS, 1.2, 250), 250, originality="DERIVED")),
        "averaged beat",
        error=PageRefused,
    )


def test_a_derived_rhythm_is_drawn_and_named() -> None:
    page = checked(Group(BEATS, 250, originality="DERIVED"))
    assert (page.quality.verdict, page.quality.leads) == (quality.USABLE, 12)
    assert "derived" in reasons(page)["average"]


def test_derived_limb_leads_complete_a_recording() -> None:
    chest = Group(part("I", "V1", "V2", "V3", "V4", "V5", "V6"), 250)
    same(
        read(chest, Group(part("II", "III", "aVR", "aVL", "aVF"), 250, originality="DERIVED")),
        BEATS,
    )


def test_a_second_ecg_in_a_file_is_named() -> None:
    other = Group(rec.beats(rec.LEADS, 5, 250), 250, offset=60.0)
    page = checked(Group(BEATS, 250, offset=0.0), other)
    assert "another ECG of 5 seconds" in reasons(page)["not shown"]
    assert page.page.plot is not None
    assert page.page.plot.recorded == 10.0


def test_einthoven_and_goldberger_hold() -> None:
    one, two = np.array([1.0, 2.0]), np.array([3.0, 1.0])
    whole, computed = complete_leads({"I": Signal(one, 1), "II": Signal(two, 1)})
    assert whole["III"].mv.tolist() == [2.0, -1.0]
    assert np.allclose(whole["aVR"].mv + whole["aVL"].mv + whole["aVF"].mv, 0)
    assert whole["aVL"].mv.tolist() == [-0.5, 1.5]
    assert computed == ("III", "aVR", "aVL", "aVF")
    for given_ in (("I", "III"), ("II", "III")):
        again, _ = complete_leads({lead: whole[lead] for lead in given_})
        assert all(np.allclose(again[lead].mv, whole[lead].mv) for lead in whole)


def test_eight_leads_become_twelve_and_the_page_says_so() -> None:
    page = checked(Group(rec.sines(rec.EIGHT, 10, 250), 250))
    assert (page.quality.verdict, page.quality.leads) == (quality.GOOD, 12)
    assert admission.facts(page)["recording"]["computed"] == ["III", "aVR", "aVL", "aVF"]
    twelve = checked(Group(rec.sines(rec.LEADS, 10, 250), 250))
    differ = (np.asarray(page.flat.image) != np.asarray(twelve.flat.image)).any(axis=2)
    assert differ[-100:].any()  # what is written below
    assert differ[:-100].mean() < 0.004


# -------------------------------------------------------------------------------- what a page shows, and what is said


def test_an_ordinary_recording_is_good_without_a_reason() -> None:
    page = checked(Group(BEATS, 250))
    said = admission.facts(page)
    assert (said["verdict"], said["leads"], said["layout"], said["reasons"]) == (
        "good",
        12,
        "3x4+1",
        [],
    )
    assert (said["sheet"]["rotation"], said["grid"]["pixels_per_mm"], said["changed"]) == (
        0,
        8.0,
        False,
    )
    assert said["recording"]["leads"]["V1"] == pytest.approx(2.5, abs=0.01)
    assert said["recording"]["leads"]["II"] == pytest.approx(10, abs=0.01)


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
def test_no_network_turns_or_refuses_a_drawn_rhythm(
    rhythm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
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
        admission.admit(page, straighten=True, force=False)
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
    left, zero = 128 + 500 * column, page.quality.rows[row]
    dark = np.asarray(page.flat.image)[:, left + 120 : left + 490].max(axis=2) < 100
    _, labels = cv2.connectedComponents(dark.astype(np.uint8))
    on_line = labels[round(zero) - 2 : round(zero) + 2]
    return zero - 0.5 - np.flatnonzero((labels == on_line.max()).any(axis=1))


@pytest.mark.parametrize(
    ("tall", "gain"),
    [(1.0, 10), (2.9, 10), (4.4, 5), (-2.9, 10), (-4.4, 5), (8.0, 2.5), (-8.0, 2.5)],
)
def test_tall_waves_are_drawn_whole_at_the_gain_that_is_said(tall: float, gain: float) -> None:
    zeros = dict.fromkeys(rec.LEADS, np.zeros(2500))
    spike = rec.beats(("I",), 10, 250, tall=tall)["I"]
    for lead, row, column in (("aVR", 0, 1), ("V3", 2, 2)):
        page = checked(Group(zeros | {lead: spike}, 250))
        assert page.page.plot is not None
        assert page.page.plot.gain == gain
        found = ink(page, row, column)
        high = found.max() if tall > 0 else found.min()
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


def test_what_does_not_fit_at_any_gain_is_named() -> None:
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


# ----------------------------------------------------------------------------------------------------- facts as JSON


def test_facts_survive_json() -> None:
    import json

    about = reader.read(rec.file(Group(part(*rec.EIGHT, stop=5), 250))).plot
    assert about is not None
    assert plotted_page.from_json(json.loads(json.dumps(about.to_json()))) == about


@pytest.mark.parametrize("about", [{}, {"leads": 3}, [], "x", {"pixels_per_mm": math.nan}])
def test_what_are_no_facts_raises(about: Any) -> None:
    with pytest.raises(ValueError, match=r"facts|scale"):
        plotted_page.from_json(about)


# ---------------------------------------------------------------------------------------------- files beside the checkout


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
def test_files_of_clinics_give_what_is_right(shared: Path, start: str) -> None:
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
    found = pydicom.dcmread(path)
    expected = pydicom.waveforms.multiplex_array(found, 0, as_raw=False).T / 1000  # microvolts
    recording = dicom_waveform.recording(found, "x")
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
