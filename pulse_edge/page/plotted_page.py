"""Facts about a page that this program plotted from a recording.

Such a page is never turned, judged or refused for its looks: its scale, layout and orientation are
exact, and what is missing on it is known from the recording. Standard library only: the facts
travel as JSON from the process that plots (decoder_worker.py) to the program.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

MIN_LEAD_SECONDS = 0.979
"""Seconds of a lead from which on a page shows it: one second less a sample at 50 Hz."""


@dataclass(frozen=True)
class Remark:
    """One thing that a reader of the page must be told."""

    check: str
    """`seconds`, `part`, `leads`, `gaps`, `gain`, `cut off`, `baseline`, `flat`, `average` or `not
    shown`."""
    value: float
    unit: str
    threshold: float
    text: str
    """What is missing or unusual and what to do, in a clinic's words."""
    refuses: bool = False
    """True: the page is refused for it."""


@dataclass(frozen=True)
class PlottedPage:
    """The facts of a plotted page."""

    pixels_per_mm: float
    layout: str
    """A key of traces.LEADS. Leads beyond the twelve have further rows above the rhythm strip."""
    speed: float
    """Paper speed in mm/s."""
    gain: float
    """Gain in mm/mV."""
    rows: tuple[float, ...]
    """Pixels from the page's top to 0 mV of each row."""
    first: float
    """Second of the recording at which the page begins."""
    last: float
    """Second of the recording at which the page ends."""
    recorded: float
    """Seconds of the whole recording."""
    leads: dict[str, float]
    """Lead -> seconds of it on the page; 0 for one that was never recorded."""
    computed: tuple[str, ...] = ()
    """Leads that were not recorded but computed from I, II and III (Einthoven, Goldberger)."""
    remarks: tuple[Remark, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that `from_json` reads."""
        return asdict(self)


def from_json(about: Mapping[str, Any]) -> PlottedPage:
    """Read the facts from a JSON object of `PlottedPage.to_json`.

    Raises ValueError for anything else.
    """
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
        raise ValueError(f"no facts of a plotted page ({e!r})") from None


def _remark(about: Mapping[str, Any]) -> Remark:
    return Remark(
        str(about["check"]),
        float(about["value"]),
        str(about["unit"]),
        float(about["threshold"]),
        str(about["text"]),
        bool(about["refuses"]),
    )
