"""What the conversion does with each key of a checkpoint's JSON files, in one table.

The kit follows an `obeyed` key. An `inert` key changes nothing for one page, one question and a
greedy answer. A `refused` key can be converted only with the listed values, because any other asks
for what a kit cannot do. A key of no section is refused by name: its effect has not been judged.

Sources: the configuration classes of transformers 4.37, 4.57 and 5.24 (LlamaConfig,
CLIPVisionConfig, LlavaNextConfig, GenerationConfig, the image processors' arguments), and what the
training scripts of LLaVA, LLaVA-NeXT, LLaVA-Med, GEM and Unsloth store in config.json.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pulse_edge.errors import CheckpointError

Use = Literal["obeyed", "inert", "refused"]
_LARGEST_JSON = 64 << 20
"""Largest JSON file in bytes; the largest of a published checkpoint is its tokenizer.json, below
20 MB."""
LARGEST = 2**31 - 1
"""Largest number of rows, layers or tokens: they are 32-bit in GGUF."""


@dataclass(frozen=True)
class Key:
    """What is done with one key."""

    use: Use
    kind: str = ""
    """Expected type of an obeyed key, in words; a name in KINDS."""
    only: tuple[Any, ...] = ()
    """Values of a refused key that ask for nothing."""
    why: str = ""
    """What another value would ask for, and the way out."""


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -LARGEST <= value <= LARGEST


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _token(value: Any) -> bool:
    return _whole(value) and bool(value >= 0)


def _three(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(map(_number, value))


KINDS: dict[str, Callable[[Any], bool]] = {
    "a whole number": _whole,
    "a whole number above 0": lambda v: _whole(v) and v > 0,
    "a number": _number,
    "a number above 0": lambda v: _number(v) and v > 0,
    "true or false": lambda v: isinstance(v, bool),
    "text": lambda v: isinstance(v, str),
    "a list of texts": lambda v: isinstance(v, list) and all(isinstance(x, str) for x in v),
    "a token id": _token,
    "a token id or a list of token ids": lambda v: (
        _token(v) or (isinstance(v, list) and bool(v) and all(map(_token, v)))
    ),
    "an object": lambda v: isinstance(v, dict),
    "a whole number or an object": lambda v: _whole(v) or isinstance(v, dict),
    "a list, or a list as text": lambda v: isinstance(v, list | str),
    "three numbers": _three,
    "three numbers above 0": lambda v: _three(v) and min(v) > 0,
    "text or an object with content": lambda v: (
        isinstance(v, str) or (isinstance(v, dict) and isinstance(v.get("content"), str))
    ),
}


def _obeyed(kind: str, names: str) -> dict[str, Key]:
    assert kind in KINDS
    return {name: Key("obeyed", kind) for name in names.split()}


def _inert(names: str) -> dict[str, Key]:
    return {name: Key("inert") for name in names.split()}


def _refused(names: str, *only: Any, why: str = "") -> dict[str, Key]:
    return {name: Key("refused", only=(*only, None), why=why) for name in names.split()}


KEYS: dict[str, dict[str, Key]] = {
    # Keys of any object that a transformers configuration class wrote.
    "any": {
        **_obeyed("text", "model_type"),
        **_obeyed("a list of texts", "architectures"),
        **_inert(
            "transformers_version torch_dtype dtype use_cache attn_implementation auto_map "
            "return_dict"
        ),
        **_inert(
            "output_hidden_states output_attentions torchscript use_bfloat16 tf_legacy_loss "
            "is_decoder"
        ),
        **_inert(
            "chunk_size_feed_forward cross_attention_hidden_size tie_encoder_decoder "
            "finetuning_task"
        ),
        **_inert("id2label label2id num_labels problem_type tokenizer_class prefix sep_token_id"),
        **_inert(
            "decoder_start_token_id task_specific_params initializer_range initializer_factor"
        ),
        **_inert(
            "gradient_checkpointing keys_to_ignore_at_inference unsloth_version unsloth_fixed"
        ),
        **_refused(
            "is_encoder_decoder add_cross_attention", False, why="a model with an encoder of text"
        ),
        **_refused("pruned_heads", {}, why="attention heads that are left out"),
        **_refused(
            "quantization_config",
            why="its weights are quantized; convert the checkpoint that they were made of",
        ),
    },
    # The language model: text_config, or the whole of an original LLaVA config.json.
    "text": {
        **_obeyed(
            "a whole number above 0", "vocab_size hidden_size intermediate_size num_hidden_layers"
        ),
        **_obeyed(
            "a whole number above 0",
            "num_attention_heads num_key_value_heads head_dim max_position_embeddings",
        ),
        **_obeyed("a number above 0", "rms_norm_eps rope_theta"),
        **_obeyed("an object", "rope_scaling rope_parameters"),
        **_obeyed("true or false", "tie_word_embeddings"),
        **_obeyed("a token id", "bos_token_id"),
        **_obeyed("a token id or a list of token ids", "eos_token_id"),
        **_obeyed("a whole number", "pad_token_id"),
        **_inert("attention_dropout hidden_dropout max_sequence_length max_window_layers"),
        **_inert("pretraining_tp"),  # another order of the same sums
        **_refused("hidden_act", "silu", why="another activation than Llama's"),
        **_refused(
            "attention_bias mlp_bias", False, why="biases that llama.cpp's llama has no place for"
        ),
        **_refused("sliding_window layer_types", why="attention to a part of the context only"),
        **_refused("use_sliding_window", False, why="attention to a part of the context only"),
        **_refused("partial_rotary_factor", 1.0, why="positions on a part of each head only"),
    },
    "rope": {
        **_obeyed("text", "rope_type type"),
        **_obeyed("a number above 0", "factor rope_theta"),
        **_obeyed("a whole number above 0", "original_max_position_embeddings"),
        **_refused("partial_rotary_factor", 1.0, why="positions on a part of each head only"),
    },
    "rope: yarn": {
        **_obeyed("a number above 0", "attention_factor beta_fast beta_slow"),
        **_obeyed("a number", "mscale mscale_all_dim"),
        **_obeyed("true or false", "truncate"),
    },
    "rope: llama3": _obeyed("a number above 0", "low_freq_factor high_freq_factor"),
    # A CLIP vision tower: vision_config, or the config.json of the tower's folder.
    "vision": {
        **_obeyed(
            "a whole number above 0",
            "hidden_size intermediate_size num_hidden_layers num_attention_heads",
        ),
        **_obeyed("a whole number above 0", "image_size patch_size"),
        **_obeyed("a number above 0", "layer_norm_eps"),
        **_obeyed("text", "hidden_act"),
        **_inert("projection_dim attention_dropout dropout vocab_size tie_word_embeddings"),
        **_inert("bos_token_id eos_token_id pad_token_id logit_scale_init_value"),
        **_refused("num_channels", 3, why="pages are RGB"),
    },
    # Only in the original LLaVA layout.
    "llava": {
        **_obeyed("text", "mm_vision_tower vision_tower mm_patch_merge_type image_aspect_ratio"),
        **_obeyed("a whole number", "mm_vision_select_layer"),
        **_obeyed("a whole number above 0", "mm_hidden_size"),
        **_obeyed("a list, or a list as text", "image_grid_pinpoints"),
        **_inert(
            "freeze_backbone freeze_mm_mlp_adapter freeze_mm_vision_resampler tune_mm_mlp_adapter"
        ),
        **_inert(
            "tune_mm_vision_resampler tune_vision_tower unfreeze_mm_vision_tower mm_tunable_parts"
        ),
        **_inert(
            "mm_projector_lr mm_vision_tower_lr pretrain_mm_mlp_adapter "
            "pretrain_mm_vision_resampler"
        ),
        **_inert("vision_tower_pretrained delay_load use_mm_proj sep_image_conv_front version"),
        **_inert(
            "tokenizer_model_max_length tokenizer_padding_side lora_alpha lora_enable lora_r "
            "lora_dropout lora_bias"
        ),
        **_inert(
            "image_crop_resolution image_split_resolution"
        ),  # of aspect ratios that are refused
        **_inert(
            "mm_newline_position mm_spatial_pool_mode mm_spatial_pool_stride "
            "mm_spatial_pool_out_channels"
        ),  # video
        **_inert(
            "add_faster_video faster_token_stride add_time_instruction force_sample frames_upbound"
        ),  # video
        **_inert("use_pos_skipping pos_skipping_range"),  # in training only
        **_inert(
            "s2_scales open_clip_config ecg_projector_type ecg_projector_lr"
        ),  # of parts that are refused below
        **_refused("mm_projector_type", "mlp2x_gelu", why="another projector"),
        **_refused("mm_vision_select_feature", "patch", why="other features of the tower"),
        **_refused("mm_resampler_type", why="a resampler between tower and projector"),
        **_refused("mm_use_im_start_end", False, why="marks around the image"),
        **_refused("mm_use_im_patch_token", False, why="a token that the loader adds"),
        **_refused("s2", False, why="a tower at several scales"),
        **_refused("mm_ecg_tower", why="a second tower, which reads the signal"),
    },
    # Only in transformers' LlavaNext, next to text_config and vision_config.
    "llava_next": {
        **_obeyed("an object", "text_config vision_config"),
        **_obeyed("a list, or a list as text", "image_grid_pinpoints"),
        **_obeyed("a whole number", "vision_feature_layer"),
        **_obeyed("text", "mm_patch_merge_type image_aspect_ratio"),
        **_obeyed("true or false", "tie_word_embeddings"),
        **_obeyed("a token id", "bos_token_id"),
        **_obeyed("a token id or a list of token ids", "eos_token_id"),
        **_obeyed("a whole number", "pad_token_id"),
        # transformers reads the vocabulary's size in text_config alone.
        **_inert("vocab_size ignore_index image_token_index image_token_id image_seq_length"),
        **_refused("projector_hidden_act", "gelu", why="another projector"),
        **_refused("vision_feature_select_strategy", "default", why="other features of the tower"),
        **_refused("multimodal_projector_bias", True, why="a projector without biases"),
        **_refused("use_image_newline_parameter", True, why="a packing without image_newline"),
    },
    # generation_config.json, and the same keys in a config.json.
    "generation": {
        **_obeyed("a token id or a list of token ids", "eos_token_id"),
        **_obeyed("a token id", "bos_token_id"),
        **_inert(
            "pad_token_id do_sample temperature top_k top_p top_h min_p typical_p epsilon_cutoff "
            "eta_cutoff"
        ),
        **_inert(
            "max_length max_new_tokens max_time early_stopping length_penalty num_beam_groups "
            "diversity_penalty"
        ),
        **_inert(
            "num_return_sequences output_scores output_logits return_dict_in_generate "
            "return_legacy_cache"
        ),
        **_inert(
            "cache_implementation cache_config max_cache_len compile_config disable_compile "
            "low_memory"
        ),
        **_inert(
            "renormalize_logits remove_invalid_values prefill_chunk_size continuous_batching_config"
        ),
        **_inert(
            "is_assistant num_assistant_tokens num_assistant_tokens_schedule "
            "assistant_confidence_threshold"
        ),
        **_inert(
            "assistant_early_exit assistant_ensemble_weight assistant_lookbehind target_lookbehind"
        ),
        **_inert("prompt_lookup_num_tokens max_matching_ngram_size speculation_type use_mtp"),
        **_refused("num_beams", 1, why="beam search; a kit answers greedily"),
        **_refused("penalty_alpha", 0.0, why="contrastive search; a kit answers greedily"),
        **_refused(
            "repetition_penalty encoder_repetition_penalty guidance_scale", 1.0, why="other logits"
        ),
        **_refused(
            "no_repeat_ngram_size encoder_no_repeat_ngram_size min_length min_new_tokens",
            0,
            why="other logits",
        ),
        **_refused("bad_words_ids suppress_tokens begin_suppress_tokens", [], why="other logits"),
        **_refused(
            "forced_bos_token_id forced_eos_token_id forced_decoder_ids force_words_ids",
            why="forced tokens",
        ),
        **_refused(
            "constraints sequence_bias exponential_decay_length_penalty dola_layers",
            why="other logits",
        ),
        **_refused("watermarking_config", why="other logits"),
        **_refused("stop_strings", [], why="answers that end at a text"),
        **_refused("token_healing", False, why="another last token of the prompt"),
    },
    # preprocessor_config.json, and image_processor in processor_config.json.
    "preprocessor": {
        **_obeyed("three numbers", "image_mean"),
        **_obeyed("three numbers above 0", "image_std"),
        **_obeyed("a whole number or an object", "size crop_size"),
        **_obeyed("true or false", "do_resize do_center_crop"),
        **_obeyed("a list, or a list as text", "image_grid_pinpoints"),
        **_obeyed("text", "image_processor_type feature_extractor_type"),
        **_obeyed("a number above 0", "rescale_factor"),
        **_inert(
            "do_convert_rgb do_pad"
        ),  # pages are RGB; tiles of one page are never padded to those of another
        **_inert(
            "processor_class auto_map device data_format input_data_format return_tensors "
            "default_to_square"
        ),
        **_inert(
            "disable_grouping model_input_names num_additional_image_tokens image_token patch_size"
        ),
        **_inert("vision_feature_select_strategy image_seq_length"),
        **_refused("do_rescale do_normalize", True, why="pixels that the tower was not trained on"),
        **_refused("resample", 3, why="another resampler than Pillow's bicubic"),
        **_refused("aspect_ratio_setting", "anyres", why="other tiles"),
    },
    "processor": {
        **_obeyed("an object", "image_processor"),
        **_obeyed("a whole number above 0", "patch_size"),
        **_inert(
            "processor_class auto_map image_token num_additional_image_tokens chat_template "
            "tokenizer"
        ),
        **_refused("vision_feature_select_strategy", "default", why="other features of the tower"),
    },
    # tokenizer_config.json and special_tokens_map.json; other keys name tokens, and change nothing.
    "tokenizer": {
        **_obeyed("true or false", "add_bos_token add_prefix_space legacy"),
        **_obeyed("text or an object with content", "bos_token eos_token unk_token pad_token"),
        **_obeyed("an object", "added_tokens_decoder"),
        **_obeyed("text", "tokenizer_class"),
        **_refused("add_eos_token", False, why="an end of the text in front of the answer"),
        **_refused("sp_model_kwargs", {}, why="another way of cutting text into pieces"),
    },
}


def check(
    raw: Mapping[str, Any],
    sections: tuple[str, ...],
    wrong: list[str],
    *,
    where: str = "",
    unknown: bool = False,
) -> None:
    """Append to `wrong` what a JSON object asks for and a kit cannot do.

    Each line has key, value and what is expected. The first of `sections` that has the key decides.
    `where` precedes the keys' names. Unless `unknown` keys pass, a key of no section is wrong;
    names that begin with an underscore are transformers' own notes.
    """
    for name, value in raw.items():
        key = next((KEYS[s][name] for s in sections if name in KEYS[s]), None)
        if key is None:
            if not unknown and not name.startswith("_"):
                wrong.append(f"{where}{name} ({shown(value)}) is not known")
        elif key.use == "obeyed" and value is not None and not KINDS[key.kind](value):
            beyond = isinstance(value, int) and abs(value) > LARGEST
            limit = f" and at most {LARGEST:,}" if beyond else ""
            wrong.append(f"{where}{name} is {shown(value)}, expected {key.kind}{limit}")
        elif key.use == "refused" and value not in key.only:
            wrong.append(f"{where}{name} is {shown(value)} ({key.why})")


def shown(value: Any, most: int = 80) -> str:
    """Return a value as a message shows it."""
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}..."


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file. Raises CheckpointError."""
    try:
        if path.stat().st_size > _LARGEST_JSON:
            raise CheckpointError(
                f"{path}: larger than {_LARGEST_JSON >> 20} MiB. Fetch the checkpoint again."
            )
        value = json.loads(path.read_text("utf-8"))
    except OSError as e:
        raise CheckpointError(
            f"{path}: cannot be read ({e.strerror}). Name a checkpoint directory."
        ) from None
    except ValueError as e:
        raise CheckpointError(f"{path}: not JSON ({e}). Fetch the checkpoint again.") from None
    except RecursionError:
        raise CheckpointError(f"{path}: nested too deeply. Fetch the checkpoint again.") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: not a JSON object. Fetch the checkpoint again.")
    return value


def grid_of(value: Any) -> tuple[tuple[int, int], ...] | None:
    """Return pairs of whole numbers from a list or LLaVA's string; None for anything else."""
    try:
        points = _pairs(value) if isinstance(value, str) else value
        return (
            tuple((w, h) for w, h in points)
            if all(_whole(n) for point in points for n in point)
            else None
        )
    except (ValueError, TypeError):
        return None


def _pairs(text: str) -> list[tuple[int, int]]:
    """Read LLaVA's string of pairs.

    Raises ValueError for anything but numbers, brackets and commas. ast.literal_eval would not do:
    a long enough expression ends Python's parser for lack of memory or stack.
    """
    if not re.fullmatch(r"[\d\s,()\[\]]{1,4096}", text):
        raise ValueError
    pairs = re.findall(r"[(\[]\s*(\d{1,9})\s*,\s*(\d{1,9})\s*,?\s*[)\]]", text)
    return [(int(w), int(h)) for w, h in pairs]
