"""Which of a page's image tokens (T, d) the language model reads; those that it reads keep their positions.

    choice + what is padding (T,) + what each row is worth (T,) -> positions (n,) of the rows that are read

`all`; `no-padding` leaves out what is only padding; a number N also leaves out what is worth least, until at most N rows are
left. Worth is, by default, the attention of the CLS row in the last layer that is used (PruMerge, arXiv:2403.15388); with
`N:similarity` the unlikeness of a row and the one before it.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from pulse_edge.errors import UsageError

Float = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]
Positions = npt.NDArray[np.int64]
ALL, NO_PADDING = "all", "no-padding"
ATTENTION, SIMILARITY = "attention", "similarity"
LEAST = 160
"""Rows: fewer than half a tile's say nothing of a page."""
STAYING = 4
"""Rows of each run that stay, its first: they stand for the others, which the model never missed in training."""
SHORTEST = 12
"""Rows of a run worth leaving out: behind each, llama.cpp has to be called anew."""


def parse(text: str) -> str:
    """A choice from the command line. Raises UsageError."""
    if text in (ALL, NO_PADDING) or ((most := limit(text)) is not None and most >= LEAST):
        return text
    raise UsageError(
        f"--image-tokens {text}: expected {ALL}, {NO_PADDING}, or N or N:{SIMILARITY} with N from {LEAST}."
    )


def limit(choice: str) -> int | None:
    """Rows that it leaves at most; None: no number was given."""
    found = re.fullmatch(f"([0-9]{{1,9}})(:{SIMILARITY}|:{ATTENTION})?", choice)
    return None if found is None else int(found[1])


def importance(choice: str) -> str | None:
    """What decides which rows are left; None where nothing has to."""
    if limit(choice) is None:
        return None
    return SIMILARITY if choice.endswith(SIMILARITY) else ATTENTION


def positions(choice: str, padding: Flags, worth: Float, line: int) -> Positions:
    """Positions, ascending, of the rows that are read, of T; `padding` (T,) says which are only that.

    A number leaves whole lines of `line` patches, by the mean of their `worth` (T,): each gap between rows is one more
    call of llama.cpp, and a few rows cost nearly as much as a whole line.
    """
    if choice == ALL:
        return np.arange(len(padding))
    most = limit(choice)
    starts = np.arange(0, len(padding), line)
    counts = np.add.reduceat(~padding, starts, dtype=np.int64)
    means = np.add.reduceat(np.where(padding, 0, worth), starts) / np.maximum(counts, 1)
    out, worst = padding.copy(), iter(np.argsort(means, kind="stable"))
    while most is not None and len(_left(out)) > most:
        start = starts[next(worst)]
        out[start : start + line] = True
    return _left(out)


def _left(out: Flags) -> Positions:
    """Positions without the runs of `out` (T,), but for the first rows of each."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], out, [False]]).astype(np.int8)))
    left = np.ones(len(out), bool)
    for start, end in edges.reshape(-1, 2):
        if end - start >= SHORTEST:
            left[start + STAYING : end] = False
    return np.flatnonzero(left)


def unlikeness(rows: Float) -> Float:
    """(T,): 1 - cosine of each of the rows (T, d) with the one before it; 2 for the first."""
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-12))
    return np.concatenate(
        [np.array([2], np.float32), 1 - (unit[1:] * unit[:-1]).sum(1, dtype=np.float32)]
    )
