"""Over the three channels of an RGB picture, by OpenCV: NumPy takes ten times as long for so short an axis."""

from __future__ import annotations

from typing import Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

Picture = TypeVar("Picture", npt.NDArray[np.uint8], npt.NDArray[np.float32])


_LARGE = 20_000_000


def pixels(picture: Image.Image) -> npt.NDArray[np.uint8]:
    """(H, W, 3) of an RGB picture; of a large one in strips, as NumPy would hold it twice for a moment."""
    if picture.width * picture.height < _LARGE:
        return np.asarray(picture)
    out = np.empty((picture.height, picture.width, 3), np.uint8)
    for top in range(0, picture.height, 256):
        bottom = min(top + 256, picture.height)
        out[top:bottom] = np.asarray(picture.crop((0, top, picture.width, bottom)))
    return out


def brightest(picture: Picture) -> Picture:
    """(H, W) of a picture (H, W, 3): the largest channel."""
    red, green, blue = _split(picture)
    found: Picture = cv2.max(cv2.max(red, green), blue)
    return found


def darkest(picture: Picture) -> Picture:
    """(H, W) of a picture (H, W, 3): the smallest channel."""
    red, green, blue = _split(picture)
    found: Picture = cv2.min(cv2.min(red, green), blue)
    return found


def _split(picture: Any) -> Any:
    return cv2.split(np.ascontiguousarray(picture))
