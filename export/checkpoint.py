"""A checkpoint's tensors, opened lazily, under one set of names for all source layouts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import torch

from export.adapter import Adapter
from export.config import BUILT_IN_TOWERS, Config
from export.shards import (
    NEWLINE,
    PREFIXES,
    PROJECTOR,
    TOWER,
    TOWER_PREFIXES,
    Shards,
    Stored,
    canonical,
    has_weights,
    shown,
    weight_files,
)
from export.sources import refuse_types
from pulse_edge.errors import CheckpointError

__all__ = [
    "NEWLINE",
    "PROJECTOR",
    "TOWER",
    "Adapter",
    "Checkpoint",
    "canonical",
    "expected",
    "finite",
    "needs_newline",
]

_BUFFERS = (".position_ids", ".rotary_emb.inv_freq", ".masked_bias")
_LARGEST_SIZE = 1 << 24
"""Largest width, vocabulary or context that is believed; published ones are below a tenth of it."""
_LARGEST_REAL = 1e30
"""Largest value that a GGUF file holds as a 32-bit float; rope_theta of published models is
below 1e8."""
_MOST_TILES = 64
"""Most tiles of a page's grid: 64 tiles are 36,928 image tokens, nine times the context of
LLaVA-1.6."""
_NOT_THE_TOWER = ("text_model.", "text_projection.", "visual_projection.", "logit_scale")


class Checkpoint:
    """All tensors of a model, with an adapter merged in if there is one.

    Raises CheckpointError that lists everything that is missing, doubled, unexpected or of the
    wrong shape.
    """

    def __init__(
        self, path: Path, config: Config, *, tower_dir: Path | None, adapter: Adapter | None = None
    ) -> None:
        self.path = path
        self.config = config
        self.adapter = adapter
        self._shards = Shards()
        self.files = weight_files(path)
        """Weight files of the model and its tower; the adapter lists its own."""
        self.notes = adapter.notes if adapter else ()
        """What a reader of the kit must know about its source."""
        tensors, problems = self._collect(self.files, PREFIXES)
        if problems:
            raise CheckpointError(f"{path}: {shown(problems)}. Fetch the checkpoint again.")
        refuse_types(path, (s for _, s in tensors))
        tower = self._tower(any(name.startswith(TOWER) for name, _ in tensors), tower_dir)
        if tower:
            self.files += tower
            extra, more = self._collect(tower, TOWER_PREFIXES)
            extra = [(n, s) for n, s in extra if not s.name.startswith(_NOT_THE_TOWER)]
            refuse_types(tower[0].parent, (s for _, s in extra))
            tensors += extra
            problems += more
        count = Counter(name for name, _ in tensors)
        problems += [f"doubled: {name}" for name, n in count.items() if n > 1]
        self._stored = dict(tensors)
        _refuse_impossible(path, config, len(self._stored))
        problems += self._compare()
        if problems:
            raise CheckpointError(
                f"{path}: {shown(problems)}. Fetch or merge the checkpoint again."
            )

    def _collect(
        self, files: list[Path], prefixes: tuple[tuple[str, str], ...]
    ) -> tuple[list[tuple[str, Stored]], list[str]]:
        tensors, problems = [], []
        for file in files:
            try:
                stored = list(self._shards.listing(file))
            except CheckpointError as e:
                problems.append(str(e))
                continue
            tensors += [
                (canonical(s.name, prefixes), s) for s in stored if not s.name.endswith(_BUFFERS)
            ]
        return tensors, problems

    def _tower(self, inside: bool, tower_dir: Path | None) -> list[Path]:
        """Return the weight files of the tower's own folder.

        There are none where the tower's weights are `inside` the checkpoint.
        """
        named = self.config.tower
        folders = [self.path / named, Path(named)] if named else []
        if inside:
            described = named in BUILT_IN_TOWERS or any(
                (f / "config.json").is_file() for f in folders
            )
            if tower_dir is not None and (described or self.config.layout == "llava_next"):
                raise CheckpointError(
                    f"{self.path}: carries its own vision tower and its description, and "
                    f"--vision-tower {tower_dir} brings another. The model was trained with its "
                    "own: leave --vision-tower out."
                )
            if tower_dir is not None:
                self.notes += (
                    f"the vision tower's weights are the checkpoint's own; of {tower_dir.name} "
                    "only the description (config.json, preprocessor_config.json) was read.",
                )
            return []
        if tower_dir is not None:
            if not has_weights(tower_dir):
                raise CheckpointError(
                    f"{self.path}: has no vision tower, and --vision-tower {tower_dir} holds no "
                    "weights either (no *.safetensors, no pytorch_model*.bin). Fetch all files of "
                    "the tower into that folder."
                )
            return weight_files(tower_dir)
        for folder in folders:
            if folder.is_dir() and has_weights(folder):
                return weight_files(folder)
        raise CheckpointError(
            f"{self.path}: has no vision tower, and none lies in a folder of its own (config: "
            f"{named or 'none named'}). Give the tower's folder, with its config.json and weights, "
            "with --vision-tower."
        )

    def _compare(self) -> list[str]:
        """Return the differences between the stored tensors and those that the config promises."""
        needed, optional = expected(self.config)
        added = self.adapter.added() if self.adapter else {}
        shapes = {name: s.shape for name, s in self._stored.items()} | added
        allowed = needed | optional
        problems = [f"missing: {n}" for n in sorted(needed.keys() - shapes.keys())]
        problems += [f"unexpected: {n}" for n in sorted(shapes.keys() - allowed.keys())]
        problems += [
            f"shape of {n} is {list(shape)}, the config says {list(allowed[n])}"
            for n, shape in sorted(shapes.items())
            if n in allowed and shape != allowed[n]
        ]
        if self.adapter:
            problems += self.adapter.misfits(
                shapes, tied=bool(self.config.text.tie_word_embeddings)
            )
        return problems

    def names(self) -> list[str]:
        """Return the names of all tensors, in file order."""
        added = self.adapter.added() if self.adapter else {}
        return list(self._stored) + [n for n in added if n not in self._stored]

    def __contains__(self, name: str) -> bool:
        return name in self._stored or (self.adapter is not None and name in self.adapter.added())

    def tensor(self, name: str) -> torch.Tensor:
        """Return a tensor by its name in the original LLaVA layout, in the checkpoint's dtype."""
        if self.adapter is not None and name in self.adapter.added():
            return self.adapter.replacement(name)
        weight = self._shards.read(self._stored[name])
        return weight if self.adapter is None else self.adapter.merge(name, weight)


def _refuse_impossible(path: Path, config: Config, tensors: int) -> None:
    """Raise CheckpointError for sizes that no model has, before anything is allocated."""
    text, vision = config.text, config.vision
    sizes = {
        "hidden_size": text.hidden_size,
        "intermediate_size": text.intermediate_size,
        "vocab_size": text.vocab_size,
        "num_attention_heads": text.num_attention_heads,
        "num_key_value_heads": text.num_key_value_heads,
        "max_position_embeddings": text.max_position_embeddings,
        "vision hidden_size": vision.hidden_size,
        "vision intermediate_size": vision.intermediate_size,
        "vision num_attention_heads": vision.num_attention_heads,
        "vision image_size": vision.image_size,
        "vision patch_size": vision.patch_size,
    }
    wrong = [
        f"{k} is {v!r}"
        for k, v in sizes.items()
        if type(v) is not int or not 1 <= v <= _LARGEST_SIZE
    ]
    reals = {
        "rope_theta": text.rope_theta,
        "rms_norm_eps": text.rms_norm_eps,
        "vision layer_norm_eps": vision.layer_norm_eps,
    }
    wrong += [
        f"{k} is {v!r}"
        for k, v in reals.items()
        if type(v) not in (int, float) or not 0 < v < _LARGEST_REAL
    ]
    # Each layer has at least one tensor: a config that promises more would fill the memory with
    # names.
    layers = {
        "num_hidden_layers": text.num_hidden_layers,
        "vision num_hidden_layers": vision.num_hidden_layers,
    }
    wrong += [
        f"{key} is {n}, and there are {tensors} tensors"
        for key, n in layers.items()
        if type(n) is not int or not 1 <= n <= tensors
    ]
    wrong += [
        f"image_grid_pinpoints has {w} x {h}"
        for w, h in config.pinpoints
        if _tiles(config, w, h) > _MOST_TILES
    ]
    if wrong:
        raise CheckpointError(
            f"{path}: {shown(wrong)}, which no model has. Fetch the checkpoint's config.json again."
        )


def _tiles(config: Config, width: int, height: int) -> int:
    side = int(config.vision.image_size)
    return (width // side) * (height // side)


def expected(config: Config) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Return the shapes of the tensors that the config promises.

    The first value holds needed tensors; the second one those that may be there and are not
    converted.
    """
    text = config.text
    d, ff, vocabulary = text.hidden_size, text.intermediate_size, text.vocab_size
    q, kv = text.num_attention_heads * config.head_dim, text.num_key_value_heads * config.head_dim
    needed: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocabulary, d),
        "model.norm.weight": (d,),
    }
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


def _expected_tower(
    config: Config,
) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    vision = config.vision
    v, ff, patch = vision.hidden_size, vision.intermediate_size, vision.patch_size
    needed: dict[str, tuple[int, ...]] = {
        TOWER + "embeddings.class_embedding": (v,),
        TOWER + "embeddings.patch_embedding.weight": (v, 3, patch, patch),
        TOWER + "embeddings.position_embedding.weight": (config.patches_per_side**2 + 1, v),
    }
    needed |= {f"{TOWER}pre_layrnorm.{x}": (v,) for x in ("weight", "bias")}
    optional: dict[str, tuple[int, ...]] = {
        f"{TOWER}post_layernorm.{x}": (v,) for x in ("weight", "bias")
    }
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
    """Whether every value is a finite number."""
    # One pass at memory speed (a sum in float64 is thirty times slower); both ends are NaN if any
    # value is.
    return tensor.numel() == 0 or all(bool(torch.isfinite(end)) for end in torch.aminmax(tensor))
