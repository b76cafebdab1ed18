"""Rows of a page without a grid are level on their paper, however the page is turned."""

import cv2
import numpy as np
import pytest

from pulse_edge.measurement.grid import even
from pulse_edge.measurement.ink import Ink
from pulse_edge.measurement.tilt import levelled, tilt_of
from pulse_edge.measurement.tracing import follow


@pytest.mark.parametrize("tilt", [-0.012, 0.0, 0.015])
def test_tilted_rows_are_level_on_paper(tilt: float) -> None:
    cover = np.zeros((400, 900), np.uint8)
    starts = (100.0, 200.0, 300.0)
    for y in starts:
        ends = np.array([[20, y + 20 * tilt], [880, y + 880 * tilt]])
        cv2.polylines(cover, [np.round(ends * 16).astype(np.int32)], False, (255,), 2, 16, 4)
    ink = Ink((cover / 255).astype(np.float32), None, None, False, 4.0, 4.0)
    lines = follow(ink, starts)
    assert tilt_of(lines, ()) == pytest.approx(tilt, abs=0.002)
    grid = levelled(even(4.0, 4.0), tilt, 900, 400)
    x = np.array([30.0, 870.0], np.float32)
    _, down = grid.millimetres(x, np.float32(200) + x * np.float32(tilt))
    assert down[1] - down[0] == pytest.approx(0, abs=0.05)
