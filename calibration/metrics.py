"""Compute scores from right and given answers, and parse the given ones. Pure functions.

Labels, letters and options are read as words, in any case; an unreadable answer stays unread.
`published` has the benchmark's own scorer, with its own rules.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from calibration.diagnoses import DIAGNOSES, diagnoses_in
from calibration.ecgbench import labels_in

Scores = dict[str, object]
Flags = NDArray[np.bool_]


# --- reading answers --------------------------------------------------------------------------


def read_labels(text: str, labels: Sequence[str]) -> tuple[str, ...] | None:
    """The known labels in an answer, () where it says `none`, None where it says neither."""
    answer = after_answer(text)
    return labels_in(answer, labels, ignore_case=True) or (
        () if re.search(r"\bnone\b", answer, re.I) else None
    )


def read_letter(text: str, allowed: str) -> str | None:
    """The letter that an answer chooses: alone, at its beginning, after `option`, or the only one
    in it.
    """
    answer = after_answer(text).strip()
    whole = re.match(r"\(?([A-Ha-h])(?:\)?[.:]?$|[.):](?=\s))", answer)
    named = re.search(r"\b(?i:option|answer|choice)\b(?:\s+(?i:is))?\s*:?\s*\(?([A-H])\b", answer)
    if chosen := whole or named:
        letters = {chosen[1].upper()}
    else:  # neither `not B` nor the article in `A normal ECG`
        plain = re.sub(r"\b(?i:not)\s+\(?[A-H]\b|\bA(?=\s+[a-z])", " ", answer)
        letters = set(re.findall(r"(?<![\w'-])([A-H])(?![\w'-])", plain))
    return letters.pop() if len(letters) == 1 and letters <= set(allowed) else None


def read_options(text: str, options: Sequence[str]) -> frozenset[str] | None:
    """The options that an answer names, in lower case; one that is part of another is not found
    inside it.
    """
    rest, named = text.lower(), set()
    for option in sorted({option.lower() for option in options if option}, key=len, reverse=True):
        rest, times = re.subn(rf"(?<!\w){re.escape(option)}(?!\w)", "\0", rest)
        named |= {option} if times else set()
    return frozenset(named) or None


def after_answer(text: str) -> str:
    """What follows the last `Answer:`, or all of it."""
    return re.split(r"(?i)\banswer:", text)[-1]


# --- labels -----------------------------------------------------------------------------------


def flags(label_sets: Sequence[Collection[str]], labels: Sequence[str]) -> Flags:
    """Label sets as a table: (samples, labels)."""
    return np.array([[label in some for label in labels] for some in label_sets], bool).reshape(
        len(label_sets), len(labels)
    )


def hard_label_scores(
    gold: Flags, given: Flags
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """F1 (k,) and AUC (k,) of each label, NaN where not defined, and the share of wrong cells.

    There are no scores to rank by, so AUC is the mean of sensitivity and specificity. It needs
    samples with and without the label; F1 needs the label somewhere, in gold or given.
    """
    hit, alarm = (gold & given).sum(0), (~gold & given).sum(0)
    miss, quiet = (gold & ~given).sum(0), (~gold & ~given).sum(0)
    with np.errstate(invalid="ignore"):
        f1 = 2 * hit / (2 * hit + alarm + miss)
        auc = (hit / (hit + miss) + quiet / (quiet + alarm)) / 2
    return f1, auc, float((gold != given).mean())


def label_scores(
    gold: Sequence[Sequence[str]], given: Sequence[Sequence[str] | None], labels: Sequence[str]
) -> Scores:
    """Macro F1 and AUC, Hamming loss, exact matches, and each label's own F1 and AUC.

    None among `given` stands for an unreadable answer, which counts as wrong in every label. Labels
    that never occur in gold have no F1 and no AUC, and are named.
    """
    right = flags(gold, labels)
    table = flags([some or () for some in given], labels)
    unread = np.array([some is None for some in given], bool)
    table[unread] = ~right[unread]
    f1, auc, loss = hard_label_scores(right, table)
    judged = np.asarray(right.any(0))
    return {
        "f1": _mean(f1[judged]),
        "auc": _mean(auc[judged & ~np.asarray(right.all(0))]),
        "hamming_loss": loss,
        "exact": float((right == table).all(1).mean()),
        "labels": {
            label: {"f1": number(f1[k]), "auc": number(auc[k]), "samples": int(right[:, k].sum())}
            for k, label in enumerate(labels)
            if judged[k]
        },
        "labels_without_samples": [
            label for label, there in zip(labels, judged, strict=True) if not there
        ],
    }


def accuracy(gold: Sequence[object], given: Sequence[object]) -> float:
    """Share of equal pairs."""
    return sum(a == b for a, b in zip(gold, given, strict=True)) / len(gold)


def _mean(values: NDArray[np.float64]) -> float | None:
    return float(values.mean()) if values.size else None


def number(value: float) -> float | None:
    """None instead of NaN, which JSON does not have."""
    return None if np.isnan(value) else float(value)


# --- prose ------------------------------------------------------------------------------------


def rouge_l(gold: str, given: str) -> float:
    """F-measure of the longest common subsequence of words (Lin 2004, ROUGE-L with beta 1), case
    ignored; 0 to 1.
    """
    a, b = (re.findall(r"\w+", text.lower()) for text in (gold, given))
    if not a or not b:
        return 0.0
    lengths = [0] * (len(b) + 1)
    for word in a:
        before = 0
        for j, other in enumerate(b, 1):
            before, lengths[j] = (
                lengths[j],
                before + 1 if word == other else max(lengths[j], lengths[j - 1]),
            )
    return 2 * lengths[-1] / (len(a) + len(b))


def prose_scores(gold: Sequence[str], given: Sequence[str]) -> Scores:
    """ROUGE-L and F1 of the diagnoses that the texts affirm; macro over those that gold has, micro
    over all mentions.
    """
    names = list(DIAGNOSES)
    right, table = (flags([diagnoses_in(text) for text in texts], names) for texts in (gold, given))
    f1, _, _ = hard_label_scores(right, table)
    judged = np.asarray(right.any(0))
    both, mentions = int((right & table).sum()), int(right.sum() + table.sum())
    each: Mapping[str, object] = {
        name: {"f1": number(f1[k]), "gold": int(right[:, k].sum()), "given": int(table[:, k].sum())}
        for k, name in enumerate(names)
        if judged[k] or table[:, k].any()
    }
    return {
        "rouge_l": float(np.mean([rouge_l(a, b) for a, b in zip(gold, given, strict=True)])),
        "diagnosis_f1": _mean(f1[judged]),
        "diagnosis_micro_f1": 2 * both / mentions if mentions else None,
        "diagnoses": each,
    }
