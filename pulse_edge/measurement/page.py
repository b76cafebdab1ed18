"""A checked page -> its traced signal. The only module of the package that knows what a checked page is."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from PIL import Image

from pulse_edge.measurement.digitise import Digitised, digitise, nothing


class Grid(Protocol):
    """The grid of a flat page."""

    @property
    def across(self) -> float: ...
    @property
    def down(self) -> float: ...


class Flat(Protocol):
    """A flattened, upright page."""

    @property
    def image(self) -> Image.Image: ...
    @property
    def grid(self) -> Grid | None: ...
    @property
    def layout(self) -> dict[str, float]: ...


class Quality(Protocol):
    """What is known about a page."""

    @property
    def layout(self) -> str | None: ...
    @property
    def rows(self) -> tuple[float, ...]: ...


class Checked(Protocol):
    """A page that was flattened and judged."""

    @property
    def flat(self) -> Flat: ...
    @property
    def quality(self) -> Quality: ...


def trace(checked: Checked) -> Digitised:
    """Trace a checked page. Nothing is raised: leads that cannot be traced are missing, with the reasons."""
    flat, quality = checked.flat, checked.quality
    if quality.layout is None:
        return nothing("The page does not look like an ECG, so no trace was followed.")
    likely = dict(flat.layout)
    likely[quality.layout] = max(likely.get(quality.layout, 0.0), 0.5)
    grid = flat.grid
    return digitise(
        np.asarray(flat.image),
        grid.across if grid else None,
        grid.down if grid else None,
        likely,
        quality.rows,
    )
