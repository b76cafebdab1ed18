"""Follow a page's grid, however it is bent: from pixels to millimetres of paper.

In: how dark the page is, and the mean scale of its grid. Out: `GridMap`. The page is multiplied by
the wave of the grid's own spacing and smoothed over some cells; the phase that remains tells how
far the lines lie from where an even grid has them. The phases are unwrapped from the clearest place
outwards.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float32]
Complex = npt.NDArray[np.complex64]
Mask = npt.NDArray[np.bool_]
Pixels = npt.NDArray[np.uint8]

FINE = 2.0
"""Pixels per millimetre at which lines 5 mm apart are followed."""
SPACING_MM = 5.0
WINDOW_MM = 6.0
"""Sigma of the window over which the phase is smoothed."""
NODE_MM = 1.5
"""Distance of the places for which a phase is kept."""
CLEAR = 2.5
"""Amplitude of the grid's wave over that of waves that no grid has, from which on it is followed."""
EVEN_MM = 0.2
"""Three quarters of the page lie as near as that to where an even grid would have them: then it is
even."""
STRAIGHT_MM = 0.1
"""A page whose grid lies as near as that to an even one everywhere is straight."""
COLOURED = 3.5
"""The same for lines that are told from ink by their colour."""
COLOURED_INK = 0.65
"""Tint of the trace over that of the clearest lines from which on its limbs would draw the lines
towards themselves: black ink in 28 photographs has 0.25 to 0.54, a dark red trace 0.8."""
COARSE_MM = 7.0
"""Sigma of the window over which phases are smoothed to be unwrapped."""
CROWDED = 0.05
"""Share of the page that is as dark as ink from which on the grid may be as dark."""
_BESIDE = (0.68, 1.6)
"""Periods over that of the lines at which no grid has a wave."""
VISIBLE = 0.3
"""Amplitude over that of the clearest tenth of a page from which on lines are to be seen."""
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
    origin: Float | None = None
    """(2, h, w) pixels right and down from a node to where it lay before the page was straightened;
    None for a page that was not."""

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

    def before(self, x: Float, y: Float) -> tuple[Float, Float]:
        """Pixels right and down of points on the page before it was straightened."""
        if self.origin is None:
            return x, y
        moved = [
            _sampled(field, (x + 0.5) / self.node[0] - 0.5, (y + 0.5) / self.node[1] - 0.5)
            for field in self.origin
        ]
        return np.asarray(x + moved[0], np.float32), np.asarray(y + moved[1], np.float32)

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


@dataclass(frozen=True, eq=False)
class Shades:
    """What the lines of a grid are looked for in, (H, W) each."""

    dark: Float
    """How dark the page is in its darkest channel, 0..1."""
    tint: Float
    """How much darker that channel is than the brightest one: ink has hardly any of it."""
    trace: Mask
    """What is trace or print for certain."""


def even(across: float, down: float, right: float = 0.0, below: float = 0.0) -> GridMap:
    """The map of a page whose grid is even, or has none; its lines are moved by millimetres."""
    shift = np.broadcast_to(np.array([right, below], np.float32).reshape(2, 1, 1), (2, 2, 2))
    return GridMap(across, down, (1.0, 1.0), shift)


def straightened(page: Pixels, grid: GridMap) -> tuple[Pixels, GridMap]:
    """Draw a bent page (H, W, 3) as if its grid were even, and give the map of the new picture.

    On a bent sheet a spike leans over: then one column of pixels holds a part of it only, and the
    trace in it has several values. A page whose grid is even to STRAIGHT_MM is returned as it is.
    """
    usual = np.median(grid.shift, axis=(1, 2), keepdims=True)
    rest = grid.shift - usual
    if float(np.abs(rest).max()) < STRAIGHT_MM:
        return page, grid
    rows, columns = rest.shape[1:]
    nodes = np.stack(np.meshgrid(np.arange(columns), np.arange(rows))).astype(np.float32)
    rest = rest * np.array([grid.across, grid.down], np.float32).reshape(2, 1, 1)
    step = np.array(grid.node, np.float32).reshape(2, 1, 1)
    origin = np.zeros_like(rest)
    for _ in range(12):  # the point x of the even page lies where x + shift(there) is
        origin = _at_nodes(rest, (nodes + origin / step).astype(np.float32))
    size = page.shape[1], page.shape[0]
    x, y = (cv2.resize(field, size, interpolation=cv2.INTER_CUBIC) for field in origin)
    x += np.arange(size[0], dtype=np.float32)
    y += np.arange(size[1], dtype=np.float32)[:, None]
    flat = cv2.remap(page, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    even_shift = np.broadcast_to(usual, rest.shape).astype(np.float32)
    return np.asarray(flat, np.uint8), replace(grid, shift=even_shift, origin=origin)


def _at_nodes(field: Float, place: Float) -> Float:
    """A field (2, h, w) at places (2, h, w) given in nodes."""
    x, y = place
    parts = [
        cv2.remap(part, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for part in field
    ]
    return np.stack(parts).astype(np.float32)


def follow_grid(shades: Shades, across: float, down: float) -> GridMap:
    """Follow the grid of a page; the map is even where no lines are to be seen.

    Lines 5 mm apart are followed where there are any, as they cannot be taken for their neighbours,
    else those 1 mm apart. Upright limbs of the trace would draw the lines of a grid towards
    themselves: by 0.1 mm in photographs. So a coloured grid is followed by its colour alone; with
    any other grid, or a coloured trace, what is trace or print is left out.
    """
    every = np.ones_like(shades.trace)
    free = cv2.dilate(shades.trace.astype(np.uint8), np.ones((5, 5), np.uint8)) == 0
    ways = [free]
    if float(shades.trace[::2, ::2].mean()) > CROWDED:  # perhaps the lines of the grid are so dark
        ways.append(every)
    by_colour = free if _has_coloured_ink(shades) else every
    for spacing, finest in ((SPACING_MM, FINE), (1.0, 3.5 * FINE)):
        coloured = _followed(shades.tint, by_colour, across, down, (spacing, finest))
        if coloured is not None and coloured[1] > COLOURED:
            return coloured[0]
        tried = [_followed(shades.dark, way, across, down, (spacing, finest)) for way in ways]
        best = max((t for t in tried if t is not None), key=lambda t: t[1], default=None)
        if best is not None:
            return best[0]
    return even(across, down)


def _has_coloured_ink(shades: Shades) -> bool:
    """Whether the trace has a tint that could be taken for that of the grid's lines."""
    if not shades.trace.any():
        return False
    lines = float(np.quantile(shades.tint[::2, ::2], 0.98))
    return float(np.median(shades.tint[shades.trace])) > COLOURED_INK * lines


def _followed(
    dark: Float,
    free: Mask,
    across: float,
    down: float,
    lines: tuple[float, float],
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
        fields.append(_settled(shift, np.abs(wave)))
    steps = dark.shape[1] / nodes[0], dark.shape[0] / nodes[1]
    return GridMap(across, down, steps, np.stack(fields).astype(np.float32)), min(clear_by)


def _settled(field: Float, strength: Float) -> Float:
    """The plane through a field of shifts (h, w) in mm where it is one but for noise, else the
    field; where no lines are to be seen, as in a header, it goes on from its neighbours."""
    y, x = (v.ravel() for v in np.indices(field.shape, dtype=np.float64))
    terms = np.stack([np.ones_like(x), x / x.max() - 0.5, y / y.max() - 0.5], axis=1)
    values = field.ravel().astype(np.float64)
    clear = strength > VISIBLE * float(np.quantile(strength, 0.9))
    weight = np.where(clear, strength, 0).ravel().astype(np.float64)
    plane = np.full_like(values, np.median(values[clear.ravel()]))
    for _ in range(8):
        rest = np.abs(values - plane)
        pull = weight / (1 + (rest / (2 * np.median(rest[clear.ravel()]) + 1e-6)) ** 2)
        plane = terms @ np.linalg.solve(
            terms.T @ (terms * pull[:, None]), terms.T @ (pull * values)
        )
    flat = plane.reshape(field.shape).astype(np.float32)
    rest = field - flat
    if np.quantile(np.abs(rest[clear]), 0.75) < EVEN_MM:
        return flat
    near = cv2.GaussianBlur(clear.astype(np.float32), (0, 0), COARSE_MM / NODE_MM)
    mean = cv2.GaussianBlur(np.where(clear, rest, 0), (0, 0), COARSE_MM / NODE_MM)
    return np.asarray(flat + np.where(clear, rest, mean / np.maximum(near, 0.2)), np.float32)


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
