"""Which lead stands where on a page: rows, columns and rhythm strips.

In: the number of rows, what is seen between their columns, and how probable each layout is. Out:
`Layout`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Row = tuple[str, ...]

_THREE: tuple[Row, ...] = (
    ("I", "aVR", "V1", "V4"),
    ("II", "aVL", "V2", "V5"),
    ("III", "aVF", "V3", "V6"),
)
_SIX: tuple[Row, ...] = (
    ("I", "V1"),
    ("II", "V2"),
    ("III", "V3"),
    ("aVR", "V4"),
    ("aVL", "V5"),
    ("aVF", "V6"),
)
_TWELVE: tuple[Row, ...] = tuple(
    (lead,) for lead in ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
)
_FOUR: tuple[Row, ...] = (
    ("I", "aVL", "V3"),
    ("II", "aVF", "V4"),
    ("III", "V1", "V5"),
    ("aVR", "V2", "V6"),
)

UNSEEN, RARE = 0.05, 0.005
"""Probability of a layout that is not seen at all, and of one that few carts print."""


@dataclass(frozen=True)
class Layout:
    """Rows of leads, from top to bottom, and below them the rhythm strips."""

    name: str
    rows: tuple[Row, ...]
    strips: tuple[str, ...] = ()
    """Leads of the rhythm strips, by the usual order; they are checked against the leads above."""
    rare: bool = False
    """Whether few carts print it."""
    partial: bool = False
    """Whether some of the twelve leads are not on the page."""

    @property
    def columns(self) -> int:
        """Leads next to one another in a row that is no strip."""
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
    Layout("6x2+1", _SIX, ("II",), rare=True),
    Layout("12x1", _TWELVE),
    Layout("4x3", _FOUR, rare=True),
    Layout("6x1", tuple((lead,) for lead in ("I", "II", "III", "aVR", "aVL", "aVF")), partial=True),
)
"""The layouts that carts print."""


def fitting(count: int, layouts: Mapping[str, float]) -> list[tuple[Layout, float]]:
    """Give the layouts of a page with `count` rows, and how probable each is by `layouts`."""
    part = layouts.get("partial", 0.0)
    return [
        (
            layout,
            max(
                part if layout.partial else layouts.get(layout.name, 0.0),
                RARE if layout.rare else UNSEEN,
            ),
        )
        for layout in LAYOUTS
        if layout.count == count
    ]
