"""Codes of measurements."""

from __future__ import annotations

import pytest

from pulse_edge.measurement.fhir_codes import LOINC, MDC, UNITS, codes

KEYS = ("rate", "rr_mean", "pr", "qrs", "qt", "qtc_bazett", "qtc_fridericia", "p_axis", "qrs_axis", "t_axis", "s.V1")


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


def test_units_are_those_of_measurements() -> None:
    assert UNITS["bpm"] == "/min"
    assert UNITS["degrees"] == "deg"
