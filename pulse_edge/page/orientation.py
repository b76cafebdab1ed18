"""Run the three small networks for the orientation, mirror image and layout of a flat page.

In: an RGB page with rows or columns along its sides, and its scale. Out: log odds of each of the
four turns and of mirror images, and the probability of each layout. OpenCV runs the networks. They
were trained on synthetic pages alone (calibration/page_networks).
"""

from __future__ import annotations

import cv2
import numpy as np

from pulse_edge.common import paths
from pulse_edge.common.arrays import Float, Pixels, Points
from pulse_edge.page.channels import brightest, darkest, odd

LAYOUTS = ("3x4", "3x4+1", "3x4+2", "3x4+3", "6x2", "12x1", "partial", "none")
"""Layouts that the network tells apart, in the order of its first eight outputs."""
LAYOUT_SIZE = 576
"""Side in pixels of the square that the network for layouts sees."""
FINE = 3.0
"""Pixels per millimetre at which the networks for turns and for mirror images see a page."""
PAGE_MM = 270
"""Longer side in millimetres of a page without a grid."""


def turn_log_odds(page: Pixels, across: float, down: float) -> Points:
    """Return the log odds (4,) that an RGB page is upright after 0, 1, 2 and 3 quarter turns
    clockwise.

    They hold up to a common constant. `across`, `down`: pixels per millimetre along the page's x
    and y.
    """
    page_strokes = strokes(page, across, down)
    sums = np.zeros(4)
    for pair in ((0, 2), (1, 3)):
        turned = np.stack([np.rot90(page_strokes, -turn) for turn in pair])[:, None]
        sums[list(pair)] = _run("orientation", turned).sum(axis=(1, 2, 3))
    return sums


def mirror_log_odds(page: Pixels, across: float, down: float) -> Points:
    """Return the log odds (4,) that an RGB page is as it should be, or has its sides exchanged.

    In this order: as it should be; left and right, top and bottom, or both exchanged. Up to a
    common constant. `across`, `down` as for `turn_log_odds`.
    """
    view = strokes(page, across, down)
    views = np.stack([view, view[:, ::-1], view[::-1], view[::-1, ::-1]])[:, None]
    return np.asarray(_run("mirrored", views).sum(axis=(1, 2, 3)), np.float64)


def strokes(page: Pixels, across: float, down: float) -> Float:
    """Return trace, names and words of an RGB page, and its grid where that is dark: (H, W) 0..1,
    FINE pixels a millimetre.

    How dark a pixel is in its lightest channel, which hides a coloured grid, against the paper
    around it.
    """
    grey, mm = brightest(page), (across * down) ** 0.5
    paper = cv2.blur(cv2.dilate(grey, np.ones((odd(2.5 * mm),) * 2, np.uint8)), (odd(6 * mm),) * 2)
    dark = cv2.subtract(paper, grey).astype(np.float32) / np.maximum(paper, 40)
    size = max(8, round(page.shape[1] * FINE / across)), max(8, round(page.shape[0] * FINE / down))
    dark = np.asarray(
        cv2.resize(dark, size, interpolation=cv2.INTER_AREA if mm > FINE else cv2.INTER_LINEAR)
    )
    return np.asarray(np.clip(dark / max(float(np.quantile(dark, 0.995)), 0.05), 0, 1), np.float32)


def layout_probabilities(page: Pixels) -> dict[str, float]:
    """Return the probability of each of LAYOUTS for an upright RGB page; they sum to 1."""
    logits = _run("layouts", layout_input(np.ascontiguousarray(page))[None])[0, :8].astype(float)
    weights = np.exp(logits - logits.max())
    return {name: float(p) for name, p in zip(LAYOUTS, weights / weights.sum(), strict=True)}


def layout_input(image: Pixels) -> Float:
    """Return what the network for layouts sees of an RGB page: (2, LAYOUT_SIZE, LAYOUT_SIZE) in
    0..1, the page centred.

    First how dark each pixel is in its lightest channel against the paper around it, which shows
    the trace and hides a coloured grid; then in its darkest one, which shows both.
    """
    height, width = image.shape[:2]
    scale = LAYOUT_SIZE / max(height, width)
    # Twice the size at first, so that thin lines darken the pixel they lie in rather than vanish.
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


def _run(network: str, pictures: Float) -> Float:
    """Run one of the networks in the assets on pictures (n, channels, H, W)."""
    # The file is read each time: that takes 4 ms, and a network holds 70 MiB of activations as long
    # as it lives.
    net = cv2.dnn.readNetFromONNX(str(paths.ASSETS / f"{network}.onnx"))
    net.setInput(np.ascontiguousarray(pictures))
    return np.asarray(net.forward(), np.float32)
