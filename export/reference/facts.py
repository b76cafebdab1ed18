"""Read a checkpoint's configuration, for the proof alone.

Sizes come from the tensors themselves (see `tower` and `llama`); the configuration adds only what
no shape tells. Absent keys have the defaults of transformers' classes.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

from pulse_edge.errors import CheckpointError

_LARGE_336 = {
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
"""CLIP ViT-L/14-336, which original checkpoints name without carrying its configuration.

Source: its published config.json.
"""

_GRIDS = ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))
"""Default of transformers' LlavaNextConfig, (height, width)."""


def read(path: Path) -> dict[str, Any]:
    """Read a JSON object; return an empty one if there is no such file."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as e:
        raise CheckpointError(
            f"{path}: cannot be read for the proof ({e}). Fetch the checkpoint again."
        ) from None
    return value if isinstance(value, dict) else {}


class Facts:
    """The values of the configuration. Raises CheckpointError where a file is not JSON."""

    def __init__(
        self, folder: Path, *, lora: Path | None, tower: Path | None, merge: str | None
    ) -> None:
        own = lora is not None and (lora / "config.json").is_file()
        self.folder = lora if own and lora is not None else folder
        self.raw = read(self.folder / "config.json")
        self.generation = read(folder / "generation_config.json")
        self.hub = "text_config" in self.raw or "LlavaNext" in str(self.raw.get("architectures"))
        self.text: dict[str, Any] = self.raw.get("text_config") or {} if self.hub else self.raw
        self.tower_folder = tower or self._named_tower(folder)
        self.vision = self._vision()
        self.aspect = self.raw.get("image_aspect_ratio") or ("anyres" if self.hub else "square")
        default = "spatial_unpad" if self.hub else "flat"
        self.merge = merge or self.raw.get("mm_patch_merge_type") or default
        select = self.raw.get("vision_feature_layer" if self.hub else "mm_vision_select_layer")
        self.select = -2 if select is None else int(select)
        self.pinpoints = self._pinpoints() if self.aspect == "anyres" else ()

    @property
    def newline(self) -> bool:
        """Whether image_newline ends each line of the grid."""
        return self.aspect == "anyres" and self.merge == "spatial_unpad"

    @property
    def tower_layers(self) -> int:
        """Number of the tower's layers up to the selected hidden state; state 0 is the
        embeddings."""
        total = int(self.vision.get("num_hidden_layers", 12))
        return self.select if self.select >= 0 else total + 1 + self.select

    @property
    def rope(self) -> tuple[float, dict[str, Any] | None]:
        """Base, and scaling if there is one; transformers 5 keeps both in rope_parameters."""
        if five := self.text.get("rope_parameters"):
            scaling = {k: v for k, v in five.items() if k != "rope_theta"}
            kind = scaling.get("rope_type", scaling.get("type", "default"))
            return float(five.get("rope_theta") or 10000.0), None if kind == "default" else scaling
        four: dict[str, Any] = self.text.get("rope_scaling") or {}
        plain = four.get("rope_type", four.get("type", "default")) == "default"
        return float(self.text.get("rope_theta") or 10000.0), None if plain else four

    def special(self, key: str) -> Any:
        """Return a special token's id of the model's configuration: an int, a list, or None."""
        return self.text.get(key, self.raw.get(key))

    def _named_tower(self, folder: Path) -> Path | None:
        name = (
            ""
            if self.hub
            else str(self.raw.get("mm_vision_tower") or self.raw.get("vision_tower") or "")
        )
        places = (self.folder / name, folder / name, Path(name))
        return next((p for p in places if name and (p / "config.json").is_file()), None)

    def _vision(self) -> dict[str, Any]:
        if self.hub and self.raw.get("vision_config"):
            return dict(self.raw["vision_config"])
        if self.tower_folder is not None and (own := read(self.tower_folder / "config.json")):
            return dict(own.get("vision_config", own)) | (own.get("vision_config_dict") or {})
        return dict(_LARGE_336)

    def _pinpoints(self) -> tuple[tuple[int, int], ...]:
        """Return grids as (width, height).

        LLaVA writes them so; transformers' LlavaNext writes (height, width).
        """
        value = self.raw.get("image_grid_pinpoints") or (_GRIDS if self.hub else ())
        if isinstance(value, str):
            value = ast.literal_eval(value)
        pairs = tuple((int(a), int(b)) for a, b in value)
        return tuple((w, h) for h, w in pairs) if self.hub else pairs
