"""config.json and the image processor's files: obeyed, inert, or refused by name."""

from __future__ import annotations

import fnmatch
import json
import re
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import tiny
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from export import llm, tokenizer
from export.checkpoint import Checkpoint
from export.config import Config, read_config
from export.hub.files import SMALL_FILES
from export.keys import KEYS
from pulse_edge.errors import CheckpointError

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
PINPOINTS = ((56, 112), (112, 56), (112, 112), (168, 56), (56, 168))
GRID = [list(point) for point in PINPOINTS]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small checkpoint in each layout."""
    root = tmp_path_factory.mktemp("config")
    return {
        "llava": tiny.checkpoint(root / "llava"),
        "llava_next": tiny.checkpoint(root / "hub", "--hub-names"),
    }


def lay(
    source: Path, out: Path, config: dict[str, Any], files: dict[str, Any] | None = None
) -> Path:
    """A copy with other values in config.json (`text_config` and `vision_config` are merged) and other files."""
    shutil.copytree(source, out)
    raw = json.loads((out / "config.json").read_text())
    for key, value in config.items():
        raw[key] = (
            raw[key] | value
            if isinstance(raw.get(key), dict) and isinstance(value, dict)
            else value
        )
    (out / "config.json").write_text(json.dumps(raw))
    for name, value in (files or {}).items():
        (out / name).write_text(json.dumps(value))
    return out


def read(folder: Path) -> Config:
    """The config, after everything that is refused before any work was."""
    config = read_config(folder / "config.json", tower_dir=None)
    Checkpoint(folder, config, tower_dir=None)
    tokenizer.read(folder, config)
    return config


# --- published sets -------------------------------------------------------------------------------

LLAVA, HUB = "llava", "llava_next"
# Set -> layout of the checkpoint below it, and the words of the refusal; None: it converts, with that packing.
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
}
SIZES |= {"head_dim", "vocab_size", "image_size", "patch_size", "mm_hidden_size", "mm_vision_tower"}
EMPTY = {
    "PULSE-ECG--PULSE-7B",
    "PULSE-ECG--PULSE-7B-unfreeze-vit",
    "liuhaotian--llava-v1.5-7b-lora",
}
EMPTY |= {"liuhaotian--llava-v1.6-mistral-7b", "liuhaotian--llava-v1.6-vicuna-13b"}


def shrunk(raw: dict[str, Any], small: dict[str, Any]) -> dict[str, Any]:
    """A published object with the small checkpoint's sizes; a size that the small one lacks is left out."""
    multimodal = raw.keys() >= {"mm_vision_tower"}
    sizes = {k: small[k] for k in SIZES & small.keys() if multimodal or not k.startswith("mm_")}
    made = {k: v for k, v in raw.items() if k not in SIZES} | sizes
    for key, value in made.items():
        if key == "image_grid_pinpoints" and value is not None:
            made[key] = GRID
        elif isinstance(value, dict) and key in ("text_config", "vision_config"):
            made[key] = shrunk(value, small.get(key, {}))
    return made


def pixels(raw: dict[str, Any]) -> dict[str, Any]:
    """A published image processor's file for tiles of 56 pixels."""
    text = re.sub(r"\b336\b", "56", json.dumps(raw))
    made: dict[str, Any] = json.loads(text.replace("672", "112").replace("1008", "168"))
    return made


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


# --- keys -----------------------------------------------------------------------------------------

PUBLISHED_KEYS: dict[str, dict[str, Any]] = {
    "llava-hf": {"ignore_index": -100, "vocab_size": 32064, "use_image_newline_parameter": True},
    "Unsloth": {"unsloth_version": "2025.1", "unsloth_fixed": True},
    "LLaVA-NeXT": {
        "mm_newline_position": "grid",
        "mm_spatial_pool_stride": 2,
        "mm_spatial_pool_mode": "bilinear",
        "mm_tunable_parts": "mm_mlp_adapter,mm_language_model",
        "pos_skipping_range": 4096,
        "use_pos_skipping": False,
        "vision_tower_pretrained": None,
        "add_faster_video": False,
        "faster_token_stride": 10,
        "force_sample": False,
        "add_time_instruction": False,
    },
    "LLaVA-Med": {
        "sep_image_conv_front": False,
        "max_sequence_length": 2048,
        "freeze_backbone": False,
    },
    "LLaVA-1.5": {
        "pretrain_mm_mlp_adapter": None,
        "hidden_dropout": 0.0,
        "max_length": 4096,
        "model_type": "llava",
    },
    "GEM without its tower": {
        "mm_ecg_tower": None,
        "ecg_projector_type": "linear",
        "ecg_projector_lr": None,
    },
}


@pytest.mark.parametrize("source", PUBLISHED_KEYS)
def test_keys_that_change_nothing_pass(
    source: str, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    layout = HUB if source == "llava-hf" else LLAVA
    before = read(checkpoints[layout])
    after = read(lay(checkpoints[layout], tmp_path / "source", PUBLISHED_KEYS[source]))
    assert after.text.to_dict() == before.text.to_dict()
    assert (after.mean, after.merge, after.pinpoints) == (
        before.mean,
        before.merge,
        before.pinpoints,
    )


@pytest.mark.parametrize(
    ("layout", "config", "words"),
    [
        (LLAVA, {"rms_norm_eps": "1e-05"}, "rms_norm_eps is '1e-05', expected a number above 0"),
        (LLAVA, {"rms_norm_eps": float("inf")}, "rms_norm_eps is inf, expected a number above 0"),
        (LLAVA, {"hidden_size": 256.0}, r"hidden_size is 256\.0, expected a whole number above 0"),
        (
            LLAVA,
            {"num_attention_heads": 0},
            "num_attention_heads is 0, expected a whole number above 0",
        ),
        (
            LLAVA,
            {"num_hidden_layers": True},
            "num_hidden_layers is True, expected a whole number above 0",
        ),
        (LLAVA, {"vocab_size": 2**40}, "expected a whole number above 0 and at most 2,147,483,647"),
        (LLAVA, {"bos_token_id": [1]}, r"bos_token_id is \[1\], expected a token id"),
        (
            LLAVA,
            {"eos_token_id": []},
            r"eos_token_id is \[\], expected a token id or a list of token ids",
        ),
        (
            LLAVA,
            {"eos_token_id": [2, None]},
            r"eos_token_id is \[2, None\], expected a token id or a list",
        ),
        (
            LLAVA,
            {"tie_word_embeddings": "no"},
            "tie_word_embeddings is 'no', expected true or false",
        ),
        (LLAVA, {"rope_scaling": "linear"}, "rope_scaling is 'linear', expected an object"),
        (
            LLAVA,
            {"mm_vision_select_layer": [-2, -5]},
            r"mm_vision_select_layer is \[-2, -5\], expected a whole number",
        ),
        (LLAVA, {"mm_vision_tower": 5}, "mm_vision_tower is 5, expected text"),
        (LLAVA, {"image_grid_pinpoints": 7}, "image_grid_pinpoints is 7, expected a list"),
        (
            LLAVA,
            {"image_grid_pinpoints": [[56.0, 112]]},
            r"image_grid_pinpoints is \[\[56\.0, 112\]\], expected",
        ),
        (
            HUB,
            {"text_config": {"rope_theta": None, "rms_norm_eps": None, "vocab_size": "400"}},
            "text_config.vocab_size is '400'",
        ),
        (
            HUB,
            {"vision_config": {"image_size": "56"}},
            "vision_config.image_size is '56', expected a whole number above 0",
        ),
        (HUB, {"text_config": [1]}, r"text_config is \[1\], expected an object"),
        (
            LLAVA,
            {"architectures": "LlavaLlamaForCausalLM"},
            "architectures is .*expected a list of texts",
        ),
    ],
)
def test_a_wrong_type_is_refused_with_key_value_and_expected_type(
    layout: str, config: dict[str, Any], words: str, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=words):
        read(lay(checkpoints[layout], tmp_path / "source", config))


@pytest.mark.parametrize(
    ("layout", "config", "words"),
    [
        (LLAVA, {"attention_bias": True}, "attention_bias is True"),
        (LLAVA, {"partial_rotary_factor": 0.5}, r"partial_rotary_factor is 0\.5"),
        (LLAVA, {"mm_use_im_start_end": True}, "mm_use_im_start_end is True"),
        (LLAVA, {"repetition_penalty": 1.1}, r"repetition_penalty is 1\.1"),
        (LLAVA, {"num_beams": 4}, "num_beams is 4"),
        (LLAVA, {"model_type": "llava_mistral"}, "model_type is 'llava_mistral'"),
        (LLAVA, {"mm_new_thing": 1}, r"mm_new_thing \(1\) is not known"),
        (
            LLAVA,
            {"rope_theta": 5e5, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
            "contradict one another",
        ),
        (LLAVA, {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_scaling is 'dynamic'"),
        (LLAVA, {"rope_scaling": {"type": "linear"}}, "rope_scaling lacks factor"),
        (
            LLAVA,
            {"rope_scaling": {"type": "linear", "rope_type": "yarn", "factor": 2.0}},
            "rope_scaling is 'linear'",
        ),
        (
            LLAVA,
            {"rope_scaling": {"type": "linear", "factor": 2.0, "surprise": 1}},
            r"rope_scaling\.surprise \(1\)",
        ),
        (
            LLAVA,
            {"rope_scaling": {"type": "yarn", "factor": 2.0, "beta_fast": "32"}},
            r"rope_scaling\.beta_fast is '32'",
        ),
        (HUB, {"multimodal_projector_bias": False}, "multimodal_projector_bias is False"),
        (
            HUB,
            {"vision_feature_select_strategy": "full"},
            "vision_feature_select_strategy is 'full'",
        ),
        (HUB, {"tie_word_embeddings": True}, "tie_word_embeddings is not what text_config"),
        (HUB, {"vision_config": {"num_channels": 1}}, r"vision_config\.num_channels is 1"),
    ],
)
def test_a_key_that_changes_something_is_refused_by_name(
    layout: str, config: dict[str, Any], words: str, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=words):
        read(lay(checkpoints[layout], tmp_path / "source", config))


def test_each_key_of_the_table_is_obeyed_inert_or_refused() -> None:
    for section in KEYS.values():
        for name, key in section.items():
            assert {"obeyed": bool(key.kind), "inert": not key.why, "refused": bool(key.why)}[
                key.use
            ], name
            assert key.use != "refused" or None in key.only


def test_absent_parts_of_a_llava_next_config_are_those_of_its_class(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    raw = json.loads((checkpoints[HUB] / "config.json").read_text())
    del raw["vision_config"], raw["image_grid_pinpoints"], raw["vision_feature_layer"]
    (tmp_path / "config.json").write_text(json.dumps(raw))
    config = read_config(tmp_path / "config.json", tower_dir=None)
    assert (config.vision.image_size, config.vision.hidden_size, config.vision_layers) == (
        336,
        1024,
        23,
    )
    assert config.pinpoints == (
        (672, 336),
        (336, 672),
        (672, 672),
        (336, 1008),
        (1008, 336),
    )  # (width, height)


def test_ids_that_end_an_answer_are_collected_from_both_levels(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    source = lay(
        checkpoints[HUB],
        tmp_path / "source",
        {"eos_token_id": 5, "text_config": {"eos_token_id": [2, 7]}},
    )
    assert read(source).eos == (2, 7, 5)


# --- rotary positions -----------------------------------------------------------------------------

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

    Source: llama-context.cpp (yarn_attn_factor) and ggml's rope_yarn; its llama has no keys for YaRN's betas.
    """
    reader = gguf.GGUFReader(path)

    def field(name: str, default: Any) -> Any:
        found = reader.fields.get(f"llama.rope.{name}")
        return default if found is None else found.contents()

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
def test_yarn_is_written_so_that_llama_cpp_computes_what_transformers_does(
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


def test_rope_parameters_say_what_two_keys_said_before(
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


# --- pixels ---------------------------------------------------------------------------------------

OTHER = {"image_mean": [0.9, 0.8, 0.7], "image_std": [0.2, 0.3, 0.4]}
RIGHT = {
    "resample": 3,
    "do_normalize": True,
    "do_resize": True,
    "size": {"shortest_edge": 56},
    "crop_size": 56,
}
FIRST, SECOND = "preprocessor_config.json", "processor_config.json"


@pytest.mark.parametrize(
    "files",
    [
        {FIRST: OTHER | RIGHT},
        {
            SECOND: {
                "image_processor": OTHER | RIGHT,
                "processor_class": "LlavaNextProcessor",
                "patch_size": 14,
            }
        },
        {FIRST: {"image_processor": OTHER}},
        {FIRST: OTHER, SECOND: {"image_processor": OTHER | RIGHT}},
        {FIRST: OTHER | {"size": {"height": 56, "width": 56}, "do_resize": False, "do_pad": False}},
        {
            FIRST: OTHER
            | {"image_grid_pinpoints": GRID, "image_processor_type": "LlavaNextImageProcessorFast"}
        },
    ],
)
def test_means_and_deviations_come_from_the_image_processors_files(
    files: dict[str, Any], checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    config = read(lay(checkpoints[HUB], tmp_path / "source", {}, files))
    assert (config.mean, config.std) == ((0.9, 0.8, 0.7), (0.2, 0.3, 0.4))
    assert {path.name for path in config.files} == {"config.json", *files}


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({FIRST: {"do_normalize": False}}, f"{FIRST}: do_normalize is False"),
        ({SECOND: {"image_processor": {"do_rescale": False}}}, f"{SECOND}: do_rescale is False"),
        (
            {FIRST: {"size": {"shortest_edge": 224}}},
            r"size is .*224.*, the vision tower's image_size 56",
        ),
        (
            {FIRST: {"crop_size": {"height": 56, "width": 28}}},
            "crop_size is .*, the vision tower's image_size 56",
        ),
        ({FIRST: {"resample": 2}}, "resample is 2 .*bicubic"),
        ({FIRST: {"rescale_factor": 1.0}}, r"rescale_factor is 1\.0, expected 1/255"),
        (
            {FIRST: {"image_mean": [0.5, 0.5]}},
            r"image_mean is \[0\.5, 0\.5\], expected three numbers",
        ),
        (
            {FIRST: {"image_std": [0.5, 0.5, 0.0]}},
            "image_std is .*, expected three numbers above 0",
        ),
        (
            {FIRST: {"image_processor_type": "SiglipImageProcessor"}},
            "image_processor_type is 'SiglipImageProcessor'",
        ),
        (
            {FIRST: {"image_grid_pinpoints": [[56, 112]]}},
            r"image_grid_pinpoints is \[\[56, 112\]\], config\.json says",
        ),
        ({FIRST: {"do_thumbnail": True}}, r"do_thumbnail \(True\) is not known"),
        ({SECOND: {"patch_size": 16}}, "patch_size is 16, the tower's 14"),
        (
            {SECOND: {"vision_feature_select_strategy": "full"}},
            "vision_feature_select_strategy is 'full'",
        ),
        ({FIRST: OTHER, SECOND: {"image_processor": RIGHT}}, "give different means or deviations"),
    ],
)
def test_pixels_that_the_runtime_cannot_make_are_refused(
    files: dict[str, Any], words: str, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=words) as refusal:
        read(lay(checkpoints[HUB], tmp_path / "source", {}, files))
    assert not str(refusal.value).startswith(str(tmp_path / "source" / "config.json"))


@pytest.mark.parametrize(
    ("aspect", "settings", "refused"),
    [
        ("anyres", {"do_resize": False, "do_center_crop": False}, None),
        ("pad", {"do_center_crop": False}, None),
        ("pad", {"do_resize": False}, "do_resize is False, and image_aspect_ratio pad needs it"),
        (
            "square",
            {"do_center_crop": False},
            "do_center_crop is False, and image_aspect_ratio square needs it",
        ),
        ("square", {"size": {"height": 56, "width": 56}}, "size is"),
    ],
)
def test_switches_count_where_tiles_are_not_cut_to_size(
    aspect: str,
    settings: dict[str, Any],
    refused: str | None,
    checkpoints: dict[str, Path],
    tmp_path: Path,
) -> None:
    files = {f"vision_tower/{FIRST}": settings}  # LLaVA reads the tower's own file
    source = lay(checkpoints[LLAVA], tmp_path / "source", {"image_aspect_ratio": aspect}, files)
    if refused is None:
        assert read(source).aspect_ratio == aspect
    else:
        with pytest.raises(CheckpointError, match=refused):
            read(source)


# --- files ----------------------------------------------------------------------------------------


def test_every_file_that_is_read_is_fetched(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    files = {
        FIRST: RIGHT,
        SECOND: {"image_processor": RIGHT},
        "added_tokens.json": {"<image>": 999},
    }
    source = lay(checkpoints[HUB], tmp_path / "source", {}, files)
    shutil.rmtree(source / "vision_tower")
    config = read_config(source / "config.json", tower_dir=None)
    used = {path.name for path in (*config.files, *tokenizer.read(source, config).files)}
    assert used == {path.name for path in source.iterdir() if "safetensors" not in path.name}
    assert all(any(fnmatch.fnmatchcase(name, pattern) for pattern in SMALL_FILES) for name in used)


@pytest.mark.parametrize(
    ("text", "words"),
    [('{"a":' * 100_000, "nested too deeply"), ("{", "not JSON"), ("[]", "JSON object")],
)
def test_a_file_that_is_no_json_object_is_refused_in_plain_words(
    text: str, words: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=words) as refusal:
        read_config(tmp_path / "config.json", tower_dir=None)
    assert "recursion" not in str(refusal.value)
