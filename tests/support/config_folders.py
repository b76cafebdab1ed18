"""Copies of a small checkpoint with other values in config.json and the files next to it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from export import tokenizer
from export.checkpoint import Checkpoint
from export.config import Config, read_config

LLAVA, HUB = "llava", "llava_next"
"""Layouts of checkpoints: the original one, and transformers'."""
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
PINPOINTS = ((56, 112), (112, 56), (112, 112), (168, 56), (56, 168))
GRID = [list(point) for point in PINPOINTS]


def lay(
    source: Path, out: Path, config: dict[str, Any], files: dict[str, Any] | None = None
) -> Path:
    """A copy with other values in config.json (`text_config` and `vision_config` are merged) and
    other files."""
    shutil.copytree(source, out)
    raw = json.loads((out / "config.json").read_text())
    for key, value in config.items():
        raw[key] = (
            raw[key] | value
            if isinstance(raw.get(key), dict) and isinstance(value, dict)
            else value
        )
    (out / "config.json").write_text(json.dumps(raw))
    for name, value in (files or {}).items():
        (out / name).write_text(json.dumps(value))
    return out


def read(folder: Path) -> Config:
    """The config, after everything that is refused before any work was."""
    config = read_config(folder / "config.json", tower_dir=None)
    Checkpoint(folder, config, tower_dir=None)
    tokenizer.read(folder, config)
    return config
