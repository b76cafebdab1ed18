"""Published limits by age and sex, and a clinic's own table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pulse_edge.errors import UsageError
from pulse_edge.measurement.criteria import LIMITS, limits_for, read_limits
from pulse_edge.measurement.sheet import NAMES


def findings(key: str, value: float, age: float | None, sex: str | None = None) -> set[str]:
    return {limit.finding(value) for limit in limits_for(key, age, sex)} - {""}


@pytest.mark.parametrize(
    ("key", "value", "age", "sex", "expected"),
    [
        ("rate", 101, 40, None, {"tachycardia"}),
        ("rate", 100, 40, None, set()),
        ("rate", 59, 40, None, {"bradycardia"}),
        ("pr", 201, 40, None, {"first-degree AV block"}),
        ("pr", 200, 40, None, set()),
        ("pr", 119, 40, None, {"short PR interval"}),
        ("qrs", 111, 40, None, {"prolonged QRS"}),
        ("qrs", 120, 40, None, {"prolonged QRS", "QRS of a complete bundle branch block"}),
        ("qrs", 100, 10, None, {"prolonged QRS"}),
        ("qrs", 92, 2, None, {"prolonged QRS"}),
        ("qtc_bazett", 455, 40, "male", {"prolonged QT"}),
        ("qtc_bazett", 455, 40, "female", set()),
        ("qrs_axis", -31, 40, None, {"left axis deviation"}),
        ("qrs_axis", 91, 40, None, {"right axis deviation"}),
        ("st_j.V2", 0.22, 39, "male", set()),
        ("st_j.V2", 0.22, 41, "male", {"ST elevation"}),
        ("st_j.V2", 0.16, 39, "female", {"ST elevation"}),
        ("st_j.V5", 0.1, 39, None, {"ST elevation"}),
        ("st_j.V5", -0.1, 39, None, {"ST depression"}),
        ("sokolow_lyon", 3.5, 40, None, {"left ventricular voltage"}),
        ("cornell", 2.1, 40, "female", {"left ventricular voltage"}),
        ("cornell", 2.1, 40, "male", set()),
        ("limb_voltage", 0.49, 40, None, {"low voltage in the limb leads"}),
    ],
)
def test_limits_name_what_lies_beyond_them(
    key: str, value: float, age: float, sex: str | None, expected: set[str]
) -> None:
    assert findings(key, value, age, sex) == expected


def test_without_an_age_or_a_sex_nothing_is_assumed() -> None:
    assert limits_for("rate", None) == ()
    assert limits_for("qtc_bazett", 40) == ()
    assert limits_for("rate", 8) == ()


def test_every_limit_has_a_source_and_a_key_that_is_measured() -> None:
    for limit in LIMITS:
        assert limit.key in NAMES
        assert any(character.isdigit() for character in limit.source)
        assert (limit.low is None) == (not limit.finding_below)
        assert (limit.high is None) == (not limit.finding_above)


def test_a_clinic_reads_its_own_limits(tmp_path: Path) -> None:
    path = tmp_path / "limits.json"
    row = {
        "key": "rate",
        "finding_below": "bradycardia",
        "low": 70,
        "finding_above": "tachycardia",
        "high": 140,
    }
    path.write_text(json.dumps([{**row, "source": "own", "from_years": 1, "to_years": 5}]))
    table = read_limits(path)
    assert limits_for("rate", 3, table=table) == table
    assert limits_for("rate", 6, table=table) == ()


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[1]",
        '[{"key": "rate"}]',
        '[{"key": "pulse", "finding_below": "", "low": null, "finding_above": "x", "high": 1, "source": "own"}]',
        '[{"key": "rate", "finding_below": "", "low": null, "finding_above": "x", "high": "100", "source": "own"}]',
        '[{"key": "rate", "finding_below": "", "low": null, "finding_above": "x", "high": 100, "source": ""}]',
    ],
)
def test_unusable_limits_name_the_file_and_the_next_step(tmp_path: Path, text: str) -> None:
    path = tmp_path / "limits.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"limits\.json.*(Write|Take)"):
        read_limits(path)


def test_missing_limits_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.json"):
        read_limits(tmp_path / "none.json")
