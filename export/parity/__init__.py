"""Prove a kit against the original checkpoint on the same page; a failed proof leaves no kit.

The kit's side runs through pulse_edge, as on the laptop. The original's side is `export.reference`,
which shares no code with the converter or the runtime. In this order are compared: what the GGUF
and the manifest say, pixels and packing of pages of several shapes, image tokens, token ids, every
weight of the language model bit by bit, and the logits from the page to the prediction.

Both sides hold one layer in memory at a time, so that a 7B model needs little. A GGUF too large to
be mapped within the conversion's memory is compared in windows of whole layers, which are cut from
the finished file's own bytes and run in llama.cpp (`export.llm_logits`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from export import llm_logits
from export.parity import language_model, metadata, vision
from export.reference import Reference
from pulse_edge.kit.manifest import Manifest

FEW = 256
"""Image tokens of a model that is compared in windows: this takes minutes on a CPU instead of an
hour. The figures state how many there were."""


def prove(reference: Reference, kit: Path, manifest: Manifest, threads: int) -> dict[str, Any]:
    """Compare everything and return the figures for the manifest.

    Raises ParityError that says what differs.
    """
    agreement = metadata.compare(reference, kit, manifest)
    vision_figures, ours, theirs = vision.compare(reference, kit, manifest, threads)
    prompt_figures, before, after = metadata.compare_prompts(reference, kit, manifest, threads)
    if (kit / manifest.language.file).stat().st_size > llm_logits.WINDOW_BYTES:
        ours, theirs = ours[:FEW], theirs[:FEW]
    inputs = llm_logits.Input(ours, before, after)
    return {
        "metadata": agreement,
        "vision": vision_figures,
        "prompt": prompt_figures,
        "language": language_model.compare(reference, kit, manifest, inputs, theirs, threads),
    }
