"""DICOM recordings of every cart are read, or refused for the true reason."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import recordings as rec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recordings import Group
from waveforms import BEATS, checked, part, read, reasons, refused, same

from pulse_edge.errors import PageRefused, ScanError
from pulse_edge.page import admission, dicom_waveform, quality, reader
from pulse_edge.page.dicom_waveform import lead_named
from pulse_edge.page.recording import Signal, complete_leads

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("pydicom.waveforms")

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("style", rec.NAMES)
def test_leads_are_recognised_in_any_style_of_name(style: str) -> None:
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


def test_lead_code_takes_precedence_over_label() -> None:
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


def test_missing_sensitivity_is_named() -> None:
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


def test_unsigned_twelve_bit_samples_are_not_sign_extended() -> None:
    signals = rec.sines(rec.LEADS, 5, 250)
    same(read(Group(signals, 250, bits=12, baseline=-2048 * 2.5)), signals)


def test_samples_with_more_bits_than_stated_are_refused() -> None:
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


def test_columns_in_another_order_of_time_show_their_own_seconds() -> None:
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
def test_a_rhythm_is_plotted_and_an_averaged_beat_is_not(
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


def test_a_derived_rhythm_is_plotted_with_a_remark() -> None:
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
