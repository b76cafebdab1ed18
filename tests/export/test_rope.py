"""Rotary positions of config.json in the GGUF's keys and factors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from config_folders import LLAVA, lay, read
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from export import llm
from export.checkpoint import Checkpoint

YARN: dict[str, dict[str, Any]] = {
    "plain": {},
    "original context": {"original_max_position_embeddings": 1024},
    "attention_factor": {"attention_factor": 1.0},
    "beta_fast and beta_slow": {
        "beta_fast": 16.0,
        "beta_slow": 2.0,
        "original_max_position_embeddings": 512,
    },
    "mscale": {"mscale": 1.0, "mscale_all_dim": 0.8},
    "not truncated": {"truncate": False, "original_max_position_embeddings": 512},
    "everything": {
        "attention_factor": 0.9,
        "beta_fast": 24.0,
        "beta_slow": 1.5,
        "mscale": 0.7,
        "mscale_all_dim": 0.5,
        "truncate": False,
        "original_max_position_embeddings": 2048,
    },
}


def as_llama_cpp_computes(path: Path, dim: int) -> tuple[np.ndarray[Any, Any], float]:
    """Frequencies (dim / 2,) and attention factor that llama.cpp makes of a file's keys.
    Source: llama-context.cpp (yarn_attn_factor) and ggml's rope_yarn; its llama has no keys for
    YaRN's betas."""
    reader = gguf.GGUFReader(path)

    def field(name: str, default: Any) -> Any:
        entry = reader.fields.get(f"llama.rope.{name}")
        return default if entry is None else entry.contents()

    freqs = field("freq_base", 1e4) ** -(np.arange(0, dim, 2) / dim)
    for tensor in reader.tensors:
        if tensor.name == "rope_freqs.weight":
            freqs = freqs / np.asarray(tensor.data, np.float64)
    factor, attention = field("scaling.factor", 1.0), field("scaling.attn_factor", 1.0)
    if field("scaling.type", "none") == "yarn":
        old, base = field("scaling.original_context_length", 0), field("freq_base", 1e4)
        ends = [dim * np.log(old / (turns * 2 * np.pi)) / (2 * np.log(base)) for turns in (32, 1)]
        low, high = max(0, np.floor(ends[0])), min(dim - 1, np.ceil(ends[1]))
        share = np.clip((np.arange(dim // 2) - low) / max(0.001, high - low), 0, 1)
        freqs = freqs / factor * share + freqs * (1 - share)
        attention *= 0.1 * np.log(factor) + 1
    return freqs, attention


@pytest.mark.parametrize("form", YARN)
def test_llama_cpp_computes_the_same_yarn_as_transformers(
    form: str, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    scaling = {"rope_type": "yarn", "factor": 4.0} | YARN[form]
    source = lay(checkpoints[LLAVA], tmp_path / "source", {"rope_scaling": scaling})
    config = read(source)
    llm.write(
        Checkpoint(source, config, tower_dir=None),
        tmp_path / "llm.gguf",
        "f16",
        llm.About("", "", "", ""),
    )
    settings = LlamaConfig(
        hidden_size=256, num_attention_heads=4, max_position_embeddings=4096, rope_scaling=scaling
    )
    expected, attention = ROPE_INIT_FUNCTIONS["yarn"](settings, torch.device("cpu"))
    freqs, factor = as_llama_cpp_computes(tmp_path / "llm.gguf", config.head_dim)
    assert np.allclose(freqs, expected.numpy(), rtol=1e-5, atol=0)
    assert factor == pytest.approx(attention, rel=1e-6)


def test_rope_parameters_equal_the_two_older_keys(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    raw = {"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5}
    config = read(
        lay(checkpoints[LLAVA], tmp_path / "source", {"rope_theta": None, "rope_parameters": raw})
    )
    assert (config.text.rope_theta, config.text.rope_scaling) == (
        5e5,
        {"rope_type": "linear", "factor": 2.0},
    )
