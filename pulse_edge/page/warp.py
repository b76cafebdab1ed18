"""Resample the picture of a sheet to a flat page, and divide shadows and colour casts out."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from pulse_edge.common.arrays import Pixels, Points
from pulse_edge.page.channels import reduced
from pulse_edge.page.plane import Plane, project
from pulse_edge.page.sheet_edges import SheetEdges

LARGEST = 3600
"""Longer side of a resampled page in pixels, at most."""


@dataclass(frozen=True)
class Target:
    """Where the page's pixels come from."""

    matrix: Points
    """(3, 3) from pixels of the picture to pixels of the page."""
    size: tuple[int, int]
    """Width and height of the page in pixels."""
    corners: Points
    """(4, 2) corners of the sheet in the picture."""
    px_per_mm: float
    """Pixels of the page per millimetre of paper."""


def plan_target(
    shape: tuple[int, ...], scale: float, plane: Plane, edges: SheetEdges | None
) -> Target:
    """Plan a page that is as fine as the picture is at the middle of the sheet.

    `shape`: of the picture; `scale`: of the reduced picture that `plane` and `edges` were measured
    on.
    """
    height, width = shape[:2]
    matrix = plane.matrix @ np.diag([scale, scale, 1])  # full picture -> periods
    frame = np.array([[0, 0], [width, 0], [width, height], [0, height]], float)
    quad = _sheet_corners(project(frame, matrix), edges)
    low, high = quad.min(axis=0), quad.max(axis=0)
    if edges is not None:  # an edge that curls is cut half-way
        low, high = (
            (quad[[0, 0], [0, 1]] + quad[[3, 1], [0, 1]]) / 2,
            (quad[[1, 3], [0, 1]] + quad[[2, 2], [0, 1]]) / 2,
        )
    flat = np.array([low, [high[0], low[1]], high, [low[0], high[1]]])
    middle = np.linalg.inv(matrix)
    centre = project(np.array([[*((low + high) / 2)]]) + np.array([[0, 0], [1, 0], [0, 1]]), middle)
    k = float(max(np.linalg.norm(centre[1] - centre[0]), np.linalg.norm(centre[2] - centre[0])))
    k = min(k, LARGEST / float((high - low).max()))
    size = max(8, round(k * (high[0] - low[0]))), max(8, round(k * (high[1] - low[1])))
    ends = np.array([[0, 0], [size[0], 0], [size[0], size[1]], [0, size[1]]], np.float32)
    fit = np.asarray(cv2.getPerspectiveTransform(flat.astype(np.float32), ends), float)
    return Target(fit @ matrix, size, project(quad, middle), k / plane.period_mm)


def _sheet_corners(frame: Points, edges: SheetEdges | None) -> Points:
    """Return the sheet's corners (4, 2) in periods: where its edges meet.

    The picture's own border `frame` (4, 2) replaces an edge that does not show.
    """
    low, high = frame.min(axis=0), frame.max(axis=0)
    if edges is None:
        return np.array([low, [high[0], low[1]], high, [low[0], high[1]]])
    border = ((low[0], 0.0), (low[1], 0.0), (high[0], 0.0), (high[1], 0.0))
    left, top, right, bottom = (line or border[n] for n, line in enumerate(edges.lines))

    def meet(vertical: tuple[float, float], level: tuple[float, float]) -> tuple[float, float]:
        u = (vertical[0] + vertical[1] * level[0]) / (1 - vertical[1] * level[1])
        return u, level[0] + level[1] * u

    return np.array([meet(left, top), meet(right, top), meet(right, bottom), meet(left, bottom)])


def warp(picture: Pixels, target: Target, scale: float) -> Pixels:
    """Resample the page, at `scale` (up to 1) of its size.

    What lies outside the picture becomes white.
    """
    scale = min(scale, 1.0)
    size = max(1, round(target.size[0] * scale)), max(1, round(target.size[1] * scale))
    matrix = np.diag([scale, scale, 1]) @ target.matrix
    source = picture
    if scale < 0.6:  # resampling does not average
        source, shrunk = reduced(picture, round(max(picture.shape[:2]) * scale * 1.3))
        matrix = matrix @ np.diag([1 / shrunk, 1 / shrunk, 1])
    how = cv2.INTER_CUBIC if scale == 1 else cv2.INTER_LINEAR
    out = cv2.warpPerspective(
        source, matrix, size, flags=how, borderMode=cv2.BORDER_CONSTANT, borderValue=(255,) * 3
    )
    return np.asarray(out, np.uint8)


def paper_light(page: Pixels) -> Pixels:
    """Return the light (h, w, 3) on a page's paper, coarsely: all ink is closed over."""
    small, _ = reduced(page, 450)
    small = np.asarray(cv2.morphologyEx(small, cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8)))
    return np.asarray(cv2.GaussianBlur(cv2.medianBlur(small, 11), (0, 0), 3), np.uint8)


def even_out_light(page: Pixels, paper: Pixels) -> Pixels:
    """Divide a page by the light on its own paper, channel by channel."""
    light = cv2.resize(
        np.maximum(paper, 60), (page.shape[1], page.shape[0]), interpolation=cv2.INTER_LINEAR
    )
    return np.asarray(cv2.divide(page, light, scale=245), np.uint8)
