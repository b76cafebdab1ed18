"""Token pruning: choose which image tokens (T, d) of a page are prefilled; they keep their
positions.

    choice + padding (T,) + importance (T,) -> positions (n,) of the image tokens that are read

`all` reads every image token; `no-padding` prunes those that only see padding; a number N also
prunes the least important ones until at most N are left. The importance is by default the attention
of CLS in the encoder's last layer that is used (PruMerge, arXiv:2403.15388); with `N:similarity` it
is the dissimilarity of an image token to the one before it.
"""

from __future__ import annotations

import re

import numpy as np

from pulse_edge.common.arrays import Float, Mask, Positions
from pulse_edge.errors import UsageError

ALL, NO_PADDING = "all", "no-padding"
ATTENTION, SIMILARITY = "attention", "similarity"
LEAST = 160
"""Smallest N: fewer image tokens than half a tile's cannot describe a page."""
RUN_HEAD = 4
"""Image tokens that stay at the start of each pruned run. They stand for the others: in training
none was missing."""
SHORTEST_RUN = 12
"""Image tokens of a run that is worth pruning: llama.cpp needs one more call behind each."""


def parse(text: str) -> str:
    """Return a valid choice of `--image-tokens`. Raises UsageError."""
    if text in (ALL, NO_PADDING) or ((most := limit(text)) is not None and most >= LEAST):
        return text
    raise UsageError(
        f"--image-tokens {text}: expected {ALL}, {NO_PADDING}, or N or N:{SIMILARITY} with N from "
        f"{LEAST}."
    )


def limit(choice: str) -> int | None:
    """Return the largest number of image tokens that a choice allows; None: it has no number."""
    match = re.fullmatch(f"([0-9]{{1,9}})(:{SIMILARITY}|:{ATTENTION})?", choice)
    return None if match is None else int(match[1])


def ranking(choice: str) -> str | None:
    """Return what ranks image tokens, ATTENTION or SIMILARITY; None if the choice needs no
    ranking."""
    if limit(choice) is None:
        return None
    return SIMILARITY if choice.endswith(SIMILARITY) else ATTENTION


def positions(choice: str, padding: Mask, importance: Float, line: int) -> Positions:
    """Return the positions, ascending, of the image tokens that are read; `padding` (T,) marks
    those that see only that.

    A number prunes whole lines of `line` patches, by the mean of their `importance` (T,): each gap
    costs one more call of llama.cpp, and a few image tokens cost nearly as much as a whole line.
    """
    if choice == ALL:
        return np.arange(len(padding))
    most = limit(choice)
    starts = np.arange(0, len(padding), line)
    counts = np.add.reduceat(~padding, starts, dtype=np.int64)
    means = np.add.reduceat(np.where(padding, 0, importance), starts) / np.maximum(counts, 1)
    pruned, ascending = padding.copy(), iter(np.argsort(means, kind="stable"))
    while most is not None and len(_remaining(pruned)) > most:
        start = starts[next(ascending)]
        pruned[start : start + line] = True
    return _remaining(pruned)


def _remaining(pruned: Mask) -> Positions:
    """Positions outside the runs of `pruned` (T,), and of the first image tokens of each run."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], pruned, [False]]).astype(np.int8)))
    stays = np.ones(len(pruned), bool)
    for start, end in edges.reshape(-1, 2):
        if end - start >= SHORTEST_RUN:
            stays[start + RUN_HEAD : end] = False
    return np.flatnonzero(stays)


def dissimilarity(image_tokens: Float) -> Float:
    """Return (T,): 1 - cosine of each image token with the one before it; 2 for the first."""
    norms = np.linalg.norm(image_tokens, axis=1, keepdims=True)
    unit = image_tokens / np.maximum(norms, np.float32(1e-12))
    cosine = (unit[1:] * unit[:-1]).sum(1, dtype=np.float32)
    return np.concatenate([np.array([2], np.float32), 1 - cosine])
