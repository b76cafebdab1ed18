"""Ask kits the questions of ECGBench -> a folder of results (see `results`).

Pages are the unit. A block of them is encoded once for all kits with the same encoder and tiling;
then one kit after another answers the block, so that only one is in memory. Besides its own greedy
answers, teacher forcing measures how a kit's distributions differ from the reference kit's on that
kit's answers, and how likely the right answer is.

Every answer is written as soon as it is known: a killed run is resumed by the same command.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from calibration import ecgbench, splits
from calibration.answering import (
    Answered,
    Answerer,
    Job,
    Reference,
    Runtime,
    Settings,
    peak_bytes,
    prompt_of,
)
from calibration.ecgbench import COUNTS, Bench, Problem, Sample
from calibration.files import write_json
from calibration.results import (
    RESERVED,
    Facts,
    Results,
    RunSettings,
    TaskAnswers,
    calibrated_on,
    encoding,
    writing,
)
from pulse_edge.errors import BenchError, KitError, UsageError
from pulse_edge.inference.page_encoder import EncodedPage
from pulse_edge.kit.kit import Kit, open_kit

if TYPE_CHECKING:
    from calibration.cluster import Cluster

Say = Callable[[str], None]
BLOCK_BYTES, BLOCK_PAGES = 512 << 20, 128
"""Most image tokens held at once, over all encoders, and most pages."""
SHOWN_SECONDS = 10
"""Seconds between two lines of progress."""
LEFT_OUT = "left_out.json"


@dataclass(frozen=True)
class Plan:
    """What to run."""

    kits: tuple[Path, ...]
    """The first is the reference, unless the folder of results has one."""
    bench: Path
    tasks: tuple[str, ...] | None = None
    """None: those of ECGBench's nine that the data have."""
    split: Path | None = None
    """A recorded split, whose test ids alone are asked."""
    limit: int | None = None
    """The number of first samples of each task that are asked."""
    max_tokens: int | None = None
    """Longest answer; None: each kit's own limit."""
    device: str = "auto"
    threads: int | None = None
    cluster: str | None = None
    """Address of a Ray cluster; None: this process alone."""


@dataclass(frozen=True)
class Page:
    """A picture and every question about it."""

    image: str
    picture: bytes
    samples: tuple[Sample, ...]


@dataclass
class Run:
    """An evaluation under way."""

    plan: Plan
    results: Results
    kits: Mapping[str, Kit]
    reference: str
    bench: Bench
    samples: Sequence[Sample]
    say: Say
    files: dict[tuple[str, str], TaskAnswers] = field(default_factory=dict)
    problems: dict[Problem, None] = field(default_factory=dict)

    @property
    def settings(self) -> Settings:
        """What the answers depend on, apart from kit and question."""
        return Settings(self.plan.max_tokens, self.plan.device, self.plan.threads)

    def answers(self, kit: str, task: str) -> TaskAnswers:
        """A kit's answers to a task, to add to."""
        if (kit, task) not in self.files:
            self.files[kit, task] = self.results.file(kit, task)
        return self.files[kit, task]

    def todo(self, kit: str, samples: Sequence[Sample]) -> list[Sample]:
        """The samples that the kit has not answered."""
        return [s for s in samples if s.id not in self.answers(kit, s.task).answers]

    def note(self, problem: Problem) -> None:
        """Report once that a sample is left out."""
        if problem not in self.problems:
            self.problems[problem] = None
            self.say(f"left out: {problem}")


def evaluate(target: Path, plan: Plan, say: Say = lambda _: None) -> None:
    """Answer every question with every kit, unless it is answered already.

    Raises BenchError, KitError and UsageError for what cannot be used together, before any kit
    runs.
    """
    kits = _kits(plan.kits)
    bench = ecgbench.open_bench(plan.bench)
    problems: dict[Problem, None] = {}
    samples = _samples(bench, plan, lambda p: problems.setdefault(p))
    refuse_calibration_ids(bench, kits, samples)
    with writing(target) as results:
        reference = results.run.reference if (target / "run.json").exists() else next(iter(kits))
        results.settle(_settings(plan, reference))
        run = Run(plan, results, kits, reference, bench, samples, say)
        for problem in problems:
            run.note(problem)
        for name, kit in kits.items():
            results.settle_kit(name, kit)
        _check(run)
        _answer_all(run)
        write_json(target / LEFT_OUT, [str(problem) for problem in run.problems])


# --- what can be run --------------------------------------------------------------------------


def _kits(paths: Sequence[Path]) -> dict[str, Kit]:
    """Opened kits by the names of their folders."""
    kits: dict[str, Kit] = {}
    for path in paths:
        kit = open_kit(path)
        name = kit.path.name
        if name in kits or name in RESERVED:
            raise UsageError(f"{path}: a kit cannot be called {name} here; rename its folder")
        kits[name] = kit
    if not kits:
        raise UsageError("no kit is named")
    first = next(iter(kits.values()))
    for kit in kits.values():
        for what in ("prompt", "vocabulary"):
            ours, theirs = (_language(k)[what] for k in (first, kit))
            if ours != theirs:
                raise KitError(
                    f"{kit.path}: has another {what} than {first.path}; evaluate them apart"
                )
    return kits


def _language(kit: Kit) -> Mapping[str, object]:
    return {"prompt": kit.manifest.prompt, "vocabulary": kit.manifest.language.vocabulary}


def _samples(bench: Bench, plan: Plan, note: ecgbench.Note) -> list[Sample]:
    """The questions to ask, without pictures, task by task."""
    tasks = plan.tasks or tuple(task for task in bench.tasks if task in COUNTS)
    only = None if plan.split is None else splits.load(plan.split)
    chosen: list[Sample] = []
    for task in dict.fromkeys(tasks):
        test = None if only is None else frozenset(only.test.get(task, ()))
        chosen += list(bench.samples(task, note, pictures=False, only=test))[: plan.limit]
    if not chosen:
        raise BenchError(
            f"{plan.bench}: has no usable question of {', '.join(tasks)}; name other --tasks or --split"
        )
    return chosen


def refuse_calibration_ids(
    bench: Bench, kits: Mapping[str, Kit], samples: Sequence[Sample]
) -> None:
    """BenchError where a kit would be asked questions that calibrated it.

    These are the same ids with the same pictures.
    """
    for kit in kits.values():
        ids, content = calibrated_on(kit.manifest)
        both = [s for s in samples if s.id in ids.get(s.task, ())]
        if both and content in (None, _content(bench, ids)):
            raise BenchError(
                f"{kit.path}: {len(both)} of these questions calibrated it, "
                f"{both[0].task} {both[0].id} first; evaluate on test ids only, with --split"
            )


def _content(bench: Bench, ids: Mapping[str, frozenset[str]]) -> str:
    """sha256 over samples of this data and their pictures, as a kit's manifest records it."""
    entries = [
        (task, s.id, hashlib.sha256(s.picture or b"").hexdigest())
        for task in sorted(ids.keys() & set(bench.tasks))
        for s in bench.samples(task, lambda _: None, only=ids[task])
    ]
    return hashlib.sha256(json.dumps(sorted(entries)).encode()).hexdigest()


def _settings(plan: Plan, reference: str) -> RunSettings:
    split = None if plan.split is None else splits.load(plan.split).content
    return RunSettings(reference, str(plan.bench.resolve()), split, plan.max_tokens)


def _check(run: Run) -> None:
    """BenchError where stored answers belong to other questions, or the reference's are missing."""
    for name in dict.fromkeys((run.reference, *run.kits)):
        for s in run.samples:
            answer = run.answers(name, s.task).answers.get(s.id)
            gold = tuple(answer for _, answer in s.turns)
            if answer is not None and (answer.prompt, answer.gold) != (prompt_of(s), gold):
                raise BenchError(
                    f"{run.results.path / name / s.task}: its answer {s.id} belongs to another "
                    "question; choose another folder for the results"
                )
    if run.reference not in run.kits and (missing := run.todo(run.reference, run.samples)):
        raise BenchError(
            f"{run.results.path}: the reference {run.reference} has not answered {len(missing)} of "
            "these questions; name its kit too"
        )


# --- pages ------------------------------------------------------------------------------------


def _pages(run: Run) -> Iterator[Page]:
    """Pages with unanswered questions, in the order of their first sample."""
    by_image: dict[str, list[Sample]] = {}
    for s in run.samples:
        by_image.setdefault(s.image, []).append(s)
    waiting = {
        image for image, some in by_image.items() if any(run.todo(kit, some) for kit in run.kits)
    }
    for task in dict.fromkeys(s.task for s in run.samples):
        first = {
            some[0].id
            for image, some in by_image.items()
            if image in waiting and some[0].task == task
        }
        for sample in run.bench.samples(task, run.note, only=first):
            waiting.discard(sample.image)
            yield Page(sample.image, sample.picture or b"", tuple(by_image[sample.image]))
    if len(waiting) == len(by_image):
        raise BenchError(
            f"{run.plan.bench}: none of its pictures can be read; unpack images/ next to the tasks"
        )
    for image in sorted(waiting):
        for s in by_image[image][1:]:  # the first one was reported when its picture was read
            run.note(Problem(s.task, s.id, f"its picture {image} is missing or broken"))


def _blocks(run: Run) -> Iterator[list[Page]]:
    """Pages in groups whose image tokens fit BLOCK_BYTES."""
    sizes = {encoding(kit.manifest): _most_bytes(kit) for kit in run.kits.values()}
    room = min(BLOCK_PAGES, max(1, BLOCK_BYTES // sum(sizes.values())))
    block: list[Page] = []
    for page in _pages(run):
        block.append(page)
        if len(block) == room:
            yield block
            block = []
    if block:
        yield block


def _most_bytes(kit: Kit) -> int:
    """Most bytes that the image tokens of one page take."""
    m = kit.manifest
    grid = max((w * h for w, h in m.packing.grid_pinpoints), default=0) // m.vision.image_size**2
    return (1 + grid) * (m.vision.patches_per_side + 1) ** 2 * m.language.embedding_length * 4


# --- running ----------------------------------------------------------------------------------


def _answer_all(run: Run) -> None:
    """Answer block by block, kit by kit; the reference first, because the others are compared with
    it.
    """
    clock = Clock(run)
    with _crew(run) as crew:
        for block in _blocks(run):
            for name in sorted(run.kits, key=lambda kit: kit != run.reference):
                pages = [page for page in block if run.todo(name, page.samples)]
                if pages and not run.results.kit(name).memory_measured:
                    crew.rest()  # so that two kits are not in memory
                    _measure(run, name, pages[0])
                jobs = (_job(run, name, page) for page in pages)
                for answered in crew.answers(name, run.kits[name].path, jobs):
                    _save(run, name, answered)
                    clock.tick()
            crew.forget()


def _save(run: Run, name: str, answered: Answered) -> None:
    task, record = answered.task, answered.record
    if name == run.reference and answered.logprobs is not None:
        run.results.save_distribution(task, record.question_id, answered.logprobs)
    record = replace(record, kit=run.results.kit(name).identity)
    run.answers(name, task).add(record, answered.times)


def _crew(run: Run) -> Alone | Cluster:
    """The process or the cluster that answers."""

    def note(name: str, runtime: Runtime) -> None:
        record = run.results.kit(name)
        if record.device is None:
            run.results.save_kit(replace(record, **vars(runtime)))

    if run.plan.cluster is not None:
        from calibration.cluster import Cluster

        return Cluster(run.plan.cluster, run.settings, note)
    return Alone(run.settings, note, run.say)


def _job(run: Run, name: str, page: Page) -> Job:
    """The unanswered questions about a page."""
    samples = run.todo(name, page.samples)
    references = tuple(
        None if name == run.reference else _reference(run, sample) for sample in samples
    )
    return Job(page.image, page.picture, tuple(samples), _facts(run.bench, page.image), references)


def _reference(run: Run, sample: Sample) -> Reference | None:
    """The reference's answer; None where it refused."""
    answer = run.answers(run.reference, sample.task).answers[sample.id]
    if not answer.turns:
        return None
    return Reference(answer, run.results.distribution(sample.task, sample.id))


def _measure(run: Run, name: str, page: Page) -> None:
    """Record a kit's peak memory."""
    peak = peak_bytes(run.kits[name].path, page.picture, page.samples[0].turns[0][0], run.settings)
    record = replace(run.results.kit(name), memory_measured=True, peak_bytes=peak)
    run.results.save_kit(record)


class Alone:
    """This process answers, with one kit in memory at a time."""

    def __init__(self, settings: Settings, note: Callable[[str, Runtime], None], say: Say) -> None:
        self._settings, self._note, self._say = settings, note, say
        self._loaded: tuple[str, Answerer] | None = None
        self._encoded: dict[tuple[str, str], EncodedPage] = {}

    def __enter__(self) -> Alone:
        return self

    def __exit__(self, *_: object) -> None:
        self.rest()

    def rest(self) -> None:
        """Close the loaded kit."""
        if self._loaded is not None:
            self._loaded[1].model.close()
        self._loaded = None

    def answers(self, name: str, kit: Path, jobs: Iterable[Job]) -> Iterator[Answered]:
        """A kit's answers in order, each as soon as it is known."""
        for job in jobs:
            yield from self._answerer(name, kit).answer(job, self._encoded)

    def forget(self) -> None:
        """Drop the encoded pages of a block."""
        self._encoded.clear()

    def _answerer(self, name: str, kit: Path) -> Answerer:
        if self._loaded is None or self._loaded[0] != name:
            self.rest()
            self._say(f"{name}: loading {kit}")
            self._loaded = name, Answerer(kit, self._settings)
            self._note(name, self._loaded[1].runtime())
        return self._loaded[1]


class Clock:
    """Reports now and then how far the run is, and how long it will take."""

    def __init__(self, run: Run) -> None:
        self._say = run.say
        self._total = len(run.samples) * len(run.kits)
        self._waiting = sum(len(run.todo(name, run.samples)) for name in run.kits)
        self._at_first, self._begun = self._waiting, time.monotonic()
        self._shown = self._begun

    def tick(self) -> None:
        """Count one more answer."""
        self._waiting -= 1
        now = time.monotonic()
        if now - self._shown > SHOWN_SECONDS or not self._waiting:
            self._shown = now
            each = (now - self._begun) / (self._at_first - self._waiting)
            seconds = each * self._waiting
            clock = time.strftime("%H:%M:%S", time.gmtime(seconds % 86400))
            days = f"{int(seconds // 86400)} days " if seconds >= 86400 else ""
            self._say(
                f"{self._total - self._waiting} of {self._total} answers, {each:.2f} s each, "
                f"{days}{clock} left"
            )


def _facts(bench: Bench, image: str) -> Facts:
    """What the data know of a page: CPSC's labels and the rate in bpm."""
    facts = bench.facts.get(image, {})
    labels, measured = facts.get("labels") or {}, facts.get("measurements") or {}
    cpsc = labels.get("cpsc")
    return Facts(None if cpsc is None else tuple(cpsc), measured.get("rate"))
