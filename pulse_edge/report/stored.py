"""Read a report back from the JSON that a command wrote.

Only `from_json` loads NumPy, with the types of the measured trace.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

from pulse_edge.common import json_input
from pulse_edge.errors import UsageError
from pulse_edge.report.report import Report


def read(path: Path) -> Report:
    """Read a report's file. Raises UsageError where it is absent, or holds something else."""
    try:
        return parse(json_input.read(path), str(path))
    except OSError as e:
        raise UsageError(
            f"{path}: cannot be read ({e.strerror}). Name the JSON file of a report."
        ) from None
    except ValueError as e:
        raise UsageError(f"{path}: {e}. Name the JSON file of a report.") from None


def parse(text: str | bytes, name: str = "report") -> Report:
    """Return the report that one line of JSON holds, as `Report.to_json` writes it.

    `name` stands in messages. Raises UsageError.
    """
    try:
        value = json_input.parse(text)
        if isinstance(value, dict) and "exit_code" in value:
            raise ValueError("says why a page has no answer, and holds no report")
        return from_json(value)
    except ValueError as e:
        raise UsageError(
            f"{name}: is no report of this version of pulse-edge ({e}). Name a file that "
            "`pulse-edge interpret --format json` wrote."
        ) from None


def from_json(value: Any) -> Report:
    """Return a report of a parsed JSON object. Raises ValueError that names the field."""
    from pulse_edge.measurement.checks import Check
    from pulse_edge.measurement.measurements import Measurement

    return _built(value, {"Check": Check, "Measurement": Measurement})


def without_trace(value: Any) -> Report:
    """Return a report of a parsed JSON object, without its measurements and checks.

    Raises ValueError that names the field.
    """
    if isinstance(value, dict):
        value = {k: item for k, item in value.items() if k not in ("measurements", "checks")}
    return _built(value, {"Check": object, "Measurement": object})


def _built(value: Any, types: Mapping[str, type]) -> Report:
    if not isinstance(value, dict):
        raise ValueError("is no object")
    hints = get_type_hints(Report, localns=dict(types))
    given = {key: item for key, item in value.items() if key != "overread"}
    if unknown := sorted(given.keys() - hints.keys()):
        raise ValueError(f"has unknown {', '.join(unknown)}")
    fields = {key: json_input.build(hints[key], item, key) for key, item in given.items()}
    try:
        report = Report(**fields)
    except TypeError as e:  # of the fields' names: their types were checked above
        raise ValueError(str(e).replace("Report.__init__() ", "")) from None
    if value.get("overread", report.overread) != report.overread:
        raise ValueError("its overread and its confirmation say different things")
    return report
