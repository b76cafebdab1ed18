"""Recorded signals: small WFDB files written here, and the real ones where they are at hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from calibration.synthetic import LEADS, PageStyle, draw, synthesize
from calibration.synthetic.real import open_packed, ptbxl_labels, read_wfdb, resample, snomed_labels
from calibration.synthetic.wfdb import RecordingError

SYNTHETIC = synthesize(2, (), noise=1.0)


def pack_212(flat: np.ndarray) -> bytes:
    first, second = (flat.reshape(-1, 2).T & 0xFFF).astype(np.int64)
    triples = np.stack([first & 0xFF, (first >> 8) | ((second >> 8) << 4), second & 0xFF], axis=1)
    return triples.astype(np.uint8).tobytes()


def write(
    folder: Path,
    storage: str = "16",
    gain: float = 400.0,
    leads: tuple[str, ...] = LEADS,
    skip: int = 0,
) -> Path:
    stored = np.round(SYNTHETIC.signal[: len(leads)].astype(np.float64) * 400).astype(np.int64)
    flat = stored.T.reshape(-1)
    body = pack_212(flat) if storage == "212" else flat.astype("<i2").tobytes()
    (folder / "r.dat").write_bytes(b"x" * skip + body)
    place = f"{storage}+{skip}" if skip else storage
    lines = [f"r {len(leads)} 500 {stored.shape[1]}"]
    for name, values in zip(leads, stored, strict=True):
        lines.append(
            f"r.dat {place} {gain}/mV 16 0 {values[0]} {int(values.sum()) % 65536} 0 {name}"
        )
    (folder / "r.hea").write_text("\n".join([*lines, "# Dx: 164889003,59118001", ""]))
    return folder / "r"


@pytest.mark.parametrize(("storage", "skip"), [("16", 0), ("16", 24), ("212", 0)])
def test_a_wfdb_record_comes_back_as_written(tmp_path: Path, storage: str, skip: int) -> None:
    recording = read_wfdb(write(tmp_path, storage, skip=skip))
    assert np.abs(recording.signal - SYNTHETIC.signal).max() < 1 / 400
    assert recording.labels.cpsc == ("AF", "RBBB")
    assert recording.labels.ptbxl is None
    assert recording.measurements.rate is None


def test_lead_names_in_any_case_and_order_come_out_in_standard_order(tmp_path: Path) -> None:
    path = write(tmp_path, leads=tuple(name.upper() for name in LEADS))
    lines = path.with_suffix(".hea").read_text().splitlines()
    assert read_wfdb(path).leads == LEADS
    assert "AVR" in lines[4]


def test_a_damaged_file_is_refused_by_its_checksum(tmp_path: Path) -> None:
    path = write(tmp_path)
    data = bytearray((tmp_path / "r.dat").read_bytes())
    data[1000] ^= 1
    (tmp_path / "r.dat").write_bytes(bytes(data))
    with pytest.raises(RecordingError, match="checksum"):
        read_wfdb(path)


def test_a_wrong_gain_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"0\.3 to 15 mV"):
        read_wfdb(write(tmp_path, gain=8.0))


def test_all_missing_leads_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="V4, V5, V6"):
        read_wfdb(write(tmp_path, leads=LEADS[:9]))


def test_a_short_file_and_an_absent_one_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path)
    (tmp_path / "r.dat").write_bytes(b"\0" * 100)
    with pytest.raises(RecordingError, match="announces 5000"):
        read_wfdb(path)
    (tmp_path / "r.dat").unlink()
    with pytest.raises(RecordingError, match=r"r\.dat: cannot be read"):
        read_wfdb(path)


@pytest.mark.parametrize("hz", [100, 200, 257, 360, 1000])
def test_resampling_keeps_a_wave_below_half_the_rate(hz: int) -> None:
    def wave(rate: float) -> np.ndarray:
        t = np.arange(round(10 * rate)) / rate
        return np.stack([np.sin(2 * np.pi * 7.3 * t), np.cos(2 * np.pi * 31 * t)])

    converted = resample(wave(hz), hz)
    assert converted.shape == (2, 5000)
    assert np.abs(converted - wave(500))[:, 100:-100].max() < 0.02


def test_gaps_survive_resampling() -> None:
    signal = np.ones((1, 2000))
    signal[0, 500:1000] = np.nan
    converted = resample(signal, 200)
    assert np.isnan(converted[0, 1260:2490]).all()
    assert np.isfinite(converted[0, :1240]).all()


def test_packed_records_come_with_their_labels(tmp_path: Path) -> None:
    microvolt = np.round(SYNTHETIC.signal[None, :, ::5] * 1000).astype(np.int16)
    np.savez(tmp_path / "set.npz", signal_uV=microvolt, fs=100, leads=np.array(LEADS))
    entry = {
        "ecg_id": 9,
        "scp_codes": {"PVC": 100.0, "LPR": 0.0},
        "superclass": ["CD"],
        "report": "words",
    }
    (tmp_path / "set.json").write_text(json.dumps([entry]))
    (recording,) = open_packed(tmp_path / "set.npz")
    assert recording.labels.cpsc == ("I-AVB", "PVC")
    assert recording.labels.code15 == ("1dAVb",)
    assert (recording.source, recording.statement) == ("set.npz:9", "words")


def test_labels_of_real_records_use_the_same_words() -> None:
    assert ptbxl_labels(["SBRAD", "SR", "NORM"], ["NORM"]).cpsc == ("NORM",)
    assert ptbxl_labels(["SBRAD", "SR", "NORM"], ["NORM"]).code15 == ("SB",)
    assert ptbxl_labels(["AFIB"], []).ptbxl == ()
    assert snomed_labels([]).cpsc is None
    assert snomed_labels(["426783006"]).cpsc == ("NORM",)


def test_real_wfdb_recordings_are_read_and_drawn(shared: Path) -> None:
    headers = sorted((shared / "ecg" / "records").rglob("*.hea"))
    if not headers:
        pytest.skip("no WFDB recordings next to the checkout")
    for header in headers:
        recording = read_wfdb(header)
        assert recording.signal.shape == (12, 5000)
        assert np.isfinite(recording.signal).any()
    draw(recording, PageStyle())


def test_real_limb_leads_obey_einthoven(shared: Path) -> None:
    path = shared / "ecg" / "records" / "ptbxl_fold9.npz"
    if not path.is_file():
        pytest.skip("no packed recordings next to the checkout")
    packed = open_packed(path)
    assert len(packed) == 81
    for index in range(0, 81, 8):
        i, ii, iii = packed[index].signal[:3]
        assert np.median(np.abs(ii - i - iii)) < 0.01
    assert {label for recording in packed for label in recording.labels.ptbxl or ()} == {
        "NORM",
        "MI",
        "STTC",
        "CD",
        "HYP",
    }
