"""Which lead stands where on a page: rows, columns and rhythm strips.

In: the number of rows, what is seen between their columns, and how probable each layout is. Out: `Layout`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Row = tuple[str, ...]

_THREE: tuple[Row, ...] = (("I", "aVR", "V1", "V4"), ("II", "aVL", "V2", "V5"), ("III", "aVF", "V3", "V6"))
_SIX: tuple[Row, ...] = (("I", "V1"), ("II", "V2"), ("III", "V3"), ("aVR", "V4"), ("aVL", "V5"), ("aVF", "V6"))
_TWELVE: tuple[Row, ...] = tuple(
    (lead,) for lead in ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
)
_FOUR: tuple[Row, ...] = (("I", "aVL", "V3"), ("II", "aVF", "V4"), ("III", "V1", "V5"), ("aVR", "V2", "V6"))


@dataclass(frozen=True)
class Layout:
    """Rows of leads, from top to bottom, and below them the rhythm strips."""

    name: str
    rows: tuple[Row, ...]
    strips: tuple[str, ...] = ()
    """Leads of the rhythm strips, by the usual order; they are checked against the leads above."""

    @property
    def columns(self) -> int:
        """Leads beside one another in a row that is no strip."""
        return len(self.rows[0])

    @property
    def count(self) -> int:
        """Rows, strips included."""
        return len(self.rows) + len(self.strips)


LAYOUTS = (
    Layout("3x4", _THREE),
    Layout("3x4+1", _THREE, ("II",)),
    Layout("3x4+2", _THREE, ("V1", "II")),
    Layout("3x4+3", _THREE, ("V1", "II", "V5")),
    Layout("6x2", _SIX),
    Layout("6x2+1", _SIX, ("II",)),
    Layout("12x1", _TWELVE),
    Layout("4x3", _FOUR),
)
"""The layouts that carts print."""


def choose(count: int, seen: Mapping[str, float]) -> Layout | None:
    """Choose the layout of a page with `count` rows; `seen` says how probable each is. None where none has as many."""
    fitting = [layout for layout in LAYOUTS if layout.count == count]
    if not fitting:
        return None
    return max(fitting, key=lambda layout: seen.get(layout.name, 0.0))
