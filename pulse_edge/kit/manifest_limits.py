"""What a kit's manifest claims about sizes, before anything is allocated or divided by it. Standard library only.

The manifest is a file from a USB drive: a number in it may be a typing error or an attack. Bounds are far beyond every
LLaVA of 7 to 34 billion parameters, and far below what hurts a laptop.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pulse_edge.kit import prompt

if TYPE_CHECKING:
    from pulse_edge.kit.kit import Language, Manifest, Packing, Prompt, Vision

MAX_TILES = 36
"""Of a grid. LLaVA-1.6 has up to 4, LLaVA-OneVision up to 36."""
MAX_TEXT = 16_384
"""Characters of the prompt on either side of the image."""
_BOUNDS = {
    "context_length": (64, 1 << 20),
    "embedding_length": (1, 1 << 16),
    "layers": (1, 1 << 10),
    "key_value_length": (1, 1 << 16),
    "vocabulary": (1, 1 << 20),
}


def check(manifest: Manifest) -> None:
    """Raise ValueError naming every claim that cannot be right, with its value."""
    wrong = [
        *_language(manifest.language),
        *_vision(manifest.vision),
        *_packing(manifest.packing, manifest.vision.image_size),
        *_prompt(manifest.prompt, manifest.language.context_length),
    ]
    if bad := sorted(name for name, file in manifest.files.items() if file.bytes < 0):
        wrong.append(f"files.{bad[0]}.bytes is negative")
    if not manifest.id.isprintable() or len(manifest.id) > MAX_TEXT:
        wrong.append("id holds characters that cannot be shown, or too many")
    if wrong:
        raise ValueError("; ".join(wrong))


def _language(language: Language) -> Iterator[str]:
    for name, (least, most) in _BOUNDS.items():
        if not least <= (value := getattr(language, name)) <= most:
            yield f"language.{name} is {_shown(value)}, expected {least} to {most}"


def _vision(vision: Vision) -> Iterator[str]:
    size, patches = vision.image_size, vision.patches_per_side
    if not 1 <= size <= 4096:
        yield f"vision.image_size is {_shown(size)}, expected 1 to 4096"
    elif not 1 <= patches <= size or size % patches:
        yield f"vision.patches_per_side is {_shown(patches)}, which does not divide a tile of {size} pixels"
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
                f"packing.grid_pinpoints has {_shown(width)} x {_shown(height)}, expected multiples of {_shown(size)} "
                f"with at most {MAX_TILES} tiles"
            )
            return


def _prompt(words: Prompt, context: int) -> Iterator[str]:
    if words.template not in prompt.TEMPLATES:
        yield f"prompt.template is {words.template[:40]!r}, this program has {', '.join(prompt.TEMPLATES)}"
    if not 1 <= words.max_tokens <= context:
        yield f"prompt.max_tokens is {_shown(words.max_tokens)}, expected 1 to the context of {_shown(context)}"
    for name in ("before", "after"):
        text = getattr(words, name)
        if len(text) > MAX_TEXT or not all(c.isprintable() or c in "\n\t" for c in text):
            yield f"prompt.{name} has more than {MAX_TEXT:,} characters, or control characters"


def _shown(value: int) -> str:
    """A number for a message: thousands of digits do not help."""
    return str(value) if abs(value) < 10**12 else "a number beyond 10^12"
