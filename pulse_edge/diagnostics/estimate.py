"""Estimate the time and memory of `interpret` for a page from the machine profile, without loading
the kit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pulse_edge.common.text import duration
from pulse_edge.inference import tiling, token_pruning
from pulse_edge.kit.manifest import Manifest
from pulse_edge.machine import memory, memory_plan
from pulse_edge.machine.profile import Speed
from pulse_edge.measurement import admission
from pulse_edge.page.reader import Page

BYTES_PER_TOKEN = 3.5
"""Average bytes of a token of English text in Llama's vocabulary. Image tokens outnumber those of
the questions by far."""
ANSWER = 100
"""Tokens of a long report, for which the time of an answer is estimated."""


@dataclass(frozen=True)
class Estimate:
    """The estimate for one page. Seconds are null where `doctor` has not run with this kit on this
    machine."""

    file: str
    tiles: int
    image_tokens: int
    questions: int
    max_tokens: int
    """Limit of an answer's tokens."""
    first_words: float | None
    """Seconds to the first answer's first token, loading included."""
    answer: float | None
    """Seconds that an answer of `ANSWER` tokens then takes; one of `max_tokens` takes `max_tokens`
    / `ANSWER` times as many."""
    whole: float | None
    """Seconds for everything, with answers of `ANSWER` tokens."""


def estimate(
    page: Page,
    manifest: Manifest,
    speed: Speed | None,
    questions: Sequence[str],
    max_tokens: int | None,
    *,
    straighten: bool = True,
    force: bool = False,
    image_tokens: str = token_pruning.ALL,
) -> Estimate:
    """Flatten and judge the page as `interpret` does, and estimate the rest. Raises PageRefused as
    it does."""
    checked = admission.check(page, straighten=straighten).checked
    if not force:
        admission.raise_if_refused(checked)
    count, read = geometry(manifest, checked.flat.image.size, image_tokens)
    limit = manifest.prompt.max_tokens if max_tokens is None else max_tokens
    texts = [int(len((manifest.prompt.after + q).encode()) / BYTES_PER_TOKEN) for q in questions]
    answer = min(ANSWER, limit)
    first = written = whole = None
    if speed is not None:
        before = int(len(manifest.prompt.before.encode()) / BYTES_PER_TOKEN)
        first = (
            speed.load_seconds
            + checked.seconds
            + speed.seconds(count, before + read, [(texts[0], 1)])
        )
        written = answer / speed.tokens_per_second
        whole = first + speed.seconds(0, 0, [(0, answer), *((text, answer) for text in texts[1:])])
    return Estimate(page.name, count, read, len(questions), limit, first, written, whole)


def geometry(
    manifest: Manifest, size: tuple[int, int], image_tokens: str = token_pruning.ALL
) -> tuple[int, int]:
    """Return (tiles, most image tokens that are read) of a page of `size` (width, height)
    pixels."""
    packing, side = manifest.packing, manifest.vision.patches_per_side
    packing_options: dict[str, Any] = {
        "size": manifest.vision.image_size,
        "aspect_ratio": packing.aspect_ratio,
        "pinpoints": packing.grid_pinpoints,
        "merge": packing.merge,
        "newline": None if packing.newline_file is None else np.zeros(1, np.float32),
    }
    count = 1
    if packing.aspect_ratio == "anyres":
        width, height = tiling.best_grid(size, packing.grid_pinpoints)
        count += (width // manifest.vision.image_size) * (height // manifest.vision.image_size)
    blank = np.zeros((count, side**2, 1), np.float32)
    packed = tiling.pack(blank, page_size=size, **packing_options)
    if image_tokens == token_pruning.ALL:
        return count, len(packed)
    padding = tiling.padding(size, patches=side**2, **packing_options)
    return count, len(
        token_pruning.positions(image_tokens, padding, np.zeros(len(packed), np.float32), side)
    )


def describe(page: Estimate) -> str:
    """Return an estimate as a line for people."""
    line = f"{page.file}: {page.tiles} tiles, {page.image_tokens} image tokens"
    if page.first_words is None or page.answer is None or page.whole is None:
        return f"{line}; how long it takes is not known yet: run pulse-edge doctor with this kit"
    spent = f"first words after {duration(page.first_words)}, then {duration(page.answer)} for an "
    spent += f"answer of {min(ANSWER, page.max_tokens)} tokens (at most {page.max_tokens})"
    several = f"; {page.questions} questions {duration(page.whole)}" if page.questions > 1 else ""
    return f"{line}; {spent}{several}"


def describe_memory(plan: memory_plan.Plan) -> str:
    """Return a memory plan as a line for people."""
    free = "" if plan.budget is None else f" of {memory.shown(plan.budget)} that may be taken"
    closed = (
        ", the encoder closed before the language model is loaded" if plan.encoder_first else ""
    )
    return f"memory: at most {memory.shown(plan.peak)}{free}: {plan.text}, context {plan.context}{closed}"
