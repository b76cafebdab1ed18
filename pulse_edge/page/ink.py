"""The trace of a page, separated from its grid and its paper.

By colour where the grid is coloured. A dark grid is found by its phase: the picture is multiplied
by waves of the grid's own spacing and smoothed, which follows lines over folds.
"""

from __future__ import annotations

import cv2
import numpy as np

from pulse_edge.common.arrays import Float, Mask, Pixels
from pulse_edge.page.channels import brightest, odd, scaled

_SOLID = 0.95
"""Share of the darkest ink's depth from which on a pixel is trace wherever it lies. Thick traces
take more of a page than quantiles allow for."""


class Ink:
    """The trace of a page, at `scale` of its size."""

    def __init__(
        self, pixels: Pixels, across: float, down: float, scale: float, *, grid: bool
    ) -> None:
        """Find the trace of a page (H, W, 3).

        `across`, `down`: pixels per millimetre of the page. `grid`: whether a grid shows.
        """
        self.scale = scale
        self.across, self.down = across * scale, down * scale
        self.mm = (self.across * self.down) ** 0.5
        small = scaled(pixels, scale)
        self.depth = depth(small, self.mm)
        """(H, W) 0..1: how dark each pixel is against the paper around it, in the channel that
        shows a coloured grid least."""
        sample = self.depth[::2, ::2]
        strong = float(np.quantile(sample, 0.99))
        threshold = max(0.10, 0.5 * strong)
        self.crowded = float((sample > threshold).mean())
        """Share of pixels at least half as dark as the trace: 0.02 to 0.04 on a page, more where
        the grid is as dark."""
        mask = self.depth > threshold
        if self.crowded > 0.045:
            mask = (
                self._without_lines(threshold, strong)
                if grid
                else self.depth
                > max(threshold, min(float(np.quantile(sample, 0.96)), _SOLID * strong))
            )
        self.mask: Mask = mask
        """(H, W): where the trace lies."""
        self.contrast = float(np.median(self.depth[mask])) if mask.any() else 0.0
        """Median depth of the trace, 0..1."""

    def _without_lines(self, threshold: float, strong: float) -> Mask:
        """Return (H, W): what is darker than the grid's lines, or dark and not on one of them."""
        lines = grid_lines(np.minimum(self.depth, 0.7 * strong), self.across, self.down)
        paper, ruled = self.depth[~lines], self.depth[lines]
        threshold = max(threshold, min(float(np.quantile(paper[::3], 0.965)), _SOLID * strong))
        over = max(threshold, float(np.quantile(ruled[::3], 0.97))) if ruled.size else threshold
        return (self.depth > threshold) & ~lines | (self.depth > over)


def depth(pixels: Pixels, mm: float) -> Float:
    """Return (H, W) 0..1: how much darker each pixel is than the paper around it.

    `mm`: pixels of a millimetre.
    """
    grey = brightest(pixels)
    paper = cv2.blur(cv2.dilate(grey, np.ones((odd(2.5 * mm),) * 2, np.uint8)), (odd(6 * mm),) * 2)
    return np.asarray(cv2.subtract(paper, grey).astype(np.float32) / np.maximum(paper, 40))


def grid_lines(dark: Float, across: float, down: float, spacing: float = 5.0) -> Mask:
    """Return (H, W): where the lines of a grid of `spacing` mm lie.

    `across`, `down`: pixels per millimetre.

    The picture is multiplied by the grid's wave and smoothed over two cells. The phase that remains
    says how far the lines lie from where an even grid has them: it follows a fold.
    """
    lines = np.zeros(dark.shape, bool)
    for axis, mm in ((1, across), (0, down)):
        phase = 2 * np.pi * np.arange(dark.shape[axis]) / (spacing * mm)
        shape = (1, -1) if axis == 1 else (-1, 1)
        cosine, sine = (f(phase).astype(np.float32).reshape(shape) for f in (np.cos, np.sin))
        size = (odd(2.4 * spacing * mm),) * 2
        real, imaginary = (cv2.blur(cv2.blur(dark * wave, size), size) for wave in (cosine, sine))
        near = (real * cosine + imaginary * sine) / (np.hypot(real, imaginary) + 1e-9)
        lines |= near > np.cos(2 * np.pi * 0.45 / spacing)
    return lines
