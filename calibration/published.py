"""The benchmark's own scorer, number for number, with its faults.

Use it only to compare with published figures.

Its rules were taken from the evaluation script that PULSE publishes. Labels are found as parts of
words (`NORM` in `ABNORMAL`), AUC is that of hard labels, an unreadable answer becomes a random
option (seed 42), only complete files of multiple choice are scored, and missing answers do not
count. `score` has the corrected scores.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from calibration.ecgbench import options
from calibration.metrics import accuracy, flags, hard_label_scores, number

SEED = 42
COMPLETE: Mapping[str, int] = {"mmmu-ecg": 200, "csn-test-no-cot": 1611, "g12-test-no-cot": 2026}
"""The only numbers of answers that are scored."""
RANDOM_FROM: Mapping[str, str] = {
    "mmmu-ecg": "ABCD",
    "csn-test-no-cot": "ABCDEFGH",
    "g12-test-no-cot": "ABCDEFGH",
}
SPACES: Mapping[str, tuple[str, ...]] = {
    "ptb-test": ("NORM", "MI", "STTC", "CD", "HYP"),
    "cpsc-test": ("NORM", "AF", "I-AVB", "LBBB", "RBBB", "PAC", "PVC", "STD", "STE"),
    "code15-test": ("1dAVb", "RBBB", "LBBB", "SB", "ST", "AF"),
}
Scores = dict[str, float | None]
TASKS = (*COMPLETE, *SPACES, "ecgqa-test")
"""The tasks that the script scores; it sends reports and the arena to a language model on the
network.
"""


@dataclass(frozen=True)
class Answer:
    """One line of a runner's file."""

    id: str
    prompt: str
    text: Any  # str; in the arena a list of them, one a turn
    response: bool = (
        False  # the text came under `response`, where the script reads options otherwise
    )


def score(task: str, gold: Mapping[str, Any], answers: Sequence[Answer]) -> Scores | str:
    """The script's numbers for one of TASKS, or why it gives none.

    `gold` has the published answers by id. KeyError for an answer without gold, as in the script.
    """
    if task in COMPLETE:
        return _choice(task, gold, answers)
    if task in SPACES:
        return _labels(task, gold, answers)
    right = [set(gold[answer.id]) for answer in answers]
    return {"accuracy": accuracy(right, [set(_chosen(answer)) for answer in answers])}


def _choice(task: str, gold: Mapping[str, Any], answers: Sequence[Answer]) -> Scores | str:
    if len(answers) != COMPLETE[task]:
        return f"has {len(answers)} answers; the published scorer accepts exactly {COMPLETE[task]}"
    chance = random.Random(SEED)
    given = [letter(answer.text) or chance.choice(RANDOM_FROM[task]) for answer in answers]
    right = [gold[answer.id] if task == "mmmu-ecg" else gold[answer.id][0] for answer in answers]
    return {"accuracy": accuracy(right, given)}


def letter(text: str) -> str | None:
    """An answer's letter: the whole text, the first of `A.` to `H.` anywhere, after `The correct
    option is `, or the first of A to H (by the alphabet) after the last `Answer:`.
    """
    letters = "ABCDEFGH"
    if text in tuple(letters):
        return text
    dotted = [one for one in letters if f"{one}." in text]
    if dotted:
        return dotted[0]
    _, mark, rest = text.rpartition("The correct option is ")
    if mark:  # the script would fail on a text that ends here
        return rest[:1] if rest[:1] in tuple(letters) else None
    _, mark, rest = text.rpartition("Answer:")
    return next((one for one in letters if one in rest), None) if mark else None


def _labels(task: str, gold: Mapping[str, Any], answers: Sequence[Answer]) -> Scores:
    """Mean over the labels that gold has; other labels in the answers do not count."""
    space = SPACES[task]
    right = [_gold_labels(task, gold[answer.id], space) for answer in answers]
    given = [_read_labels(task, answer.text, space) for answer in answers]
    labels = sorted({label for some in right for label in some})
    table = flags(right, labels)
    f1, auc, loss = hard_label_scores(table, flags(given, labels))
    return {"f1": float(f1.mean()), "auc": number(float(auc.mean())), "hamming_loss": loss}


def _gold_labels(task: str, value: str, space: Sequence[str]) -> list[str]:
    if task == "code15-test" and value in ("NORM", "ABNORMAL"):
        return [value]
    return [label for label in space if label in value]


def _read_labels(task: str, text: str, space: Sequence[str]) -> list[str]:
    if task != "code15-test":
        return [label for label in space if label in text]
    text = text.split("Answer:")[-1]
    verdict = ["ABNORMAL"] if "ABNORMAL" in text else ["NORM"] if "NORM" in text else []
    return verdict + [label for label in space if label in text]


def _chosen(answer: Answer) -> list[str]:
    """Options of the prompt that stand anywhere in the text; under `response` only lower-case
    options match.
    """
    text = answer.text.lower()
    return [
        one for one in options(answer.prompt) if (one if answer.response else one.lower()) in text
    ]
