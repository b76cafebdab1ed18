"""The pen's centre is found between the edges of its ink."""

import cv2
import numpy as np
import pytest

from pulse_edge.measurement.ink import Ink
from pulse_edge.measurement.tracing import follow


def drawn(points: np.ndarray, width: int, size: tuple[int, int] = (200, 200)) -> Ink:
    """Ink of a polyline (n, 2) of x, y in pixels."""
    cover = np.zeros(size, np.uint8)
    fixed = np.round(points * 16).astype(np.int32)
    cv2.polylines(cover, [fixed], False, (255,), width, cv2.LINE_AA, 4)
    return Ink((cover / 255).astype(np.float32), None, None, False, 4.6, 4.6)


def spikes(count: int = 6, half: float = 4.0) -> np.ndarray:
    """Narrow triangles of 100 pixels on a baseline at y = 150."""
    points = [[5.0, 150.0]]
    for n in range(count):
        x = 20.3 + 30 * n
        points += [[x - half, 150.0], [x, 50.4], [x + half, 150.0]]
    return np.array([*points, [195.0, 150.0]])


@pytest.mark.parametrize("width", [1, 2])
def test_narrow_peaks_keep_their_height_and_their_flanks(width: int) -> None:
    points = spikes()
    (line,) = follow(drawn(points, width), (150.0,))
    x = (np.arange(len(line.y)) - (line.fine - 1) / 2) / line.fine
    truth = np.interp(x, points[:, 0], points[:, 1])
    inside = (x > 10) & (x < 190)
    # A flank climbs 25 pixels for each pixel across: 2 pixels of height are a twelfth across.
    assert np.sqrt(np.mean((line.y[inside] - truth[inside]) ** 2)) < 2
    tops = [line.y[np.abs(x - 20.3 - 30 * n) < 2].min() for n in range(6)]
    assert np.abs(np.array(tops) - 50.4).max() < 2


def test_level_pen_is_in_the_middle_of_its_ink() -> None:
    points = np.array([[5.0, 100.3], [195.0, 100.3]])
    (line,) = follow(drawn(points, 2), (100.0,))
    x = (np.arange(len(line.y)) - (line.fine - 1) / 2) / line.fine
    assert np.abs(line.y[(x > 10) & (x < 190)] - 100.3).max() < 0.3
