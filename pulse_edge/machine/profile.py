"""What `doctor` found out about a kit on this machine, kept in the user's cache directory for later runs.

One file for each pair of a kit (its manifest's hash) and a machine (processor, cores, engines' versions): after an
update of the program or on another machine nothing is known. Refusals are not here: see selftest_results.py.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pulse_edge.common import files, folders, json_input, paths
from pulse_edge.errors import FolderError
from pulse_edge.kit.kit import Kit
from pulse_edge.machine import cpu

_ENGINES = ("llama-cpp-python", "onnxruntime", "onnxruntime-gpu", "pulse-edge")


@dataclass(frozen=True)
class Speed:
    """Measured on this machine with a kit, on the CPU."""

    load_seconds: float
    """Opening both engines, the kit's hashes remembered."""
    tile_seconds: float
    """Encoding one tile."""
    image_tokens_per_second: float
    """Reading image tokens or the tokens of a question."""
    tokens_per_second: float
    """Writing an answer."""
    prefill_threads: int
    decode_threads: int

    def seconds(self, tiles: int, rows: int, questions: Iterable[tuple[int, int]]) -> float:
        """For one page: `questions` are (tokens of its text, tokens of its answer)."""
        asked = list(questions)
        read = rows + sum(text for text, _ in asked)
        written = sum(answer for _, answer in asked)
        return (
            tiles * self.tile_seconds
            + read / self.image_tokens_per_second
            + written / self.tokens_per_second
        )


@dataclass(frozen=True)
class Kept:
    """What is known. Defaults: nothing."""

    speed: Speed | None = None


def engines() -> dict[str, str]:
    """Versions of what computes answers, as far as installed."""
    versions = {}
    for engine in _ENGINES:
        with contextlib.suppress(PackageNotFoundError):
            versions[engine] = version(engine)
    return versions


def key(usable: frozenset[int] | None = None) -> str:
    """Hex name of this machine as far as it can change an answer or its speed."""
    usable = cpu.allowed() if usable is None else usable
    about = [
        platform.machine(),
        cpu.name(),
        sorted(cpu.flags()),
        sorted(usable),
        cpu.quota(),
        engines(),
    ]
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def file(kit: Kit) -> Path:
    """Where what is known of `kit` on this machine is kept."""
    return paths.user_cache() / "machine" / f"{kit.sha256[:20]}-{key()[:20]}.json"


def recall(kit: Kit) -> Kept:
    """What was kept; nothing where nothing, or nothing readable, is."""
    try:
        raw = json_input.parse(json_input.read(file(kit)))
        speed = raw["speed"]
        return Kept(None if speed is None else _speed(speed))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Kept()


def _speed(raw: dict[str, Any]) -> Speed:
    speed = Speed(**{field.name: raw[field.name] for field in dataclasses.fields(Speed)})
    if not all(value > 0 for value in dataclasses.astuple(speed)):
        raise ValueError("no speed")
    return speed


def keep(kit: Kit, kept: Kept) -> str | None:
    """Replace what is kept, for the owner alone; why it could not be, or None."""
    path = file(kit)
    try:
        folders.claim(path.parent, "machine-profile", lambda: _is_older(path.parent))
        files.write_text(path, json.dumps(dataclasses.asdict(kept), indent=1))
    except FolderError as e:
        return str(e)
    except OSError as e:
        return f"{path}: cannot be written ({e.strerror or e})"
    return None


def _is_older(folder: Path) -> bool:
    """Whether a version before the marks made the folder: it holds profiles and nothing else."""
    return all(map(re.compile(r"[0-9a-f]{20}-[0-9a-f]{20}\.json").fullmatch, os.listdir(folder)))
