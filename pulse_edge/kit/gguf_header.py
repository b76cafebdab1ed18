"""What the header of a GGUF file says about its weights, without loading them. Standard library only."""

from __future__ import annotations

import itertools
import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pulse_edge.errors import KitError

if TYPE_CHECKING:
    from pulse_edge.kit.manifest import Language

# ggml's numbers (ggml.h); only types that a laptop lays out anew must have their name here.
KINDS = {0: "F32", 1: "F16", 2: "Q4_0", 8: "Q8_0", 10: "Q2_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K"}
KINDS |= {20: "IQ4_NL", 30: "BF16", 39: "MXFP4"}
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
    width: int
    """Numbers of a token's embedding."""
    key_value_length: int
    """Numbers per token and layer in the key cache."""
    vocabulary: int
    context: int
    """Tokens that it was trained for."""


MAX_LAYERS = 1 << 10
MAX_PAIRS = 1 << 16
"""Of metadata, and of tensors: llama.cpp allocates what the header says before it reads on."""


def read(path: Path) -> Weights:
    """Read a GGUF header. Raises KitError for a file that is no GGUF file, was cut off, or whose header cannot be right.

    llama.cpp aborts the process where a header lies about layers or holds an epsilon that is no number.
    """
    try:
        with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _weights(_Reader(data), len(data))
    except KeyError as e:
        raise KitError(f"{path}: its header lacks {e}. Copy the kit again.") from None
    except (OSError, ValueError, IndexError, TypeError, OverflowError, struct.error) as e:
        raise KitError(f"{path}: its header cannot be read ({e}). Copy the kit again.") from None


def agree(path: Path, language: Language) -> None:
    """Raise KitError naming each size on which a language model's file and its kit's manifest differ."""
    held = read(path)
    pairs = {
        "layers": (held.layers, language.layers),
        "embedding_length": (held.width, language.embedding_length),
        "key_value_length": (held.key_value_length, language.key_value_length),
        "vocabulary": (held.vocabulary, language.vocabulary),
    }
    wrong = [
        f"{name} {theirs}, the manifest says {ours}"
        for name, (theirs, ours) in pairs.items()
        if theirs != ours
    ]
    if wrong:
        raise KitError(
            f"{path}: has {'; '.join(wrong)}. Copy the kit again, or convert the checkpoint again."
        )
    if language.context_length > held.context:
        raise KitError(
            f"{path}: was trained for {held.context} tokens, the manifest says {language.context_length}. Copy the kit again."
        )


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
        """A scalar or a text; of an array of texts how many differ, None for another one: they are skipped."""
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            return self.take(_SCALARS[kind])
        inner, count = self.take("I"), self.take("Q")
        if inner in _SCALARS:
            self.at += count * struct.calcsize("<" + _SCALARS[inner])
        elif inner == _STRING:  # the vocabulary: long, so not one call a text
            return self.texts(count)
        else:
            for _ in range(count):
                self.value(inner)
        return None

    def texts(self, count: int) -> int:
        """Skip an array of texts; how many of them differ."""
        at, length, different = self.at, struct.Struct("<Q").unpack_from, set()
        for _ in range(count):
            end = at + 8 + length(self.data, at)[0]
            different.add(self.data[at + 8 : end])
            at = end
        self.at = at
        return len(different)


def _weights(reader: _Reader, size: int) -> Weights:
    if reader.take("4s") != b"GGUF" or reader.take("I") not in (2, 3):
        raise ValueError("not a GGUF file of version 2 or 3")
    tensors, pairs = reader.take("Q"), reader.take("Q")
    if max(tensors, pairs) > MAX_PAIRS:
        raise ValueError(f"{tensors} tensors and {pairs} entries are too many")
    said: dict[str, Any] = {}
    for _ in range(pairs):
        key = reader.text()
        said[key] = reader.value(reader.take("I"))
    infos, shapes = [], {}
    for _ in range(tensors):
        name, dimensions = reader.text(), reader.take("I")
        if not 1 <= dimensions <= 4:
            raise ValueError(f"{name[:80]} has {dimensions} dimensions")
        shapes[name] = [reader.take("Q") for _ in range(dimensions)]
        infos.append((reader.take("I"), reader.take("Q"), name, dimensions))
    alignment = said.get("general.alignment", 32)
    start = -(-reader.at // alignment) * alignment
    architecture = said["general.architecture"]
    layers = _layers(said[f"{architecture}.block_count"], shapes)
    numbers = _numbers(said, architecture)
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
    table = shapes["token_embd.weight"]
    if said.get("tokenizer.ggml.tokens", table[1]) != table[1]:
        raise ValueError("two of its tokens are the same, or some are missing")
    return Weights(
        heads=numbers["heads"],
        layers=layers,
        bytes=size - start,
        by_kind=by_kind,
        embedding=embedding,
        by_layer=tuple(by_layer),
        width=numbers["width"],
        key_value_length=numbers["kv_heads"]
        * said.get(f"{architecture}.attention.key_length", numbers["head"]),
        vocabulary=table[1],
        context=numbers["context"],
    )


def _layers(count: Any, shapes: dict[str, list[int]]) -> int:
    """Layers, where the tensors have as many as the header says."""
    there = {name.split(".")[1] for name in shapes if name.startswith("blk.")}
    if (
        not isinstance(count, int)
        or not 1 <= count <= MAX_LAYERS
        or there != {str(n) for n in range(count)}
    ):
        raise ValueError(f"it says {count} layers, and has tensors of {len(there)}")
    return count


def _numbers(said: dict[str, Any], architecture: str) -> dict[str, int]:
    """Heads and widths, where they are whole, positive and divide one another; floats only have to be finite."""
    keys = {
        "heads": "attention.head_count",
        "width": "embedding_length",
        "context": "context_length",
    }
    numbers = {name: said[f"{architecture}.{key}"] for name, key in keys.items()}
    numbers["kv_heads"] = said.get(f"{architecture}.attention.head_count_kv", numbers["heads"])
    for name, value in numbers.items():
        if not isinstance(value, int) or not 1 <= value <= 1 << 24:
            raise ValueError(f"{name} is {value}")
    if numbers["width"] % numbers["heads"] or numbers["heads"] % numbers["kv_heads"]:
        raise ValueError("its heads do not divide its width")
    for key, value in said.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{key} is {value}")
    epsilon = said[f"{architecture}.attention.layer_norm_rms_epsilon"]
    if not 0 <= epsilon <= 1:
        raise ValueError(f"the epsilon of its norms is {epsilon}")
    return numbers | {"head": numbers["width"] // numbers["heads"]}
