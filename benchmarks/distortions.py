"""Distortions of a page at strengths of 0 to 1, as cameras, copiers and screens cause them.

Each takes an RGB page (H, W, 3), a strength and a random generator, and returns the distorted
picture.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def pale(image: Array, strength: float, rng: np.random.Generator) -> Array:
    """Make the trace paler."""
    return (255 - (255 - image.astype(np.float32)) * (1 - 0.95 * strength)).astype(np.uint8)


def _on_desk(image: Array, matrix: Array, size: tuple[int, int]) -> Array:
    """Warp a page onto a desk of `size` (width, height)."""
    desk = np.full((size[1], size[0], 3), (96, 70, 50), np.uint8)
    mask = cv2.warpPerspective(np.full(image.shape[:2], 255, np.uint8), matrix, size)
    return np.where(
        mask[..., None] > 127, cv2.warpPerspective(image, matrix, size, flags=cv2.INTER_CUBIC), desk
    )


def perspective(image: Array, strength: float, rng: np.random.Generator) -> Array:
    """Photograph the page from below."""
    h, w = image.shape[:2]
    source = np.array([[0, 0], [w, 0], [w, h], [0, h]], np.float32)
    squeeze = 0.25 * strength * w
    target = source + np.array([[squeeze, 0], [-squeeze, 0], [0, 0], [0, 0]], np.float32) + 0.06 * w
    matrix = cv2.getPerspectiveTransform(source, target.astype(np.float32))
    return _on_desk(image, matrix, (round(1.12 * w), round(h + 0.12 * w)))


def rotation(image: Array, strength: float, rng: np.random.Generator) -> Array:
    """Turn the page by up to 30 degrees."""
    h, w = image.shape[:2]
    side = round(np.hypot(h, w) * 1.05)
    matrix = cv2.getRotationMatrix2D((w / 2, h / 2), 30 * strength, 1)
    matrix[:, 2] += side / 2 - np.array([w / 2, h / 2])
    return _on_desk(image, np.vstack([matrix, [0, 0, 1]]), (side, side))


def folds(image: Array, strength: float, rng: np.random.Generator) -> Array:
    """Fold the page in three, with shade."""
    h, w = image.shape[:2]
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    bump = np.abs((x / w * 3) % 1 - 0.5) * 2
    shade = 1 - 0.35 * strength * (bump[..., None] > 0.5)
    return np.clip(
        cv2.remap(
            image,
            x,
            y + 0.03 * strength * h * bump,
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        * shade,
        0,
        255,
    ).astype(np.uint8)


def shadow(image: Array, strength: float, rng: np.random.Generator) -> Array:
    """Let a shadow fall on the right side."""
    ramp = np.linspace(-1, 1, image.shape[1])
    return (image * (1 - 0.95 * strength / (1 + np.exp(-12 * ramp)))[None, :, None]).astype(
        np.uint8
    )


def glare(image: Array, strength: float, rng: np.random.Generator) -> Array:
    """Let a lamp reflect in the middle."""
    h, w = image.shape[:2]
    y, x = np.mgrid[0:h, 0:w]
    spot = np.exp(
        -(((x - w / 2) / (0.45 * strength * w)) ** 2 + ((y - h / 2) / (0.45 * strength * h)) ** 2)
    )
    return np.clip(image * 0.8 + 400 * strength * spot[..., None], 0, 255).astype(np.uint8)


def blur(image: Array, strength: float, rng: np.random.Generator) -> Array:
    """Blur the page."""
    return cv2.GaussianBlur(image, (0, 0), 6 * strength)


def jpeg(image: Array, strength: float, rng: np.random.Generator) -> Array:
    """Compress the page."""
    _, data = cv2.imencode(
        ".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, max(1, round(40 * (1 - strength)))]
    )
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))


def moire(image: Array, strength: float, rng: np.random.Generator) -> Array:
    """Lay a pattern of waves over the page."""
    y, x = np.mgrid[0 : image.shape[0], 0 : image.shape[1]]
    wave = np.sin(2 * np.pi * (x * 0.19 + y * 0.03)) * np.sin(2 * np.pi * (y * 0.21 - x * 0.02))
    return np.clip(image + 110 * strength * wave[..., None], 0, 255).astype(np.uint8)


def handwriting(image: Array, strength: float, rng: np.random.Generator) -> Array:
    """Scribble on the page."""
    out = image.copy()
    h, w = image.shape[:2]
    for _ in range(round(30 * strength)):
        walk = np.cumsum(rng.normal(0, w / 90, (25, 2)), axis=0) + rng.uniform([0, 0], [w, h])
        cv2.polylines(out, [walk.astype(np.int32)], False, (30, 40, 120), 3, cv2.LINE_AA)
    return out


def small(image: Array, strength: float, rng: np.random.Generator) -> Array:
    """Reduce the page to a fifth of its size at full strength."""
    return cv2.resize(
        image, None, fx=1 - 0.8 * strength, fy=1 - 0.8 * strength, interpolation=cv2.INTER_AREA
    )


DISTORTIONS: dict[str, Callable[[Array, float, np.random.Generator], Array]] = {
    f.__name__: f
    for f in (perspective, rotation, folds, shadow, glare, blur, jpeg, moire, handwriting, small)
}
