"""Read a manifest, and refuse one whose figures cannot be right before anything is allocated or
divided by them.

The manifest is a file from a USB drive: a number in it may be a typing error or an attack. The
bounds are far beyond every LLaVA of 7 to 34 billion parameters, and far below what hurts a laptop.
Standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import PurePosixPath

from pulse_edge.common import json_input
from pulse_edge.errors import KitError
from pulse_edge.kit import prompt
from pulse_edge.kit.manifest import (
    MANIFEST,
    MANIFEST_VERSION,
    Language,
    Manifest,
    Packing,
    Prompt,
    Vision,
)

MAX_NAME = 200
"""Characters of a file's name in a kit: every file system takes that many."""
MAX_TILES = 36
"""Tiles of a grid. LLaVA-1.6 has up to 4, LLaVA-OneVision up to 36."""
MAX_TEXT = 16_384
"""Characters of the prompt on either side of the image."""
_BOUNDS = {
    "context_length": (64, 1 << 20),
    "embedding_length": (1, 1 << 16),
    "layers": (1, 1 << 10),
    "key_value_length": (1, 1 << 16),
    "vocabulary": (1, 1 << 20),
}
_AGAIN = "Copy the kit again, or convert the checkpoint again."


def parse_manifest(text: str, where: str = MANIFEST) -> Manifest:
    """Return the manifest of a JSON text. Raises KitError for anything that this version does not
    understand."""
    try:
        raw = json_input.parse(text)
        if not isinstance(raw, dict):
            raise ValueError("not a JSON object")
        version = raw.get("manifest_version")
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise ValueError(f"manifest_version is {version!r}")
    except ValueError as e:
        raise KitError(f"{where}: not a kit's manifest ({e}). {_AGAIN}") from None
    if version > MANIFEST_VERSION:
        raise KitError(
            f"{where}: manifest version {version} is newer than this program understands "
            f"({MANIFEST_VERSION}). Update pulse-edge."
        )
    try:
        manifest: Manifest = json_input.build(Manifest, raw, "manifest")
        _check_names(manifest)
        _check_limits(manifest)
    except ValueError as e:
        raise KitError(f"{where}: {e}. {_AGAIN}") from None
    return manifest


def _check_names(manifest: Manifest) -> None:
    """Raise ValueError for names that lead out of the kit, and for files that are used and not
    listed."""
    for name in manifest.files:
        pure = PurePosixPath(name)
        odd = "\\" in name or ":" in name or not name.isprintable() or len(name) > MAX_NAME
        if pure.is_absolute() or ".." in pure.parts or odd or not pure.name or name == MANIFEST:
            raise ValueError(f"file name {name[:80]!r} is not allowed")
    used = (
        manifest.language.file,
        manifest.vision.file,
        manifest.packing.newline_file,
        manifest.draft_table_file,
    )
    for file in used:
        if file is not None and file not in manifest.files:
            raise ValueError(f"{file} is used but not listed under files")
    packing = manifest.packing
    if packing.aspect_ratio == "anyres":
        if not packing.grid_pinpoints:
            raise ValueError("packing anyres needs grid_pinpoints")
        if packing.merge == "spatial_unpad" and packing.newline_file is None:
            raise ValueError("packing spatial_unpad needs newline_file")
    if "{question}" not in manifest.prompt.after:
        raise ValueError("prompt.after has no {question}")


def _check_limits(manifest: Manifest) -> None:
    """Raise ValueError that names every figure that cannot be right, with its value."""
    faults = [
        *_language(manifest.language),
        *_vision(manifest.vision),
        *_packing(manifest.packing, manifest.vision.image_size),
        *_prompt(manifest.prompt, manifest.language.context_length),
    ]
    if negative := sorted(name for name, file in manifest.files.items() if file.bytes < 0):
        faults.append(f"files.{negative[0]}.bytes is negative")
    if not manifest.id.isprintable() or len(manifest.id) > MAX_TEXT:
        faults.append("id holds characters that cannot be shown, or too many")
    if faults:
        raise ValueError("; ".join(faults))


def _language(language: Language) -> Iterator[str]:
    for name, (least, most) in _BOUNDS.items():
        if not least <= (value := getattr(language, name)) <= most:
            yield f"language.{name} is {_shown(value)}, expected {least} to {most}"


def _vision(vision: Vision) -> Iterator[str]:
    size, patches = vision.image_size, vision.patches_per_side
    if not 1 <= size <= 4096:
        yield f"vision.image_size is {_shown(size)}, expected 1 to 4096"
    elif not 1 <= patches <= size or size % patches:
        yield (
            f"vision.patches_per_side is {_shown(patches)}, which does not divide a tile of "
            f"{size} pixels"
        )
    if not all(math.isfinite(m) and abs(m) <= 10 for m in vision.mean):
        yield f"vision.mean is {list(vision.mean)}, expected numbers of at most 10"
    if not all(math.isfinite(s) and 1e-3 <= s <= 10 for s in vision.std):
        yield f"vision.std is {list(vision.std)}, expected numbers from 0.001 to 10"


def _packing(packing: Packing, size: int) -> Iterator[str]:
    for width, height in packing.grid_pinpoints:
        whole = (
            size > 0 and width >= size and height >= size and not (width % size or height % size)
        )
        if not whole or (width // size) * (height // size) > MAX_TILES:
            yield (
                f"packing.grid_pinpoints has {_shown(width)} x {_shown(height)}, expected "
                f"multiples of {_shown(size)} with at most {MAX_TILES} tiles"
            )
            return


def _prompt(words: Prompt, context: int) -> Iterator[str]:
    if words.template not in prompt.TEMPLATES:
        names = ", ".join(prompt.TEMPLATES)
        yield f"prompt.template is {words.template[:40]!r}, this program has {names}"
    if not 1 <= words.max_tokens <= context:
        yield (
            f"prompt.max_tokens is {_shown(words.max_tokens)}, expected 1 to the context of "
            f"{_shown(context)}"
        )
    for name in ("before", "after"):
        text = getattr(words, name)
        if len(text) > MAX_TEXT or not all(c.isprintable() or c in "\n\t" for c in text):
            yield f"prompt.{name} has more than {MAX_TEXT:,} characters, or control characters"


def _shown(value: int) -> str:
    """A number for a message: thousands of digits do not help."""
    return str(value) if abs(value) < 10**12 else "a number beyond 10^12"
