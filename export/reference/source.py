"""Read a checkpoint's tensors by their role in the model, for the proof alone.

A role is the end of a name, whatever precedes it: `text.3.self_attn.q_proj.weight`, `text.embed`,
`tower.0.mlp.fc1.bias`, `projector.2.weight`, `newline`. Names of all layouts end alike, so that no
table of layouts is needed.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from pulse_edge.errors import CheckpointError

_TOWER_LAYER = re.compile(
    r"(?:^|\.)encoder\.layers\.(\d+)\.((?:layer_norm[12]|self_attn\.(?:q_proj|k_proj|v_proj|out_proj)|mlp\.fc[12])\.(?:weight|bias))$"
)
_TOWER_OTHER = re.compile(
    r"(?:^|\.)(embeddings\.(?:class_embedding|patch_embedding\.weight|position_embedding\.weight)|pre_layrnorm\.(?:weight|bias))$"
)
_TEXT_LAYER = re.compile(
    r"(?:^|\.)layers\.(\d+)\.((?:input_layernorm|post_attention_layernorm|self_attn\.[qkvo]_proj|mlp\.(?:gate|up|down)_proj)\.weight)$"
)
_SINGLE = {
    "text.embed": re.compile(r"(?:^|\.)embed_tokens\.weight$"),
    "text.norm": re.compile(r"(?:^|[^_.]\.|^model\.)norm\.weight$"),
    "text.head": re.compile(r"(?:^|\.)lm_head\.weight$"),
    "newline": re.compile(r"(?:^|\.)image_newline$"),
    "projector.0.weight": re.compile(
        r"(?:mm_projector\.0|multi_modal_projector\.linear_1)\.weight$"
    ),
    "projector.0.bias": re.compile(r"(?:mm_projector\.0|multi_modal_projector\.linear_1)\.bias$"),
    "projector.2.weight": re.compile(
        r"(?:mm_projector\.2|multi_modal_projector\.linear_2)\.weight$"
    ),
    "projector.2.bias": re.compile(r"(?:mm_projector\.2|multi_modal_projector\.linear_2)\.bias$"),
}
_LORA = re.compile(r"\.lora_(embedding_)?([AB])(?:\.default)?(?:\.weight)?$")
_MAGNITUDE = re.compile(r"\.lora_magnitude_vector(?:\.default)?(?:\.weight)?$")
_SAVED = re.compile(r"\.(?:modules_to_save(?:\.default)?|base_layer)(?=\.)")


def role(name: str) -> str | None:
    """Return the role of a tensor of this name, or None for one that inference does not use."""
    if name.startswith(("text_model.", "text_projection", "visual_projection")):
        return None  # the other half of a whole CLIP
    if match := _TOWER_LAYER.search(name):
        return f"tower.{match[1]}.{match[2]}"
    if match := _TOWER_OTHER.search(name):
        return f"tower.{match[1]}"
    if match := _TEXT_LAYER.search(name):
        return f"text.{match[1]}.{match[2]}"
    return next((key for key, pattern in _SINGLE.items() if pattern.search(name)), None)


class Source:
    """Reads single tensors; keeps at most one PyTorch file mapped.

    Raises CheckpointError for a role that no file has.
    """

    def __init__(self, folder: Path, *, lora: Path | None, tower: Path | None) -> None:
        self.folder = folder
        self._mapped: tuple[Path, dict[str, torch.Tensor]] | None = None
        self._at = self._roles(folder)
        if tower is not None and not any(r.startswith("tower.") for r in self._at):
            self._at |= {r: at for r, at in self._roles(tower).items() if r.startswith("tower.")}
        self._adapter = _Adapter(self, lora) if lora is not None else None

    @property
    def roles(self) -> set[str]:
        """Every role that some file has, tensors of an adapter included."""
        return set(self._at) | (set(self._adapter.whole) if self._adapter else set())

    def tensor(self, name: str) -> torch.Tensor:
        """Return the tensor of a role in the dtype of its file, an adapter's change included."""
        if self._adapter is not None and name in self._adapter.whole:
            return self._adapter.change(name, self.read(*self._adapter.whole[name]))
        if name not in self._at:
            raise CheckpointError(
                f"{self.folder}: has no tensor that could be {name}. Fetch the checkpoint again."
            )
        stored = self.read(*self._at[name])
        return stored if self._adapter is None else self._adapter.change(name, stored)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a role's tensor without reading it."""
        whole = self._adapter.whole if self._adapter else {}
        file, stored = whole.get(name) or self._at.get(name) or (None, "")
        if file is None:
            raise CheckpointError(
                f"{self.folder}: has no tensor that could be {name}. Fetch the checkpoint again."
            )
        if file.suffix != ".safetensors":
            return tuple(self._pytorch(file)[stored].shape)
        with safe_open(file, "pt") as f:
            return tuple(f.get_slice(stored).get_shape())

    def read(self, file: Path, name: str) -> torch.Tensor:
        """Read one tensor of a file."""
        if file.suffix == ".safetensors":
            with safe_open(file, "pt") as f:
                return f.get_tensor(name)  # type: ignore[no-any-return]
        return self._pytorch(file)[name]

    def names(self, file: Path) -> Iterator[str]:
        """Yield the names of a file's tensors."""
        if file.suffix == ".safetensors":
            with safe_open(file, "pt") as f:
                yield from f.keys()
        else:
            yield from self._pytorch(file)

    def _pytorch(self, file: Path) -> dict[str, torch.Tensor]:
        if self._mapped is None or self._mapped[0] != file:
            self._mapped = file, torch.load(file, map_location="cpu", mmap=True, weights_only=True)
        return self._mapped[1]

    def _roles(self, folder: Path) -> dict[str, tuple[Path, str]]:
        out: dict[str, tuple[Path, str]] = {}
        for file in weight_files(folder):
            for name in self.names(file):
                if key := role(name):
                    out[key] = file, name
        return out


def weight_files(folder: Path) -> list[Path]:
    """Return the weight files of a folder: those of its index, or all of one kind."""
    for pattern in ("*.safetensors", "pytorch_model*.bin"):
        files = sorted(folder.glob(pattern))
        index = folder / (
            "model.safetensors.index.json" if pattern[0] == "*" else "pytorch_model.bin.index.json"
        )
        if index.is_file():
            return sorted(
                {
                    folder / name
                    for name in json.loads(index.read_text("utf-8"))["weight_map"].values()
                }
            )
        if files:
            return files
    return []


class _Adapter:
    """An adapter's folder: low-rank changes and whole tensors by role.

    PEFT's rules: W + alpha / r * B A (over the root of r with rsLoRA), ranks and alphas by pattern;
    DoRA scales each row to its stored magnitude. In float32, then rounded to the dtype of W. Whole
    tensors replace those of the base.
    """

    def __init__(self, source: Source, folder: Path) -> None:
        self._source = source
        self.settings: dict[str, Any] = json.loads(
            (folder / "adapter_config.json").read_text("utf-8")
        )
        self._parts: dict[str, dict[str, tuple[Path, str]]] = {}
        self._modules: dict[str, str] = {}
        self.whole: dict[str, tuple[Path, str]] = {}
        for file in self._files(folder):
            for name in source.names(file):
                self._place(file, name)

    @staticmethod
    def _files(folder: Path) -> list[Path]:
        adapter = [folder / f"adapter_model{end}" for end in (".safetensors", ".bin")]
        names = ("non_lora_trainables.bin", "non_lora_trainables.safetensors", "mm_projector.bin")
        trained = [folder / name for name in names]
        return [p for p in adapter if p.is_file()][:1] + [p for p in trained if p.is_file()]

    def _place(self, file: Path, name: str) -> None:
        bare = re.sub(r"^(?:base_model\.)?(?:model\.)?", "", name)
        for part, pattern in (("", _LORA), ("magnitude", _MAGNITUDE)):
            if match := pattern.search(bare):
                module = bare[: match.start()]
                target = role(f"{module}.weight")
                if target is None:
                    raise CheckpointError(f"{file}: {name} changes nothing that inference uses.")
                self._modules[target] = module
                self._parts.setdefault(target, {})[part or f"{match[1] or ''}{match[2]}"] = (
                    file,
                    name,
                )
                return
        if target := role(_SAVED.sub("", bare)):
            self.whole[target] = file, name

    def change(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        """Return `weight` with the change of its role, in its own dtype."""
        parts = {k: self._source.read(*at).float() for k, at in self._parts.get(name, {}).items()}
        if not parts:
            return weight
        if "embedding_A" in parts:
            delta = (parts["embedding_B"] @ parts["embedding_A"]).T * self._scale(
                name, len(parts["embedding_A"])
            )
        else:
            delta = parts["B"] @ parts["A"] * self._scale(name, len(parts["A"]))
        merged = weight.float() + delta
        if "magnitude" in parts:
            merged *= (parts["magnitude"] / merged.norm(dim=1))[:, None]
        return merged.to(weight.dtype)

    def _scale(self, name: str, rank: int) -> float:
        alpha = self._pattern("alpha_pattern", name, self.settings["lora_alpha"])
        return float(alpha) / (math.sqrt(rank) if self.settings.get("use_rslora") else rank)

    def _pattern(self, key: str, name: str, default: float) -> float:
        module = self._modules[name]
        for pattern, value in (self.settings.get(key) or {}).items():
            if re.match(rf"(.*\.)?({pattern})$", module):
                return float(value)
        return default
