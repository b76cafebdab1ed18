"""Compare kits: results -> every task's scores, and what differs from the reference kit.

Intervals come from `bootstrap`; every kit sees the same draws, so differences are paired. McNemar's
test is the exact one. All kits are compared on the same questions: those that each of them has
answered, or refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from calibration.bootstrap import Floats, draws, estimate, mcnemar, row_mean
from calibration.figures import (
    Changes,
    Comparison,
    DiagnosisFigures,
    Divergence,
    ForcedFigures,
    KitFigures,
    Score,
    TaskFigures,
)
from calibration.judging import PRIMARY, Judged, cells, cpsc, judge, scores
from calibration.results import AnswerRecord, KitRecord, Results, Times
from pulse_edge.errors import BenchError

QUANTILES = (0.5, 0.9, 0.95, 0.99, 0.999, 1.0)
"""Levels at which divergences are reported."""


@dataclass(frozen=True)
class TaskAnswers:
    """Answers and times of all kits to the same questions of a task, in the same order."""

    answers: Mapping[str, Sequence[AnswerRecord]]
    times: Mapping[str, Sequence[Times]]


def compare(results: Results) -> Comparison:
    """Compare all kits of a folder.

    BenchError where it has no answers, or no question that all kits have answered.
    """
    reference = results.kits[0]
    records = {name: results.kit(name) for name in results.kits if results.tasks(name)}
    if reference not in records:
        raise BenchError(
            f"{results.path}: the reference {reference} has no answers; evaluate it first"
        )
    names = sorted(records, key=lambda name: (name != reference, -records[name].total_bytes))
    tasks: dict[str, TaskAnswers] = {}
    notes: list[str] = []
    for task in results.tasks(reference):
        shared, missing = _shared(results, names, task)
        notes += missing
        if shared.answers[reference]:
            tasks[task] = shared
    if not tasks:
        raise BenchError(
            f"{results.path}: no question was answered by all kits; "
            "go on with `calibration evaluate`"
        )
    figures: dict[str, dict[str, TaskFigures]] = {name: {} for name in names}
    primaries: dict[str, list[Floats]] = {name: [] for name in names}
    for task, shared in tasks.items():
        for name, (of_kit, drawn) in compare_task(task, shared.answers, reference).items():
            figures[name][task] = of_kit
            primaries[name].append(drawn)
    means = {name: row_mean(np.stack(drawn, 1)) for name, drawn in primaries.items()}
    kits = {
        name: _kit_figures(
            records[name],
            figures[name],
            _score(means[name], None if name == reference else means[reference]),
            [a for shared in tasks.values() for a in shared.answers[name]],
            [t for shared in tasks.values() for t in shared.times[name]],
        )
        for name in names
    }
    return Comparison(reference=reference, run=results.run, kits=kits, incomplete=tuple(notes))


def _shared(results: Results, names: Sequence[str], task: str) -> tuple[TaskAnswers, list[str]]:
    """Answers to the questions that all kits have, in the reference's order; missing ones in words."""
    answers = {name: {a.question_id: a for a in results.answers(name, task)} for name in names}
    times = {name: {t.question_id: t for t in results.times(name, task)} for name in names}
    ids = [one for one in answers[names[0]] if all(one in some for some in answers.values())]
    all_ids = set().union(*answers.values())
    notes = []
    if missing := len(all_ids) - len(ids):
        short = [name for name in names if len(answers[name]) < len(all_ids)]
        notes.append(
            f"{task}: {missing} questions are left out, not answered yet by {', '.join(short)}."
        )
    return TaskAnswers(
        {name: [some[one] for one in ids] for name, some in answers.items()},
        {name: [some[one] for one in ids] for name, some in times.items()},
    ), notes


# --- one task ---------------------------------------------------------------------------------


def compare_task(
    task: str, answers: Mapping[str, Sequence[AnswerRecord]], reference: str
) -> dict[str, tuple[TaskFigures, Floats]]:
    """Each kit's figures of a task, and its primary score (draws,), by its name."""
    w = draws([answer.group for answer in answers[reference]])
    judged = {name: judge(task, some) for name, some in answers.items()}
    base = judged[reference]
    drawn = {name: _all_scores(judged[name], answers[name], w) for name in answers}
    primary = PRIMARY[base.kind]
    out = {}
    for name, of_kit in judged.items():
        other = name != reference
        forced = forced_figures(answers[name], w)
        figures = TaskFigures(
            questions=len(of_kit.correct),
            primary=primary,
            right=int(of_kit.correct.sum()),
            unread=int(of_kit.unread.sum()),
            refused=sum(bool(answer.refused) for answer in answers[name]),
            cut_off=sum(
                any(not turn.complete for turn in answer.turns) for answer in answers[name]
            ),
            scores={
                score: _score(values, drawn[reference][score] if other else None)
                for score, values in drawn[name].items()
            },
            diagnoses=_diagnoses(base, of_kit, w),
            changes=_changes(base, of_kit, answers[reference], answers[name]) if other else None,
            gold_perplexity=forced.gold_perplexity,
            kld=forced.kld,
            same_top=forced.same_top,
        )
        out[name] = figures, drawn[name][primary]
    return out


def _score(values: Floats, base: Floats | None) -> Score:
    """A drawn score, with its difference to a base."""
    of_all = estimate(values)
    difference = None if base is None else estimate(values - base)
    return Score(of_all.value, of_all.interval, difference)


def _all_scores(judged: Judged, answers: Sequence[AnswerRecord], w: Floats) -> dict[str, Floats]:
    out = scores(judged, w)
    if judged.kind == "prose" and (nine := cpsc(answers)) is not None:
        out["cpsc_f1"] = scores(nine, w)["f1"]
    return out


def _changes(
    base: Judged,
    other: Judged,
    before: Sequence[AnswerRecord],
    after: Sequence[AnswerRecord],
) -> Changes:
    """Answers that turned from right to wrong and back, and others that differ."""
    lost, gained = base.correct & ~other.correct, ~base.correct & other.correct
    ids = [answer.question_id for answer in after]
    return Changes(
        lost=tuple(one for one, flip in zip(ids, lost, strict=True) if flip),
        gained=tuple(one for one, flip in zip(ids, gained, strict=True) if flip),
        texts_changed=sum(a.joined != b.joined for a, b in zip(before, after, strict=True)),
        mcnemar_p=mcnemar(int(lost.sum()), int(gained.sum())),
    )


def _diagnoses(base: Judged, other: Judged, w: Floats) -> dict[str, DiagnosisFigures]:
    """Sensitivity and specificity of each diagnosis that gold has, and their differences."""
    before, after = cells(base, w), cells(other, w)
    return {
        name: DiagnosisFigures(
            pages=int(other.gold[:, k].sum()),
            sensitivity=_score(after.sensitivity[:, k], before.sensitivity[:, k]),
            specificity=_score(after.specificity[:, k], before.specificity[:, k]),
        )
        for k, name in enumerate(other.names)
        if other.gold[:, k].any()
    }


# --- teacher forcing --------------------------------------------------------------------------


def forced_figures(answers: Sequence[AnswerRecord], w: Floats) -> ForcedFigures:
    """Perplexity of the right answers, and divergence from the reference where it was measured."""
    turns = [answer.turns for answer in answers]
    sums = np.array(
        [[sum(t.gold_logprob for t in some), sum(t.gold_tokens for t in some)] for some in turns]
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        perplexity = estimate(np.exp(-(w @ sums[:, 0]) / (w @ sums[:, 1])))
    by_answer = [[k for t in some for k in t.kld] for some in turns]
    kld = np.array([k for some in by_answer for k in some], float)
    if not kld.size:
        return ForcedFigures(gold_perplexity=perplexity)
    counts = np.array([len(some) for some in by_answer])
    totals = np.array([sum(some) for some in by_answer])
    same = np.array([sum(s for t in some for s in t.same) for some in turns])
    with np.errstate(invalid="ignore", divide="ignore"):
        mean, top = (w @ totals) / (w @ counts), (w @ same) / (w @ counts)
    quantiles = dict(zip(map(str, QUANTILES), np.quantile(kld, QUANTILES).tolist(), strict=True))
    return ForcedFigures(
        gold_perplexity=perplexity,
        kld=Divergence(tokens=len(kld), mean=estimate(mean), quantiles=quantiles),
        same_top=estimate(top),
    )


# --- all tasks --------------------------------------------------------------------------------


def _kit_figures(
    record: KitRecord,
    tasks: Mapping[str, TaskFigures],
    score: Score,
    answers: Sequence[AnswerRecord],
    times: Sequence[Times],
) -> KitFigures:
    """Mean score, divergence over all tasks, and speed of a kit."""
    forced = forced_figures(answers, draws([answer.group for answer in answers]))
    first_token, tokens_per_second = speed(times)
    return KitFigures(
        **vars(record),
        tasks=tasks,
        score=score,
        questions=len(answers),
        first_token_seconds=first_token,
        tokens_per_second=tokens_per_second,
        **vars(forced),
    )


def speed(times: Sequence[Times]) -> tuple[float | None, float | None]:
    """Median seconds from the page to the first token of its first answer, and tokens a second.

    Tokens a second are those of all answers. None where no answer was timed.
    """
    timed = [(t, t.answer) for t in times if t.answer is not None]
    first = [t.encode + t.first_token for t, _ in timed if t.first]
    decoding = sum(seconds for _, seconds in timed)
    return (
        round(float(np.median(first)), 3) if first else None,
        round(sum(t.tokens for t, _ in timed) / decoding, 2) if decoding else None,
    )
