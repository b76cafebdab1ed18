"""Every layout and type of checkpoint through the same conversion, whose own parity check is the
assertion."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from export.convert import Options, convert

SHARD = "model-00001-of-00001.safetensors"


def changed(source: Path, out: Path, config: dict[str, Any], tensors: Any = None) -> Path:
    """A copy of a checkpoint with other config fields, and its tensors passed through a
    function."""
    shutil.copytree(source, out)
    raw = json.loads((out / "config.json").read_text()) | config
    (out / "config.json").write_text(json.dumps(raw))
    if tensors is not None:
        save_file(tensors(load_file(out / SHARD)), out / SHARD)
        (out / "model.safetensors.index.json").unlink()
    return out


def tensors_of(path: Path) -> dict[str, Any]:
    return {t.name: (t.tensor_type, np.array(t.data)) for t in gguf.GGUFReader(path).tensors}


def same(a: Path, b: Path) -> bool:
    one, two = tensors_of(a / "llm.gguf"), tensors_of(b / "llm.gguf")
    return one.keys() == two.keys() and all(
        one[n][0] == two[n][0] and np.array_equal(one[n][1], two[n][1]) for n in one
    )


@pytest.mark.parametrize("kind", ["bf16", "f32"])
def test_other_weight_types_pass_parity(kind: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    convert(tiny_checkpoint, tmp_path / "kit", Options(language=kind, vision="fp32"))


@pytest.mark.parametrize(
    "rope",
    [
        {"type": "linear", "factor": 2.0},
        {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64},
        {
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 1024,
            "attention_factor": 1.0,
        },
        {
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 1024,
            "beta_fast": 16.0,
            "beta_slow": 2.0,
            "mscale": 1.0,
            "mscale_all_dim": 0.8,
        },
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    ],
)
def test_rope_scaling_passes_parity(
    rope: dict[str, Any], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    source = changed(tiny_checkpoint, tmp_path / "source", {"rope_scaling": rope})
    convert(source, tmp_path / "kit", Options())
    figures = json.loads((tmp_path / "kit" / "manifest.json").read_text())["parity"]["language"]
    assert figures["mean_kld"] < 1e-6  # ignoring a field of YaRN's makes 1e-3


def test_a_folder_that_keeps_the_name_of_its_vicuna_is_the_same_model(
    tiny_checkpoint: Path, tiny_kit: Path, tmp_path: Path
) -> None:
    fields = {
        "architectures": ["LlamaForCausalLM"],
        "rope_theta": None,
        "torch_dtype": None,
        "dtype": "float16",
    }
    fields |= {"rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}}

    def frequencies(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return tensors | {
            f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(32) for i in range(3)
        }

    source = changed(tiny_checkpoint, tmp_path / "source", fields, frequencies)
    convert(source, tmp_path / "kit", Options(vision="fp32"))
    assert same(tmp_path / "kit", tiny_kit)
    actual = json.loads((tmp_path / "kit" / "manifest.json").read_text())["source"]
    assert (actual["architecture"], actual["layout"]) == ("LlamaForCausalLM", "llava")


def test_grouped_heads_and_tied_output_pass_parity(tiny_checkpoint: Path, tmp_path: Path) -> None:
    def group(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        del tensors["lm_head.weight"]
        halved = ("k_proj.weight", "v_proj.weight")
        return {
            n: t[:128].contiguous() if n.endswith(halved) and n.startswith("model.layers") else t
            for n, t in tensors.items()
        }

    fields = {"num_key_value_heads": 2, "tie_word_embeddings": True}
    convert(
        changed(tiny_checkpoint, tmp_path / "source", fields, group), tmp_path / "kit", Options()
    )
    assert "output.weight" not in tensors_of(tmp_path / "kit" / "llm.gguf")


@pytest.mark.parametrize("aspect", ["pad", "square"])
def test_one_tile_packings_pass_parity(aspect: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    source = changed(tiny_checkpoint, tmp_path / "source", {"image_aspect_ratio": aspect})
    convert(source, tmp_path / "kit", Options())


def test_pytorch_files_and_a_tower_beside_give_the_same_kit(
    tiny_checkpoint: Path, tiny_kit: Path, tmp_path: Path
) -> None:
    source = Path(shutil.copytree(tiny_checkpoint, tmp_path / "source"))
    tensors = load_file(source / SHARD)
    prefix = "model.vision_tower.vision_tower."
    tower = {n.removeprefix(prefix): tensors.pop(n) for n in list(tensors) if n.startswith(prefix)}
    torch.save(tensors, source / "pytorch_model.bin")
    save_file(tower, source / "vision_tower" / "model.safetensors")
    (source / SHARD).unlink()
    (source / "model.safetensors.index.json").unlink()
    convert(source, tmp_path / "kit", Options(vision="fp32"))
    assert same(tmp_path / "kit", tiny_kit)


def test_transformers_5_names_give_the_same_language_model(
    tiny_checkpoint: Path, tiny_kit: Path, tmp_path: Path
) -> None:
    hub = tiny.checkpoint(tmp_path / "hub", "--hub-names")
    tensors = {}
    for name, tensor in load_file(hub / SHARD).items():
        new = name.replace("language_model.model.", "model.language_model.").replace(
            "language_model.lm_head", "lm_head"
        )
        if name.startswith(("vision_tower", "multi_modal_projector", "image_newline")):
            new = "model." + name.replace("vision_model.", "")
        tensors[new] = tensor
    save_file(tensors, hub / SHARD)
    (hub / "model.safetensors.index.json").unlink()
    convert(hub, tmp_path / "kit", Options(vision="fp32", merge="flat"))
    assert same(tmp_path / "kit", tiny_kit)


def test_a_lora_folder_is_merged_as_torch_would(tiny_checkpoint: Path, tmp_path: Path) -> None:
    lora = tmp_path / "lora"
    lora.mkdir()
    name = "model.layers.1.mlp.up_proj"
    a, b = torch.randn(4, 256) / 16, torch.randn(688, 4) / 2
    save_file(
        {f"base_model.model.{name}.lora_A.weight": a, f"base_model.model.{name}.lora_B.weight": b},
        lora / "adapter_model.safetensors",
    )
    (lora / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8})
    )
    bias = torch.randn(256).half()
    torch.save(
        {"base_model.model.model.mm_projector.2.bias": bias}, lora / "non_lora_trainables.bin"
    )
    convert(tiny_checkpoint, tmp_path / "kit", Options(lora=lora))
    base = load_file(tiny_checkpoint / SHARD)[name + ".weight"]
    expected = (base.double() + 2 * (b.double() @ a.double())).numpy()
    actual = tensors_of(tmp_path / "kit" / "llm.gguf")["blk.1.ffn_up.weight"][1]
    assert np.abs(actual - expected).max() < 2e-3
    assert np.abs(expected - base.double().numpy()).max() > 0.1


def test_a_pickle_of_other_things_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    from pulse_edge.errors import CheckpointError

    source = Path(shutil.copytree(tiny_checkpoint, tmp_path / "source"))
    (source / SHARD).unlink()
    (source / "model.safetensors.index.json").unlink()
    torch.save({"model.norm.weight": subprocess.Popen}, source / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="not a plain PyTorch file"):
        convert(source, tmp_path / "kit", Options())
