"""Synthetic signals: physics, labels, and measurements taken back from what was made."""

from __future__ import annotations

import hashlib
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

from calibration.synthetic import FINDINGS, LEADS, Recording, page_at, recording_at, synthesize
from calibration.synthetic import beats as b
from calibration.synthetic import signals as s
from calibration.synthetic.findings import conflict, labels_of
from calibration.synthetic.recording import HZ

SEED = 20
RECORDINGS = [recording_at(SEED, i) for i in range(300)]


def row(recording: Recording, name: str) -> np.ndarray:
    return recording.signal[LEADS.index(name)].astype(np.float64)


def hearts(*findings: str) -> list[s.Heart]:
    return [s._heart(np.random.default_rng(seed), frozenset(findings)) for seed in range(12)]


def digest(index: int) -> str:
    page = page_at(SEED, index)
    return hashlib.sha256(page.recording.signal.tobytes() + page.image.tobytes()).hexdigest()


def test_the_limb_leads_obey_einthoven_and_goldberger_noise_included() -> None:
    for recording in RECORDINGS[:40]:
        i, ii = row(recording, "I"), row(recording, "II")
        assert np.abs(row(recording, "III") - (ii - i)).max() < 1e-6
        assert np.abs(row(recording, "aVR") + (i + ii) / 2).max() < 1e-6
        assert np.abs(row(recording, "aVL") - (i - ii / 2)).max() < 1e-6
        assert np.abs(row(recording, "aVF") - (ii - i / 2)).max() < 1e-6


def test_signals_are_ten_seconds_of_twelve_leads_in_millivolts() -> None:
    for recording in RECORDINGS[:40]:
        assert recording.signal.shape == (12, 5000)
        assert recording.signal.dtype == np.float32
        assert 0.3 < np.ptp(recording.signal, axis=1).max() < 15


def test_the_same_seed_gives_the_same_bytes_in_any_process() -> None:
    here = [digest(i) for i in range(4)]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        assert list(pool.map(digest, range(4))) == here
    assert len(set(here)) == 4


def test_labels_never_contradict_each_other() -> None:
    for recording in RECORDINGS:
        assert recording.findings is not None
        assert recording.labels == labels_of(recording.findings)
        names = sorted(recording.findings)
        assert not [
            pair for i, one in enumerate(names) for pair in names[i + 1 :] if conflict(one, pair)
        ]
        for labels in (recording.labels.cpsc, recording.labels.ptbxl):
            assert labels is not None
            assert "NORM" not in labels or labels == ("NORM",)
        assert not {"AF", "1dAVb"} <= set(recording.labels.code15 or ())
        assert not {"SB", "ST"} <= set(recording.labels.code15 or ())


def test_every_finding_occurs_and_so_does_every_label() -> None:
    counts_ = set().union(*(recording.findings or set() for recording in RECORDINGS))
    assert counts_ == set(FINDINGS)
    assert {label for r in RECORDINGS for label in r.labels.cpsc or ()} >= {"NORM", "STD", "STE"}
    assert {label for r in RECORDINGS for label in r.labels.ptbxl or ()} == {
        "NORM",
        "MI",
        "STTC",
        "CD",
        "HYP",
    }


def test_measurements_fit_the_labels() -> None:
    for recording in RECORDINGS:
        m, counts_ = recording.measurements, recording.findings or frozenset()
        assert m.rate is not None
        assert m.qrs is not None
        assert (m.pr is None) == ("AF" in counts_)
        assert m.pr is None or (m.pr > 200) == ("I-AVB" in counts_)
        assert (m.qrs >= 120) == bool(counts_ & {"LBBB", "RBBB"})
        if "AF" not in counts_:
            assert (m.rate < 60) == ("SB" in counts_)
            assert (m.rate > 100) == ("ST" in counts_)
        assert m.axis is not None
        assert "MI" in counts_ or (m.axis < -45) == ("LAFB" in counts_)


def test_st_levels_fit_the_labels() -> None:
    for recording in RECORDINGS:
        levels, counts_ = (
            np.sort(recording.measurements.st or ()),
            recording.findings or frozenset(),
        )
        if "STE" in counts_:
            assert levels[-2] >= 0.1
        elif "STD" in counts_:
            assert levels[1] <= -0.1
        elif "LBBB" not in counts_:
            assert np.abs(levels).max() < 0.12


def test_premature_beats_are_there_early_enough_for_a_short_page_and_only_where_labelled() -> None:
    for recording in RECORDINGS:
        for kind, name in (("A", "PAC"), ("V", "PVC")):
            times = [beat.onset for beat in recording.beats if beat.kind == kind]
            assert bool(times) == (name in (recording.findings or ()))
            assert not times or times[0] < 5
    assert all(beat.p_onset is None for r in RECORDINGS for beat in r.beats if beat.kind == "V")


def test_hypertrophy_is_told_by_voltage() -> None:
    for heart in hearts("HYP"):
        assert b.sokolow(heart.shapes["N"].qrs) > 3.5
    for heart in hearts():
        assert b.sokolow(heart.shapes["N"].qrs) < 3.5


def test_the_rate_measured_back_from_r_peaks_is_the_label() -> None:
    for findings in ((), ("AF",), ("SB",), ("ST",), ("LBBB",), ("I-AVB", "RBBB")):
        recording = synthesize(3, findings, noise=0)
        steep = np.abs(np.diff(recording.signal[6:], axis=1)).sum(axis=0)
        smooth = np.convolve(steep, np.ones(60), "same")
        above = np.flatnonzero(smooth > 0.4 * smooth.max())
        starts = above[np.flatnonzero(np.diff(above, prepend=-1000) > 60)]
        rate = 60 * HZ * (len(starts) - 1) / (starts[-1] - starts[0])
        assert rate == pytest.approx(recording.measurements.rate, rel=0.03)


@pytest.mark.parametrize("findings", [(), ("LBBB",), ("RBBB",), ("I-AVB",), ("MI",), ("STE",)])
def test_pr_and_qrs_measured_back_by_threshold_are_the_labels(findings: tuple[str, ...]) -> None:
    for heart in hearts(*findings):
        shape = heart.shapes["N"]
        qrs = b.GRID_MS[np.abs(shape.qrs).max(axis=0) > 0.02]
        p = b.GRID_MS[np.abs(shape.p).max(axis=0) > 0.01]
        assert qrs[0] == pytest.approx(0, abs=10)
        assert qrs[-1] == pytest.approx(heart.width, abs=12)
        assert p[0] == pytest.approx(-heart.pr, abs=12)


def test_qt_measured_back_by_the_tangent_is_the_label() -> None:
    for heart in hearts():
        t = heart.shapes["N"].repolarization
        t = t[np.argmax(t.max(axis=1))]
        top = int(np.argmax(t))
        slope = np.gradient(t, b.GRID_MS)
        steepest = top + int(np.argmin(slope[top:]))
        assert b.GRID_MS[steepest] - t[steepest] / slope[steepest] == pytest.approx(heart.qt, abs=4)


def test_axis_and_st_measured_back_from_the_strip_are_the_labels() -> None:
    for seed in range(12):
        recording = synthesize(seed, (), noise=0)
        m, beat = recording.measurements, recording.beats[2]
        onset, end = round(beat.onset * HZ), round(beat.end * HZ)
        i, avf = (float(row(recording, name)[onset:end].sum()) for name in ("I", "aVF"))
        assert np.degrees(np.arctan2(2 / np.sqrt(3) * avf, i)) == pytest.approx(m.axis, abs=8)
        assert recording.signal[:, end + 20] == pytest.approx(m.st, abs=0.02)


def test_beats_lie_where_the_record_says() -> None:
    for recording in RECORDINGS[:60]:
        assert recording.clean is not None
        if "AF" in (recording.findings or ()):
            continue
        for beat in recording.beats[1:-1]:
            at = round(beat.onset * HZ)
            complex_ = np.abs(np.diff(recording.clean[:, at : round(beat.end * HZ)], axis=1)).max()
            before = np.abs(np.diff(recording.clean[:, at - 8 : at], axis=1)).max()
            assert complex_ > 0.02
            assert before < complex_


def test_contradictory_and_unknown_findings_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="AF and I-AVB"):
        synthesize(0, ("AF", "I-AVB"))
    with pytest.raises(ValueError, match="flutter"):
        synthesize(0, ("flutter",))


def test_a_combination_of_many_findings_still_makes_a_record() -> None:
    recording = synthesize(5, ("I-AVB", "RBBB", "PAC", "PVC", "MI", "STE", "SB"))
    assert recording.labels.cpsc == ("I-AVB", "RBBB", "PAC", "PVC", "STE")
    assert recording.labels.ptbxl == ("MI", "CD")
