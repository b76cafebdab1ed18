"""A page becomes LLaVA-1.6 tiles; the encoder's features of those tiles become image tokens.

    cut:     RGB page -> pixels (n, 3, S, S) float32, normalised; tile 0 is the overview
             (`pictures`: before normalising)
    pack:    features (n, P, d) -> image tokens (T, d), in the order of the model's training
    padding: page size -> which of those image tokens see no pixel of the page

Source: LLaVA's mm_utils (select_best_resolution, resize_and_pad_image, divide_to_patches,
process_anyres_image, expand2square) and llava_arch (prepare_inputs_labels_for_multimodal,
unpad_image). The resampler is part of the model: Pillow's antialiasing bicubic, as the published
code uses; an ECG trace of a few pixels does not survive another one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pulse_edge.common.arrays import Float, Mask
from pulse_edge.errors import PageRefused


def cut(
    page: Image.Image,
    *,
    size: int,
    aspect_ratio: str,
    pinpoints: Sequence[tuple[int, int]],
    mean: Sequence[float],
    std: Sequence[float],
) -> Float:
    """Return the tiles of an RGB page, (n, 3, size, size) float32, normalised. Raises PageRefused
    as `pictures` does."""
    tiles = pictures(page, size=size, aspect_ratio=aspect_ratio, pinpoints=pinpoints, mean=mean)
    return np.stack([_normalise(t, mean, std) for t in tiles])


def pictures(
    page: Image.Image,
    *,
    size: int,
    aspect_ratio: str,
    pinpoints: Sequence[tuple[int, int]],
    mean: Sequence[float],
) -> list[Image.Image]:
    """Return the same tiles as RGB pictures of size x size. Raises PageRefused for a page too
    narrow to fill them.

    `aspect_ratio` is LLaVA's image_aspect_ratio: `anyres` gives the overview and then the grid row
    by row, `pad` one tile on a square of the mean colour, `square` one tile cut from the middle, as
    CLIP does.
    """
    if aspect_ratio == "anyres":
        width, height = best_grid(page.size, pinpoints)
        grid = _fit(page, width, height)
        boxes = [
            (x, y, x + size, y + size)
            for y in range(0, height, size)
            for x in range(0, width, size)
        ]
        return [
            page.resize((size, size), Image.Resampling.BICUBIC),
            *(grid.crop(box) for box in boxes),
        ]
    if aspect_ratio == "pad":
        return [_shortest_edge(_squared(page, tuple(int(255 * m) for m in mean)), size)]
    return [_shortest_edge(page, size)]


def best_grid(page_size: tuple[int, int], pinpoints: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return the grid (width, height) in pixels that shows most of the page's pixels, then wastes
    fewest, then comes first."""
    width, height = page_size

    def fit(grid: tuple[int, int]) -> tuple[int, int]:
        scale = min(grid[0] / width, grid[1] / height)
        shown = min(int(width * scale) * int(height * scale), width * height)
        return shown, shown - grid[0] * grid[1]

    best = max(pinpoints, key=fit)
    if fit(best)[0] == 0:
        raise PageRefused(
            f"the page is {width} x {height} pixels: too narrow to be an ECG page. Take the "
            "picture again, "
            "with the whole sheet in view."
        )
    return best


def inner_size(page_size: tuple[int, int], grid: tuple[int, int]) -> tuple[int, int]:
    """Return the size of a page of `page_size` (width, height) when it is scaled to fit into
    `grid`."""
    width, height = grid
    if width / page_size[0] < height / page_size[1]:
        return width, min(math.ceil(page_size[1] * (width / page_size[0])), height)
    return min(math.ceil(page_size[0] * (height / page_size[1])), width), height


def _fit(page: Image.Image, width: int, height: int) -> Image.Image:
    """The page scaled to fit into (width, height), centred on black."""
    inner = inner_size(page.size, (width, height))
    canvas = Image.new("RGB", (width, height))
    canvas.paste(
        page.resize(inner, Image.Resampling.BICUBIC),
        ((width - inner[0]) // 2, (height - inner[1]) // 2),
    )
    return canvas


def _squared(page: Image.Image, colour: tuple[int, ...]) -> Image.Image:
    side = max(page.size)
    canvas = Image.new("RGB", (side, side), colour)
    canvas.paste(page, ((side - page.width) // 2, (side - page.height) // 2))
    return canvas


def _shortest_edge(page: Image.Image, size: int) -> Image.Image:
    """CLIP's own preparation: shortest edge to `size`, bicubic, then the square in the middle."""
    short, long = min(page.size), max(page.size)
    if long * size > short * size * 100:
        raise PageRefused(
            f"the page is {page.width} x {page.height} pixels: too narrow to be an ECG page. Take "
            "the picture again, "
            "with the whole sheet in view."
        )
    scaled = int(size * long / short)
    page = page.resize(
        (size, scaled) if page.width <= page.height else (scaled, size), Image.Resampling.BICUBIC
    )
    left, top = (page.width - size) // 2, (page.height - size) // 2
    return page.crop((left, top, left + size, top + size))


def _normalise(tile: Image.Image, mean: Sequence[float], std: Sequence[float]) -> Float:
    """(3, S, S) float32 by a table of 256 values per channel: CLIPImageProcessor's rounding, and
    faster."""
    scaled = (np.arange(256, dtype=np.float64) * (1 / 255)).astype(np.float32)
    levels = np.asarray(tile)
    return np.stack(
        [
            ((scaled - np.float32(m)) / np.float32(s))[levels[..., c]]
            for c, (m, s) in enumerate(zip(mean, std, strict=True))
        ]
    )


def pack(
    features: Float,
    *,
    page_size: tuple[int, int],
    size: int,
    aspect_ratio: str,
    pinpoints: Sequence[tuple[int, int]],
    merge: str,
    newline: Float | None,
) -> Float:
    """Return image tokens (T, d) from features (n, P, d) of the tiles that `cut` made of a page of
    `page_size` (width, height).

    `merge` is LLaVA's mm_patch_merge_type. flat: tile after tile. spatial: overview, then the
    grid's patches in reading order. spatial_unpad: the same without the patches that are only
    padding, and `newline` (d,) after each line.
    """
    n, patches, d = features.shape
    side = math.isqrt(patches)
    if merge == "flat" or aspect_ratio != "anyres":
        return features.reshape(n * patches, d)
    width, height = best_grid(page_size, pinpoints)
    down, across = height // size, width // size
    grid = features[1:].reshape(down, across, side, side, d).transpose(0, 2, 1, 3, 4)
    grid = grid.reshape(down * side, across * side, d)
    if merge == "spatial":
        return np.concatenate([features[0], grid.reshape(-1, d)])
    assert newline is not None  # the manifest's check promises it
    grid = _unpad(grid, page_size)
    ends = np.broadcast_to(newline.astype(np.float32), (grid.shape[0], 1, d))
    return np.concatenate([features[0], np.concatenate([grid, ends], axis=1).reshape(-1, d)])


def padding(
    page_size: tuple[int, int],
    *,
    patches: int,
    size: int,
    aspect_ratio: str,
    pinpoints: Sequence[tuple[int, int]],
    merge: str,
    newline: Float | None,
) -> Mask:
    """Return (T,): which of the image tokens that `pack` makes of a page's tiles of `patches` see
    only padding.

    `pictures` itself cuts a white page on grey or black; the overview of `anyres` is squeezed and
    has no padding.
    """
    side = math.isqrt(patches)
    white = Image.new("RGB", page_size, "white")
    tiles = pictures(
        white, size=size, aspect_ratio=aspect_ratio, pinpoints=pinpoints, mean=(0.5, 0.5, 0.5)
    )
    colour, edge = 0 if aspect_ratio == "anyres" else int(255 * 0.5), size // side
    levels = np.stack([np.asarray(tile)[: side * edge, : side * edge, 0] for tile in tiles])
    blank = (levels.reshape(-1, side, edge, side, edge) == colour).all(axis=(2, 4))
    flags = blank.reshape(len(tiles), patches, 1).astype(np.float32)
    lines = None if newline is None else np.zeros(1, np.float32)  # a newline is no padding
    options: dict[str, Any] = {
        "size": size,
        "aspect_ratio": aspect_ratio,
        "pinpoints": pinpoints,
        "merge": merge,
    }
    return pack(flags, page_size=page_size, newline=lines, **options)[:, 0] > 0


def _unpad(grid: npt.NDArray[Any], page_size: tuple[int, int]) -> npt.NDArray[Any]:
    """`grid` (lines, columns, d) without the lines that are padding. Truncates as LLaVA does;
    transformers rounds."""
    width, height = page_size
    lines, columns = grid.shape[:2]
    if width / height > columns / lines:
        pad = (lines - int(height * (columns / width))) // 2
        return grid[pad : lines - pad]
    pad = (columns - int(width * (lines / height))) // 2
    return grid[:, pad : columns - pad]
