"""Write the language tensors to llm.gguf, with one tensor in memory at a time.

pulse_edge/inference/language_model.py reads the file. Source of names, types and the rotary
permutation: llama.cpp's conversion/llama.py. A test holds that the tensors equal its own, bit for
bit.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import torch

from export import tokenizer
from export.checkpoint import Checkpoint, expected, finite
from export.config import Config
from export.shards import shown
from export.tokenizer import Tokenizer
from pulse_edge.errors import CheckpointError

TYPES = {
    "f32": (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "bf16": (gguf.GGMLQuantizationType.BF16, gguf.LlamaFileType.MOSTLY_BF16),
}
_TOP = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
_LAYER = {
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
# The conversation of pulse_edge.kit.prompt, for programs that know only chat templates; the runtime
# does not use it.
CHAT_TEMPLATE = (
    "{{ bos_token }}A chat between a curious human and an artificial intelligence assistant. The "
    "assistant gives helpful, "
    "detailed, and polite answers to the human's "
    "questions.{% for message in messages %}{% if message['role'] == 'user' %}"
    " USER: {{ message['content'] }}{% elif message['role'] == 'assistant' %} ASSISTANT: "
    "{{ message['content'] }}"
    "{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)


@dataclass(frozen=True)
class About:
    """The entries of `general.*` that describe the model."""

    name: str
    licence: str
    source: str
    revision: str


def language_names(checkpoint: Checkpoint) -> list[str]:
    """Return the names (in the original LLaVA layout) of the tensors of llm.gguf, in file order."""
    tied = checkpoint.config.text.tie_word_embeddings
    return [n for n in checkpoint.names() if gguf_name(n) and not (tied and n == "lm_head.weight")]


def gguf_name(name: str) -> str | None:
    """Return GGUF's name of a tensor, or None for a tensor outside the language model."""
    stem = name.removesuffix(".weight")
    if stem in _TOP:
        return _TOP[stem] + ".weight"
    parts = stem.split(".", 3)
    if parts[:2] == ["model", "layers"] and len(parts) == 4 and parts[3] in _LAYER:
        return f"blk.{parts[2]}.{_LAYER[parts[3]]}.weight"
    return None


def write(
    checkpoint: Checkpoint,
    path: Path,
    kind: str,
    about: About,
    progress: Callable[[int, int], None] = lambda _done, _of: None,
    vocabulary: Tokenizer | None = None,
) -> None:
    """Write the language model as `kind` (f16, bf16, f32).

    `progress` gets the bytes written and their total. `vocabulary` is read from the checkpoint's
    own tokenizer files unless it is given.

    Raises CheckpointError for a tokenizer that llama.cpp cannot use, and for weights that are NaN,
    infinite or too large for f16, all listed at once.
    """
    config = checkpoint.config
    target_type, file_type = TYPES[kind]
    writer = gguf.GGUFWriter(path, "llama")
    _add_metadata(writer, config, file_type, about)
    add_tokenizer(writer, vocabulary or tokenizer.read(checkpoint.path, config))
    extra = rope_factors(config)
    if extra is not None:
        writer.add_tensor_info("rope_freqs.weight", extra.shape, extra.dtype, extra.nbytes)
    names, shapes = language_names(checkpoint), _shapes(config)
    for name in names:
        target = _type(name, len(shapes[name]), target_type)
        dtype, size = _layout(shapes[name], target)
        shape, raw = shapes[name], None
        if target == gguf.GGMLQuantizationType.BF16:
            shape, raw = (*shape[:-1], 2 * shape[-1]), target  # in bytes, as the writer expects
        writer.add_tensor_info(gguf_name(name), shape, dtype, size, raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    total = sum(_layout(shapes[n], _type(n, len(shapes[n]), target_type))[1] for n in names)
    done, wrong = 0, list[str]()
    if extra is not None:
        writer.write_tensor_data(extra)
    # One thread reads and checks the next tensor while this one is written: the disk and the
    # processor work together.
    with ThreadPoolExecutor(1) as pool:
        coming = [pool.submit(_prepared, checkpoint, names[0], target_type)]
        for i in range(len(names)):
            data, fault = coming.pop().result()
            if i + 1 < len(names):
                coming.append(pool.submit(_prepared, checkpoint, names[i + 1], target_type))
            wrong += fault
            writer.write_tensor_data(data)
            done += data.nbytes
            progress(done, total)
    writer.close()
    if wrong:
        raise CheckpointError(f"{checkpoint.path}: {shown(wrong)}.")


def _prepared(
    checkpoint: Checkpoint, name: str, target_type: gguf.GGMLQuantizationType
) -> tuple[npt.NDArray[Any], list[str]]:
    """Return a tensor as it goes into the file, and what is wrong with it."""
    tensor = checkpoint.tensor(name)
    data = encode(_rotary(name, tensor, checkpoint.config), _type(name, tensor.ndim, target_type))
    if not finite(tensor):
        return data, [f"{name} has NaN or infinite weights"]
    if data.dtype == np.float16 and tensor.dtype != torch.float16 and not np.isfinite(data).all():
        return data, [f"{name} has weights too large for f16 (use --llm bf16)"]
    return data, []


def encode(tensor: torch.Tensor, target: gguf.GGMLQuantizationType) -> npt.NDArray[Any]:
    """Return the tensor's bytes in GGUF.

    float16 and float32 keep their dtype; BF16 becomes uint8 with a doubled last dimension.
    """
    if tensor.dtype == torch.float16 and target == gguf.GGMLQuantizationType.F16:
        return tensor.numpy()
    if tensor.dtype == torch.bfloat16 and target == gguf.GGMLQuantizationType.BF16:
        return tensor.contiguous().view(torch.uint8).numpy()
    with np.errstate(over="ignore"):
        data: npt.NDArray[Any] = gguf.quants.quantize(tensor.float().numpy(), target)
    return data


def _type(
    name: str, dimensions: int, target_type: gguf.GGMLQuantizationType
) -> gguf.GGMLQuantizationType:
    """Return the type of a tensor: norms stay in float32, as llama.cpp's kernels require."""
    return gguf.GGMLQuantizationType.F32 if dimensions <= 1 else target_type


def _layout(shape: tuple[int, ...], target: gguf.GGMLQuantizationType) -> tuple[np.dtype[Any], int]:
    """Return NumPy dtype and bytes of a tensor."""
    kinds: dict[gguf.GGMLQuantizationType, np.dtype[Any]] = {
        gguf.GGMLQuantizationType.F32: np.dtype(np.float32),
        gguf.GGMLQuantizationType.F16: np.dtype(np.float16),
        gguf.GGMLQuantizationType.BF16: np.dtype(np.uint8),
    }
    width = 4 if target == gguf.GGMLQuantizationType.F32 else 2
    return kinds[target], math.prod(shape) * width


def _shapes(config: Config) -> dict[str, tuple[int, ...]]:
    needed, optional = expected(config)
    return needed | optional


def _rotary(name: str, tensor: torch.Tensor, config: Config) -> torch.Tensor:
    """Permute q and k rows from halves (Hugging Face's rotary layout) to pairs (llama.cpp's)."""
    if name.endswith("q_proj.weight"):
        heads = config.text.num_attention_heads
    elif name.endswith("k_proj.weight"):
        heads = config.text.num_key_value_heads
    else:
        return tensor
    rows = tensor.shape[0]
    halves = tensor.reshape(heads, 2, rows // heads // 2, *tensor.shape[1:])
    return halves.swapaxes(1, 2).reshape(tensor.shape)


def rope_factors(config: Config) -> npt.NDArray[np.float32] | None:
    """Return the divisor of each rotary frequency, (head_dim / 2,) float32.

    Returns None where GGUF's own keys say it all. llama.cpp's llama has keys for YaRN's factor and
    attention_factor, and for no other of its fields; written out frequency by frequency, every YaRN
    is exact.
    """
    rope = config.text.rope_scaling or {}
    kind = rope.get("rope_type")
    if kind == "llama3":
        factors = _llama3_factors(config, rope)
    elif kind == "yarn" and not _plain_yarn(rope):
        factors = _yarn_factors(config, rope)
    else:
        return None
    result: npt.NDArray[np.float32] = torch.tensor(factors, dtype=torch.float32).numpy()
    return result


def _llama3_factors(config: Config, rope: dict[str, Any]) -> list[float]:
    """Return Llama 3's divisors. Source: llama.cpp's conversion/llama.py."""
    dim, base = config.head_dim, config.text.rope_theta
    freqs = 1.0 / (base ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim))
    factor, low, high = rope["factor"], rope["low_freq_factor"], rope["high_freq_factor"]
    old = rope["original_max_position_embeddings"]
    factors = []
    for freq in freqs:
        wavelength = 2 * math.pi / freq
        if wavelength < old / high:
            factors.append(1.0)
        elif wavelength > old / low:
            factors.append(factor)
        else:
            smooth = (old / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return factors


def _plain_yarn(rope: dict[str, Any]) -> bool:
    """Whether YaRN's ramp is the one that llama.cpp computes by itself."""
    return (
        rope.get("beta_fast", 32) == 32
        and rope.get("beta_slow", 1) == 1
        and rope.get("truncate", True) is True
    )


def _yarn_factors(config: Config, rope: dict[str, Any]) -> list[float]:
    """Return YaRN's ramp from unchanged frequencies (1) to interpolated ones (`factor`).

    Source: transformers' modeling_rope_utils, _compute_yarn_parameters.
    """
    dim, base = config.head_dim, config.text.rope_theta
    old = rope.get("original_max_position_embeddings") or config.text.max_position_embeddings
    low, high = (
        dim * math.log(old / (turns * 2 * math.pi)) / (2 * math.log(base))
        for turns in (rope.get("beta_fast", 32), rope.get("beta_slow", 1))
    )
    if rope.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    ramp = ((i - low) / (high - low or 0.001) for i in range(dim // 2))
    shares = [min(max(r, 0.0), 1.0) for r in ramp]
    return [1 / (share / rope["factor"] + 1 - share) for share in shares]


def yarn_attention(rope: dict[str, Any]) -> float:
    """Return the scale of queries and keys under YaRN: as stated, or from `factor`.

    Source: as for `_yarn_factors`.
    """

    def scale(multiple: float) -> float:
        return 0.1 * multiple * math.log(rope["factor"]) + 1.0 if rope["factor"] > 1 else 1.0

    if rope.get("attention_factor") is not None:
        return float(rope["attention_factor"])
    if rope.get("mscale") and rope.get("mscale_all_dim"):
        return scale(rope["mscale"]) / scale(rope["mscale_all_dim"])
    return scale(1.0)


def _add_metadata(writer: gguf.GGUFWriter, config: Config, file_type: Any, about: About) -> None:
    text = config.text
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(about.name)
    writer.add_license(about.licence)
    writer.add_source_url(about.source)
    writer.add_string("general.source.revision", about.revision)
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_block_count(text.num_hidden_layers)
    writer.add_context_length(text.max_position_embeddings)
    writer.add_embedding_length(text.hidden_size)
    writer.add_feed_forward_length(text.intermediate_size)
    writer.add_head_count(text.num_attention_heads)
    writer.add_head_count_kv(text.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    if config.head_dim * text.num_attention_heads != text.hidden_size:
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    writer.add_rope_freq_base(text.rope_theta)
    writer.add_layer_norm_rms_eps(text.rms_norm_eps)
    writer.add_vocab_size(text.vocab_size)
    _add_rope_scaling(writer, text.rope_scaling or {}, text.max_position_embeddings)


def _add_rope_scaling(writer: gguf.GGUFWriter, rope: dict[str, Any], context: int) -> None:
    kind = rope.get("rope_type")
    if kind == "yarn":
        attention, own = yarn_attention(rope), yarn_attention({"factor": rope["factor"]})
        if not _plain_yarn(
            rope
        ):  # The frequencies are in rope_freqs.weight, and llama.cpp adds nothing of its own.
            own = 1.0
        if attention != own:
            writer.add_rope_scaling_attn_factors(attention / own)
    if kind == "linear" or (kind == "yarn" and _plain_yarn(rope)):
        writer.add_rope_scaling_type(gguf.RopeScalingType(kind))
        writer.add_rope_scaling_factor(rope["factor"])
    if kind == "yarn" and _plain_yarn(rope):
        writer.add_rope_scaling_orig_ctx_len(
            rope.get("original_max_position_embeddings") or context
        )


def add_tokenizer(writer: gguf.GGUFWriter, vocabulary: Tokenizer) -> None:
    """Write the vocabulary: tokens, scores, types, special ids and chat template.

    llama.cpp ends an answer at eos, eot and eom.
    """
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_scores(vocabulary.scores)
    writer.add_token_types(vocabulary.types)
    writer.add_add_space_prefix(vocabulary.add_prefix)
    if vocabulary.bos is not None:
        writer.add_bos_token_id(vocabulary.bos)
    ends = (writer.add_eos_token_id, writer.add_eot_token_id, writer.add_eom_token_id)
    for add, token in zip(ends, vocabulary.ends, strict=False):
        add(token)
    if vocabulary.unk is not None:
        writer.add_unk_token_id(vocabulary.unk)
    if vocabulary.pad is not None:
        writer.add_pad_token_id(vocabulary.pad)
    writer.add_add_bos_token(vocabulary.add_bos)
    writer.add_add_eos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def describe(folder: Path) -> str:
    """Return the licence that the checkpoint's README states, or an empty string."""
    path = folder / "README.md"
    if path.is_file():
        for line in path.read_text("utf-8", "replace").splitlines()[:40]:
            if line.lower().startswith("license:"):
                return json.dumps(line.split(":", 1)[1].strip())[1:-1]
    return ""
