"""A fine-tuned adapter's folder -> whole tensors and merged weights, as PEFT merges them; anything else is refused.

Two kinds of folder: a LoRA adapter (adapter_config.json, adapter_model.*, and LLaVA's non_lora_trainables.bin with whole
tensors), and what LLaVA's first training stage leaves (mm_projector.bin alone).

Source of the formats: PEFT's LoraConfig and its layers' merge, LLaVA's train.py and model/builder.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pulse_edge.errors import CheckpointError

from .config import read_json
from .shards import FLOATS, PROJECTOR, Shards, Stored, canonical, shown

CONFIG = "adapter_config.json"
WHOLE = "non_lora_trainables"
PROJECTOR_FILE = "mm_projector.bin"

# How it was trained and on which modules: the stored matrices say all that a merge needs.
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
# Key -> what it asks for, where that is not a sum of the base's weight and a product of two matrices.
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
_MERGE_IT = "Merge it with PEFT (merge_and_unload, save_pretrained) and convert the result."
_OF_TOKENS = ("alora_invocation_tokens", "arrow_config")
_NEVER_MERGED = "It has no merged form, and a kit cannot hold it: train it as plain LoRA, or convert the base alone."
_SAME_FROM = (0, 15)
"""Since this version of PEFT rank_pattern and alpha_pattern are looked up each on its own."""


class Adapter:
    """What an adapter's folder changes in a base model.

    W' = W + scale * B A in float32, rounded to W's dtype; scale is alpha / r, or alpha / sqrt(r) with use_rslora, both
    per module. With use_dora each row of W' is then scaled to the length that the magnitude vector says.

    Raises CheckpointError for a folder that asks for anything else, naming it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files: list[Path] = []
        """What is read, for the manifest."""
        self._shards = Shards()
        self._pairs: dict[str, _Pair] = {}
        self._whole: dict[str, Stored] = {}
        self._saved: tuple[str, ...] = ()
        if (path / CONFIG).is_file():
            self._read_lora()
        elif not (path / PROJECTOR_FILE).is_file():
            raise CheckpointError(
                f"{path}: no {CONFIG} and no {PROJECTOR_FILE}. Name an adapter's folder with --lora."
            )
        self._read_whole()
        if not self._pairs and not self._whole:
            raise CheckpointError(f"{path}: holds no tensors. Save the adapter again.")
        self._refuse_types()

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the kit must know about this adapter."""
        names = self._pairs.keys() | self._whole.keys()
        if any(name.startswith(PROJECTOR) for name in names) or any(
            p.name.startswith(WHOLE) for p in self.files
        ):
            return ()
        return (
            f"{self.path.name} has no {WHOLE}.bin and no {PROJECTOR_FILE}, so the projector is the base model's and not "
            "the one trained with this adapter. LLaVA saves it at the end of a training, not in checkpoint-N folders.",
        )

    # --- reading -------------------------------------------------------------------------------------------------

    def _read_lora(self) -> None:
        settings = _settings(self.path / CONFIG)
        file = _only(self.path, "adapter_model")
        self.files += [self.path / CONFIG, file]
        parts: dict[str, dict[str, Stored]] = {}
        for stored in self._listing(file):
            module, part = _split(stored.name, self.path)
            if part is None:
                self._add_whole(canonical(module), stored)
            else:
                parts.setdefault(module, {})[part] = stored
        needed = {"A", "B", "M"} if settings.dora else {"A", "B"}
        if broken := sorted(m for m, p in parts.items() if p.keys() != needed):
            raise CheckpointError(
                f"{self.path}: expected {_PARTS[settings.dora]} of every module, and something else is there of "
                f"{shown(broken)}. Save the adapter again."
            )
        for module, part_of in parts.items():
            scale = settings.scale(module, part_of["A"].shape, self.path)
            name = canonical(module + ".weight")
            if name in self._pairs:
                raise CheckpointError(
                    f"{self.path}: changes {name} under two names. Save the adapter again."
                )
            self._pairs[name] = _Pair(part_of["A"], part_of["B"], part_of.get("M"), scale)
        self._saved = settings.saved

    def _read_whole(self) -> None:
        """Tensors that replace those of the base: LLaVA's projector and whatever else was trained outside of LoRA."""
        for name in (f"{WHOLE}.bin", f"{WHOLE}.safetensors", PROJECTOR_FILE):
            if not (file := self.path / name).is_file():
                continue
            self.files.append(file)
            for stored in self._listing(file):
                bare, part = _split(stored.name, self.path)
                if part is not None:
                    raise CheckpointError(
                        f"{self.path}: {name} holds {stored.name}. Save the adapter again."
                    )
                # LLaVA's own loader takes what follows `mm_projector.`, whatever stands before it.
                inside = bare.rpartition("mm_projector.")
                self._add_whole(PROJECTOR + inside[2] if inside[1] else canonical(bare), stored)
        names = [f".{_split(s.name, self.path)[0]}" for s in self._whole.values()]
        saved = [
            module for module in self._saved if not any(f".{module}." in name for name in names)
        ]
        if saved:
            raise CheckpointError(
                f"{self.path}: modules_to_save names {shown(saved)}, of which it holds no tensor. Save the adapter again."
            )

    def _add_whole(self, name: str, stored: Stored) -> None:
        if other := self._whole.get(name):
            raise CheckpointError(
                f"{self.path}: {name} is in {other.file.name} and in {stored.file.name}. Keep the file that the training "
                "wrote last."
            )
        self._whole[name] = stored

    def _listing(self, file: Path) -> Iterator[Stored]:
        try:
            yield from self._shards.listing(file)
        except CheckpointError as e:
            raise CheckpointError(f"{self.path}: {e}. Save or copy the adapter again.") from None

    def _refuse_types(self) -> None:
        stored = [
            *self._whole.values(),
            *(s for pair in self._pairs.values() for s in pair.stored()),
        ]
        if wrong := [f"{s.name} is {s.dtype}" for s in stored if s.dtype not in FLOATS]:
            raise CheckpointError(
                f"{self.path}: {shown(wrong, 3)}, which is no type of trained weights. Give the adapter in float32, "
                "float16 or bfloat16."
            )
        if any(0 in s.shape for s in stored):
            raise CheckpointError(
                f"{self.path}: holds empty tensors, as a training under DeepSpeed ZeRO-3 saves them without gathering "
                "its shards. Save it again with stage3_gather_16bit_weights_on_model_save."
            )

    # --- merging -------------------------------------------------------------------------------------------------

    def added(self) -> dict[str, tuple[int, ...]]:
        """Whole tensors that it brings, which replace those of the base or are new; name -> shape."""
        return {name: s.shape for name, s in self._whole.items()}

    def misfits(self, shapes: Mapping[str, tuple[int, ...]], tied: bool = False) -> list[str]:
        """Matrices whose target is absent or has another shape; `tied`: the base's output layer is its embeddings."""
        problems = []
        for name, pair in self._pairs.items():
            a, b = pair.a.shape, pair.b.shape
            if name not in shapes:
                problems.append(f"the adapter changes {name}, which does not exist")
            elif len(a) != 2 or len(b) != 2 or a[0] != b[1] or (b[0], a[1]) != shapes[name]:
                problems.append(
                    f"the adapter of {name} is {list(b)} x {list(a)} for {list(shapes[name])}"
                )
            elif pair.magnitude is not None and pair.magnitude.shape != b[:1]:
                problems.append(
                    f"the magnitudes of {name} are {list(pair.magnitude.shape)} for {list(b[:1])}"
                )
        changed = {"model.embed_tokens.weight", "lm_head.weight"} & (
            self._pairs.keys() | self._whole.keys()
        )
        if tied and changed:
            problems.append(
                f"the adapter changes {shown(sorted(changed))}, which the base ties together"
            )
        return problems

    def replacement(self, name: str) -> torch.Tensor:
        """A whole tensor."""
        return self.merge(name, self._shards.read(self._whole[name]))

    def merge(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        """`weight` with its low-rank change, in its own dtype."""
        if (pair := self._pairs.get(name)) is None:
            return weight
        a, b = (self._shards.read(s).float() for s in (pair.a, pair.b))
        merged = torch.addmm(weight.float(), b, a, alpha=pair.scale)
        if pair.magnitude is not None:
            lengths = torch.linalg.norm(merged, dim=1, keepdim=True)
            merged *= self._shards.read(pair.magnitude).float()[:, None] / lengths
        return merged.to(weight.dtype)


@dataclass(frozen=True)
class _Pair:
    """The matrices of one module."""

    a: Stored
    b: Stored
    magnitude: Stored | None
    """DoRA's: a length for each row."""
    scale: float

    def stored(self) -> tuple[Stored, ...]:
        return (self.a, self.b) if self.magnitude is None else (self.a, self.b, self.magnitude)


_PARTS = {False: "lora_A and lora_B", True: "lora_A, lora_B and lora_magnitude_vector"}


def _split(name: str, path: Path) -> tuple[str, str | None]:
    """A stored name -> (the module's name in the base model, A, B or M), or (a whole tensor's name, None)."""
    bare = name
    if name.startswith("base_model."):
        bare = name.removeprefix("base_model.").removeprefix("model.")
    bare = bare.replace(".default.", ".").removesuffix(".default")
    # A module that was trained as a whole, and the base's weight, which PEFT stores where it adapts the output layer.
    bare = bare.replace(".modules_to_save.", ".").replace(".base_layer.", ".")
    for ending, part in (
        (".lora_A.weight", "A"),
        (".lora_B.weight", "B"),
        (".lora_magnitude_vector", "M"),
        (".lora_magnitude_vector.weight", "M"),
    ):
        if bare.endswith(ending):
            return bare.removesuffix(ending), part
    if ".lora_embedding_" in bare:
        raise CheckpointError(f"{path}: has LoRA matrices of embeddings ({name}). {_MERGE_IT}")
    if ".lora_" in bare:
        raise CheckpointError(f"{path}: {name} is no matrix of plain LoRA or DoRA. {_MERGE_IT}")
    return bare, None


def _only(path: Path, stem: str) -> Path:
    for suffix in (".safetensors", ".bin"):
        if (path / (stem + suffix)).is_file():
            return path / (stem + suffix)
    raise CheckpointError(
        f"{path}: no {stem}.safetensors and no {stem}.bin. Name an adapter's folder with --lora."
    )


# --- adapter_config.json ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Settings:
    """What adapter_config.json says about the merge."""

    rank: int
    alpha: float
    rslora: bool
    dora: bool
    ranks: Mapping[str, int]
    """rank_pattern: end of a module's name, or a regular expression for it -> rank."""
    alphas: Mapping[str, float]
    saved: tuple[str, ...]
    """modules_to_save."""
    new_lookup: bool
    """The file says that it is of a PEFT since `_SAME_FROM`."""

    def scale(self, module: str, shape: tuple[int, ...], path: Path) -> float:
        """The factor of B A for a module. Raises CheckpointError where the matrix has another rank than is stated."""
        rank, alpha = self._looked_up(module)
        if not self.new_lookup and (rank, alpha) != self._looked_up_before(module):
            raise CheckpointError(
                f"{path / CONFIG}: rank_pattern and alpha_pattern give {module} another scale in PEFT before "
                f"{'.'.join(map(str, _SAME_FROM))} than in later ones, and peft_version does not say which. {_MERGE_IT}"
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


def _settings(path: Path) -> _Settings:
    """Raises CheckpointError with everything that the file asks for and that is not merged, each by name."""
    raw = read_json(path)
    if wrong := list(_not_merged(raw)):
        way_out = _NEVER_MERGED if any(raw.get(key) for key in _OF_TOKENS) else _MERGE_IT
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
    return _Settings(
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
            f"init_lora_weights is {_short(start)}, which changed the base's weights before training, so that the "
            "matrices do not fit the unchanged base"
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
    """Regular expressions -> values. PEFT searches with them, so those that could search for hours are refused."""
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
    """The numbers that a version begins with; (0,) for none."""
    match = re.match(r"(\d{1,4})\.(\d{1,4})", value) if isinstance(value, str) else None
    return tuple(map(int, match.groups())) if match else (0,)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
