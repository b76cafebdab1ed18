"""What the pages show of many readings, and of the program itself.

In: readings and the facts of `Service.about`. Out: frozen values, which the templates lay out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from pulse_edge.report.report import DEMONSTRATION, FORCED_KIT, NOT_PROVEN
from pulse_edge.web import words
from pulse_edge.web.readings import Reading
from pulse_edge.web.view import by_urgency_order, reader_verdicts

Json = Mapping[str, Any]

# --- lists ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """A reading in a list."""

    reading: Reading
    contradictions: int
    urgent: str
    """Name of the most urgent finding that is judged present, by the reader where one has
    confirmed the page; empty without."""


@dataclass(frozen=True)
class Day:
    """The readings of one day, in local time."""

    date: str
    entries: tuple[Entry, ...]


def days(readings: Iterable[Reading]) -> tuple[Day, ...]:
    """Return readings by the day on which they came, in the order given."""
    groups: dict[str, list[Entry]] = {}
    for reading in readings:
        groups.setdefault(local(reading.created)[:10], []).append(entry(reading))
    return tuple(Day(date, tuple(entries)) for date, entries in groups.items())


def entry(reading: Reading) -> Entry:
    """Return what a list shows of a reading."""
    report, confirmation = reading.report or {}, reading.confirmation or {}
    findings = () if confirmation.get("overall") == "rejected" else report.get("findings", ())
    changed = reader_verdicts(confirmation)
    present = [f for f in findings if changed.get(f["statement"], f["verdict"]) == "present"]
    urgent = min(present, key=by_urgency_order)["name"] if present else ""
    return Entry(reading, len(report.get("contradictions", ())), urgent)


def local(created: str) -> str:
    """Return a moment in UTC (ISO 8601) as local date and time, `2026-11-28 03:12`."""
    try:
        moment = datetime.fromisoformat(created.replace("Z", "+00:00"))
    except ValueError:
        return created
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return moment.astimezone().strftime("%Y-%m-%d %H:%M")


# --- the program ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class About:
    """What the pages show of the program and its kit."""

    version: str
    kit: str
    """Name of the kit; empty until it is loaded."""
    proven: bool
    device: str
    warnings: tuple[str, ...]
    """What must be read before any answer, a line each; English."""
    model_state: str
    """`loading`, `ready` or `failed`."""
    model_error: str
    """Why the model is not ready; English."""
    log_error: str
    """Why answers cannot be logged at the moment, so that none is shown; English."""
    retain_days: int | None
    """Days for which pages are stored after they were answered; None: until they are removed."""
    phone: bool
    """Whether phones can be paired."""


def about(facts: Json) -> About:
    """Return what the pages show of the program, from `Service.about`."""
    kit, model = facts.get("kit") or {}, facts.get("model") or {}
    state = str(model.get("state") or "loading")
    warnings = [
        DEMONSTRATION if kit.get("demonstration") else "",
        FORCED_KIT if kit.get("refused") else "",
        NOT_PROVEN if kit and not kit.get("proven") and not kit.get("refused") else "",
        kit.get("fallback") or "",
        facts.get("log_error") or "",
    ]
    return About(
        version=str(facts.get("version") or ""),
        kit=str(kit.get("kit") or ""),
        proven=bool(kit.get("proven")),
        device=str(kit.get("device") or ""),
        warnings=tuple(str(warning) for warning in warnings if warning),
        model_state=state if state in words.MODEL_STATES else "loading",
        model_error=str(model.get("reason") or "") if state == "failed" else "",
        log_error=str(facts.get("log_error") or ""),
        retain_days=facts.get("retain_days"),
        phone=bool(facts.get("phone")),
    )
