"""Adapters that PEFT makes, merged here and by PEFT; adapters that are no plain sum are refused
by name."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from export.adapter import Adapter
from export.checkpoint import Checkpoint
from export.config import read_config
from export.convert import Options, convert
from pulse_edge.errors import CheckpointError

SHARD = "model-00001-of-00001.safetensors"
LINEAR = ["q_proj", "v_proj", "down_proj"]


@pytest.fixture(scope="module")
def whole(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint in float32: rounding to float16 would hide a wrong merge."""
    out = Path(shutil.copytree(tiny_checkpoint, tmp_path_factory.mktemp("whole") / "checkpoint"))
    save_file({n: t.float() for n, t in load_file(out / SHARD).items()}, out / SHARD)
    return out


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def llama(checkpoint: Path) -> Any:
    raw = json.loads((checkpoint / "config.json").read_text())
    keys = LlamaConfig().to_dict().keys() - {"model_type", "torch_dtype", "dtype", "architectures"}
    model = LlamaForCausalLM(LlamaConfig(**{k: v for k, v in raw.items() if k in keys})).float()
    tensors = {n: t for n, t in load_file(checkpoint / SHARD).items() if n in model.state_dict()}
    model.load_state_dict(tensors, strict=True)
    return model


def train(checkpoint: Path, out: Path, **settings: Any) -> Path:
    """An adapter with random values in all its trained parts, as save_pretrained writes it."""
    torch.manual_seed(1)
    settings = {
        "r": 4,
        "lora_alpha": 8,
        "target_modules": LINEAR,
        "task_type": "CAUSAL_LM",
        **settings,
    }
    model = get_peft_model(llama(checkpoint), LoraConfig(**settings))
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.requires_grad or ".lora_" in name:
                value += torch.randn_like(value) / 20
    model.save_pretrained(str(out))
    return out


def merged_by_peft(checkpoint: Path, adapter: Path) -> dict[str, torch.Tensor]:
    merged = PeftModel.from_pretrained(llama(checkpoint), str(adapter)).merge_and_unload()
    return dict(merged.state_dict())


def opened(checkpoint: Path, adapter: Path) -> Checkpoint:
    config = read_config(checkpoint / "config.json", tower_dir=None)
    return Checkpoint(checkpoint, config, tower_dir=None, adapter=Adapter(adapter))


def rewrite(adapter: Path, **fields: Any) -> Path:
    raw = json.loads((adapter / "adapter_config.json").read_text()) | fields
    (adapter / "adapter_config.json").write_text(json.dumps(raw))
    return adapter


PATTERNS = {
    "rank_pattern": {"v_proj": 8, r"layers\.1\.self_attn\.q_proj": 2},
    "alpha_pattern": {"layers.0.*_proj": 32},
}
MERGED: dict[str, dict[str, Any]] = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "patterns": PATTERNS,
    "patterns and rslora": PATTERNS | {"use_rslora": True},
    "dora": {"use_dora": True},
    "dora, patterns and rslora": PATTERNS | {"use_dora": True, "use_rslora": True},
    "modules to save": {"modules_to_save": ["lm_head", "embed_tokens"]},
    "one layer": {"layers_to_transform": [1]},
    "output layer": {"target_modules": ["lm_head", "up_proj"]},
    "random start": {"init_lora_weights": False},
    "gaussian": {"init_lora_weights": "gaussian"},
    "eva": {"init_lora_weights": "eva"},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "mica": {"init_lora_weights": "mica"},
}


@pytest.mark.parametrize("settings", MERGED.values(), ids=list(MERGED))
def test_merged_weights_are_those_of_peft(
    settings: dict[str, Any], whole: Path, tmp_path: Path
) -> None:
    adapter = train(whole, tmp_path / "adapter", **settings)
    merged, checkpoint = merged_by_peft(whole, adapter), opened(whole, adapter)
    base = load_file(whole / SHARD)
    changed = 0
    for name, weight in merged.items():
        assert (checkpoint.tensor(name) - weight).abs().max() <= 1e-6, name
        changed += bool((base[name] - weight).abs().max() > 1e-3)
    assert changed >= 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_an_adapter_of_half_precision_is_merged_as_peft_does(
    dtype: torch.dtype, whole: Path, tmp_path: Path
) -> None:
    adapter = train(whole, tmp_path / "adapter")
    file = adapter / "adapter_model.safetensors"
    save_file({n: t.to(dtype) for n, t in load_file(file).items()}, file)
    merged, checkpoint = merged_by_peft(whole, adapter), opened(whole, adapter)
    assert max(float((checkpoint.tensor(n) - w).abs().max()) for n, w in merged.items()) <= 1e-6


def test_an_adapter_of_the_first_era_is_merged_as_peft_does(whole: Path, tmp_path: Path) -> None:
    """A pickle, the adapter's name in the tensors' names, and a config of ten keys."""
    adapter = train(whole, tmp_path / "adapter", modules_to_save=["lm_head"])
    merged = merged_by_peft(whole, adapter)
    tensors = load_file(adapter / "adapter_model.safetensors")
    (adapter / "adapter_model.safetensors").unlink()
    old = {n.replace("lm_head.", "lm_head.modules_to_save.default."): t for n, t in tensors.items()}
    old = {n.replace("lora_A.", "lora_A.default."): t for n, t in old.items()}
    torch.save(old, adapter / "adapter_model.bin")
    config = {
        "base_model_name_or_path": "vicuna",
        "bias": "none",
        "enable_lora": None,
        "fan_in_fan_out": False,
    }
    config |= {
        "inference_mode": True,
        "lora_alpha": 8,
        "lora_dropout": 0.05,
        "merge_weights": False,
        "r": 4,
    }
    config |= {
        "modules_to_save": ["lm_head"],
        "peft_type": "LORA",
        "target_modules": LINEAR,
        "task_type": "CAUSAL_LM",
    }
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    checkpoint = opened(whole, adapter)
    assert max(float((checkpoint.tensor(n) - w).abs().max()) for n, w in merged.items()) <= 1e-6


def refused(checkpoint: Path, adapter: Path, words: str) -> None:
    with pytest.raises(CheckpointError, match=words) as caught:
        opened(checkpoint, adapter)
    assert "\n" not in str(caught.value)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "pissa": (
        {"init_lora_weights": "pissa"},
        "init_lora_weights is 'pissa', which changed the base's weights",
    ),
    "fast pissa": (
        {"init_lora_weights": "pissa_niter_2"},
        "init_lora_weights is 'pissa_niter_2', which changed",
    ),
    "olora": (
        {"init_lora_weights": "olora"},
        "init_lora_weights is 'olora', which changed the base's weights",
    ),
    "alora": (
        {"alora_invocation_tokens": [13, 31]},
        r"alora_invocation_tokens is \[13, 31\] \(aLoRA changes.*has no merged form",
    ),
    "layer replication": (
        {"layer_replication": [(0, 2), (0, 2)]},
        r"layer_replication is \[\[0, 2\], \[0, 2\]\]",
    ),
    "single tokens": (
        {"trainable_token_indices": [5]},
        r"trainable_token_indices is .*single tokens",
    ),
    "embeddings": ({"target_modules": ["embed_tokens", "q_proj"]}, "LoRA matrices of embeddings"),
    "biases": ({"bias": "all"}, "bias is 'all'"),
}


@pytest.mark.parametrize(("settings", "words"), REFUSED.values(), ids=list(REFUSED))
def test_an_adapter_that_is_no_sum_on_the_base_is_refused_by_name(
    settings: dict[str, Any], words: str, whole: Path, tmp_path: Path
) -> None:
    refused(whole, train(whole, tmp_path / "adapter", **settings), words)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"init_lora_weights": "loftq"}, "init_lora_weights is 'loftq', which changed"),
        ({"init_lora_weights": "corda"}, "init_lora_weights is 'corda', which changed"),
        ({"init_lora_weights": "lora_ga"}, "init_lora_weights is 'lora_ga', which changed"),
        ({"init_lora_weights": "tomorrow"}, "init_lora_weights is 'tomorrow', which is not known"),
        ({"peft_type": "ADALORA"}, "peft_type is 'ADALORA', expected 'LORA'"),
        ({"use_qalora": True}, "use_qalora is True"),
        (
            {"target_parameters": ["experts.gate_up_proj"]},
            r"target_parameters is .*parameters and not modules",
        ),
        ({"lora_bias": True}, "lora_bias is True"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out is True"),
        ({"surprise": {"a": 1}}, "surprise is .* is not known"),
        ({"r": "4"}, "r is '4', expected a whole number from 1 on"),
        ({"r": 8}, r"has matrices of \[4, 688\], and adapter_config.json says rank 8"),
        ({"lora_alpha": True}, "lora_alpha is True, expected a number"),
        ({"lora_alpha": float("nan")}, "lora_alpha is nan, expected a number"),
        ({"rank_pattern": ["v_proj"]}, "rank_pattern is .*, expected an object"),
        ({"rank_pattern": {"(a+)+$": 4}}, "rank_pattern is .*simpler expressions"),
        ({"rank_pattern": {"[": 4}}, "rank_pattern is .*no regular expression"),
        (
            {"modules_to_save": ["lm_head"]},
            "modules_to_save names lm_head, whose tensors are missing",
        ),
        ({"use_dora": True}, "expected lora_A, lora_B and lora_magnitude_vector of every module"),
    ],
)
def test_settings_that_are_not_merged_are_named(
    fields: dict[str, Any], words: str, whole: Path, tmp_path: Path
) -> None:
    refused(whole, rewrite(train(whole, tmp_path / "adapter"), **fields), words)


def test_patterns_that_older_versions_of_peft_read_otherwise_need_a_version(
    whole: Path, tmp_path: Path
) -> None:
    """Before 0.15 the first key of both patterns decided, so that a module had one key and not
    one of each."""
    settings = {
        "rank_pattern": {"q_proj": 2},
        "alpha_pattern": {r"layers\.0\.self_attn\.q_proj": 32},
    }
    adapter = train(whole, tmp_path / "adapter", **settings)
    opened(whole, adapter)
    refused(whole, rewrite(adapter, peft_version=None), "another scale in PEFT before 0.15")


def test_matrices_that_fit_no_weight_are_listed(whole: Path, tmp_path: Path) -> None:
    adapter = train(whole, tmp_path / "adapter")
    file = adapter / "adapter_model.safetensors"
    tensors = {n.replace("layers.0", "layers.7"): t for n, t in load_file(file).items()}
    save_file(tensors, file)
    refused(
        whole,
        adapter,
        r"the adapter changes model\.layers\.7\.mlp\.down_proj\.weight, which does not exist",
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.to(torch.int8), r"lora_B.weight is int8.* is no type of trained weights"),
        (lambda t: t[:0].contiguous(), "under DeepSpeed ZeRO-3"),
        (lambda t: t.flatten()[:0], "under DeepSpeed ZeRO-3"),
    ],
)
def test_matrices_that_are_not_whole_weights_are_refused(
    change: Any, words: str, whole: Path, tmp_path: Path
) -> None:
    adapter = train(whole, tmp_path / "adapter")
    file = adapter / "adapter_model.safetensors"
    save_file({n: change(t) if "lora_B" in n else t for n, t in load_file(file).items()}, file)
    refused(whole, adapter, words)


# --- the projector --------------------------------------------------------------------------------


def projector(checkpoint: Path, prefix: str = "base_model.model.") -> dict[str, torch.Tensor]:
    tensors = load_file(checkpoint / SHARD)
    return {prefix + n: torch.randn_like(t) / 20 for n, t in tensors.items() if "mm_projector" in n}


@pytest.mark.parametrize(
    ("file", "prefix"),
    [
        ("non_lora_trainables.bin", "base_model.model."),
        ("mm_projector.bin", ""),
        ("mm_projector.bin", "base_model.model."),
    ],
)
def test_a_trained_projector_is_taken(file: str, prefix: str, whole: Path, tmp_path: Path) -> None:
    adapter = train(whole, tmp_path / "adapter")
    trained = projector(whole, prefix)
    torch.save(trained, adapter / file)
    checkpoint = opened(whole, adapter)
    for name, value in trained.items():
        assert torch.equal(checkpoint.tensor(name.removeprefix(prefix)), value)
    assert checkpoint.notes == ()
    assert [f.name for f in Adapter(adapter).files] == [
        "adapter_config.json",
        "adapter_model.safetensors",
        file,
    ]


def test_a_projector_in_two_files_is_refused(whole: Path, tmp_path: Path) -> None:
    adapter = train(whole, tmp_path / "adapter")
    torch.save(projector(whole), adapter / "non_lora_trainables.bin")
    torch.save(projector(whole, ""), adapter / "mm_projector.bin")
    refused(whole, adapter, r"is in non_lora_trainables.bin and in mm_projector.bin")


def test_the_first_stage_s_folder_brings_its_projector_to_a_language_model(
    whole: Path, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(whole, tmp_path / "base"))
    tensors = load_file(base / SHARD)
    save_file({n: t for n, t in tensors.items() if "mm_projector" not in n}, base / SHARD)
    stage = tmp_path / "stage"
    stage.mkdir()
    trained = projector(whole, "")
    torch.save(trained, stage / "mm_projector.bin")
    checkpoint = opened(base, stage)
    assert torch.equal(
        checkpoint.tensor("model.mm_projector.0.weight"), trained["model.mm_projector.0.weight"]
    )


def test_a_missing_projector_is_noted_and_only_read_files_are_listed(
    tiny_checkpoint: Path, whole: Path, tmp_path: Path
) -> None:
    adapter = train(whole, tmp_path / "checkpoint-20")
    (adapter / "trainer_state.json").write_text("{}")
    torch.save({"step": torch.zeros(1)}, adapter / "optimizer.bin")
    lines: list[str] = []
    convert(tiny_checkpoint, tmp_path / "kit", Options(lora=adapter), lines.append)
    warning = (
        "checkpoint-20 has no non_lora_trainables.bin and no mm_projector.bin, so the projector "
        "is the base model's"
    )
    assert [line for line in lines if line.startswith(f"warning: {warning}")]
    source = json.loads((tmp_path / "kit" / "manifest.json").read_text())["source"]
    assert source["notes"][0].startswith(warning)
    listed = {name for name in source["files"] if name.startswith("checkpoint-20/")}
    assert listed == {
        "checkpoint-20/adapter_config.json",
        "checkpoint-20/adapter_model.safetensors",
    }
    assert SHARD in source["files"]
