"""Compare the language model's weights and logits with the original's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import torch

from export import llm_logits
from export.image_tokens import Float
from export.llm_logits import Input, divergence
from export.parity import gates
from export.parity.gates import TOP_TOKEN_LEAD, refuse, require_variation, require_within
from export.parity.metadata import ROPE
from export.reference import Reference, expect, llama
from pulse_edge.errors import ParityError
from pulse_edge.kit.manifest import Manifest


def compare(
    reference: Reference,
    kit: Path,
    manifest: Manifest,
    inputs: Input,
    theirs: Float,
    threads: int,
) -> dict[str, Any]:
    """Compare every weight, and the logits behind every token after the image.

    llama.cpp reads the kit's image tokens (`inputs`), torch in float32 the original's, `theirs`
    (T, d). Returns the figures for the manifest. Raises ParityError.
    """
    spec = manifest.language
    path = kit / spec.file
    weights = _WeightComparison(path, reference, spec.type)
    original, rounded = llama.logits(
        reference.source,
        reference.facts,
        theirs,
        inputs.before,
        inputs.after,
        expect.DTYPES[spec.type],
        weights.compare,
    )
    refuse(spec.file, weights.problems(), "its weights are not the source's")
    _require_alive(original)
    ours, how = llm_logits.compute(path, spec.layers, inputs, threads, kit)
    top, lead = int(original[-1].argmax()), float(np.diff(np.sort(original[-1])[-2:])[0])
    expected = float(divergence(original, rounded).mean())
    values = {
        "image_tokens": len(inputs.image_tokens),
        "tokens": len(inputs.before) + len(inputs.after),
        "positions": len(inputs.after),
        "weights_equal": True,
        "mean_kld": float(f"{divergence(original, ours).mean():.3g}"),
        "kld_expected": float(f"{expected:.3g}"),
        "kld_required": float(f"{gates.allowed('kld', expected):.3g}"),
        "same_top_token": bool(ours[-1].argmax() == top),
        "top_token_lead": round(lead, 4),
        "largest_difference": float(np.abs(original - ours).max()),
        "against": "torch float32, read from the source files, one layer at a time",
        "compared": how,
    }
    values |= gates.figures(
        "logit", *(np.abs(original - x) / original.std() for x in (ours, rounded))
    )
    require_within(spec.file, values, ("mean_kld", "kld"), ("logit_error", "logit"))
    if not values["same_top_token"] and lead > TOP_TOKEN_LEAD:
        raise ParityError(
            f"{spec.file}: predicts another token than the original, whose lead is {lead:.3g}. "
            "No kit was written."
        )
    return values


class _WeightComparison:
    """Compares every tensor of a GGUF, bit by bit, with the one that the original's side reads."""

    def __init__(self, path: Path, reference: Reference, kind: str) -> None:
        self._path, self._kind = path, kind
        self._shape = llama.shape(reference.source, reference.facts)
        # Offsets alone: pages of a mapping would count as this process's memory.
        self._at = {
            t.name: (t.tensor_type.name.lower(), int(t.data_offset))
            for t in gguf.GGUFReader(path).tensors
        }
        self._not_compared = set(self._at) - {ROPE}
        self.wrong: list[str] = []

    def compare(self, role: str, stored: torch.Tensor) -> None:
        """Compare a tensor of the source with the GGUF's."""
        name = expect.name(role)
        expected = expect.tensor(role, stored, self._shape, self._kind)
        kind = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}[expected.dtype]
        if name not in self._at or self._at[name][0] != kind:
            self.wrong.append(f"{name} is {self._at.get(name, ('absent', 0))[0]}, expected {kind}")
        elif not np.array_equal(
            self._bytes(name, expected), expected.contiguous().view(torch.uint8).numpy().ravel()
        ):
            self.wrong.append(f"{name} has other weights")
        self._not_compared.discard(name)

    def _bytes(self, name: str, like: torch.Tensor) -> npt.NDArray[np.uint8]:
        """Read as many bytes of a tensor as `like` has; fewer where the file ends."""
        count = like.numel() * like.element_size()
        return (
            np.fromfile(self._path, np.uint8, count, offset=self._at[name][1])
            if name in self._at
            else np.empty(0, np.uint8)
        )

    def problems(self) -> list[str]:
        """Return the differences, once every tensor of the source has been compared."""
        return self.wrong + [f"{name} is not of the source" for name in sorted(self._not_compared)]


def _require_alive(original: Float) -> None:
    """Raise ParityError for a model with constant logits, over tokens or positions.

    Any kit would equal such a model.
    """
    if not np.isfinite(original).all():
        raise ParityError(
            "nothing can be proven: the original's logits are not numbers. Fetch the checkpoint "
            "again."
        )
    if not original.std(-1).min() > 1e-3:
        raise ParityError(
            "nothing can be proven: the original gives every token the same logit. "
            "Fetch the checkpoint again."
        )
    require_variation(original, "the original's logits are the same whatever it has read")
