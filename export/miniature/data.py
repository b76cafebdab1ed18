"""Read lessons from the source's process in blocks, and collate them to batches."""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pulse_edge.common import child_process
from pulse_edge.errors import EngineError

ROOT = Path(__file__).parents[2]
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""CLIP's normalisation, as in openai/clip-vit-large-patch14-336."""

Lesson = Mapping[str, npt.NDArray[Any]]
"""Fields as in calibration/synthetic/lessons.py; only bytes pass between the two packages."""


class Source:
    """The lessons `first`, `first + 1`, ... of a seed.

    They are drawn by processes that end with this one.
    """

    def __init__(
        self, seed: int, first: int, patch: int, signals: Path | None = None, processes: int = 1
    ) -> None:
        command = child_process.command(
            "calibration.synthetic.stream", f"--seed={seed}", f"--patch={patch}"
        )
        command += [f"--signals={signals}"] if signals else []
        alone = child_process.environment(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
        self._children = [
            subprocess.Popen(
                [*command, f"--first={first + k}", f"--step={processes}"],
                stdout=subprocess.PIPE,
                cwd=ROOT,
                env=alone,
            )
            for k in range(processes)
        ]
        self._turn = 0

    def __next__(self) -> Lesson:
        source = self._children[self._turn % len(self._children)]
        self._turn += 1
        assert source.stdout is not None
        size = source.stdout.read(8)
        frame = source.stdout.read(int.from_bytes(size, "little"))
        if len(size) < 8 or len(frame) < int.from_bytes(size, "little"):
            raise EngineError("the source of lessons has ended; its own message stands above.")
        with np.load(io.BytesIO(frame), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}

    def close(self) -> None:
        """End the processes."""
        for source in self._children:
            source.terminate()
            if source.stdout is not None:
                source.stdout.close()
            source.wait()


class Blocks:
    """Blocks of `size` lessons; the next block is drawn while the current one is learned.

    The numbers of the lessons follow from the block's number.
    """

    def __init__(self, seed: int, block: int, size: int, patch: int, **source: Any) -> None:
        self._size = size
        self._source = Source(seed, block * size, patch, **source)
        self._pool = ThreadPoolExecutor(1)
        self._next = self._pool.submit(self._draw)

    def _draw(self) -> list[Lesson]:
        return [next(self._source) for _ in range(self._size)]

    def __next__(self) -> list[Lesson]:
        block, self._next = self._next.result(), Future()
        self._next = self._pool.submit(self._draw)
        return block

    def close(self) -> None:
        """Stop drawing."""
        self._source.close()
        self._pool.shutdown(wait=True, cancel_futures=True)


def order(seed: int, block: int, size: int, passes: int, batch: int) -> list[list[int]]:
    """Return the lessons of each batch of a block; every lesson comes once in each pass."""
    rng = np.random.default_rng((seed, block, 7))
    turns = [rng.permutation(size).tolist() for _ in range(passes)]
    return [turn[i : i + batch] for turn in turns for i in range(0, size - batch + 1, batch)]


@dataclass
class Batch:
    """Several pages with their tiles one after the other.

    Patches are numbered over all tiles: tile * slots + slot.
    """

    patches: Tensor  # (n, t, 3 p p) uint8: the patches that the tower reads
    tokens: Tensor  # (n, t) number of each patch within its tile
    mask: Tensor | None  # (n, t) False where a tile has fewer patches than the longest
    pages: list[slice]  # the tiles of each page
    targets: dict[str, Tensor]
    words: list[list[tuple[str, str]]]


def cut_patches(tiles: npt.NDArray[np.uint8], patch: int) -> npt.NDArray[np.uint8]:
    """Cut tiles (n, S, S, 3) into patches (n, patches, 3 p p), ordered as a convolution's
    weight."""
    n, size = tiles.shape[:2]
    side = size // patch
    parts = tiles.reshape(n, side, patch, side, patch, 3).transpose(0, 1, 3, 5, 2, 4)
    return np.ascontiguousarray(parts).reshape(n, side * side, -1)


def collate(
    lessons: Sequence[Lesson],
    patch: int,
    *,
    whole: bool,
    blank: float = 1.0,
    rng: np.random.Generator | None = None,
) -> Batch:
    """Collate lessons to one batch.

    With `whole` the overview and black patches are included, as in the runtime; otherwise neither.
    Then `blank` is the share of the patches without a trace that is included, drawn by `rng`.
    """
    parts, places, pages, shift, targets = [], [], [], 0, []
    for lesson in lessons:
        tiles = lesson["tiles"] if whole else lesson["tiles"][1:]
        cut = cut_patches(tiles, patch)
        inner = lesson["inner"].reshape(len(lesson["inner"]), -1).astype(bool)
        if rng is not None and blank < 1:
            inner &= (rng.random(inner.shape) < blank) | _with_trace(lesson, inner.shape)
        visible = (
            [np.arange(cut.shape[1])] * len(cut)
            if whole
            else [np.flatnonzero(row) for row in inner]
        )
        where = np.full(inner.size, -1)
        for k, tokens in enumerate(visible):
            parts.append(cut[k][tokens])
            places.append(tokens)
            if not (whole and k == 0):
                grid = k - 1 if whole else k
                where[grid * cut.shape[1] + tokens] = (shift + k) * 10000 + np.arange(tokens.size)
        pages.append(slice(shift, shift + len(cut)))
        shift += len(cut)
        targets.append(_placed(lesson, where))
    slots = max(p.size for p in places)
    patches = np.zeros((len(parts), slots, parts[0].shape[1]), np.uint8)
    tokens = np.zeros((len(parts), slots), np.int64)
    mask = np.zeros((len(parts), slots), bool)
    for k, (part, place) in enumerate(zip(parts, places, strict=True)):
        patches[k, : place.size], tokens[k, : place.size], mask[k, : place.size] = part, place, True
    joined = _joined(targets, slots)
    words = [[(q, a) for q, a in json.loads(bytes(lesson["words"]) or b"[]")] for lesson in lessons]
    padding_mask = None if mask.all() else torch.from_numpy(mask)
    return Batch(
        torch.from_numpy(patches), torch.from_numpy(tokens), padding_mask, pages, joined, words
    )


def _with_trace(lesson: Lesson, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Return which patches (tiles, patches) a trace or its baseline runs through."""
    out = np.zeros(int(np.prod(shape)), bool)
    out[lesson["traced"]] = out[lesson["at"]] = True
    return out.reshape(shape)


PER_PATCH = {"at": ("lead", "kind", "beat", "st"), "traced": ("heights",)}
PER_PAGE = ("findings", "cpsc", "superclass", "measures", "levels")


def _placed(lesson: Lesson, where: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
    """Return the lesson's targets with their patches' numbers in the batch.

    Targets of patches that are not in the batch are dropped.
    """
    out: dict[str, npt.NDArray[Any]] = {name: lesson[name] for name in PER_PAGE}
    for number, names in PER_PATCH.items():
        patches = where[lesson[number]]
        out[number] = patches[patches >= 0]
        out |= {name: lesson[name][patches >= 0] for name in names}
    return out


def _joined(targets: Sequence[Mapping[str, npt.NDArray[Any]]], slots: int) -> dict[str, Tensor]:
    """Return all pages' targets as tensors.

    Targets of pages are stacked, targets of patches concatenated.
    """
    out = {name: torch.from_numpy(np.stack([t[name] for t in targets])) for name in PER_PAGE}
    for number, names in PER_PATCH.items():
        patches = np.concatenate([t[number] for t in targets])
        out[number] = torch.from_numpy(patches // 10000 * slots + patches % 10000)
        out |= {
            name: torch.from_numpy(np.concatenate([t[name] for t in targets])) for name in names
        }
    owners = [np.full(t["at"].size, i) for i, t in enumerate(targets)]
    out["page_of_at"] = torch.from_numpy(np.concatenate(owners))
    return out


def normalised(patches: Tensor, jitter: Tensor | None = None) -> Tensor:
    """Return pixels as the encoder gets them: uint8 (n, t, 3 p p) -> float32.

    `jitter` (n, 2, 3) scales and shifts the colours.
    """
    n, t, _ = patches.shape
    mean, std = (torch.tensor(c, device=patches.device) for c in (MEAN, STD))
    scale, shift = (1.0, 0.0) if jitter is None else (jitter[:, 0], jitter[:, 1])
    times, plus = scale / 255 / std, (shift - mean) / std
    x = patches.view(n, t, 3, -1).float()
    x.mul_(times.expand(n, 3)[:, None, :, None]).add_(plus.expand(n, 3)[:, None, :, None])
    return x.view(n, t, -1)


def first_lessons(seed: int, count: int, patch: int, **source: Any) -> Iterator[Lesson]:
    """Yield the first `count` lessons of a seed."""
    lessons = Source(seed, 0, patch, **source)
    try:
        for _ in range(count):
            yield next(lessons)
    finally:
        lessons.close()
