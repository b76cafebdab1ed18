"""Pixels and image tokens as the runtime makes them, and how far two sets of them differ."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from pulse_edge.inference import tiling
from pulse_edge.kit.manifest import Manifest

Float = npt.NDArray[np.float32]


def cut(page: Image.Image, manifest: Manifest) -> Float:
    """Return the pixels (n, 3, S, S) of a page's tiles, as the runtime cuts them."""
    return tiling.cut(
        page,
        size=manifest.vision.image_size,
        aspect_ratio=manifest.packing.aspect_ratio,
        pinpoints=manifest.packing.grid_pinpoints,
        mean=manifest.vision.mean,
        std=manifest.vision.std,
    )


def pack(
    features: Float, manifest: Manifest, newline: Float | None, page_size: tuple[int, int]
) -> Float:
    """Return the features (n, P, d) of a page as image tokens (T, d), as the runtime packs them.

    `page_size` is width and height in pixels, `newline` the kit's newline token (d,).
    """
    packing = manifest.packing
    return tiling.pack(
        features,
        page_size=page_size,
        size=manifest.vision.image_size,
        aspect_ratio=packing.aspect_ratio,
        pinpoints=packing.grid_pinpoints,
        merge=packing.merge,
        newline=newline,
    )


def relative_errors(tokens: Float, original: Float) -> npt.NDArray[np.float64]:
    """Return each token's distance from the original's as a share of that one's length, (n,)."""
    difference = np.linalg.norm(tokens.astype(np.float64) - original, axis=-1)
    result: npt.NDArray[np.float64] = difference / np.linalg.norm(
        original.astype(np.float64), axis=-1
    )
    return result


def cosine(tokens: Float, original: Float) -> npt.NDArray[np.float64]:
    """Return the cosine of each token (or feature) and the original's: (..., P) of (..., P, d)."""
    a, b = tokens.astype(np.float64), original.astype(np.float64)
    result: npt.NDArray[np.float64] = np.sum(a * b, -1) / (
        np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    )
    return result
