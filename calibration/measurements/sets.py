"""The pages of each set, made one by one from a folder of recordings and pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.measurements.pages import (
    TruthPage,
    encoded,
    photographed_records,
    photographs,
    scale_printed,
    scanned_pairs,
    synthetic,
    whole,
)
from calibration.measurements.recordings import MarkedRecording, recordings
from calibration.synthetic import distortions
from calibration.synthetic.style import PageStyle, random_style
from pulse_edge.errors import BenchError

Array = NDArray[Any]
DEVELOPMENT = ("ludb_dev", "ptbxl_cases_dev")
"""Recordings on which tracing, delineation and limits were developed."""
HELD_OUT = ("train_more", "records/ptbxl_fold9")
"""Recordings at 200 Hz that tracing and delineation were not developed on; they have no marks."""
PHOTOGRAPHS = "photos_more_dev"
CAMERA_PX_PER_MM = 8.0
"""Resolution of the pages that are distorted: a page of 297 mm fills a photo of 4 megapixels."""
PIXELS_PER_MM = {"300 dpi": 300 / 25.4, "200 dpi": 200 / 25.4}
STRENGTHS: Mapping[str, tuple[Callable[..., Array], float, float]] = {
    "shadow": (distortions.shadow, 0.2, 0.7),
    "perspective": (distortions.perspective, 0.15, 0.6),
    "fold": (distortions.folds, 0.15, 0.6),
    "blur": (distortions.blur, 0.15, 0.4),
    "fax": (distortions.fax, 0.2, 1.0),
}
"""Distortion -> function, and the strengths between which it is drawn (0 to 1)."""
SCANS: Mapping[str, tuple[Callable[..., Array], str]] = {
    "grey, 300 dpi": (distortions.scan, "300 dpi"),
    "grey, 200 dpi": (distortions.scan, "200 dpi"),
    "black and white, 200 dpi": (distortions.fax, "200 dpi"),
}


@dataclass(frozen=True)
class Plan:
    """What is measured."""

    data: Path
    """Folder with recordings and pictures."""
    sets: tuple[str, ...] = ("recordings", "synthetic", "distorted", "scans", "photos")
    pages: int | None = None
    """Largest number of pages of a set; None: all recordings once."""
    seed: int = 0
    recordings: tuple[str, ...] = DEVELOPMENT
    photographs: str = PHOTOGRAPHS


@dataclass(frozen=True)
class SetDescription:
    """What a set is, in words of the report."""

    title: str
    text: str


DESCRIPTIONS: Mapping[str, SetDescription] = {
    "recordings": SetDescription(
        "Recordings", "Measured from the signal itself, twelve leads of ten seconds: no page."
    ),
    "synthetic": SetDescription(
        "Synthetic pages",
        "Each recording as a clean page in a random style: all layouts, speeds, gains and grids.",
    ),
    "distorted": SetDescription(
        "Distorted pages",
        "Synthetic pages at 8 pixels a millimetre with one distortion each: shadow, perspective, "
        "fold, blur or fax.",
    ),
    "scans": SetDescription(
        "Scans",
        "Synthetic pages as scans: grey at 300 and 200 dpi, black and white at 200 dpi; and real "
        "black-and-white scans, whose truth is the trace of the clean page.",
    ),
    "photos": SetDescription(
        "Photographs", "Phone photographs of printed pages whose signals were published."
    ),
}


def pages(plan: Plan, name: str) -> Iterator[TruthPage]:
    """The pages of the set `name`. BenchError where the data for it are absent or wrong."""
    count = 0
    for page in _MAKERS[name](plan):
        count += 1
        yield page
    if not count:
        raise BenchError(f"{plan.data}: holds nothing for the set {name}; see docs/evaluation.md")


def _chosen(plan: Plan) -> Iterator[MarkedRecording]:
    """The recordings in a random order, as many as there are pages."""
    every = list(recordings(plan.data, plan.recordings))
    order = np.random.default_rng(plan.seed).permutation(len(every))
    return (every[n] for n in order[: plan.pages])


def _styles(plan: Plan) -> Iterator[tuple[MarkedRecording, PageStyle, np.random.Generator]]:
    for index, recording in enumerate(_chosen(plan)):
        rng = np.random.default_rng((plan.seed, index))
        yield recording, random_style(rng), rng


def _recordings(plan: Plan) -> Iterator[TruthPage]:
    """Only those with marks: without them there is nothing to compare with."""
    every = _chosen(replace(plan, pages=None))
    marked = (whole(recording) for recording in every if recording.marks)
    return islice(marked, plan.pages)


def _synthetic(plan: Plan) -> Iterator[TruthPage]:
    for recording, style, _ in _styles(plan):
        pixels, printed = synthetic(recording, style)
        name = f"{recording.name} {_words(style)}"
        page = TruthPage(name, recording.name, encoded(pixels), printed)
        yield _with_marks(page, recording, style, style.layout)


def _distorted(plan: Plan) -> Iterator[TruthPage]:
    kinds = list(STRENGTHS)
    for index, (recording, style, rng) in enumerate(_styles(plan)):
        kind = kinds[index % len(kinds)]
        distort, low, high = STRENGTHS[kind]
        finer = _at(style, CAMERA_PX_PER_MM)
        pixels, printed = synthetic(recording, finer)
        strength = float(rng.uniform(low, high))
        picture = encoded(distort(pixels, strength, rng), "JPEG")
        name = f"{recording.name} {kind} {strength:.2f} {_words(style)}"
        page = TruthPage(name, recording.name, picture, printed)
        yield _with_marks(page, recording, style, kind)


def _scans(plan: Plan) -> Iterator[TruthPage]:
    kinds = list(SCANS)
    yield from scanned_pairs(plan.data)
    for index, (recording, style, rng) in enumerate(_styles(plan)):
        kind = kinds[index % len(kinds)]
        distort, resolution = SCANS[kind]
        finer = _at(style, PIXELS_PER_MM[resolution])
        pixels, printed = synthetic(recording, finer)
        picture = encoded(distort(pixels, float(rng.uniform(0.2, 1.0)), rng))
        name = f"{recording.name} {kind} {_words(style)}"
        page = TruthPage(name, recording.name, picture, printed)
        yield _with_marks(page, recording, style, kind)


def _photos(plan: Plan) -> Iterator[TruthPage]:
    every = photographed_records(plan.data)
    if (plan.data / f"{plan.photographs}.npz").exists():
        every = chain(photographs(plan.data, plan.photographs), every)
    return islice(every, plan.pages)


_MAKERS: Mapping[str, Callable[[Plan], Iterator[TruthPage]]] = {
    "recordings": _recordings,
    "synthetic": _synthetic,
    "distorted": _distorted,
    "scans": _scans,
    "photos": _photos,
}


def _at(style: PageStyle, px_per_mm: float) -> PageStyle:
    """The same page at another resolution: line and blur grow with it."""
    factor = px_per_mm / style.px_per_mm
    return replace(
        style,
        px_per_mm=px_per_mm,
        ink_px=style.ink_px * factor,
        soft_px=style.soft_px * factor,
    )


def _words(style: PageStyle) -> str:
    return f"{style.layout} {style.speed:g} mm/s {style.gain:g} mm/mV"


def _with_marks(
    page: TruthPage, recording: MarkedRecording, style: PageStyle, kind: str
) -> TruthPage:
    return replace(
        page,
        kind=kind,
        marks=recording.marks,
        paced=recording.paced,
        scale_printed=scale_printed(style),
    )
