"""Collect statistics: run a kit over calibration pages for `python -m export quantize --stats`.

Every sample takes the path of an answer: prompt, image tokens, question, and then the right answer
instead of the kit's own. `observers` sums what the matrices read; `statistics_file` is the result.

TARGET.partial is a complete statistics file too. A run that was killed at any moment is resumed
from it by the next call, which ends with the same bytes on a processor with the same instruction
sets.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import gguf

from calibration import ecgbench, splits, statistics_file
from calibration.ecgbench import Bench, Problem, Sample
from calibration.files import refuse_existing
from calibration.observers import Collector
from calibration.statistics_file import InputSums, Source, Statistics
from pulse_edge.common.files import file_sha256
from pulse_edge.errors import BenchError, ContextError, PageRefused, ScanError, UsageError
from pulse_edge.inference.device import default_threads
from pulse_edge.kit.kit import Kit, base_of, open_kit

SAVE_SECONDS = 20
"""Seconds of work that a kill can lose."""
SHOWN_SECONDS = 5
"""Seconds between two lines of progress."""
PROBES = 8
Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """The samples to collect on, and how."""

    bench: Path | None = None
    """None: synthetic pages, drawn into a temporary folder."""
    split: Path | None = None
    """A recorded split whose calibration ids are used; None: all ids."""
    samples: int = 128
    part: tuple[int, int] = (1, 1)
    """(i, n): every n-th sample from the i-th on; `calibration merge` joins the parts."""
    threads: int | None = None


def collect(
    kit: Path, target: Path, plan: Plan, force: bool = False, say: Say = lambda _: None
) -> None:
    """Write the statistics of a kit.

    BenchError where no sample can be used or `target` cannot be written.
    """
    if not force:
        refuse_existing(target)
    opened = open_kit(kit)
    with ExitStack() as stack:
        bench = ecgbench.open_bench(plan.bench or _synthetic(stack, plan, say))
        chosen, probes = choose(bench, plan)
        partial = target.with_name(target.name + ".partial")
        statistics = _resume(partial, _empty(opened, bench, plan))
        threads = plan.threads or default_threads()
        collector = stack.enter_context(Collector(opened, statistics, threads))
        part, parts = plan.part
        ids = {one for i, one in enumerate(sorted(chosen)) if i % parts == part - 1}
        run = Run(collector, statistics, partial, say)
        run.collect(_samples(bench, ids, statistics, say), len(ids), probes)
    if not statistics.done:
        raise BenchError(f"{bench.path}: no sample could be used; see what was left out, and why")
    statistics_file.save(statistics, target)
    partial.unlink(missing_ok=True)


def choose(bench: Bench, plan: Plan) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """(task, id) of the samples to use, taken from every task in turn, and of those that are
    probes.

    The order within a task depends on the samples' names alone.
    """
    if plan.samples < 1 or not 1 <= plan.part[0] <= plan.part[1]:
        raise UsageError(
            f"{plan.samples} samples, part {plan.part[0]} of {plan.part[1]}: expected at least one "
            "sample, and a part from 1 to the number of parts"
        )
    allowed = splits.load(plan.split).calibration if plan.split else None
    queues = []
    for task in bench.tasks:
        ids = [one.id for one in bench.samples(task, lambda _: None, pictures=False)]
        if allowed is not None:
            ids = sorted(set(ids) & set(allowed.get(task, ())))
        queues.append([(task, name) for name in sorted(ids, key=lambda name: _hash(task, name))])
    order = [queue[i] for i in range(max(map(len, queues))) for queue in queues if i < len(queue)]
    if not order:
        raise BenchError(
            f"{bench.path}: has none of the split's calibration ids; give the data that was divided"
        )
    return set(order[: plan.samples]), set(order[: min(PROBES, plan.samples)])


def _hash(task: str, name: str) -> bytes:
    return hashlib.sha256(f"{task}\n{name}".encode()).digest()


def _synthetic(stack: ExitStack, plan: Plan, say: Say) -> Path:
    """Draw as many pages as samples into a temporary folder."""
    from calibration.synthesize import Plan as Pages
    from calibration.synthesize import synthesize

    say("no --bench: drawing synthetic pages")
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pulse-edge-")))
    synthesize(folder / "synthetic", Pages(pages=plan.samples, seed=0))
    return folder / "synthetic"


# --- one run ----------------------------------------------------------------------------------


def _empty(kit: Kit, bench: Bench, plan: Plan) -> Statistics:
    """Statistics without a sample, for this kit and plan."""
    reader = gguf.GGUFReader(kit.file(kit.manifest.language.file))
    shapes = {t.name: [int(n) for n in t.shape] for t in reader.tensors}
    weights = {}
    for node, matrices in statistics_file.INPUTS.items():
        for i in range(kit.manifest.language.layers):
            weights.update({f"blk.{i}.{m}.weight": f"{node}-{i}" for m in matrices})
    if "output.weight" in shapes:
        weights["output.weight"] = statistics_file.OUTPUT
    sums = {node: InputSums.zero(shapes[weight][0]) for weight, node in weights.items()}
    source = Source(
        base=base_of(kit.manifest),
        kit=kit.manifest.id,
        context=kit.manifest.language.context_length,
        data="synthetic" if plan.bench is None else bench.path.resolve().name,
        samples=plan.samples,
        split=None if plan.split is None else file_sha256(plan.split),
    )
    return Statistics(source, weights, sums)


def _resume(partial: Path, empty: Statistics) -> Statistics:
    """The statistics of an interrupted run, or the empty ones."""
    if not partial.is_file():
        return empty
    statistics = statistics_file.load(partial)
    if statistics.source != empty.source or statistics.weights != empty.weights:
        raise BenchError(
            f"{partial}: is what another run left (other kit, data or settings); "
            "remove it to start again"
        )
    return statistics


def _samples(
    bench: Bench, ids: set[tuple[str, str]], statistics: Statistics, say: Say
) -> Iterator[Sample]:
    """The samples of these ids that are not done, in file order; `statistics` records unusable
    ones.
    """
    ids = ids - {(task, name) for task, name, _ in statistics.done + statistics.left_out}

    def note(problem: Problem) -> None:
        say(f"left out: {problem}")
        statistics.left_out.append((problem.task, problem.id, problem.what))

    for task in bench.tasks:
        if of_task := {name for t, name in ids if t == task}:
            yield from bench.samples(task, note, only=of_task)


@dataclass
class Run:
    """A collection under way."""

    collector: Collector
    statistics: Statistics
    partial: Path
    say: Say

    def collect(self, samples: Iterator[Sample], total: int, probes: set[tuple[str, str]]) -> None:
        """Use one sample after another, and save the statistics now and then."""
        statistics = self.statistics
        begun, before = time.monotonic(), len(statistics.done) + len(statistics.left_out)
        saved = shown = begun
        for sample in samples:
            try:
                self.collector.take(sample, statistics, (sample.task, sample.id) in probes)
            except (ScanError, PageRefused, ContextError) as error:
                self.say(f"left out: {sample.task} {sample.id}: {error}")
                statistics.left_out.append((sample.task, sample.id, str(error)))
            now, count = time.monotonic(), len(statistics.done) + len(statistics.left_out)
            if now - saved > SAVE_SECONDS:
                statistics_file.save(statistics, self.partial)
                saved = time.monotonic()
            if now - shown > SHOWN_SECONDS:
                shown, each = now, (now - begun) / max(1, count - before)
                minutes = each * (total - count) / 60
                self.say(f"{count} of {total} samples, about {minutes:.0f} min left")
