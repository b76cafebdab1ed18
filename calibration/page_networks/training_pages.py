"""Pages to train on: drawn in many layouts and fonts, cropped, and degraded like photographs and
copies.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.synthetic import style
from calibration.synthetic.recording import Recording
from calibration.synthetic.signals import synthesize

Pixels = NDArray[np.uint8]
FONT_FOLDER = Path("/usr/share/fonts")
FONTS = [
    file
    for file in sorted(FONT_FOLDER.rglob("*.ttf"))
    if not any(word in file.name for word in ("Math", "Oblique", "Italic"))
]
"""Faces for lead names and headers: those of this machine. None: Pillow's own."""
WORDS = (
    "Vent. rate",
    "PR interval",
    "QRS duration",
    "QT/QTc",
    "P-R-T axes",
    "Sinus rhythm",
    "Abnormal ECG",
    "ms",
    "BPM",
    "Name:",
    "Age",
    "Sex",
)


def recording_and_style(rng: np.random.Generator) -> tuple[Recording, style.PageStyle]:
    """A recording and the look of its page, in any layout of `style.ROWS`."""
    look = style.random_style(rng)
    names = ["3x4", "3x4+1", "3x4+2", "3x4+3", "6x2", "12x1", *list(style.RARE_LAYOUTS)[1:]]
    layout = str(rng.choice(names, p=[0.13, 0.25, 0.11, 0.13, 0.12, 0.09, *[0.17 / 7] * 7]))
    rows = len(style.ROWS[layout])
    low, high = {1: (24, 45), 2: (24, 45), 3: (24, 42), 4: (22, 40), 5: (19, 30), 6: (16, 28)}.get(
        rows, (12, 18)
    )
    changes: dict[str, Any] = {"layout": layout, "row_mm": float(rng.uniform(low, high))}
    changes |= {"px_per_mm": float(rng.uniform(3.2, 5.5)), "ink_px": float(rng.uniform(0.9, 2.2))}
    if rng.random() < 0.3:
        changes |= {"top_mm": float(rng.uniform(5, 90)), "right_mm": float(rng.uniform(2, 30))}
    if rng.random() < 0.25:
        lines = [
            "\n".join(rng.choice(WORDS, rng.integers(1, 6))) for _ in range(rng.integers(1, 5))
        ]
        changes |= {"header": tuple(lines), "top_mm": float(rng.uniform(20, 60))}
    if layout in ("6x1", "6x1v", "3x1", "2x1", "1x1", "3x2"):
        changes |= {"seconds": float(rng.choice([2.5, 5.0, 10.0])), "speed": 25.0}
        if rng.random() < 0.6:
            changes["names"] = str(rng.choice(["above", "below"]))
    look = dataclasses.replace(look, **changes)
    if FONTS:
        face = str(FONTS[rng.integers(len(FONTS))])
        look = dataclasses.replace(look, face=face, face_scale=float(rng.uniform(0.85, 1.3)))
    return synthesize(rng), look


def crop(
    image: Pixels, drawn: Any, k: float, rng: np.random.Generator, name: str
) -> tuple[Pixels, str]:
    """Cut a synthetic page tightly round its traces, or through them; the picture and its layout's
    name.
    """
    width = image.shape[1]
    tops = [t.y0 for t in drawn.traces]
    row = drawn.style.row_mm * k
    left = min(t.x0 for t in drawn.traces)
    if rng.random() < 0.25 and name != "partial":  # a part: some rows, some columns
        y0 = rng.uniform(min(tops) - row / 2, max(tops) - row)
        y1 = y0 + rng.uniform(1.2, 2.4) * row
        x0 = rng.uniform(0, 0.6) * width
        x1 = x0 + rng.uniform(0.25, 0.6) * width
        rows = len(style.ROWS[drawn.style.layout])
        return _box(image, x0, y0, x1, y1), name if rows <= 2 else "partial"
    y0, y1 = min(tops) - rng.uniform(0.45, 0.8) * row, max(tops) + rng.uniform(0.4, 0.8) * row
    return _box(
        image, rng.uniform(0, max(left - 1.0 * k, 1)), y0, width - rng.uniform(0, 8) * k, y1
    ), name


def _box(image: Pixels, x0: float, y0: float, x1: float, y1: float) -> Pixels:
    return np.ascontiguousarray(image[max(int(y0), 0) : int(y1), max(int(x0), 0) : int(x1)])


def degraded(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Degrade a page as cameras and copiers do to one that was cut out and straightened.

    It is not quite straight, grey, shaded, soft and noisy, each with some probability.
    """
    height, width = image.shape[:2]
    if rng.random() < 0.7:
        corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
        tilt = np.deg2rad(rng.normal(0, 1.0))
        turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]], np.float32)
        moved = ((corners - corners.mean(0)) @ turn.T + corners.mean(0)) + rng.normal(
            0, 0.008 * width, (4, 2)
        )
        fill = tuple(
            int(v)
            for v in (np.median(image, (0, 1)) if rng.random() < 0.6 else rng.integers(0, 255, 3))
        )
        matrix = cv2.getPerspectiveTransform(corners, moved.astype(np.float32))
        image = cv2.warpPerspective(
            image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderValue=fill
        ).astype(np.uint8)
    if rng.random() < 0.3:
        image = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, 2).astype(np.uint8)
        if rng.random() < 0.4:  # a copier makes the grid as dark as the trace
            image = (255 * (image / 255.0) ** rng.uniform(2, 8)).astype(np.uint8)
    if rng.random() < 0.5:
        coarse = rng.uniform(0.45, 1.0, (4, 5)).astype(np.float32) ** rng.uniform(0.3, 1.2)
        shade = cv2.resize(coarse, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_CUBIC)[
            ..., None
        ]
        tint = rng.uniform(0.8, 1.0, 3).astype(np.float32)
        image = np.clip(image * shade * tint, 0, 255).astype(np.uint8)
    if rng.random() < 0.4:
        image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.4, 1.4))).astype(np.uint8)
    if rng.random() < 0.5:
        noise = rng.normal(0, rng.uniform(1, 12), image.shape[:2]).astype(np.float32)[..., None]
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.3:
        image = 255 - ((255 - image) * rng.uniform(0.4, 1)).astype(np.uint8)
    return image
