"""What is known about a page that this program drew itself, from the recording that it was drawn from.

Such a page is never turned, judged or refused for what it looks like: its scale, layout and orientation are as
drawn, and what is missing on it is known from the recording. Standard library only: the facts travel from the process that
draws (decoder_worker.py) to the program as JSON.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

LEAST = 0.979
"""Seconds of a lead on a page from which on it counts as shown there: one second but for a sample at 50 Hz."""


@dataclass(frozen=True)
class Remark:
    """One thing that a reader of the page must know."""

    check: str
    """A short name: `seconds`, `part`, `leads`, `gain`, `cut off`, `baseline`, `flat`, `average`, `not shown`."""
    value: float
    unit: str
    threshold: float
    text: str
    """What is missing or unusual and what to do, in a clinic's words."""
    refuses: bool = False


@dataclass(frozen=True)
class PlottedPage:
    """The facts of a drawn page."""

    pixels_per_mm: float
    layout: str
    """As in quality.LEADS. Leads beyond the twelve have further rows above the rhythm strip."""
    speed: float
    """mm/s."""
    gain: float
    """mm/mV."""
    rows: tuple[float, ...]
    """Pixels from the page's top to 0 mV of each row."""
    first: float
    """Second of the recording with which the page begins, and `last` the one with which it ends."""
    last: float
    recorded: float
    """Seconds of the whole recording."""
    leads: dict[str, float]
    """Seconds of each lead that are on the page: 0 for one that was never recorded."""
    computed: tuple[str, ...] = ()
    """Leads that were not recorded but computed from I, II and III (Einthoven, Goldberger)."""
    remarks: tuple[Remark, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A JSON object; `from_json` reads it."""
        return asdict(self)


def from_json(about: Mapping[str, Any]) -> PlottedPage:
    """The facts from a JSON object of `PlottedPage.to_json`. Raises ValueError where it is anything else."""
    try:
        numbers = {
            k: float(about[k])
            for k in ("pixels_per_mm", "speed", "gain", "first", "last", "recorded")
        }
        if (
            not all(math.isfinite(n) and n >= 0 for n in numbers.values())
            or not numbers["pixels_per_mm"]
        ):
            raise ValueError("a page without a scale")
        return PlottedPage(
            layout=str(about["layout"]),
            rows=tuple(float(y) for y in about["rows"]),
            leads={str(name): float(seconds) for name, seconds in about["leads"].items()},
            computed=tuple(str(name) for name in about["computed"]),
            remarks=tuple(_remark(r) for r in about["remarks"]),
            **numbers,
        )
    except (KeyError, TypeError, AttributeError) as e:
        raise ValueError(f"no facts of a drawn page ({e!r})") from None


def _remark(about: Mapping[str, Any]) -> Remark:
    return Remark(
        str(about["check"]),
        float(about["value"]),
        str(about["unit"]),
        float(about["threshold"]),
        str(about["text"]),
        bool(about["refuses"]),
    )
