"""One loaded kit answers questions about one page, and is measured by teacher forcing."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.ecgbench import LABELS, Sample
from calibration.metrics import read_labels
from calibration.results import AnswerRecord, Facts, Times, Turn, encoding
from pulse_edge.common.worker_pool import Workers
from pulse_edge.errors import ContextError, PageRefused, ScanError
from pulse_edge.inference.model import PulseModel, Turns
from pulse_edge.inference.page_encoder import EncodedPage
from pulse_edge.inference.reporting import versions
from pulse_edge.kit.kit import open_kit

Floats = NDArray[np.float64]
Cache = MutableMapping[tuple[str, str], EncodedPage]
"""Encoded pages by (encoding of the kit, image)."""


@dataclass(frozen=True)
class Settings:
    """What all answers of a run depend on, apart from kit and question."""

    max_tokens: int | None
    device: str
    threads: int | None


@dataclass(frozen=True)
class Reference:
    """The reference kit's answer, and its log-probabilities (tokens, vocabulary) over all turns."""

    answer: AnswerRecord
    logprobs: Floats


@dataclass(frozen=True)
class Job:
    """Questions about one page, and the reference's answer to each.

    A reference is None where the reference itself is asked, or refused the question.
    """

    image: str
    picture: bytes
    samples: tuple[Sample, ...]
    facts: Facts
    references: tuple[Reference | None, ...]


@dataclass(frozen=True)
class Question:
    """A question of a job, its record without an answer, and the reference's answer."""

    sample: Sample
    record: AnswerRecord
    reference: Reference | None


@dataclass(frozen=True)
class Answered:
    """An answer for the results, with its times and log-probabilities (tokens, vocabulary)."""

    task: str
    record: AnswerRecord
    times: Times
    logprobs: Floats | None


@dataclass(frozen=True)
class Runtime:
    """Where a kit runs, and with which programs."""

    device: str
    machine: str
    versions: Mapping[str, str]


class Answerer:
    """One loaded kit."""

    def __init__(self, kit: Path, settings: Settings) -> None:
        self._settings = settings
        opened = open_kit(kit)
        self._encoding = encoding(opened.manifest)
        self.model = PulseModel.load(opened, device=settings.device, threads=settings.threads)
        self._ends = word_ends(self.model)

    def __enter__(self) -> Answerer:
        return self

    def __exit__(self, *_: object) -> None:
        self.model.close()

    def runtime(self) -> Runtime:
        """Where it runs, and with which programs."""
        machine = f"{platform.machine()}, {os.cpu_count()} processors"
        return Runtime(self.model.device, machine, versions())

    def answer(self, job: Job, encoded: Cache) -> Iterator[Answered]:
        """Answers about a page, one by one; its image tokens come from `encoded`, or go there.

        A page or a question that the kit refuses has an empty answer with the reason.
        """
        key, refused = (self._encoding, job.image), ""
        if key not in encoded:
            try:
                encoded[key] = self.model.encode(job.picture, admit=False)
            except (ScanError, PageRefused) as error:
                refused = str(error)
        for number, (sample, reference) in enumerate(zip(job.samples, job.references, strict=True)):
            question = Question(sample, _unanswered(sample, job.facts), reference)
            answered = self._one(question, encoded.get(key), refused)
            yield replace(answered, times=replace(answered.times, first=not number))

    def _one(self, question: Question, page: EncodedPage | None, refused: str) -> Answered:
        if page is not None:
            try:
                return self._answered(question, page)
            except ContextError as error:
                refused = str(error)
        sample = question.sample
        record = replace(question.record, refused=refused)
        return Answered(sample.task, record, Times(question_id=sample.id), None)

    def _answered(self, question: Question, page: EncodedPage) -> Answered:
        """Turn by turn: the kit's answer after its own earlier ones, and what is forced after
        others'.
        """
        sample, reference = question.sample, question.reference
        own: list[tuple[str, str]] = []
        turns: list[Turn] = []
        times: list[dict[str, float]] = []
        logprobs: list[Floats] = []
        at = 0
        for number, (text, gold) in enumerate(sample.turns):
            answering = self.model.ask(page, text, self._settings.max_tokens, own)
            answer = answering.answer()
            right = self._ids(gold)
            if reference is None:
                history: Turns = tuple(own)
                ids = self._forced(answering.ids, answer.complete)
            else:
                turn = reference.answer.turns[number]
                history = _history(reference.answer, number)
                ids = self._forced(turn.tokens, turn.complete)
            ahead, forced = self._score(
                page, text, [(sample.turns[:number], right), (history, ids)]
            )
            gold_logprob = _six(_picked(ahead, right).sum())
            turn = Turn(answering.ids, answer.complete, len(right), gold_logprob)
            if reference is not None:
                kld, same = compare(reference.logprobs[at : at + len(forced)], forced)
                turn = replace(turn, kld=kld, same=same)
                at += len(forced)
            logprobs.append(forced)
            own.append((text, answer.text))
            turns.append(turn)
            times.append(answering.seconds)
        texts = tuple(text for _, text in own)
        labels = self.label_chances(page, sample, texts[0]) if sample.task in LABELS else None
        record = replace(
            question.record,
            text=texts[0] if len(texts) == 1 else texts,
            page=page.page_sha256,
            labels=labels,
            turns=tuple(turns),
        )
        seconds = _times(sample.id, page, times, sum(len(turn.tokens) for turn in turns))
        return Answered(sample.task, record, seconds, np.concatenate(logprobs))

    # --- teacher forcing

    def _ids(self, text: str) -> list[int]:
        """A text as an answer: its tokens and the end."""
        return [*self.model.language.tokenize(text, first=False), self.model.language.end]

    def _forced(self, tokens: list[int], complete: bool) -> list[int]:
        """An answer's tokens, and the end token where the answer came to one."""
        return [*tokens, self.model.language.end] if complete else tokens

    def _score(
        self, page: EncodedPage, question: str, forced_answers: Sequence[tuple[Turns, list[int]]]
    ) -> list[Floats]:
        """Log-probabilities (n, vocabulary) ahead of each token of each answer.

        Equal histories are prefilled once.
        """
        out: list[Floats] = []
        histories = [tuple(history) for history, _ in forced_answers]
        if len(set(histories)) == 1:
            return [
                log_softmax(x)
                for x in self.model.score(
                    page, question, [ids for _, ids in forced_answers], histories[0]
                )
            ]
        for history, ids in forced_answers:
            out += [log_softmax(x) for x in self.model.score(page, question, [ids], history)]
        return out

    def label_chances(self, page: EncodedPage, sample: Sample, answer: str) -> dict[str, float]:
        """For each label of the task the probability that it stands in the answer.

        It is measured along the answer that was given. A label may come first, or after any of
        those that were said, or in their place: its chance is that of at least one of these, each
        being the product of its tokens' probabilities and of its word ending there.
        """
        labels = LABELS[sample.task]
        given = list(read_labels(answer, labels) or ())
        tokenize = self.model.language.tokenize
        starts = [
            tokenize(", ".join(given[:n]), first=False) if n else [] for n in range(len(given) + 1)
        ]
        forced_answers = [
            (tokenize(", ".join([*given[:n], label]), first=False), start, label)
            for n, start in enumerate(starts)
            for label in labels
            if label not in given[:n]
        ]
        miss = dict.fromkeys(labels, 1.0)
        forced = self.model.score(
            page,
            sample.turns[0][0],
            ([*ids, self.model.language.end] for ids, _, _ in forced_answers),
        )
        for logits, (ids, start, label) in zip(forced, forced_answers, strict=True):
            ahead = log_softmax(logits)
            at = _common(ids, start)
            ends = np.exp(ahead[-1][self._ends]).sum()
            miss[label] *= 1 - float(np.exp(_picked(ahead[at:-1], ids[at:]).sum()) * min(1.0, ends))
        return {label: _six(1 - missed) for label, missed in miss.items()}


def word_ends(model: PulseModel) -> NDArray[np.bool_]:
    """Which tokens (vocabulary,) end the word before them."""
    pieces = (model.language.piece(token) for token in range(model.language.vocabulary))
    return np.array(
        [not (piece[:1].isalnum() or piece[:1] in (b"-", b"_")) for piece in pieces], bool
    )


def log_softmax(logits: NDArray[np.float32]) -> Floats:
    """Log-probabilities (n, vocabulary) float64 of logits."""
    x = logits.astype(np.float64)
    x -= x.max(1, keepdims=True)
    return np.asarray(x - np.log(np.exp(x).sum(1, keepdims=True)))


def compare(reference: Floats, other: Floats) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Kullback-Leibler divergence of each token in nats, and 1 where the most likely token is the
    same.
    """
    kld = (np.exp(reference) * (reference - other)).sum(1)
    same = reference.argmax(1) == other.argmax(1)
    return tuple(_six(max(0.0, float(k))) for k in kld), tuple(int(s) for s in same)


def peak_bytes(kit: Path, picture: bytes, question: str, settings: Settings) -> int | None:
    """Peak memory of a process that answers one question about one page; None where it failed."""
    try:
        with Workers(1) as workers:
            return workers.call(_peak, kit, picture, question, settings)
    except Exception:  # killed for its memory, or the page is refused: no reason to stop the run
        return None


def _peak(kit: Path, picture: bytes, question: str, settings: Settings) -> int:
    from pulse_edge.machine import memory

    with PulseModel.load(kit, device=settings.device, threads=settings.threads) as model:
        model.interpret(picture, question, max_tokens=8)
    return memory.peak()


def prompt_of(sample: Sample) -> str | tuple[str, ...]:
    """The question, or one a turn."""
    questions = tuple(question for question, _ in sample.turns)
    return questions[0] if len(questions) == 1 else questions


def _unanswered(sample: Sample, facts: Facts) -> AnswerRecord:
    """The record of a question without an answer."""
    return AnswerRecord(
        question_id=sample.id,
        prompt=prompt_of(sample),
        image=sample.image,
        patient=sample.patient,
        gold=tuple(answer for _, answer in sample.turns),
        chosen=sample.chosen,
        facts=facts,
        text="" if len(sample.turns) == 1 else ("",) * len(sample.turns),
        turns=(),
    )


def _history(answer: AnswerRecord, turns: int) -> Turns:
    """The first turns of a conversation: questions and the kit's answers."""
    return tuple(zip(_list(answer.prompt), _list(answer.text), strict=True))[:turns]


def _times(
    question_id: str, page: EncodedPage, times: Sequence[dict[str, float]], tokens: int
) -> Times:
    first = times[0]
    return Times(
        question_id=question_id,
        prefill=round(first["prefill"], 4),
        first_token=round(first.get("first_token", first["prefill"]), 4),
        encode=round(page.seconds["encode"], 4),
        answer=round(sum(time["answer"] for time in times), 4),
        tokens=tokens,
    )


def _picked(logprobs: Floats, ids: Sequence[int]) -> Floats:
    return logprobs[np.arange(len(ids)), list(ids)]


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the common beginning."""
    return next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )


def _list(value: str | tuple[str, ...]) -> Sequence[str]:
    return [value] if isinstance(value, str) else value


def _six(value: float) -> float:
    """A value rounded to six significant digits."""
    return float(f"{value:.6g}")
