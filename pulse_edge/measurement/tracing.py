"""Follow each row's trace through the ink of a page, with sub-pixel centres and restored peaks.

In: `Ink` and the y of each row. Out: one `Line` per row.

The path of a row is the cheapest way from the left to the right border: paper costs, ink does not, and a step up or down within
a column costs little along ink. It is found for all rows at once by dynamic programming, column by column. The path says which
ink is the trace's; where in that ink the centre of the pen was is measured afterwards. In a column in which the trace turns, the
centre of the ink is half way down the peak (14 % of an R wave is lost so), therefore the edge less half the stroke is taken there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pulse_edge.measurement.ink import Ink, Mask

Float = npt.NDArray[np.float32]
Index = npt.NDArray[np.int64]

REACH_MM = 32.0
"""How far a trace may go up or down from its row: 3.2 mV at 10 mm/mV."""
CLIMB = 0.03
"""Cost of a pixel up or down along ink; a pixel of paper costs 1."""
LEAP = 1.2
"""Cost of a pixel up or down through paper."""
STRAY = 0.25
"""Cost of each column spent nearer to another row than to one's own."""
ON_LINE = 0.45
"""Cost of ink that lies on a line of a dark grid."""


@dataclass(frozen=True, eq=False)
class Line:
    """The trace of one row of a page."""

    row: float
    """y of the row in pixels."""
    y: Float
    """(W,) y of the pen's centre in each column, NaN where there is no ink."""
    top: Float
    """(W,) y of the upper edge of the trace's ink, NaN as `y`; `bottom` is the lower edge."""
    bottom: Float
    path: Index
    """(W,) the row of pixels through which the path goes, also where there is no ink."""
    shared: Mask
    """(W,): columns whose ink belongs to another row's trace as well."""


@dataclass(frozen=True, eq=False)
class _Bands:
    """The part of the page in which each row's trace is looked for."""

    starts: Index
    """(R,) first row of pixels of each band."""
    cost: Float
    """(R, H, W) of a pixel."""
    climb: Float
    """(R, H, W) cost of going from the pixel above to this one."""


def follow(ink: Ink, rows: tuple[float, ...]) -> tuple[Line, ...]:
    """Follow the traces of rows at y pixels, from top to bottom."""
    if not rows:
        return ()
    bands = _bands(ink, rows)
    paths, reach = _paths(bands)
    paths = paths + bands.starts[:, None]
    reach = reach + bands.starts[:, None, None]
    return _lines(ink, rows, paths, reach)


def _bands(ink: Ink, rows: tuple[float, ...]) -> _Bands:
    height, width = ink.cover.shape
    reach = int(REACH_MM * ink.down)
    size = min(height, 2 * reach + 1)
    starts = np.clip(np.round(rows).astype(int) - reach, 0, height - size)
    paper = 1 - ink.cover
    if ink.lines is not None:
        paper = np.where(ink.lines, np.maximum(paper, ON_LINE), paper)
    cost = np.stack([paper[s : s + size] for s in starts])
    climb = CLIMB + LEAP * cost
    for r, (start, row) in enumerate(zip(starts, rows, strict=True)):
        y = np.arange(size) + start
        off = np.abs(y - row)
        near = np.min([np.abs(y - other) for n, other in enumerate(rows) if n != r] or [off + 1], axis=0)
        cost[r] += (STRAY * (near < off) + 0.004 * off / ink.down)[:, None].astype(np.float32)
    return _Bands(starts, cost.astype(np.float32), climb.astype(np.float32))


def _paths(bands: _Bands) -> tuple[Index, Index]:
    """The cheapest path of each band: (R, W) where it leaves each column, and (R, W, 2) between which y it moves in it."""
    count, size, width = bands.cost.shape
    cost = np.ascontiguousarray(bands.cost.transpose(2, 0, 1))
    steps = np.cumsum(bands.climb.transpose(2, 0, 1), axis=2)
    entered = np.empty((width, count, size), np.float32)
    total = np.zeros((count, size), np.float32)
    best = np.empty_like(total)
    for x in range(width):
        # A pen moves right, right and up, or right and down by one pixel.
        best[:] = total
        np.minimum(best[:, 1:], total[:, :-1] + 0.02, out=best[:, 1:])
        np.minimum(best[:, :-1], total[:, 1:] + 0.02, out=best[:, :-1])
        best += cost[x]
        best -= best.min(axis=1, keepdims=True)
        entered[x] = best
        s = steps[x]
        down = np.minimum.accumulate(best - s, axis=1) + s
        up = np.minimum.accumulate((best + s)[:, ::-1], axis=1)[:, ::-1] - s
        total = np.minimum(down, up)
    return _backwards(entered, steps, total)


def _backwards(entered: Float, steps: Float, total: Float) -> tuple[Index, Index]:
    width, count, size = entered.shape
    paths = np.empty((count, width), np.int64)
    moves = np.empty((count, width, 2), np.int64)
    which = np.arange(count)
    y = np.argmin(total, axis=1)
    for x in range(width - 1, -1, -1):
        s = steps[x]
        from_y = np.argmin(entered[x] + np.abs(s - s[which, y][:, None]), axis=1)
        paths[:, x] = y
        moves[:, x, 0], moves[:, x, 1] = np.minimum(y, from_y), np.maximum(y, from_y)
        y = from_y
        if x == 0:
            break
        # What the column before had at each y after its own moves up and down.
        s = steps[x - 1]
        near = np.clip(y[:, None] + np.array([0, -1, 1]), 0, size - 1)
        before = entered[x - 1]
        ways = np.stack([(before + np.abs(s - s[which, n][:, None])).min(axis=1) for n in near.T], axis=1)
        ways += np.array([0, 0.02, 0.02], np.float32)
        y = near[which, np.argmin(ways, axis=1)]
    return paths, moves


# ------------------------------------------------------------------------------------------- from a path to the pen's centre


def _lines(ink: Ink, rows: tuple[float, ...], paths: Index, moves: Index) -> tuple[Line, ...]:
    runs = _Runs(ink)
    ends = [runs.along(path, move) for path, move in zip(paths, moves, strict=True)]
    width = _stroke(ink, ends)
    lines = []
    for r, (row, path) in enumerate(zip(rows, paths, strict=True)):
        first, last = ends[r]
        shared = np.zeros(path.shape, bool)
        for other, (a, b) in enumerate(ends):
            if other != r:
                shared |= (first >= 0) & (a == first) & (b == last)
        low, high = np.where(shared, moves[r, :, 0], first), np.where(shared, moves[r, :, 1], last)
        top, bottom, centre = _edges(ink, low, high, first >= 0, shared)
        lines.append(Line(row, _pen(top, bottom, centre, width), top, bottom, path, shared))
    return tuple(lines)


class _Runs:
    """The runs of ink in each column of a page."""

    def __init__(self, ink: Ink) -> None:
        mask = ink.mask
        height = len(mask)
        y = np.arange(height, dtype=np.int32)[:, None]
        self.mask = mask
        self.first = np.maximum.accumulate(np.where(mask, -1, y), axis=0) + 1
        self.last = np.minimum.accumulate(np.where(mask, height, y)[::-1], axis=0)[::-1] - 1

    def along(self, path: Index, move: Index) -> tuple[Index, Index]:
        """First and last pixel (W,) of the ink in each column that a path passes; -1 where there is none."""
        height = len(self.mask)
        x = np.arange(len(path))
        first = np.full(len(path), -1, np.int64)
        last = np.full(len(path), -1, np.int64)
        for where in (path, move[:, 0], move[:, 1], path - 1, path + 1):
            y = np.clip(where, 0, height - 1)
            ink = self.mask[y, x]
            a, b = self.first[y, x], self.last[y, x]
            first = np.where(ink & ((first < 0) | (a < first)), a, first)
            last = np.where(ink & (b > last), b, last)
        return first, last


def _stroke(ink: Ink, ends: list[tuple[Index, Index]]) -> float:
    """Width of the stroke in pixels: the usual height of a run of ink."""
    heights = []
    for first, last in ends:
        flat = (first >= 0) & (last - first < 3 * ink.mm)
        heights.append(_mass(ink, first, last)[flat])
    every = np.concatenate(heights)
    return float(np.quantile(every, 0.4)) if every.size else 1.0


def _mass(ink: Ink, first: Index, last: Index) -> Float:
    """How many pixels of a column are covered by a run, its antialiased edges included."""
    height = len(ink.cover)
    x = np.arange(len(first))
    inner = np.maximum(last - first - 1, 0).astype(np.float32)
    ends = ink.cover[np.clip(first, 0, height - 1), x] + ink.cover[np.clip(first - 1, 0, height - 1), x]
    ends += np.where(last > first, ink.cover[np.clip(last, 0, height - 1), x], 0)
    ends += ink.cover[np.clip(last + 1, 0, height - 1), x]
    return np.asarray(inner + ends, np.float32)


def _edges(ink: Ink, first: Index, last: Index, there: Mask, shared: Mask) -> tuple[Float, Float, Float]:
    """Upper and lower edge and centre of the runs, in fractions of a pixel; NaN where there is no ink."""
    height = len(ink.cover)
    x = np.arange(len(first))

    def at(y: Index) -> Float:
        return np.asarray(np.where((y >= 0) & (y < height), ink.cover[np.clip(y, 0, height - 1), x], 0), np.float32)

    single = first == last
    above, below = at(first - 1), at(last + 1)
    top = np.where(single, first - at(first) / 2, first + 0.5 - at(first)) - above
    bottom = np.where(single, last + at(last) / 2, last - 0.5 + at(last)) + below
    top, bottom = np.where(shared, first, top), np.where(shared, last, bottom)
    centre = (top + bottom) / 2
    empty = np.where(there, 0.0, np.nan)
    return tuple(np.asarray(v + empty, np.float32) for v in (top, bottom, centre))  # type: ignore[return-value]


def _pen(top: Float, bottom: Float, centre: Float, width: float) -> Float:
    """Where the pen's centre was: the centre of a run, or at a turn its edge less half the stroke."""
    step = max(1, round(width / 2)) + 1
    upper, lower = top + width / 2, bottom - width / 2
    steep = bottom - top > width + 1.0
    before, after = _shifted(centre, step), _shifted(centre, -step)
    highest = _window(upper, step, np.fmin)
    lowest = _window(lower, step, np.fmax)
    over = np.fmin(before, after) - upper
    under = lower - np.fmax(before, after)
    peak = steep & (over > 0.5) & (upper <= highest + 0.7)
    dip = steep & (under > 0.5) & (lower >= lowest - 0.7)
    both = peak & dip
    peak &= ~both | (over >= under)
    dip &= ~both | (over < under)
    return np.asarray(np.where(peak, upper, np.where(dip, lower, centre)), np.float32)


def _shifted(values: Float, by: int) -> Float:
    """The values `by` columns to the left of each; those at the ends repeat."""
    return values[np.clip(np.arange(len(values)) - by, 0, len(values) - 1)]


def _window(values: Float, reach: int, how: np.ufunc) -> Float:
    out = values.copy()
    for by in range(1, reach + 1):
        out = how(out, how(_shifted(values, by), _shifted(values, -by)))
    return np.asarray(out, np.float32)
