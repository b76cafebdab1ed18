"""Which way is up on a flat page, is it a mirror image, and what layout it has: three small networks, trained on drawn
pages only.

In: an RGB page with rows or columns along its sides, and its scale. Out: how upright each of the four turns is, how
probable a mirror image, and each layout. OpenCV runs the networks; calibration/page_networks
trains them.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from pulse_edge.common import paths
from pulse_edge.page.channels import brightest, darkest

Pixels = npt.NDArray[np.uint8]
Float = npt.NDArray[np.float32]
Points = npt.NDArray[np.float64]

LAYOUTS = ("3x4", "3x4+1", "3x4+2", "3x4+3", "6x2", "12x1", "partial", "none")
"""What the network for layouts tells apart, in the order of its first eight numbers."""
LAYOUT_SIZE = 576
"""Side of the square that the network for layouts sees, in pixels."""
FINE = 3.0
"""Pixels per millimetre at which the other one looks for what is the right way up."""
PAGE_MM = 270
"""Longer side of a page whose grid does not tell its scale."""


def turn_log_odds(page: Pixels, across: float, down: float) -> Points:
    """(4,) log odds that an RGB page is upright after 0, 1, 2, 3 quarter turns clockwise, up to a common constant.

    `across`, `down`: pixels per millimetre along the page's x and y.
    """
    look = strokes(page, across, down)
    sums = np.zeros(4)
    for pair in ((0, 2), (1, 3)):
        turned = np.stack([np.rot90(look, -turn) for turn in pair])[:, None]
        sums[list(pair)] = _said("orientation", turned).sum(axis=(1, 2, 3))
    return sums


def mirror_log_odds(page: Pixels, across: float, down: float) -> Points:
    """(4,) log odds that an RGB page is as it should be, that left and right, that top and bottom, and that both are exchanged,
    up to a common constant. `across`, `down` as for `turns`.
    """
    look = strokes(page, across, down)
    views = np.stack([look, look[:, ::-1], look[::-1], look[::-1, ::-1]])[:, None]
    return np.asarray(_said("mirrored", views).sum(axis=(1, 2, 3)), np.float64)


def strokes(page: Pixels, across: float, down: float) -> Float:
    """(H, W) 0..1 at FINE pixels per millimetre: trace, names and words of an RGB page, and its grid where that is dark.

    How dark a pixel is in its lightest channel, which hides a coloured grid, against the paper round it.
    """
    grey, mm = brightest(page), (across * down) ** 0.5
    paper = cv2.blur(
        cv2.dilate(grey, np.ones((_odd(2.5 * mm),) * 2, np.uint8)), (_odd(6 * mm),) * 2
    )
    dark = cv2.subtract(paper, grey).astype(np.float32) / np.maximum(paper, 40)
    size = max(8, round(page.shape[1] * FINE / across)), max(8, round(page.shape[0] * FINE / down))
    dark = np.asarray(
        cv2.resize(dark, size, interpolation=cv2.INTER_AREA if mm > FINE else cv2.INTER_LINEAR)
    )
    return np.asarray(np.clip(dark / max(float(np.quantile(dark, 0.995)), 0.05), 0, 1), np.float32)


def layout_probabilities(page: Pixels) -> dict[str, float]:
    """How probable each of LAYOUTS is for an upright RGB page; they sum to 1."""
    said = _said("layouts", layout_input(np.ascontiguousarray(page))[None])[0, :8].astype(float)
    likely = np.exp(said - said.max())
    return {name: float(p) for name, p in zip(LAYOUTS, likely / likely.sum(), strict=True)}


def layout_input(image: Pixels) -> Float:
    """What the network for layouts sees of an RGB page: (2, LAYOUT_SIZE, LAYOUT_SIZE) in 0..1, the page in the middle.

    First how dark each pixel is in its lightest channel against the paper round it, which leaves the trace and hides
    a coloured grid; then in its darkest one, which shows both.
    """
    height, width = image.shape[:2]
    scale = LAYOUT_SIZE / max(height, width)
    # First to twice the size, so that thin lines darken the pixel they lie in rather than vanish.
    middle = max(1, round(2 * scale * width)), max(1, round(2 * scale * height))
    how = cv2.INTER_AREA if 2 * scale < 1 else cv2.INTER_LINEAR
    image = np.asarray(cv2.resize(image, middle, interpolation=how), np.uint8)
    out = np.zeros((2, LAYOUT_SIZE, LAYOUT_SIZE), np.float32)
    for n, grey in enumerate((brightest(image), darkest(image))):
        paper = cv2.blur(cv2.dilate(grey, np.ones((15, 15), np.uint8)), (31, 31))
        dark = cv2.subtract(paper, grey).astype(np.float32) / np.maximum(paper, 40)
        small = max(1, round(scale * width)), max(1, round(scale * height))
        dark = np.asarray(cv2.resize(dark, small, interpolation=cv2.INTER_AREA))
        strong = max(float(np.quantile(dark, 0.995)), 0.05)
        y, x = (LAYOUT_SIZE - small[1]) // 2, (LAYOUT_SIZE - small[0]) // 2
        out[n, y : y + small[1], x : x + small[0]] = np.clip(dark / strong, 0, 1)
    return out


def _said(network: str, pictures: Float) -> Float:
    # Read anew each time: that takes 4 ms, and a network keeps 70 MiB of activations as long as it lives.
    net = cv2.dnn.readNetFromONNX(str(paths.ASSETS / f"{network}.onnx"))
    net.setInput(np.ascontiguousarray(pictures))
    return np.asarray(net.forward(), np.float32)


def _odd(size: float) -> int:
    return max(3, int(size) | 1)
