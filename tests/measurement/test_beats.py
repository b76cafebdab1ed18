"""R peaks, kinds of beats, spikes and what is no beat."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.measurement_signal import printed
from calibration.synthetic.recording import Recording
from calibration.synthetic.signals import synthesize
from pulse_edge.measurement.alignment import aligned_beats, windows
from pulse_edge.measurement.beats import Detection, channels_of, detect, spikes_in, without_spikes
from pulse_edge.measurement.rhythm import VENTRICULAR, paced_beats, rhythm_of
from pulse_edge.measurement.signal import LEADS, TracedSignal

SIZE = 5000


def centres(record: Recording) -> npt.NDArray[np.float64]:
    """Middles of the QRS complexes in samples, those cut off by an end left out."""
    middles = np.array([(beat.onset + beat.end) / 2 for beat in record.beats]) * 500
    return middles[(middles > 60) & (middles < SIZE - 60)]


def detected(signal: TracedSignal) -> Detection:
    return detect(channels_of(signal), signal.millivolts.shape[1])


def signal_of(millivolts: npt.NDArray[np.float64]) -> TracedSignal:
    return TracedSignal(millivolts.astype(np.float32), (1.0,) * 12, 25.0, 10.0, True, True, "12x1")


@pytest.mark.parametrize("layout", ["12x1", "6x2", "3x4", "3x4+1", "3x4+3"])
@pytest.mark.parametrize("findings", [[], ["AF"], ["LBBB"], ["ST"], ["PVC"]])
def test_every_beat_is_detected_once_in_every_layout(layout: str, findings: list[str]) -> None:
    record = synthesize(3, findings)
    peaks = detected(printed(record.signal.astype(np.float64), layout, 18, 0)).samples
    inside = peaks[(peaks > 60) & (peaks < SIZE - 60)]
    truth = centres(record)
    assert len(inside) == len(truth)
    assert (
        np.abs(inside - truth).max() < 35
    )  # 70 ms: the centre of the energy is not the middle of a broad QRS


@pytest.mark.parametrize("seed", [1, 2, 6])
@pytest.mark.parametrize("layout", ["12x1", "3x4+1"])
def test_steep_t_waves_over_an_infarct_are_no_beats(seed: int, layout: str) -> None:
    record = synthesize(seed, ["STE"])
    peaks = detected(printed(record.signal.astype(np.float64), layout, 18, seed)).samples
    inside = peaks[(peaks > 250) & (peaks < SIZE - 250)]
    assert all(np.abs(centres(record) - peak).min() < 50 for peak in inside)


def test_premature_ventricular_beats_are_named() -> None:
    record = synthesize(0, ["PVC"])
    detection = detected(printed(record.signal.astype(np.float64), "12x1", None, 0))
    alignment = aligned_beats(detection.channels, detection.samples)
    rhythm = rhythm_of(detection, alignment, alignment.beats)
    early = alignment.beats[[kind == VENTRICULAR for kind in rhythm.kinds]] / 500
    truth = [beat.peak for beat in record.beats if beat.kind == "V" and beat.end < 9.8]
    assert all(np.abs(early - peak).min() < 0.08 for peak in truth)


def test_flat_trace_is_asystole() -> None:
    noise = np.random.default_rng(0).normal(0, 0.005, (12, SIZE))
    detection = detected(signal_of(noise))
    assert detection.asystole
    assert not len(detection.samples)
    assert "asystole" in detection.reason


@pytest.mark.parametrize("height", [0.05, 0.2])
def test_noise_has_no_beats_and_is_no_asystole(height: float) -> None:
    detection = detected(signal_of(np.random.default_rng(1).normal(0, height, (12, SIZE))))
    assert not detection.asystole
    assert not len(detection.samples)
    assert detection.reason == "no beats stand out from the noise"


def test_ventricular_fibrillation_has_no_beats() -> None:
    time = np.arange(SIZE) / 500
    phases = np.random.default_rng(2).uniform(0, 6, 12)
    waves = np.stack(
        [0.4 * np.sin(2 * np.pi * (4.5 + 0.5 * np.sin(time)) * time + phase) for phase in phases]
    )
    assert detected(signal_of(waves)).reason == "no beats stand out from the noise"


def test_two_beats_in_ten_seconds_are_no_asystole() -> None:
    trace = np.zeros((12, SIZE))
    for centre in (1000, 4200):
        trace += np.exp(-0.5 * ((np.arange(SIZE) - centre) / 8) ** 2)
    detection = detected(signal_of(trace + np.random.default_rng(3).normal(0, 0.01, trace.shape)))
    assert not detection.asystole
    np.testing.assert_allclose(detection.samples, [1000, 4200], atol=6)


def test_a_lead_traced_for_half_a_second_is_left_out() -> None:
    trace = np.full((12, SIZE), np.nan)
    trace[0, 1000:1250] = 0.0
    trace[1, 1000:1400] = 0.0
    assert [channel.lead for channel in channels_of(signal_of(trace))] == ["II"]


def test_nothing_traced_is_refused_with_its_reason() -> None:
    assert detected(signal_of(np.full((12, SIZE), np.nan))).reason == "no lead is traced for 0.6 s"


def test_spikes_are_found_and_taken_out() -> None:
    time = np.arange(2000)
    trace = np.exp(-0.5 * ((time - 1000) / 10.0) ** 2)
    spiked = trace.copy()
    spiked[[940, 941]] += 2.0
    spikes = spikes_in(spiked)
    assert len(spikes) == 1
    assert abs(int(spikes[0]) - 940) <= 1
    np.testing.assert_allclose(without_spikes(spiked, spikes), trace, atol=0.02)
    assert not len(spikes_in(trace))


def test_pacing_needs_spikes_in_three_leads() -> None:
    record = synthesize(0, [])
    signal = record.signal.astype(np.float64)
    onsets = [round(beat.onset * 500) for beat in record.beats if 0.4 < beat.onset < 9.6]
    shares = []
    for leads in (1, 12):
        spiked = signal.copy()
        for onset in onsets:
            spiked[:leads, onset - 8 : onset - 6] += 1.5
        detection = detected(signal_of(spiked))
        beats = aligned_beats(detection.channels, detection.samples).beats
        shares.append(
            paced_beats(detection.channels, beats, round(float(np.median(onsets[1] - beats[1]))))
        )
    assert shares[0] == 0.0
    assert shares[1] >= 0.8


def test_an_interval_across_a_gap_does_not_count() -> None:
    record = synthesize(0, [])
    signal = printed(record.signal.astype(np.float64), "12x1", None, 0)
    broken = signal.millivolts.copy()
    broken[:, 2000:2400] = np.nan
    detection = detected(replace(signal, millivolts=broken))
    rhythm = rhythm_of(
        detection, aligned_beats(detection.channels, detection.samples), detection.samples
    )
    assert np.isnan(rhythm.intervals).sum() == 1
    assert rhythm.valid.size == len(detection.samples) - 2


def test_windows_beyond_the_ends_are_empty_and_never_wrap() -> None:
    values = np.arange(10.0)
    cut = windows(values, np.array([-1, 1, 9]), 2, 2)
    np.testing.assert_array_equal(cut[0], [np.nan, np.nan, np.nan, 0])
    np.testing.assert_array_equal(cut[1], [np.nan, 0, 1, 2])
    np.testing.assert_array_equal(cut[2], [7, 8, 9, np.nan])


def test_columns_without_a_strip_are_groups_of_their_own() -> None:
    signal = synthesize(0, []).signal.astype(np.float64)
    for layout, groups in (("3x4", 4), ("3x4+1", 1), ("12x1", 1)):
        detection = detected(printed(signal, layout, None, 0))
        assert (
            len(set(aligned_beats(detection.channels, detection.samples).group.tolist())) == groups
        )


def test_leads_are_named_as_in_the_signal() -> None:
    detection = detected(printed(synthesize(0, []).signal.astype(np.float64), "3x4+1", None, 0))
    assert [channel.lead for channel in detection.channels] == [*LEADS, "II"]
    assert [channel.strip for channel in detection.channels] == [False] * 12 + [True]
