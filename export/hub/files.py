"""The files of a checkpoint that a conversion reads, and where huggingface_hub keeps them."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from export.models import ModelSpec
from pulse_edge.errors import FetchError

SMALL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "preprocessor_config.json",
    "processor_config.json",
    "README.md",
    "LICENSE*",
)
"""Files that a conversion reads besides the weights."""
_SAFETENSORS = ("*.safetensors", "*.safetensors.index.json")
_PICKLES = ("pytorch_model*.bin", "pytorch_model*.bin.index.json")
"""Weights that are fetched only where there are no safetensors."""
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ +@=-]{0,150}")
"""A name that is valid on every system and holds no path."""
HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
"""A git hash or a sha256."""


@dataclass(frozen=True)
class CheckpointFile:
    """One file of the commit, as the hub states it."""

    name: str
    bytes: int
    hash: str
    """sha256 (64 digits) of a Git LFS file, git's blob hash (40 digits) of any other. The hub sends
    it as ETag."""


@dataclass(frozen=True)
class Location:
    """Where huggingface_hub keeps the files of a commit."""

    directory: Path
    """Directory that holds the files under their names."""
    blobs: Path
    """Directory of unfinished files, `...{hash}.incomplete`; in the cache also of the finished
    ones, to which `directory` links."""
    own: bool
    """True for the caller's own directory, False for the cache."""
    locks: Path
    """Directory of the locks of files that are being fetched; huggingface_hub looks for them there
    too."""


def location_of(spec: ModelSpec, into: Path | None) -> Location:
    """Return where the files of a commit belong: in `into`, or in huggingface_hub's cache."""
    from huggingface_hub import constants

    if into is not None:
        notes = into / ".cache" / "huggingface" / "download"
        return Location(into, notes, own=True, locks=notes)
    cache, name = Path(constants.HF_HUB_CACHE), f"models--{spec.hub.replace('/', '--')}"
    locks = cache / ".locks" / name
    return Location(
        cache / name / "snapshots" / spec.revision, cache / name / "blobs", own=False, locks=locks
    )


def needed(spec: ModelSpec, names: Collection[str], where: str) -> list[str]:
    """Return the names of the files that a conversion reads. Files in folders never count.

    Raises FetchError if the names are those of no checkpoint; `where` says where they were listed.
    """

    def matching(patterns: tuple[str, ...]) -> list[str]:
        top = [name for name in names if "/" not in name and "\\" not in name]
        return [
            name for name in top if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
        ]

    weights = matching(_SAFETENSORS)
    if not fnmatch.filter(weights, "*.safetensors"):
        weights = matching(_PICKLES)
    if "config.json" not in names or not weights:
        lacking = "weights" if "config.json" in names else "config.json"
        raise FetchError(
            f"{spec.name}: {where} holds no {lacking}. Correct `hub` and `revision` in models.yaml."
        )
    return [*matching(SMALL_FILES), *weights]


def gigabytes(count: int) -> str:
    """Write a number of bytes as gigabytes."""
    return f"{count / 1e9:.2f} GB"
