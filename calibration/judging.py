"""Read the answers to a task and score them, under any weights of the questions."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from calibration import ecgbench, metrics
from calibration.bootstrap import Flags, Floats, rank_auc, row_mean, weighted_mean
from calibration.diagnoses import DIAGNOSES, diagnoses_in
from calibration.ecgbench import LABELS, LETTERS, labels_in
from calibration.metrics import flags
from calibration.results import AnswerRecord

RATE_TOLERANCE = 5
"""Beats per minute within which a rate counts as right."""
CPSC_DIAGNOSES: Mapping[str, str] = {
    "NORM": "normal ECG",
    "AF": "atrial fibrillation",
    "I-AVB": "first-degree AV block",
    "LBBB": "left bundle branch block",
    "RBBB": "right bundle branch block",
    "PAC": "premature atrial contractions",
    "PVC": "premature ventricular contractions",
    "STD": "ST depression",
    "STE": "ST elevation",
}
"""CPSC's labels by the names that `diagnoses` gives them."""
PRIMARY: Mapping[str, str] = {"labels": "f1", "choice": "accuracy", "prose": "diagnosis_f1"}
"""The score that stands for a task, by its kind."""


@dataclass(frozen=True)
class Judged:
    """A kit's answers to a task and the right ones: n questions, k diagnoses (0 for choices)."""

    kind: str
    names: tuple[str, ...]
    gold: Flags
    """(n, k)"""
    given: Flags
    """(n, k)"""
    correct: Flags
    """(n,): the whole answer is right."""
    unread: Flags
    """(n,): answered, but unreadable."""
    chances: Floats | None = None
    """(n, k): probability of each label, from the probabilities of its tokens."""
    shares: Mapping[str, Floats] = field(default_factory=dict)
    """Further scores by name, (n,) from 0 to 1; NaN: not asked."""


def judge(task: str, answers: Sequence[AnswerRecord]) -> Judged:
    """Read the answers to a task."""
    if task in LABELS:
        return _labels(task, answers)
    if task in LETTERS or task == "ecgqa-test":
        return _choice(task, answers)
    return _prose(answers)


def _labels(task: str, answers: Sequence[AnswerRecord]) -> Judged:
    labels = LABELS[task]
    read = [metrics.read_labels(answer.joined, labels) for answer in answers]
    gold = flags([labels_in(answer.gold[0], labels) for answer in answers], labels)
    given = flags([some or () for some in read], labels)
    unread = np.array([some is None for some in read], bool)
    given[unread] = ~gold[unread]  # wrong in every label, as in `metrics`
    chances = None
    if all(answer.labels is not None for answer in answers):
        rows = [[(answer.labels or {})[label] for label in labels] for answer in answers]
        chances = np.array(rows, float)
    return Judged("labels", labels, gold, given, _rows_equal(gold, given), unread, chances)


def _choice(task: str, answers: Sequence[AnswerRecord]) -> Judged:
    read: list[object]
    right: list[object]
    if task in LETTERS:
        read = [metrics.read_letter(answer.joined, LETTERS[task]) for answer in answers]
        right = [answer.gold[0][0] for answer in answers]
    else:
        read = [
            metrics.read_options(answer.joined, ecgbench.options(str(answer.prompt)))
            for answer in answers
        ]
        right = [frozenset(option.lower() for option in answer.chosen) for answer in answers]
    none = np.zeros((len(answers), 0), bool)
    correct = np.array([a == b for a, b in zip(read, right, strict=True)], bool)
    return Judged("choice", (), none, none, correct, np.array([one is None for one in read], bool))


def _prose(answers: Sequence[AnswerRecord]) -> Judged:
    names = tuple(DIAGNOSES)
    reports = ["\n".join(answer.gold) for answer in answers]
    gold = flags([diagnoses_in(report) for report in reports], names)
    given = flags([diagnoses_in(answer.joined) for answer in answers], names)
    rouge = [
        metrics.rouge_l(report, answer.joined)
        for report, answer in zip(reports, answers, strict=True)
    ]
    near = [_rate_score(answer.facts.rate, answer.joined) for answer in answers]
    shares = {
        "rouge_l": np.array(rouge, float),
        f"rate_within_{RATE_TOLERANCE}": np.array(near, float),
    }
    unread = np.asarray(~given.any(1))
    return Judged("prose", names, gold, given, _rows_equal(gold, given), unread, None, shares)


def cpsc(answers: Sequence[AnswerRecord]) -> Judged | None:
    """CPSC's nine labels as reports name them; None unless the data have them for every page."""
    labels = tuple(CPSC_DIAGNOSES)
    page_labels = [answer.facts.cpsc for answer in answers if answer.facts.cpsc is not None]
    if not answers or len(page_labels) < len(answers):
        return None
    gold = flags(page_labels, labels)
    named = [diagnoses_in(answer.joined) for answer in answers]
    given = np.array([[CPSC_DIAGNOSES[label] in some for label in labels] for some in named], bool)
    unread = np.asarray(~given.any(1))
    return Judged("labels", labels, gold, given, _rows_equal(gold, given), unread)


def stated_rate(text: str) -> int | None:
    """The heart rate that a report states, in bpm."""
    match = re.search(r"(\d{2,3})\s*(?:bpm|beats?\s*(?:per|/|a)\s*min\w*|/\s*min)", text, re.I)
    return int(match[1]) if match else None


def _rate_score(rate: float | None, text: str) -> float:
    """1 or 0; NaN where the rate is unknown."""
    if rate is None:
        return math.nan
    stated = stated_rate(text)
    return float(stated is not None and abs(stated - rate) <= RATE_TOLERANCE)


def _rows_equal(a: Flags, b: Flags) -> Flags:
    return np.asarray((a == b).all(1))


# --- scores under weights ---------------------------------------------------------------------


@dataclass(frozen=True)
class Cells:
    """The four cells of a confusion table by diagnosis, (draws, k) each."""

    hits: Floats
    false_alarms: Floats
    misses: Floats
    true_negatives: Floats

    @property
    def sensitivity(self) -> Floats:
        """Share of the pages with a diagnosis that are called so; NaN without such a page."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self.hits / (self.hits + self.misses))

    @property
    def specificity(self) -> Floats:
        """Share of the pages without a diagnosis that are not called so; NaN without such a page."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self.true_negatives / (self.true_negatives + self.false_alarms))


def cells(judged: Judged, w: Floats) -> Cells:
    """Weighted counts of each diagnosis under weights (draws, n)."""
    gold, given = judged.gold, judged.given
    kinds = (gold & given, ~gold & given, gold & ~given, ~gold & ~given)
    return Cells(*(w @ kind.astype(float) for kind in kinds))


def scores(judged: Judged, w: Floats) -> dict[str, Floats]:
    """Scores (draws,) by name under weights (draws, n); the kind's primary score comes first."""
    if judged.kind == "choice":
        return {"accuracy": weighted_mean(judged.correct.astype(float), w)}
    c = cells(judged, w)
    with np.errstate(invalid="ignore", divide="ignore"):
        total = 2 * c.hits + c.false_alarms + c.misses
        f1, micro = 2 * c.hits / total, 2 * c.hits.sum(1) / total.sum(1)
    there = judged.gold.any(0)
    both = there & ~judged.gold.all(0)
    if judged.kind == "prose":
        extra = {
            name: weighted_mean(values, w)
            for name, values in judged.shares.items()
            if not np.isnan(values).all()
        }
        return {"diagnosis_f1": row_mean(f1[:, there]), "diagnosis_micro_f1": micro, **extra}
    balanced = (c.sensitivity + c.specificity)[:, both] / 2
    out = {"f1": row_mean(f1[:, there]), "auc": row_mean(balanced)}
    if judged.chances is not None and both.any():
        ranked = [
            rank_auc(judged.chances[:, k], judged.gold[:, k], w) for k in np.flatnonzero(both)
        ]
        out["auc_of_probabilities"] = row_mean(np.stack(ranked, 1))
    wrong = (judged.gold != judged.given).mean(1)
    return {
        **out,
        "exact": weighted_mean(judged.correct.astype(float), w),
        "hamming_loss": weighted_mean(wrong, w),
    }
