"""Turn a picture into pixels and features into image tokens: LLaVA's published code, written again.

Source: LLaVA's mm_utils.process_anyres_image and llava_arch.prepare_inputs_labels_for_multimodal.
Pixels are made by transformers' own processors (Pillow, never torchvision), loaded from the
checkpoint's files.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from transformers import CLIPImageProcessor, LlavaNextImageProcessor

from .facts import Facts, read

Float = npt.NDArray[np.float32]


class Pixels:
    """Makes the pixels (n, 3, S, S) of a picture, where S is the tower's `side`."""

    def __init__(self, facts: Facts, side: int) -> None:
        self._facts, self._side = facts, side
        # transformers reads a LlavaNext model's own folder, LLaVA the tower's.
        folder = facts.folder if facts.hub else facts.tower_folder
        files = ("preprocessor_config.json", "processor_config.json")
        self._from = (
            folder if folder is not None and any((folder / f).is_file() for f in files) else None
        )
        self.processor = self._load(CLIPImageProcessor)

    def _load(self, kind: type) -> CLIPImageProcessor | LlavaNextImageProcessor:
        """Return the processor by its file.

        If the file states no size, the tower's counts: transformers' default is another tower's.
        """
        sizes = {
            "size": {"shortest_edge": self._side},
            "crop_size": {"height": self._side, "width": self._side},
        }
        if self._from is None:
            return kind(**sizes)
        stated = read(self._from / "preprocessor_config.json") or read(
            self._from / "processor_config.json"
        )
        stated = stated.get("image_processor", stated)
        missing = {k: v for k, v in sizes.items() if stated.get(k) is None}
        return kind.from_pretrained(self._from, **missing)  # type: ignore[attr-defined]

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean per channel, as the checkpoint's files give it."""
        return tuple(float(x) for x in self.processor.image_mean)

    @property
    def std(self) -> tuple[float, ...]:
        """Deviation per channel, as the checkpoint's files give it."""
        return tuple(float(x) for x in self.processor.image_std)

    def __call__(self, picture: Image.Image) -> Float:
        """Return the pixels of an RGB picture.

        With `anyres` tile 0 is the overview, then comes the grid in reading order.
        """
        facts = self._facts
        if facts.aspect == "anyres" and facts.hub:
            processor = self._load(LlavaNextImageProcessor)
            pinpoints = [[h, w] for w, h in facts.pinpoints]
            processed = processor(picture, image_grid_pinpoints=pinpoints, return_tensors="np")
            return np.asarray(processed["pixel_values"][0], np.float32)
        if facts.aspect == "anyres":
            return self._prepared(tiles(picture, facts.pinpoints, self._side))
        if facts.aspect == "pad":
            picture = _square(picture, tuple(int(255 * m) for m in self.mean))
        return self._prepared([picture])

    def _prepared(self, pictures: list[Image.Image]) -> Float:
        return np.concatenate(
            [self.processor(p, return_tensors="np")["pixel_values"] for p in pictures]
        ).astype("f4")


def grid_of(size: tuple[int, int], pinpoints: tuple[tuple[int, int], ...]) -> tuple[int, int]:
    """Return the grid (width, height) that LLaVA's select_best_resolution chooses."""
    best, most, least = pinpoints[0], -1, math.inf
    for width, height in pinpoints:
        scale = min(width / size[0], height / size[1])
        useful = min(int(size[0] * scale) * int(size[1] * scale), size[0] * size[1])
        wasted = width * height - useful
        if useful > most or (useful == most and wasted < least):
            best, most, least = (width, height), useful, wasted
    return best


def tiles(
    picture: Image.Image, pinpoints: tuple[tuple[int, int], ...], side: int
) -> list[Image.Image]:
    """Return LLaVA's overview and grid tiles, each `side` x `side`."""
    width, height = grid_of(picture.size, pinpoints)
    if width / picture.width < height / picture.height:
        inner = width, min(math.ceil(picture.height * (width / picture.width)), height)
    else:
        inner = min(math.ceil(picture.width * (height / picture.height)), width), height
    canvas = Image.new("RGB", (width, height), (0, 0, 0))
    canvas.paste(
        picture.resize(inner, Image.BICUBIC),  # type: ignore[attr-defined]
        ((width - inner[0]) // 2, (height - inner[1]) // 2),
    )
    result = [picture.resize((side, side))]  # Pillow's default is bicubic
    for top in range(0, height, side):
        for left in range(0, width, side):
            result.append(canvas.crop((left, top, left + side, top + side)))
    return result


def _square(picture: Image.Image, colour: tuple[int, ...]) -> Image.Image:
    if picture.width == picture.height:
        return picture
    side = max(picture.size)
    canvas = Image.new("RGB", (side, side), colour)
    canvas.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return canvas


def pack(
    facts: Facts, features: Float, size: tuple[int, int], side: int, newline: Float | None
) -> Float:
    """Return the image tokens (T, d) of features (n, P, d).

    The picture's `size` is (width, height) in pixels, its tiles have `side` pixels.
    """
    tokens = torch.from_numpy(features)
    if facts.aspect != "anyres" or facts.merge == "flat":
        return tokens.flatten(0, 1).numpy()
    across, down = (n // side for n in grid_of(size, facts.pinpoints))
    edge = math.isqrt(tokens.shape[1])
    grid = (
        tokens[1:]
        .view(down, across, edge, edge, -1)
        .permute(4, 0, 2, 1, 3)
        .flatten(1, 2)
        .flatten(2, 3)
    )
    if facts.merge == "spatial_unpad":
        assert newline is not None
        grid = _unpad(grid, size)
        ends = torch.from_numpy(newline)[:, None, None].expand(*grid.shape[:-1], 1)
        grid = torch.cat((grid, ends), dim=-1)
    return torch.cat((tokens[0], grid.flatten(1, 2).T)).numpy()


def _unpad(grid: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Apply LLaVA's unpad_image to (d, lines, columns)."""
    lines, columns = grid.shape[1:]
    if size[0] / size[1] > columns / lines:
        edge = (lines - int(size[1] * (columns / size[0]))) // 2
        return grid[:, edge : lines - edge, :]
    edge = (columns - int(size[0] * (lines / size[1]))) // 2
    return grid[:, :, edge : columns - edge]


def shapes(path: Path) -> list[Image.Image]:
    """Return the example page, and pages of other shapes that are cut or turned from it.

    Each takes another grid or other padding.
    """
    with Image.open(path) as file:
        page = file.convert("RGB")
    width, height = page.size
    third = page.crop((0, height // 3, width, height // 3 + height // 3))
    return [
        page,
        page.transpose(Image.Transpose.ROTATE_90),
        third,
        third.transpose(Image.Transpose.ROTATE_90),
        page.crop((0, 0, 301, 300)),
        page.resize((97, 61)),
    ]
