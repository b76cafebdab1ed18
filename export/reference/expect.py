"""What a kit must state of a checkpoint: every key and tensor of the GGUF, and the manifest.

Keys and tensor names are those of GGUF's specification and of llama.cpp's loader, written down
without the converter's tables.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from . import Reference, page, tower
from .llama import Shape, settings, shape
from .words import AFTER, BEFORE, QUESTION

Tensor = torch.Tensor
Float = npt.NDArray[Any]
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
SCALING = "llama.rope.scaling."
SCALED = tuple(
    f"{SCALING}{x}" for x in ("type", "factor", "original_context_length", "attn_factor")
)
"""Keys that `rope` compares together."""
ENDS = tuple(f"tokenizer.ggml.{x}_token_id" for x in ("eos", "eot", "eom"))
Allowed = tuple[Any, ...]
"""Values that a key may have; None allows its absence."""


def bos(reference: Reference) -> int | None:
    """Return the id in front of a text: the tokenizer's, or else the configuration's."""
    named = reference.words.special("bos")
    return named if named is not None else reference.facts.special("bos_token_id")


def ends(reference: Reference) -> list[int]:
    """Return every id that ends an answer.

    The tokenizer's comes first, then those of the configuration and of the generation settings.
    """
    facts = reference.facts
    stated = [
        facts.special("eos_token_id"),
        facts.raw.get("eos_token_id"),
        facts.generation.get("eos_token_id"),
    ]
    listed = [
        reference.words.special("eos"),
        *(i for v in stated for i in (v if isinstance(v, list) else [v])),
    ]
    return list(dict.fromkeys(i for i in listed if i is not None))


def fields(reference: Reference, kind: str) -> dict[str, Allowed]:
    """Return every key of the GGUF except the token list, with the values that it may have."""
    facts, s = reference.facts, shape(reference.source, reference.facts)
    expected: dict[str, Allowed] = {
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
        "tokenizer.ggml.add_bos_token": (reference.words.begins,),
        "tokenizer.ggml.add_eos_token": (False,),
        "tokenizer.ggml.bos_token_id": (bos(reference),),
        "tokenizer.ggml.unknown_token_id": (reference.words.special("unk"),),
    }
    # An answer ends on any of the three.
    expected |= {key: tuple(ends(reference)[i : i + 1]) or (None,) for i, key in enumerate(ENDS)}
    pads = (
        facts.special("pad_token_id"),
        facts.raw.get("pad_token_id"),
        reference.words.special("pad"),
    )
    expected["tokenizer.ggml.padding_token_id"] = tuple(
        i for i in pads if i is None or 0 <= i < s.vocabulary
    ) or (None,)
    own = s.head * s.heads != s.width
    expected |= {
        f"llama.attention.{x}_length": (s.head, *(() if own else (None,))) for x in ("key", "value")
    }
    expected["llama.rope.freq_base"] = (facts.rope[0],)
    return expected


def rope(reference: Reference, keys: dict[str, Any], factors: Float | None) -> list[str]:
    """Return what is wrong with the rotary positions of a GGUF.

    llama.cpp makes them of the GGUF's keys and of its rope_freqs.weight, `factors`. Compared are
    the resulting frequencies and scale of queries and keys, because YaRN can be written in several
    ways. Source of llama.cpp's side: ggml's rope_yarn and ggml_rope_yarn_corr_dims.
    """
    s, (base, scaling) = shape(reference.source, reference.facts), reference.facts.rope
    table = LlamaRotaryEmbedding(settings(s, reference.facts))
    frequencies, scale = _rope_of_llama_cpp(keys, s.head, base, factors)
    wrong = []
    if frequencies.shape != table.inv_freq.shape or not np.allclose(
        frequencies, table.inv_freq.numpy(), rtol=1e-5
    ):
        wrong.append(f"the rotary frequencies are not those of {scaling or 'the base alone'}")
    if not math.isclose(scale, table.attention_scaling, rel_tol=1e-6):
        wrong.append(
            f"queries and keys are scaled by {scale:.7g}, expected {table.attention_scaling:.7g}"
        )
    return wrong


def _rope_of_llama_cpp(
    keys: dict[str, Any], head: int, base: float, factors: Float | None
) -> tuple[Float, float]:
    """Return the frequencies (head / 2,), and the scale of queries and keys."""
    plain = base ** (-np.arange(0, head, 2) / head) / (1 if factors is None else factors)
    kind, factor = keys.get(f"{SCALING}type", "none"), keys.get(f"{SCALING}factor", 1.0)
    scale = float(keys.get(f"{SCALING}attn_factor", 1.0))
    if kind != "yarn":
        return plain / (factor if kind == "linear" else 1), scale
    old = keys[f"{SCALING}original_context_length"]
    low, high = (
        head * math.log(old / (turns * 2 * math.pi)) / (2 * math.log(base)) for turns in (32, 1)
    )
    low, high = max(0, math.floor(low)), min(head - 1, math.ceil(high))
    share = 1 - np.clip((np.arange(head // 2) - low) / max(0.001, high - low), 0, 1)
    return plain / factor * (1 - share) + plain * share, scale * (1 + 0.1 * math.log(factor))


def name(role: str) -> str:
    """Return GGUF's name of the tensor of a role."""
    if role in _NAMES:
        return f"{_NAMES[role]}.weight"
    _, number, rest = role.split(".", 2)
    return f"blk.{number}.{_NAMES[rest.removesuffix('.weight')]}.weight"


def tensor(role: str, stored: Tensor, s: Shape, kind: str) -> Tensor:
    """Return a tensor as it must be stored in a GGUF of `kind`.

    Norms are in float32; q and k have each head's halves in turn.
    """
    if stored.ndim == 1:
        return stored.float()
    for part, heads in (("q_proj", s.heads), ("k_proj", s.pairs)):
        if role.endswith(f"self_attn.{part}.weight"):
            half = s.head // 2
            order = [
                h * s.head + i + side * half
                for h in range(heads)
                for i in range(half)
                for side in (0, 1)
            ]
            stored = stored[torch.tensor(order)]
    return stored.to(DTYPES[kind])


def roles(reference: Reference) -> list[str]:
    """Return the roles whose tensors the GGUF holds."""
    s = shape(reference.source, reference.facts)
    return [
        r
        for r in reference.source.roles
        if r.startswith("text.") and not (s.tied and r == "text.head")
    ]


def tokens(
    reference: Reference, texts: list[bytes], scores: list[float], types: list[int]
) -> list[str]:
    """Return what is wrong with a GGUF's token list, in words."""
    size, wrong = shape(reference.source, reference.facts).vocabulary, []
    if not len(texts) == len(scores) == len(types) == size:
        return [
            f"{len(texts)} tokens, {len(scores)} scores, {len(types)} types, expected {size} of "
            "each"
        ]
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


def chat(template: str, first: str) -> list[str]:
    """Return what is wrong with a chat template: rendered, it must give the conversation."""
    import jinja2

    messages = [{"role": "user", "content": "\n" + QUESTION}]
    try:
        rendered = (
            jinja2.Environment()
            .from_string(template)
            .render(
                messages=messages, bos_token=first, eos_token="</s>", add_generation_prompt=True
            )
        )
    except jinja2.TemplateError as e:
        return [f"the chat template cannot be rendered ({e})"]
    expected = first + BEFORE + AFTER.replace("{question}", QUESTION)
    return (
        []
        if rendered == expected
        else [f"the chat template gives {rendered!r}, expected {expected!r}"]
    )


def manifest(reference: Reference, kind: str) -> dict[str, Any]:
    """Return the expected fields of the manifest by path."""
    facts, s = reference.facts, shape(reference.source, reference.facts)
    side = tower.side(reference.source)
    pixels = page.Pixels(facts, side)
    return {
        "language.type": kind,
        "language.context_length": min(
            LONGEST_CONTEXT, int(facts.text.get("max_position_embeddings", 2048))
        ),
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
