"""Read config.json into one form for all layouts; refuse what cannot be converted.

There are two layouts: the original LLaVA one (`LlavaLlamaForCausalLM`: one flat config) and
transformers' `LlavaNext` (text_config, vision_config). Absent fields have the defaults of the
classes that would load the checkpoint. export/keys.py says what is done with each key.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from transformers import CLIPVisionConfig, LlamaConfig
from transformers.activations import ACT2FN

from export import preprocessing
from export.keys import KEYS, check, grid_of, shown
from export.keys import read_json as read_json
from pulse_edge.errors import CheckpointError
from pulse_edge.kit.manifest import Aspect, Merge

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

_ORIGINAL = ("LlavaLlamaForCausalLM", "LlavaLLaMAForCausalLM")
_PLAIN = "LlamaForCausalLM"
"""Architecture in a folder that LLaVA's trainer wrote for a Vicuna: the base's name stays in its
config.json."""
_HUB = ("LlavaNextForConditionalGeneration",)
_MODEL_TYPES = {"llava": ("llama", "llava", "llava_llama"), "llava_next": ("llava_next",)}
_PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
"""Grids of a LlavaNextConfig that states none."""
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
    """Name or folder of the vision tower as the config gives it; empty if it gives none."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    aspect_ratio: Aspect
    merge: Merge
    merge_from: str
    """Where `merge` comes from, for the manifest."""
    pinpoints: tuple[tuple[int, int], ...]
    bos: int | None
    """bos_token_id of config.json; None if it states none."""
    eos: tuple[int, ...]
    """Every eos_token_id that config.json states, the text model's first."""
    pad: int | None
    files: tuple[Path, ...]
    """The JSON files that were read."""

    @property
    def patches_per_side(self) -> int:
        """Patches along the side of one tile."""
        return int(self.vision.image_size) // int(self.vision.patch_size)

    @property
    def head_dim(self) -> int:
        """Width of one attention head of the language model."""
        return int(
            getattr(self.text, "head_dim", None)
            or self.text.hidden_size // self.text.num_attention_heads
        )


def read_config(path: Path, *, tower_dir: Path | None, merge: Merge | None = None) -> Config:
    """Read the configuration of the checkpoint whose config.json is at `path`.

    `merge` overrides the packing; `tower_dir` replaces the vision tower that the config names.
    Raises CheckpointError that names everything that the config asks for and that cannot be
    converted.
    """
    raw = read_json(path)
    architecture = _architecture(raw, path)
    hub = architecture in _HUB
    wrong: list[str] = []
    parts = _checked_parts(raw, hub, wrong)
    _refuse_mistyped(path, wrong)
    tower = "" if hub else str(raw.get("mm_vision_tower") or raw.get("vision_tower") or "")
    folder = tower_dir or _tower_folder(path.parent, tower)
    vision, tower_file = _vision(
        raw.get("vision_config") or {} if hub else None, tower, folder, path, wrong
    )
    _refuse_mistyped(path, wrong)
    text = _text(parts[0], wrong)
    _consistent(raw, hub, text, vision, wrong)
    layers = _layers(
        raw.get("vision_feature_layer" if hub else "mm_vision_select_layer"), vision, wrong
    )
    aspect = _one_of(
        raw, "image_aspect_ratio", "anyres" if hub else "square", ("anyres", "pad", "square"), wrong
    )
    packing, merge_from = _merge(raw, hub, merge, wrong)
    stated = raw.get("image_grid_pinpoints")
    pinpoints = _pinpoints(
        _PINPOINTS if stated is None and hub else stated, int(vision.image_size), aspect, wrong
    )
    unfit: list[str] = []
    pixels = preprocessing.read(
        path.parent if hub else folder, hub, vision, aspect, pinpoints, unfit
    )
    if hub:
        pinpoints = tuple(
            (w, h) for h, w in pinpoints
        )  # LLaVA writes (width, height), LlavaNext (height, width)
    # Each of `unfit` names its file itself.
    _refuse(path if wrong else path.parent if hub else folder, wrong + unfit)
    return Config(
        architecture=architecture,
        layout="llava_next" if hub else "llava",
        text=text,
        vision=vision,
        vision_layers=layers,
        tower=tower,
        mean=pixels.mean,
        std=pixels.std,
        aspect_ratio=aspect,  # type: ignore[arg-type]
        merge=packing,  # type: ignore[arg-type]
        merge_from=merge_from,
        pinpoints=pinpoints,
        bos=_first(parts, "bos_token_id"),
        eos=tuple(dict.fromkeys(i for part in parts for i in token_ids(part.get("eos_token_id")))),
        pad=_first(parts[::-1], "pad_token_id"),
        files=(path, *tower_file, *pixels.files),
    )


def _checked_parts(raw: dict[str, Any], hub: bool, wrong: list[str]) -> list[dict[str, Any]]:
    """Check the keys, and return the objects that describe the language model, the nearer first."""
    sections = (
        ("llava_next", "generation", "any") if hub else ("llava", "text", "generation", "any")
    )
    check(raw, sections, wrong)
    if not hub:
        return [raw]
    text = raw.get("text_config") or {}
    if isinstance(text, dict):
        check(text, ("text", "generation", "any"), wrong, where="text_config.")
    return [text, raw]


def token_ids(value: Any) -> list[int]:
    """Return eos_token_id as a list: it may be one id, several, or null."""
    return [] if value is None else value if isinstance(value, list) else [value]


def _first(parts: list[dict[str, Any]], key: str) -> int | None:
    return next((part[key] for part in parts if part.get(key) is not None), None)


def _architecture(raw: dict[str, Any], path: Path) -> str:
    named = raw.get("architectures")
    architecture = str(named[0]) if isinstance(named, list) and named else str(named)
    if architecture in _ORIGINAL + _HUB:
        return architecture
    if architecture == _PLAIN and raw.get("mm_vision_tower"):
        return architecture
    alone = " It is a language model alone: name the folder that LLaVA's training made of it." * (
        architecture == _PLAIN
    )
    raise CheckpointError(
        f"{path}: architecture {architecture[:80]!r}, expected one of "
        f"{', '.join(_ORIGINAL[:1] + _HUB)}. This is not a PULSE (LLaVA-1.6) checkpoint.{alone}"
    )


def _refuse(path: Path | None, wrong: list[str]) -> None:
    if wrong:
        raise CheckpointError(f"{path}: cannot be converted: {'; '.join(wrong)}.")


def _refuse_mistyped(path: Path, wrong: list[str]) -> None:
    """Raise CheckpointError where values have types that the rest of the reading cannot use."""
    if any("expected " in line for line in wrong):
        _refuse(path, wrong)


def _tower_folder(checkpoint: Path, tower: str) -> Path | None:
    """Return the folder of the tower that the config names, if there is one.

    It lies in the checkpoint or elsewhere on this machine.
    """
    for folder in (checkpoint / tower, Path(tower)):
        if tower and (folder / "config.json").is_file():
            return folder
    return None


def _text(raw: dict[str, Any], wrong: list[str]) -> LlamaConfig:
    """Read the language model's part, whose values have the right types."""
    fields = {
        k: raw[k]
        for k, key in KEYS["text"].items()
        if key.use == "obeyed" and raw.get(k) is not None
    }
    fields.pop("rope_parameters", None)
    fields["rope_theta"], fields["rope_scaling"] = _rope(raw, wrong)
    if "bos_token_id" in raw:
        fields["bos_token_id"] = raw["bos_token_id"]
    try:
        text = LlamaConfig(**fields)
        if (
            text.hidden_size % text.num_attention_heads
            or text.num_attention_heads % text.num_key_value_heads
        ):
            wrong.append(
                "hidden_size, num_attention_heads and num_key_value_heads do not divide one another"
            )
    except (TypeError, ValueError, KeyError) as e:
        raise CheckpointError(f"the language model's configuration is not valid: {e}.") from None
    return text


def _rope(raw: dict[str, Any], wrong: list[str]) -> tuple[float, dict[str, Any] | None]:
    """Return base and scaling of the rotary positions.

    transformers 5 writes rope_parameters where transformers 4 has two other keys.
    """
    objects = {
        k: _rope_object(k, raw[k], wrong) for k in ("rope_scaling", "rope_parameters") if raw.get(k)
    }
    bases = {v["rope_theta"] for v in objects.values() if "rope_theta" in v}
    bases |= {float(raw["rope_theta"])} if raw.get("rope_theta") is not None else set()
    scalings = [{k: v for k, v in o.items() if k != "rope_theta"} for o in objects.values()]
    if len(bases) > 1 or any(s != scalings[0] for s in scalings[1:]):
        given = {
            k: raw[k]
            for k in ("rope_theta", "rope_scaling", "rope_parameters")
            if raw.get(k) is not None
        }
        wrong.append(f"{' and '.join(given)} contradict one another ({shown(given)})")
    scaling = scalings[0] if scalings and scalings[0]["rope_type"] != "default" else None
    return next(iter(bases), 10000.0), scaling


def _rope_object(name: str, raw: dict[str, Any], wrong: list[str]) -> dict[str, Any]:
    """Return rope_type and the keys that count for it.

    Numbers get the types that transformers expects.
    """
    kind = raw.get("rope_type") or raw.get("type") or "default"
    if kind not in _ROPE or raw.get("type") not in (None, kind):
        wrong.append(f"{name} is {shown(raw.get('type') or kind)} (known: {', '.join(_ROPE)})")
        kind = "default"
    sections = ("rope", f"rope: {kind}") if f"rope: {kind}" in KEYS else ("rope",)
    problems: list[str] = []
    check(raw, sections, problems, where=f"{name}.")
    needed = {"linear": ["factor"], "yarn": ["factor"]}.get(kind, [])
    if kind == "llama3":
        needed = [
            "factor",
            "low_freq_factor",
            "high_freq_factor",
            "original_max_position_embeddings",
        ]
    problems += [f"{name} lacks {k}" for k in needed if raw.get(k) is None]
    if kind == "llama3" and not problems and raw["high_freq_factor"] <= raw["low_freq_factor"]:
        problems.append(f"{name}.high_freq_factor is not above low_freq_factor")
    wrong += problems
    if problems:
        return {"rope_type": "default"}
    counts = {k for s in sections for k, key in KEYS[s].items() if key.use == "obeyed"} - {
        "rope_type",
        "type",
    }
    if kind in ("default", "linear"):
        counts &= {"rope_theta", *needed}
    values = {k: raw[k] for k in sorted(counts) if raw.get(k) is not None}
    whole = ("original_max_position_embeddings", "truncate")
    return {"rope_type": kind} | {k: v if k in whole else float(v) for k, v in values.items()}


def _vision(
    raw: dict[str, Any] | None, tower: str, folder: Path | None, path: Path, wrong: list[str]
) -> tuple[CLIPVisionConfig, list[Path]]:
    """Return the tower's configuration, and its file if that is not config.json."""
    files, where = [], "vision_config."
    if raw is None and folder is not None:
        files.append(folder / "config.json")
        where = f"{folder.name}/config.json: "
        whole = read_json(files[0])
        raw = whole.get("vision_config", whole)
        # CLIPConfig lets this older key win.
        if isinstance(raw, dict) and isinstance(whole.get("vision_config_dict"), dict):
            raw = raw | whole["vision_config_dict"]
    if raw is None:
        raw = BUILT_IN_TOWERS.get(tower)
    elif raw == {} and not files:  # a LlavaNextConfig that states none
        raw = BUILT_IN_TOWERS["openai/clip-vit-large-patch14-336"]
    if raw is None:
        raise CheckpointError(
            f"{path}: vision tower {tower!r} is neither built in nor a folder with config.json. "
            "Give its folder with --vision-tower."
        )
    if not isinstance(raw, dict):
        raise CheckpointError(
            f"{files[0]}: vision_config is {shown(raw)}, expected an object. Fetch the tower again."
        )
    if raw.get("model_type", "clip_vision_model") not in ("clip_vision_model", "clip"):
        raise CheckpointError(
            f"{path}: vision tower of type {raw['model_type']!r}, expected a CLIP vision model."
        )
    problems: list[str] = []
    check(raw, ("vision", "generation", "any"), problems, where=where)
    if raw.get("hidden_act") is not None and raw["hidden_act"] not in ACT2FN and not problems:
        problems.append(
            f"{where}hidden_act is {shown(raw['hidden_act'])}, which transformers does not know"
        )
    wrong += problems
    obeyed = [k for k, key in KEYS["vision"].items() if key.use == "obeyed"]
    fields = {} if problems else {k: raw[k] for k in obeyed if raw.get(k) is not None}
    vision = CLIPVisionConfig(**fields)
    if vision.hidden_size % vision.num_attention_heads or vision.image_size < vision.patch_size:
        wrong.append(
            f"{where}hidden_size, num_attention_heads, image_size and patch_size do not fit one "
            "another"
        )
    return vision, files


def _consistent(
    raw: dict[str, Any], hub: bool, text: LlamaConfig, vision: CLIPVisionConfig, wrong: list[str]
) -> None:
    """Report keys that contradict one another, and keys whose absence asks for something else."""
    types = _MODEL_TYPES["llava_next" if hub else "llava"]
    if raw.get("model_type", types[0]) not in types:
        wrong.append(f"model_type is {shown(raw['model_type'])}, expected {' or '.join(types)}")
    if hub:
        kind = (raw.get("text_config") or {}).get("model_type", "llama")
        if kind != "llama":
            wrong.append(f"the language model is of type {kind!r}, expected 'llama'")
        if raw.get("tie_word_embeddings") not in (None, text.tie_word_embeddings):
            wrong.append("tie_word_embeddings is not what text_config.tie_word_embeddings says")
        return
    if "mm_projector_type" not in raw:
        wrong.append("mm_projector_type is absent, which means 'linear'; expected 'mlp2x_gelu'")
    if raw.get("mm_hidden_size") not in (None, vision.hidden_size):
        wrong.append(
            f"mm_hidden_size is {raw['mm_hidden_size']}, the tower's hidden_size "
            f"{vision.hidden_size}"
        )


def _layers(select: int | None, vision: CLIPVisionConfig, wrong: list[str]) -> int:
    """Return the number of layers that hidden_states[select] needs.

    hidden_states has one entry more than there are layers.
    """
    total, select = int(vision.num_hidden_layers), -2 if select is None else select
    if not -total - 1 <= select <= total:
        wrong.append(f"the selected vision layer is {select!r}")
        return total
    return select if select >= 0 else total + 1 + select


def _one_of(
    raw: dict[str, Any], key: str, default: str, allowed: tuple[str, ...], wrong: list[str]
) -> str:
    value = raw.get(key) or default
    if value not in allowed:
        wrong.append(f"{key} is {value!r} (known: {', '.join(allowed)})")
    return str(value)


def _merge(
    raw: dict[str, Any], hub: bool, override: Merge | None, wrong: list[str]
) -> tuple[str, str]:
    """Return the packing and where it comes from.

    LLaVA's default is flat; transformers' LlavaNext class always unpads.
    """
    if override is not None:
        return override, "--merge"
    if raw.get("mm_patch_merge_type") is not None:
        allowed = ("flat", "spatial", "spatial_unpad")
        return _one_of(
            raw, "mm_patch_merge_type", "", allowed, wrong
        ), "config.json: mm_patch_merge_type"
    if hub:
        return (
            "spatial_unpad",
            "mm_patch_merge_type absent: what LlavaNextForConditionalGeneration does",
        )
    return "flat", "mm_patch_merge_type absent: LLaVA's default"


def _pinpoints(value: Any, size: int, aspect: str, wrong: list[str]) -> tuple[tuple[int, int], ...]:
    """Return grid sizes (width, height) in pixels, from a list or from LLaVA's string."""
    if aspect != "anyres":
        return ()
    grid = grid_of(value)
    if not grid or any(w < size or h < size or w % size or h % size for w, h in grid):
        wrong.append(
            f"image_grid_pinpoints is {shown(value)}, expected [[width, height], ...] in multiples "
            f"of {size}"
        )
        return ()
    return grid
