"""Which of a page's image rows (T, d) the language model reads; those that it reads keep their positions.

    choice + what is padding (T,) + rows (T, d) -> positions (n,) of the rows that are read

`all`; `no-padding` leaves out what is only padding; a number N also leaves out the rows most like their left neighbours
until at most N are left. Of a run that is left out its last row stays: llama.cpp takes no gap behind the last position, but
moves a row that it has (see `llm.LanguageModel.prefill`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .errors import UsageError

Float = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]
Positions = npt.NDArray[np.int64]
ALL, NO_PADDING = "all", "no-padding"
LEAST = 160
"""Rows: fewer than half a tile's say nothing of a page."""
SHORTEST = 3
"""Rows of a run worth leaving out: each costs a row that stays, and one more call of llama.cpp."""


def parse(text: str) -> str | int:
    """A choice from the command line. Raises UsageError."""
    if text in (ALL, NO_PADDING):
        return text
    if text.isascii() and text.isdigit() and int(text) >= LEAST:
        return int(text)
    raise UsageError(f"--rows {text}: expected {ALL}, {NO_PADDING} or a number from {LEAST}.")


def positions(choice: str | int, padding: Flags, rows: Float) -> Positions:
    """Positions, ascending, of the rows (T, d) that are read; `padding` (T,) says which are only that."""
    if choice == ALL:
        return np.arange(len(rows))
    kept = _without_runs(padding)
    if isinstance(choice, str) or len(kept) <= choice:
        return kept
    likeness = np.where(padding, np.inf, _likeness(rows))
    levels = np.unique(likeness)  # ascending; the lower the level, the more is left out
    low, high = 0, len(levels) - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if len(_without_runs(likeness >= levels[middle])) <= choice else (low, middle - 1)
    return _without_runs(likeness >= levels[low])


def _without_runs(out: Flags) -> Positions:
    """Positions left when of each run of `out` (T,) only its last row stays. The page's first and last row stay, too."""
    out = out.copy()
    out[[0, -1]] = False
    edges = np.flatnonzero(np.diff(np.concatenate([[False], out, [False]]).astype(np.int8)))
    kept = np.ones(len(out), bool)
    for start, end in edges.reshape(-1, 2):
        if end - start >= SHORTEST:
            kept[start : end - 1] = False
    return np.flatnonzero(kept)


def _likeness(rows: Float) -> Float:
    """(T,): cosine of each row with the one before it; -1 for the first."""
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-12))
    return np.concatenate([np.array([-1], np.float32), (unit[1:] * unit[:-1]).sum(1, dtype=np.float32)])
