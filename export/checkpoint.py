"""A checkpoint's tensors, opened lazily, under one set of names whatever the source layout.

The names inside are those of the original LLaVA layout. Shards are safetensors or PyTorch zip files; one tensor is read
at a time, and nothing stays mapped, so that memory does not grow with the checkpoint.
"""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from pulse_edge.errors import CheckpointError

from .config import Config, read_json

TOWER = "model.vision_tower.vision_tower.vision_model."
PROJECTOR = "model.mm_projector."
NEWLINE = "model.image_newline"

# First matching prefix wins. transformers up to 4, transformers 5, and LLaVA checkpoints saved under transformers 5
# (whose CLIPVisionModel has no `vision_model.` level).
_PREFIXES = (
    ("language_model.model.", "model."),
    ("language_model.lm_head.", "lm_head."),
    ("model.language_model.", "model."),
    ("model.multi_modal_projector.linear_1.", PROJECTOR + "0."),
    ("model.multi_modal_projector.linear_2.", PROJECTOR + "2."),
    ("multi_modal_projector.linear_1.", PROJECTOR + "0."),
    ("multi_modal_projector.linear_2.", PROJECTOR + "2."),
    ("image_newline", NEWLINE),
    (TOWER, TOWER),
    ("model.vision_tower.vision_tower.", TOWER),
    ("model.vision_tower.vision_model.", TOWER),
    ("model.vision_tower.", TOWER),
    ("vision_tower.vision_model.", TOWER),
    ("vision_tower.", TOWER),
)
_TOWER_PREFIXES = (("vision_model.", TOWER), ("", TOWER))
_BUFFERS = (".position_ids", ".rotary_emb.inv_freq", ".masked_bias")
_NOT_THE_TOWER = ("text_model.", "text_projection.", "visual_projection.", "logit_scale")


def canonical(name: str, prefixes: tuple[tuple[str, str], ...] = _PREFIXES) -> str:
    """The name inside, for a name in any of the known layouts."""
    for old, new in prefixes:
        if name.startswith(old):
            return new + name[len(old) :]
    return name


@dataclass(frozen=True)
class Stored:
    """Where a tensor lies."""

    file: Path
    name: str
    shape: tuple[int, ...]


class Shards:
    """Reads single tensors from safetensors and PyTorch files. Holds at most one PyTorch file mapped."""

    def __init__(self) -> None:
        self._open: tuple[Path, dict[str, torch.Tensor]] | None = None

    def listing(self, file: Path) -> Iterator[Stored]:
        """What a file holds. Raises CheckpointError for a truncated file or a pickle of other things than tensors."""
        if file.suffix == ".safetensors":
            try:
                with safe_open(file, "pt") as f:
                    for name in f.keys():  # noqa: SIM118 (safe_open is no dict)
                        yield Stored(file, name, tuple(f.get_slice(name).get_shape()))
            except (SafetensorError, OSError) as e:
                raise CheckpointError(f"{file.name}: truncated or no safetensors file ({e})") from None
        else:
            for name, tensor in self._pytorch(file).items():
                yield Stored(file, name, tuple(tensor.shape))

    def read(self, stored: Stored) -> torch.Tensor:
        """The tensor, in its own dtype."""
        if stored.file.suffix != ".safetensors":
            return self._pytorch(stored.file)[stored.name]
        # Opened anew each time: pages of a mapping that stays open would count as this process's memory.
        with safe_open(stored.file, "pt") as f:
            return f.get_tensor(stored.name)  # type: ignore[no-any-return]

    def _pytorch(self, file: Path) -> dict[str, torch.Tensor]:
        if self._open is None or self._open[0] != file:
            try:
                loaded = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
            except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError, KeyError) as e:
                reason = str(e).split("\n")[0].split(". ")[0]
                raise CheckpointError(f"{file.name}: not a plain PyTorch file of tensors ({reason})") from None
            if not isinstance(loaded, dict) or not all(isinstance(t, torch.Tensor) for t in loaded.values()):
                raise CheckpointError(f"{file.name}: holds other things than tensors")
            self._open = file, loaded
        return self._open[1]


class Checkpoint:
    """All tensors of a model, with an adapter merged in where there is one.

    Raises CheckpointError listing everything that is missing, doubled, unexpected or of the wrong shape.
    """

    def __init__(self, path: Path, config: Config, *, tower_dir: Path | None, adapter: Adapter | None = None) -> None:
        self.path = path
        self.config = config
        self._shards = Shards()
        self._adapter = adapter
        self.files = _weight_files(path)
        found, problems = self._collect(self.files, _PREFIXES)
        if problems:
            raise CheckpointError(f"{path}: {_shown(problems)}. Fetch the checkpoint again.")
        tower = self._tower(found, tower_dir)
        if tower:
            self.files += tower
            extra, more = self._collect(tower, _TOWER_PREFIXES)
            found += [(n, s) for n, s in extra if not s.name.startswith(_NOT_THE_TOWER)]
            problems += more
        count = Counter(name for name, _ in found)
        problems += [f"doubled: {name}" for name, n in count.items() if n > 1]
        self._stored = dict(found)
        problems += self._compare()
        if problems:
            raise CheckpointError(f"{path}: {_shown(problems)}. Fetch or merge the checkpoint again.")

    def _collect(
        self, files: list[Path], prefixes: tuple[tuple[str, str], ...]
    ) -> tuple[list[tuple[str, Stored]], list[str]]:
        found, problems = [], []
        for file in files:
            try:
                stored = list(self._shards.listing(file))
            except CheckpointError as e:
                problems.append(str(e))
                continue
            found += [(canonical(s.name, prefixes), s) for s in stored if not s.name.endswith(_BUFFERS)]
        return found, problems

    def _tower(self, found: list[tuple[str, Stored]], tower_dir: Path | None) -> list[Path]:
        """Weight files of the tower's own folder, where the shards have no tower."""
        inside = any(name.startswith(TOWER) for name, _ in found)
        folder = tower_dir or (self.path / self.config.tower if self.config.tower else None)
        beside = _weight_files(folder) if folder is not None and folder.is_dir() and _has_weights(folder) else []
        if inside and tower_dir is not None and beside:
            raise CheckpointError(
                f"{self.path}: carries its own vision tower, and --vision-tower {tower_dir} brings another. PULSE's "
                "own was trained with it: leave --vision-tower out."
            )
        if inside:
            return []
        if not beside:
            raise CheckpointError(
                f"{self.path}: has no vision tower, and none lies in a folder beside it (config: "
                f"{self.config.tower or 'none named'}). Give its folder with --vision-tower."
            )
        return beside

    def _compare(self) -> list[str]:
        """Differences between what is stored and what the config promises."""
        needed, optional = expected(self.config)
        added = self._adapter.added() if self._adapter else {}
        shapes = {name: s.shape for name, s in self._stored.items()} | added
        known = needed | optional
        problems = [f"missing: {n}" for n in sorted(needed.keys() - shapes.keys())]
        problems += [f"unexpected: {n}" for n in sorted(shapes.keys() - known.keys())]
        problems += [
            f"shape of {n} is {list(shape)}, the config says {list(known[n])}"
            for n, shape in sorted(shapes.items())
            if n in known and shape != known[n]
        ]
        if self._adapter:
            problems += self._adapter.misfits(shapes)
        return problems

    def names(self) -> list[str]:
        """In file order."""
        added = self._adapter.added() if self._adapter else {}
        return list(self._stored) + [n for n in added if n not in self._stored]

    def __contains__(self, name: str) -> bool:
        return name in self._stored or (self._adapter is not None and name in self._adapter.added())

    def tensor(self, name: str) -> torch.Tensor:
        """The tensor of a name inside, in the checkpoint's dtype."""
        if self._adapter is not None and name in self._adapter.added():
            return self._adapter.replacement(name)
        weight = self._shards.read(self._stored[name])
        return weight if self._adapter is None else self._adapter.merge(name, weight)


class Adapter:
    """A LLaVA LoRA folder: adapter_config.json, adapter_model.*, and non_lora_trainables.bin with whole tensors.

    Source of the formats: PEFT's LoraConfig and LLaVA's train.py. W' = W + scale * B A, computed in float32 and rounded
    to W's dtype; scale is alpha / r, or alpha / sqrt(r) with use_rslora.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._shards = Shards()
        self._scale = self._read_scale(path / "adapter_config.json")
        self.files = [_only(path, "adapter_model")]
        pairs: dict[str, dict[str, Stored]] = {}
        for stored in self._shards.listing(self.files[0]):
            module, side = self._module(stored)
            pairs.setdefault(module, {})[side] = stored
        broken = sorted(m for m, sides in pairs.items() if set(sides) != {"A", "B"})
        if broken:
            raise CheckpointError(f"{path}: only one half of the adapter of {_shown(broken)}.")
        self._pairs = pairs
        whole = path / "non_lora_trainables.bin"
        self._whole: dict[str, Stored] = {}
        if whole.is_file():
            self.files.append(whole)
            self._whole = {canonical(_bare(s.name)): s for s in self._shards.listing(whole)}

    @staticmethod
    def _read_scale(path: Path) -> float:
        raw = read_json(path)
        only: dict[str, tuple[Any, ...]] = {
            "peft_type": ("LORA",),
            "bias": ("none",),
            "use_dora": (False, None),
            "fan_in_fan_out": (False, None),
            "modules_to_save": (None, []),
            "rank_pattern": ({}, None),
            "alpha_pattern": ({}, None),
        }
        wrong = [f"{k} is {raw[k]!r}" for k, allowed in only.items() if k in raw and raw[k] not in allowed]
        r, alpha = raw.get("r"), raw.get("lora_alpha")
        if not isinstance(r, int) or r < 1 or not isinstance(alpha, int | float):
            wrong.append(f"r is {r!r} and lora_alpha {alpha!r}")
        if wrong:
            raise CheckpointError(f"{path}: cannot be merged: {'; '.join(wrong)}.")
        assert isinstance(r, int)
        assert isinstance(alpha, int | float)
        return float(alpha) / (r**0.5 if raw.get("use_rslora") else r)

    def _module(self, stored: Stored) -> tuple[str, str]:
        name = _bare(stored.name).replace(".default.", ".")
        for side in ("A", "B"):
            if name.endswith(f".lora_{side}.weight"):
                return canonical(name.removesuffix(f".lora_{side}.weight") + ".weight"), side
        raise CheckpointError(f"{self.path}: {stored.name} is no LoRA matrix.")

    def added(self) -> dict[str, tuple[int, ...]]:
        """Whole tensors that it brings, which replace those of the base or are new; name -> shape."""
        return {name: s.shape for name, s in self._whole.items()}

    def misfits(self, shapes: dict[str, tuple[int, ...]]) -> list[str]:
        """LoRA matrices whose target is absent or has another shape."""
        problems = []
        for name, sides in self._pairs.items():
            a, b = sides["A"].shape, sides["B"].shape
            if name not in shapes:
                problems.append(f"the adapter changes {name}, which does not exist")
            elif len(a) != 2 or len(b) != 2 or a[0] != b[1] or (b[0], a[1]) != shapes[name]:
                problems.append(f"the adapter of {name} is {list(b)} x {list(a)} for {list(shapes[name])}")
        return problems

    def replacement(self, name: str) -> torch.Tensor:
        """A whole tensor."""
        return self.merge(name, self._shards.read(self._whole[name]))

    def merge(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        """`weight` with its low-rank change, in its own dtype."""
        if name not in self._pairs:
            return weight
        a, b = (self._shards.read(self._pairs[name][side]).float() for side in "AB")
        return torch.addmm(weight.float(), b, a, alpha=self._scale).to(weight.dtype)


def expected(config: Config) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Shapes of the tensors that the config promises: needed ones, and ones that may be there and are not converted."""
    text = config.text
    d, ff, vocabulary = text.hidden_size, text.intermediate_size, text.vocab_size
    q, kv = text.num_attention_heads * config.head_dim, text.num_key_value_heads * config.head_dim
    needed: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, d), "model.norm.weight": (d,)}
    layer = {
        "self_attn.q_proj": (q, d),
        "self_attn.k_proj": (kv, d),
        "self_attn.v_proj": (kv, d),
        "self_attn.o_proj": (d, q),
        "mlp.gate_proj": (ff, d),
        "mlp.up_proj": (ff, d),
        "mlp.down_proj": (d, ff),
        "input_layernorm": (d,),
        "post_attention_layernorm": (d,),
    }
    for i in range(text.num_hidden_layers):
        needed |= {f"model.layers.{i}.{name}.weight": shape for name, shape in layer.items()}
    optional: dict[str, tuple[int, ...]] = {}
    (optional if text.tie_word_embeddings else needed)["lm_head.weight"] = (vocabulary, d)
    (needed if needs_newline(config) else optional)[NEWLINE] = (d,)
    v = int(config.vision.hidden_size)
    needed |= {PROJECTOR + "0.weight": (d, v), PROJECTOR + "0.bias": (d,)}
    needed |= {PROJECTOR + "2.weight": (d, d), PROJECTOR + "2.bias": (d,)}
    tower_needed, tower_optional = _expected_tower(config)
    return needed | tower_needed, optional | tower_optional


def _expected_tower(config: Config) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    vision = config.vision
    v, ff, patch = vision.hidden_size, vision.intermediate_size, vision.patch_size
    needed: dict[str, tuple[int, ...]] = {
        TOWER + "embeddings.class_embedding": (v,),
        TOWER + "embeddings.patch_embedding.weight": (v, 3, patch, patch),
        TOWER + "embeddings.position_embedding.weight": (config.patches_per_side**2 + 1, v),
    }
    needed |= {f"{TOWER}pre_layrnorm.{x}": (v,) for x in ("weight", "bias")}
    optional: dict[str, tuple[int, ...]] = {f"{TOWER}post_layernorm.{x}": (v,) for x in ("weight", "bias")}
    layer: dict[str, tuple[int, ...]] = {"mlp.fc1.weight": (ff, v), "mlp.fc1.bias": (ff,)}
    layer |= {"mlp.fc2.weight": (v, ff), "mlp.fc2.bias": (v,)}
    for x in ("q_proj", "k_proj", "v_proj", "out_proj"):
        layer |= {f"self_attn.{x}.weight": (v, v), f"self_attn.{x}.bias": (v,)}
    layer |= {f"layer_norm{i}.{x}": (v,) for i in (1, 2) for x in ("weight", "bias")}
    for i in range(vision.num_hidden_layers):
        part = needed if i < config.vision_layers else optional
        part |= {f"{TOWER}encoder.layers.{i}.{name}": shape for name, shape in layer.items()}
    return needed, optional


def needs_newline(config: Config) -> bool:
    """Whether the packing inserts image_newline."""
    return config.aspect_ratio == "anyres" and config.merge == "spatial_unpad"


def finite(tensor: torch.Tensor) -> bool:
    """Whether every value is a number and not infinite."""
    # One pass at memory speed (a sum in float64 is thirty times slower); NaN is passed on by both ends.
    return tensor.numel() == 0 or all(bool(torch.isfinite(end)) for end in torch.aminmax(tensor))


def _has_weights(path: Path) -> bool:
    return any(path.glob("*.safetensors")) or any(path.glob("pytorch_model*.bin"))


def _weight_files(path: Path) -> list[Path]:
    """The weight files of a folder: those of its index, else all of the one kind. Raises CheckpointError."""
    for index, pattern in (
        ("model.safetensors.index.json", "*.safetensors"),
        ("pytorch_model.bin.index.json", "pytorch_model*.bin"),
    ):
        if (path / index).is_file():
            names = _named(path / index)
            outside = [n for n in names if Path(n).name != n]
            absent = [n for n in names if n not in outside and not (path / n).is_file()]
            if not names or outside or absent:
                raise CheckpointError(
                    f"{path / index}: names {_shown(outside + absent) or 'no files'}, which are not there. "
                    "Fetch the checkpoint again."
                )
            return [path / n for n in names]
        if files := sorted(path.glob(pattern)):
            return files
    raise CheckpointError(f"{path}: no *.safetensors and no pytorch_model*.bin. Name a checkpoint directory.")


def _named(index: Path) -> list[str]:
    """The files that an index names."""
    weights = read_json(index).get("weight_map", {})
    if not isinstance(weights, dict) or not all(isinstance(name, str) for name in weights.values()):
        raise CheckpointError(f"{index}: weight_map does not name files. Fetch the checkpoint again.")
    return sorted(set(weights.values()))


def _only(path: Path, stem: str) -> Path:
    for suffix in (".safetensors", ".bin"):
        if (path / (stem + suffix)).is_file():
            return path / (stem + suffix)
    raise CheckpointError(f"{path}: no {stem}.safetensors and no {stem}.bin. Name a LoRA folder with --lora.")


def _bare(name: str) -> str:
    """A PEFT name without its wrappers."""
    return name.removeprefix("base_model.").removeprefix("model.") if name.startswith("base_model.") else name


def _shown(problems: list[str], most: int = 40) -> str:
    left = len(problems) - most
    return "; ".join(problems[:most]) + (f"; and {left} more" if left > 0 else "")
