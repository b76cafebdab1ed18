"""Compute Llama in plain torch and float32, with one layer in memory at a time.

The rotary tables are transformers' own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from .facts import Facts
from .source import Source

Float = npt.NDArray[np.float32]
Tensor = torch.Tensor
See = Callable[[str, Tensor], None]
HEAD_ROWS = 4096
"""Rows of the output matrix that are computed at once: a 7B model's in float32 is half a
gigabyte."""
LAYER = (
    "input_layernorm.weight",
    "self_attn.q_proj.weight",
    "self_attn.k_proj.weight",
    "self_attn.v_proj.weight",
    "self_attn.o_proj.weight",
    "post_attention_layernorm.weight",
    "mlp.gate_proj.weight",
    "mlp.up_proj.weight",
    "mlp.down_proj.weight",
)


@dataclass(frozen=True)
class Shape:
    """Sizes, read from the tensors; only the number of heads is in the configuration alone."""

    width: int
    inner: int
    layers: int
    heads: int
    pairs: int
    """Number of key and value heads."""
    head: int
    """Width of a head."""
    vocabulary: int
    eps: float
    tied: bool


def shape(source: Source, facts: Facts) -> Shape:
    """Return the sizes of a checkpoint's language model."""
    vocabulary, width = source.shape("text.embed")
    heads = int(facts.text.get("num_attention_heads") or 32)
    head = source.shape("text.0.self_attn.q_proj.weight")[0] // heads
    numbers = {
        int(r.split(".")[1])
        for r in source.roles
        if r.startswith("text.") and r.split(".")[1].isdigit()
    }
    return Shape(
        width=width,
        inner=source.shape("text.0.mlp.gate_proj.weight")[0],
        layers=max(numbers) + 1,
        heads=heads,
        pairs=source.shape("text.0.self_attn.k_proj.weight")[0] // head,
        head=head,
        vocabulary=vocabulary,
        eps=float(facts.text.get("rms_norm_eps", 1e-6)),
        tied=bool(
            facts.text.get("tie_word_embeddings", facts.raw.get("tie_word_embeddings", False))
        ),
    )


@torch.inference_mode()
def logits(
    source: Source,
    facts: Facts,
    image_tokens: Float,
    before: Sequence[int],
    after: Sequence[int],
    kind: torch.dtype,
    see: See = lambda _r, _t: None,
) -> tuple[Float, Float]:
    """Return logits (len(after), vocabulary) behind each token after the image: exact, and rounded.

    `image_tokens` is (T, d). The rounded logits are those that a right kit of `kind` may give:
    matrices and their inputs are rounded to `kind`, the KV cache to float16, as llama.cpp computes.
    Both run side by side, so that every tensor is read once. `see` gets each tensor with its role,
    in the dtype of its file.
    """
    s = shape(source, facts)

    def read(role: str) -> Tensor:
        tensor = source.tensor(role)
        see(role, tensor)
        return tensor

    table = read("text.embed")
    first, last = (
        table[torch.tensor(list(ids), dtype=torch.long)].float() for ids in (before, after)
    )
    x = torch.cat([first, torch.from_numpy(np.ascontiguousarray(image_tokens)), last])
    x = torch.stack([x, x])
    cos, sin = rotary(s, facts, x.shape[1])
    for i in range(s.layers):
        x = _layer(x, {name: Weight(read(f"text.{i}.{name}"), kind) for name in LAYER}, s, cos, sin)
    x = _norm(x[:, -len(after) :], read("text.norm").float(), s.eps)
    head = table if s.tied else read("text.head")
    exact, rounded = torch.cat(
        [Weight(part, kind)(x) for part in torch.split(head, HEAD_ROWS)], dim=-1
    )
    return exact.numpy(), rounded.numpy()


class Weight:
    """A matrix (or a norm's vector, which stays float32) for the exact and for the rounded side."""

    def __init__(self, stored: Tensor, kind: torch.dtype) -> None:
        self._kind, self.exact = kind, stored.float()
        rounds = stored.ndim > 1 and torch.finfo(kind).eps > torch.finfo(stored.dtype).eps
        self._rounded = stored.to(kind).float() if rounds else self.exact

    def __call__(self, x: Tensor) -> Tensor:
        """Return x W^T of x (2, n, columns), with the second half rounded first."""
        if self._rounded is self.exact:
            return _second(x, self._kind) @ self.exact.T
        return torch.stack([x[0] @ self.exact.T, x[1].to(self._kind).float() @ self._rounded.T])


def _second(x: Tensor, kind: torch.dtype) -> Tensor:
    """Return x (2, ...) with its second half rounded."""
    return x if kind == torch.float32 else torch.stack([x[0], x[1].to(kind).float()])


def settings(s: Shape, facts: Facts) -> LlamaConfig:
    """Return the configuration from which transformers makes its rotary tables."""
    base, scaling = facts.rope
    return LlamaConfig(
        hidden_size=s.width,
        num_attention_heads=s.heads,
        head_dim=s.head,
        max_position_embeddings=int(facts.text.get("max_position_embeddings", 2048)),
        rope_theta=base,
        rope_scaling=None if scaling is None else dict(scaling),
    )


def rotary(s: Shape, facts: Facts, count: int) -> tuple[Tensor, Tensor]:
    """Return cosines and sines (count, head) of positions from 0 on."""
    cos, sin = LlamaRotaryEmbedding(settings(s, facts))(torch.zeros(1), torch.arange(count)[None])
    return cos[0], sin[0]


def _layer(x: Tensor, w: dict[str, Weight], s: Shape, cos: Tensor, sin: Tensor) -> Tensor:
    n = x.shape[1]
    normed = _norm(x, w["input_layernorm.weight"].exact, s.eps)
    q, k, v = (
        w[f"self_attn.{name}_proj.weight"](normed).view(2, n, heads, s.head).transpose(1, 2)
        for name, heads in (("q", s.heads), ("k", s.pairs), ("v", s.pairs))
    )
    q, k = (t * cos + _turned(t) * sin for t in (q, k))
    q, k, v = (_second(t, torch.float16) for t in (q, k, v))
    k, v = (t.repeat_interleave(s.heads // s.pairs, dim=1) for t in (k, v))
    attended = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    x = x + w["self_attn.o_proj.weight"](attended.transpose(1, 2).reshape(2, n, s.heads * s.head))
    normed = _norm(x, w["post_attention_layernorm.weight"].exact, s.eps)
    gate = torch.nn.functional.silu(w["mlp.gate_proj.weight"](normed))
    return x + w["mlp.down_proj.weight"](gate * w["mlp.up_proj.weight"](normed))


def _turned(x: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


def _norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight
