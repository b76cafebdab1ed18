"""Write a trained miniature as a checkpoint in the original LLaVA layout.

It is float16, in shards of at most 16 MB. The tower's own configuration lies in a folder next to
them, as LLaVA keeps it; its weights are in the shards, as in PULSE-7B.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from export.miniature import state
from export.miniature.data import MEAN, STD
from export.miniature.model import Shape

TOWER = "model.vision_tower.vision_tower.vision_model."
WEIGHTS = "model-{:05d}-of-{:05d}.safetensors"


def write(parts: dict[str, nn.Module], shape: Shape, out: Path) -> None:
    """Write the checkpoint into `out`, where its tokenizer.model is.

    Each file is written under another name and then renamed.
    """
    tensors = {
        name: t.detach().cpu().half().contiguous() for name, t in _named(parts, shape).items()
    }
    shards = state.shards(tensors)
    index: dict[str, str] = {}
    for n, shard in enumerate(shards, 1):
        file = WEIGHTS.format(n, len(shards))
        save_file(shard, out / f"{file}.new", {"format": "pt"})
        os.replace(out / f"{file}.new", out / file)
        index |= dict.fromkeys(shard, file)
    total = sum(t.numel() * t.element_size() for t in tensors.values())
    _json(
        out / "model.safetensors.index.json",
        {"metadata": {"total_size": total}, "weight_map": index},
    )
    for old in set(out.glob("model-*.safetensors")) - {out / name for name in index.values()}:
        old.unlink()
    folder = out / "vision_tower"
    folder.mkdir(exist_ok=True)
    _json(folder / "config.json", {"architectures": ["CLIPVisionModel"], **_vision(shape)})
    _json(folder / "preprocessor_config.json", _pixels(shape))
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<unk>"}
    _json(out / "special_tokens_map.json", special)
    _json(out / "tokenizer_config.json", special | _TOKENIZER)
    _json(out / "generation_config.json", {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0})
    _json(out / "config.json", _config(shape))


def _json(path: Path, value: Any) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(value, indent=1) + "\n", "utf-8")
    os.replace(temporary, path)


def _named(parts: dict[str, nn.Module], shape: Shape) -> dict[str, Tensor]:
    """Return every tensor under its published name.

    The layer behind the selected hidden state is never computed: a copy of the last one stands
    there.
    """
    tower, d = parts["tower"].state_dict(), shape.vision_width
    named = {
        TOWER + "embeddings.class_embedding": tower["class_embedding"],
        TOWER + "embeddings.position_embedding.weight": tower["position_embedding"],
        TOWER + "embeddings.patch_embedding.weight": tower["patch_embedding.weight"].view(
            d, 3, shape.patch, shape.patch
        ),
        TOWER + "post_layernorm.weight": torch.ones(d),
        TOWER + "post_layernorm.bias": torch.zeros(d),
    }
    for name, tensor in tower.items():
        if name.startswith("pre_layrnorm."):
            named[TOWER + name] = tensor
        elif name.startswith("layers."):
            named[TOWER + "encoder." + name] = tensor
            _, number, rest = name.split(".", 2)
            if int(number) == shape.vision_layers - 1:
                named[f"{TOWER}encoder.layers.{shape.vision_layers}.{rest}"] = tensor.clone()
    for name, tensor in parts["projector"].state_dict().items():
        named["model.mm_projector." + name.replace("first", "0").replace("second", "2")] = tensor
    for name, tensor in parts["llama"].state_dict().items():
        named[name if name.startswith("lm_head") else f"model.{name}"] = tensor
    return named


_TOKENIZER = {
    "add_bos_token": True,
    "add_eos_token": False,
    "legacy": False,
    "model_max_length": 4096,
    "padding_side": "right",
    "tokenizer_class": "LlamaTokenizer",
}


def _vision(shape: Shape) -> dict[str, Any]:
    return {
        "model_type": "clip_vision_model",
        "hidden_size": shape.vision_width,
        "intermediate_size": shape.vision_mlp,
        "num_hidden_layers": shape.vision_layers + 1,
        "num_attention_heads": shape.vision_heads,
        "image_size": shape.image,
        "patch_size": shape.patch,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-05,
        "projection_dim": shape.width,
    }


def _pixels(shape: Shape) -> dict[str, Any]:
    return {
        "crop_size": shape.image,
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": MEAN,
        "image_std": STD,
        "resample": 3,
        "size": shape.image,
    }


def _config(shape: Shape) -> dict[str, Any]:
    """Return config.json as PULSE-7B has it, with the miniature's sizes."""
    side = shape.image
    return {
        "architectures": ["LlavaLlamaForCausalLM"],
        "model_type": "llava_llama",
        "hidden_size": shape.width,
        "intermediate_size": shape.mlp,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.heads,
        "vocab_size": shape.vocabulary,
        "rms_norm_eps": 1e-05,
        "max_position_embeddings": shape.context,
        "hidden_act": "silu",
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "image_aspect_ratio": "anyres",
        "image_grid_pinpoints": [
            [side, 2 * side],
            [2 * side, side],
            [2 * side, 2 * side],
            [3 * side, side],
            [side, 3 * side],
        ],
        "mm_patch_merge_type": "flat",
        "mm_hidden_size": shape.vision_width,
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        "mm_vision_tower": "vision_tower",
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "use_mm_proj": True,
        "unfreeze_mm_vision_tower": True,
        "tokenizer_model_max_length": shape.context,
        "tokenizer_padding_side": "right",
        "torch_dtype": "float16",
    }
