"""A report back from the JSON object that it was stored as."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from pulse_edge.measurement.checks import Check
from pulse_edge.measurement.measurements import Measurement
from pulse_edge.report.report import Answer, Contradiction, Finding, KitSummary, Report


def from_json(stored: Mapping[str, Any]) -> Report:
    """Return the report. Raises TypeError or KeyError for an object that is none."""
    lists: dict[str, Any] = {
        "answers": tuple(Answer(**one) for one in stored["answers"]),
        "findings": tuple(Finding(**one) for one in stored["findings"]),
        "contradictions": tuple(
            Contradiction(**one | {"statements": tuple(one["statements"])})
            for one in stored["contradictions"]
        ),
        "measurements": tuple(map(_measurement, stored["measurements"])),
        "checks": tuple(
            Check(**one | {"used": tuple(map(_measurement, one["used"]))})
            for one in stored["checks"]
        ),
    }
    names = {field.name for field in dataclasses.fields(Report)}
    others = {name: value for name, value in stored.items() if name in names - lists.keys()}
    return Report(**others | lists | {"kit": KitSummary(**stored["kit"])})


def _measurement(stored: Mapping[str, Any]) -> Measurement:
    return Measurement(**{**stored, "leads": tuple(stored["leads"])})
