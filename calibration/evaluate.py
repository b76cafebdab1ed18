"""Kits and ECGBench -> a folder of results (see `results`). What is done stays done: a killed run goes on where it was.

Pages are the unit. A block of them is encoded once for all kits whose encoder and packing are the same; then one kit after
another answers the block, so that only one is in memory. Beside its own greedy answers a kit is measured by teacher
forcing: how its distributions differ from the reference kit's on that one's answers, and how likely the right answer is.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration import ecgbench
from calibration.ecgbench import COUNTS, LABELS, Bench, Problem, Sample
from calibration.files import write_json
from calibration.metrics import said_labels
from calibration.results import RESERVED, Line, Results, TaskLines, calibrated_on, encoding, writing
from pulse_edge.errors import BenchError, ContextError, KitError, PageRefused, ScanError, UsageError
from pulse_edge.interpret import EncodedScan, PulseModel, Turns, versions
from pulse_edge.kit import Kit, open_kit

Floats = NDArray[np.float64]
Say = Callable[[str], None]
BLOCK_BYTES, BLOCK_PAGES = 512 << 20, 128
"""Image rows that are held at once, of all encoders together, and pages whose files are."""
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
    refuse_calibration_ids(bench, plan, kits, samples)
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
                raise KitError(f"{kit.path}: has another {what} than {first.path}; evaluate them apart")
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
        raise BenchError(f"{plan.bench}: has no usable question of {', '.join(tasks)}; name other --tasks or --split")
    return chosen


def refuse_calibration_ids(bench: Bench, plan: Plan, kits: Mapping[str, Kit], samples: Sequence[Sample]) -> None:
    """BenchError where a kit was calibrated on questions that it would be asked: same ids of the same data."""
    for kit in kits.values():
        ids = calibrated_on(kit.manifest)
        both = [s for s in samples if s.id in ids.get(s.task, ())]
        known = kit.manifest.source.get("calibration") or {}
        if both and known.get("content") in (None, _content(bench, plan)):
            raise BenchError(
                f"{kit.path}: {len(both)} of these questions calibrated it, {both[0].task} {both[0].id} first; "
                "evaluate on test ids only, with --split"
            )


def _content(bench: Bench, plan: Plan) -> str:
    """The hash of the data, as a split records it."""
    if plan.split is not None:
        return ecgbench.load_split(plan.split).content
    return ecgbench.content(s for task in bench.tasks for s in bench.samples(task, lambda _: None))


def _settings(plan: Plan, reference: str) -> Line:
    """What all answers of a folder have in common."""
    split = None if plan.split is None else ecgbench.load_split(plan.split).content
    return {"reference": reference, "bench": str(plan.bench.resolve()), "split": split, "max_tokens": plan.max_tokens}


def _check(run: Run) -> None:
    """BenchError where answers that are there belong to other questions, or the reference's would be missing."""
    for name in dict.fromkeys((run.reference, *run.kits)):
        for s in run.samples:
            line = run.lines(name, s.task).answers.get(s.id)
            if line is not None and (line["prompt"], line["gold"]) != (_prompt(s), [a for _, a in s.turns]):
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
    left = {image for image, some in by_image.items() if any(run.todo(kit, some) for kit in run.kits)}
    for task in dict.fromkeys(s.task for s in run.samples):
        first = {some[0].id for image, some in by_image.items() if image in left and some[0].task == task}
        for sample in run.bench.samples(task, run.note, only=first):
            left.discard(sample.image)
            yield Page(sample.image, sample.picture or b"", tuple(by_image[sample.image]))
    for image in sorted(left):
        for s in by_image[image]:
            run.note(Problem(s.task, s.id, f"its picture {image} is missing or broken"))


def _blocks(run: Run) -> Iterator[list[Page]]:
    """Pages in groups whose image rows fit BLOCK_BYTES."""
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
    """Of the image rows of one page."""
    m = kit.manifest
    grid = max((w * h for w, h in m.packing.grid_pinpoints), default=0) // m.vision.image_size**2
    return (1 + grid) * (m.vision.patches_per_side + 1) ** 2 * m.language.embedding_length * 4


# --- running ----------------------------------------------------------------------------------------------------------


def _answer_all(run: Run) -> None:
    """Block by block, kit by kit."""
    clock = Clock(run)
    with ExitStack() as stack:
        loaded: tuple[str, Answerer] | None = None
        for block in _blocks(run):
            encoded: dict[tuple[str, str], EncodedScan] = {}
            for name in _order(run):
                pages = [page for page in block if run.todo(name, page.samples)]
                if not pages:
                    continue
                if loaded is None or loaded[0] != name:
                    stack.close()  # before the next one is loaded
                    loaded = name, stack.enter_context(Answerer(run, name, pages[0]))
                for page in pages:
                    loaded[1].page(page, encoded, clock)


def _order(run: Run) -> list[str]:
    """The reference first: the others are compared with its answers."""
    return sorted(run.kits, key=lambda name: name != run.reference)


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
        if now - self._shown > 10 or not self._left:
            self._shown = now
            each = (now - self._begun) / (self._at_first - self._left)
            left = time.strftime("%H:%M:%S", time.gmtime(each * self._left % 86400))
            days = f"{int(each * self._left // 86400)} days " if each * self._left >= 86400 else ""
            self._say(f"{self._of - self._left} of {self._of} answers, {each:.2f} s each, {days}{left} left")


class Answerer:
    """One loaded kit that answers pages into the results."""

    def __init__(self, run: Run, name: str, page: Page) -> None:
        self.run, self.name, self.kit = run, name, run.kits[name]
        self.is_reference = name == run.reference
        known = run.results.kit(name)
        if "peak_bytes" not in known:
            question = page.samples[0].turns[0][0]
            peak = peak_bytes(self.kit.path, page.picture, question, run.plan.device, run.plan.threads)
            known |= {"peak_bytes": peak}
            run.results.note_kit(name, known)
        run.say(f"{name}: loading {self.kit.path}")
        self.model = PulseModel.load(self.kit, device=run.plan.device, threads=run.plan.threads)
        if "device" not in known:
            machine = f"{platform.machine()}, {os.cpu_count()} processors"
            known |= {"device": self.model.device, "machine": machine, "versions": versions()}
            run.results.note_kit(name, known)
        self._ends = word_ends(self.model)

    def __enter__(self) -> Answerer:
        return self

    def __exit__(self, *_: object) -> None:
        self.model.close()

    def page(self, page: Page, encoded: dict[tuple[str, str], EncodedScan], clock: Clock) -> None:
        """Answer what is left about a page; its rows come from `encoded`, or go there."""
        key = encoding(self.kit.manifest), page.image
        rows: EncodedScan | None = encoded.get(key)
        refused = ""
        if rows is None:
            try:
                rows = encoded[key] = self.model.encode(page.picture)
            except (ScanError, PageRefused) as error:
                refused = str(error)
        for first, sample in enumerate(self.run.todo(self.name, page.samples)):
            line, seconds = self._sample(sample, rows, refused)
            self.run.lines(self.name, sample.task).add(line, {**seconds, "first": not first})
            clock.tick()

    def _sample(self, sample: Sample, rows: EncodedScan | None, refused: str) -> tuple[Line, Line]:
        """The answer's line and its times; a page or a question that the kit refuses has an empty answer that says why."""
        head: Line = {
            "question_id": sample.id,
            "prompt": _prompt(sample),
            "image": sample.image,
            "patient": sample.patient,
            "gold": [answer for _, answer in sample.turns],
            "chosen": list(sample.chosen),
            "facts": _facts(self.run.bench, sample.image),
        }
        if rows is not None:
            try:
                return self._answered(head, sample, rows)
            except ContextError as error:
                refused = str(error)
        empty: str | list[str] = "" if len(sample.turns) == 1 else [""] * len(sample.turns)
        return {**head, "text": empty, "refused": refused, "turns": []}, {"question_id": sample.id}

    def _answered(self, head: Line, sample: Sample, rows: EncodedScan) -> tuple[Line, Line]:
        own: list[tuple[str, str]] = []
        turns, seconds = [], []
        theirs = None if self.is_reference else self.run.lines(self.run.reference, sample.task).answers[sample.id]
        kept = None if theirs is None or not theirs["turns"] else self.run.results.kept(sample.task, sample.id)
        fresh: list[Floats] = []
        for number, (question, gold) in enumerate(sample.turns):
            answering = self.model.ask(rows, question, self.run.plan.max_tokens, own)
            answer = answering.answer()
            turn: Line = {"tokens": answering.ids, "complete": answer.complete}
            reference = turn if theirs is None else theirs["turns"][number] if theirs["turns"] else None
            told = own if theirs is None else list(zip(_list(theirs["prompt"]), _list(theirs["text"]), strict=True))
            asked: list[tuple[Turns, list[int]]] = [(sample.turns[:number], self._ids(gold))]
            if reference is not None:
                asked.append((tuple(told[:number]), self._forced(reference)))
            ahead, *rest = self._score(rows, question, asked)
            turn |= {"gold_tokens": len(ahead), "gold_logprob": _six(_picked(ahead, asked[0][1]).sum())}
            if rest and kept is not None:
                turn |= compare(kept[: len(rest[0])], rest[0])
                kept = kept[len(rest[0]) :]
            fresh += rest
            own.append((question, answer.text))
            turns.append(turn)
            seconds.append(answering.seconds)
        if self.is_reference:
            self.run.results.keep(sample.task, sample.id, np.concatenate(fresh))
        line = {**head, "text": own[0][1] if len(own) == 1 else [a for _, a in own], "page": rows.page_sha256}
        if sample.task in LABELS:
            line["labels"] = self.label_chances(rows, sample, own[0][1])
        times = {key: round(seconds[0].get(key, seconds[0]["prefill"]), 4) for key in ("prefill", "first_token")}
        times |= {"encode": round(rows.seconds["encode"], 4), "answer": round(sum(s["answer"] for s in seconds), 4)}
        return {**line, "turns": turns}, {
            "question_id": sample.id,
            **times,
            "tokens": sum(len(t["tokens"]) for t in turns),
        }

    # --- teacher forcing

    def _ids(self, text: str) -> list[int]:
        """A text as an answer: its tokens and the end."""
        return [*self.model.language.tokenize(text, first=False), self.model.language.end]

    def _forced(self, turn: Line) -> list[int]:
        """The reference's tokens, and the end where it came to one."""
        ids: list[int] = turn["tokens"]
        return [*ids, self.model.language.end] if turn["complete"] else ids

    def _score(self, rows: EncodedScan, question: str, asked: Sequence[tuple[Turns, list[int]]]) -> list[Floats]:
        """Log-probabilities (n, vocabulary) ahead of each token of each answer; equal histories are read once."""
        out: list[Floats] = []
        histories = [tuple(history) for history, _ in asked]
        if len(set(histories)) == 1:
            return [log_softmax(x) for x in self.model.score(rows, question, [ids for _, ids in asked], histories[0])]
        for history, ids in asked:
            out += [log_softmax(x) for x in self.model.score(rows, question, [ids], history)]
        return out

    def label_chances(self, rows: EncodedScan, sample: Sample, said: str) -> dict[str, float]:
        """For each label of the task how likely it is to stand in the answer, along the answer that was given.

        A label may come first, or after any of those that were said, or in their place: its chance is that of at
        least one of these, each being the product of its tokens' probabilities and of its word ending there.
        """
        known = LABELS[sample.task]
        given = list(said_labels(said, known) or ())
        tokenize = self.model.language.tokenize
        starts = [tokenize(", ".join(given[:n]), first=False) if n else [] for n in range(len(given) + 1)]
        asked = [
            (tokenize(", ".join([*given[:n], label]), first=False), start, label)
            for n, start in enumerate(starts)
            for label in known
            if label not in given[:n]
        ]
        miss = dict.fromkeys(known, 1.0)
        forced = self.model.score(rows, sample.turns[0][0], ([*ids, self.model.language.end] for ids, _, _ in asked))
        for logits, (ids, start, label) in zip(forced, asked, strict=True):
            ahead = log_softmax(logits)
            at = _common(ids, start)
            ends = np.exp(ahead[-1][self._ends]).sum()
            miss[label] *= 1 - float(np.exp(_picked(ahead[at:-1], ids[at:]).sum()) * min(1.0, ends))
        return {label: _six(1 - missed) for label, missed in miss.items()}


def word_ends(model: PulseModel) -> NDArray[np.bool_]:
    """(vocabulary,): tokens with which a word that stands before them is at its end."""
    pieces = (model.language.piece(token) for token in range(model.language.vocabulary))
    return np.array([not (piece[:1].isalnum() or piece[:1] in (b"-", b"_")) for piece in pieces], bool)


def log_softmax(logits: NDArray[np.float32]) -> Floats:
    """(n, vocabulary) in float64."""
    x = logits.astype(np.float64)
    x -= x.max(1, keepdims=True)
    return np.asarray(x - np.log(np.exp(x).sum(1, keepdims=True)))


def compare(reference: Floats, other: Floats) -> Line:
    """Kullback-Leibler divergence of each token in nats, and whether the most likely token is the same."""
    kld = (np.exp(reference) * (reference - other)).sum(1)
    same = reference.argmax(1) == other.argmax(1)
    return {"kld": [_six(max(0.0, float(k))) for k in kld], "same": [int(s) for s in same]}


def peak_bytes(kit: Path, picture: bytes, question: str, device: str, threads: int | None) -> int | None:
    """Peak memory of a process that answers one question about one page; None where it did not come through."""
    try:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            return pool.submit(_peak, kit, picture, question, device, threads).result()
    except Exception:  # a process killed for its memory, a page that is refused: not known, and no reason to stop
        return None


def _peak(kit: Path, picture: bytes, question: str, device: str, threads: int | None) -> int:
    from pulse_edge import memory

    with PulseModel.load(kit, device=device, threads=threads) as model:
        model.interpret(picture, question, max_tokens=8)
    return memory.peak()


def _prompt(sample: Sample) -> str | list[str]:
    return sample.turns[0][0] if len(sample.turns) == 1 else [question for question, _ in sample.turns]


def _facts(bench: Bench, image: str) -> Line:
    """What the report looks for in prose: CPSC's labels and the rate in bpm, where the data tell them."""
    facts = bench.facts.get(image, {})
    labels, measured = facts.get("labels") or {}, facts.get("measurements") or {}
    return {"cpsc": labels.get("cpsc"), "rate": measured.get("rate")}


def _picked(logprobs: Floats, ids: Sequence[int]) -> Floats:
    return logprobs[np.arange(len(ids)), list(ids)]


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the common beginning."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _six(value: float) -> float:
    """Six digits are kept."""
    return float(f"{value:.6g}")
