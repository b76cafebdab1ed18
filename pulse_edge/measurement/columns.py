"""Find the bars, or the gaps, between the columns of a page.

In: the traced lines of rows, and where the columns should meet. Out: where they do, and the
stretches that a bar covers or a gap leaves out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pulse_edge.measurement.tracing import Line

Float = npt.NDArray[np.float32]

REACH_MM = 5.0
"""How far from where equal columns would meet a bar is looked for."""
HEIGHT_MM = (2.5, 16.0)
OUT_MM = 0.9
"""How far a bar reaches out of the trace above and below."""
WIDTH_MM = 1.3
TOGETHER_MM = 2.0
"""How far bars of one boundary stand from one another across the rows."""
GAP_MM = (0.4, 2.5)
"""Length of a gap between two columns."""
NEAR_MM = 1.5
"""How far off from where equal columns meet a bar may stand if the other bars say something else:
R waves of all rows look like bars."""
STRAY_MM = 0.6
"""How far the bars of all columns may lie off equal columns, wherever the first of them begins."""
EDGE_MM = 0.35
"""What is left out on either side of a bar."""


@dataclass(frozen=True)
class Bar:
    """A bar in one row, in pixels of the page."""

    left: float
    right: float

    @property
    def middle(self) -> float:
        """Where the columns meet."""
        return (self.left + self.right) / 2


def find_bars(lines: tuple[Line, ...], place: float, across: float, down: float) -> dict[int, Bar]:
    """Find the bars near `place` (pixels) in the rows: row -> bar; empty where most rows have none
    there."""
    gaps = _together([_gaps(line, place, across) for line in lines], across)
    if gaps:
        return gaps
    return _together([_bars(line, place, across, down) for line in lines], across)


def agreed(places: list[float], begin: float, end: float) -> list[bool]:
    """Whether each of the bars between equal columns is one; NaN where there is none.

    `places` are millimetres, as are `begin` and `end`, where the first column begins and the last
    one ends.
    """
    where = np.array(places, np.float64)
    usual = np.linspace(begin, end, len(places) + 2)[1:-1]
    off = where - usual
    exists = np.isfinite(off)
    if len(places) > 1 and exists.all():
        order = np.arange(len(places))
        rest = off - np.polyval(np.polyfit(order, off, 1), order)
        if len(places) > 2 and np.abs(rest).max() < STRAY_MM:
            return [True] * len(places)
    limit = NEAR_MM if len(places) > 1 else 2 * NEAR_MM
    return [bool(e and abs(o) <= limit) for e, o in zip(exists, off, strict=True)]


def _together(bars: list[list[Bar]], across: float) -> dict[int, Bar]:
    """The bars of the rows that stand below one another; empty where most rows have none."""
    every = [(row, bar) for row, some in enumerate(bars) for bar in some]
    best: dict[int, Bar] = {}
    for _, one in every:
        same: dict[int, Bar] = {}
        for row, bar in every:
            near = abs(bar.middle - one.middle)
            if near < TOGETHER_MM * across and (
                row not in same or near < abs(same[row].middle - one.middle)
            ):
                same[row] = bar
        if len(same) > len(best):
            best = same
    return best if len(best) >= max(2, 0.6 * len(bars)) else {}


def _gaps(line: Line, place: float, across: float) -> list[Bar]:
    """Short stretches without ink near a place."""
    first = max(0, int(line.place(place - REACH_MM * across)))
    last = min(len(line.y), int(line.place(place + REACH_MM * across)))
    blank = ~np.isfinite(line.top[first:last]) & ~line.shared[first:last]
    edges = np.flatnonzero(np.diff(np.concatenate([[0], blank.astype(np.int8), [0]]))).reshape(
        -1, 2
    )
    low, high = (limit * across * line.fine for limit in GAP_MM)
    return [
        Bar(line.pixel(float(first + a)), line.pixel(float(first + b - 1)))
        for a, b in edges
        if low <= b - a <= high and a > 0 and b < len(blank)
    ]


def _bars(line: Line, place: float, across: float, down: float) -> list[Bar]:
    first = max(0, int(line.place(place - REACH_MM * across)))
    last = min(len(line.y), int(line.place(place + REACH_MM * across)))
    tall = np.nan_to_num(line.bottom[first:last] - line.top[first:last]) > HEIGHT_MM[0] * down
    edges = first + np.flatnonzero(
        np.diff(np.concatenate([[0], tall.astype(np.int8), [0]]))
    ).reshape(-1, 2)
    bars = []
    near = max(1, round(1.2 * across * line.fine))
    for a, b in edges:
        if b - a > WIDTH_MM * across * line.fine + line.stroke * line.fine:
            continue
        top, bottom = float(line.top[a:b].min()), float(line.bottom[a:b].max())
        sides = [line.y[max(0, a - near) : max(0, a - 1)], line.y[b + 1 : b + near]]
        levels = [float(np.nanmedian(side)) for side in sides if np.isfinite(side).any()]
        if not levels or bottom - top > HEIGHT_MM[1] * down:
            continue
        out = min(min(levels) - top, bottom - max(levels))
        if out > OUT_MM * down or (
            len(levels) == 2 and abs(levels[0] - levels[1]) > 2 * down and out > -down
        ):
            bars.append(Bar(line.pixel(float(a)), line.pixel(float(b - 1))))
    return bars


def without(line: Line, bars: list[Bar], across: float) -> Float:
    """The pen's y of a line, with NaN where a bar covers the trace."""
    y = line.y.copy()
    for bar in bars:
        first = int(np.floor(line.place(bar.left - EDGE_MM * across)))
        last = int(np.ceil(line.place(bar.right + EDGE_MM * across)))
        y[max(0, first) : last + 1] = np.nan
    return y
