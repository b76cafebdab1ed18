"""Rows of traces are found where baselines wander, and where spikes hide one."""

import cv2
import numpy as np

from pulse_edge.measurement.ink import Ink
from pulse_edge.measurement.rows import traced_rows
from pulse_edge.measurement.tracing import follow

SCALE = 4.0


def drawn(*curves: np.ndarray, height: int = 560) -> Ink:
    """Ink of curves (n, 2) of x, y in pixels."""
    cover = np.zeros((height, 1000), np.uint8)
    for curve in curves:
        cv2.polylines(cover, [np.round(curve * 16).astype(np.int32)], False, (255,), 1, 16, 4)
    return Ink((cover / 255).astype(np.float32), None, None, False, SCALE, SCALE)


def test_rows_are_found_where_the_baseline_wanders() -> None:
    x = np.arange(20.0, 980.0)
    curves = [
        np.stack([x, y + 26 * np.cos(2 * np.pi * x / 900 + n)], axis=1)
        for n, y in enumerate((80.0, 210.0, 340.0, 470.0))
    ]
    lines = traced_rows(drawn(*curves), (), {4, 6, 12})
    assert len(lines) == 4
    for line, curve in zip(lines, curves, strict=True):
        place = np.round(line.place(500.0))
        assert abs(line.y[int(place)] - curve[480, 1]) < 1


def test_letter_across_a_spike_does_not_cut_it_off() -> None:
    trace = [[20.0, 300.0]]
    for x in range(150, 900, 150):
        trace += [[x - 3, 300], [x, 180], [x + 3, 300]]
    letter = np.array([[440.0, 250.0], [462.0, 250.0]])
    (line,) = follow(drawn(np.array([*trace, [980.0, 300.0]]), letter), (300.0,))
    tip = slice(int(line.place(445)), int(line.place(455)))
    assert np.nanmin(line.y[tip]) < 184
