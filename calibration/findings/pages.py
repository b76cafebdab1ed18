"""Which pages calibrate a kit's findings and which test them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from calibration import ecgbench, splits
from calibration.ecgbench import Bench
from calibration.splits import Split
from calibration.truths import Known, known_pages
from pulse_edge.errors import BenchError

SIDES = ("calibration", "test")
SHARE = 0.5
"""Share of the pages that calibrate where no split is given."""


@dataclass(frozen=True)
class Plan:
    """What to ask, and how careful to be."""

    bench: Path
    split: Path | None = None
    """None: half of the pages calibrate."""
    limit: int | None = None
    """Most pages of either side."""
    risk: float = 0.1
    """Largest error rate allowed among verdicts of either kind; see `platt.band`."""
    fitted: Path | None = None
    """A file of this command whose calibration is measured, instead of fitting one."""
    device: str = "auto"
    threads: int | None = None

    @property
    def sides(self) -> tuple[str, ...]:
        """The sides that are asked: a calibration fitted elsewhere is only tested."""
        return SIDES if self.fitted is None else SIDES[1:]


@dataclass(frozen=True)
class Job:
    """A page to ask about."""

    page: Known
    side: str


def open_split(bench: Bench, plan: Plan, note: ecgbench.Note) -> Split:
    """The plan's split, or halves; every page tests a calibration that was fitted elsewhere."""
    if plan.split is not None:
        return splits.load(plan.split)
    samples = (s for task in bench.tasks for s in bench.samples(task, note))
    halves = splits.split(samples, "pulse-edge findings", SHARE)
    if plan.fitted is None:
        return halves
    every = {
        task: tuple(sorted((*ids, *halves.calibration[task]))) for task, ids in halves.test.items()
    }
    return replace(halves, share=0.0, calibration={}, test=every)


def choose(bench: Bench, split: Split, plan: Plan, note: ecgbench.Note) -> list[Job]:
    """Pages of either side, ordered by a hash of their names, so that a limit takes of every task."""
    ids = {
        side: {(t, i) for t, names in getattr(split, side).items() for i in names}
        for side in plan.sides
    }
    pages: dict[str, list[Known]] = {side: [] for side in plan.sides}
    for page in _of_both_kinds(list(known_pages(bench, note))):
        ids_of_page = {(s.task, s.id) for s in page.samples}
        where = [side for side in plan.sides if ids_of_page & ids[side]]
        if len(where) == 1:
            pages[where[0]].append(page)
    for side in plan.sides:
        if not pages[side]:
            raise BenchError(
                f"{bench.path}: has no {side} page on which a statement's truth is known; "
                "give another split"
            )
        pages[side].sort(key=lambda page: hashlib.sha256(page.image.encode()).digest())
    return [Job(page, side) for side in plan.sides for page in pages[side][: plan.limit]]


def _of_both_kinds(pages: Sequence[Known]) -> Iterator[Known]:
    """Drop statements that are true of all pages or of none: asking them would teach nothing."""
    votes = {(key, there) for page in pages for key, there in page.truths.items()}
    both = {key for key, _ in votes if {(key, True), (key, False)} <= votes}
    for page in pages:
        if truths := {key: there for key, there in page.truths.items() if key in both}:
            yield replace(page, truths=truths)


def pictures(bench: Bench, jobs: Sequence[Job], note: ecgbench.Note) -> Iterator[tuple[Job, bytes]]:
    """Each job with its picture, which is read with its first question, task by task."""
    first = {(j.page.samples[0].task, j.page.samples[0].id): j for j in jobs}
    for task in dict.fromkeys(task for task, _ in first):
        for sample in bench.samples(task, note, only={name for t, name in first if t == task}):
            yield first[task, sample.id], sample.picture or b""
