"""Figures of a findings file: calibrations fitted on one side of the pages, measured on the other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from calibration.bootstrap import Estimate, Floats, draws, estimate, row_mean
from calibration.findings import platt
from calibration.findings.file import (
    Bin,
    Counts,
    FindingsFile,
    FittedOn,
    Header,
    Measures,
    OverallFigures,
    PageAnswers,
    PageCounts,
    StatementFigures,
)
from calibration.findings.pages import SIDES
from calibration.findings.platt import Responses
from pulse_edge.errors import BenchError
from pulse_edge.kit.manifest import Calibration
from pulse_edge.report.findings import STATEMENTS


@dataclass(frozen=True)
class Fitted:
    """A calibration that was fitted on other data, to be measured."""

    statements: Mapping[str, Calibration]
    pages: Mapping[str, Counts]
    """Calibration pages by statement."""
    source: FittedOn
    pictures: frozenset[str]
    """sha256 of each of its pages."""


def conclude(
    header: Header,
    lines: Sequence[PageAnswers],
    risk: float,
    other: Fitted | None,
    versions: Mapping[str, str],
) -> FindingsFile:
    """The whole file, of what is fitted here or of an `other` calibration.

    BenchError where a side that is needed has no answers.
    """
    sides = {side: [line for line in lines if line.side == side and line.gold] for side in SIDES}
    if not sides["test"] or (other is None and not sides["calibration"]):
        raise BenchError("no page of one side could be asked about; see what was left out, and why")
    fitted = (
        other.statements
        if other
        else {s.key: _fit(s.key, sides["calibration"], risk) for s in STATEMENTS}
    )
    responses = table(sides["test"], fitted)
    w = draws([line.group for line in sides["test"]])
    source, calibration = other.source if other else None, sides["calibration"]
    used = sorted((t, i, line.picture) for line in calibration for t, i in line.samples)
    ids: dict[str, list[str]] = {}
    for task, name, _ in used:
        ids.setdefault(task, []).append(name)
    return FindingsFile(
        **vars(header),
        risk=source.risk if source else risk,
        confidence=source.confidence if source else platt.CONFIDENCE,
        fitted_on=source,
        pages=PageCounts(len(calibration), len(sides["test"])),
        calibrated_on={task: tuple(names) for task, names in ids.items()},
        content=hashlib.sha256(json.dumps(used).encode()).hexdigest(),
        left_out={line.image: line.left_out for line in lines if line.left_out},
        versions=versions,
        all=_of_all(responses, fitted, w),
        statements={
            s.key: _statement(
                s.name,
                fitted[s.key],
                other.pages[s.key] if other else _counts(s.key, calibration),
                responses.column(k),
                w,
            )
            for k, s in enumerate(STATEMENTS)
        },
        lines=tuple(lines),
    )


def _fit(key: str, lines: Sequence[PageAnswers], risk: float) -> Calibration:
    has_truth = [line for line in lines if key in line.gold]
    log_odds = np.array([line.log_odds[key] for line in has_truth], float)
    gold = np.array([line.gold[key] for line in has_truth], bool)
    return platt.calibrate(log_odds, gold, [line.group for line in has_truth], risk)


def _counts(key: str, lines: Sequence[PageAnswers]) -> Counts:
    truths = [line.gold[key] for line in lines if key in line.gold]
    return Counts(sum(truths), len(truths) - sum(truths))


def table(lines: Sequence[PageAnswers], fitted: Mapping[str, Calibration]) -> Responses:
    """Answers as a table of pages by statements, in the order of STATEMENTS."""
    keys = [s.key for s in STATEMENTS]
    has_truth = np.array([[key in line.gold for key in keys] for line in lines], bool)
    gold = np.array([[line.gold.get(key, False) for key in keys] for line in lines], bool)
    log_odds = np.array([[line.log_odds.get(key, 0.0) for key in keys] for line in lines], float)
    greedy = [[line.greedy.get(key) for key in keys] for line in lines]
    answered = np.array([[one is not None for one in row] for row in greedy], bool)
    yes = np.array([[one is True for one in row] for row in greedy], bool)
    scale, offset, low, high = (
        np.array([getattr(fitted[key], name) for key in keys])
        for name in ("scale", "offset", "uncertain_from", "uncertain_to")
    )
    probability = platt.logistic(scale * log_odds + offset)
    return Responses(
        has_truth=has_truth,
        gold=gold,
        greedy=np.where(answered, yes, ~gold),
        log_odds=log_odds,
        calibrated=probability,
        present=probability > high,
        absent=probability < low,
    )


def _statement(
    name: str, calibration: Calibration, pages: Counts, responses: Responses, w: Floats
) -> StatementFigures:
    """One statement on the test pages."""
    there = responses.has_truth
    measures = Measures()
    if both := platt.auc_both(responses, w):
        measures = _aucs(both[0], both[1])
    if there.any():
        measures = replace(measures, **_errors(responses, w))
    value = None if measures.auc is None else measures.auc.value
    return StatementFigures(
        name=name,
        calibration=replace(calibration, auc=None if value is None else round(value, 4)),
        calibration_pages=pages,
        test_pages=Counts(
            int((responses.gold & there).sum()), int((~responses.gold & there).sum())
        ),
        **vars(measures),
    )


def _aucs(from_probabilities: Floats, from_labels: Floats) -> Measures:
    return Measures(
        auc=estimate(from_probabilities),
        auc_of_labels=estimate(from_labels),
        auc_difference=estimate(from_probabilities - from_labels),
    )


def _errors(responses: Responses, w: Floats) -> dict[str, Estimate]:
    before = platt.calibration_error(responses.uncalibrated, responses, w)
    after = platt.calibration_error(responses.calibrated, responses, w)
    verdicts = platt.verdicts(responses, w)
    return {
        "ece_before": estimate(before),
        "ece_after": estimate(after),
        **{name: estimate(values) for name, values in verdicts.items()},
    }


def _of_all(responses: Responses, fitted: Mapping[str, Calibration], w: Floats) -> OverallFigures:
    """Over all statements: mean AUC of those that the test pages can show, the rest over all pairs."""
    pairs = [platt.auc_both(responses.column(k), w) for k in range(len(STATEMENTS))]
    measured = [both for both in pairs if both]
    measures = Measures()
    if measured:
        means = (row_mean(np.stack(some, 1)) for some in zip(*measured, strict=True))
        measures = _aucs(*means)
    verdicts = {name: estimate(v) for name, v in platt.verdicts(responses, w).items()}
    figures = OverallFigures(
        measured=len(measured),
        **vars(replace(measures, **verdicts)),
    )
    fit = np.array(
        [fitted[s.key].reason not in (platt.NOT_SHOWN, platt.TOO_FEW) for s in STATEMENTS]
    )
    some = replace(responses, has_truth=responses.has_truth & fit)
    if not some.has_truth.any():
        return figures
    return replace(
        figures,
        ece_before=estimate(platt.calibration_error(some.uncalibrated, some, w)),
        ece_after=estimate(platt.calibration_error(some.calibrated, some, w)),
        bins_before=_bins(some.uncalibrated, some, w),
        bins_after=_bins(some.calibrated, some, w),
    )


def _bins(p: Floats, responses: Responses, w: Floats) -> tuple[Bin, ...]:
    """Mean probability and share of truths of each bin, for the reliability diagram."""
    count, probability, true = platt.bins(p, responses, w)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = true / count
    return tuple(
        Bin(int(count[0, b]), float(probability[0, b] / count[0, b]), estimate(share[:, b]))
        for b in range(platt.BINS)
        if count[0, b]
    )
