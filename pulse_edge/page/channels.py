"""Read the pixels of RGB pictures as arrays, reduce them, and compare their three channels.

OpenCV computes over the channels: NumPy takes ten times as long for so short an axis.
"""

from __future__ import annotations

from typing import Any, TypeVar

import cv2
import numpy as np
from PIL import Image

from pulse_edge.common.arrays import Float, Pixels

Picture = TypeVar("Picture", Pixels, Float)


_LARGE = 20_000_000
"""Pixels from which on a picture is copied in strips, as NumPy would hold it twice for a moment."""


def pixels(picture: Image.Image) -> Pixels:
    """Return the pixels (H, W, 3) of an RGB picture."""
    if picture.width * picture.height < _LARGE:
        return np.asarray(picture)
    out = np.empty((picture.height, picture.width, 3), np.uint8)
    for top in range(0, picture.height, 256):
        bottom = min(top + 256, picture.height)
        out[top:bottom] = np.asarray(picture.crop((0, top, picture.width, bottom)))
    return out


def reduced(picture: Pixels, longest: int) -> tuple[Pixels, float]:
    """Return a picture whose longer side is at most `longest` pixels, and the factor by which it
    was scaled."""
    scale = min(1.0, longest / max(picture.shape[:2]))
    return scaled(picture, scale), scale


def scaled(picture: Pixels, scale: float) -> Pixels:
    """Return a picture (H, W, 3) at `scale` of its size, averaged.

    From a scale of 1 on it is the same array.
    """
    if scale >= 1.0:
        return picture
    size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def brightest(picture: Picture) -> Picture:
    """Return the largest channel (H, W) of a picture (H, W, 3)."""
    red, green, blue = _split(picture)
    maximum: Picture = cv2.max(cv2.max(red, green), blue)
    return maximum


def darkest(picture: Picture) -> Picture:
    """Return the smallest channel (H, W) of a picture (H, W, 3)."""
    red, green, blue = _split(picture)
    minimum: Picture = cv2.min(cv2.min(red, green), blue)
    return minimum


def odd(size: float) -> int:
    """Return an odd whole number of pixels near `size`, at least 3, as the filters of OpenCV ask
    for."""
    return max(3, int(size) | 1)


def _split(picture: Any) -> Any:
    return cv2.split(np.ascontiguousarray(picture))
