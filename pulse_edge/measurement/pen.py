"""Where the centre of the pen went that drew a stroke, given the edges of its ink.

The ink is what a round nib covers. Taking half a nib off all round leaves the line along which its
centre went; where strokes lie too close together to be told apart an area is left: there the trace
turns, and the centre went along the outer edge of the area.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from pulse_edge.measurement.runs import Runs

Float = npt.NDArray[np.float32]
Index = npt.NDArray[np.int64]

STRETCH_MM = 1.5
"""Millimetres over which the least height of level ink counts, since noise is no wider pen."""
LEVEL = 0.5
"""Quantile of the heights of level ink that is the height of the nib."""
STEEP_MM = 1.5
"""A path that climbs more than this in a column of pixels runs along a steep stroke."""
FLANK = 0.4
"""Quantile of the widths of steep strokes that is the width of the nib: where two of them touch
they are wider."""
FLANKS = 60
"""Places on steep strokes from which on their width counts."""
BLUNT = 0.3
"""Pixels by which the tip of a peak may lie off the line that the nib leaves."""


@dataclass(frozen=True)
class Nib:
    """The pen's nib in pixels."""

    across: float
    """Width of its steep strokes."""
    down: float
    """Height of its level strokes."""


def nib_of(
    edges: list[tuple[Float, Float]],
    moves: Index,
    cover: Float,
    scale: tuple[float, float],
    fine: int,
) -> Nib:
    """Measure the nib of a page on the edges (fine columns) of its rows, and on the steep strokes
    of their paths in the cover (H, W).

    `moves` (R, W, 2): between which y the paths move in each column. `scale`: pixels per
    millimetre across and down.
    """
    down = _height(edges, (scale[0] * scale[1]) ** 0.5, fine)
    across = _width(moves, cover, scale)
    return Nib(down if across is None else min(across, 1.1 * down), down)


def _height(edges: list[tuple[Float, Float]], mm: float, fine: int) -> float:
    """The usual height of a run of ink where the trace is level."""
    window = np.ones((1, max(1, round(STRETCH_MM * mm * fine))), np.uint8)
    least = []
    for top, bottom in edges:
        height = np.where(np.isfinite(top), bottom - top, np.inf).astype(np.float32)
        low = cv2.erode(np.nan_to_num(height, posinf=1e6)[None], window)[0]
        least.append(low[np.isfinite(height) & (low < 3 * mm)])
    every = np.concatenate(least)
    return float(np.quantile(every, LEVEL)) if every.size else 1.0


def _width(moves: Index, cover: Float, scale: tuple[float, float]) -> float | None:
    """The usual width of a steep stroke in pixels; None where there are few."""
    across, down = scale
    turned = Runs(np.ascontiguousarray(cover.T), 1)
    margin = round(0.4 * down)
    places = [
        (y, x)
        for move in moves
        for x in np.flatnonzero(move[:, 1] - move[:, 0] > STEEP_MM * down)
        for y in range(move[x, 0] + margin, move[x, 1] - margin + 1)
    ]
    if len(places) < FLANKS:
        return None
    y, x = np.array(places, np.int64).T
    inside = turned.mask[x, y]
    y, x = y[inside], x[inside]
    left, right = turned.edges(
        turned.first[x, y].astype(np.int64), turned.last[x, y].astype(np.int64), y
    )
    width = right - left
    width = width[width < 3 * across]
    return float(np.quantile(width, FLANK)) if width.size >= FLANKS else None


def centre(top: Float, bottom: Float, nib: Nib, fine: int) -> Float:
    """Where the pen's centre was, a fine column each, between the edges of its ink."""
    upper, lower = _limit(top, nib, fine), -_limit(-bottom, nib, fine)
    middle = (upper + lower) / 2
    thick = np.nan_to_num(lower - upper) > max(1.0, 0.5 * nib.down)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], thick.astype(np.int8), [0]]))).reshape(
        -1, 2
    )
    pen = middle.copy()
    for a, b in edges:
        left = middle[a - 1] if a and np.isfinite(middle[a - 1]) else middle[a]
        right = middle[b] if b < len(pen) and np.isfinite(middle[b]) else middle[b - 1]
        base = np.linspace(left, right, b - a + 2)[1:-1]
        over, under = np.maximum(base - upper[a:b], 0), np.maximum(lower[a:b] - base, 0)
        upwards = over >= under
        tips = _tips(upper, lower, a, b)
        if tips[0] != tips[1]:
            upwards = np.full(b - a, tips[0])
        pen[a:b] = np.where(upwards, upper[a:b], lower[a:b])
        clear = np.maximum(over, under) > 0.5
        pen[a:b] = np.where(clear, pen[a:b], middle[a:b])
    return np.asarray(pen, np.float32)


def _tips(upper: Float, lower: Float, a: int, b: int) -> tuple[bool, bool]:
    """Whether the ink of columns a to b, b excluded, goes higher than that on either side of them,
    and whether it goes lower: between the flanks of a spike the other end of the ink is only where
    they meet."""
    if a == 0 or b == len(upper):
        return False, False
    above = min(upper[a - 1], upper[b]) - upper[a:b].min()
    below = lower[a:b].max() - max(lower[a - 1], lower[b])
    return bool(above > BLUNT), bool(below > BLUNT)


def _limit(edge: Float, nib: Nib, fine: int) -> Float:
    """The upper edge of a stroke -> the upper limit of where the nib's centre was, a fine column
    each."""
    out = edge + np.float32(nib.down / 2)
    x = np.arange(len(edge), dtype=np.float32)
    for share in np.linspace(0, 1, 6)[1:]:
        lift = np.float32(nib.down / 2 * np.sqrt(max(1 - share**2, 0)))
        by = share * nib.across / 2 * fine
        out = np.fmax(out, np.fmax(_between(edge, x - by), _between(edge, x + by)) + lift)
    out = np.where(np.isfinite(edge), out, np.nan).astype(np.float32)
    return _with_tips(out, edge, nib, fine)


def _with_tips(limit: Float, edge: Float, nib: Nib, fine: int) -> Float:
    """The limit with the tips of peaks that are narrower than the picture shows.

    A flank that is off by a tenth of a pixel moves the tip between two steep flanks by pixels; the
    edge of the tip itself tells its height.
    """
    reach = max(1, round(nib.across / 2 * fine))
    padded = np.nan_to_num(edge, nan=1e6).astype(np.float32)
    highest = cv2.erode(padded[None], np.ones((1, 2 * reach + 1), np.uint8))[0]
    level = (padded <= highest + BLUNT) & np.isfinite(edge)
    runs = np.flatnonzero(np.diff(np.concatenate([[0], level.astype(np.int8), [0]]))).reshape(-1, 2)
    out = limit.copy()
    for a, b in runs:
        tip = float(edge[a:b].min()) + nib.down / 2
        if b - a <= 3 * reach and float(limit[a:b].min()) > tip + BLUNT:
            out[(a + b - 1) // 2] = tip
    return out


def _between(values: Float, x: Float) -> Float:
    """The values at fractions of a column; those at the ends repeat."""
    x = np.clip(x, 0, len(values) - 1)
    low = np.floor(x).astype(np.int64)
    share = x - low
    return np.asarray(
        values[low] * (1 - share) + values[np.minimum(low + 1, len(values) - 1)] * share, np.float32
    )
