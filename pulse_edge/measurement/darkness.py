"""How much darker than the paper round it each pixel of a page is."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Float = npt.NDArray[np.float32]


def brightest(page: Pixels) -> Pixels:
    """Give the largest channel (H, W) of a page (H, W, 3)."""
    red, green, blue = cv2.split(np.ascontiguousarray(page))
    return np.asarray(cv2.max(cv2.max(red, green), blue), np.uint8)


def darkest(page: Pixels) -> Pixels:
    """Give the smallest channel (H, W) of a page (H, W, 3)."""
    red, green, blue = cv2.split(np.ascontiguousarray(page))
    return np.asarray(cv2.min(cv2.min(red, green), blue), np.uint8)


def darkness(grey: Pixels, mm: float) -> Float:
    """Give how much darker each pixel (H, W) is than the paper round it, 0..1; `mm` in pixels."""
    small = max(1, int(mm / 2))
    size = max(1, grey.shape[1] // small), max(1, grey.shape[0] // small)
    peak = cv2.dilate(grey, np.ones((small | 1,) * 2, np.uint8)) if small > 1 else grey
    paper = cv2.resize(peak, size, interpolation=cv2.INTER_NEAREST)
    step = mm / small
    paper = cv2.blur(
        cv2.dilate(paper, np.ones((_odd(2.5 * step),) * 2, np.uint8)), (_odd(6 * step),) * 2
    )
    paper = cv2.resize(paper, (grey.shape[1], grey.shape[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.subtract(paper, grey).astype(np.float32) / np.maximum(paper, 40))


def _odd(size: float) -> int:
    return max(3, int(size) | 1)
