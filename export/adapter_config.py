"""Read what an adapter_config.json states about the merge; refuse what cannot be merged."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.config import read_json
from pulse_edge.errors import CheckpointError

CONFIG = "adapter_config.json"
# Keys that state how the adapter was trained and on which modules; the stored matrices say all that
# a merge needs.
_INERT = (
    *(
        "auto_mapping",
        "base_model_name_or_path",
        "corda_config",
        "eva_config",
        "exclude_modules",
        "inference_mode",
    ),
    *(
        "layers_pattern",
        "layers_to_transform",
        "loftq_config",
        "lora_dropout",
        "megatron_core",
        "peft_version",
    ),
    *("qalora_group_size", "revision", "runtime_config", "target_modules", "task_type"),
)
_OBEYED = (
    *(
        "alpha_pattern",
        "bias",
        "init_lora_weights",
        "lora_alpha",
        "modules_to_save",
        "peft_type",
        "r",
        "rank_pattern",
    ),
    *("use_dora", "use_rslora"),
)
# Key -> what it asks for, where that is more than adding a product of two matrices to the base's
# weight.
_REFUSED = {
    "alora_invocation_tokens": "aLoRA changes the weights only after its invocation tokens",
    "arrow_config": "Arrow chooses an adapter for each token",
    "ensure_weight_tying": "its embeddings are tied to the output layer",
    "fan_in_fan_out": "its matrices are transposed",
    "kasa_config": "KaSA changes the base's weights and adds a diagonal",
    "layer_replication": "it repeats layers of the base",
    "lora_bias": "its matrices have biases",
    "lora_ga_config": "LoRA-GA changes the base's weights before training",
    "megatron_config": "its layers are Megatron's",
    "monteclora_config": "Monteclora samples its matrices",
    "target_parameters": "it changes parameters and not modules",
    "trainable_token_indices": "it trained single tokens",
    "use_bdlora": "BD-LoRA's matrices are block diagonal",
    "use_qalora": "QA-LoRA's matrices belong to a quantized base",
    "velora_config": "VeLoRA is not known to merge as LoRA does",
}
# Initial values that leave the base's weights as they are.
_PLAIN_START = (True, False, None, "gaussian", "eva", "orthogonal", "mica")
_START_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
MERGE_IT = "Merge it with PEFT (merge_and_unload, save_pretrained) and convert the result."
_OF_TOKENS = ("alora_invocation_tokens", "arrow_config")
_NEVER_MERGED = (
    "It has no merged form, and a kit cannot hold it: train it as plain LoRA, or convert the base "
    "alone."
)
_SAME_FROM = (0, 15)
"""First version of PEFT that looks up rank_pattern and alpha_pattern each on its own."""


@dataclass(frozen=True)
class AdapterConfig:
    """The settings of adapter_config.json that a merge needs."""

    rank: int
    alpha: float
    rslora: bool
    dora: bool
    ranks: Mapping[str, int]
    """rank_pattern: end of a module's name, or a regular expression for it -> rank."""
    alphas: Mapping[str, float]
    """alpha_pattern, in the same form."""
    saved: tuple[str, ...]
    """modules_to_save: names of modules that were trained as a whole."""
    new_lookup: bool
    """Whether the file states a PEFT since `_SAME_FROM`."""

    def scale(self, module: str, shape: tuple[int, ...], path: Path) -> float:
        """Return the factor of B A for a module.

        Raises CheckpointError where the matrix has another rank than the file states.
        """
        rank, alpha = self._looked_up(module)
        if not self.new_lookup and (rank, alpha) != self._looked_up_before(module):
            raise CheckpointError(
                f"{path / CONFIG}: rank_pattern and alpha_pattern give {module} another scale in "
                f"PEFT before {'.'.join(map(str, _SAME_FROM))} than in later ones, and "
                f"peft_version does not say which. {MERGE_IT}"
            )
        if shape[:1] != (rank,):
            raise CheckpointError(
                f"{path}: {module} has matrices of {list(shape)}, and {CONFIG} says rank {rank}."
            )
        return alpha / (math.sqrt(rank) if self.rslora else rank)

    def _looked_up(self, module: str) -> tuple[int, float]:
        def key(patterns: Mapping[str, Any]) -> str:
            return next((p for p in patterns if re.match(rf"(.*\.)?({p})$", module)), module)

        return self.ranks.get(key(self.ranks), self.rank), self.alphas.get(
            key(self.alphas), self.alpha
        )

    def _looked_up_before(self, module: str) -> tuple[int, float]:
        both = [*self.ranks, *self.alphas]
        key = next((p for p in both if re.match(rf".*\.{p}$", module)), module)
        return self.ranks.get(key, self.rank), self.alphas.get(key, self.alpha)


def read_adapter_config(path: Path) -> AdapterConfig:
    """Read the file. Raises CheckpointError that names everything that cannot be merged."""
    raw = read_json(path)
    if wrong := list(_not_merged(raw)):
        way_out = _NEVER_MERGED if any(raw.get(key) for key in _OF_TOKENS) else MERGE_IT
        raise CheckpointError(f"{path}: cannot be merged: {'; '.join(wrong)}. {way_out}")
    malformed: list[str] = []
    values = {
        "r": _read(raw, "r", None, _positive, malformed),
        "lora_alpha": _read(raw, "lora_alpha", None, _number, malformed),
        "rank_pattern": _read(raw, "rank_pattern", {}, lambda v: _pattern(v, _positive), malformed),
        "alpha_pattern": _read(raw, "alpha_pattern", {}, lambda v: _pattern(v, _number), malformed),
        "modules_to_save": _read(raw, "modules_to_save", [], _words, malformed),
        "use_dora": _read(raw, "use_dora", False, _flag, malformed),
        "use_rslora": _read(raw, "use_rslora", False, _flag, malformed),
    }
    if malformed:
        raise CheckpointError(f"{path}: {'; '.join(malformed)}. Save the adapter again with PEFT.")
    return AdapterConfig(
        rank=values["r"],
        alpha=values["lora_alpha"],
        rslora=values["use_rslora"],
        dora=values["use_dora"],
        ranks=values["rank_pattern"],
        alphas=values["alpha_pattern"],
        saved=values["modules_to_save"],
        new_lookup=_version(raw.get("peft_version")) >= _SAME_FROM,
    )


def _not_merged(raw: Mapping[str, Any]) -> Iterator[str]:
    if raw.get("peft_type") != "LORA":
        yield f"peft_type is {_short(raw.get('peft_type'))}, expected 'LORA'"
    if raw.get("bias") not in (None, "none"):
        yield f"bias is {_short(raw['bias'])} (it trained biases)"
    start = raw.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_START_CHANGES_BASE):
        yield (
            f"init_lora_weights is {_short(start)}, which changed the base's weights before "
            "training, so that the matrices do not fit the unchanged base"
        )
    elif not any(
        start is value or (isinstance(value, str) and start == value) for value in _PLAIN_START
    ):
        yield f"init_lora_weights is {_short(start)}, which is not known"
    for key, value in raw.items():
        empty = value is None or value is False or value in ({}, [], "")
        if empty or key in _INERT or key in _OBEYED:
            continue
        yield f"{key} is {_short(value)} ({_REFUSED.get(key, 'which is not known')})"


def _read(
    raw: Mapping[str, Any], key: str, default: Any, read: Callable[[Any], Any], wrong: list[str]
) -> Any:
    value = raw.get(key)
    try:
        return read(default if value is None else value)
    except ValueError as e:
        wrong.append(f"{key} is {_short(value)}, expected {e}")
        return None


def _positive(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise ValueError("a whole number from 1 on")
    return value


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError("a number")
    return float(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _words(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
        raise ValueError("a list of names")
    return tuple(value)


def _pattern(value: Any, read: Callable[[Any], Any]) -> dict[str, Any]:
    """Read an object of regular expressions and values.

    PEFT searches with the expressions: those that could search for hours are refused.
    """
    if not isinstance(value, dict):
        raise ValueError("an object")
    for key in value:
        operators = len(re.findall(r"[*+?|]", key))
        if len(key) > 300 or operators > 3 or re.search(r"\{|\)[*+?]|\(\?", key):
            raise ValueError(f"names of modules, or simpler expressions than {_short(key)}")
        try:
            re.compile(key)
        except re.error:
            raise ValueError(f"names of modules; {_short(key)} is no regular expression") from None
    return {key: read(item) for key, item in value.items()}


def _version(value: Any) -> tuple[int, ...]:
    """Return the two numbers that a version begins with; (0,) if there are none."""
    match = re.match(r"(\d{1,4})\.(\d{1,4})", value) if isinstance(value, str) else None
    return tuple(map(int, match.groups())) if match else (0,)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
