"""One loaded kit and one page -> answers, and by teacher forcing what they are compared with. Knows no files of results."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.ecgbench import LABELS, Sample
from calibration.metrics import said_labels
from calibration.results import Line, encoding
from pulse_edge.common.worker_pool import Workers
from pulse_edge.errors import ContextError, PageRefused, ScanError
from pulse_edge.inference.model import EncodedPage, PulseModel, Turns, versions
from pulse_edge.kit.kit import open_kit

Floats = NDArray[np.float64]
Cache = MutableMapping[tuple[str, str], EncodedPage]
"""Encoded pages by what encoded them and which they are."""


@dataclass(frozen=True)
class Settings:
    """What all answers of a run have in common."""

    max_tokens: int | None
    device: str
    threads: int | None


@dataclass(frozen=True)
class Reference:
    """What the reference kit said to a question, and its log-probabilities (tokens, vocabulary) over all turns."""

    line: Line
    logprobs: Floats


@dataclass(frozen=True)
class Job:
    """Questions about one page; for each, what the data tell of the page, and the reference's answer.

    None for a reference: it is the reference that is asked, or it refused the question.
    """

    image: str
    picture: bytes
    samples: tuple[Sample, ...]
    facts: Line
    references: tuple[Reference | None, ...]


@dataclass(frozen=True)
class Answered:
    """What goes into the results: the answer, its times, and log-probabilities (tokens, vocabulary) on itself."""

    task: str
    line: Line
    seconds: Line
    logprobs: Floats | None


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

    def about(self) -> Line:
        """Where it runs, and with what."""
        machine = f"{platform.machine()}, {os.cpu_count()} processors"
        return {"device": self.model.device, "machine": machine, "versions": versions()}

    def answer(self, job: Job, encoded: Cache) -> Iterator[Answered]:
        """Answers about a page, one by one; its rows come from `encoded`, or go there.

        A page or a question that the kit refuses has an empty answer that says why.
        """
        key, refused = (self._encoding, job.image), ""
        if key not in encoded:
            try:
                encoded[key] = self.model.encode(job.picture, admit=False)
            except (ScanError, PageRefused) as error:
                refused = str(error)
        for number, (sample, reference) in enumerate(zip(job.samples, job.references, strict=True)):
            answered = self._one(sample, encoded.get(key), refused, reference)
            line = {**_head(sample, job.facts), **answered.line}
            seconds = {"question_id": sample.id, **answered.seconds, "first": not number}
            yield Answered(sample.task, line, seconds, answered.logprobs)

    def _one(
        self, sample: Sample, rows: EncodedPage | None, refused: str, reference: Reference | None
    ) -> Answered:
        if rows is not None:
            try:
                return self._answered(sample, rows, reference)
            except ContextError as error:
                refused = str(error)
        empty: str | list[str] = "" if len(sample.turns) == 1 else [""] * len(sample.turns)
        return Answered(sample.task, {"text": empty, "refused": refused, "turns": []}, {}, None)

    def _answered(self, sample: Sample, rows: EncodedPage, reference: Reference | None) -> Answered:
        """Turn by turn: the kit's own answer after its own earlier ones, and what is forced after those of others."""
        own: list[tuple[str, str]] = []
        turns: list[Line] = []
        times: list[dict[str, float]] = []
        fresh: list[Floats] = []
        at = 0
        for number, (question, gold) in enumerate(sample.turns):
            answering = self.model.ask(rows, question, self._settings.max_tokens, own)
            answer = answering.answer()
            turn: Line = {"tokens": answering.ids, "complete": answer.complete}
            told, ids = self._reference_turn(reference, turn, own, number)
            right = self._ids(gold)
            ahead, forced = self._score(
                rows, question, [(sample.turns[:number], right), (told, ids)]
            )
            turn |= {"gold_tokens": len(right), "gold_logprob": _six(_picked(ahead, right).sum())}
            if reference is not None:
                turn |= compare(reference.logprobs[at : at + len(forced)], forced)
                at += len(forced)
            fresh.append(forced)
            own.append((question, answer.text))
            turns.append(turn)
            times.append(answering.seconds)
        line: Line = {
            "text": own[0][1] if len(own) == 1 else [text for _, text in own],
            "page": rows.page_sha256,
        }
        if sample.task in LABELS:
            line["labels"] = self.label_chances(rows, sample, own[0][1])
        seconds = _seconds(rows, times, sum(len(turn["tokens"]) for turn in turns))
        return Answered(sample.task, {**line, "turns": turns}, seconds, np.concatenate(fresh))

    def _reference_turn(
        self, reference: Reference | None, turn: Line, own: Turns, number: int
    ) -> tuple[Turns, list[int]]:
        """What the reference had heard and said when it came to this turn, and its answer's tokens."""
        if reference is None:
            return tuple(own), self._forced(turn)
        line = reference.line
        told = tuple(zip(_list(line["prompt"]), _list(line["text"]), strict=True))[:number]
        return told, self._forced(line["turns"][number])

    # --- teacher forcing

    def _ids(self, text: str) -> list[int]:
        """A text as an answer: its tokens and the end."""
        return [*self.model.language.tokenize(text, first=False), self.model.language.end]

    def _forced(self, turn: Line) -> list[int]:
        """The reference's tokens, and the end where it came to one."""
        ids: list[int] = turn["tokens"]
        return [*ids, self.model.language.end] if turn["complete"] else ids

    def _score(
        self, rows: EncodedPage, question: str, asked: Sequence[tuple[Turns, list[int]]]
    ) -> list[Floats]:
        """Log-probabilities (n, vocabulary) ahead of each token of each answer; equal histories are read once."""
        out: list[Floats] = []
        histories = [tuple(history) for history, _ in asked]
        if len(set(histories)) == 1:
            return [
                log_softmax(x)
                for x in self.model.score(rows, question, [ids for _, ids in asked], histories[0])
            ]
        for history, ids in asked:
            out += [log_softmax(x) for x in self.model.score(rows, question, [ids], history)]
        return out

    def label_chances(self, rows: EncodedPage, sample: Sample, said: str) -> dict[str, float]:
        """For each label of the task how likely it is to stand in the answer, along the answer that was given.

        A label may come first, or after any of those that were said, or in their place: its chance is that of at
        least one of these, each being the product of its tokens' probabilities and of its word ending there.
        """
        known = LABELS[sample.task]
        given = list(said_labels(said, known) or ())
        tokenize = self.model.language.tokenize
        starts = [
            tokenize(", ".join(given[:n]), first=False) if n else [] for n in range(len(given) + 1)
        ]
        asked = [
            (tokenize(", ".join([*given[:n], label]), first=False), start, label)
            for n, start in enumerate(starts)
            for label in known
            if label not in given[:n]
        ]
        miss = dict.fromkeys(known, 1.0)
        forced = self.model.score(
            rows, sample.turns[0][0], ([*ids, self.model.language.end] for ids, _, _ in asked)
        )
        for logits, (ids, start, label) in zip(forced, asked, strict=True):
            ahead = log_softmax(logits)
            at = _common(ids, start)
            ends = np.exp(ahead[-1][self._ends]).sum()
            miss[label] *= 1 - float(np.exp(_picked(ahead[at:-1], ids[at:]).sum()) * min(1.0, ends))
        return {label: _six(1 - missed) for label, missed in miss.items()}


def word_ends(model: PulseModel) -> NDArray[np.bool_]:
    """(vocabulary,): tokens with which a word that stands before them is at its end."""
    pieces = (model.language.piece(token) for token in range(model.language.vocabulary))
    return np.array(
        [not (piece[:1].isalnum() or piece[:1] in (b"-", b"_")) for piece in pieces], bool
    )


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


def peak_bytes(kit: Path, picture: bytes, question: str, settings: Settings) -> int | None:
    """Peak memory of a process that answers one question about one page; None where it did not come through."""
    try:
        with Workers(1) as workers:
            return workers.call(_peak, kit, picture, question, settings)
    except (
        Exception
    ):  # a process killed for its memory, a page that is refused: not known, and no reason to stop
        return None


def _peak(kit: Path, picture: bytes, question: str, settings: Settings) -> int:
    from pulse_edge.machine import memory

    with PulseModel.load(kit, device=settings.device, threads=settings.threads) as model:
        model.interpret(picture, question, max_tokens=8)
    return memory.peak()


def prompt_of(sample: Sample) -> str | list[str]:
    """The question, or one a turn."""
    return (
        sample.turns[0][0] if len(sample.turns) == 1 else [question for question, _ in sample.turns]
    )


def _head(sample: Sample, facts: Line) -> Line:
    """What a line says of its question."""
    return {
        "question_id": sample.id,
        "prompt": prompt_of(sample),
        "image": sample.image,
        "patient": sample.patient,
        "gold": [answer for _, answer in sample.turns],
        "chosen": list(sample.chosen),
        "facts": facts,
    }


def _seconds(rows: EncodedPage, times: Sequence[dict[str, float]], tokens: int) -> Line:
    """Wall times of an answer; `prefill` and `first_token` are its first turn's."""
    first = {
        key: round(times[0].get(key, times[0]["prefill"]), 4) for key in ("prefill", "first_token")
    }
    answer = round(sum(time["answer"] for time in times), 4)
    return {**first, "encode": round(rows.seconds["encode"], 4), "answer": answer, "tokens": tokens}


def _picked(logprobs: Floats, ids: Sequence[int]) -> Floats:
    return logprobs[np.arange(len(ids)), list(ids)]


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the common beginning."""
    return next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )


def _list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _six(value: float) -> float:
    """Six digits are kept."""
    return float(f"{value:.6g}")
