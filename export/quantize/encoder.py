"""Write the vision encoder of the smaller kit, and compare it with the base's."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from export import golden, vision
from export.image_tokens import Float, cosine, cut
from export.quantize.job import Job
from pulse_edge.common.paths import EXAMPLE_PAGE
from pulse_edge.errors import ParityError, UsageError
from pulse_edge.inference.vision_encoder import VisionEncoder
from pulse_edge.page import reader

COSINE = {"fp32": 0.999999, "fp16": 0.99999, "w8": 0.999, "int8": 0.998, "int8-static": 0.998}
"""Least mean cosine of image tokens with the base's, by type of the encoder."""
LENGTH = 0.01
"""Share by which image tokens may be longer or shorter than the base's in the mean; cosines do not
see it."""
ROUNDING = golden.PERTURBED
"""Share by which pixels are moved to see the effect of another processor's rounding: eight times
float32's own. The miniature's int8 image tokens then have a mean cosine of 0.9999 with themselves;
between processors it is 0.9999 to 1 (docs/benchmarks.md)."""
ROUNDING_COSINE = 0.999
"""Least mean cosine between an encoder's image tokens before and after moving the pixels: ten times
the distance of the miniature's int8 encoder. Other types reach 1.000000."""


def write_encoder(job: Job, notes: list[str]) -> tuple[str, dict[str, Any]]:
    """Write the encoder in the type asked for, or copy the base's where that is not good enough.

    A note says so in that case. Returns the encoder's type and the figures for the manifest.
    """
    spec, kind = job.base.manifest.vision, job.options.vision
    if kind in (None, spec.type):
        return _copy_encoder(job)
    job.say(f"writing the encoder as {kind}")
    ranges = job.stats.ranges if job.stats else {}
    if kind == "int8-static" and not ranges:
        raise UsageError("--vision int8-static needs the ranges of collected --stats.")
    vision.requantize(job.base.file(spec.file), job.work / spec.file, kind, ranges)
    figures = _compare_encoders(job, kind)
    mean, required = figures["cosine_mean"], figures["cosine_required"]
    same, same_required = figures["rounding_cosine_mean"], figures["rounding_cosine_required"]
    if mean >= required and same >= same_required:
        return kind, figures
    why = f"encoder as {kind}: mean row cosine {mean}, required {required}"
    why += f"; {same} between processors, required {same_required}; kept as {spec.type}"
    job.say(why)
    notes.append(why)
    for file in job.work.glob(f"{spec.file}*"):
        file.unlink()
    return _copy_encoder(job)


def _copy_encoder(job: Job) -> tuple[str, dict[str, Any]]:
    spec = job.base.manifest.vision
    for name in job.base.manifest.files:
        if name.startswith(spec.file):
            shutil.copyfile(job.base.file(name), job.work / name)
    return spec.type, {"compared": "the base's own encoder"}


def _compare_encoders(job: Job, kind: str) -> dict[str, Any]:
    """Measure row cosines on the example page and the calibration sample, on the worst processor.

    Integer sums are the same on all processors (see `saturates` in inference/vision_encoder.py).
    But other processors add float32 values in another order, and a value that then rounds to the
    other side moves all that follow. Pixels that are moved by as little have the same effect.
    """
    recipe, spec = job.options.recipe, job.base.manifest.vision
    required = recipe.cosine if recipe and recipe.cosine is not None else COSINE[kind]
    here, elsewhere, between = (list[npt.NDArray[np.float64]]() for _ in range(3))
    lengths = []
    with (
        closing(
            VisionEncoder(job.base.file(spec.file), device="cpu", threads=job.threads)
        ) as base_encoder,
        closing(
            VisionEncoder(job.work / spec.file, device="cpu", threads=job.threads)
        ) as new_encoder,
    ):
        for pixels in page_pixels(job):
            noise = np.random.default_rng(0).standard_normal(pixels.shape, np.float32)
            original, tokens = base_encoder.encode(pixels), new_encoder.encode(pixels)
            moved = new_encoder.encode(pixels * (1 + ROUNDING * noise))
            here.append(cosine(tokens, original).ravel())
            elsewhere.append(cosine(moved, original).ravel())
            between.append(cosine(moved, tokens).ravel())
            lengths.append(
                np.linalg.norm(tokens, axis=-1).sum() / np.linalg.norm(original, axis=-1).sum()
            )
    cosines = min(map(np.concatenate, (here, elsewhere)), key=np.mean)
    same = np.concatenate(between)
    length = float(np.mean(lengths))
    if not abs(length - 1) <= LENGTH:
        raise ParityError(
            f"{spec.file}: as {kind} its image tokens are {length:.3f} times as long as the "
            "base's. No kit was written; report it."
        )
    return {
        "pages": len(here),
        "rows": int(cosines.size),
        "cosine_mean": round(float(cosines.mean()), 6),
        "cosine_min": round(float(cosines.min()), 6),
        "cosine_required": required,
        "rounding_cosine_mean": round(float(same.mean()), 6),
        "rounding_cosine_min": round(float(same.min()), 6),
        "rounding_cosine_required": ROUNDING_COSINE,
        "length": round(length, 6),
        "against": f"{spec.type} of the base",
    }


def page_pixels(job: Job) -> Iterator[Float]:
    """Yield the pixels (n, 3, S, S) of the example page, then of the calibration sample."""
    pages: list[Path | Image.Image] = [EXAMPLE_PAGE]
    pages += [Image.open(io.BytesIO(p.picture)) for p in (job.stats.probes if job.stats else ())]
    for page in pages:
        yield cut(reader.read(page).image, job.base.manifest)
