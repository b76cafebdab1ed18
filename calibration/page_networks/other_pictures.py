"""Pictures that are not an ECG: what people may hand in by mistake."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Colour = tuple[int, ...]


def draw(rng: np.random.Generator) -> Pixels:
    """Draw text, an empty grid, a plot, or a pattern of shapes: RGB (H, W, 3)."""
    height, width = int(rng.integers(300, 1100)), int(rng.integers(400, 1300))
    kind = int(rng.integers(6))
    image = np.full((height, width, 3), rng.integers(180, 256, 3), np.uint8)
    ink = tuple(int(v) for v in rng.integers(0, 90, 3))
    draw_kind: Callable[[Pixels, Colour, np.random.Generator], Pixels] = {
        0: _text,
        1: _text,
        2: _empty_grid,
        3: _plot,
    }.get(kind, _shapes)
    return draw_kind(image, ink, rng)


def _text(image: Pixels, ink: Colour, rng: np.random.Generator) -> Pixels:
    height, width = image.shape[:2]
    size, y = int(rng.integers(10, 40)), 20
    while y < height - size:
        words = " ".join(
            "".join(rng.choice(list("abcdefghijklmnoprstuvwxyzAEISV123"), rng.integers(1, 9)))
            for _ in range(18)
        )
        if rng.random() < 0.85:
            cv2.putText(
                image,
                words[: int(1.5 * width / size)],
                (int(0.05 * width), y + size),
                int(rng.integers(0, 5)),
                size / 26,
                ink,
                1 + size // 20,
                cv2.LINE_AA,
            )
        y += int(1.6 * size)
    return image


def _empty_grid(image: Pixels, _ink: Colour, rng: np.random.Generator) -> Pixels:
    height, width = image.shape[:2]
    step = float(rng.uniform(4, 40))
    colour = tuple(int(v) for v in rng.integers(90, 240, 3))
    for n in range(int(max(width, height) / step) + 1):
        at, thick = round(n * step), 1 + (n % 5 == 0)
        cv2.line(image, (at, 0), (at, height), colour, thick)
        cv2.line(image, (0, at), (width, at), colour, thick)
    return image


def _plot(image: Pixels, ink: Colour, rng: np.random.Generator) -> Pixels:
    """Boxed axes with one to three smooth or noisy curves."""
    height, width = image.shape[:2]
    count = int(rng.integers(1, 4))
    for n in range(count):
        top, bottom = int(height * (n + 0.12) / count), int(height * (n + 0.9) / count)
        cv2.rectangle(image, (width // 10, top), (int(0.95 * width), bottom), ink, 1)
        x = np.linspace(width // 10, 0.95 * width, 500)
        curve = (
            np.cumsum(rng.normal(0, 1, 500))
            if rng.random() < 0.5
            else np.sin(x * rng.uniform(0.01, 0.2)) ** int(rng.integers(1, 20))
        )
        share = (curve - curve.min()) / (np.ptp(curve) + 1e-6)
        y = share * (bottom - top) * 0.8 + top + 0.1 * (bottom - top)
        points = np.stack([x, y], 1).astype(np.int32)
        colour = tuple(int(v) for v in rng.integers(0, 200, 3))
        cv2.polylines(image, [points], False, colour, int(rng.integers(1, 3)), cv2.LINE_AA)
    return image


def _shapes(image: Pixels, _ink: Colour, rng: np.random.Generator) -> Pixels:
    """Blobs, edges and textures, as in photographs of things."""
    height, width = image.shape[:2]
    small = rng.integers(0, 256, (int(rng.integers(3, 40)), int(rng.integers(3, 40)), 3), np.uint8)
    way = cv2.INTER_CUBIC if rng.random() < 0.6 else cv2.INTER_NEAREST
    image = cv2.resize(small, (width, height), interpolation=way).astype(np.uint8)
    for _ in range(rng.integers(0, 15)):
        centre = int(rng.integers(width)), int(rng.integers(height))
        cv2.ellipse(
            image,
            centre,
            (int(rng.integers(5, 300)), int(rng.integers(5, 200))),
            float(rng.uniform(0, 180)),
            0,
            360,
            tuple(int(v) for v in rng.integers(0, 256, 3)),
            -1 if rng.random() < 0.6 else 2,
        )
    return image
