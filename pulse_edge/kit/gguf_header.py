"""Read the header of a GGUF file without loading it, and refuse a header that cannot be right.

llama.cpp checks little of what it reads: it ends the whole process where a header lies about its
layers or holds an epsilon that is no number, and allocates as much as a header says. A kit may come
from anybody's USB drive, so this reader looks first and raises an error that the user can act on.
It also measures the weights for the memory plan. Source: ggml's docs/gguf.md, versions 2 and 3.
Standard library only.
"""

from __future__ import annotations

import itertools
import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pulse_edge.errors import KitError
from pulse_edge.kit.manifest import Language

# ggml's numbers (ggml.h). Only types that llama.cpp can repack must have their name here.
TYPES = {0: "F32", 1: "F16", 2: "Q4_0", 8: "Q8_0", 10: "Q2_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K"}
TYPES |= {20: "IQ4_NL", 30: "BF16", 39: "MXFP4"}
_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_STRING, _ARRAY = 8, 9
MAX_LAYERS = 1 << 10
MAX_ENTRIES = 1 << 16
"""Metadata entries, and tensors: llama.cpp allocates what the header says before it reads on."""


@dataclass(frozen=True)
class Header:
    """Sizes of a language model and its weights."""

    heads: int
    """Attention heads of a layer."""
    layers: int
    bytes: int
    """Bytes of all tensors."""
    by_type: dict[str, int]
    """Bytes of the matrices of each weight type."""
    embedding: int
    """Bytes of the token embedding (a page reads a few lines of it); 0 if it is the output matrix
    too."""
    by_layer: tuple[int, ...]
    """Bytes of each layer's tensors; the rest of `bytes` is embedding and output."""
    width: int
    """Numbers of a token's embedding."""
    key_value_length: int
    """Numbers per token and layer in the key cache."""
    vocabulary: int
    context: int
    """Tokens of the context that the model was trained with."""


def read(path: Path) -> Header:
    """Read a GGUF header. Raises KitError for a file that is no GGUF, was cut off, or whose header
    cannot be right."""
    try:
        with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _header(_Reader(data), len(data))
    except KeyError as e:
        raise KitError(f"{path}: its header lacks {e}. Copy the kit again.") from None
    except (OSError, ValueError, IndexError, TypeError, OverflowError, struct.error) as e:
        raise KitError(f"{path}: its header cannot be read ({e}). Copy the kit again.") from None


def check_against(path: Path, language: Language) -> None:
    """Raise KitError that names each size on which a language model's file and its kit's manifest
    differ."""
    header = read(path)
    pairs = {
        "layers": (header.layers, language.layers),
        "embedding_length": (header.width, language.embedding_length),
        "key_value_length": (header.key_value_length, language.key_value_length),
        "vocabulary": (header.vocabulary, language.vocabulary),
    }
    differences = [
        f"{name} {in_file}, the manifest says {in_manifest}"
        for name, (in_file, in_manifest) in pairs.items()
        if in_file != in_manifest
    ]
    if differences:
        raise KitError(
            f"{path}: has {'; '.join(differences)}. Copy the kit again, or convert the checkpoint "
            "again."
        )
    if language.context_length > header.context:
        raise KitError(
            f"{path}: was trained for {header.context} tokens, the manifest says "
            f"{language.context_length}. Copy the kit again."
        )


class _Reader:
    """Reads values one after another."""

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
        """A scalar or a text. Arrays are skipped: an array of texts gives how many differ, any
        other one None."""
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            return self.take(_SCALARS[kind])
        inner, count = self.take("I"), self.take("Q")
        if inner in _SCALARS:
            self.at += count * struct.calcsize("<" + _SCALARS[inner])
        elif inner == _STRING:  # the vocabulary is long, so one call reads all of it
            return self.count_different_texts(count)
        else:
            for _ in range(count):
                self.value(inner)
        return None

    def count_different_texts(self, count: int) -> int:
        """Skip an array of texts; return how many of them differ."""
        at, length, different = self.at, struct.Struct("<Q").unpack_from, set()
        for _ in range(count):
            end = at + 8 + length(self.data, at)[0]
            different.add(self.data[at + 8 : end])
            at = end
        self.at = at
        return len(different)


@dataclass(frozen=True)
class _Tensor:
    name: str
    shape: tuple[int, ...]
    type: int
    offset: int


def _header(reader: _Reader, size: int) -> Header:
    if reader.take("4s") != b"GGUF" or reader.take("I") not in (2, 3):
        raise ValueError("not a GGUF file of version 2 or 3")
    tensor_count, entry_count = reader.take("Q"), reader.take("Q")
    if max(tensor_count, entry_count) > MAX_ENTRIES:
        raise ValueError(f"{tensor_count} tensors and {entry_count} entries are too many")
    metadata: dict[str, Any] = {}
    for _ in range(entry_count):
        key = reader.text()
        metadata[key] = reader.value(reader.take("I"))
    tensors = [_tensor(reader) for _ in range(tensor_count)]
    shapes = {tensor.name: tensor.shape for tensor in tensors}
    alignment = metadata.get("general.alignment", 32)
    start = -(-reader.at // alignment) * alignment
    architecture = metadata["general.architecture"]
    layers = _layers(metadata[f"{architecture}.block_count"], shapes)
    numbers = _numbers(metadata, architecture)
    lengths = _lengths(tensors, size - start)
    table = shapes["token_embd.weight"]
    if metadata.get("tokenizer.ggml.tokens", table[1]) != table[1]:
        raise ValueError("two of its tokens are the same, or some are missing")
    head = metadata.get(f"{architecture}.attention.key_length", numbers["head"])
    return Header(
        heads=numbers["heads"],
        layers=layers,
        bytes=size - start,
        by_type=_by_type(tensors, lengths),
        embedding=lengths.get("token_embd.weight", 0) if "output.weight" in lengths else 0,
        by_layer=_by_layer(lengths, layers),
        width=numbers["width"],
        key_value_length=numbers["kv_heads"] * head,
        vocabulary=table[1],
        context=numbers["context"],
    )


def _tensor(reader: _Reader) -> _Tensor:
    name, dimensions = reader.text(), reader.take("I")
    if not 1 <= dimensions <= 4:
        raise ValueError(f"{name[:80]} has {dimensions} dimensions")
    shape = tuple(reader.take("Q") for _ in range(dimensions))
    return _Tensor(name, shape, reader.take("I"), reader.take("Q"))


def _lengths(tensors: list[_Tensor], size: int) -> dict[str, int]:
    """Bytes of each tensor: up to where the next one begins."""
    ends = [*sorted(tensor.offset for tensor in tensors), size]
    following = dict(itertools.pairwise(ends))
    return {tensor.name: following[tensor.offset] - tensor.offset for tensor in tensors}


def _by_type(tensors: list[_Tensor], lengths: dict[str, int]) -> dict[str, int]:
    by_type: dict[str, int] = {}
    for tensor in tensors:
        if len(tensor.shape) > 1:
            label = TYPES.get(tensor.type, f"type {tensor.type}")
            by_type[label] = by_type.get(label, 0) + lengths[tensor.name]
    return by_type


def _by_layer(lengths: dict[str, int], layers: int) -> tuple[int, ...]:
    by_layer = [0] * layers
    for name, length in lengths.items():
        if name.startswith("blk."):
            by_layer[int(name.split(".")[1])] += length
    return tuple(by_layer)


def _layers(count: Any, shapes: dict[str, tuple[int, ...]]) -> int:
    """The number of layers. Raises ValueError where the tensors are of another number of layers."""
    numbers = {name.split(".")[1] for name in shapes if name.startswith("blk.")}
    if (
        not isinstance(count, int)
        or not 1 <= count <= MAX_LAYERS
        or numbers != {str(n) for n in range(count)}
    ):
        raise ValueError(f"it says {count} layers, and has tensors of {len(numbers)}")
    return count


def _numbers(metadata: dict[str, Any], architecture: str) -> dict[str, int]:
    """Heads and widths. Raises ValueError unless they are whole and positive, and divide one
    another; floats must be finite."""
    keys = {
        "heads": "attention.head_count",
        "width": "embedding_length",
        "context": "context_length",
    }
    numbers = {name: metadata[f"{architecture}.{key}"] for name, key in keys.items()}
    numbers["kv_heads"] = metadata.get(f"{architecture}.attention.head_count_kv", numbers["heads"])
    for name, value in numbers.items():
        if not isinstance(value, int) or not 1 <= value <= 1 << 24:
            raise ValueError(f"{name} is {value}")
    if numbers["width"] % numbers["heads"] or numbers["heads"] % numbers["kv_heads"]:
        raise ValueError("its heads do not divide its width")
    for key, value in metadata.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{key} is {value}")
    epsilon = metadata[f"{architecture}.attention.layer_norm_rms_epsilon"]
    if not 0 <= epsilon <= 1:
        raise ValueError(f"the epsilon of its norms is {epsilon}")
    return numbers | {"head": numbers["width"] // numbers["heads"]}
