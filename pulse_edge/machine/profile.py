"""The machine profile: the speed that `pulse-edge doctor` measured with a kit on this machine,
stored for later runs.

The user's cache directory has one file for each pair of a kit (its manifest's hash) and a machine
(processor, cores, engines' versions): after an update of the program, or on another machine, it is
measured again. Refusals are stored elsewhere: see `self_test_results`. Standard library only.
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

from pulse_edge.common import files, folders, json_input, paths
from pulse_edge.errors import FolderError
from pulse_edge.kit.kit import Kit
from pulse_edge.machine import cpu

_ENGINES = ("llama-cpp-python", "onnxruntime", "onnxruntime-gpu", "pulse-edge")
_PROFILE = re.compile(r"[0-9a-f]{20}-[0-9a-f]{20}\.json")


@dataclass(frozen=True)
class Speed:
    """Speed of a kit on this machine's CPU."""

    load_seconds: float
    """Time to open both engines, with the kit's hashes remembered."""
    tile_seconds: float
    """Time to encode one tile."""
    image_tokens_per_second: float
    """Prefill of image tokens, or of the tokens of a question."""
    tokens_per_second: float
    """Decoding of an answer."""
    prefill_threads: int
    decode_threads: int

    def seconds(self, tiles: int, image_tokens: int, questions: Iterable[tuple[int, int]]) -> float:
        """Return the seconds of one page: `questions` are (tokens of its text, tokens of its
        answer)."""
        pairs = list(questions)
        prefilled = image_tokens + sum(text for text, _ in pairs)
        decoded = sum(answer for _, answer in pairs)
        return (
            tiles * self.tile_seconds
            + prefilled / self.image_tokens_per_second
            + decoded / self.tokens_per_second
        )


@dataclass(frozen=True)
class MachineProfile:
    """Everything that was measured; empty by default."""

    speed: Speed | None = None


def engines() -> dict[str, str]:
    """Versions of the installed programs that compute answers."""
    versions = {}
    for engine in _ENGINES:
        with contextlib.suppress(PackageNotFoundError):
            versions[engine] = version(engine)
    return versions


def key(usable: frozenset[int] | None = None) -> str:
    """Return a hash of everything about this machine that can change an answer or its speed.

    `usable`: numbers of the processors that may be used (None: those of this process).
    """
    usable = cpu.allowed() if usable is None else usable
    parts = [
        platform.machine(),
        cpu.name(),
        sorted(cpu.flags()),
        sorted(usable),
        cpu.quota(),
        engines(),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def file(kit: Kit) -> Path:
    """Return the path of a kit's profile on this machine."""
    return paths.user_cache() / "machine" / f"{kit.sha256[:20]}-{key()[:20]}.json"


def recall(kit: Kit) -> MachineProfile:
    """Load the stored profile; return an empty one if the file is missing or damaged."""
    try:
        raw = json_input.parse(json_input.read(file(kit)))
        profile: MachineProfile = json_input.build(MachineProfile, raw, "profile")
    except (OSError, ValueError):
        return MachineProfile()
    if profile.speed is not None and not all(v > 0 for v in dataclasses.astuple(profile.speed)):
        return MachineProfile()
    return profile


def store(kit: Kit, profile: MachineProfile) -> str | None:
    """Replace the stored profile, for its owner alone; return why that failed, or None."""
    path = file(kit)
    try:
        folders.claim(path.parent, "machine-profile", lambda: _holds_profiles_only(path.parent))
        files.write_text(path, json.dumps(dataclasses.asdict(profile), indent=1))
    except FolderError as e:
        return str(e)
    except OSError as e:
        return f"{path}: cannot be written ({e.strerror or e})"
    return None


def _holds_profiles_only(folder: Path) -> bool:
    """Whether an unmarked folder holds nothing but profiles, so that it may be marked."""
    return all(map(_PROFILE.fullmatch, os.listdir(folder)))
