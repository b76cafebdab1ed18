"""Read the folder of a fine-tuned adapter, and merge its weights into the base as PEFT does.

There are two kinds of folder: a LoRA adapter (adapter_config.json, adapter_model.*, and LLaVA's
non_lora_trainables.bin with whole tensors), and the result of LLaVA's first training stage
(mm_projector.bin alone). Anything else is refused.

Source of the formats: PEFT's LoraConfig and its layers' merge, LLaVA's train.py and
model/builder.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from export.adapter_config import CONFIG, MERGE_IT, read_adapter_config
from export.shards import FLOATS, PROJECTOR, Shards, Stored, canonical, shown
from pulse_edge.errors import CheckpointError

WHOLE = "non_lora_trainables"
PROJECTOR_FILE = "mm_projector.bin"


class Adapter:
    """The changes that an adapter's folder makes to a base model.

    W' = W + scale * B A in float32, rounded to W's dtype. The scale is alpha / r, or alpha /
    sqrt(r) with use_rslora, both per module. With use_dora each row of W' is then scaled to the
    length that the magnitude vector states.

    Raises CheckpointError, by name, for a folder that asks for anything else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files: list[Path] = []
        """Files that are read, for the manifest."""
        self._shards = Shards()
        self._pairs: dict[str, _Pair] = {}
        self._whole: dict[str, Stored] = {}
        self._saved: tuple[str, ...] = ()
        if (path / CONFIG).is_file():
            self._read_lora()
        elif not (path / PROJECTOR_FILE).is_file():
            raise CheckpointError(
                f"{path}: no {CONFIG} and no {PROJECTOR_FILE}. Name an adapter's folder with "
                "--lora."
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
            f"{self.path.name} has no {WHOLE}.bin and no {PROJECTOR_FILE}, so the projector is the "
            "base model's and not the one trained with this adapter. LLaVA saves it at the end of "
            "a training, not in checkpoint-N folders.",
        )

    # --- reading ----------------------------------------------------------------------------------

    def _read_lora(self) -> None:
        settings = read_adapter_config(self.path / CONFIG)
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
                f"{self.path}: expected {_PARTS[settings.dora]} of every module, and "
                f"{shown(broken)} has something else. Save the adapter again."
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
        """Read the tensors that replace those of the base.

        They are LLaVA's projector, and others that were trained outside of LoRA.
        """
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
                # LLaVA's own loader takes what follows `mm_projector.`, whatever precedes it.
                inside = bare.rpartition("mm_projector.")
                self._add_whole(PROJECTOR + inside[2] if inside[1] else canonical(bare), stored)
        names = [f".{_split(s.name, self.path)[0]}" for s in self._whole.values()]
        saved = [
            module for module in self._saved if not any(f".{module}." in name for name in names)
        ]
        if saved:
            raise CheckpointError(
                f"{self.path}: modules_to_save names {shown(saved)}, whose tensors are missing. "
                "Save the adapter again."
            )

    def _add_whole(self, name: str, stored: Stored) -> None:
        if other := self._whole.get(name):
            raise CheckpointError(
                f"{self.path}: {name} is in {other.file.name} and in {stored.file.name}. Keep the "
                "file that the training wrote last."
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
                f"{self.path}: {shown(wrong, 3)}, which is no type of trained weights. Give the "
                "adapter in float32, float16 or bfloat16."
            )
        if any(0 in s.shape for s in stored):
            raise CheckpointError(
                f"{self.path}: holds empty tensors, as a training under DeepSpeed ZeRO-3 saves "
                "them without gathering its shards. Save it again with "
                "stage3_gather_16bit_weights_on_model_save."
            )

    # --- merging ----------------------------------------------------------------------------------

    def added(self) -> dict[str, tuple[int, ...]]:
        """Return the whole tensors, which replace those of the base or are new: name -> shape."""
        return {name: s.shape for name, s in self._whole.items()}

    def misfits(self, shapes: Mapping[str, tuple[int, ...]], tied: bool = False) -> list[str]:
        """Return a line for each matrix whose target is absent or has another shape.

        `tied` says that the base's output layer is its embeddings.
        """
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
        """Return a whole tensor, with the low-rank change of its name."""
        return self.merge(name, self._shards.read(self._whole[name]))

    def merge(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        """Return `weight` with its low-rank change, in its own dtype."""
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
    """DoRA's length of each row, (rows,)."""
    scale: float

    def stored(self) -> tuple[Stored, ...]:
        return (self.a, self.b) if self.magnitude is None else (self.a, self.b, self.magnitude)


_PARTS = {False: "lora_A and lora_B", True: "lora_A, lora_B and lora_magnitude_vector"}


def _split(name: str, path: Path) -> tuple[str, str | None]:
    """Split a stored name into a module's name in the base model and A, B or M.

    A whole tensor gives its name and None.
    """
    bare = name
    if name.startswith("base_model."):
        bare = name.removeprefix("base_model.").removeprefix("model.")
    bare = bare.replace(".default.", ".").removesuffix(".default")
    # modules_to_save holds modules that were trained as a whole; base_layer is the base's weight,
    # which PEFT stores where it adapts the output layer.
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
        raise CheckpointError(f"{path}: has LoRA matrices of embeddings ({name}). {MERGE_IT}")
    if ".lora_" in bare:
        raise CheckpointError(f"{path}: {name} is no matrix of plain LoRA or DoRA. {MERGE_IT}")
    return bare, None


def _only(path: Path, stem: str) -> Path:
    for suffix in (".safetensors", ".bin"):
        if (path / (stem + suffix)).is_file():
            return path / (stem + suffix)
    raise CheckpointError(
        f"{path}: no {stem}.safetensors and no {stem}.bin. Name an adapter's folder with --lora."
    )
