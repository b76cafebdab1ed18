"""The edges of a photographed sheet, as straight lines in the flattened view.

In the view that `Plane` gives, edges run straight across or down. Rays go outward from the grid to
the strongest step from paper to something darker or of another colour, and a line is fitted to the
steps of each side (RANSAC).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from pulse_edge.common.arrays import Float, Mask, Pixels, Points
from pulse_edge.page.channels import brightest, reduced
from pulse_edge.page.grid import PATCH
from pulse_edge.page.plane import Plane, project

_VIEW = 640
"""Longer side of the flattened view in pixels."""
_REACH = 7
"""Pixels of the flattened view that are averaged on each side of a step."""
_SAMPLE, _BLOCK, _SHALLOW, _DEPTH = 0.2, 6.0, 3.0, 12.0
"""Periods of the grid: between samples, of a block along an edge, and between which depths a block
tells whether there is a grid."""
_CONTINUES = 0.6
"""Amplitude of the grid outside an edge over that inside from which on it is no edge:
at the edges of 34 photographed sheets it is at most 0.34, at folds 0.8 to 1.0."""


@dataclass(frozen=True)
class SheetEdges:
    """The lines that a sheet's edges lie on."""

    lines: tuple[tuple[float, float] | None, ...]
    """(a, b) of the left, top, right and bottom edge in periods of the grid, None for an edge that
    does not show.

    u = a + b v for left and right, v = a + b u for top and bottom.
    """

    @property
    def count(self) -> int:
        """How many edges show."""
        return sum(line is not None for line in self.lines)

    @property
    def visible(self) -> tuple[bool, bool, bool, bool]:
        """Whether the left, top, right and bottom edge show."""
        left, top, right, bottom = (line is not None for line in self.lines)
        return left, top, right, bottom


def find_edges(work: Pixels, plane: Plane) -> SheetEdges:
    """Find the edges of the sheet that lie in a reduced picture (H, W, 3)."""
    rows, columns = work.shape[:2]
    box = project(np.array([[0, 0], [columns, 0], [columns, rows], [0, rows]], float), plane.matrix)
    low, high = box.min(axis=0), box.max(axis=0)
    k = _VIEW / float((high - low).max())
    view = np.array([[k, 0, -k * low[0]], [0, k, -k * low[1]], [0, 0, 1]])
    size = tuple(int(v) for v in np.ceil(k * (high - low)))
    small, scale = reduced(work, 900)
    matrix = view @ plane.matrix @ np.diag([1 / scale, 1 / scale, 1])
    # Closing removes grid, trace and text before the view shrinks them.
    closed = cv2.medianBlur(cv2.morphologyEx(small, cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8)), 5)
    flat = np.asarray(cv2.warpPerspective(closed, matrix, size, flags=cv2.INTER_LINEAR))
    inside = (
        np.asarray(cv2.warpPerspective(np.full(closed.shape[:2], 255, np.uint8), matrix, size))
        > 250
    )
    inside = np.asarray(cv2.erode(inside.astype(np.uint8), np.ones((3, 3), np.uint8))) > 0
    grid = project(plane.centres, view @ plane.matrix)
    half = 0.5 * PATCH * k * float(np.abs(np.linalg.det(plane.matrix[:2, :2])) ** 0.5)
    lines: list[tuple[float, float] | None] = []
    for side in range(4):
        # Each side is sought as the right one, in a view that is transposed and mirrored for it.
        swap, mirror = side in (1, 3), side in (0, 1)
        picture, valid, centres = (
            (flat.transpose(1, 0, 2), inside.T, grid[:, ::-1]) if swap else (flat, inside, grid)
        )
        width = picture.shape[1]
        if mirror:
            picture, valid = picture[:, ::-1], valid[:, ::-1]
            centres = np.stack([width - 1 - centres[:, 0], centres[:, 1]], axis=1)
        line = _right_edge(np.ascontiguousarray(picture), valid, centres, half)
        if line is not None:
            a, b = line
            if mirror:
                a, b = width - 1 - a, -b
            # Axes of `low`: the one that the line runs along, and the other.
            along, over = (0, 1) if swap else (1, 0)
            line = a / k + low[over] - b * low[along], b
            if _grid_continues(work, plane, side, line):
                line = None  # a fold or a shadow, and paper on both sides of it
        lines.append(line)
    return SheetEdges(tuple(lines))


def _grid_continues(work: Pixels, plane: Plane, side: int, line: tuple[float, float]) -> bool:
    """Whether the grid goes on outside an edge, as it does where a fold or a shadow looks like one.

    `line` is (a, b) of SheetEdges. The wave of the grid is looked for in blocks of the picture
    (H, W, 3) on either side of the edge, as deep as the picture is there.
    """
    over = 0 if side in (0, 2) else 1
    way = -1.0 if side < 2 else 1.0
    centres = project(plane.centres, plane.matrix)
    first, last = float(centres[:, 1 - over].min()), float(centres[:, 1 - over].max())
    along = np.arange(first, last, _SAMPLE, dtype=np.float32)
    depth = np.arange(_SAMPLE, _DEPTH, _SAMPLE, dtype=np.float32)
    waves = [_wave(work, plane, over, line, along, way * sign * (depth + 0.3)) for sign in (1, -1)]
    outside, inside = waves
    return outside is not None and inside is not None and outside > _CONTINUES * inside


def _wave(
    work: Pixels,
    plane: Plane,
    over: int,
    line: tuple[float, float],
    along: Float,
    depth: Float,
) -> float | None:
    """The usual amplitude of the grid's wave in blocks next to a line; None where too little of
    them lies in the picture."""
    edge = line[0] + line[1] * along[:, None] + depth[None]
    points = np.stack([edge, np.broadcast_to(along[:, None], edge.shape)], axis=-1)
    points = points if over == 0 else points[..., ::-1]
    place = project(points.reshape(-1, 2), np.linalg.inv(plane.matrix)).astype(np.float32)
    place = place.reshape(*edge.shape, 2)
    height, width = work.shape[:2]
    valid = np.all((place >= 1) & (place < [width - 2, height - 2]), axis=-1)
    grey = cv2.remap(work.min(axis=2), place[..., 0], place[..., 1], cv2.INTER_LINEAR).astype(
        np.float32
    )
    size = round(_BLOCK / _SAMPLE)
    amplitudes = []
    for rows in range(0, len(along) - size + 1, size):
        block = slice(rows, rows + size)
        part, there = grey[block], valid[block]
        if there.mean(axis=0).sum() * _SAMPLE < _SHALLOW:  # a single step would look like a wave
            continue
        turn = np.exp(2j * np.pi * edge[block])
        rest = np.where(there, part - part[there].mean(), 0)
        amplitudes.append(abs((rest * turn).sum()) / there.sum())
    return float(np.median(amplitudes)) if len(amplitudes) > 2 else None


def _right_edge(
    flat: Pixels, inside: Mask, grid: Points, half: float
) -> tuple[float, float] | None:
    """Return a and b of the sheet's right edge x = a + b y, or None where it does not show.

    `flat` (H, W, 3) is the flattened view, `inside` (H, W) the part of it that lies in the picture,
    `grid` (n, 2) the centres of patches with a grid, and `half` half a patch in pixels.
    """
    steps = _steps(flat)
    steps[:, : _REACH + 1] = 0
    padded = np.pad(inside, ((0, 0), (0, _REACH)))
    steps[~padded[:, _REACH:]] = 0
    top, bottom = (
        max(0, int(grid[:, 1].min() - 0.5 * half)),
        min(len(flat), int(grid[:, 1].max() + 0.5 * half)),
    )
    rows, columns, heights = [], [], []
    for y in range(top, bottom, 2):
        near = grid[np.abs(grid[:, 1] - y) < 1.2 * half]
        if not len(near) or not inside[y].any():
            continue
        start = max(0, int(near[:, 0].max() - 0.6 * half))
        if start >= flat.shape[1] - 2:
            continue
        x = start + int(np.argmax(steps[y, start:]))
        rows.append(y)
        columns.append(x)
        heights.append(steps[y, x])
    if len(rows) < 12:
        return None
    return _line(
        np.array(rows, float), np.array(columns, float), np.array(heights), padded[:, _REACH:]
    )


def _steps(flat: Pixels) -> Float:
    """Return (H, W), 0 and more: how clearly paper on the left turns into something else on the
    right."""
    mean = cv2.blur(flat.astype(np.float32), (_REACH, 3))
    shift = (_REACH + 1) // 2 + 1
    left, right = np.zeros_like(mean), np.zeros_like(mean)
    left[:, shift:] = mean[:, :-shift]
    right[:, :-shift] = mean[:, shift:]
    bright_left, bright_right = brightest(left), brightest(right)
    drop = (bright_left - bright_right) / np.maximum(bright_left, 30)
    colour_left, colour_right = (x / np.maximum(_total(x), 60)[..., None] for x in (left, right))
    colour = _total(np.abs(colour_left - colour_right))
    step = np.maximum(drop, 0) + 2.5 * colour
    step[(drop < -0.1) | (bright_left < 50)] = 0  # paper is not darker than what it lies on
    return np.asarray(step, np.float32)


def _total(picture: Float) -> Float:
    """Return (H, W), the sum of the channels."""
    return np.asarray(picture[..., 0] + picture[..., 1] + picture[..., 2], np.float32)


def _line(
    rows: Points, columns: Points, heights: Points, inside: Mask
) -> tuple[float, float] | None:
    """Fit the line that carries the most step height; None where less than half of it shows steps.

    `rows`, `columns` and `heights` (n,) are the strongest steps; 400 random pairs of them are
    tried.
    """
    strong = heights > 0.13
    if strong.sum() < 10:
        return None
    picks = np.random.default_rng(0).choice(np.flatnonzero(strong), (400, 2))
    apart = rows[picks[:, 1]] - rows[picks[:, 0]]
    slopes = (columns[picks[:, 1]] - columns[picks[:, 0]]) / np.where(apart == 0, 1, apart)
    fair = (np.abs(apart) >= 0.1 * np.ptp(rows)) & (np.abs(slopes) < 0.12)
    if not fair.any():
        return None
    picks, slopes = picks[fair], slopes[fair]
    off = np.abs(columns - columns[picks[:, :1]] - slopes[:, None] * (rows - rows[picks[:, :1]]))
    weights = np.minimum(heights, 0.6) * strong
    on_line = off[int(np.argmax((weights * np.maximum(0, 1 - (off / 4) ** 2)).sum(axis=1)))] < 4
    on_line &= strong
    b, a = np.polyfit(rows[on_line], columns[on_line], 1)
    expected = np.round(a + b * rows).astype(int)
    visible = (expected >= 0) & (expected < inside.shape[1])
    visible[visible] = inside[rows[visible].astype(int), expected[visible]]
    if (
        on_line.sum() < 12
        or on_line.sum() < 0.15 * len(rows)
        or (on_line & visible).sum() < 0.5 * visible.sum()
    ):
        return None
    return float(a), float(b)
