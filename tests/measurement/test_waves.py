"""Median beats, and onset, peak and end of their waves."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.measurement_signal import printed
from calibration.synthetic.signals import synthesize
from pulse_edge.measurement.beats import Channel, channels_of
from pulse_edge.measurement.filters import bridge, smooth, velocity
from pulse_edge.measurement.waves import (
    BEFORE,
    T_TAIL_MS,
    WIDTH,
    MedianBeat,
    central,
    delineate,
    median_beat,
    p_consistency,
    qrs_bounds,
    without_baseline,
)

Array = npt.NDArray[np.float64]


def beat_of(values: Array) -> MedianBeat:
    """A median beat with the same trace in lead I alone."""
    millivolts = np.full((12, WIDTH), np.nan)
    millivolts[0] = values
    counts = np.zeros(12, np.intp)
    counts[0] = 10
    return MedianBeat(millivolts, np.where(counts > 0, 0.002, np.nan), counts)


def wave(centre_ms: float, sigma_ms: float, height: float) -> Array:
    """A Gaussian on the median beat, in ms from the centre of the QRS."""
    time = (np.arange(WIDTH) - BEFORE) * 2.0
    return np.asarray(height * np.exp(-0.5 * ((time - centre_ms) / sigma_ms) ** 2))


def channel(values: Array, lead: str = "II") -> Channel:
    return Channel(lead, values, np.zeros(0, np.intp))


def test_smoothing_weighs_only_what_exists() -> None:
    values = np.full(100, 2.0)
    values[40:60] = np.nan
    smoothed = smooth(values, 20)
    np.testing.assert_allclose(smoothed[:40], 2.0, atol=1e-9)
    assert np.isnan(smoothed[40:60]).all()


def test_velocity_is_per_second() -> None:
    slope = velocity(np.arange(500) / 500 * 3.0, 8)
    np.testing.assert_allclose(slope[50:450], 3.0, atol=1e-6)


def test_only_short_gaps_are_bridged() -> None:
    values = np.arange(40.0)
    values[5:9] = values[20:33] = np.nan
    bridged = bridge(values, 6)
    np.testing.assert_allclose(bridged[5:9], np.arange(5.0, 9.0))
    assert np.isnan(bridged[20:33]).all()


def test_the_middle_of_the_beats_leaves_an_outlier_out() -> None:
    beats = np.ones((5, 3))
    beats[2] = 40.0
    beats[:, 2] = [np.nan, np.nan, np.nan, np.nan, 7.0]
    np.testing.assert_allclose(central(beats), [1.0, 1.0, 7.0])


def test_drift_between_two_beats_is_taken_off() -> None:
    drift = np.linspace(0, 3, 2000)
    level = without_baseline(drift, np.arange(100, 2000, 300))
    np.testing.assert_allclose(level[100:1890], 0, atol=1e-3)


def test_a_premature_beat_on_a_t_wave_does_not_tilt_the_baseline() -> None:
    trace = np.zeros(4000)
    trace[1480:1520] += 0.5  # the level before the premature beat at 1530
    beats = np.array([500, 1000, 1530, 2000, 2500, 3000])
    members = np.array([True, True, False, True, True, True])
    beat = median_beat((channel(trace),), beats, members, -20)
    np.testing.assert_allclose(beat.millivolts[1, BEFORE - 100 : BEFORE + 200], 0, atol=1e-9)


def test_qrs_bounds_enclose_the_qrs() -> None:
    onset, end = qrs_bounds(beat_of(wave(0, 16, 1.0)))
    # The slope of a Gaussian has 3 % of its peak at 3.2 sigma; smoothing by 7 ms makes 17.5 ms of
    # 16 ms.
    assert abs((onset - BEFORE) * 2 + 3.2 * 17.5) <= 4
    assert abs((end - BEFORE) * 2 - 3.2 * 17.5) <= 4


def test_t_ends_where_the_tangent_meets_the_baseline_and_its_tail() -> None:
    values = wave(0, 14, 1.0) + wave(300, 40, 0.4)
    waves = delineate(beat_of(values), 500.0, False)
    assert waves.t_peak is not None
    assert waves.t_end is not None
    assert abs((waves.t_peak - BEFORE) * 2 - 300) <= 4
    # A Gaussian's tangent at its steepest point meets zero two sigma after its centre; smoothing
    # widens sigma by 3 %.
    assert abs((waves.t_end - BEFORE) * 2 - (300 + 2 * 41.2 + T_TAIL_MS)) <= 4
    assert waves.p_onset is None
    assert "no P wave" in waves.p_reason


def test_p_begins_and_ends_where_it_leaves_and_meets_the_baseline() -> None:
    values = wave(0, 14, 1.0) + wave(300, 40, 0.4) + wave(-160, 20, 0.12)
    waves = delineate(beat_of(values), 500.0, True)
    assert waves.p_onset is not None
    assert waves.p_peak is not None
    assert waves.p_end is not None
    assert abs((waves.p_peak - BEFORE) * 2 + 160) <= 4
    assert (
        abs((waves.p_onset - BEFORE) * 2 - (-160 - 2.3 * 21.5)) <= 8
    )  # 7 % of a Gaussian's height at 2.3 sigma
    assert abs((waves.p_end - BEFORE) * 2 - (-160 + 2.3 * 21.5)) <= 8


def test_a_beat_without_t_says_so() -> None:
    waves = delineate(beat_of(wave(0, 14, 1.0)), 500.0, False)
    assert waves.t_end is None
    assert waves.t_reason == "no lead shows a T wave that stands out"


def test_p_that_runs_into_the_t_before_it_is_not_delineated() -> None:
    values = wave(0, 14, 1.0) + wave(240, 40, 0.4) + wave(-120, 20, 0.1) + wave(-120 - 30, 40, 0.4)
    waves = delineate(beat_of(values), 195.0, True)
    assert waves.p_onset is None
    assert "overlap" in waves.p_reason


def test_p_waves_recur_and_fibrillation_does_not() -> None:
    rng = np.random.default_rng(0)
    beats = np.arange(600, 5000, 430)
    noise = rng.normal(0, 0.02, 5200)
    sinus = noise.copy()
    for beat in beats:
        sinus[beat - 90 : beat - 60] += 0.1 * np.hanning(30)
    fibrillation = noise + 0.1 * np.sin(2 * np.pi * np.cumsum(6 + rng.normal(0, 8, 5200)) / 500)
    shares = [
        p_consistency((channel(trace),), beats, -20, -(10**4))[0] for trace in (sinus, fibrillation)
    ]
    assert shares[0] > 0.5
    assert abs(shares[1]) < 0.15


def test_one_beat_tells_no_consistency() -> None:
    assert p_consistency((channel(np.zeros(2000)),), np.array([1000]), -20, -(10**4)) == (0.0, 0)


@pytest.mark.parametrize("layout", ["12x1", "3x4+1"])
def test_leads_of_other_columns_lie_over_one_another(layout: str) -> None:
    record = synthesize(5, [])
    signal = printed(record.signal.astype(np.float64), layout, None, 0)
    channels = channels_of(signal)
    beats = np.array([round(500 * beat.peak) for beat in record.beats if 0.6 < beat.onset < 9.2])
    beat = median_beat(channels, beats, np.ones(len(beats), bool), -50)
    assert beat.present.all()
    onset, end = qrs_bounds(beat)
    width = record.measurements.qrs
    assert width is not None
    assert (
        width - 8 <= (end - onset) * 2 <= width + 28
    )  # the bumps' tails below 4 % of their height count as QRS here
