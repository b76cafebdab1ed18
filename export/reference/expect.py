"""What a kit must say of a checkpoint: every key of the GGUF, every tensor of it, and the manifest.

Keys and tensor names are those of GGUF's specification and of llama.cpp's loader, written down without the converter's tables.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from . import Reference, page, tower
from .llama import Shape, shape
from .words import AFTER, BEFORE, MARK, QUESTION

Tensor = torch.Tensor
LONGEST_CONTEXT, LONGEST_ANSWER = 4096, 1024
"""PULSE's context, and the tokens of an answer that its evaluation allows."""
FILE_TYPES = {"f32": 0, "f16": 1, "bf16": 32}
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
_NAMES = {
    "text.embed": "token_embd",
    "text.norm": "output_norm",
    "text.head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
Allowed = tuple[Any, ...]
"""Values of which a key must have one; None: the key may be absent."""


def special(reference: Reference, key: str) -> Allowed:
    """Ids that a special token may have: the model's configuration first, then its generation settings, then the tokenizer."""
    ids: list[int] = []
    for value in (reference.facts.special(f"{key}_token_id"), reference.facts.generation.get(f"{key}_token_id")):
        ids += [i for i in (value if isinstance(value, list) else [value]) if isinstance(i, int)]
        if ids and key != "eos":
            break
    if not ids and (found := reference.words.special(key)) is not None:
        ids = [found]
    return tuple(dict.fromkeys(i for i in ids if i >= 0))


def fields(reference: Reference, kind: str) -> dict[str, Allowed]:
    """Every key of the GGUF but the token list, with the values that it may have."""
    facts, s = reference.facts, shape(reference.source, reference.facts)
    known: dict[str, Allowed] = {
        "general.architecture": ("llama",),
        "general.type": ("model",),
        "general.file_type": (FILE_TYPES[kind],),
        "general.quantization_version": (2,),
        "llama.block_count": (s.layers,),
        "llama.context_length": (int(facts.text.get("max_position_embeddings", 2048)),),
        "llama.embedding_length": (s.width,),
        "llama.feed_forward_length": (s.inner,),
        "llama.attention.head_count": (s.heads,),
        "llama.attention.head_count_kv": (s.pairs,),
        "llama.attention.layer_norm_rms_epsilon": (s.eps,),
        "llama.rope.dimension_count": (s.head,),
        "llama.vocab_size": (s.vocabulary,),
        "tokenizer.ggml.model": ("llama",),
        "tokenizer.ggml.pre": ("default", None),
        "tokenizer.ggml.add_space_prefix": (reference.words.prefix,),
        "tokenizer.ggml.add_bos_token": (True,),
        "tokenizer.ggml.add_eos_token": (False,),
        "tokenizer.ggml.bos_token_id": special(reference, "bos"),
        "tokenizer.ggml.eos_token_id": special(reference, "eos"),
        "tokenizer.ggml.unknown_token_id": (reference.words.special("unk"),),
    }
    pad = tuple(i for i in special(reference, "pad") if i < s.vocabulary)
    known["tokenizer.ggml.padding_token_id"] = (*pad, None)
    own = s.head * s.heads != s.width
    known |= {f"llama.attention.{x}_length": (s.head, *(() if own else (None,))) for x in ("key", "value")}
    return known | _rope(reference)


def _rope(reference: Reference) -> dict[str, Allowed]:
    """Base and scaling. What YaRN's own fields leave out has llama.cpp's defaults, which are transformers'."""
    base, scaling = reference.facts.rope
    known: dict[str, Allowed] = {"llama.rope.freq_base": (base,)}
    kind = (scaling or {}).get("rope_type", (scaling or {}).get("type"))
    if scaling is None or kind not in ("linear", "yarn"):
        return known
    known |= {"llama.rope.scaling.type": (kind,), "llama.rope.scaling.factor": (float(scaling["factor"]),)}
    if kind == "yarn":
        longest = reference.facts.text.get("max_position_embeddings", 2048)
        known["llama.rope.scaling.original_context_length"] = (
            int(scaling.get("original_max_position_embeddings") or longest),
        )
        for theirs, ours, default in (
            ("yarn_beta_fast", "beta_fast", 32.0),
            ("yarn_beta_slow", "beta_slow", 1.0),
        ):
            value = float(scaling.get(ours) or default)
            known[f"llama.rope.scaling.{theirs}"] = (value, None) if value == default else (value,)
    return known


def rope_factors(reference: Reference) -> Tensor | None:
    """What divides each frequency (head / 2,) float32, where the scaling is Llama 3's; from transformers' own tables."""
    base, scaling = reference.facts.rope
    if not scaling or scaling.get("rope_type", scaling.get("type")) != "llama3":
        return None
    s = shape(reference.source, reference.facts)
    longest = int(reference.facts.text.get("max_position_embeddings", 2048))
    common = {"hidden_size": s.width, "num_attention_heads": s.heads, "head_dim": s.head, "rope_theta": base}
    plain: Tensor
    scaled: Tensor
    plain, scaled = (
        LlamaRotaryEmbedding(LlamaConfig(**common, max_position_embeddings=longest, rope_scaling=r)).inv_freq
        for r in (None, dict(scaling))
    )
    return plain / scaled


def name(role: str) -> str:
    """GGUF's name of the tensor of a role."""
    if role in _NAMES:
        return f"{_NAMES[role]}.weight"
    _, number, rest = role.split(".", 2)
    return f"blk.{number}.{_NAMES[rest.removesuffix('.weight')]}.weight"


def tensor(role: str, stored: Tensor, s: Shape, kind: str) -> Tensor:
    """A tensor as it must stand in a GGUF of `kind`: norms in float32, q and k with each head's halves taken in turn."""
    if stored.ndim == 1:
        return stored.float()
    for part, heads in (("q_proj", s.heads), ("k_proj", s.pairs)):
        if role.endswith(f"self_attn.{part}.weight"):
            half = s.head // 2
            order = [h * s.head + i + side * half for h in range(heads) for i in range(half) for side in (0, 1)]
            stored = stored[torch.tensor(order)]
    return stored.to(DTYPES[kind])


def roles(reference: Reference) -> list[str]:
    """Every role that the GGUF has a tensor of."""
    s = shape(reference.source, reference.facts)
    return [r for r in reference.source.roles if r.startswith("text.") and not (s.tied and r == "text.head")]


def tokens(reference: Reference, texts: list[bytes], scores: list[float], types: list[int]) -> list[str]:
    """What is wrong with a GGUF's token list, in words."""
    size, wrong = shape(reference.source, reference.facts).vocabulary, []
    if not len(texts) == len(scores) == len(types) == size:
        return [f"{len(texts)} tokens, {len(scores)} scores, {len(types)} types, expected {size} of each"]
    pieces = reference.words.pieces(size)
    for i, (text, score, kind) in enumerate(zip(texts, scores, types, strict=True)):
        piece = pieces.get(i)
        if piece is None:
            wrong += [f"token {i} is of type {kind}, expected unused (5)"] * (kind != 5)
            continue
        wrong += [f"token {i} is {text!r}, expected {piece.text!r}"] * (text != piece.text)
        wrong += [f"token {i} ({text!r}) is of type {kind}"] * (kind not in piece.types)
        if piece.score is not None and np.float32(score) != np.float32(piece.score):
            wrong.append(f"token {i} ({text!r}) has the score {score}, expected {piece.score}")
    order = [scores[i] for i in reference.words.merges()]
    if any(a < b for a, b in itertools.pairwise(order)):
        wrong.append("scores do not fall in the order of the merges")
    return wrong


def chat(reference: Reference, template: str, bos: str) -> list[str]:
    """What is wrong with a chat template: rendered, it must be the conversation."""
    import jinja2

    asked = [{"role": "user", "content": "\n" + QUESTION}]
    try:
        made = (
            jinja2.Environment()
            .from_string(template)
            .render(messages=asked, bos_token=bos, eos_token="</s>", add_generation_prompt=True)
        )
    except jinja2.TemplateError as e:
        return [f"the chat template cannot be rendered ({e})"]
    wanted = bos + BEFORE + AFTER.replace("{question}", QUESTION)
    return [] if made == wanted else [f"the chat template gives {made!r}, expected {wanted!r}"]


def manifest(reference: Reference, kind: str) -> dict[str, Any]:
    """Fields of the manifest by path."""
    facts, s = reference.facts, shape(reference.source, reference.facts)
    side = tower.side(reference.source)
    pixels = page.Pixels(facts, side)
    return {
        "language.type": kind,
        "language.context_length": min(LONGEST_CONTEXT, int(facts.text.get("max_position_embeddings", 2048))),
        "language.embedding_length": s.width,
        "language.layers": s.layers,
        "language.key_value_length": s.pairs * s.head,
        "language.vocabulary": s.vocabulary,
        "vision.image_size": side,
        "vision.patches_per_side": tower.patches_per_side(reference.source),
        "vision.mean": pixels.mean,
        "vision.std": pixels.std,
        "packing.aspect_ratio": facts.aspect,
        "packing.merge": facts.merge,
        "packing.grid_pinpoints": facts.pinpoints,
        "prompt.template": "llava_v1",
        "prompt.before": BEFORE,
        "prompt.after": AFTER,
        "prompt.max_tokens": LONGEST_ANSWER,
    }


__all__ = ["MARK", "chat", "fields", "manifest", "name", "roles", "rope_factors", "special", "tensor", "tokens"]
