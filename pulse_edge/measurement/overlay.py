"""Draw the traced lines, beats and waves over the page, so that a person sees whether the trace was
followed.

In: the flat page and its measurements. Out: a picture. The trace is blue, a red line marks each
beat, and P, QRS and T of the dominant beat are bars with their letters below the rows.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from pulse_edge.measurement.page import PageMeasurement
from pulse_edge.measurement.signal import SAMPLES_PER_SECOND, LeadPath

Pixels = npt.NDArray[np.uint8]
Points = npt.NDArray[np.float32]

TRACE, BEAT = (0, 70, 220), (220, 30, 30)
WAVES = {"P": (20, 140, 60), "QRS": (200, 90, 0), "T": (130, 0, 160)}
"""RGB of each wave's bar; the letters below the bars tell them apart without colour."""
FONT, FONT_SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.35
WIDEST = 2400
"""Pixels of the picture's width at most."""
BELOW, TICK = 0.035, 0.012
"""Shares of the picture's height: from a row down to its bars, and the height of a beat's mark."""


def draw(page: Image.Image, measured: PageMeasurement) -> Image.Image:
    """Return a copy of the flat page, paled, with what was measured drawn over it."""
    shrink = min(1.0, WIDEST / page.width)
    size = round(page.width * shrink), round(page.height * shrink)
    paled = 255 - (255 - np.asarray(page.convert("RGB").resize(size)).astype(np.int32)) * 6 // 10
    canvas = np.ascontiguousarray(paled.astype(np.uint8))
    for path in measured.signal.paths:
        points = path.points * np.float32(shrink)
        for run in _runs(points):
            _line(canvas, points[run], TRACE)
        _beats(canvas, path, points, measured)
    return Image.fromarray(canvas)


def png(page: Image.Image, measured: PageMeasurement) -> bytes:
    """Return the picture as PNG, without metadata. Raises ValueError where OpenCV cannot write
    it."""
    written, data = cv2.imencode(".png", np.asarray(draw(page, measured))[:, :, ::-1])
    if not written:
        raise ValueError("the picture could not be written as PNG")
    return data.tobytes()


def _runs(points: Points) -> Iterator[npt.NDArray[np.intp]]:
    """Yield the sample numbers of each run without gaps."""
    samples = np.flatnonzero(np.isfinite(points).all(1))
    for run in np.split(samples, np.flatnonzero(np.diff(samples) > 1) + 1):
        if run.size > 1:
            yield run


def _beats(canvas: Pixels, path: LeadPath, points: Points, measured: PageMeasurement) -> None:
    """Mark each beat of a row, and the waves of the dominant shape, below the row."""
    traced = np.asarray(np.isfinite(points).all(1), np.bool_)
    if not traced.any():
        return
    low = float(np.nanquantile(points[:, 1], 0.9)) + BELOW * canvas.shape[0]
    start, stop = (float(points[n, 0]) for n in np.flatnonzero(traced)[[0, -1]])
    shapes = {shape.lead: shape for shape in measured.result.leads}
    for beat in measured.result.beats:
        sample = round(beat.seconds * SAMPLES_PER_SECOND)
        if not 0 <= sample < len(points) or not traced[sample]:
            continue
        x = float(points[sample, 0])
        _line(canvas, np.array([[x, low - TICK * canvas.shape[0]], [x, low]]), BEAT, 2)
        if (shape := shapes.get(path.lead)) is None or beat.kind not in ("normal", "unknown"):
            continue
        for name, first, last in (
            ("P", shape.p_onset, shape.p_end),
            ("QRS", shape.qrs_onset, shape.qrs_end),
            ("T", shape.t_peak, shape.t_end),
        ):
            if first is not None and last is not None:
                ends = x + np.array([first, last]) / 1000 * _pixels_per_second(points, traced)
                if start <= ends[0] and ends[1] <= stop:  # the page shows the whole wave
                    _line(canvas, np.stack([ends, [low, low]], 1), WAVES[name], 3)
                    _letter(canvas, name, float(ends.mean()), low)


def _pixels_per_second(points: Points, traced: npt.NDArray[np.bool_]) -> float:
    first, last = np.flatnonzero(traced)[[0, -1]]
    width = float(points[last, 0] - points[first, 0])
    return width / max(1, int(last - first)) * SAMPLES_PER_SECOND


def _letter(canvas: Pixels, name: str, x: float, low: float) -> None:
    """Write the wave's name below the middle of its bar."""
    (width, height), _ = cv2.getTextSize(name, FONT, FONT_SCALE, 1)
    corner = round(x - width / 2), round(low + 2 * height)
    cv2.putText(canvas, name, corner, FONT, FONT_SCALE, WAVES[name], 1, cv2.LINE_AA)


def _line(
    canvas: Pixels,
    points: npt.NDArray[np.floating],
    colour: tuple[int, int, int],
    width: int = 1,
) -> None:
    """Draw a line through (n, 2) points, antialiased, to a sixteenth of a pixel."""
    fixed = np.round(points * 16).astype(np.int32)
    cv2.polylines(canvas, [fixed], False, colour, width, cv2.LINE_AA, 4)
