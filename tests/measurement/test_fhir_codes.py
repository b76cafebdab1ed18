"""Codes of measurements."""

from __future__ import annotations

import pytest

from calibration.synthetic.signals import recording_at
from pulse_edge.measurement.fhir_codes import LOINC, MDC, UNITS, codes
from pulse_edge.measurement.measure import measure_signal
from pulse_edge.measurement.signal import TracedSignal

KEYS = (
    "rate",
    "rr_mean",
    "pr",
    "qrs",
    "qt",
    "qtc_bazett",
    "qtc_fridericia",
    "p_axis",
    "qrs_axis",
    "t_axis",
    "s.V1",
)


def luhn(digits: str) -> int:
    """Check digit of a LOINC: every second digit from the right is doubled."""
    doubled = [int(d) * (2 - n % 2) for n, d in enumerate(reversed(digits))]
    return -sum(sum(divmod(d, 10)) for d in doubled) % 10


@pytest.mark.parametrize("key", KEYS)
def test_loinc_check_digits(key: str) -> None:
    (loinc,) = (c for c in codes(key) if c.system == LOINC)
    number, check = loinc.code.split("-")
    assert luhn(number) == int(check)


@pytest.mark.parametrize(
    ("key", "code"),
    [
        ("rate", "147842"),
        ("qrs_axis", "147204"),
        ("p_axis", "147200"),
        ("st_j.I", "132097"),
        ("st_j60.V5", "145415"),
        ("r.V5", "133127"),
    ],
)
def test_mdc_codes_are_whole_codes_of_partition_two(key: str, code: str) -> None:
    assert [c.code for c in codes(key) if c.system == MDC] == [code]


def test_a_measurement_without_the_very_same_code_has_none() -> None:
    assert codes("rr_variation") == ()
    assert codes("p_present") == ()


def test_every_unit_of_the_measurements_has_a_ucum_code() -> None:
    record = recording_at(3, 0)
    signal = TracedSignal(record.signal, (1.0,) * 12, 25.0, 10.0, True, True, "12x1")
    measurements = measure_signal(signal).measurements
    assert {m.unit for m in measurements} <= set(UNITS)
    assert {m.key for m in measurements if codes(m.key)} >= {
        "rate",
        "pr",
        "qrs",
        "qt",
        "qrs_axis",
        "st_j.V2",
    }
    assert UNITS["bpm"] == "/min"
