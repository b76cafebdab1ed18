"""From a signal to the verdict on a text: measuring and checking together."""

from __future__ import annotations

import numpy as np

from calibration.synthetic import sentences as say
from calibration.synthetic.recording import Recording
from calibration.synthetic.signals import recording_at
from pulse_edge.measurement.checks import Check, check_answers
from pulse_edge.measurement.measure import measure_signal
from pulse_edge.measurement.signal import TracedSignal


def checks_of(record: Recording, text: str) -> tuple[Check, ...]:
    signal = TracedSignal(record.signal, (1.0,) * 12, 25.0, 10.0, True, True, "12x1")
    return check_answers([("", text)], measure_signal(signal).measurements)


def test_right_reports_of_synthetic_records_are_hardly_ever_contradicted() -> None:
    checks = [
        c
        for n in range(40)
        for c in checks_of(recording_at(11, n), say.report(recording_at(11, n)))
    ]
    wrong = [c.sentence for c in checks if c.verdict == "contradicted"]
    assert len(checks) > 250
    assert len(wrong) <= 0.03 * len(checks), wrong


def test_wrong_rates_are_contradicted() -> None:
    verdicts = []
    for n in range(20):
        record = recording_at(11, n)
        assert record.measurements.rate is not None
        for by in (-25, 25):
            (check,) = checks_of(
                record, f"The heart rate is {record.measurements.rate + by:.0f} bpm."
            )
            verdicts.append(check.verdict)
    assert verdicts.count("contradicted") >= 38


def test_a_flat_line_has_no_rate() -> None:
    flat = TracedSignal(
        np.zeros((12, 5000), np.float32), (1.0,) * 12, 25.0, 10.0, True, True, "12x1"
    )
    rows = measure_signal(flat).measurements
    checks = check_answers([("", "The heart rate is 42 bpm. Sinus bradycardia.")], rows)
    assert [c.verdict for c in checks] == ["contradicted", "contradicted"]
