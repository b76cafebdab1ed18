"""Scores under a cluster bootstrap: estimates with 95 % intervals, paired between kits.

A draw takes whole groups with replacement: a patient's pages, or a page with all questions about it
(Efron 1979; Davison and Hinkley 1997, section 3.8). Questions about one patient are not
independent, so drawing questions would give intervals that are too narrow. scipy.stats.bootstrap
draws single observations, and it repeats its draws for every statistic. Here every score is a
weighted one, computed for all draws at once from one matrix of weights (draws, n): all kits and
scores see the same draws, so their differences are paired, and 1000 draws cost one matrix product.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
DRAWS, SEED = 1000, 20241024


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval; None where it is not defined."""

    value: float | None
    interval: tuple[float | None, float | None]

    @property
    def below_zero(self) -> bool:
        """Whether the whole interval lies below zero."""
        high = self.interval[1]
        return high is not None and high < 0


NO_ESTIMATE = Estimate(None, (None, None))


def draws(groups: Sequence[str]) -> Floats:
    """Weights (1 + DRAWS, n) of n questions by their groups: once each, then as each draw has them."""
    names, at = np.unique(list(groups), return_inverse=True)
    rng = np.random.default_rng(SEED)
    counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), DRAWS)
    return np.concatenate([np.ones((1, len(at))), counts[:, at].astype(float)])


def estimate(drawn: Floats) -> Estimate:
    """The first of the drawn values, with the percentile interval of the others that are not NaN."""
    value, rest = drawn[0], drawn[1:][~np.isnan(drawn[1:])]
    low, high = np.percentile(rest, [2.5, 97.5]) if rest.size else (math.nan, math.nan)
    return Estimate(number(value), (number(low), number(high)))


def number(value: float) -> float | None:
    """None instead of NaN, which JSON does not have."""
    return None if np.isnan(value) else float(value)


def weighted_mean(values: Floats, w: Floats) -> Floats:
    """Weighted mean (draws,) of the values (n,) that are not NaN."""
    there = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.asarray((w[:, there] @ values[there]) / w[:, there].sum(1))


def weighted_quantile(values: Floats, w: Floats, level: float) -> Floats:
    """Quantile (draws,) of the values (n,) that are not NaN, each counted as often as its weight
    says.

    Between two values lies their mean, so that level 0.5 is the usual median. NaN for a draw
    without a value.
    """
    there = ~np.isnan(values)
    ordered = np.sort(values[there])
    counts = np.cumsum(w[:, there][:, np.argsort(values[there], kind="stable")], axis=1)
    if not ordered.size:
        return np.full(len(w), np.nan)
    at = level * counts[:, -1:]
    last = ordered.size - 1
    low, high = ((counts < at).sum(1), (counts <= at).sum(1))
    middle = (ordered[np.minimum(low, last)] + ordered[np.minimum(high, last)]) / 2
    return np.asarray(np.where(counts[:, -1] > 0, middle, np.nan))


def row_mean(values: Floats) -> Floats:
    """Mean of each row's values that are not NaN; NaN where all are."""
    there = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(there, values, 0).sum(1) / there.sum(1))


def rank_auc(score: Floats, gold: Flags, w: Floats) -> Floats:
    """Area under the ROC curve (draws,) of scores (n,), under weights (draws, n).

    It is the probability that a page with the label ranks above one without; equal ranks count half
    (Mann and Whitney 1947). NaN where a draw has one kind only.
    """
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.diff(score[order], prepend=np.nan) != 0)
    yes, no = (np.add.reduceat(w[:, order] * kind[order], starts, axis=1) for kind in (gold, ~gold))
    below = np.cumsum(no, axis=1) - no / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((yes * below).sum(1) / (yes.sum(1) * no.sum(1)))


def mcnemar(lost: int, gained: int) -> float:
    """Exact two-sided p of the answers that changed between right and wrong (McNemar 1947)."""
    return float(binomtest(lost, lost + gained, 0.5).pvalue) if lost + gained else 1.0
