"""Compute CLIP's vision tower and LLaVA's projector in plain torch, a layer at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from transformers.activations import ACT2FN

from .facts import Facts
from .source import Source

Float = npt.NDArray[np.float32]
Tensor = torch.Tensor
SMALL = 1024
"""Tensors with fewer values than this stay float32 in an fp16 encoder."""


def side(source: Source) -> int:
    """Return the side of a tile in pixels, from the tower's own shapes."""
    return patches_per_side(source) * source.shape("tower.embeddings.patch_embedding.weight")[-1]


def patches_per_side(source: Source) -> int:
    """Return the patches along a tile's side.

    There is a position for each patch and one for CLS.
    """
    return math.isqrt(source.shape("tower.embeddings.position_embedding.weight")[0] - 1)


@dataclass(frozen=True)
class Arithmetic:
    """The type to compute in, and the type to which weights are rounded (None: as in the files)."""

    dtype: torch.dtype = torch.float32
    weights: torch.dtype | None = None


@dataclass(frozen=True)
class _Weights:
    source: Source
    how: Arithmetic

    def __call__(self, role: str) -> Tensor:
        stored = self.source.tensor(role)
        if self.how.weights is not None and stored.numel() >= SMALL:
            stored = stored.to(self.how.weights)
        return stored.to(self.how.dtype)


@torch.inference_mode()
def features(
    source: Source, facts: Facts, pixels: Float, how: Arithmetic = Arithmetic()
) -> tuple[Float, Float]:
    """Return features (n, P, d) of tiles (n, 3, S, S), and the attention (n, P) of the CLS row.

    The attention is a mean over the heads of the last layer.
    """
    weights = _Weights(source, how)
    patch = weights("tower.embeddings.patch_embedding.weight")
    patches = torch.nn.functional.conv2d(
        torch.from_numpy(pixels).to(how.dtype), patch, stride=patch.shape[-1]
    )
    cls = weights("tower.embeddings.class_embedding").reshape(1, 1, -1)
    x = torch.cat([cls.expand(len(pixels), -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
    x = x + weights("tower.embeddings.position_embedding.weight")
    x = _norm(weights, facts, "pre_layrnorm", x)
    attention = x.new_zeros(len(pixels), x.shape[1])
    for i in range(facts.tower_layers):
        change, attention = _attend(weights, facts, i, _norm(weights, facts, f"{i}.layer_norm1", x))
        x = x + change
        wide = _linear(weights, f"tower.{i}.mlp.fc1", _norm(weights, facts, f"{i}.layer_norm2", x))
        x = x + _linear(
            weights,
            f"tower.{i}.mlp.fc2",
            ACT2FN[facts.vision.get("hidden_act", "quick_gelu")](wide),
        )
    hidden = torch.nn.functional.gelu(_linear(weights, "projector.0", x[:, 1:]))
    return _linear(weights, "projector.2", hidden).float().numpy(), attention[:, 1:].float().numpy()


def _attend(weights: _Weights, facts: Facts, i: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return self-attention's change of x, and the CLS row's probabilities (n, tokens)."""
    heads = int(facts.vision.get("num_attention_heads", 12))
    n, tokens, width = x.shape
    q, k, v = (
        _linear(weights, f"tower.{i}.self_attn.{name}_proj", x)
        .view(n, tokens, heads, width // heads)
        .transpose(1, 2)
        for name in "qkv"
    )
    odds = (q @ k.transpose(-1, -2) / math.sqrt(width // heads)).softmax(-1)
    joined = (odds @ v).transpose(1, 2).reshape(n, tokens, width)
    return _linear(weights, f"tower.{i}.self_attn.out_proj", joined), odds[:, :, 0].mean(1)


def _norm(weights: _Weights, facts: Facts, name: str, x: Tensor) -> Tensor:
    weight, bias = (weights(f"tower.{name}.{part}") for part in ("weight", "bias"))
    eps = float(facts.vision.get("layer_norm_eps", 1e-5))
    return torch.nn.functional.layer_norm(x, (x.shape[-1],), weight, bias, eps)


def _linear(weights: _Weights, name: str, x: Tensor) -> Tensor:
    return torch.nn.functional.linear(x, weights(f"{name}.weight"), weights(f"{name}.bias"))
