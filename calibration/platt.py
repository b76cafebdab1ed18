"""Log odds and truths -> a probability, when to abstain from a verdict, and what both are worth. Pure functions.

Scale and offset: Platt (1999), by Newton's method as Lin, Lin and Weng (2007) corrected it. Targets are drawn towards one
half by a page more of each kind, which keeps the fit finite where log odds part the pages perfectly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.compare import draws, rank_auc, spread
from calibration.metrics import Flags
from pulse_edge.kit.manifest import Calibration

Floats = NDArray[np.float64]
CONFIDENCE = 0.9
LESS = 1 / 3
"""For what is rare this is about the likelihood ratio of a verdict. Jaeschke, Guyatt and Sackett (JAMA 1994) call ratios of
0.5 to 0.2 small but sometimes important, of 0.2 to 0.1 moderate; see `band`."""
BINS = 10
NOT_TOLD = "the pages that the kit was calibrated on do not tell"
TOO_FEW = "too few pages to calibrate it on"
CHANCE = "no better than chance"
WRONG = "wrong too often at any probability"


def logistic(x: Floats) -> Floats:
    """1 / (1 + exp(-x)), without overflow."""
    return np.asarray(np.exp(-np.logaddexp(0, -x)))


def fit(log_odds: Floats, gold: Flags) -> tuple[float, float]:
    """Scale and offset (a, b) of logistic(a x + b) with the least cross entropy to (n,) truths of both kinds."""
    yes, no = int(gold.sum()), int((~gold).sum())
    target = np.where(gold, (yes + 1) / (yes + 2), 1 / (no + 2))
    x = np.stack([log_odds, np.ones_like(log_odds)], 1)

    def loss(at: Floats) -> float:
        z = x @ at
        return float((np.logaddexp(0, z) - target * z).sum())

    at = np.array([0.0, np.log((yes + 1) / (no + 1))])
    for _ in range(100):
        p = logistic(x @ at)
        slope = x.T @ (p - target)
        if np.abs(slope).max() < 1e-9 * len(gold):
            break
        step = np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x + 1e-12 * np.eye(2), slope)
        shorter, now = 1.0, loss(at)
        while shorter > 1e-10 and loss(at - shorter * step) > now - 1e-4 * shorter * float(
            slope @ step
        ):
            shorter /= 2
        at = at - shorter * step
    return float(at[0]), float(at[1])


def band(p: Floats, gold: Flags, risk: float) -> tuple[float, float]:
    """From and to which probability to abstain; 0 or 1 where `absent` or `present` may never be said.

    Either verdict is given to as many pages as can be, never across one half, while all of this holds, each by a one-sided
    binomial bound (Clopper and Pearson 1934) at CONFIDENCE:

    - of the pages that get it at most `risk` are wrong, so that it can be relied on;
    - of the pages on which it would be wrong at most `risk` get it: of ten with left bundle branch block, at most one is
      called free of it, however rare it is;
    - it is wrong at most LESS times as often as if it were said of every page. Of what is rare or common, saying always
      the same would pass the first; this asks that the verdict changes what was known before.

    The last two do not depend on how frequent the finding is. The bounds are those of one threshold: that it is picked
    among many makes them a little too kind, so held-out pages have the last word.
    """
    high = _edge(p, gold, risk)
    return 1 - _edge(1 - p, ~gold, risk), high


def _edge(p: Floats, right: Flags, risk: float) -> float:
    """Above which probability one answer may be given."""
    order = np.argsort(-p, kind="stable")
    p, wrong = p[order], np.cumsum(~right[order])
    ends = np.flatnonzero(np.diff(p, append=-1.0) != 0)  # pages of one probability go together
    fit = [
        n
        for n in ends
        if p[n] > 0.5 and _may_be_said(int(wrong[n]), int(n) + 1, int(wrong[-1]), len(p), risk)
    ]
    if not fit:
        return 1.0
    last = fit[-1]
    after = p[last + 1] if last + 1 < len(p) else 0.5
    return max(0.5, float(p[last] + after) / 2)


def _may_be_said(wrong: int, said: int, opposite: int, pages: int, risk: float) -> bool:
    """Of a verdict on `said` of `pages`: `wrong` on so many of all the `opposite` ones. Wrong LESS times as often as
    among all pages is the same as given to the opposite ones LESS times as often as to all."""
    given = min(risk, LESS * said / pages)
    return (
        max(binomial_below(wrong, said, risk), binomial_below(wrong, opposite, given))
        <= 1 - CONFIDENCE
    )


def fewest(risk: float) -> int:
    """Pages of either kind below which nothing is fitted: no fewer without an error are below `risk` at CONFIDENCE."""
    return math.ceil(math.log(1 - CONFIDENCE) / math.log(1 - risk))


def binomial_below(k: int, n: int, share: float) -> float:
    """The chance of at most k errors among n, each having this share."""
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    i = np.arange(min(k, n) + 1)
    terms = logs[n] - logs[i] - logs[n - i] + i * np.log(share) + (n - i) * np.log1p(-share)
    return float(min(1.0, np.exp(terms).sum()))


def calibrate(log_odds: Floats, gold: Flags, groups: list[str], risk: float) -> Calibration:
    """What a kit is told of one statement, from (n,) pages of the calibration split; AUC comes from other pages."""
    n = len(gold)

    def never(reason: str, scale: float = 1.0, offset: float = 0.0) -> Calibration:
        return Calibration(scale, offset, 0.0, 1.0, n, None, reason)

    if not n:
        return never(NOT_TOLD)
    if min(gold.sum(), n - gold.sum()) < fewest(risk):
        return never(TOO_FEW)
    a, b = (round(value, 6) for value in fit(log_odds, gold))
    least = spread(rank_auc(log_odds, gold, draws(groups)))["interval"][0]
    if a <= 0 or least is None or least <= 0.5:
        return never(CHANCE, a, b)
    low, high = band(logistic(a * log_odds + b), gold, risk)
    if (low, high) == (0.0, 1.0):
        return never(WRONG, a, b)
    return Calibration(a, b, round(low, 6), round(high, 6), n, None)


# --- what it is worth -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """Pages and statements, (n, k) each: where `told` is false nothing is known, and the rest means nothing."""

    told: Flags
    gold: Flags
    said: Flags
    """By the greedy answer; an answer that is neither yes nor no counts as wrong."""
    log_odds: Floats
    after: Floats
    """Calibrated probabilities."""
    present: Flags
    absent: Flags
    """Verdicts; neither: it abstains."""

    @property
    def before(self) -> Floats:
        """Probabilities as the model has them."""
        return logistic(self.log_odds)

    def column(self, k: int) -> Asked:
        """One statement."""
        return Asked(*(getattr(self, name)[:, k : k + 1] for name in self.__dataclass_fields__))


def auc_both(asked: Asked, w: Floats) -> tuple[Floats, Floats] | None:
    """(draws,) AUC of one statement by probabilities and by greedy labels; None where the pages are all of one kind.

    Labels rank in two heaps, so theirs is the mean of sensitivity and specificity.
    """
    there = asked.told[:, 0]
    gold, said, chance = (x[there, 0] for x in (asked.gold, asked.said, asked.log_odds))
    if gold.all() or not gold.any():
        return None
    w = w[:, there]
    with np.errstate(invalid="ignore", divide="ignore"):
        sensitivity = w @ (gold & said) / (w @ gold)
        specificity = w @ (~gold & ~said) / (w @ ~gold)
    return rank_auc(chance, gold, w), np.asarray((sensitivity + specificity) / 2)


def verdicts(asked: Asked, w: Floats) -> dict[str, Floats]:
    """(draws,) each: `coverage`, the share of pages and statements with a verdict; `risk`, how much of that is wrong.

    `risk_present` and `risk_absent` are those of either verdict, `risk_always` what it would be without abstaining.
    `prior` is the share with the finding, `missed` how many of these are called absent, `alarmed` how many of the
    others are called present.
    """
    t, g = asked.told, asked.gold
    present, absent, always = asked.present & t, asked.absent & t, (asked.after > 0.5) & t
    alarm, miss = present & ~g, absent & g
    return {
        "coverage": _ratio(present | absent, t, w),
        "risk": _ratio(alarm | miss, present | absent, w),
        "risk_present": _ratio(alarm, present, w),
        "risk_absent": _ratio(miss, absent, w),
        "risk_always": _ratio((always != g) & t, t, w),
        "prior": _ratio(t & g, t, w),
        "missed": _ratio(miss, t & g, w),
        "alarmed": _ratio(alarm, t & ~g, w),
    }


def _ratio(some: Flags, of: Flags, w: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((w @ some.sum(1)) / (w @ of.sum(1)))


def bins(p: Floats, asked: Asked, w: Floats) -> tuple[Floats, Floats, Floats]:
    """Of BINS bins of equally many pages and statements: weight, sum of probabilities, sum of truths, (draws, BINS) each."""
    edges = (
        np.quantile(p[asked.told], np.linspace(0, 1, BINS + 1)[1:-1])
        if asked.told.any()
        else np.zeros(BINS - 1)
    )
    at = np.where(asked.told, np.searchsorted(edges, p, side="right"), -1)
    parts = [
        np.stack([((at == b) * values).sum(1) for b in range(BINS)], 1)
        for values in (1.0, p, asked.gold.astype(float))
    ]
    count, chance, true = (w @ part for part in parts)
    return count, chance, true


def calibration_error(p: Floats, asked: Asked, w: Floats) -> Floats:
    """(draws,) expected calibration error: how far probability and truth lie apart, over bins (Naeini et al. 2015)."""
    count, chance, true = bins(p, asked, w)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.abs(chance - true).sum(1) / count.sum(1))
