"""Separate the ink of the traces from paper and grid.

In: an upright RGB page with rows along its x axis, and its scale. Out: `Ink`, a map of how surely
each pixel is trace.

A coloured grid vanishes in the brightest channel of the picture. Where its lines are darker, ink
along them has to be darker than they are (grid.py knows where they lie, on a bent page too).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from pulse_edge.measurement.darkness import brightest, darkest, darkness
from pulse_edge.measurement.grid import SPACING_MM, GridMap, Shades, follow_grid, straightened

Pixels = npt.NDArray[np.uint8]
Float = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

FAINTEST = 0.10
"""Share of the paper's brightness that a trace is darker at least."""
STRIPE_MM = 0.35
"""Half the width of the stripe along a line of the grid in which a trace has to be darker than the
line."""
STEEP_MM = 0.8
"""A stroke that is as high on either side of a line goes on behind it."""
LINE_MM = 0.6
"""Half the width of the stripe in which the darkness of a line is measured."""
RUN_MM = 24.0
"""Length over which it is: more than a trace runs along a line."""
MARGIN = 0.08
"""By how much of solid ink a pixel on a line is darker than the line at least."""
SOLID = 0.994
"""Quantile of depth that is solid ink: of traces and letters together a page has some hundredths."""
CERTAIN = 0.75
"""Depth over that of solid ink from which on a pixel is no line of a pale grid."""
COMPETING = 0.25
"""Depth of the grid's lines over that of the trace from which on their colour is looked at."""
TINTED, TINT = 0.025, 6.0
"""By how much a grid is more coloured than the ink at least, and how much depth a pixel loses at
most for each share of that."""
MOST_LINES = 0.6
"""Share of a coloured grid's pixels that vanish with their colour where less than TINT suffices."""
PALE = 0.8
"""Depth of the grid's lines over that of the trace below which the two are told apart by depth
alone."""
COVERED = 0.2
"""Share of the stripes of a grid's lines that is as dark as the trace from which on the lines are;
a line takes a third."""
RULE_MM, FRAME = 25.0, 0.5
"""Least length of a printed rule, and share of the page that a frame spans; the uprights of a pulse
have 20 mm at most."""
PALEST = 0.35
"""Cover of the middle of a stroke from which on it is ink; a stroke thinner than a pixel that lies
on two has half."""


@dataclass(frozen=True, eq=False)
class Ink:
    """How surely each pixel is trace."""

    cover: Float
    """(H, W) 0..1: 0 is paper or grid, 1 is solid ink; the edges of a stroke are in between, by how
    much they cover."""
    upright: Mask | None
    """(H, W): where the upright lines of a grid lie that is not much paler than the trace; None for
    a pale grid."""
    level: Mask | None
    """(H, W): where its level lines lie."""
    dark: bool
    """Whether they are as dark as the trace, which then cannot be told from them."""
    across: float
    """Pixels per millimetre along the rows."""
    down: float
    """Pixels per millimetre over the rows."""

    @property
    def mask(self) -> Mask:
        """(H, W): what is more ink than paper."""
        return np.asarray(self.cover > 0.5)

    @property
    def mm(self) -> float:
        """Pixels per millimetre, both ways."""
        return math.sqrt(self.across * self.down)


def find_ink(page: Pixels, grid: GridMap, *, has_grid: bool = True) -> Ink:
    """Find the ink of a page (H, W, 3) whose grid lies as in `grid`; `has_grid` is false where there is
    none."""
    depth = darkness(brightest(page), (grid.across * grid.down) ** 0.5)
    solid = max(float(np.quantile(depth[::2, ::2], SOLID)), 2 * FAINTEST)
    if not has_grid:
        return Ink(
            _cover(depth, _floor(depth, solid), solid), None, None, False, grid.across, grid.down
        )
    upright, level = grid.lines(depth.shape, STRIPE_MM)
    lines = upright | level
    floor = _floor(depth[~lines], solid)
    drawn, dark = _drawn(depth, lines, solid)
    if drawn > COMPETING * solid or dark:
        tint = _tint(page, depth, lines, solid)
        if tint is not None and not dark:
            del tint, lines  # on a large page they take 20 MB
            cover = _above_lines(depth, grid, floor, solid)
            return Ink(cover, upright, level, False, grid.across, grid.down)
        if tint is not None:
            plain = _without_tint(depth, tint)
            solid = max(0.7 * solid, float(np.quantile(plain[::2, ::2], SOLID)))
            cover = _cover(plain, _floor(plain, solid), solid)
            return Ink(cover, upright, level, False, grid.across, grid.down)
    if dark:
        return Ink(_cover(depth, floor, solid), upright, level, True, grid.across, grid.down)
    cover = _cover(depth, np.where(lines, max(drawn, floor), floor), solid)
    if drawn > COMPETING * solid:
        raw = np.clip((depth - max(drawn, floor)) / max(solid - max(drawn, floor), 1e-3), 0, 1)
        cover = np.where(lines, raw, cover).astype(np.float32)
        cover = _bridged(cover, level, grid.down)
        return Ink(cover, upright, level, False, grid.across, grid.down)
    return Ink(cover, None, None, False, grid.across, grid.down)


def find_grid(page: Pixels, across: float, down: float) -> tuple[Pixels, GridMap]:
    """Follow the grid of a page (H, W, 3), draw the page straight, and give the map of that;
    `across` and `down` are mean pixels per mm."""
    mm = (across * down) ** 0.5
    dark, bright = darkness(darkest(page), mm), darkness(brightest(page), mm)
    solid = max(float(np.quantile(bright[::2, ::2], SOLID)), 2 * FAINTEST)
    shades = Shades(dark, np.maximum(dark - bright, 0), bright > CERTAIN * solid)
    return straightened(page, follow_grid(shades, across, down))


def without_frame(ink: Ink) -> Ink:
    """Take out a frame that is printed round the traces: straight level and upright lines that meet
    and span the page."""
    height, width = ink.cover.shape
    mask = ink.mask.astype(np.uint8)
    level = cv2.morphologyEx(
        mask, cv2.MORPH_OPEN, np.ones((1, round(RULE_MM * ink.across)), np.uint8)
    )
    upright = cv2.morphologyEx(
        mask, cv2.MORPH_OPEN, np.ones((round(RULE_MM * ink.down), 1), np.uint8)
    )
    near = np.ones((5, 5), np.uint8)
    rules = cv2.dilate(level | upright, near)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(rules, connectivity=8)
    spans = (stats[:, cv2.CC_STAT_WIDTH] > FRAME * width) & (
        stats[:, cv2.CC_STAT_HEIGHT] > FRAME * height
    )
    spans[0] = False
    if not spans.any():
        return ink
    frame = spans[labels] & (cv2.dilate(level | upright, np.ones((3, 3), np.uint8)) > 0)
    return replace(ink, cover=np.where(frame, np.float32(0), ink.cover))


def _bridged(cover: Float, level: Mask, down: float) -> Float:
    """The cover (H, W) with steep strokes made whole where they cross a level line of the grid that
    is as dark as they are."""
    steep = np.ones((max(3, round(STEEP_MM * down)), 1), np.uint8)
    reach = np.ones((round(2 * STRIPE_MM * down) + 3, 1), np.uint8)
    off = cv2.morphologyEx(np.where(level, np.float32(0), cover), cv2.MORPH_OPEN, steep)
    over = cv2.morphologyEx(off, cv2.MORPH_CLOSE, reach)
    return np.asarray(np.where(level, np.maximum(cover, over), cover), np.float32)


def _above_lines(depth: Float, grid: GridMap, floor: float, solid: float) -> Float:
    """The cover (H, W) by what is darker than the line of the grid under it.

    Taking the colour of the grid out of a photograph cuts a steep stroke where it crosses a line:
    JPEG has spread the colour over the stroke. A line is as dark along all its length.
    """
    under = _line_depth(depth, grid)
    raised = np.clip(under + np.float32(MARGIN * solid), floor, PALE * solid, dtype=np.float32)
    cover = _cover(depth, raised, solid)
    line = under > 0
    cover[line] = np.clip((depth[line] - raised[line]) / (solid - raised[line]), 0, 1)
    return cover


def _line_depth(depth: Float, grid: GridMap) -> Float:
    """How dark the line of the grid is that a pixel (H, W) lies on: the median along the line over
    RUN_MM; 0 between the lines.

    Where a trace crosses a line, the median is that of the line alone.
    """
    out = np.zeros_like(depth)
    for axis, scale in ((1, grid.across), (0, grid.down)):
        across = depth if axis == 1 else np.ascontiguousarray(depth.T)
        shift = float(np.median(grid.shift[1 - axis]))
        width = across.shape[1]
        first = np.ceil(-shift / SPACING_MM) * SPACING_MM + shift
        centres = np.arange(first * scale, width, SPACING_MM * scale)
        reach = round(LINE_MM * scale)
        columns = np.round(centres).astype(int)[:, None] + np.arange(-reach, reach + 1)
        columns = np.unique(np.clip(columns, 0, width - 1))
        step = max(2, round(scale))
        size = len(columns), max(1, len(across) // step)
        blocks = cv2.resize(
            np.ascontiguousarray(across[:, columns]), size, interpolation=cv2.INTER_AREA
        )
        blocks = cv2.dilate(blocks, np.ones((1, 3), np.uint8))
        half = max(1, round(RUN_MM * scale / step / 2))
        padded = np.pad(blocks, ((half, half), (0, 0)), mode="reflect")
        usual = np.median(
            np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1, axis=0), axis=2
        )
        usual = cv2.resize(
            usual.astype(np.float32), (len(columns), len(across)), interpolation=cv2.INTER_LINEAR
        )
        target = out if axis == 1 else out.T
        target[:, columns] = np.maximum(target[:, columns], usual)
    return out


@dataclass(frozen=True, eq=False)
class _Tint:
    """The colour of a grid."""

    along: Float
    """(H, W) how much each pixel has of it."""
    share: float
    """Depth that vanishes with each share of it."""


def _tint(page: Pixels, depth: Float, lines: Mask, solid: float) -> _Tint | None:
    """Measure the colour of the grid; None where the grid is as neutral as the ink.

    In a photograph of a red grid its lines are nearly as dark as the trace, and coloured. The
    darkness of a pixel in the three channels is ink plus grid, each in its own colour.
    """
    mm = max(2.0, depth.shape[1] / 300)
    colours = np.stack([darkness(channel, mm) for channel in cv2.split(np.ascontiguousarray(page))])
    ridge = lines & (depth >= cv2.dilate(depth, np.ones((3, 3), np.uint8)))
    on_grid = ridge & (depth > 0.3 * solid) & (depth < 0.75 * solid)
    on_ink = (depth > 0.9 * solid) & ~lines
    if np.count_nonzero(on_grid) < 100 or np.count_nonzero(on_ink) < 100:
        return None
    grid, ink = (np.median(colours[:, where], axis=1) for where in (on_grid, on_ink))
    ink = ink / ink.mean()
    tint = grid - grid.mean() * ink
    strength = float(np.linalg.norm(tint))
    if strength < TINTED:
        return None
    along = np.tensordot(tint / strength, colours - colours.mean(axis=0) * ink[:, None, None], 1)
    along = cv2.blur(along.astype(np.float32), (3, 3))
    ratio = depth[on_grid] / np.maximum(along[on_grid], 1e-3)
    return _Tint(along, min(float(np.quantile(ratio, MOST_LINES)), TINT))


def _without_tint(depth: Float, tint: _Tint) -> Float:
    """Take the colour of the grid out of the depth (H, W)."""
    return np.asarray(np.maximum(depth - tint.share * np.maximum(tint.along, 0), 0), np.float32)


def _drawn(depth: Float, lines: Mask, solid: float) -> tuple[float, bool]:
    """How dark the lines of a grid are at most, and whether they are as dark as the trace."""
    if float((depth[lines] > PALE * solid).mean()) > COVERED:
        return 0.0, True
    ridge = (depth >= cv2.dilate(depth, np.ones((3, 3), np.uint8))) & lines
    every = depth[ridge & (depth > 0.12 * solid)]
    pale = every[every < PALE * solid]
    if pale.size <= 0.35 * every.size:
        return 0.0, False
    return min(float(np.quantile(pale, 0.9)), PALE * solid), False


def _floor(depth: Float, solid: float) -> float:
    """Depth up to which a pixel is paper or grid: above the bulk of what is no ink."""
    pale = depth[depth < 0.6 * solid]
    if not pale.size:
        return 0.05
    return float(np.clip(np.quantile(pale[::7], 0.97), 0.03, 0.45 * solid))


def _cover(depth: Float, floor: Float | float, solid: float) -> Float:
    """How much ink covers each pixel, 0..1; a stroke that is too thin to be solid counts as solid
    along its middle."""
    cover = np.clip((depth - floor) / np.maximum(solid - floor, 1e-3), 0, 1).astype(np.float32)
    middle = cv2.dilate(cover, np.ones((3, 3), np.uint8))
    return np.asarray(cover / np.maximum(middle, PALEST), np.float32)
