"""Write lessons without end to stdout, for a trainer in another process: python -m
calibration.synthetic.stream --seed S ...

Lesson `i` of source `S` depends only on these two, so any number of processes (--first K --step N
each) give together the lessons of one.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from itertools import count
from pathlib import Path

import click
import numpy as np

from calibration.synthetic.lessons import Lesson, lesson
from calibration.synthetic.pages import Page, draw, page_at
from calibration.synthetic.questions import questions, vocabulary_corpus
from calibration.synthetic.real import Packed, open_packed
from calibration.synthetic.recording import HZ, twelve_leads
from calibration.synthetic.style import random_style

PINPOINTS = ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))
"""PULSE's grids, (width, height)."""


def lesson_at(
    seed: int, index: int, *, patch: int, size: int = 336, signals: Packed | None = None
) -> Lesson:
    """Lesson number `index` of source `seed`: a synthetic page, or in turn with these one of
    `signals`.
    """
    rng = np.random.default_rng(np.random.SeedSequence((seed, index, 1)))
    page = page_at(seed, index) if signals is None or index % 2 else _real(signals, index // 2, rng)
    turns = [turn for question in questions(page.recording, rng) for turn in question.turns]
    words = json.dumps(turns, ensure_ascii=False).encode()
    return lesson(page, words, size=size, patch=patch, pinpoints=PINPOINTS)


def _real(signals: Packed, index: int, rng: np.random.Generator) -> Page:
    """Recording after recording, each time through all of them with another start, gain, noise and
    style.

    The strip begins up to 0.8 s later and is so much shorter.
    """
    recording = signals[index % len(signals)]
    late = int(rng.integers(0, 4 * HZ // 5))
    moved = np.pad(recording.signal[:, late:], ((0, 0), (0, late)), constant_values=np.nan)
    eight = rng.normal(0, rng.uniform(0, 0.012), (8, moved.shape[1]))
    signal = (moved * rng.uniform(0.85, 1.18) + twelve_leads(eight)).astype(np.float32)
    return draw(replace(recording, signal=signal), random_style(rng))


@click.command()
@click.option("--seed", type=int, required=True)
@click.option("--first", type=int, default=0, show_default=True, help="Number of the first lesson.")
@click.option("--step", type=int, default=1, show_default=True, help="Every so many.")
@click.option("--count", "total", type=int, help="How many. Default: until the reader ends.")
@click.option("--patch", type=int, default=28, show_default=True, help="Pixels of a patch's side.")
@click.option(
    "--signals",
    type=click.Path(path_type=Path),
    help="Packed recordings (.npz) for every second lesson.",
)
@click.option(
    "--sentences", type=int, help="Write so many lines of questions and answers instead of lessons."
)
def main(
    seed: int,
    first: int,
    step: int,
    total: int | None,
    patch: int,
    signals: Path | None,
    sentences: int | None,
) -> None:
    """Write lessons to stdout."""
    if sentences is not None:
        click.echo(
            "\n".join(line.replace("\n", " ") for line in vocabulary_corpus(sentences, seed))
        )
        return
    packed = open_packed(signals) if signals else None
    numbers = count(first, step) if total is None else range(first, first + step * total, step)
    try:
        for index in numbers:
            lesson_at(seed, index, patch=patch, signals=packed).write(sys.stdout.buffer)
    except BrokenPipeError:
        sys.stderr.close()  # the trainer has ended


if __name__ == "__main__":
    main()
