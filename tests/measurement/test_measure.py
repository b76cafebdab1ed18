"""Measurements of whole signals: values, refusals, doubts, and bounds on annotated recordings."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.measurement_signal import printed
from calibration.measurements.agreement import MARKS, agreements, presence
from calibration.measurements.pages import whole
from calibration.measurements.recordings import recordings
from calibration.measurements.results import PageResult, of_signal
from calibration.synthetic.signals import synthesize
from pulse_edge.measurement.measure import SignalMeasurements, measure_signal
from pulse_edge.measurement.sheet import NAMES
from pulse_edge.measurement.signal import LEADS, TracedSignal


def page(
    seed: int, findings: list[str], layout: str = "12x1", decibels: float | None = None
) -> TracedSignal:
    return printed(synthesize(seed, findings).signal.astype(np.float64), layout, decibels, seed)


def without(signal: TracedSignal, *leads: str) -> TracedSignal:
    """The signal with leads that were not traced."""
    millivolts = signal.millivolts.copy()
    for lead in leads:
        millivolts[LEADS.index(lead)] = np.nan
    return replace(signal, millivolts=millivolts)


def value(sheet: SignalMeasurements, key: str) -> float:
    measured = sheet[key].value
    assert measured is not None, f"{key}: {sheet[key].reason}"
    return measured


def empty(samples: int = 5000) -> TracedSignal:
    return TracedSignal(
        np.full((12, samples), np.nan, np.float32), (0.0,) * 12, 25.0, 10.0, True, True, ""
    )


@pytest.mark.parametrize("layout", ["12x1", "6x2", "3x4", "3x4+1"])
@pytest.mark.parametrize("findings", [[], ["LBBB"], ["I-AVB"], ["HYP"]])
def test_measurements_agree_with_the_synthetic_truth(layout: str, findings: list[str]) -> None:
    truth = synthesize(4, findings).measurements
    sheet = measure_signal(page(4, findings, layout, 18))
    assert truth.rate is not None
    assert truth.pr is not None
    assert truth.qrs is not None
    assert truth.qt is not None
    assert truth.axis is not None
    assert abs(value(sheet, "rate") - truth.rate) < 1
    assert abs(value(sheet, "pr") - truth.pr) <= 30
    assert (
        -6 <= value(sheet, "qrs") - truth.qrs <= 34
    )  # the Gaussians' tails below 4 % of the height count as QRS
    assert (
        -6 <= value(sheet, "qt") - truth.qt <= 46
    )  # the same at the onset, and the tail of T after the tangent
    assert abs(value(sheet, "qrs_axis") - truth.axis) < 10
    assert value(sheet, "p_present") == 1.0
    assert value(sheet, "atrial_fibrillation") == 0.0


def test_every_key_has_a_value_or_a_reason() -> None:
    signals = [
        page(0, []),
        page(1, ["AF"], "3x4+1", 18),
        empty(),
        empty(0),
        replace(page(0, []), strips=()),
    ]
    signals.append(replace(empty(), millivolts=np.zeros((12, 5000), np.float32)))
    for signal in signals:
        sheet = measure_signal(signal)
        assert [m.key for m in sheet.measurements] == list(NAMES)
        for measurement in sheet.measurements:
            assert (measurement.value is None) == bool(measurement.reason), measurement
            assert measurement.name
            assert measurement.value is None or np.isfinite(measurement.value)


def test_an_unknown_key_is_an_error() -> None:
    with pytest.raises(KeyError, match="heart_rate"):
        measure_signal(empty())["heart_rate"]


def test_fibrillation_is_irregular_and_without_p_waves() -> None:
    sheet = measure_signal(page(2, ["AF"], "3x4+1", 18))
    assert value(sheet, "atrial_fibrillation") == 1.0
    assert value(sheet, "p_present") == 0.0
    assert value(sheet, "regular") == 0.0
    for key in ("pr", "p_duration", "atrial_rate", "supraventricular_ectopic"):
        assert sheet[key].value is None
        assert sheet[key].reason


def test_sinus_rhythm_is_regular_and_its_atrial_rate_is_the_ventricular() -> None:
    sheet = measure_signal(page(4, []))
    assert value(sheet, "regular") == 1.0
    assert value(sheet, "atrial_rate") == value(sheet, "rate")
    assert value(sheet, "pauses") == 0
    assert value(sheet, "ectopic") == 0


def test_premature_beats_are_counted_by_kind() -> None:
    sheet = measure_signal(page(1, ["PAC"]))
    kinds = [beat.kind for beat in synthesize(1, ["PAC"]).beats]
    assert value(sheet, "supraventricular_ectopic") == kinds.count("A")
    assert value(sheet, "ventricular_ectopic") == 0
    assert [beat.kind for beat in sheet.beats].count("supraventricular") == kinds.count("A")


def test_a_pause_of_two_seconds_is_counted() -> None:
    signal = page(4, [])
    period = round(float(measure_signal(signal)["rr_mean"].value or 0) / 2)
    beat = measure_signal(signal).beats[3].seconds
    silent = signal.millivolts.copy()
    start = round(beat * 500) + period // 2
    length = min(3 * period, 5000 - start)
    silent[:, start : start + length] = silent[:, [start]]  # a trace that goes on level
    sheet = measure_signal(replace(signal, millivolts=silent))
    assert value(sheet, "pauses") == 1
    assert value(sheet, "rr_longest") > 2000


def test_flat_trace_gives_asystole_and_no_rate() -> None:
    sheet = measure_signal(replace(empty(), millivolts=np.zeros((12, 5000), np.float32)))
    assert value(sheet, "asystole") == 1.0
    assert sheet["rate"].value is None
    assert "asystole" in sheet["rate"].reason
    assert all(value(sheet, f"flat.{lead}") == 1.0 for lead in LEADS)


def test_noise_is_neither_asystole_nor_a_rate() -> None:
    noise = np.random.default_rng(0).normal(0, 0.2, (12, 5000)).astype(np.float32)
    sheet = measure_signal(replace(empty(), millivolts=noise))
    for key in ("asystole", "rate", "qrs", "atrial_fibrillation"):
        assert sheet[key].value is None
        assert sheet[key].reason == "no beats stand out from the noise"


def test_deflections_that_do_not_repeat_are_no_beats() -> None:
    rng = np.random.default_rng(3)
    trace = np.zeros((12, 5000))
    for centre in range(300, 5000, 400):
        for lead in range(12):
            for _ in range(3):
                at, sigma = centre + rng.integers(-25, 25), rng.uniform(3, 9)
                trace[lead] += rng.normal(0, 0.8) * np.exp(
                    -0.5 * ((np.arange(5000) - at) / sigma) ** 2
                )
    sheet = measure_signal(replace(empty(), millivolts=trace.astype(np.float32)))
    assert sheet["rate"].value is None
    assert sheet["asystole"].value is None
    assert "do not repeat" in sheet["rate"].reason


def test_too_few_intervals_give_no_rate_and_yet_a_qrs() -> None:
    signal = page(4, [])
    short = signal.millivolts.copy()
    short[:, 900:] = np.nan
    sheet = measure_signal(replace(signal, millivolts=short))
    assert sheet["rate"].value is None
    assert "RR intervals are too few" in sheet["rate"].reason
    assert value(sheet, "qrs") > 60


def test_missing_leads_are_named_in_the_reason() -> None:
    sheet = measure_signal(without(page(4, []), "V1", "aVL"))
    assert sheet["sokolow_lyon"].reason == "V1 is not traced over a whole beat"
    assert sheet["cornell"].reason == "aVL is not traced over a whole beat"
    assert sheet["st_j.V1"].reason == "V1 is not traced over a whole beat"
    assert sheet["flat.V1"].reason == "V1 is not traced"
    assert sheet["cornell_product"].value is None
    assert value(sheet, "rate") > 30


def test_a_trace_that_followed_something_else_is_left_out() -> None:
    signal = page(4, [], "3x4+1", 18)
    print_line = signal.millivolts.copy()
    row = np.flatnonzero(np.isfinite(print_line[11]))
    middles = [round(beat.seconds * 500) for beat in measure_signal(signal).beats]
    print_line[11, row] = 0.0
    for first, second in itertools.pairwise(middles):
        between = (first + second) // 2
        if row[0] + 20 < between < row[-1] - 20:
            print_line[11, between - 15 : between + 15] = 1.5
    sheet = measure_signal(replace(signal, millivolts=print_line))
    assert sheet["r.V6"].reason == "the trace of V6 does not show the beats of the other leads"
    assert "V6" not in sheet["qrs"].leads
    assert abs(value(sheet, "rate") - value(measure_signal(signal), "rate")) < 1


def test_a_third_of_the_traces_astray_is_a_failed_tracing() -> None:
    signal = page(4, [])
    middles = [round(beat.seconds * 500) for beat in measure_signal(signal).beats]
    other = signal.millivolts.copy()
    other[:4] = 0.0
    for first, second in itertools.pairwise(middles):
        other[:4, (first + second) // 2 - 15 : (first + second) // 2 + 15] = 0.3
    reason = measure_signal(replace(signal, millivolts=other))["rate"].reason
    assert reason.startswith("I, II, III, aVR of 12 leads do not show the beats of the others")
    flat = signal.millivolts.copy()
    flat[:4] = 0.0
    sheet = measure_signal(replace(signal, millivolts=flat))
    assert value(sheet, "rate") > 30
    assert value(sheet, "flat.I") == 1.0


def test_one_limb_lead_gives_no_axis() -> None:
    sheet = measure_signal(without(page(4, []), "II", "III", "aVR", "aVL", "aVF"))
    assert sheet["qrs_axis"].value is None
    assert "frontal plane" in sheet["qrs_axis"].reason


def test_two_limb_leads_give_the_axis_of_all() -> None:
    whole = measure_signal(page(4, []))
    part = measure_signal(without(page(4, []), "III", "aVR", "aVL", "aVF"))
    assert part["qrs_axis"].leads == ("I", "II")
    assert abs(value(whole, "qrs_axis") - value(part, "qrs_axis")) < 2


def test_assumed_speed_and_gain_are_doubts_of_what_rests_on_them() -> None:
    sheet = measure_signal(replace(page(4, []), speed_certain=False, gain_certain=False))
    assert sheet["pr"].doubt == "the paper speed of 25 mm/s is assumed"
    assert sheet["r.V5"].doubt == "the gain of 10 mm/mV is assumed"
    assert sheet["cornell_product"].doubt == f"{sheet['pr'].doubt}; {sheet['r.V5'].doubt}"
    assert sheet["qrs_axis"].doubt == ""
    assert sheet["p_present"].doubt == ""


def test_leads_obey_einthoven_and_goldberger_until_one_is_misplaced() -> None:
    signal = page(4, [])
    sheet = measure_signal(signal)
    assert value(sheet, "einthoven") < 0.002
    assert value(sheet, "goldberger") < 0.002
    swapped = signal.millivolts.copy()
    swapped[[0, 1]] = swapped[[1, 0]]
    assert value(measure_signal(replace(signal, millivolts=swapped)), "einthoven") > 0.1


def test_laws_need_leads_of_the_same_time() -> None:
    signal = page(4, [])
    apart = signal.millivolts.copy()
    apart[0, :2500] = apart[1, 2500:] = np.nan
    assert measure_signal(replace(signal, millivolts=apart))["einthoven"].reason == (
        "the three leads are not traced at the same time"
    )


def test_levels_and_voltages_are_those_of_the_synthetic_beat() -> None:
    record = synthesize(4, ["STE"], noise=0)
    sheet = measure_signal(printed(record.signal.astype(np.float64), "12x1", None, 0))
    assert record.measurements.st is not None
    for lead, level in zip(LEADS, record.measurements.st, strict=True):
        assert (
            abs(value(sheet, f"st_j60.{lead}") - level) < 0.08
        )  # truth is 40 ms after the J point
    high = measure_signal(page(4, ["HYP"]))
    assert value(high, "sokolow_lyon") > 3.5
    assert value(high, "sokolow_lyon") == pytest.approx(
        -value(high, "s.V1") + max(value(high, "r.V5"), value(high, "r.V6")), abs=1e-6
    )


def test_wave_points_of_the_leads_are_in_order() -> None:
    sheet = measure_signal(page(4, [], "3x4+1", 18))
    assert [lead.lead for lead in sheet.leads] == list(LEADS)
    for lead in sheet.leads:
        points = (
            lead.p_onset,
            lead.p_peak,
            lead.p_end,
            lead.qrs_onset,
            lead.qrs_end,
            lead.t_peak,
            lead.t_end,
        )
        times = [point for point in points if point is not None]
        assert len(times) == 7
        assert times == sorted(times)
        assert lead.beats >= 1


def test_uncertainty_is_larger_on_columns_than_on_whole_leads() -> None:
    whole, columns = measure_signal(page(4, [])), measure_signal(page(4, [], "3x4"))
    for key in ("pr", "qrs", "qt", "qrs_axis", "st_j.V2"):
        assert (columns[key].uncertainty or 0) > (whole[key].uncertainty or 0) > 0


def test_corrected_qt_follows_the_mean_interval() -> None:
    sheet = measure_signal(page(4, []))
    seconds = value(sheet, "rr_mean") / 1000
    assert value(sheet, "qtc_bazett") == pytest.approx(value(sheet, "qt") / seconds**0.5)
    assert value(sheet, "qtc_fridericia") == pytest.approx(value(sheet, "qt") / seconds ** (1 / 3))


@pytest.fixture(scope="module")
def marked(shared: Path) -> dict[str, list[PageResult]]:
    """Recordings with marks, measured as recorded and as printed pages with noise."""
    folder = shared / "ecg"
    if not (folder / "ludb_dev.npz").is_file():
        pytest.skip("needs the annotated recordings of ecg/ludb_dev.npz in the shared folder")
    every = list(recordings(folder, ["ludb_dev"]))

    def results(layout: str, decibels: float | None) -> list[PageResult]:
        return [
            of_signal(whole(one), printed(one.millivolts.astype(float), layout, decibels, n))
            for n, one in enumerate(every)
        ]

    return {"recorded": results("12x1", None), "page": results("3x4+1", 18)}


@pytest.mark.parametrize("kind", ["recorded", "page"])
def test_annotated_recordings_are_measured_within_bounds(
    marked: dict[str, list[PageResult]], kind: str
) -> None:
    against_marks = {a.name: a for a in agreements(marked[kind]) if a.truth == MARKS}
    errors = {
        name: np.abs([pair.difference for pair in one.pairs]) for name, one in against_marks.items()
    }
    assert np.median(errors["rate"]) <= 1
    assert np.mean(errors["rate"] <= 5) >= 0.98
    for name, median in (("pr", 10), ("qrs", 7), ("qt", 8)):
        assert against_marks[name].measured >= 0.9 * against_marks[name].truths
        assert np.median(errors[name]) <= median
        assert against_marks[name].standard is not None
        assert against_marks[name].standard.met
    assert np.median(errors["qrs_axis"]) <= 4
    assert np.median(errors["st_j"]) <= 20
    waves = presence(marked[kind], MARKS)
    assert waves is not None
    assert (waves.missed.value or 0) <= 0.05
    assert waves.false.value == 0
