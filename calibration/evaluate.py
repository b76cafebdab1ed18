"""Kits and ECGBench -> a folder of results (see `results`). What is done stays done: a killed run goes on where it was.

Pages are the unit. A block of them is encoded once for all kits whose encoder and packing are the same; then one kit after
another answers the block, so that only one is in memory. Beside its own greedy answers a kit is measured by teacher
forcing: how its distributions differ from the reference kit's on that one's answers, and how likely the right answer is.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from calibration import ecgbench
from calibration.answering import (
    Answered,
    Answerer,
    Job,
    Reference,
    Settings,
    peak_bytes,
    prompt_of,
)
from calibration.ecgbench import COUNTS, Bench, Problem, Sample
from calibration.files import write_json
from calibration.results import (
    GIVEN_BY,
    RESERVED,
    Line,
    Results,
    TaskLines,
    calibrated_on,
    encoding,
    writing,
)
from pulse_edge.errors import BenchError, KitError, UsageError
from pulse_edge.inference.model import EncodedPage
from pulse_edge.kit.kit import Kit, open_kit

if TYPE_CHECKING:
    from calibration.cluster import Cluster

Say = Callable[[str], None]
BLOCK_BYTES, BLOCK_PAGES = 512 << 20, 128
"""Image tokens that are held at once, of all encoders together, and pages whose files are."""
SHOWN_SECONDS = 10
"""Between two lines of progress."""
LEFT_OUT = "left_out.json"


@dataclass(frozen=True)
class Plan:
    """What to run."""

    kits: tuple[Path, ...]  # the first is the reference, unless the folder has one already
    bench: Path
    tasks: tuple[str, ...] | None = None  # None: ECGBench's nine, as far as they are there
    split: Path | None = None  # only the test ids of this file
    limit: int | None = None  # the first samples of each task
    max_tokens: int | None = None  # None: each kit's own limit
    device: str = "auto"
    threads: int | None = None
    cluster: str | None = None  # address of a Ray cluster; None: this process alone


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
    files: dict[tuple[str, str], TaskLines] = field(default_factory=dict)
    problems: dict[Problem, None] = field(default_factory=dict)

    @property
    def settings(self) -> Settings:
        """What the answers depend on beside kit and question."""
        return Settings(self.plan.max_tokens, self.plan.device, self.plan.threads)

    def lines(self, kit: str, task: str) -> TaskLines:
        """Where a kit's answers to a task go."""
        if (kit, task) not in self.files:
            self.files[kit, task] = self.results.file(kit, task)
        return self.files[kit, task]

    def todo(self, kit: str, samples: Sequence[Sample]) -> list[Sample]:
        """Those that the kit has not answered."""
        return [s for s in samples if s.id not in self.lines(kit, s.task).answers]

    def note(self, problem: Problem) -> None:
        """Say once what is left out."""
        if problem not in self.problems:
            self.problems[problem] = None
            self.say(f"left out: {problem}")


def evaluate(target: Path, plan: Plan, say: Say = lambda _: None) -> None:
    """Answer every question with every kit, or what is left of that.

    Raises BenchError, KitError and UsageError for what cannot be used together, before anything is run.
    """
    kits = _kits(plan.kits)
    bench = ecgbench.open_bench(plan.bench)
    problems: dict[Problem, None] = {}
    samples = _samples(bench, plan, lambda p: problems.setdefault(p))
    refuse_calibration_ids(bench, kits, samples)
    with writing(target) as results:
        reference = results.run["reference"] if (target / "run.json").exists() else next(iter(kits))
        results.settle(_settings(plan, reference))
        run = Run(plan, results, kits, reference, bench, samples, say)
        for problem in problems:
            run.note(problem)
        for name, kit in kits.items():
            results.settle_kit(name, kit)
        _check(run)
        _answer_all(run)
        write_json(target / LEFT_OUT, [str(problem) for problem in run.problems])


# --- what can be run --------------------------------------------------------------------------------------------------


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
            ours, theirs = (_spoken(k)[what] for k in (first, kit))
            if ours != theirs:
                raise KitError(
                    f"{kit.path}: has another {what} than {first.path}; evaluate them apart"
                )
    return kits


def _spoken(kit: Kit) -> Mapping[str, object]:
    return {"prompt": kit.manifest.prompt, "vocabulary": kit.manifest.language.vocabulary}


def _samples(bench: Bench, plan: Plan, note: ecgbench.Note) -> list[Sample]:
    """The questions to ask, without pictures, task by task."""
    tasks = plan.tasks or tuple(task for task in bench.tasks if task in COUNTS)
    only = None if plan.split is None else ecgbench.load_split(plan.split)
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
    """BenchError where a kit was calibrated on questions that it would be asked: same ids with the same pictures."""
    for kit in kits.values():
        ids, content = calibrated_on(kit.manifest)
        both = [s for s in samples if s.id in ids.get(s.task, ())]
        if both and content in (None, _content(bench, ids)):
            raise BenchError(
                f"{kit.path}: {len(both)} of these questions calibrated it, {both[0].task} {both[0].id} first; "
                "evaluate on test ids only, with --split"
            )


def _content(bench: Bench, ids: Mapping[str, frozenset[str]]) -> str:
    """sha256 over the named samples of this data and their pictures, as a kit's manifest records it."""
    found = [
        (task, s.id, hashlib.sha256(s.picture or b"").hexdigest())
        for task in sorted(ids.keys() & set(bench.tasks))
        for s in bench.samples(task, lambda _: None, only=ids[task])
    ]
    return hashlib.sha256(json.dumps(sorted(found)).encode()).hexdigest()


def _settings(plan: Plan, reference: str) -> Line:
    """What all answers of a folder have in common."""
    split = None if plan.split is None else ecgbench.load_split(plan.split).content
    return {
        "reference": reference,
        "bench": str(plan.bench.resolve()),
        "split": split,
        "max_tokens": plan.max_tokens,
    }


def _check(run: Run) -> None:
    """BenchError where answers that are there belong to other questions, or the reference's would be missing."""
    for name in dict.fromkeys((run.reference, *run.kits)):
        for s in run.samples:
            line = run.lines(name, s.task).answers.get(s.id)
            if line is not None and (line["prompt"], line["gold"]) != (
                prompt_of(s),
                [a for _, a in s.turns],
            ):
                raise BenchError(
                    f"{run.results.path / name / s.task}: its answer {s.id} belongs to another question; "
                    "choose another folder for the results"
                )
    if run.reference not in run.kits and (missing := run.todo(run.reference, run.samples)):
        raise BenchError(
            f"{run.results.path}: the reference {run.reference} has not answered {len(missing)} of these questions; "
            "name its kit too"
        )


# --- pages ------------------------------------------------------------------------------------------------------------


def _pages(run: Run) -> Iterator[Page]:
    """Pages about which some kit has questions left, in the order of their first sample."""
    by_image: dict[str, list[Sample]] = {}
    for s in run.samples:
        by_image.setdefault(s.image, []).append(s)
    left = {
        image for image, some in by_image.items() if any(run.todo(kit, some) for kit in run.kits)
    }
    for task in dict.fromkeys(s.task for s in run.samples):
        first = {
            some[0].id for image, some in by_image.items() if image in left and some[0].task == task
        }
        for sample in run.bench.samples(task, run.note, only=first):
            left.discard(sample.image)
            yield Page(sample.image, sample.picture or b"", tuple(by_image[sample.image]))
    if len(left) == len(by_image):
        raise BenchError(
            f"{run.plan.bench}: none of its pictures can be read; unpack images/ beside the tasks"
        )
    for image in sorted(left):
        for s in by_image[image][1:]:  # the first one was told when its picture was read
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
    """Of the image tokens of one page."""
    m = kit.manifest
    grid = max((w * h for w, h in m.packing.grid_pinpoints), default=0) // m.vision.image_size**2
    return (1 + grid) * (m.vision.patches_per_side + 1) ** 2 * m.language.embedding_length * 4


# --- running ----------------------------------------------------------------------------------------------------------


def _answer_all(run: Run) -> None:
    """Block by block, kit by kit."""
    clock = Clock(run)
    with _crew(run) as crew:
        for block in _blocks(run):
            for name in sorted(
                run.kits, key=lambda kit: kit != run.reference
            ):  # the others are compared with it
                pages = [page for page in block if run.todo(name, page.samples)]
                if pages and "peak_bytes" not in run.results.kit(name):
                    crew.rest()  # so that two kits are not in memory
                    _measure(run, name, pages[0])
                for answered in crew.answers(
                    name, run.kits[name].path, (_job(run, name, page) for page in pages)
                ):
                    if name == run.reference and answered.logprobs is not None:
                        run.results.keep(
                            answered.task, answered.line["question_id"], answered.logprobs
                        )
                    line = answered.line | {GIVEN_BY: run.results.kit(name)["identity"]}
                    run.lines(name, answered.task).add(line, answered.seconds)
                    clock.tick()
            crew.forget()


def _crew(run: Run) -> Alone | Cluster:
    """Who answers."""

    def note(name: str, about: Line) -> None:
        known = run.results.kit(name)
        run.results.note_kit(name, about | known)

    if run.plan.cluster is not None:
        from calibration.cluster import Cluster

        return Cluster(run.plan.cluster, run.settings, note)
    return Alone(run.settings, note, run.say)


def _job(run: Run, name: str, page: Page) -> Job:
    """What is left about a page."""
    samples = run.todo(name, page.samples)
    references = tuple(
        None if name == run.reference else _reference(run, sample) for sample in samples
    )
    return Job(page.image, page.picture, tuple(samples), _facts(run.bench, page.image), references)


def _reference(run: Run, sample: Sample) -> Reference | None:
    """What the reference said; None where it refused."""
    line = run.lines(run.reference, sample.task).answers[sample.id]
    return Reference(line, run.results.kept(sample.task, sample.id)) if line["turns"] else None


def _measure(run: Run, name: str, page: Page) -> None:
    """Note a kit's peak memory."""
    peak = peak_bytes(run.kits[name].path, page.picture, page.samples[0].turns[0][0], run.settings)
    run.results.note_kit(name, run.results.kit(name) | {"peak_bytes": peak})


class Alone:
    """This process answers, with one kit in memory at a time."""

    def __init__(self, settings: Settings, note: Callable[[str, Line], None], say: Say) -> None:
        self._settings, self._note, self._say = settings, note, say
        self._loaded: tuple[str, Answerer] | None = None
        self._encoded: dict[tuple[str, str], EncodedPage] = {}

    def __enter__(self) -> Alone:
        return self

    def __exit__(self, *_: object) -> None:
        self.rest()

    def rest(self) -> None:
        """No kit stays in memory."""
        if self._loaded is not None:
            self._loaded[1].model.close()
        self._loaded = None

    def answers(self, name: str, kit: Path, jobs: Iterable[Job]) -> Iterator[Answered]:
        """A kit's answers, in order, each as soon as it is there."""
        for job in jobs:
            yield from self._answerer(name, kit).answer(job, self._encoded)

    def forget(self) -> None:
        """The pages of a block are done."""
        self._encoded.clear()

    def _answerer(self, name: str, kit: Path) -> Answerer:
        if self._loaded is None or self._loaded[0] != name:
            self.rest()
            self._say(f"{name}: loading {kit}")
            self._loaded = name, Answerer(kit, self._settings)
            self._note(name, self._loaded[1].about())
        return self._loaded[1]


class Clock:
    """Says now and then how far it is and how long it will take."""

    def __init__(self, run: Run) -> None:
        self._say = run.say
        self._of = sum(len(run.samples) for _ in run.kits)
        self._left = sum(len(run.todo(name, run.samples)) for name in run.kits)
        self._at_first, self._begun = self._left, time.monotonic()
        self._shown = self._begun

    def tick(self) -> None:
        """One more answer."""
        self._left -= 1
        now = time.monotonic()
        if now - self._shown > SHOWN_SECONDS or not self._left:
            self._shown = now
            each = (now - self._begun) / (self._at_first - self._left)
            left = time.strftime("%H:%M:%S", time.gmtime(each * self._left % 86400))
            days = f"{int(each * self._left // 86400)} days " if each * self._left >= 86400 else ""
            self._say(
                f"{self._of - self._left} of {self._of} answers, {each:.2f} s each, {days}{left} left"
            )


def _facts(bench: Bench, image: str) -> Line:
    """What the report looks for in prose: CPSC's labels and the rate in bpm, where the data tell them."""
    facts = bench.facts.get(image, {})
    labels, measured = facts.get("labels") or {}, facts.get("measurements") or {}
    return {"cpsc": labels.get("cpsc"), "rate": measured.get("rate")}
