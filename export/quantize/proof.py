"""Compare the smaller kit with its base: files, weights and logits."""

from __future__ import annotations

import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from export import ggml, llm_logits
from export.image_tokens import Float, pack
from export.llm_logits import Input
from export.quantize.encoder import page_pixels
from export.quantize.job import Job
from pulse_edge.common.paths import EXAMPLE_PAGE
from pulse_edge.errors import ParityError
from pulse_edge.inference.language_model import LanguageModel, Settings
from pulse_edge.inference.vision_encoder import VisionEncoder
from pulse_edge.kit import prompt
from pulse_edge.kit.write import listing
from pulse_edge.page import reader

KLD_GATES = ((7.5, 0.004), (6.0, 0.02), (5.0, 0.06), (4.0, 0.15), (3.0, 0.6), (0.0, 5.0))
"""(bits per weight, largest mean KLD in nats) where no recipe sets a gate: ten times what
Llama-2-7B loses at Q8_0 (4e-4), Q6_K (2e-3), Q5_K_M and Q4_K_M (1.3e-2). Other models of the kind
lost less than that wherever they were measured (docs/proof.md)."""
ROWS = 64
"""Rows of each matrix that are compared with the base's rows, quantized on their own."""
_QUANTIZER_KEYS = ("general.file_type", "general.quantization_version", "quantize.imatrix.")
"""Keys that llama.cpp's quantizer writes itself."""


def bits_per_weight(path: Path) -> float:
    """Return the mean bits per weight of a GGUF's matrices."""
    matrices = [t for t in gguf.GGUFReader(path).tensors if len(t.shape) > 1]
    return float(
        8 * sum(int(t.n_bytes) for t in matrices) / sum(int(t.n_elements) for t in matrices)
    )


def require_same_files(job: Job) -> None:
    """Raise ParityError where a file that was copied from the base differs from it."""
    files, base = listing(job.work), job.base.manifest
    wrong = [
        n
        for n in (base.packing.newline_file, base.draft_table_file)
        if n and files.get(n) != base.files[n]
    ]
    if wrong:
        raise ParityError(
            f"{', '.join(wrong)}: not as in {job.base.path}. No kit was written; try again."
        )


def require_same_model(job: Job) -> dict[str, Any]:
    """Compare the GGUF's keys with the base's, and rows of every tensor with the base's rows.

    The base's rows are quantized on their own for it. Returns the figures for the manifest. Raises
    ParityError.
    """
    base, new = (gguf.GGUFReader(p) for p in (job.source, job.target))
    wrong = _other_keys(job, base, new)
    theirs, count = {t.name: t for t in base.tensors}, 0
    wrong += [
        f"{n} is in one of both only" for n in sorted(theirs.keys() ^ {t.name for t in new.tensors})
    ]
    for t in new.tensors:
        if t.name in theirs:
            rows = (
                np.linspace(0, len(t.data) - 1, min(len(t.data), ROWS)).astype(int)
                if t.data.ndim > 1
                else slice(None)
            )
            wrong += _other_rows(t, theirs[t.name], rows, job.importance.get(t.name))
            count += len(np.atleast_2d(t.data[rows]))
    if wrong:
        more = f"; and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise ParityError(
            f"{job.target.name}: not what the base becomes: {'; '.join(wrong[:5])}{more}. "
            "No kit was written."
        )
    return {"tensors": len(new.tensors), "weight_rows_compared": count, "weights_equal": True}


def _other_keys(job: Job, base: Any, new: Any) -> list[str]:
    """Return a line for each key that differs; ParityError where the file's type is another."""
    theirs, ours = (
        {
            n: f.contents()
            for n, f in r.fields.items()
            if not n.startswith(("GGUF.", *_QUANTIZER_KEYS))
        }
        for r in (base, new)
    )
    kind = new.fields["general.file_type"].contents()
    if job.options.llm and kind != ggml.file_type(job.options.llm):
        raise ParityError(
            f"{job.target.name}: is of type {kind}, asked was {job.options.llm}. "
            "No kit was written."
        )
    return [
        f"{n} is {str(ours.get(n))[:60]}, the base has {str(theirs.get(n))[:60]}"
        for n in sorted(theirs.keys() | ours.keys())
        if theirs.get(n) != ours.get(n)
    ]


def _other_rows(
    tensor: Any, base: Any, rows: npt.NDArray[np.int_] | slice, importance: Float | None
) -> list[str]:
    """Return a line if rows of a tensor are not the base's in the tensor's type."""
    ours = np.atleast_2d(np.ascontiguousarray(tensor.data[rows]))
    source = np.atleast_2d(np.ascontiguousarray(base.data[rows]))
    if tensor.tensor_type == base.tensor_type:
        expected = source.view(np.uint8)
    else:
        matrix = gguf.quants.dequantize(source, base.tensor_type).astype(np.float32)
        expected = ggml.packed(matrix, tensor.tensor_type, importance)
    same = np.array_equal(ours.view(np.uint8), expected)
    return [] if same else [f"{tensor.name} ({tensor.tensor_type.name}) has other weights"]


def compare_logits(job: Job, bits: float) -> dict[str, Any]:
    """Compare logits with the base's, behind the base's image tokens.

    Inputs are the example page and, for a model of up to llm_logits.WINDOW_BYTES, the calibration
    sample. Returns the figures for the manifest. Raises ParityError.
    """
    recipe, base = job.options.recipe, job.base.manifest.language
    allowed = (
        recipe.kld
        if recipe and recipe.kld is not None
        else next(kld for least, kld in KLD_GATES if bits >= least)
    )
    small = job.source.stat().st_size <= llm_logits.WINDOW_BYTES
    inputs = [_example(job, whole=small), *(job.probes if small else [])]
    divergences, same = [], []
    for one in inputs:
        original, how = llm_logits.compute(job.source, base.layers, one, job.threads, job.work)
        ours, _ = llm_logits.compute(
            job.target,
            base.layers,
            one,
            job.threads,
            job.work,
            key_cache_type=job.key_cache_type,
        )
        divergences.append(llm_logits.divergence(original, ours))
        same.append(original.argmax(-1) == ours.argmax(-1))
    divergence = np.concatenate(divergences)
    figures = {
        "pages": len(inputs),
        "positions": int(divergence.size),
        "bits_per_weight": round(bits, 3),
        "mean_kld": float(f"{divergence.mean():.3g}"),
        "kld_99_percent": float(f"{np.quantile(divergence, 0.99):.3g}"),
        "kld_required": allowed,
        "same_top_token": round(float(np.concatenate(same).mean()), 4),
        "against": f"{base.type} of the base",
        "compared": how,
    }
    if not divergence.mean() <= allowed:
        raise ParityError(
            f"{job.target.name}: mean KLD against the base {divergence.mean():.3g}, allowed "
            f"{allowed}. No kit was written; take more bits, or --stats."
        )
    return figures


def _example(job: Job, *, whole: bool) -> Input:
    """Return the example page with the report question.

    Unless `whole`, only the overview tile's image tokens: a large model is compared with few, as
    when it was converted.
    """
    m = job.base.manifest
    pixels = next(page_pixels(job))
    with closing(
        VisionEncoder(job.base.file(m.vision.file), device="cpu", threads=job.threads)
    ) as encoder:
        features = encoder.encode(pixels if whole else pixels[:1])
    newline = None
    if m.packing.newline_file:
        newline = np.fromfile(job.base.file(m.packing.newline_file), "<f4")
    page_size = reader.read(EXAMPLE_PAGE).image.size
    image_tokens = pack(features, m, newline, page_size) if whole else features[0]
    with tempfile.TemporaryDirectory(prefix="pulse-edge-", dir=job.work) as folder:
        small = Path(folder) / "tokenizer.gguf"
        llm_logits.write_layers(job.source, range(1), small)
        with closing(LanguageModel(small, Settings(context=256, threads=job.threads))) as model:
            before = model.tokenize(m.prompt.before, first=True)
            after = model.tokenize(prompt.fill(m.prompt.after, prompt.REPORT_QUESTION), first=False)
    return Input(image_tokens, before, after)
