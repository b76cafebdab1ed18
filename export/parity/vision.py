"""Compare pixels, packing and image tokens of a kit with the original's."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch

from export.image_tokens import Float, cosine, cut, pack, relative_errors
from export.parity.gates import PIXEL, figures, require_variation, require_within
from export.reference import Reference, page, tower
from pulse_edge.common.paths import EXAMPLE_PAGE
from pulse_edge.errors import ParityError
from pulse_edge.inference.vision_encoder import VisionEncoder
from pulse_edge.kit.manifest import Manifest
from pulse_edge.page import reader


def compare(
    reference: Reference, kit: Path, manifest: Manifest, threads: int
) -> tuple[dict[str, Any], Float, Float]:
    """Compare the example page's image tokens, and the attention of CLS.

    Returns the figures, the kit's image tokens (T, d), and the original's. Raises ParityError.
    """
    spec, side = manifest.vision, tower.side(reference.source)
    pixel_difference, page_count = _compare_pages(reference, manifest, side)
    example = reader.read(EXAMPLE_PAGE)
    with closing(VisionEncoder(kit / spec.file, device="cpu", threads=threads)) as encoder:
        features, attention = encoder.attend(cut(example.image, manifest))
    name = manifest.packing.newline_file
    newline = np.fromfile(kit / name, "<f4") if name else None
    ours = pack(features, manifest, newline, example.image.size)
    picture = page.shapes(EXAMPLE_PAGE)[0]
    pixels = page.Pixels(reference.facts, side)(picture)
    original, original_attention = tower.features(reference.source, reference.facts, pixels)
    theirs = page.pack(reference.facts, original, picture.size, side, reference.newline)
    if ours.shape != theirs.shape:
        raise ParityError(
            f"{spec.file}: {ours.shape} image tokens, expected {theirs.shape}. No kit was written."
        )
    require_variation(theirs, "the vision encoder gives the same image token everywhere")
    # The expected rounding, from the first tile: in float64, with the weights that the kit holds.
    how = tower.Arithmetic(torch.float64, torch.float16 if spec.type == "fp16" else None)
    exact, exact_attention = tower.features(reference.source, reference.facts, pixels[:1], how)
    values = {
        "page": EXAMPLE_PAGE.name,
        "page_sha256": example.sha256,
        "pages": page_count,
        "rows": len(ours),
        "cosine_min": float(cosine(ours, theirs).min()),
        "largest_difference": float(np.abs(ours - theirs).max()),
        "largest_value": float(np.abs(theirs).max()),
        "pixel_difference": pixel_difference,
        "pixel_required": PIXEL,
        "against": "torch float32, read from the source files, one layer at a time",
    }
    values |= figures(
        "token", relative_errors(ours, theirs), relative_errors(exact[0], original[0])
    )
    largest = original_attention.max()
    values |= figures(
        "attention",
        np.abs(attention - original_attention) / largest,
        np.abs(exact_attention - original_attention[:1]) / largest,
    )
    gates = (
        ("pixel_difference", "pixel"),
        ("token_error", "token"),
        ("attention_error", "attention"),
    )
    require_within(spec.file, values, *gates)
    return values, ours, theirs


def _compare_pages(reference: Reference, manifest: Manifest, side: int) -> tuple[float, int]:
    """Compare pixels and packing of pages of several shapes.

    Returns the largest difference of a pixel, and the number of pages.
    """
    largest, original = 0.0, page.Pixels(reference.facts, side)
    pages = page.shapes(EXAMPLE_PAGE)
    for picture in pages:
        ours, theirs = cut(picture, manifest), original(picture)
        where = f"of a page of {picture.width} x {picture.height} pixels"
        if ours.shape != theirs.shape:
            raise ParityError(
                f"{ours.shape} pixels {where}, expected {theirs.shape}. No kit was written."
            )
        largest = max(largest, float(np.abs(ours - theirs).max()))
        patches = manifest.vision.patches_per_side**2
        numbered = np.arange(len(ours) * patches, dtype=np.float32).reshape(len(ours), patches, 1)
        newline = np.full(1, -1, np.float32) if reference.facts.newline else None
        order = pack(numbered, manifest, newline, picture.size)
        expected = page.pack(reference.facts, numbered, picture.size, side, newline)
        if not np.array_equal(order, expected):
            raise ParityError(
                f"image tokens {where} are not packed as the original packs them. "
                "No kit was written."
            )
    return largest, len(pages)
