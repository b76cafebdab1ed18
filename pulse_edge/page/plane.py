"""Fit the perspective of a photographed sheet to the wave vectors of its grid.

In: `Waves` of a reduced picture. Out: `Plane`, which maps pixels of that picture to periods of the
grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pulse_edge.common.arrays import Points
from pulse_edge.page.grid import Waves


@dataclass(frozen=True)
class Plane:
    """The flattened view of a sheet."""

    matrix: Points
    """(3, 3) from pixels of the reduced picture to periods of the grid. The shape of the page is
    kept."""
    centres: Points
    """(n, 2) centres of the patches whose waves agree with the plane, in pixels of the reduced
    picture."""
    turn: float
    """Angle in degrees between the grid lines and the picture's sides, in its middle."""
    tilt: float
    """The same angle at the worst corner."""
    period_mm: float


def fit_plane(waves: Waves, shape: tuple[int, ...]) -> Plane:
    """Fit a homography to the grid's waves on a picture of `shape` (height, width).

    Least squares with Tukey-like weights, so that a fold counts little. Patches whose waves differ
    by 15 % are dropped from `centres`. Fewer than 12 patches allow no perspective.
    """
    size = np.array([shape[1], shape[0]], float)
    length = float(size.max())
    x = (waves.centres - size / 2) / length
    vectors = waves.vectors * length
    p = np.array([*np.median(vectors, axis=0).reshape(-1), 0, 0])
    free = 6 if len(x) >= 12 else 4
    for _ in range(12):
        rest = (vectors - _gradient(p, x)).reshape(len(x), -1)
        off = np.linalg.norm(rest, axis=1)
        weight = np.repeat(1 / (1 + (off / (3 * np.median(off) + 1e-9)) ** 4), 4)
        columns = [
            (_gradient(p + d, x) - _gradient(p, x)).reshape(-1) / 1e-4
            for d in 1e-4 * np.eye(6)[:free]
        ]
        slope = np.stack(columns, axis=1)
        normal = slope.T @ (slope * weight[:, None])
        # A small pull towards no perspective: a cropped page has no far edge that shows it.
        normal += np.diag([0, 0, 0, 0, *[1e-4 * normal[0, 0]] * (free - 4)]) + 1e-12 * np.eye(free)
        pull = slope.T @ (weight * rest.reshape(-1))
        pull[4:] -= 1e-4 * normal[0, 0] * p[4:free]
        p[:free] += np.linalg.solve(normal, pull)
    off = np.linalg.norm((vectors - _gradient(p, x)).reshape(len(x), -1), axis=1)
    agrees = off < 0.15 * np.linalg.norm(vectors.reshape(len(x), -1), axis=1)
    if agrees.sum() < max(3, 0.3 * len(x)):
        agrees[:] = True
    move = np.array(
        [[1 / length, 0, -size[0] / 2 / length], [0, 1 / length, -size[1] / 2 / length], [0, 0, 1]]
    )
    matrix = np.array([[p[0], p[1], 0], [p[2], p[3], 0], [p[4], p[5], 1]]) @ move
    ends = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [0, 0]]) * size / 2 / length * 0.9
    slopes = _gradient(p, ends)
    tilts = [
        np.degrees(np.arctan2(slopes[:, 0, 1], slopes[:, 0, 0])),
        np.degrees(np.arctan2(-slopes[:, 1, 0], slopes[:, 1, 1])),
    ]
    turn = float(np.mean([t[4] for t in tilts]))
    return Plane(matrix, waves.centres[agrees], turn, float(np.abs(tilts).max()), waves.period_mm)


def _gradient(p: Points, x: Points) -> Points:
    """Return the gradients (n, 2, 2) of u = (p0 x + p1 y) / w, v = (p2 x + p3 y) / w, w = p4 x + p5
    y + 1."""
    w = x @ p[4:6] + 1
    u, v = x @ p[0:2] / w, x @ p[2:4] / w
    return (
        np.stack([(p[0:2] - u[:, None] * p[4:6]), (p[2:4] - v[:, None] * p[4:6])], axis=1)
        / w[:, None, None]
    )


def project(points: npt.NDArray[Any], matrix: npt.NDArray[Any]) -> Points:
    """Map points (n, 2) by a homography (3, 3)."""
    out = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ matrix.T
    return np.asarray(out[:, :2] / out[:, 2:])
