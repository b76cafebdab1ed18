"""Focus and light of a page: sharpness, glare, shadow."""

from __future__ import annotations

import cv2
import numpy as np

from pulse_edge.common.arrays import Mask, Pixels
from pulse_edge.page.channels import darkest, odd, scaled
from pulse_edge.page.ink import Ink, depth

_FINE = 8.0
"""Pixels per millimetre at which sharpness is measured, at most."""
_BLANK = 12
"""Levels of 255 between the lightest and the darkest spot, below which neither grid nor trace
shows."""


def edge_width(pixels: Pixels, ink: Ink, mm: float) -> float:
    """Return the millimetres over which the trace's edge goes from paper to ink: 1.65 times the
    sigma of a blur, the median.

    `mm`: pixels of a millimetre. 9 without a trace.
    """
    scale = min(1.0, _FINE / mm)
    small = scaled(pixels, scale)
    dark = depth(small, mm * scale)
    size = dark.shape[1], dark.shape[0]
    mask = cv2.resize(ink.mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    if not mask.any():
        return 9.0
    slope = np.hypot(
        cv2.Sobel(dark, cv2.CV_32F, 1, 0, scale=1 / 8),
        cv2.Sobel(dark, cv2.CV_32F, 0, 1, scale=1 / 8),
    )
    near = np.ones((odd(1.5 * mm * scale),) * 2, np.uint8)
    steepest, deepest = cv2.dilate(slope, near)[mask], cv2.dilate(dark, near)[mask]
    return float(np.median(deepest / np.maximum(steepest, 1e-3))) / (mm * scale)


def glare_share(light: Pixels, inside: Mask, pixels: Pixels, mm: float) -> float:
    """Return the share of the page that is burnt out, 0 where all of it is as bright.

    White paper next to a shadow is as bright, but shows grid or trace within 3 mm. `light` (h, w)
    and `inside` (h, w) as in `Flat` and `inside_frame`; `mm`: pixels of `light` for a millimetre.
    """
    if float(np.median(light[inside])) >= 228:
        return 0.0
    size = light.shape[1], light.shape[0]
    grey = darkest(np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8))
    near = np.ones((odd(6 * mm),) * 2, np.uint8)
    blank = cv2.subtract(cv2.dilate(grey, near), cv2.erode(grey, near)) < _BLANK
    return float(((light > 251) & blank)[inside].mean())


def shadow_ratio(light: Pixels, inside: Mask) -> float:
    """Return the light of the page's darkest part over that of its brightest (quantiles 0.03 and
    0.97)."""
    paper = light[inside]
    return float(np.quantile(paper, 0.03)) / max(float(np.quantile(paper, 0.97)), 1.0)
