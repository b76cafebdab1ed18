"""Follow a page's grid, however it is bent: from pixels to millimetres of paper.

In: how dark the page is, and the mean scale of its grid. Out: `GridMap`. The page is multiplied by
the wave of the grid's own spacing and smoothed over some cells; the phase that remains tells how
far the lines lie from where an even grid has them. The phases are unwrapped from the clearest place
outwards.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float32]
Complex = npt.NDArray[np.complex64]
Mask = npt.NDArray[np.bool_]

FINE = 2.0
"""Pixels per millimetre at which lines 5 mm apart are followed."""
SPACING_MM = 5.0
WINDOW_MM = 4.0
"""Sigma of the window over which the phase is smoothed."""
NODE_MM = 1.5
"""Distance of the places for which a phase is kept."""
CLEAR = 2.5
"""Amplitude of the grid's wave over that of waves that no grid has, from which on it is followed."""
EVEN_MM = 0.2
"""Three quarters of the page lie as near as that to where an even grid would have them: then it is
even."""
COARSE_MM = 7.0
"""Sigma of the window over which phases are smoothed to be unwrapped."""
CROWDED = 0.05
"""Share of the page that is as dark as ink from which on the grid may be as dark."""
_BESIDE = (0.68, 1.6)
"""Periods over that of the lines at which no grid has a wave."""
_FAINT = 0.3
"""Share of the usual amplitude below which a place takes its phase from its neighbours."""


@dataclass(frozen=True, eq=False)
class GridMap:
    """Where the points of a page lie on its paper, in millimetres."""

    across: float
    """Mean pixels per millimetre along the rows."""
    down: float
    node: tuple[float, float]
    """Distance of the nodes across and down in pixels; the first lies half of that from the page's
    corner."""
    shift: Float
    """(2, h, w) millimetres that the grid is moved right and down at each node; all zero on an even
    page."""

    def millimetres(self, x: Float, y: Float) -> tuple[Float, Float]:
        """Millimetres to the right and down of points given in pixels."""
        moved = [
            _sampled(field, (x + 0.5) / self.node[0] - 0.5, (y + 0.5) / self.node[1] - 0.5)
            for field in self.shift
        ]
        return (
            np.asarray(x / self.across - moved[0], np.float32),
            np.asarray(y / self.down - moved[1], np.float32),
        )

    def lines(self, shape: tuple[int, int], half_mm: float) -> tuple[Mask, Mask]:
        """Where (H, W) the upright and the level 5 mm lines lie, `half_mm` to either side."""
        height, width = shape
        stripes = []
        for axis, (field, mm) in enumerate(zip(self.shift, (self.across, self.down), strict=True)):
            moved = cv2.resize(field, (width, height), interpolation=cv2.INTER_LINEAR)
            along = np.arange(width)[None] if axis == 0 else np.arange(height)[:, None]
            off = (along / mm - moved) % SPACING_MM
            stripes.append((off < half_mm) | (off > SPACING_MM - half_mm))
        return stripes[0], stripes[1]


def even(across: float, down: float) -> GridMap:
    """The map of a page whose grid is even, or has none."""
    return GridMap(across, down, (1.0, 1.0), np.zeros((2, 2, 2), np.float32))


def follow_grid(dark: Float, trace: Mask, across: float, down: float) -> GridMap:
    """Follow the grid of a page, given how dark it is (H, W); the map is even where no lines are to
    be seen.

    What is `trace` (H, W) or print is left out, so that it does not draw the lines towards itself.
    Lines 5 mm apart are followed where there are any, as they cannot be taken for their neighbours,
    else those 1 mm apart.
    """
    free = cv2.dilate(trace.astype(np.uint8), np.ones((5, 5), np.uint8)) == 0
    ways = [free]
    if float(trace[::2, ::2].mean()) > CROWDED:  # perhaps what is so dark are the lines of the grid
        ways.append(np.ones_like(free))
    for spacing, finest in ((SPACING_MM, FINE), (1.0, 3.5 * FINE)):
        tried = [_followed(dark, way, across, down, (spacing, finest)) for way in ways]
        best = max((t for t in tried if t is not None), key=lambda t: t[1], default=None)
        if best is not None:
            return best[0]
    return even(across, down)


def _followed(
    dark: Float, free: Mask, across: float, down: float, lines: tuple[float, float]
) -> tuple[GridMap, float] | None:
    """The map by lines of a spacing (mm) at so many pixels per mm, and how clear they are; None
    where they are not clear.

    Only what is `free` (H, W) is looked at.
    """
    spacing, finest = lines
    usual = float(np.quantile(dark[free][::5], 0.96)) if free.any() else 1.0
    dark = np.minimum(dark, usual)
    fine = min(1.0, finest / math.sqrt(across * down))
    size = max(8, round(dark.shape[1] * fine)), max(8, round(dark.shape[0] * fine))
    small = np.asarray(cv2.resize(dark, size, interpolation=cv2.INTER_AREA), np.float32)
    clear = np.asarray(
        cv2.resize(free.astype(np.float32), size, interpolation=cv2.INTER_AREA), np.float32
    )
    a, d = across * size[0] / dark.shape[1], down * size[1] / dark.shape[0]
    window = _odd(spacing * a), _odd(spacing * d)
    small = small * clear
    small -= clear * cv2.blur(small, window) / np.maximum(cv2.blur(clear, window), 0.05)
    nodes = (
        max(4, round(dark.shape[1] / across / NODE_MM)),
        max(4, round(dark.shape[0] / down / NODE_MM)),
    )
    fields, clear_by = [], []
    for axis, mm in ((1, a), (0, d)):
        wave = _demodulated(small, axis, spacing * mm, nodes)
        noise = np.median(
            [np.abs(_demodulated(small, axis, spacing * mm * f, nodes)) for f in _BESIDE]
        )
        clear_by.append(float(np.median(np.abs(wave))) / max(float(noise), 1e-9))
        if clear_by[-1] < CLEAR:
            return None
        shift = _phase(wave) / np.float32(2 * np.pi) * np.float32(spacing)
        fields.append(_straightened(shift, np.abs(wave)))
    steps = dark.shape[1] / nodes[0], dark.shape[0] / nodes[1]
    return GridMap(across, down, steps, np.stack(fields).astype(np.float32)), min(clear_by)


def _straightened(field: Float, strength: Float) -> Float:
    """The plane through a field of shifts (h, w) in mm where it is one but for noise, else the
    field."""
    y, x = (v.ravel() for v in np.indices(field.shape, dtype=np.float64))
    terms = np.stack([np.ones_like(x), x / x.max() - 0.5, y / y.max() - 0.5], axis=1)
    values, weight = field.ravel().astype(np.float64), strength.ravel().astype(np.float64)
    plane = np.full_like(values, np.median(values))
    for _ in range(8):
        rest = np.abs(values - plane)
        pull = weight / (1 + (rest / (2 * np.median(rest) + 1e-6)) ** 2)
        plane = terms @ np.linalg.solve(
            terms.T @ (terms * pull[:, None]), terms.T @ (pull * values)
        )
    off = np.quantile(np.abs(values - plane), 0.75)
    return np.asarray(plane.reshape(field.shape) if off < EVEN_MM else field, np.float32)


def _demodulated(dark: Float, axis: int, period: float, nodes: tuple[int, int]) -> Complex:
    """Amplitude and phase of lines of `period` pixels: the mean of each node's cell, smoothed over
    some of them."""
    phase = 2 * np.pi * np.arange(dark.shape[axis]) / period
    shape = (1, -1) if axis == 1 else (-1, 1)
    cells = [
        cv2.resize(
            dark * wave(phase).astype(np.float32).reshape(shape),
            nodes,
            interpolation=cv2.INTER_AREA,
        )
        for wave in (np.cos, np.sin)
    ]
    parts = [cv2.GaussianBlur(cell, (0, 0), WINDOW_MM / NODE_MM) for cell in cells]
    # dark ~ cos(phase - moved), whose product with exp(i phase) leaves exp(i moved).
    return np.asarray(parts[0] + 1j * parts[1], np.complex64)


def _phase(wave: Complex) -> Float:
    """Phases (h, w) without jumps: those of a wider window are unwrapped, and the narrow one's are
    next to them.

    Where trace or a fold hides the lines, a narrow window alone may skip one.
    """
    wide = COARSE_MM / NODE_MM
    coarse = _unwrapped(
        cv2.GaussianBlur(np.ascontiguousarray(wave.real), (0, 0), wide)
        + 1j * cv2.GaussianBlur(np.ascontiguousarray(wave.imag), (0, 0), wide)
    )
    return np.asarray(coarse + np.angle(wave * np.exp(-1j * coarse)), np.float32)


def _unwrapped(wave: Complex) -> Float:
    """Phases (h, w) without jumps, grown from the clearest node outwards; faint nodes take those of
    their neighbours."""
    height, width = wave.shape
    strength, angle = np.abs(wave), np.angle(wave)
    usual = float(np.median(strength))
    phase = np.full(wave.shape, np.nan)
    start = divmod(int(np.argmax(strength)), width)
    todo: list[tuple[float, int, int, float]] = [
        (-float(strength[start]), *start, float(angle[start]))
    ]
    while todo:
        _, y, x, near = heapq.heappop(todo)
        if not math.isnan(phase[y, x]):
            continue
        own = float(angle[y, x])
        turned = own + 2 * math.pi * round((near - own) / (2 * math.pi))
        phase[y, x] = value = turned if strength[y, x] > _FAINT * usual else near
        for v, u in ((y, x + 1), (y + 1, x), (y, x - 1), (y - 1, x)):
            if 0 <= v < height and 0 <= u < width and math.isnan(phase[v, u]):
                heapq.heappush(todo, (-float(strength[v, u]), v, u, value))
    return np.asarray(phase, np.float32)


def _sampled(field: Float, x: Float, y: Float) -> Float:
    """A field (h, w) between its nodes."""
    points = [np.ascontiguousarray(v, np.float32).reshape(1, -1) for v in (x, y)]
    out = [
        cv2.remap(
            field,
            points[0][:, n : n + 8192],
            points[1][:, n : n + 8192],
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        for n in range(0, points[0].shape[1], 8192)
    ]
    return np.asarray(np.concatenate(out, axis=1).ravel(), np.float32)


def _odd(size: float) -> int:
    return max(3, int(size) | 1)
