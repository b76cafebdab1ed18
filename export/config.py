"""config.json -> Config: what a checkpoint is, in one form for all layouts; whatever cannot be converted is refused.

Two layouts: the original LLaVA one (`LlavaLlamaForCausalLM`: one flat config) and transformers' `LlavaNext` (text_config,
vision_config). Absent fields have the defaults of the classes that would load the checkpoint.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from transformers import CLIPVisionConfig, LlamaConfig, PretrainedConfig

from pulse_edge.errors import CheckpointError
from pulse_edge.kit import Aspect, Merge

BUILT_IN_TOWERS: dict[str, dict[str, Any]] = {
    # PULSE-7B carries only this name, no folder. Source: the tower's own config.json on the hub.
    "openai/clip-vit-large-patch14-336": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 336,
        "patch_size": 14,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
        "projection_dim": 768,
    }
}
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

_LARGEST_JSON = 64 << 20
"""Bytes; the largest of a published checkpoint is its tokenizer.json, below 20 MB."""
_ORIGINAL = ("LlavaLlamaForCausalLM", "LlavaLLaMAForCausalLM")
_HUB = ("LlavaNextForConditionalGeneration",)

# What the model was trained with, or for which nothing has to be done.
_INERT_LLAVA = frozenset(
    [
        "freeze_mm_mlp_adapter",
        "freeze_mm_vision_resampler",
        "image_crop_resolution",
        "image_split_resolution",
        "mm_projector_lr",
        "mm_vision_tower_lr",
        "tune_mm_mlp_adapter",
        "tune_mm_vision_resampler",
        "unfreeze_mm_vision_tower",
        "use_mm_proj",
        "tokenizer_model_max_length",
        "tokenizer_padding_side",
        "mm_vision_tower",
        "mm_hidden_size",
        "mm_patch_merge_type",
        "image_aspect_ratio",
        "image_grid_pinpoints",
        "mm_vision_select_layer",
        "lora_alpha",
        "lora_enable",
        "rope_parameters",
    ]
)
_INERT_HUB = frozenset(
    [
        "text_config",
        "vision_config",
        "image_grid_pinpoints",
        "image_token_index",
        "image_token_id",
        "image_seq_length",
        "vision_feature_layer",
        "mm_patch_merge_type",
        "image_aspect_ratio",
    ]
)
# Key -> values that mean "nothing special": anything else asks for something that the kit cannot do.
_ONLY_LLAVA: dict[str, tuple[Any, ...]] = {
    "mm_projector_type": ("mlp2x_gelu",),
    "mm_vision_select_feature": ("patch",),
    "mm_resampler_type": (None,),
    "mm_use_im_start_end": (False, None),
    "mm_use_im_patch_token": (False, None),
    "s2": (False, None),
}
_ONLY_HUB: dict[str, tuple[Any, ...]] = {
    "projector_hidden_act": ("gelu",),
    "vision_feature_select_strategy": ("default",),
    "multimodal_projector_bias": (True, None),
    "use_image_newline_parameter": (True, None),
}
_ONLY_TEXT: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "attention_bias": (False, None),
    "mlp_bias": (False, None),
    "quantization_config": (None,),
    "sliding_window": (None,),
}
_MODEL_TYPES = ("llama", "llava", "llava_llama", "llava_next")
_ROPE = ("default", "linear", "yarn", "llama3")


@dataclass(frozen=True)
class Config:
    """A checkpoint's configuration."""

    architecture: str
    layout: Literal["llava", "llava_next"]
    text: LlamaConfig
    vision: CLIPVisionConfig
    vision_layers: int
    """Encoder layers up to the selected hidden state; later ones are not converted."""
    tower: str
    """Name or folder of the vision tower as the config gives it; empty where there is none."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    aspect_ratio: Aspect
    merge: Merge
    merge_from: str
    """Where `merge` comes from, for the manifest."""
    pinpoints: tuple[tuple[int, int], ...]

    @property
    def patches_per_side(self) -> int:
        """Of one tile."""
        return int(self.vision.image_size) // int(self.vision.patch_size)

    @property
    def head_dim(self) -> int:
        """Width of one attention head of the language model."""
        return int(getattr(self.text, "head_dim", None) or self.text.hidden_size // self.text.num_attention_heads)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises CheckpointError."""
    try:
        if path.stat().st_size > _LARGEST_JSON:
            raise CheckpointError(f"{path}: larger than {_LARGEST_JSON >> 20} MiB. Fetch the checkpoint again.")
        value = json.loads(path.read_text("utf-8"))
    except OSError as e:
        raise CheckpointError(f"{path}: cannot be read ({e.strerror}). Name a checkpoint directory.") from None
    except (ValueError, RecursionError) as e:
        raise CheckpointError(f"{path}: not JSON ({e}). Fetch the checkpoint again.") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: not a JSON object. Fetch the checkpoint again.")
    return value


def read_config(path: Path, *, tower_dir: Path | None, merge: Merge | None = None) -> Config:
    """Config of the checkpoint whose config.json is at `path`; `merge` overrides the packing.

    `tower_dir` replaces the vision tower that the config names. Raises CheckpointError with everything that the config
    asks for and that cannot be converted, each by name.
    """
    raw = read_json(path)
    named = raw.get("architectures") or [None]
    architecture = str(named[0])
    if architecture not in _ORIGINAL + _HUB:
        raise CheckpointError(
            f"{path}: architecture {architecture[:80]!r}, expected one of {', '.join(_ORIGINAL[:1] + _HUB)}. "
            "This is not a PULSE (LLaVA-1.6) checkpoint."
        )
    wrong: list[str] = []
    hub = architecture in _HUB
    tower = "" if hub else str(raw.get("mm_vision_tower") or raw.get("vision_tower") or "")
    folder = tower_dir or _tower_folder(path.parent, tower)
    text = _text(raw.get("text_config") or {} if hub else raw, wrong)
    vision = _vision(raw.get("vision_config") if hub else None, tower, folder, path)
    _refuse(raw, hub, wrong)
    layers = _layers(raw.get("vision_feature_layer" if hub else "mm_vision_select_layer", -2), vision, wrong)
    aspect = _one_of(raw, "image_aspect_ratio", "anyres" if hub else "square", ("anyres", "pad", "square"), wrong)
    packing, merge_from = _merge(raw, hub, merge, wrong)
    pinpoints = _pinpoints(raw.get("image_grid_pinpoints"), int(vision.image_size), aspect, wrong)
    if not hub and raw.get("mm_hidden_size", vision.hidden_size) != vision.hidden_size:
        wrong.append(f"mm_hidden_size is {raw['mm_hidden_size']}, the tower's hidden_size {vision.hidden_size}")
    if wrong:
        raise CheckpointError(f"{path}: cannot be converted: {'; '.join(wrong)}.")
    mean, std = _preprocessor(path.parent if hub else folder, wrong_in=path)
    return Config(
        architecture=architecture,
        layout="llava_next" if hub else "llava",
        text=text,
        vision=vision,
        vision_layers=layers,
        tower=tower,
        mean=mean,
        std=std,
        aspect_ratio=aspect,  # type: ignore[arg-type]
        merge=packing,  # type: ignore[arg-type]
        merge_from=merge_from,
        pinpoints=pinpoints,
    )


def _tower_folder(checkpoint: Path, tower: str) -> Path | None:
    """The tower's folder where the config names one, beside the checkpoint or anywhere on this machine."""
    for folder in (checkpoint / tower, Path(tower)):
        if tower and (folder / "config.json").is_file():
            return folder
    return None


def _text(raw: dict[str, Any], wrong: list[str]) -> LlamaConfig:
    """The language model's part. transformers 5 writes rope_parameters where 4 has rope_theta and rope_scaling."""
    raw = dict(raw)
    if raw.get("model_type", "llama") not in _MODEL_TYPES:
        wrong.append(f"the language model is of type {raw['model_type']!r}, expected 'llama'")
    if rope := raw.pop("rope_parameters", None):
        rope = dict(rope)
        raw["rope_theta"] = rope.pop("rope_theta", 10000.0)
        raw["rope_scaling"] = rope if rope.get("rope_type", "default") != "default" else None
    for key, allowed in _ONLY_TEXT.items():
        if key in raw and raw[key] not in allowed:
            wrong.append(f"{key} is {raw[key]!r}")
    scaling = raw.get("rope_scaling")
    if scaling is not None:
        kind = scaling.get("rope_type", scaling.get("type")) if isinstance(scaling, dict) else scaling
        if kind not in _ROPE:
            wrong.append(f"rope_scaling is {kind!r} (known: {', '.join(_ROPE)})")
            raw["rope_scaling"] = None
    known = LlamaConfig().to_dict()
    try:
        text = LlamaConfig(**{k: v for k, v in raw.items() if k in known and k != "model_type"})
        if text.hidden_size % text.num_attention_heads or text.num_attention_heads % text.num_key_value_heads:
            wrong.append("hidden_size, num_attention_heads and num_key_value_heads do not divide one another")
    except (TypeError, ValueError, KeyError, ZeroDivisionError) as e:
        raise CheckpointError(f"the language model's configuration is not valid: {e}.") from None
    return text


def _vision(raw: dict[str, Any] | None, tower: str, folder: Path | None, path: Path) -> CLIPVisionConfig:
    if raw is None and folder is not None:
        raw = read_json(folder / "config.json")
        raw = raw.get("vision_config", raw)
    if raw is None:
        raw = BUILT_IN_TOWERS.get(tower)
    if raw is None:
        raise CheckpointError(
            f"{path}: vision tower {tower!r} is neither built in nor a folder with config.json. Give its folder with "
            "--vision-tower."
        )
    if raw.get("model_type", "clip_vision_model") not in ("clip_vision_model", "clip"):
        raise CheckpointError(f"{path}: vision tower of type {raw['model_type']!r}, expected a CLIP vision model.")
    known = CLIPVisionConfig().to_dict()
    return CLIPVisionConfig(**{k: v for k, v in raw.items() if k in known and k != "model_type"})


def _refuse(raw: dict[str, Any], hub: bool, wrong: list[str]) -> None:
    """Keys with values, or altogether unknown ones, that ask for what the kit cannot do."""
    only = _ONLY_HUB if hub else _ONLY_LLAVA
    generic = PretrainedConfig().to_dict().keys() | {"torch_dtype", "dtype", "transformers_version", "_name_or_path"}
    known = generic | only.keys() | (_INERT_HUB if hub else _INERT_LLAVA | LlamaConfig().to_dict().keys())
    known |= _ONLY_TEXT.keys() | {"architectures", "model_type", "pretraining_tp", "vision_tower"}
    for key, value in raw.items():
        if key in only and value not in only[key]:
            wrong.append(f"{key} is {value!r}")
        elif key not in known and not key.startswith("_"):
            wrong.append(f"{key} ({value!r}) is not known")
    if not hub and "mm_projector_type" not in raw:
        wrong.append("mm_projector_type is absent, which means 'linear'; expected 'mlp2x_gelu'")


def _layers(select: Any, vision: CLIPVisionConfig, wrong: list[str]) -> int:
    """Layers that hidden_states[select] needs: hidden_states has one entry more than there are layers."""
    total = int(vision.num_hidden_layers)
    if not isinstance(select, int) or isinstance(select, bool) or not -total - 1 <= select <= total:
        wrong.append(f"the selected vision layer is {select!r}")
        return total
    return select if select >= 0 else total + 1 + select


def _one_of(raw: dict[str, Any], key: str, default: str, allowed: tuple[str, ...], wrong: list[str]) -> str:
    value = raw.get(key) or default
    if value not in allowed:
        wrong.append(f"{key} is {value!r} (known: {', '.join(allowed)})")
    return str(value)


def _merge(raw: dict[str, Any], hub: bool, override: Merge | None, wrong: list[str]) -> tuple[str, str]:
    """The packing and where it comes from. LLaVA's default is flat; transformers' LlavaNext class always unpads."""
    if override is not None:
        return override, "--merge"
    if raw.get("mm_patch_merge_type") is not None:
        allowed = ("flat", "spatial", "spatial_unpad")
        return _one_of(raw, "mm_patch_merge_type", "", allowed, wrong), "config.json: mm_patch_merge_type"
    if hub:
        return "spatial_unpad", "mm_patch_merge_type absent: what LlavaNextForConditionalGeneration does"
    return "flat", "mm_patch_merge_type absent: LLaVA's default"


def _pinpoints(value: Any, size: int, aspect: str, wrong: list[str]) -> tuple[tuple[int, int], ...]:
    """Grid sizes (width, height) in pixels, from a list or from LLaVA's string."""
    if aspect != "anyres":
        return ()
    try:
        points = _pairs(value) if isinstance(value, str) else value
        grid = tuple((int(w), int(h)) for w, h in points)
        if not grid or any(w < size or h < size or w % size or h % size for w, h in grid):
            raise ValueError
    except (ValueError, TypeError, OverflowError):
        wrong.append(
            f"image_grid_pinpoints is {repr(value)[:100]}, expected [[width, height], ...] in multiples of {size}"
        )
        return ()
    return grid


def _pairs(text: str) -> list[tuple[str, str]]:
    """LLaVA's string of pairs; ValueError for anything but numbers, brackets and commas.

    Not ast.literal_eval: a long enough expression ends Python's parser for lack of memory or stack.
    """
    if not re.fullmatch(r"[\d\s,()\[\]]{1,4096}", text):
        raise ValueError
    return re.findall(r"[(\[]\s*(\d{1,9})\s*,\s*(\d{1,9})\s*,?\s*[)\]]", text)


def _preprocessor(folder: Path | None, wrong_in: Path) -> tuple[Any, Any]:
    """Mean and std per channel from preprocessor_config.json; CLIP's own where there is none."""
    path = None if folder is None else folder / "preprocessor_config.json"
    if path is None or not path.is_file():
        return CLIP_MEAN, CLIP_STD
    raw = read_json(path)
    raw = raw.get("image_processor", raw)
    mean, std = (tuple(raw.get(k) or d) for k, d in (("image_mean", CLIP_MEAN), ("image_std", CLIP_STD)))
    factor = raw.get("rescale_factor", 1 / 255)
    bicubic = raw.get("resample", 3) == 3
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0 or abs(factor - 1 / 255) > 1e-9 or not bicubic:
        raise CheckpointError(
            f"{path}: expected three means, three positive deviations, rescale_factor 1/255 and bicubic resampling "
            f"(for {wrong_in})."
        )
    return mean, std
