"""Write the smaller kit's language model with a type for each matrix, within a number of bytes."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

from export import choose, ggml, golden, llm_logits
from export.choose import Matrix
from export.image_tokens import Float
from export.quantize.job import Job, Progress
from pulse_edge.errors import UsageError

MANIFEST_BYTES = 1 << 16
"""Bytes of --size that are reserved for manifest.json."""


def write_mixed(job: Job) -> None:
    """Choose the type of each matrix by its measured harm within the budget, and write the GGUF."""
    job.say("measuring every matrix at every type")
    matrices = choose.measure(job.source, job.importance, job.progress)
    budget = _budget(job, matrices)
    if job.options.sensitivity:
        matrices = choose.weighted(matrices, sensitivity(job, matrices, budget))
    types = choose.choose(matrices, budget)
    job.say("writing the language model")
    write_types(job.source, job.target, types, job.importance, job.threads, job.progress)


def write_types(
    source: Path,
    target: Path,
    types: Mapping[str, Type],
    importance: Mapping[str, Float],
    threads: int,
    progress: Progress = lambda _done, _of: None,
) -> None:
    """Write a GGUF with each matrix in the type that `types` names.

    `general.file_type`, which only names a file, says Q4_K_M.
    """
    ggml.quantize(
        source,
        target,
        "Q4_K_M",
        importance=importance,
        types=types,
        threads=threads,
        progress=progress,
    )


def _budget(job: Job, matrices: Sequence[Matrix]) -> int:
    """Return the bytes that the matrices may take.

    Raises UsageError where even the smallest types take more.
    """
    tensors = [t for t in gguf.GGUFReader(job.source).tensors if len(t.shape) > 1]
    if job.options.bpw is not None:
        return int(job.options.bpw * sum(int(t.n_elements) for t in tensors) / 8)
    rest = job.source.stat().st_size - sum(int(t.n_bytes) for t in tensors)
    others = sum(p.stat().st_size for p in job.work.rglob("*") if p.is_file())
    reserved = MANIFEST_BYTES + golden.room(job.base.manifest.language.vocabulary) * max(
        1, len(job.options.golden)
    )
    reserved += sum(page.stat().st_size for page in job.options.golden)
    budget = (job.options.size or 0) - others - rest - reserved
    if budget < sum(min(m.bytes.values()) for m in matrices):
        least = (job.options.size or 0) - budget + sum(min(m.bytes.values()) for m in matrices)
        raise UsageError(
            f"--size {job.options.size:,}: the smallest kit of this model takes {least:,} bytes."
        )
    return budget


def sensitivity(job: Job, matrices: list[Matrix], budget: int) -> dict[str, float]:
    """Measure the divergence of the calibration sample for each unit of a matrix's error.

    One matrix at a time is written in a smaller type, all others as in the base, and the model is
    run over the sample.
    """
    job.say("measuring what each matrix does to the answers")
    probes = job.probes
    original = llm_logits.answers(job.source, probes, job.threads)
    base = {t.name: t.tensor_type for t in gguf.GGUFReader(job.source).tensors if len(t.shape) > 1}
    share = budget / sum(max(m.bytes.values()) for m in matrices)
    result = {}
    with tempfile.TemporaryDirectory(prefix="pulse-edge-", dir=job.work) as folder:
        path = Path(folder) / "one.gguf"
        for i, m in enumerate(matrices):
            kind = _smaller_type(m, share)
            write_types(job.source, path, base | {m.name: kind}, job.importance, job.threads)
            changed = llm_logits.answers(path, probes, job.threads)
            divergence = np.concatenate(
                [llm_logits.divergence(a, b) for a, b in zip(original, changed, strict=True)]
            ).mean()
            result[m.name] = float(divergence) / max(m.harm[kind], 1e-30)
            job.progress(i + 1, len(matrices))
    return result


def _smaller_type(matrix: Matrix, share: float) -> Type:
    """Return the largest type below `share` of the matrix's largest, or its smallest type."""
    limit = share * max(matrix.bytes.values())
    fitting = [kind for kind, size in matrix.bytes.items() if size < limit]
    if fitting:
        return max(fitting, key=lambda kind: matrix.bytes[kind])
    return min(matrix.bytes, key=lambda kind: matrix.bytes[kind])
