"""Check a file that llama.cpp wrote of its KV cache before llama.cpp reads it: it aborts the
process on a wrong shape.

Source: llama.cpp's `llama_state_seq_save_file` and `llama_kv_cache::state_write` as of
llama-cpp-python 0.3.36, one stream, V transposed (flash attention writes it token by token).
Standard library only.
"""

from __future__ import annotations

import itertools
import os
import struct
from dataclasses import dataclass
from pathlib import Path

_MAGIC, _VERSION = 0x67677371, 3
_HEAD = struct.Struct("<7I")
_CELL = struct.Struct("<iIi")
"""Position, number of sequences, sequence."""
KEY_TYPES = {"f16": 1, "q8_0": 8}
"""ggml_type by name."""
_F16 = 1


@dataclass(frozen=True)
class Shape:
    """Shape of a context's KV cache."""

    layers: int
    width: int
    """Numbers per token and layer of the keys; the values have as many."""
    key_cache_type: str
    """f16 or q8_0."""
    transposed: bool
    """Whether values lie by column, as they do without flash attention."""

    @property
    def key_bytes(self) -> int:
        """Bytes of the keys per token and layer: q8_0 holds 32 numbers and a scale of two bytes in
        34."""
        return 2 * self.width if self.key_cache_type == "f16" else self.width // 32 * 34


def read_counts(path: Path) -> tuple[int, int] | None:
    """Return (position behind the last cell, cells) from a file's head; None for a file that is too
    short. Raises OSError."""
    with open(path, "rb") as file:
        head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    _, _, _, position, cells, _, _ = struct.unpack("<3I2i2I", head)
    return position, cells


def fits(path: Path, shape: Shape, position: int, cells: int) -> bool:
    """Whether a file holds `cells` cells below `position`, ascending, of exactly this shape. Raises
    OSError."""
    try:
        with open(path, "rb") as file:
            head = _HEAD.unpack(file.read(_HEAD.size))
            entries = list(_CELL.iter_unpack(file.read(_CELL.size * cells)))
            at, size = _HEAD.size + _CELL.size * cells, os.fstat(file.fileno()).st_size
            if head != (_MAGIC, _VERSION, 2, position, cells, 1, cells):
                return False
            if not _ascending(entries, position):
                return False
            if struct.unpack("<2I", file.read(8)) != (shape.transposed, shape.layers):
                return False
            at += 8
            for part in ("keys", "values"):
                for _ in range(shape.layers):
                    head_of_layer, body = _layer(part, shape, cells)
                    file.seek(at)
                    if file.read(len(head_of_layer)) != head_of_layer:
                        return False
                    at += len(head_of_layer) + body
            return at == size
    except struct.error:
        return False


def _ascending(entries: list[tuple[int, int, int]], position: int) -> bool:
    """Whether the cells' positions ascend from 0 or more to below `position`, all in sequence 0."""
    positions = [at for at, _, _ in entries]
    return (
        bool(positions)
        and all(a < b for a, b in itertools.pairwise(positions))
        and positions[0] >= 0
        and positions[-1] < position
        and all(entry[1:] == (1, 0) for entry in entries)
    )


def _layer(part: str, shape: Shape, cells: int) -> tuple[bytes, int]:
    """The bytes in front of a layer's keys or values, and how many follow."""
    if part == "keys":
        key_type = KEY_TYPES[shape.key_cache_type]
        return struct.pack("<iQ", key_type, shape.key_bytes), shape.key_bytes * cells
    body = 2 * shape.width * cells
    if shape.transposed:
        return struct.pack("<iII", _F16, 2, shape.width), body
    return struct.pack("<iQ", _F16, 2 * shape.width), body
