"""Pages on which an answer turned between right and wrong, with all answers."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from calibration import ecgbench
from calibration.figures import ChangedAnswer, Comparison, Flip
from calibration.results import Results
from pulse_edge.errors import PulseEdgeError
from pulse_edge.page import reader

SHOWN = 24
"""Pages that report.html shows; report.json has all of them."""
WIDTH, QUALITY = 1000, 60
"""Size of a page's picture: largest side in pixels, and JPEG quality."""


def flips(results: Results, figures: Comparison) -> Iterator[Flip]:
    """Every question whose answer turned in some kit; those that most kits lost come first."""
    for task in figures.reference_kit.tasks:
        others = {name: figures.kits[name].tasks[task] for name in figures.others}
        ids = dict.fromkeys(i for of_task in others.values() for i in of_task.lost)
        ids |= dict.fromkeys(i for of_task in others.values() for i in of_task.gained)
        answers = {
            name: {a.question_id: a for a in results.answers(name, task)}
            for name in (figures.reference, *others)
        }
        turned = [
            (
                one,
                {
                    name: "lost" if one in of_task.lost else "gained"
                    for name, of_task in others.items()
                    if one in of_task.lost or one in of_task.gained
                },
            )
            for one in ids
        ]
        for one, ways in sorted(turned, key=lambda t: -sum(way == "lost" for way in t[1].values())):
            first = answers[figures.reference][one]
            yield Flip(
                task=task,
                id=one,
                image=first.image,
                question=first.prompt,
                gold=first.gold,
                reference=first.text,
                answers={n: ChangedAnswer(way, answers[n][one].text) for n, way in ways.items()},
            )


def shown(every: Sequence[Flip]) -> list[Flip]:
    """The flips that report.html shows: as many as SHOWN, from each task in turn."""
    tasks = {flip.task: [f for f in every if f.task == flip.task] for flip in every}
    turns = [some[n] for n in range(SHOWN) for some in tasks.values() if n < len(some)]
    return turns[:SHOWN]


def pictures(some: Sequence[Flip], bench: Path) -> dict[str, str]:
    """Pages as data URLs by path; empty where the data are no longer there."""
    urls: dict[str, str] = {}
    try:
        opened = ecgbench.open_bench(bench)
        for task in {flip.task for flip in some}:
            ids = {flip.id for flip in some if flip.task == task}
            for sample in opened.samples(task, lambda _: None, only=ids):
                if sample.picture and sample.image not in urls:
                    urls[sample.image] = _data_url(sample.picture)
    except PulseEdgeError:
        return urls
    return urls


def _data_url(picture: bytes) -> str:
    image = reader.read(picture).image
    image.thumbnail((WIDTH, WIDTH), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
