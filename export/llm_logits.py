"""Logits of a GGUF behind the tokens after the image, computed by llama.cpp.

A GGUF too large to be mapped within the conversion's memory runs in windows of whole layers: each
window is a GGUF cut from the file's own bytes, and reads the hidden states of the one before it.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

from export.image_tokens import Float
from pulse_edge.inference.language_model import LanguageModel, Settings

WINDOW_BYTES = 3 << 29
"""Largest GGUF, and largest window of a larger one, that is mapped at once (1.5 GiB)."""
_BATCH = 256
"""Hidden states that one call of llama.cpp reads; contexts are multiples of it too."""


@dataclass(frozen=True)
class Input:
    """What the language model reads for one answer: image tokens between token ids."""

    image_tokens: Float
    """(T, d) float32."""
    before: list[int]
    after: list[int]

    @property
    def context(self) -> int:
        """Tokens of the context that holds it, rounded up to a multiple of 256."""
        count = len(self.image_tokens) + len(self.before) + len(self.after)
        return _BATCH * math.ceil(count / _BATCH)


def compute(
    path: Path,
    layers: int,
    inputs: Input,
    threads: int,
    folder: Path,
    *,
    key_cache_type: str = "f16",
) -> tuple[Float, str]:
    """Return the logits (len(after), vocabulary) behind each token after the image.

    The second value says in words how they were computed. A file above WINDOW_BYTES is cut into
    windows, which are written to `folder` one at a time. `key_cache_type` is the type of the keys
    in the KV cache.
    """
    if path.stat().st_size <= WINDOW_BYTES:
        return whole_model(path, inputs, threads, key_cache_type), "the whole file"
    return in_windows(path, layers, inputs, threads, folder, key_cache_type)


def answers(path: Path, inputs: Sequence[Input], threads: int) -> list[Float]:
    """Return the logits (len(after), vocabulary) of each input, from one loaded model."""
    results = []
    context = max(one.context for one in inputs)
    with closing(LanguageModel(path, Settings(context=context, threads=threads))) as model:
        for one in inputs:
            model.clear()
            model.feed_tokens(one.before)
            model.feed_embeddings(one.image_tokens)
            results.append(model.feed_tokens(one.after, every=True))
    return results


def divergence(original: Float, other: Float) -> npt.NDArray[np.float64]:
    """Return KL(original || other) in nats per position, from logits (n, vocabulary)."""
    p, q = (x.astype(np.float64) - x.max(-1, keepdims=True) for x in (original, other))
    p -= np.log(np.exp(p).sum(-1, keepdims=True))
    q -= np.log(np.exp(q).sum(-1, keepdims=True))
    result: npt.NDArray[np.float64] = (np.exp(p) * (p - q)).sum(-1)
    return result


def whole_model(path: Path, inputs: Input, threads: int, key_cache_type: str = "f16") -> Float:
    """Compute the logits with all layers loaded at once."""
    with closing(
        LanguageModel(
            path, Settings(context=inputs.context, threads=threads, key_cache_type=key_cache_type)
        )
    ) as model:
        model.feed_tokens(inputs.before)
        model.feed_embeddings(inputs.image_tokens)
        return model.feed_tokens(inputs.after, every=True)


class _HiddenStates:
    """Collects one node's rows, batch by batch (an Observer of inference.language_model)."""

    def __init__(self, name: str, width: int) -> None:
        self._name, self._width = name, width
        self._parts: list[Float] = []

    def wants(self, name: str) -> bool:
        return name == self._name

    def see(self, name: str, values: Float) -> None:
        self._parts.append(values.reshape(-1, self._width))

    def joined(self) -> Float:
        return np.concatenate(self._parts)


def in_windows(
    path: Path,
    layers: int,
    inputs: Input,
    threads: int,
    folder: Path,
    key_cache_type: str = "f16",
) -> tuple[Float, str]:
    """Compute the logits window by window; say how many windows of how many layers there were."""
    hidden, layer_bytes = _embedded(path, inputs), _largest_layer(path, layers)
    each = max(1, WINDOW_BYTES // layer_bytes)
    windows = [range(at, min(at + each, layers)) for at in range(0, layers, each)]
    with tempfile.TemporaryDirectory(prefix="pulse-edge-", dir=folder) as work:
        for window in windows:
            part = Path(work) / "window.gguf"
            write_layers(path, window, part)
            # Each pass asks for every row's result: the last layer would drop rows early.
            states = _HiddenStates(f"l_out-{len(window) - 1}", hidden.shape[1])
            with closing(
                LanguageModel(
                    part,
                    Settings(
                        context=inputs.context, threads=threads, key_cache_type=key_cache_type
                    ),
                    observer=states,
                )
            ) as model:
                for batch in _batches(hidden):
                    logits = model.feed_embeddings(batch, every=True)
            hidden = states.joined()
            part.unlink()
    assert logits is not None
    how = f"in {len(windows)} windows of up to {each} layers, cut from the file"
    return logits[-len(inputs.after) :], how


def _embedded(path: Path, inputs: Input) -> Float:
    """Return what the first layer reads, (tokens, d): token embeddings around the image tokens."""
    table = next(t for t in gguf.GGUFReader(path).tensors if t.name == "token_embd.weight")
    ids = np.asarray(inputs.before + inputs.after)
    rows = gguf.quants.dequantize(np.ascontiguousarray(table.data[ids]), table.tensor_type)
    first, last = rows[: len(inputs.before)], rows[len(inputs.before) :]
    joined: Float = np.concatenate([first, inputs.image_tokens, last]).astype(np.float32)
    return joined


def _largest_layer(path: Path, layers: int) -> int:
    """Return the bytes of the largest layer."""
    tensors = gguf.GGUFReader(path).tensors
    return max(
        sum(int(t.n_bytes) for t in tensors if t.name.startswith(f"blk.{i}."))
        for i in range(layers)
    )


def _batches(hidden: Float) -> Iterator[Float]:
    for at in range(0, len(hidden), _BATCH):
        yield hidden[at : at + _BATCH]


def write_layers(path: Path, window: range, target: Path) -> None:
    """Write a GGUF with some layers of another, numbered from 0, and all of its other tensors.

    Bytes are copied. A window of the first layer alone is a small file with the whole vocabulary.
    """
    reader = gguf.GGUFReader(path)
    writer = gguf.GGUFWriter(target, "llama")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        kind = field.types[0]
        value = len(window) if field.name == "llama.block_count" else field.contents()
        if field.name == "tokenizer.ggml.tokens":
            value = [bytes(field.parts[i]) for i in field.data]
        writer.add_key_value(
            field.name, value, kind, field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        )
    for tensor in reader.tensors:
        name = tensor.name
        if name.startswith("blk."):
            _, number, rest = name.split(".", 2)
            if int(number) not in window:
                continue
            name = f"blk.{int(number) - window.start}.{rest}"
        writer.add_tensor(name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
