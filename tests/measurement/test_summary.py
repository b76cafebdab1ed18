"""The words in which reports show measurements."""

from __future__ import annotations

import measured_pages
import pytest

from pulse_edge.measurement.measurements import Measurement
from pulse_edge.measurement.summary import (
    FULL_LABELS,
    GROUPS,
    LABELS,
    selected,
    summary_lines,
    value_text,
)


def measurement(key: str, value: float | None, unit: str = "", **more: object) -> Measurement:
    fields: dict[str, object] = {"uncertainty": None, "leads": (), "reason": "", "doubt": ""}
    return Measurement(key, key, value, unit, **(fields | more))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (measurement("rate", 74.4, "bpm", uncertainty=2.2), "74 bpm ± 2"),
        (measurement("pr", 163.0, "ms"), "163 ms"),
        (measurement("sokolow_lyon", 2.345, "mV", uncertainty=0.2), "2.35 mV ± 0.20"),
        (measurement("regular", 1.0), "yes"),
        (measurement("paced", 0.0), "no"),
        (measurement("pauses", 2.0), "2"),
        (measurement("qt", None, "ms", reason="no T wave"), "not measurable"),
        (measurement("pr", 160.0, "ms", doubt="speed assumed"), "160 ms (speed assumed)"),
    ],
)
def test_value_has_unit_uncertainty_and_doubt(given: Measurement, text: str) -> None:
    assert value_text(given) == text


def test_what_cannot_be_measured_is_grouped_by_reason() -> None:
    lines = summary_lines(
        [
            measurement("qt", None, "ms", reason="no T wave"),
            measurement("rate", 74.0, "bpm"),
            measurement("t_axis", None, "degrees", reason="no T wave"),
            measurement("p_present", 1.0),
            measurement("pauses", 0.0),
            measurement("ectopic", 2.0),
        ]
    )
    assert lines == [
        "Ventricular rate: mean 74 bpm",
        "Rhythm: P waves before the QRS, no pauses of 2 s or more, 2 premature beats",
        "Not measurable (no T wave): QT, T axis",
    ]


def test_every_name_without_a_group_is_unique() -> None:
    assert len(set(FULL_LABELS.values())) == len(LABELS)
    assert sorted(key for keys in GROUPS.values() for key in keys) == sorted(LABELS)


def test_st_levels_away_from_the_baseline_are_named_by_lead() -> None:
    levels = [measurement(f"st_j60.{lead}", mv, "mV") for lead, mv in (("V1", 0.02), ("V2", 0.21))]
    assert summary_lines(levels) == ["ST level at J + 60 ms: V2 +0.21 mV"]
    assert summary_lines(levels[:1]) == ["ST level at J + 60 ms: within 0.1 mV in 1 lead"]


def test_every_label_names_a_measurement_that_is_taken() -> None:
    keys = {m.key for m in measured_pages.measured().measurements}
    assert LABELS.keys() <= keys
    shown = [m.key for m in selected(measured_pages.measured().measurements)]
    assert shown[: len(LABELS)] == list(LABELS)
    assert set(shown[len(LABELS) :]) == {k for k in keys if k.startswith("st_j60.")}
