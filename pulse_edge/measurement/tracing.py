"""Follow each row's trace through the ink of a page, with sub-pixel centres and restored peaks.

In: `Ink` and the y of each row. Out: one `Line` per row.

The path of a row is the cheapest way from the left to the right border: paper costs, ink does not,
and a step up or down within a column costs little along ink. It is found for all rows at once by
dynamic programming, column by column. The path says which ink is the trace's; where in that ink the
centre of the pen was is measured afterwards. In a column in which the trace turns, the centre of
the ink is half way down the peak (14 % of an R wave is lost so), therefore the edge less half the
stroke is taken there.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from pulse_edge.measurement.ink import Ink, Mask
from pulse_edge.measurement.overlap import part
from pulse_edge.measurement.pen import centre, nib_of
from pulse_edge.measurement.runs import RUN, Runs

Float = npt.NDArray[np.float32]
Index = npt.NDArray[np.int64]

REACH_MM = 32.0
"""How far a trace may go up or down from its row: 3.2 mV at 10 mm/mV."""
CLIMB = 0.008
"""Cost of a pixel up or down along ink; a column of paper costs PAPER."""
LEAP = 1.2
"""Cost of a pixel up or down through paper."""
PAPER = 2.0
"""Cost of a column of paper: a short cut under a wave costs more than its pale steep strokes do."""
STRAY = 0.5
"""Cost of each column spent nearer to another row than to one's own."""
FINE = 18.0
"""Columns per millimetre in which the pen's centre is found, about the 500 Hz of the signal at 25
mm/s; at most 4 a pixel."""
SURE = 1.6
"""A pixel whose cover times this is 1 costs no more to climb than solid ink: steep thin strokes are
pale."""
HOLE_MM = 1.5
"""Width of enclosed paper up to which it counts as ink."""
ON_LINE = 0.3
"""Cost of ink that lies on a line of a dark grid."""


@dataclass(frozen=True, eq=False)
class Line:
    """The trace of one row of a page."""

    row: float
    """y of the row in pixels."""
    fine: int
    """Columns of `y`, `top`, `bottom` and `shared` for each pixel of the page."""
    stroke: float
    """Width of the pen in pixels."""
    y: Float
    """(fine W,) y in pixels of the pen's centre, NaN where there is no ink."""
    top: Float
    """(fine W,) y of the upper edge of the trace's ink, NaN as `y`; `bottom` is the lower edge."""
    bottom: Float
    path: Index
    """(W,) the row of pixels through which the path goes, also where there is no ink."""
    shared: Mask
    """(fine W,): columns whose ink belongs to another row's trace as well."""

    def place(self, x: float) -> float:
        """The fine column of a pixel column of the page."""
        return x * self.fine + (self.fine - 1) / 2

    def pixel(self, place: float) -> float:
        """The pixel column of the page of a fine column."""
        return (place - (self.fine - 1) / 2) / self.fine


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
    height = len(ink.cover)
    reach = int(REACH_MM * ink.down)
    size = min(height, 2 * reach + 1)
    starts = np.clip(np.round(rows).astype(int) - reach, 0, height - size)
    paper = 1 - ink.cover
    along = paper if ink.level is None else np.where(ink.level, np.maximum(paper, ON_LINE), paper)
    if ink.dark and ink.upright is not None:
        paper = np.where(ink.upright, np.maximum(paper, ON_LINE), paper)
    cost = PAPER * np.stack([along[s : s + size] for s in starts])
    climb = np.stack([paper[s : s + size] for s in starts])
    climb = CLIMB + LEAP * np.clip(1 - SURE * (1 - climb), 0, 1)
    for r, (start, row) in enumerate(zip(starts, rows, strict=True)):
        y = np.arange(size) + start
        off = np.abs(y - row)
        near = np.min(
            [np.abs(y - other) for n, other in enumerate(rows) if n != r] or [off + 1], axis=0
        )
        cost[r] += (STRAY * (near < off) + 0.004 * off / ink.down)[:, None].astype(np.float32)
    return _Bands(starts, cost.astype(np.float32), climb.astype(np.float32))


def _paths(bands: _Bands) -> tuple[Index, Index]:
    """The cheapest path of each band: (R, W) where it leaves each column, and (R, W, 2) between
    which y it moves in it."""
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
        ways = np.stack(
            [(before + np.abs(s - s[which, n][:, None])).min(axis=1) for n in near.T], axis=1
        )
        ways += np.array([0, 0.02, 0.02], np.float32)
        y = near[which, np.argmin(ways, axis=1)]
    return paths, moves


# ------------------------------------------------------------------------------------------- from a


def _lines(ink: Ink, rows: tuple[float, ...], paths: Index, moves: Index) -> tuple[Line, ...]:
    fine = max(1, min(4, round(FINE / ink.across)))
    runs = Runs(_filled(ink), fine)
    ends = [runs.along(path, move) for path, move in zip(paths, moves, strict=True)]
    raw = [runs.edges(first, last) for first, last in ends]
    nib = nib_of(raw, moves, ink.cover, (ink.across, ink.down), fine)
    spread = [runs.spread(path) for path in paths]
    owned = part(
        runs.mask, ends, spread, (nib.across * fine, nib.down), (ink.across * fine, ink.down)
    )
    lines = []
    for row, path, move, (top, bottom), own in zip(rows, paths, moves, raw, owned, strict=True):
        hidden = _waves(own.hidden, np.repeat(~_calm(path, move, ink), fine), fine)
        top = np.where(hidden, np.nan, np.clip(top, own.top, own.bottom)).astype(np.float32)
        bottom = np.where(hidden, np.nan, np.clip(bottom, own.top, own.bottom)).astype(np.float32)
        lines.append(
            Line(row, fine, nib.down, centre(top, bottom, nib, fine), top, bottom, path, own.shared)
        )
    return tuple(lines)


def _filled(ink: Ink) -> Float:
    """Fill the narrow holes of the cover (H, W): paper that is enclosed by the flanks of a spike and by
    its baseline, or by a letter that lies across it.

    Where the grid is not much paler than the trace its cells are such holes too, so they stay.
    """
    if ink.upright is not None:
        return ink.cover
    paper = (ink.cover <= RUN).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(paper, connectivity=4)
    narrow = stats[:, cv2.CC_STAT_WIDTH] <= HOLE_MM * ink.across
    narrow[0] = False
    return np.asarray(np.where(narrow[labels], np.float32(1), ink.cover), np.float32)


def _calm(path: Index, move: Index, ink: Ink) -> Mask:
    """(W,): where a path runs along the level that it has for some millimetres."""
    near = max(1, round(0.8 * ink.across))
    spread = (move[:, 1] - move[:, 0]).astype(np.float32)
    steep = cv2.dilate(spread[None], np.ones((1, 2 * near + 1), np.uint8))[0] > 1.5 * ink.down
    wide = round(4 * ink.across) | 1
    level = _median(path, wide)
    return np.asarray(~steep & (np.abs(path - level) < 2 * ink.down))


def _waves(hidden: Mask, steep: Mask, least: int) -> Mask:
    """The hidden columns, and the whole of each steep wave with at least `least` of them: half a
    spike would be a wrong one."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], steep.astype(np.int8), [0]]))).reshape(
        -1, 2
    )
    out = hidden.copy()
    for a, b in edges:
        out[a:b] |= np.count_nonzero(hidden[a:b]) >= least
    return out


def _median(path: Index, window: int) -> Float:
    """The median over a window of columns."""
    padded = np.pad(path, window // 2, mode="edge")
    return np.asarray(
        np.median(np.lib.stride_tricks.sliding_window_view(padded, window), axis=1), np.float32
    )
