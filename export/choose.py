"""Choose a type for each matrix: the least harm within a number of bytes.

The harm of a type in a matrix is the mean square of the change in the matrix's output, relative to
the output's own. It follows from the rounding errors of the weights and the mean square of each
input column. Where a sensitivity was measured, it is the divergence of the answers' tokens that
such an error causes, which grows in proportion to it.

Harms add up. The least sum within a budget is a multiple-choice knapsack, solved by dynamic
programming over bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType as Type

from export import ggml
from export.ggml import Float
from pulse_edge.errors import UsageError

CANDIDATES = tuple(
    Type[n]
    for n in ["Q2_K", "IQ3_XXS", "Q3_K", "IQ3_S", "IQ4_XS", "Q4_K", "Q5_K", "Q6_K", "Q8_0", "F16"]
)
"""Types from small to large, without those that are slow on a CPU and no better (IQ2, IQ1, Q4_0,
Q5_0, ...)."""
NO_BLOCKS = tuple(Type[n] for n in ("Q4_0", "Q5_0", "Q8_0", "F16"))
"""Types for rows whose length is no multiple of 256."""
ROWS = 384
"""Rows of a matrix that are measured; their error stands for the whole matrix."""
UNITS = 1 << 17
"""Steps of the budget; rounding up loses less than a thousandth."""


@dataclass(frozen=True)
class Matrix:
    """One matrix: its bytes and its harm, by type."""

    name: str
    bytes: Mapping[Type, int]
    harm: Mapping[Type, float]


def measure(
    path: Path,
    importance: Mapping[str, Float],
    progress: Callable[[int, int], None] = lambda _done, _of: None,
) -> list[Matrix]:
    """Measure the relative output error of every matrix of a GGUF, by type.

    `progress` gets the matrices done and their total.
    """
    tensors = [t for t in gguf.GGUFReader(path).tensors if len(t.shape) > 1]
    matrices = []
    for i, t in enumerate(tensors):
        columns, rows = (int(n) for n in t.shape)
        picked = np.linspace(0, rows - 1, min(rows, ROWS)).astype(int)
        sample = gguf.quants.dequantize(np.ascontiguousarray(t.data[picked]), t.tensor_type).astype(
            np.float32
        )
        weight = importance.get(t.name)
        kinds = [k for k in (*CANDIDATES, *NO_BLOCKS) if ggml.row_bytes(k, columns) is not None]
        kinds = list(dict.fromkeys(k for k in kinds if columns % 256 or k in CANDIDATES))
        if weight is None:
            kinds = [
                k for k in kinds if k != Type.IQ3_XXS
            ]  # llama.cpp refuses this type without importance
        harm = {k: _error(sample, k, weight) for k in kinds}
        matrices.append(
            Matrix(t.name, {k: rows * (ggml.row_bytes(k, columns) or 0) for k in kinds}, harm)
        )
        progress(i + 1, len(tensors))
    return matrices


def _error(matrix: Float, kind: Type, importance: Float | None) -> float:
    """Return the mean square of the output's change, relative to the output's."""
    weight = np.ones(matrix.shape[1]) if importance is None else importance.astype(np.float64)
    change = np.square(ggml.rounded(matrix, kind, importance) - matrix, dtype=np.float64) @ weight
    return float(change.sum() / (np.square(matrix, dtype=np.float64) @ weight).sum())


def weighted(matrices: list[Matrix], sensitivity: Mapping[str, float]) -> list[Matrix]:
    """Return the matrices with their harm as divergence.

    That is the matrix's error times the divergence that an error of one would cause.
    """
    return [
        Matrix(m.name, m.bytes, {k: h * sensitivity[m.name] for k, h in m.harm.items()})
        for m in matrices
    ]


def choose(matrices: list[Matrix], budget: int) -> dict[str, Type]:
    """Return the type of each matrix, with the least sum of harms in `budget` bytes.

    Raises UsageError where nothing fits.
    """
    least = sum(min(m.bytes.values()) for m in matrices)
    if least > budget:
        raise UsageError(
            f"{budget:,} bytes are too few for the language model: its smallest types take "
            f"{least:,}."
        )
    unit = max(1, budget // UNITS)
    room = budget // unit
    best: npt.NDArray[np.float64] = np.zeros(room + 1)
    picks = []
    for m in matrices:
        kinds = sorted(m.bytes, key=lambda k: (m.bytes[k], k))
        sums = np.full((len(kinds), room + 1), np.inf)
        for row, kind in zip(sums, kinds, strict=True):
            size = -(-m.bytes[kind] // unit)
            if size <= room:
                row[size:] = best[: room + 1 - size] + m.harm[kind]
        pick = sums.argmin(0)
        best = np.take_along_axis(sums, pick[None], 0)[0]
        picks.append((m, kinds, pick.astype(np.uint8)))
    if not np.isfinite(best[room]):
        return {m.name: min(m.bytes, key=lambda k: m.bytes[k]) for m in matrices}
    chosen, at = {}, room
    for m, kinds, pick in reversed(picks):
        kind = kinds[pick[at]]
        chosen[m.name] = kind
        at -= -(-m.bytes[kind] // unit)
    return chosen
