"""Refuse folders that are given as a checkpoint by mistake, and say what to give instead.

Only file names, config.json and the headers of weight files are read, no weights.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from export.adapter import PROJECTOR_FILE
from export.adapter_config import CONFIG
from export.config import read_json
from export.shards import FLOATS, Stored, has_weights
from pulse_edge.errors import CheckpointError

_ORIGINAL = "Give the float16, bfloat16 or float32 checkpoint that it was made of"
# quant_method of quantization_config, as transformers names them.
_METHODS = {
    "aqlm": "AQLM",
    "awq": "AWQ",
    "bitsandbytes": "bitsandbytes",
    "bitsandbytes_4bit": "bitsandbytes",
    "bitsandbytes_8bit": "bitsandbytes",
    "compressed-tensors": "compressed-tensors",
    "eetq": "EETQ",
    "fbgemm_fp8": "float8",
    "fp8": "float8",
    "gptq": "GPTQ",
    "hqq": "HQQ",
    "quanto": "quanto",
    "torchao": "torchao",
}
# End of a tensor's name -> the method that writes it.
_ENDINGS = (
    (re.compile(r"\.(qweight|qzeros|g_idx)$"), "GPTQ or AWQ"),
    (
        re.compile(r"\.(absmax|quant_map|nested_absmax|nested_quant_map)$|\.quant_state\."),
        "bitsandbytes (4 bits)",
    ),
    (re.compile(r"\.(SCB|weight_format)$"), "bitsandbytes (8 bits)"),
    (
        re.compile(r"\.(weight_scale|weight_scale_inv|input_scale|activation_scale)$"),
        "float8 or int8",
    ),
)
# Names in a folder without a model's weights -> what it is, and what to give.
_FOLDERS = (
    (
        (CONFIG,),
        "is an adapter and no model",
        "Give the base model's folder, and this one with --lora",
    ),
    (
        (PROJECTOR_FILE,),
        "is a projector and no model",
        "Give the base model's folder, and this one with --lora",
    ),
    (
        ("global_step*", "zero_pp_rank_*", "*_optim_states.pt", "mp_rank_*_model_states.pt"),
        "holds the shards of a training under DeepSpeed",
        "Run the zero_to_fp32.py that lies in it, and give the folder that it writes",
    ),
    (
        ("*.distcp", "pytorch_model_fsdp*"),
        "holds the shards of a training under FSDP",
        "Join them with `accelerate merge-weights`, and give the folder that it writes",
    ),
    (("*.gguf",), "holds a GGUF file, which llama.cpp has converted already", _ORIGINAL),
    (
        ("consolidated.*.pth", "*.ckpt", "*.pth"),
        "holds weights in their trainer's own format",
        _ORIGINAL,
    ),
    (
        ("tf_model*", "flax_model*", "*.msgpack", "*.h5"),
        "holds weights for TensorFlow or Flax",
        "Save it with PyTorch as safetensors, and give that folder",
    ),
    (
        ("optimizer*", "scheduler.pt", "training_args.bin", "rng_state*"),
        "holds the state of a training and no weights",
        "Give the folder that the training's end wrote",
    ),
)


def refuse_mistaken(folder: Path) -> None:
    """Raise CheckpointError where names and config.json show something else than a checkpoint."""
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "there is no such folder"
        raise CheckpointError(
            f"{folder}: {what}. Name a checkpoint's folder, the one with config.json."
        )
    if (method := _method(folder)) is not None:
        raise CheckpointError(f"{folder}: is quantized ({method}). {_ORIGINAL}.")
    _refuse_starts(folder)
    whole = any(folder.glob("model*.safetensors")) or any(folder.glob("pytorch_model*.bin"))
    if whole and (folder / CONFIG).is_file():
        raise CheckpointError(
            f"{folder}: holds a model and an adapter. Give the model's folder without {CONFIG}, "
            "and the adapter's folder with --lora."
        )
    if whole or (has_weights(folder) and not (folder / CONFIG).is_file()):
        return
    for patterns, what, instead in _FOLDERS:
        if any(next(folder.glob(pattern), None) for pattern in patterns):
            raise CheckpointError(f"{folder}: {what}. {instead}.")


def _refuse_starts(folder: Path) -> None:
    """Raise CheckpointError where a weight file is a Git LFS pointer or an old PyTorch file."""
    for file in sorted([*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]):
        if not file.is_file():
            continue
        with open(file, "rb") as f:
            start = f.read(40)
        if start.startswith(b"version https://git-lfs"):
            raise CheckpointError(
                f"{folder}: {file.name} is a Git LFS pointer, not the file. Run `git lfs pull` in "
                "it."
            )
        if file.suffix == ".bin" and start[:1] == b"\x80":
            raise CheckpointError(
                f"{folder}: {file.name} is in PyTorch's format from before version 1.6. Save it "
                "again as safetensors, with save_pretrained of transformers, and give that folder."
            )


def refuse_no_tower(folder: Path) -> None:
    """Raise CheckpointError where the given vision tower is none."""
    if not (folder / "config.json").is_file():
        what = "has no config.json" if folder.is_dir() else "is no folder"
        raise CheckpointError(
            f"--vision-tower {folder}: {what}. Give the folder of the CLIP model that the "
            "checkpoint's config names, with its config.json and weights."
        )


def _method(folder: Path) -> str | None:
    """Return how a checkpoint was quantized, by its JSON files; None if it was not."""
    for name, method in (("quantize_config.json", "GPTQ"), ("quant_config.json", "AWQ")):
        if (folder / name).is_file():
            return method
    if not (folder / "config.json").is_file():
        return None
    raw = read_json(folder / "config.json")
    parts: list[Any] = [raw, raw.get("text_config"), raw.get("vision_config")]
    for part in parts:
        settings = part.get("quantization_config") if isinstance(part, dict) else None
        if isinstance(settings, dict):
            named = settings.get("quant_method")
            if named is None and (settings.get("load_in_4bit") or settings.get("load_in_8bit")):
                named = "bitsandbytes"
            return _METHODS.get(
                str(named), f"quantization_config of config.json, method {str(named)[:40]!r}"
            )
    return None


def refuse_types(folder: Path, stored: Iterable[Stored]) -> None:
    """Raise CheckpointError where tensors are quantized, or empty."""
    wrong: list[Stored] = []
    for one in stored:
        for ending, method in _ENDINGS:
            if ending.search(one.name):
                raise CheckpointError(
                    f"{folder}: is quantized ({method}: it has {one.name}). {_ORIGINAL}."
                )
        if 0 in one.shape:
            raise CheckpointError(
                f"{folder}: {one.name} is empty, as a training under DeepSpeed ZeRO-3 saves it "
                "without gathering its shards. Run the training's zero_to_fp32.py, and give the "
                "folder that it writes."
            )
        if one.dtype not in FLOATS:
            wrong.append(one)
    if wrong:
        others = f" and {len(wrong) - 1} others" if len(wrong) > 1 else ""
        raise CheckpointError(
            f"{folder}: {wrong[0].name}{others} have the data type {wrong[0].dtype}, so the "
            f"checkpoint is quantized or damaged. {_ORIGINAL}."
        )
