"""config.json and the image processor's files: obeyed, inert, or refused by name."""

from __future__ import annotations

import fnmatch
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from config_folders import HUB, LLAVA, lay, read

from export import tokenizer
from export.config import read_config
from export.hub.files import SMALL_FILES
from export.keys import KEYS
from pulse_edge.errors import CheckpointError

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


# --- files ----------------------------------------------------------------------------------------


def test_every_file_that_is_read_is_fetched(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    pixels = {
        "resample": 3,
        "do_normalize": True,
        "do_resize": True,
        "size": {"shortest_edge": 56},
        "crop_size": 56,
    }
    files = {
        "preprocessor_config.json": pixels,
        "processor_config.json": {"image_processor": pixels},
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
