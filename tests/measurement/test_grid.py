"""Grids that are bent: how well they are followed, and how a page is drawn straight."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from pulse_edge.measurement.darkness import brightest, darkest, darkness
from pulse_edge.measurement.grid import GridMap, Shades, follow_grid
from pulse_edge.measurement.ink import find_grid

MM = 8.0
HEIGHT, WIDTH = 1000, 1600


def lined() -> np.ndarray[Any, Any]:
    """A page with brown lines every 5 mm."""
    page = np.full((HEIGHT, WIDTH, 3), 235, np.uint8)
    for x in range(11, WIDTH, 40):
        page[:, x : x + 3] = 150, 90, 90
    for y in range(7, HEIGHT, 40):
        page[y : y + 3] = 150, 90, 90
    return page


def moved() -> np.ndarray[Any, Any]:
    """Pixels right (H, W) by which the bent page is drawn from the even one."""
    return np.broadcast_to(
        12 * np.sin(np.arange(WIDTH, dtype=np.float32) / 250), (HEIGHT, WIDTH)
    ).astype(np.float32)


def bent(page: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    out: np.ndarray[Any, Any] = cv2.remap(
        page, x + moved(), y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return out


def error_mm(grid: GridMap) -> np.ndarray[Any, Any]:
    """By how many mm points of the straightened page lie off the even one, away from its edges."""
    y, x = (v.ravel() for v in np.mgrid[100 : HEIGHT - 100, 100 : WIDTH - 100 : 3])
    before = grid.before(x.astype(np.float32), y.astype(np.float32))[0]
    off = before + 12 * np.sin(before / 250) - x
    return np.asarray((off - np.median(off)) / MM)


def test_a_bent_page_is_drawn_straight() -> None:
    page, grid = find_grid(bent(lined()), MM, MM)
    assert page.shape == (HEIGHT, WIDTH, 3)
    assert np.quantile(np.abs(error_mm(grid)), 0.95) < 0.12
    assert np.ptp(grid.shift, axis=(1, 2)).max() == 0


def test_an_even_page_stays_as_it_is() -> None:
    page = lined()
    same, grid = find_grid(page, MM, MM)
    assert same is page
    assert grid.origin is None
    x = np.array([3.0, 500.0], np.float32)
    assert np.array_equal(grid.before(x, x)[0], x)


def test_upright_strokes_do_not_move_a_coloured_grid() -> None:
    page = lined()
    for x in range(60, WIDTH, 200):  # 1 mm right of a line, as the limbs of QRS complexes
        page[:, x : x + 3] = 110
    dark, bright = darkness(darkest(page), MM), darkness(brightest(page), MM)
    nothing = np.zeros(dark.shape, bool)
    by_colour = follow_grid(Shades(dark, np.maximum(dark - bright, 0), nothing), MM, MM)
    by_depth = follow_grid(Shades(dark, np.zeros_like(dark), nothing), MM, MM)
    true = follow_grid(Shades(darkness(darkest(lined()), MM), np.zeros_like(dark), nothing), MM, MM)
    away = [float(np.abs(g.shift[0] - true.shift[0]).max()) for g in (by_colour, by_depth)]
    assert away[0] < 0.05 < away[1]
