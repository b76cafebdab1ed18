"""Results of several kits -> figures: every task's scores, what differs from the reference kit, and how surely.

Intervals are percentiles of a bootstrap over patients, or pages where no patient is told (Efron 1979); every kit sees the
same draws, so differences are paired. McNemar's test is the exact one. All kits are compared on the same questions: those
that each of them has answered, or refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration import ecgbench, metrics
from calibration.diagnoses import DIAGNOSES, diagnoses_in
from calibration.ecgbench import LABELS, LETTERS, labels_in
from calibration.metrics import Flags, flags
from calibration.results import Line, Results
from pulse_edge.errors import BenchError

Floats = NDArray[np.float64]
Figures = dict[str, Any]
DRAWS, SEED = 1000, 20241024
NEAR = 5
"""Beats per minute within which a rate counts as right."""
QUANTILES = (0.5, 0.9, 0.95, 0.99, 0.999, 1.0)
CPSC_WORDS: Mapping[str, str] = {
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


# --- reading ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judged:
    """A kit's answers to a task beside the right ones: n questions, k diagnoses (none where one option is chosen)."""

    kind: str
    names: tuple[str, ...]
    gold: Flags  # (n, k)
    said: Flags  # (n, k)
    correct: Flags  # (n,): all of it
    unread: Flags  # (n,): answered, and not to be understood
    chances: Floats | None = None  # (n, k): of each label, from the probabilities of its tokens
    shares: Mapping[str, Floats] = field(
        default_factory=dict
    )  # further scores, (n,) from 0 to 1, NaN: not asked


def judge(task: str, lines: Sequence[Line]) -> Judged:
    """Read the answers to a task."""
    if task in LABELS:
        return _labels(task, lines)
    if task in LETTERS or task == "ecgqa-test":
        return _choice(task, lines)
    return _prose(lines)


def _labels(task: str, lines: Sequence[Line]) -> Judged:
    known = LABELS[task]
    read = [metrics.said_labels(line["text"], known) for line in lines]
    gold = flags([labels_in(line["gold"][0], known) for line in lines], known)
    said = flags([some or () for some in read], known)
    unread = np.array([some is None for some in read], bool)
    said[unread] = ~gold[unread]  # wrong in every label, as in `metrics`
    chances = None
    if all("labels" in line for line in lines):
        chances = np.array([[line["labels"][label] for label in known] for line in lines], float)
    return Judged("labels", known, gold, said, _rows_equal(gold, said), unread, chances)


def _choice(task: str, lines: Sequence[Line]) -> Judged:
    read: list[object]
    right: list[object]
    if task in LETTERS:
        read = [metrics.said_letter(line["text"], LETTERS[task]) for line in lines]
        right = [line["gold"][0][0] for line in lines]
    else:
        read = [
            metrics.said_options(line["text"], ecgbench.options(line["prompt"])) for line in lines
        ]
        right = [frozenset(option.lower() for option in line["chosen"]) for line in lines]
    none = np.zeros((len(lines), 0), bool)
    correct = np.array([a == b for a, b in zip(read, right, strict=True)], bool)
    return Judged("choice", (), none, none, correct, np.array([one is None for one in read], bool))


def _prose(lines: Sequence[Line]) -> Judged:
    names = tuple(DIAGNOSES)
    texts = [joined(line["text"]) for line in lines]
    gold = flags([diagnoses_in("\n".join(line["gold"])) for line in lines], names)
    said = flags([diagnoses_in(text) for text in texts], names)
    rouge = [
        metrics.rouge_l("\n".join(line["gold"]), text)
        for line, text in zip(lines, texts, strict=True)
    ]
    near = [_near(line["facts"].get("rate"), text) for line, text in zip(lines, texts, strict=True)]
    shares = {"rouge_l": np.array(rouge, float), f"rate_within_{NEAR}": np.array(near, float)}
    return Judged(
        "prose", names, gold, said, _rows_equal(gold, said), np.asarray(~said.any(1)), None, shares
    )


def cpsc(lines: Sequence[Line]) -> Judged | None:
    """CPSC's nine labels as reports name them, where the data tell the page's; None where they do not."""
    if not lines or not all(line["facts"].get("cpsc") is not None for line in lines):
        return None
    known = tuple(CPSC_WORDS)
    gold = flags([line["facts"]["cpsc"] for line in lines], known)
    found = [diagnoses_in(joined(line["text"])) for line in lines]
    said = np.array([[CPSC_WORDS[label] in some for label in known] for some in found], bool)
    return Judged("labels", known, gold, said, _rows_equal(gold, said), np.asarray(~said.any(1)))


def said_rate(text: str) -> int | None:
    """The heart rate that a report states, in bpm."""
    found = re.search(r"(\d{2,3})\s*(?:bpm|beats?\s*(?:per|/|a)\s*min\w*|/\s*min)", text, re.I)
    return int(found[1]) if found else None


def _near(rate: float | None, text: str) -> float:
    """1 or 0; NaN where the rate is not known."""
    if rate is None:
        return math.nan
    said = said_rate(text)
    return float(said is not None and abs(said - rate) <= NEAR)


def _rows_equal(a: Flags, b: Flags) -> Flags:
    return np.asarray((a == b).all(1))


def joined(text: str | list[str]) -> str:
    """An answer as one text."""
    return text if isinstance(text, str) else "\n".join(text)


# --- scores under weights ---------------------------------------------------------------------------------------------


def draws(groups: Sequence[str]) -> Floats:
    """How often each of n questions counts, (1 + DRAWS, n): once, then in each draw of whole groups with replacement."""
    names, at = np.unique(list(groups), return_inverse=True)
    rng = np.random.default_rng(SEED)
    counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), DRAWS)
    return np.concatenate([np.ones((1, len(at))), counts[:, at].astype(float)])


def scores(judged: Judged, w: Floats) -> dict[str, Floats]:
    """Scores by name under weights (draws, n), each (draws,); the primary one of the kind comes first."""
    if judged.kind == "choice":
        return {"accuracy": _share(judged.correct.astype(float), w)}
    hit, alarm, miss, quiet = _cells(judged, w)
    with np.errstate(invalid="ignore", divide="ignore"):
        f1 = 2 * hit / (2 * hit + alarm + miss)
        sensitivity, specificity = hit / (hit + miss), quiet / (quiet + alarm)
        micro = 2 * hit.sum(1) / (2 * hit + alarm + miss).sum(1)
    there = judged.gold.any(0)
    both = there & ~judged.gold.all(0)
    if judged.kind == "prose":
        extra = {
            name: _share(values, w)
            for name, values in judged.shares.items()
            if not np.isnan(values).all()
        }
        return {"diagnosis_f1": row_mean(f1[:, there]), "diagnosis_micro_f1": micro, **extra}
    out = {"f1": row_mean(f1[:, there]), "auc": row_mean((sensitivity + specificity)[:, both] / 2)}
    if judged.chances is not None and both.any():
        ranked = [
            rank_auc(judged.chances[:, k], judged.gold[:, k], w) for k in np.flatnonzero(both)
        ]
        out["auc_of_probabilities"] = row_mean(np.stack(ranked, 1))
    wrong = (judged.gold != judged.said).mean(1)
    return {
        **out,
        "exact": _share(judged.correct.astype(float), w),
        "hamming_loss": _share(wrong, w),
    }


def rank_auc(chance: Floats, gold: Flags, w: Floats) -> Floats:
    """Area under the ROC curve under weights (draws, n): the chance that a page with the label ranks above one without.

    Equal ranks count half (Mann and Whitney 1947). NaN where a draw has one kind only.
    """
    order = np.argsort(chance, kind="stable")
    starts = np.flatnonzero(np.diff(chance[order], prepend=np.nan) != 0)
    yes, no = (np.add.reduceat(w[:, order] * kind[order], starts, axis=1) for kind in (gold, ~gold))
    below = np.cumsum(no, axis=1) - no / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((yes * below).sum(1) / (yes.sum(1) * no.sum(1)))


def _cells(judged: Judged, w: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Hits, false alarms, misses, and rightly absent, (draws, k) each."""
    gold, said = judged.gold, judged.said
    cells = (gold & said, ~gold & said, gold & ~said, ~gold & ~said)
    hit, alarm, miss, quiet = (w @ cell.astype(float) for cell in cells)
    return hit, alarm, miss, quiet


def _share(values: Floats, w: Floats) -> Floats:
    """Weighted mean of what is not NaN, (draws,)."""
    there = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.asarray((w[:, there] @ values[there]) / w[:, there].sum(1))


def row_mean(values: Floats) -> Floats:
    """Mean of what is not NaN, row by row; NaN where nothing is."""
    there = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(there, values, 0).sum(1) / there.sum(1))


def spread(drawn: Floats) -> Figures:
    """The value and its 95 % interval; null where there is none."""
    value, rest = drawn[0], drawn[1:][~np.isnan(drawn[1:])]
    low, high = np.percentile(rest, [2.5, 97.5]) if rest.size else (math.nan, math.nan)
    return {"value": metrics.number(value), "interval": [metrics.number(low), metrics.number(high)]}


def mcnemar(lost: int, gained: int) -> float:
    """Two-sided exact p of as uneven a division of the answers that changed between right and wrong (McNemar 1947)."""
    n, less = lost + gained, min(lost, gained)
    tail: int = sum(math.comb(n, k) for k in range(less + 1))
    return min(1.0, float(2 * tail / 2**n))


# --- one task ---------------------------------------------------------------------------------------------------------


def compare_task(
    task: str, lines: Mapping[str, Sequence[Line]], reference: str
) -> tuple[Figures, dict[str, Floats]]:
    """Each kit's figures of a task by its name, and its primary score under all draws."""
    w = draws([group(line) for line in lines[reference]])
    judged = {name: judge(task, some) for name, some in lines.items()}
    base = judged[reference]
    drawn = {name: _all_scores(judged[name], lines[name], w) for name in lines}
    primary = PRIMARY[base.kind]
    out: Figures = {}
    for name, j in judged.items():
        result: Figures = {
            "questions": len(j.correct),
            "primary": primary,
            "right": int(j.correct.sum()),
            "unread": int(j.unread.sum()),
            "refused": sum("refused" in line for line in lines[name]),
            "cut_off": sum(
                any(not turn["complete"] for turn in line["turns"]) for line in lines[name]
            ),
            "scores": {score: spread(values) for score, values in drawn[name].items()},
            **forced_figures(lines[name], w),
        }
        if name != reference:
            for score, values in drawn[name].items():
                result["scores"][score]["difference"] = spread(values - drawn[reference][score])
            result |= _flips(base, j, lines[reference], lines[name])
        result["diagnoses"] = _diagnoses(base, j, w)
        out[name] = result
    return out, {name: drawn[name][primary] for name in lines}


def group(line: Line) -> str:
    """What a draw takes or leaves as a whole: a patient's pages, or a page."""
    return f"patient {line['patient']}" if line["patient"] is not None else f"page {line['image']}"


def _all_scores(judged: Judged, lines: Sequence[Line], w: Floats) -> dict[str, Floats]:
    out = scores(judged, w)
    if judged.kind == "prose" and (nine := cpsc(lines)) is not None:
        out["cpsc_f1"] = scores(nine, w)["f1"]
    return out


def _flips(base: Judged, other: Judged, theirs: Sequence[Line], ours: Sequence[Line]) -> Figures:
    """Answers that turned from right to wrong and back, others that differ, and McNemar's p."""
    lost, gained = base.correct & ~other.correct, ~base.correct & other.correct
    changed = sum(joined(a["text"]) != joined(b["text"]) for a, b in zip(theirs, ours, strict=True))
    return {
        "lost": [line["question_id"] for line, flip in zip(ours, lost, strict=True) if flip],
        "gained": [line["question_id"] for line, flip in zip(ours, gained, strict=True) if flip],
        "texts_changed": changed,
        "mcnemar_p": mcnemar(int(lost.sum()), int(gained.sum())),
    }


def _diagnoses(base: Judged, other: Judged, w: Floats) -> Figures:
    """Sensitivity and specificity of each diagnosis that gold has, and their differences to the reference."""
    out: Figures = {}
    with np.errstate(invalid="ignore", divide="ignore"):
        (h0, a0, m0, q0), (h, a, m, q) = _cells(base, w), _cells(other, w)
        rates = {
            "sensitivity": (h0 / (h0 + m0), h / (h + m)),
            "specificity": (q0 / (q0 + a0), q / (q + a)),
        }
    for k, name in enumerate(other.names):
        if other.gold[:, k].any():
            out[name] = {"pages": int(other.gold[:, k].sum())}
            for what, (before, after) in rates.items():
                out[name][what] = {
                    **spread(after[:, k]),
                    "difference": spread(after[:, k] - before[:, k]),
                }
    return out


# --- teacher forcing --------------------------------------------------------------------------------------------------


def forced_figures(lines: Sequence[Line], w: Floats) -> Figures:
    """Perplexity of the right answers, and KLD and same-top rate against the reference where there are any."""
    turns = [[turn for turn in line["turns"] if "gold_logprob" in turn] for line in lines]
    sums = np.array(
        [
            [sum(t["gold_logprob"] for t in some), sum(t["gold_tokens"] for t in some)]
            for some in turns
        ]
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        out: Figures = {"gold_perplexity": spread(np.exp(-(w @ sums[:, 0]) / (w @ sums[:, 1])))}
    per_line = [[k for t in some for k in t.get("kld", ())] for some in turns]
    kld = np.array([k for some in per_line for k in some], float)
    if not kld.size:
        return out
    counts, totals = (
        np.array([len(some) for some in per_line]),
        np.array([sum(some) for some in per_line]),
    )
    same = np.array([sum(s for t in some for s in t.get("same", ())) for some in turns])
    with np.errstate(invalid="ignore", divide="ignore"):
        mean, top = (w @ totals) / (w @ counts), (w @ same) / (w @ counts)
    quantiles = dict(zip(map(str, QUANTILES), np.quantile(kld, QUANTILES).tolist(), strict=True))
    return {
        **out,
        "kld": {"tokens": len(kld), "mean": spread(mean), "quantiles": quantiles},
        "same_top": spread(top),
    }


# --- all tasks --------------------------------------------------------------------------------------------------------


def compare(results: Results) -> Figures:
    """The whole comparison. BenchError where the folder has no answers, or no question that all kits have answered."""
    names = results.kits
    reference = names[0]
    names = [name for name in names if results.tasks(name)]
    names.sort(key=lambda name: (name != reference, -sum(results.kit(name)["bytes"].values())))
    if reference not in names:
        raise BenchError(
            f"{results.path}: the reference {reference} has no answers; evaluate it first"
        )
    tasks, notes = [], list[str]()
    for task in results.tasks(reference):
        lines, missing = _common(results, names, task)
        notes += missing
        if lines[reference]:
            tasks.append((task, lines))
    if not tasks:
        raise BenchError(
            f"{results.path}: no question was answered by all kits; go on with `calibration evaluate`"
        )
    kits: dict[str, Figures] = {name: {**results.kit(name), "tasks": {}} for name in names}
    primaries: dict[str, list[Floats]] = {name: [] for name in names}
    for task, lines in tasks:
        figures, drawn = compare_task(task, lines, reference)
        for name in names:
            kits[name]["tasks"][task] = figures[name]
            primaries[name].append(drawn[name])
    for name in names:
        kits[name] |= _over_all(name, reference, primaries, [lines[name] for _, lines in tasks])
    return {"reference": reference, "run": results.run, "kits": kits, "incomplete": notes}


def _common(
    results: Results, names: Sequence[str], task: str
) -> tuple[dict[str, list[Line]], list[str]]:
    """Each kit's lines of the questions that all have, in the reference's order; and what is missing, in words."""
    by_id = {
        name: {line["question_id"]: line for line in results.lines(name, task)} for name in names
    }
    ids = [one for one in by_id[names[0]] if all(one in some for some in by_id.values())]
    all_ids = set().union(*by_id.values())
    notes = []
    if missing := len(all_ids) - len(ids):
        short = [name for name in names if len(by_id[name]) < len(all_ids)]
        notes.append(
            f"{task}: {missing} questions are left out, not answered yet by {', '.join(short)}."
        )
    return {name: [some[one] for one in ids] for name, some in by_id.items()}, notes


def _over_all(
    name: str,
    reference: str,
    primaries: Mapping[str, Sequence[Floats]],
    tasks: Sequence[Sequence[Line]],
) -> Figures:
    """Mean of the tasks' primary scores, divergence over all tasks, times, bytes."""
    mean, base = (row_mean(np.stack(primaries[n], 1)) for n in (name, reference))
    lines = [line for some in tasks for line in some]
    out: Figures = {"score": spread(mean), "questions": len(lines), **speed(lines)}
    if name != reference:
        out["score"]["difference"] = spread(mean - base)
    return {**out, **forced_figures(lines, draws([group(line) for line in lines]))}


def speed(lines: Sequence[Line]) -> Figures:
    """Median seconds from the page to the first token of its first answer, and tokens a second over all answers."""
    times = [line["seconds"] for line in lines if "answer" in line["seconds"]]
    first = [t["encode"] + t["first_token"] for t in times if t["first"]]
    writing = sum(t["answer"] for t in times)
    return {
        "first_token_seconds": round(float(np.median(first)), 3) if first else None,
        "tokens_per_second": round(sum(t["tokens"] for t in times) / writing, 2)
        if writing
        else None,
    }
