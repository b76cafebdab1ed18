"""The shape of a file that llama.cpp wrote of its KV cache, checked before llama.cpp reads it: it aborts on a wrong one.

Source: llama.cpp's `llama_state_seq_save_file` and `llama_kv_cache::state_write` as of llama-cpp-python 0.3.36, one stream,
V transposed (flash attention writes it by row). Standard library only.
"""

from __future__ import annotations

import itertools
import os
import struct
from dataclasses import dataclass
from pathlib import Path

_MAGIC, _VERSION = 0x67677371, 3
_CELL = struct.Struct("<iIi")
"""Position, number of sequences, sequence."""


@dataclass(frozen=True)
class Shape:
    """Of a context's KV cache."""

    layers: int
    width: int
    """Numbers per token and layer of the keys; of the values too."""
    key_type: int
    """ggml_type: 1 f16, 8 q8_0."""
    key_bytes: int
    """Per token and layer."""
    transposed: bool
    """Whether values lie by column: without flash attention."""


def fits(path: Path, shape: Shape, position: int, cells: int) -> bool:
    """Whether a file holds `cells` cells below `position`, ascending, of exactly this shape. Raises OSError."""
    try:
        with open(path, "rb") as file:
            head = struct.unpack("<7I", file.read(28))
            places = list(_CELL.iter_unpack(file.read(_CELL.size * cells)))
            at, size = 28 + _CELL.size * cells, os.fstat(file.fileno()).st_size
            if head != (_MAGIC, _VERSION, 2, position, cells, 1, cells) or not _ascending(
                places, position
            ):
                return False
            if struct.unpack("<2I", file.read(8)) != (shape.transposed, shape.layers):
                return False
            at += 8
            for part in ["keys", "values"]:
                for _ in range(shape.layers):
                    head_of_layer, body = _layer(part, shape, cells)
                    file.seek(at)
                    if file.read(len(head_of_layer)) != head_of_layer:
                        return False
                    at += len(head_of_layer) + body
            return at == size
    except struct.error:
        return False


def _ascending(places: list[tuple[int, int, int]], position: int) -> bool:
    at = [place for place, _, _ in places]
    rising = all(a < b for a, b in itertools.pairwise(at))
    return (
        bool(at)
        and rising
        and at[0] >= 0
        and at[-1] < position
        and all(p[1:] == (1, 0) for p in places)
    )


def _layer(part: str, shape: Shape, cells: int) -> tuple[bytes, int]:
    """The bytes in front of a layer's keys or values, and how many follow."""
    if part == "keys":
        return struct.pack("<iQ", shape.key_type, shape.key_bytes), shape.key_bytes * cells
    body = 2 * shape.width * cells
    if shape.transposed:
        return struct.pack("<iII", 1, 2, shape.width), body
    return struct.pack("<iQ", 1, 2 * shape.width), body
