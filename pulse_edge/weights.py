"""What the header of a GGUF file says about its weights, without loading them. Standard library only."""

from __future__ import annotations

import itertools
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import KitError

# ggml's numbers (ggml.h); only types that a laptop lays out anew must have their name here.
KINDS = {0: "F32", 1: "F16", 2: "Q4_0", 8: "Q8_0", 10: "Q2_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K"}
KINDS |= {20: "IQ4_NL", 30: "BF16", 39: "MXFP4"}
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True)
class Weights:
    """Of the language model."""

    heads: int
    """Attention heads of a layer."""
    layers: int
    bytes: int
    """Of all tensors."""
    by_kind: dict[str, int]
    """Bytes of the matrices of each weight type."""
    embedding: int
    """Bytes of the token embedding, of which a few rows are read a page; 0 where it is the output matrix too."""
    by_layer: tuple[int, ...]
    """Bytes of each layer's tensors; what remains of `bytes` is embedding and output."""


def read(path: Path) -> Weights:
    """Raises KitError for a file that is no GGUF file or was cut off."""
    try:
        with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _weights(_Reader(data), len(data))
    except (OSError, ValueError, KeyError, IndexError, struct.error) as e:
        raise KitError(f"{path}: its header cannot be read ({e}). Copy the kit again.") from None


class _Reader:
    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.at = 0

    def take(self, form: str) -> Any:
        (value,) = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize("<" + form)
        return value

    def text(self) -> str:
        size = self.take("Q")
        self.at += size
        return self.data[self.at - size : self.at].decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        """A scalar or a text; None for an array, which is skipped."""
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            return self.take(_SCALARS[kind])
        inner, count = self.take("I"), self.take("Q")
        if inner in _SCALARS:
            self.at += count * struct.calcsize("<" + _SCALARS[inner])
        elif inner == _STRING:  # the vocabulary: long, so not one call a text
            at, length = self.at, struct.Struct("<Q").unpack_from
            for _ in range(count):
                at += 8 + length(self.data, at)[0]
            self.at = at
        else:
            for _ in range(count):
                self.value(inner)
        return None


def _weights(reader: _Reader, size: int) -> Weights:
    if reader.take("4s") != b"GGUF" or reader.take("I") not in (2, 3):
        raise ValueError("not a GGUF file of version 2 or 3")
    tensors, pairs = reader.take("Q"), reader.take("Q")
    said = {}
    for _ in range(pairs):
        key = reader.text()
        said[key] = reader.value(reader.take("I"))
    infos = []
    for _ in range(tensors):
        name, dimensions = reader.text(), reader.take("I")
        reader.at += 8 * dimensions
        infos.append((reader.take("I"), reader.take("Q"), name, dimensions))
    alignment = said.get("general.alignment", 32)
    start = -(-reader.at // alignment) * alignment
    architecture = said["general.architecture"]
    layers = said[f"{architecture}.block_count"]
    by_kind: dict[str, int] = {}
    by_layer = [0] * layers
    ends = [*sorted(at for _, at, _, _ in infos), size - start]
    following = dict(itertools.pairwise(ends))
    lengths = {name: following[at] - at for _, at, name, _ in infos}
    embedding = lengths.get("token_embd.weight", 0) if "output.weight" in lengths else 0
    for kind, _, name, dimensions in infos:
        length = lengths[name]
        if name.startswith("blk."):
            by_layer[int(name.split(".")[1])] += length
        if dimensions > 1:
            label = KINDS.get(kind, f"type {kind}")
            by_kind[label] = by_kind.get(label, 0) + length
    heads = said[f"{architecture}.attention.head_count"]
    if not isinstance(heads, int):
        raise ValueError("its layers differ in their heads")
    return Weights(heads, layers, size - start, by_kind, embedding, tuple(by_layer))
