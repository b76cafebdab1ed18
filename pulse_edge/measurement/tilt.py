"""By how much a page without a grid is turned, and its paper's map.

In: the traced lines and the calibration pulses. Out: a `GridMap` on which the rows are level.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pulse_edge.measurement.grid import GridMap
from pulse_edge.measurement.pulse import Pulse
from pulse_edge.measurement.tracing import Line

FEWEST = 3
"""Rows, or pulses, that tell a tilt: the baseline of a single lead may wander as much."""
MOST = 0.05
"""Tilt that a page has at most after it was set upright."""
STRETCHES = 24
"""Stretches of a row whose medians are compared."""
NODES = 48
"""Nodes of the map each way."""


def tilt_of(lines: tuple[Line, ...], pulses: tuple[Pulse, ...]) -> float:
    """Give the slope of the rows, pixels down for each pixel to the right.

    Pulses of all rows stand below one another, so where they are seen they tell it best.
    """
    slopes = [_slope(line) for line in lines]
    tilt = float(np.median(slopes)) if len(lines) >= FEWEST else 0.0
    first = [p for p in pulses if all(p.left <= q.left for q in pulses if q.row == p.row)]
    if len({p.row for p in first}) >= FEWEST:
        tilt = -float(np.polyfit([p.foot for p in first], [p.left for p in first], 1)[0])
    return tilt if abs(tilt) < MOST else 0.0


def _slope(line: Line) -> float:
    """Median slope between all pairs of stretches of a row: Theil and Sen."""
    pieces = np.array_split(line.path.astype(np.float64), STRETCHES)
    middle = np.array([np.median(piece) for piece in pieces])
    one, two = np.triu_indices(STRETCHES, 1)
    step = len(line.path) / STRETCHES
    return float(np.median((middle[two] - middle[one]) / ((two - one) * step)))


def levelled(grid: GridMap, tilt: float, width: int, height: int) -> GridMap:
    """The map of a page of `width` by `height` pixels that is even but for its tilt."""
    node = width / NODES, height / NODES
    x = (np.arange(NODES) + 0.5) * node[0]
    y = (np.arange(NODES) + 0.5) * node[1]
    shift = np.empty((2, NODES, NODES), np.float32)
    shift[0] = -tilt * y[:, None] / grid.across
    shift[1] = tilt * x[None] / grid.down
    return replace(grid, node=node, shift=shift)
