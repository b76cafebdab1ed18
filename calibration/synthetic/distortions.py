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
    photo: Array = np.where(
        mask[..., None] > 127, cv2.warpPerspective(image, matrix, size, flags=cv2.INTER_CUBIC), desk
    )
    return photo


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
    bent = cv2.remap(
        image,
        x,
        y + 0.03 * strength * h * bump,
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(np.clip(bent * shade, 0, 255), np.uint8)


def shadow(image: Array, strength: float, rng: np.random.Generator) -> Array:
    """Let a shadow fall on the right side."""
    ramp = np.linspace(-1, 1, image.shape[1])
    light = 1 - 0.95 * strength / (1 + np.exp(-12 * ramp))
    return np.asarray(image * light[None, :, None], np.uint8)


def glare(image: Array, strength: float, rng: np.random.Generator) -> Array:
    """Let a lamp reflect in the middle."""
    h, w = image.shape[:2]
    y, x = np.mgrid[0:h, 0:w]
    spot = np.exp(
        -(((x - w / 2) / (0.45 * strength * w)) ** 2 + ((y - h / 2) / (0.45 * strength * h)) ** 2)
    )
    return np.asarray(np.clip(image * 0.8 + 400 * strength * spot[..., None], 0, 255), np.uint8)


def blur(image: Array, strength: float, rng: np.random.Generator) -> Array:
    """Blur the page."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), 6 * strength))


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
    return np.asarray(np.clip(image + 110 * strength * wave[..., None], 0, 255), np.uint8)


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
    factor = 1 - 0.8 * strength
    return np.asarray(cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA))


def scan(image: Array, strength: float, rng: np.random.Generator) -> Array:
    """Scan the page in grey, turned by up to 1.5 degrees, with the noise of a flatbed scanner."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    h, w = grey.shape
    matrix = cv2.getRotationMatrix2D((w / 2, h / 2), 1.5 * strength * rng.uniform(-1, 1), 1)
    turned = cv2.warpAffine(grey, matrix, (w, h), flags=cv2.INTER_CUBIC, borderValue=(245.0,))
    soft = cv2.GaussianBlur(turned, (0, 0), 0.3 + 0.7 * strength)
    noisy = soft * (1 - 0.05 * strength) + rng.normal(0, 5 * strength, soft.shape)
    return np.repeat(np.clip(noisy, 0, 255).astype(np.uint8)[..., None], 3, 2)


def fax(image: Array, strength: float, rng: np.random.Generator) -> Array:
    """Make the page black and white, as a fax or a bilevel scan does: the grid is lost, or turns
    black where it is dark."""
    grey = scan(image, strength, rng)
    return np.where(grey < rng.uniform(110, 170), 0, 255).astype(np.uint8)


DISTORTIONS: dict[str, Callable[[Array, float, np.random.Generator], Array]] = {
    f.__name__: f
    for f in (perspective, rotation, folds, shadow, glare, blur, jpeg, moire, handwriting, small)
}
