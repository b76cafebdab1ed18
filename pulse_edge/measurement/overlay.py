"""Draw the traced lines, beats and waves over the page, so that a person sees whether the trace was followed.

In: the flat page and its measurements. Out: a picture. The trace is blue, QRS complexes are marked by
a red line at each beat, and P, QRS and T of the dominant beat are bars below the rows.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from pulse_edge.measurement.page import PageMeasurement
from pulse_edge.measurement.signal import LEADS, SAMPLES_PER_SECOND, LeadPlace, Millivolts

Pixels = npt.NDArray[np.uint8]

TRACE, BEAT = (0, 70, 220), (220, 30, 30)
WAVES = {"P": (20, 140, 60), "QRS": (200, 90, 0), "T": (130, 0, 160)}
"""RGB of each wave's bar; the letters below the bars tell them apart without colour."""
WIDEST = 2400
"""Pixels of the picture's width at most."""
BAR_MM = 9.0
"""Distance of the bars below a row's baseline, in mm of 10 mm/mV."""


def draw(page: Image.Image, measured: PageMeasurement) -> Image.Image:
    """Return a copy of the flat page, paled, with what was measured drawn over it."""
    shrink = min(1.0, WIDEST / page.width)
    size = round(page.width * shrink), round(page.height * shrink)
    paled = 255 - (255 - np.asarray(page.convert("RGB").resize(size)).astype(np.int32)) * 6 // 10
    canvas = np.ascontiguousarray(paled.astype(np.uint8))
    for place, values in _traces(measured):
        for run in _runs(values):
            points = np.stack([_x(place, run), place.y - values[run] * place.pixels_per_millivolt])
            _line(canvas, points.T * shrink, TRACE)
        _beats(canvas, place, values, measured, shrink)
    return Image.fromarray(canvas)


def png(page: Image.Image, measured: PageMeasurement) -> bytes:
    """Return the picture as PNG, without metadata."""
    done, data = cv2.imencode(".png", np.asarray(draw(page, measured))[:, :, ::-1])
    if not done:
        raise ValueError("the picture could not be written as PNG")
    return data.tobytes()


def _traces(measured: PageMeasurement) -> Iterator[tuple[LeadPlace, Millivolts]]:
    """Yield each row's place with its values: the leads, then the rhythm strips."""
    signal, strips = measured.signal, dict(measured.signal.strips)
    for place in signal.places:
        values = strips[place.lead] if place.strip else signal.millivolts[LEADS.index(place.lead)]
        yield place, values


def _runs(values: Millivolts) -> Iterator[npt.NDArray[np.intp]]:
    """Yield the sample numbers of each run without gaps."""
    samples = np.flatnonzero(np.isfinite(values))
    for run in np.split(samples, np.flatnonzero(np.diff(samples) > 1) + 1):
        if run.size > 1:
            yield run


def _x(place: LeadPlace, samples: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
    return place.x + samples / SAMPLES_PER_SECOND * place.pixels_per_second


def _beats(
    canvas: Pixels, place: LeadPlace, values: Millivolts, measured: PageMeasurement, shrink: float
) -> None:
    """Mark each beat of a row, and the waves of the dominant shape below it."""
    leads = {lead.lead: lead for lead in measured.result.leads}
    low = place.y + BAR_MM / 10 * place.pixels_per_millivolt
    for beat in measured.result.beats:
        sample = round(beat.seconds * SAMPLES_PER_SECOND)
        if not 0 <= sample < values.size or not np.isfinite(values[sample]):
            continue
        x = place.x + beat.seconds * place.pixels_per_second
        height = 0.25 * place.pixels_per_millivolt
        _line(canvas, np.array([[x, low - height], [x, low]]) * shrink, BEAT)
        shape = leads.get(place.lead)
        if shape is None or beat.kind not in ("normal", "unknown"):
            continue
        for name, first, last in (
            ("P", shape.p_onset, shape.p_end),
            ("QRS", shape.qrs_onset, shape.qrs_end),
            ("T", shape.t_peak, shape.t_end),
        ):
            if first is None or last is None:
                continue
            ends = x + np.array([first, last]) / 1000 * place.pixels_per_second
            _line(canvas, np.stack([ends, [low, low]], 1) * shrink, WAVES[name], 3)


def _line(canvas: Pixels, points: npt.NDArray[np.float64], colour: tuple[int, int, int], wide: int = 1) -> None:
    cv2.polylines(
        canvas, [np.round(points * 16).astype(np.int32)], False, colour, wide, cv2.LINE_AA, 4
    )
