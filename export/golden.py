"""Store golden cases in a kit: questions about pages with the answers that the kit gives here.

`pulse-edge doctor` compares them on other machines.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export import image_tokens
from pulse_edge import PulseModel
from pulse_edge.common import paths
from pulse_edge.common.arrays import Double
from pulse_edge.diagnostics.golden import FILE, case_of, differences, sampled
from pulse_edge.errors import UsageError
from pulse_edge.inference.device import default_threads
from pulse_edge.inference.language_model import LanguageModel, Settings
from pulse_edge.inference.page_encoder import EncodedPage
from pulse_edge.inference.vision_encoder import VisionEncoder
from pulse_edge.kit import prompt
from pulse_edge.kit.kit import Kit, open_kit
from pulse_edge.kit.write import listing, write_manifest
from pulse_edge.measurement import admission
from pulse_edge.page import reader

Progress = Callable[[int, int], None]
QUESTIONS = (
    prompt.REPORT_QUESTION,
    "Does this ECG show atrial fibrillation?",
    "What is the heart rate?",
)
PAGE = paths.EXAMPLE_PAGE
"""The page of a kit that names no other; it comes with the program."""
LATER = 16
"""Tokens behind the first one whose logits are stored."""
PERTURBED = 2.0**-20
"""Share by which pixels are moved before they are encoded once more, as a standard deviation.

What follows moves as it does where another processor adds float32 values in another order; an
encoder of integers rounds some values to the other side.
"""
FACTOR, RMS_FACTOR, LEAST = 3, 1.5, 0.01
"""Tolerated are three times the largest right difference of a logit and 1.5 times the right root
mean square, each at least 0.01.

Right root mean squares of one kit are within a quarter of one another, and 1 % of noise on the
weights gives 1.9 (Q4_K_M) to 3 times as much (Q2_K), on the miniature. A single logit tells them
apart less surely (docs/proof.md).
"""
LONGEST = 256
"""Longest stored answer in tokens."""
MOST = 4
"""Most pages: each takes as long as an interpretation with three questions, here and in every
`doctor`."""


def require(pages: Sequence[Path]) -> None:
    """Raise UsageError, ScanError or PageRefused for pages that cannot be golden cases.

    This happens before any long step.
    """
    if len(pages) > MOST:
        raise UsageError(
            f"--golden: {len(pages)} pages, at most {MOST}. Each is answered by every doctor."
        )
    for page in pages:
        if not page.is_file():
            raise UsageError(f"--golden {page}: no such file. Name a picture of an ECG page.")
        admission.admit(reader.read(page), straighten=True, force=False)


def add(
    kit: Path,
    pages: Sequence[Path],
    say: Callable[[str], None] = lambda _text: None,
    progress: Progress = lambda _done, _of: None,
) -> None:
    """Answer questions about pages with a finished kit, and store the golden cases in it.

    These are pages, answers and tolerances. The program's example page is only named;
    other pages are copied. `say` gets a line for each page, `progress` the number of its questions
    answered and their total. Raises ScanError or PageRefused.
    """
    if not pages:
        return
    opened = open_kit(kit)
    names = [
        PAGE.name if page == PAGE else f"golden-{n}{page.suffix.lower()}"
        for n, page in enumerate(pages, 1)
    ]
    say("golden cases: loading the new kit")
    encoded: list[_GoldenPage] = []
    cases: list[dict[str, Any]] = []
    with PulseModel.load(opened, device="cpu") as model:
        for number, (page, name) in enumerate(zip(pages, names, strict=True), 1):
            say(
                f"golden cases: {len(QUESTIONS)} questions about {page.name}, page {number} of "
                f"{len(pages)}"
            )
            encoded.append(_GoldenPage(name, model.encode(page)))
            cases += _cases(model, encoded[-1], progress)
    say("golden cases: measuring how far right answers of other machines may differ")
    for page, name in zip(pages, names, strict=True):
        if name != PAGE.name:
            shutil.copyfile(page, kit / name)
    content = _tolerances(opened, encoded, cases) | {"cases": cases}
    (kit / FILE).write_text(json.dumps(content, separators=(",", ":")) + "\n", "utf-8")
    write_manifest(kit, replace(opened.manifest, files=listing(kit)))


def room(vocabulary: int) -> int:
    """Return the largest number of bytes that the cases of one page take."""
    numbers = vocabulary + LATER * len(range(vocabulary)[sampled(vocabulary)])
    return len(QUESTIONS) * (10 * numbers + 16 * LONGEST)


@dataclass(frozen=True)
class _GoldenPage:
    """A page under its name in the kit."""

    name: str
    encoded: EncodedPage


def _cases(model: PulseModel, page: _GoldenPage, progress: Progress) -> Iterator[dict[str, Any]]:
    """Yield each question about a page with text, token ids and the logits of the first tokens."""
    for number, question in enumerate(QUESTIONS):
        progress(number, len(QUESTIONS))
        answering = model.ask(page.encoded, question, LONGEST)
        text = "".join(answering)
        if not answering.ids:
            continue  # an empty answer gives nothing to compare
        (logits,) = model.score(page.encoded, question, [answering.ids[: 1 + LATER]])
        rounded = np.round(logits.astype(np.float64), 4)
        yield {
            "page": page.name,
            "question": question,
            "text": text,
            "tokens": answering.ids,
            "first_logits": rounded[0].tolist(),
            "later_logits": rounded[1:, sampled(logits.shape[1])].tolist(),
        }


# --- tolerance ------------------------------------------------------------------------------------


def _tolerances(
    kit: Kit, pages: Sequence[_GoldenPage], cases: Sequence[dict[str, Any]]
) -> dict[str, float]:
    """Return how far stored logits may be off on another machine: each of them, and all together.

    The right differences come from llama.cpp's other kernels on this machine (weights repacked,
    tokens in fours), behind image tokens of pixels that differ in float32's last places. Machines
    other than the one that made the kit may differ as much.
    """
    largest = rms = 0.0
    for seed, (repack, width) in enumerate(((True, 256), (False, 4))):
        parts = [d for page in pages for d in _differences(kit, page, cases, seed, repack, width)]
        if parts:
            every = np.concatenate(parts)
            largest = max(largest, float(every.max()))
            rms = max(rms, float(np.sqrt(np.mean(np.square(every)))))
    tolerance, most = max(LEAST, FACTOR * largest), max(LEAST, RMS_FACTOR * rms)
    return {"tolerance": float(f"{tolerance:.2g}"), "rms_tolerance": float(f"{most:.2g}")}


def _differences(
    kit: Kit,
    page: _GoldenPage,
    cases: Sequence[dict[str, Any]],
    seed: int,
    repack: bool,
    width: int,
) -> Iterator[Double]:
    """Yield how far each case's stored logits differ when other kernels read the page."""
    m, image_tokens = kit.manifest, _moved(kit, page, seed)
    room = len(image_tokens) + m.prompt.max_tokens
    with closing(
        LanguageModel(
            kit.file(m.language.file),
            Settings(
                context=256 * -(-room // 256),
                threads=default_threads(),
                mapped=not repack,
                repack=repack,
                key_cache_type=m.language.key_cache_type,
            ),
        )
    ) as model:
        for case in (case_of(raw) for raw in cases if raw["page"] == page.name):
            model.prefill(page.name, m.prompt.before, image_tokens)
            text = model.tokenize(prompt.fill(m.prompt.after, case.question), first=False)
            ids = [*text, *case.tokens[: len(case.later_logits)]]
            parts = [
                model.feed_tokens(ids[at : at + width], every=True)
                for at in range(0, len(ids), width)
            ]
            yield differences(case, np.concatenate(parts)[len(text) - 1 :])


def _moved(kit: Kit, page: _GoldenPage, seed: int) -> npt.NDArray[np.float32]:
    """Return the image tokens of a page as another processor may compute them."""
    m, checked = kit.manifest, page.encoded.checked
    assert checked is not None  # `add` encodes with admission
    pixels = image_tokens.cut(checked.flat.image, m)
    pixels = pixels * (
        1 + PERTURBED * np.random.default_rng(seed).standard_normal(pixels.shape, np.float32)
    )
    with closing(
        VisionEncoder(kit.file(m.vision.file), device="cpu", threads=default_threads())
    ) as encoder:
        features = encoder.encode(pixels)
    name = m.packing.newline_file
    newline = np.fromfile(kit.file(name), "<f4") if name else None
    return image_tokens.pack(features, m, newline, checked.flat.image.size)
