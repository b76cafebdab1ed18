"""Published sets of configuration files convert, or are refused by name."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from config_folders import CLIP_MEAN, GRID, HUB, LLAVA, PINPOINTS, read

from export import tokenizer
from pulse_edge.errors import CheckpointError

# Set -> layout of the checkpoint below it, and the words of the refusal; None: it converts, with
# that packing.
SETS: dict[str, tuple[str, str | None, str]] = {
    "DERIVED--PULSE-7B": (LLAVA, None, "flat anyres"),
    "DERIVED--peft-0.21.2": (
        LLAVA,
        None,
        "flat anyres",
    ),  # an adapter's settings alone, which lie in a folder of their own
    "DERIVED--transformers-v457": (HUB, None, "spatial_unpad anyres"),
    "DERIVED--transformers-v457-llava": (LLAVA, None, "flat anyres"),
    "DERIVED--transformers-v5": (HUB, None, "spatial_unpad anyres"),
    "DERIVED--transformers-v5-llava": (LLAVA, None, "flat anyres"),
    "LANSG--GEM": (LLAVA, r"mm_ecg_tower is .* \(a second tower.*image_aspect_ratio is 'ori'", ""),
    "composed--llava-next-llama-hf": (HUB, None, "spatial_unpad anyres"),
    "liuhaotian--llava-v1.5-7b": (LLAVA, None, "flat pad"),
    "liuhaotian--llava-v1.6-vicuna-7b": (LLAVA, None, "spatial_unpad anyres"),
    "liuhaotian--llava-v1.6-vicuna-7b@paddlemix": (LLAVA, None, "spatial_unpad anyres"),
    "llava-hf--LLaVA-NeXT-Video-7B-hf@4.57.3": (
        HUB,
        "architecture 'LlavaNextVideoForConditionalGeneration'",
        "",
    ),
    "llava-hf--llava-1.5-7b-hf": (HUB, "architecture 'LlavaForConditionalGeneration'", ""),
    "llava-hf--llava-v1.6-mistral-7b-hf": (
        HUB,
        "the language model is of type 'mistral', expected 'llama'",
        "",
    ),
    "llava-hf--llava-v1.6-vicuna-13b-hf": (HUB, None, "spatial_unpad anyres"),
    "lmsys--vicuna-7b-v1.5": (
        LLAVA,
        "architecture 'LlamaForCausalLM'.*It is a language model alone",
        "",
    ),
    "openai--clip-vit-large-patch14-336": (LLAVA, None, "flat anyres"),
    "train-py--llava-v1.5-7b-pretrain": (LLAVA, None, "flat square"),
    "train-py--lora": (LLAVA, None, "flat anyres"),
}
SIZES = {
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "image_size",
    "patch_size",
    "mm_hidden_size",
    "mm_vision_tower",
}
EMPTY = {
    "PULSE-ECG--PULSE-7B",
    "PULSE-ECG--PULSE-7B-unfreeze-vit",
    "liuhaotian--llava-v1.5-7b-lora",
    "liuhaotian--llava-v1.6-mistral-7b",
    "liuhaotian--llava-v1.6-vicuna-13b",
}


def shrunk(raw: dict[str, Any], small: dict[str, Any]) -> dict[str, Any]:
    """A published object with the small checkpoint's sizes; a size that the small one lacks is
    left out."""
    multimodal = raw.keys() >= {"mm_vision_tower"}
    sizes = {k: small[k] for k in SIZES & small.keys() if multimodal or not k.startswith("mm_")}
    result = {k: v for k, v in raw.items() if k not in SIZES} | sizes
    for key, value in result.items():
        if key == "image_grid_pinpoints" and value is not None:
            result[key] = GRID
        elif isinstance(value, dict) and key in ("text_config", "vision_config"):
            result[key] = shrunk(value, small.get(key, {}))
    return result


def pixels(raw: dict[str, Any]) -> dict[str, Any]:
    """A published image processor's file for tiles of 56 pixels."""
    text = re.sub(r"\b336\b", "56", json.dumps(raw))
    result: dict[str, Any] = json.loads(text.replace("672", "112").replace("1008", "168"))
    return result


def over(published: Path, source: Path, out: Path, layout: str) -> Path:
    """The small checkpoint with a published set's JSON files over its own."""
    shutil.copytree(source, out)
    small = json.loads((out / "config.json").read_text())
    for file in published.glob("*.json"):
        raw = json.loads(file.read_text())
        if file.name == "config.json":
            (out / "config.json").write_text(json.dumps(shrunk(raw, small)))
        elif file.name == "config.keys-from-code.json":
            (out / "config.json").write_text(json.dumps(small | raw["set_by_code"]))
        elif file.name in ("preprocessor_config.json", "processor_config.json"):
            place = out if layout == HUB else out / "vision_tower"
            (place / file.name).write_text(json.dumps(pixels(raw)))
        elif not re.search(r"facts|keys|adapter_config|checkpoint-", file.name):
            (out / file.name).write_text(json.dumps(raw))
    return out


def test_every_published_set_has_an_expectation(shared: Path) -> None:
    assert {p.name for p in (shared / "configs").iterdir() if p.is_dir()} == SETS.keys() | EMPTY


@pytest.mark.parametrize("name", SETS)
def test_a_published_set_converts_or_is_refused_by_name(
    name: str, checkpoints: dict[str, Path], shared: Path, tmp_path: Path
) -> None:
    layout, words, packing = SETS[name]
    folder = over(shared / "configs" / name, checkpoints[layout], tmp_path / "set", layout)
    if words is not None:
        with pytest.raises(CheckpointError, match=words):
            read(folder)
        return
    config = read(folder)
    assert f"{config.merge} {config.aspect_ratio}" == packing
    assert config.layout == layout
    turned = tuple((h, w) for w, h in PINPOINTS)  # LlavaNext writes (height, width)
    assert config.pinpoints == (
        (turned if layout == HUB else PINPOINTS) if config.aspect_ratio == "anyres" else ()
    )
    assert config.mean == CLIP_MEAN
    assert (config.text.rope_theta, config.text.rope_scaling, config.vision_layers) == (
        10000.0,
        None,
        3,
    )
    assert tokenizer.read(folder, config).ends == (2,)
