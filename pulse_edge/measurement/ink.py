"""Separate the ink of the traces from paper and grid.

In: an upright RGB page with rows along its x axis, and its scale. Out: `Ink`, a map of how surely each pixel is trace.

A coloured grid vanishes in the brightest channel of the picture. A dark grid is found by its phase: the page is multiplied by
the wave of the grid's own spacing and smoothed over two cells, and the phase that remains tells how far its lines lie from where
they should. That follows a bent page, and gives the local distortion of the grid as well (see grid.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Float = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

FAINTEST = 0.10
"""Share of the paper's brightness that a trace is darker at least."""
SOLID = 0.994
"""Quantile of depth that is solid ink: of traces and letters together a page has some hundredths."""
PALE = 0.8
"""Depth of the grid's lines over that of the trace below which the two are told apart by depth alone."""
COVERED = 0.2
"""Share of the stripes of a grid's lines that is as dark as the trace from which on the lines are; a line takes a third."""
PALEST = 0.35
"""Cover of the middle of a stroke from which on it is ink; a stroke thinner than a pixel that lies on two has half."""


@dataclass(frozen=True, eq=False)
class Ink:
    """How surely each pixel is trace."""

    cover: Float
    """(H, W) 0..1: 0 is paper or grid, 1 is solid ink; the edges of a stroke are in between, by how much they cover."""
    lines: Mask | None
    """(H, W): where the lines of a dark grid lie, on which a trace cannot be told from the grid; None for a pale grid."""
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
        return (self.across * self.down) ** 0.5


def find_ink(page: Pixels, across: float, down: float, *, grid: bool = True) -> Ink:
    """Find the ink of a page (H, W, 3); `across` and `down` in pixels per mm, `grid` false where none was found."""
    mm = (across * down) ** 0.5
    depth = darkness(brightest(page), mm)
    solid = float(np.quantile(depth[::2, ::2], SOLID))
    solid = max(solid, 2 * FAINTEST)
    if not grid:
        return Ink(_cover(depth, _floor(depth, solid), solid), None, across, down)
    lines = grid_lines(np.minimum(depth, 0.7 * solid), across, down)
    floor = _floor(depth[~lines], solid)
    drawn, dark = _drawn(depth, lines, solid)
    if dark:
        return Ink(_cover(depth, floor, solid), lines, across, down)
    return Ink(_cover(depth, np.where(lines, max(drawn, floor), floor), solid), None, across, down)


def _drawn(depth: Float, lines: Mask, solid: float) -> tuple[float, bool]:
    """How dark the lines of a grid are at most, and whether they are as dark as the trace."""
    ridge = (depth >= cv2.dilate(depth, np.ones((3, 3), np.uint8))) & lines
    every = depth[ridge & (depth > 0.12 * solid)]
    pale = every[every < PALE * solid]
    if pale.size > 0.35 * every.size:
        return min(float(np.quantile(pale, 0.9)), PALE * solid), False
    return 0.0, float((depth[lines] > PALE * solid).mean()) > COVERED


def brightest(page: Pixels) -> Pixels:
    """Give the largest channel (H, W) of a page (H, W, 3)."""
    red, green, blue = cv2.split(np.ascontiguousarray(page))
    return np.asarray(cv2.max(cv2.max(red, green), blue), np.uint8)


def darkest(page: Pixels) -> Pixels:
    """Give the smallest channel (H, W) of a page (H, W, 3)."""
    red, green, blue = cv2.split(np.ascontiguousarray(page))
    return np.asarray(cv2.min(cv2.min(red, green), blue), np.uint8)


def darkness(grey: Pixels, mm: float) -> Float:
    """Give how much darker each pixel (H, W) is than the paper round it, 0..1; `mm` in pixels."""
    small = max(1, int(mm / 2))
    size = max(1, grey.shape[1] // small), max(1, grey.shape[0] // small)
    peak = cv2.dilate(grey, np.ones((small | 1,) * 2, np.uint8)) if small > 1 else grey
    paper = cv2.resize(peak, size, interpolation=cv2.INTER_NEAREST)
    step = mm / small
    paper = cv2.blur(cv2.dilate(paper, np.ones((_odd(2.5 * step),) * 2, np.uint8)), (_odd(6 * step),) * 2)
    paper = cv2.resize(paper, (grey.shape[1], grey.shape[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.subtract(paper, grey).astype(np.float32) / np.maximum(paper, 40))


def _floor(depth: Float, solid: float) -> float:
    """Depth up to which a pixel is paper or grid: above the bulk of what is no ink."""
    pale = depth[depth < 0.6 * solid]
    if not pale.size:
        return 0.05
    return float(np.clip(np.quantile(pale[::7], 0.97), 0.03, 0.45 * solid))


def _cover(depth: Float, floor: Float | float, solid: float) -> Float:
    """How much ink covers each pixel, 0..1; a stroke that is too thin to be solid counts as solid along its middle."""
    cover = np.clip((depth - floor) / np.maximum(solid - floor, 1e-3), 0, 1).astype(np.float32)
    middle = cv2.dilate(cover, np.ones((3, 3), np.uint8))
    return np.asarray(cover / np.maximum(middle, PALEST), np.float32)


def grid_lines(dark: Float, across: float, down: float, spacing: float = 5.0) -> Mask:
    """Find where (H, W) the lines of a grid of `spacing` mm lie; `across`, `down` in pixels per mm."""
    lines = np.zeros(dark.shape, bool)
    for axis, mm in ((1, across), (0, down)):
        phase = 2 * np.pi * np.arange(dark.shape[axis]) / (spacing * mm)
        shape = (1, -1) if axis == 1 else (-1, 1)
        cosine, sine = (f(phase).astype(np.float32).reshape(shape) for f in (np.cos, np.sin))
        size = (_odd(2.4 * spacing * mm),) * 2
        real, imaginary = (cv2.blur(cv2.blur(dark * wave, size), size) for wave in (cosine, sine))
        near = (real * cosine + imaginary * sine) / (np.hypot(real, imaginary) + 1e-9)
        lines |= near > np.cos(2 * np.pi * 0.35 / spacing)
    return lines


def _odd(size: float) -> int:
    return max(3, int(size) | 1)
