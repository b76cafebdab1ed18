"""Draw the traces, the paper and the calibration pulses of a plotted page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from pulse_edge.common.arrays import Mask, Pixels, Points
from pulse_edge.page.recording import Millivolts

PX_PER_MM = 8
SPEED = 25
"""Paper speed in mm/s."""
LEFT, TOP, ROW, RIGHT, BOTTOM = 16, 12, 36, 8, 14
"""Margins of the page and height of a row, in mm."""
PEN = 0.28
"""Width of the trace in mm."""
INK = (20, 20, 25)
_PAPER, _MINOR, _MAJOR = (255, 253, 252), (251, 214, 212), (238, 156, 156)
_FINER = 4
"""Factor by which the trace is drawn larger and then reduced, so that it is antialiased."""
_DENSE = 3
"""Points per pixel column of that larger drawing up to which all are drawn: 2,400 samples a second.
"""
_ZERO = 0.56
"""Share of a row's height at which 0 mV lies."""


@dataclass(frozen=True)
class Trace:
    """A stretch of a lead, and where it goes on the page."""

    lead: str
    row: int
    """Index from the top."""
    shift: float
    """Seconds from a second of the recording to its place on the strip, counted from the left end.
    """
    start: float
    """Second of the recording at which the stretch begins."""
    stop: float
    """Second of the recording at which it ends."""
    seconds: Millivolts
    """(n,) seconds of the recording of each sample."""
    mv: Millivolts
    """(n,) millivolts above the lead's baseline, NaN where none was recorded."""
    moved: float
    """Millivolts by which the baseline was moved, against the lead's own on this page."""

    @property
    def recorded(self) -> Mask:
        """(n,): which samples were recorded."""
        return np.isfinite(self.mv)

    @property
    def range(self) -> tuple[float, float]:
        """Lowest and highest point in millivolts; 0 and 0 without a recorded sample."""
        mv = self.mv[self.recorded]
        return (float(mv.min()), float(mv.max())) if mv.size else (0.0, 0.0)


def row_middle(row: int) -> float:
    """Return the millimetres from the page's top to 0 mV of a row."""
    return TOP + (row + _ZERO) * ROW


def zero_pixel(middle: float) -> float:
    """Return the same in pixels, as it is drawn: a row's strip begins at a whole pixel."""
    return float(round((middle - ROW) * PX_PER_MM) + ROW * PX_PER_MM)


def blank_paper(width: int, height: int) -> Pixels:
    """Return paper (height, width, 3) with lines each 1 and 5 mm."""
    paper = np.full((height, width, 3), _PAPER, np.uint8)
    for step, colour, thick in ((PX_PER_MM, _MINOR, 1), (5 * PX_PER_MM, _MAJOR, 2)):
        for n in range(thick):
            paper[n::step] = colour
            paper[:, n::step] = colour
    return paper


def draw_row(page: Image.Image, middle: float, traces: Sequence[Trace], gain: float) -> None:
    """Draw the traces of one row and their calibration pulse.

    `middle`: mm from the page's top to 0 mV.
    """
    # The strip of a row is two rows high: tall waves reach into the neighbouring rows, as on paper.
    size = page.width, ROW * 2 * PX_PER_MM
    strip = Image.new("L", (size[0] * _FINER, size[1] * _FINER))
    pen = ImageDraw.Draw(strip)
    _draw_pulse(pen, gain)
    for trace in traces:
        _draw_trace(pen, trace, gain)
    page.paste(
        INK, (0, round((middle - ROW) * PX_PER_MM)), strip.resize(size, Image.Resampling.BOX)
    )


def _strip_points(mm: Millivolts | float, mv: Millivolts | float, gain: float) -> Points:
    """Return pixels (n, 2) on a row's enlarged strip, whose middle is 0 mV.

    `mm`: from the page's left.
    """
    k = PX_PER_MM * _FINER
    return np.stack(
        np.broadcast_arrays(np.asarray(mm) * k, (ROW - np.asarray(mv) * gain) * k), axis=-1
    )


def _draw_trace(pen: ImageDraw.ImageDraw, trace: Trace, gain: float) -> None:
    points = _strip_points(LEFT + (trace.seconds + trace.shift) * SPEED, trace.mv, gain)
    breaks = np.flatnonzero(
        np.diff(np.concatenate([[False], trace.recorded, [False]]).astype(np.int8))
    )
    for a, b in breaks.reshape(-1, 2):
        stretch = _thin_out(points[a:b])
        if len(stretch) == 1:  # a sample alone would not show
            stretch = np.concatenate([stretch, stretch + np.array([[1.0, 0.0]])])
        pen.line([(x, y) for x, y in stretch], 255, round(PEN * PX_PER_MM * _FINER), "curve")


def _thin_out(points: Points) -> Points:
    """Return the highest and lowest of many points (n, 2) on one pixel column: 50,000 samples a
    second would take 10 s to draw."""
    columns = points[-1, 0] - points[0, 0] if len(points) else 0.0
    each = int(len(points) / max(columns, 1.0))
    if each <= _DENSE:
        return points
    y = points[: len(points) // each * each, 1].reshape(-1, each)
    starts = np.arange(len(y)) * each
    extremes = np.concatenate(
        [[0], starts + y.argmin(axis=1), starts + y.argmax(axis=1), [len(points) - 1]]
    )
    return np.asarray(points[np.unique(extremes)])


def _draw_pulse(pen: ImageDraw.ImageDraw, gain: float) -> None:
    """Draw 1 mV for 0.2 s, left of the trace."""
    seconds = np.array([-0.40, -0.34, -0.34, -0.14, -0.14, -0.08])
    corners = _strip_points(LEFT + seconds * SPEED, np.array([0, 0, 1, 1, 0, 0]), gain)
    pen.line([(x, y) for x, y in corners], 255, round(PEN * PX_PER_MM * _FINER))
