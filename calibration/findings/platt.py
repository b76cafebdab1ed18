"""Turn log odds into probabilities and verdicts, and measure both. Pure functions.

Scale and offset are Platt's (1999), by Newton's method as Lin, Lin and Weng (2007) corrected it.
Targets are drawn towards one half by one more page of each kind, which keeps the fit finite where
log odds separate the pages perfectly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

from calibration.bootstrap import Flags, Floats, draws, estimate, rank_auc
from pulse_edge.kit.manifest import Calibration

CONFIDENCE = 0.9
LESS = 1 / 3
"""For a rare finding this is about the likelihood ratio of a verdict. Jaeschke, Guyatt and Sackett
(JAMA 1994) call ratios of 0.5 to 0.2 small but sometimes important, of 0.2 to 0.1 moderate; see
`band`."""
BINS = 10
NOT_SHOWN = "the calibration pages do not show it"
TOO_FEW = "too few pages to calibrate it on"
CHANCE = "no better than chance"
WRONG = "wrong too often at any probability"


def logistic(x: Floats) -> Floats:
    """1 / (1 + exp(-x)), without overflow."""
    return np.asarray(np.exp(-np.logaddexp(0, -x)))


def fit(log_odds: Floats, gold: Flags) -> tuple[float, float]:
    """Scale and offset (a, b) of logistic(a x + b) with the least cross entropy to truths (n,)."""
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
    """The range of probabilities in which to abstain: (from, to).

    0 where `absent` may never be said, 1 where `present` may never be said. Either verdict is given
    to as many pages as possible, never across one half, while all of this holds, each by a
    one-sided binomial bound (Clopper and Pearson 1934) at CONFIDENCE:

    - At most `risk` of the pages that get it are wrong, so that it can be relied on.
    - At most `risk` of the pages on which it would be wrong get it. Of ten pages with left bundle
      branch block, at most one is called free of it, however rare it is.
    - It is wrong at most LESS times as often as if every page got it. For a rare or a common
      finding, the same verdict on every page would pass the first condition; this one asks that the
      verdict adds to what was known before.

    The last two do not depend on how frequent the finding is. The bounds are those of one
    threshold. That it is picked among many makes them a little optimistic, so held-out pages have
    the last word.
    """
    high = _edge(p, gold, risk)
    return 1 - _edge(1 - p, ~gold, risk), high


def _edge(p: Floats, right: Flags, risk: float) -> float:
    """The probability above which one verdict may be given."""
    order = np.argsort(-p, kind="stable")
    p, wrong = p[order], np.cumsum(~right[order])
    ends = np.flatnonzero(np.diff(p, append=-1.0) != 0)  # pages of one probability go together
    allowed = [
        n
        for n in ends
        if p[n] > 0.5 and _may_be_said(int(wrong[n]), int(n) + 1, int(wrong[-1]), len(p), risk)
    ]
    if not allowed:
        return 1.0
    last = allowed[-1]
    after = p[last + 1] if last + 1 < len(p) else 0.5
    return max(0.5, float(p[last] + after) / 2)


def _may_be_said(wrong: int, verdicts: int, opposite: int, pages: int, risk: float) -> bool:
    """Whether a verdict on `verdicts` of `pages` may be given, `wrong` of them being of the
    opposite kind.

    To be wrong LESS times as often as among all pages is the same as being given to the opposite
    pages LESS times as often as to all.
    """
    given = min(risk, LESS * verdicts / pages)
    return (
        max(binomial_below(wrong, verdicts, risk), binomial_below(wrong, opposite, given))
        <= 1 - CONFIDENCE
    )


def fewest(risk: float) -> int:
    """Fewest pages of either kind to fit on: without an error among fewer, no bound is below
    `risk`.
    """
    return math.ceil(math.log(1 - CONFIDENCE) / math.log(1 - risk))


def binomial_below(k: int, n: int, share: float) -> float:
    """The probability of at most k errors among n, each with this share."""
    return float(binom.cdf(k, n, share))


def calibrate(log_odds: Floats, gold: Flags, groups: list[str], risk: float) -> Calibration:
    """Calibrate one statement on pages (n,) of the calibration split; its AUC comes from other
    pages.
    """
    n = len(gold)

    def never(reason: str, scale: float = 1.0, offset: float = 0.0) -> Calibration:
        return Calibration(scale, offset, 0.0, 1.0, n, None, reason)

    if not n:
        return never(NOT_SHOWN)
    if min(gold.sum(), n - gold.sum()) < fewest(risk):
        return never(TOO_FEW)
    a, b = (round(value, 6) for value in fit(log_odds, gold))
    least = estimate(rank_auc(log_odds, gold, draws(groups))).interval[0]
    if a <= 0 or least is None or least <= 0.5:
        return never(CHANCE, a, b)
    low, high = band(logistic(a * log_odds + b), gold, risk)
    if (low, high) == (0.0, 1.0):
        return never(WRONG, a, b)
    return Calibration(a, b, round(low, 6), round(high, 6), n, None)


# --- measuring --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Responses:
    """Answers about pages and statements, (n, k) each."""

    has_truth: Flags
    """Whether the truth is known; elsewhere the other tables mean nothing."""
    gold: Flags
    greedy: Flags
    """By the greedy answer; an answer that is neither yes nor no counts as wrong."""
    log_odds: Floats
    calibrated: Floats
    """Calibrated probabilities."""
    present: Flags
    absent: Flags
    """Verdicts; where neither is set, the kit abstains."""

    @property
    def uncalibrated(self) -> Floats:
        """The model's own probabilities."""
        return logistic(self.log_odds)

    def column(self, k: int) -> Responses:
        """One statement."""
        return Responses(*(table[:, k : k + 1] for table in vars(self).values()))


def auc_both(responses: Responses, w: Floats) -> tuple[Floats, Floats] | None:
    """AUC (draws,) of one statement by probabilities and by greedy answers.

    None where the pages are all of one kind. Greedy answers have two ranks, so their AUC is the
    mean of sensitivity and specificity.
    """
    has_truth = responses.has_truth[:, 0]
    gold, greedy, log_odds = (
        x[has_truth, 0] for x in (responses.gold, responses.greedy, responses.log_odds)
    )
    if gold.all() or not gold.any():
        return None
    w = w[:, has_truth]
    with np.errstate(invalid="ignore", divide="ignore"):
        sensitivity = w @ (gold & greedy) / (w @ gold)
        specificity = w @ (~gold & ~greedy) / (w @ ~gold)
    return rank_auc(log_odds, gold, w), np.asarray((sensitivity + specificity) / 2)


def verdicts(responses: Responses, w: Floats) -> dict[str, Floats]:
    """Coverage and error rates (draws,) of the verdicts; the keys are fields of `file.Measures`."""
    t, g = responses.has_truth, responses.gold
    present, absent = responses.present & t, responses.absent & t
    always = (responses.calibrated > 0.5) & t
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


def bins(p: Floats, responses: Responses, w: Floats) -> tuple[Floats, Floats, Floats]:
    """BINS bins of equally many pairs: weight, sum of probabilities, sum of truths, (draws, BINS)
    each.
    """
    has_truth = responses.has_truth
    edges = (
        np.quantile(p[has_truth], np.linspace(0, 1, BINS + 1)[1:-1])
        if has_truth.any()
        else np.zeros(BINS - 1)
    )
    at = np.where(has_truth, np.searchsorted(edges, p, side="right"), -1)
    parts = [
        np.stack([((at == b) * values).sum(1) for b in range(BINS)], 1)
        for values in (1.0, p, responses.gold.astype(float))
    ]
    count, probability, true = (w @ part for part in parts)
    return count, probability, true


def calibration_error(p: Floats, responses: Responses, w: Floats) -> Floats:
    """Expected calibration error (draws,): the gap of probability and truth over bins.

    Source: Naeini et al. 2015.
    """
    count, probability, true = bins(p, responses, w)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.abs(probability - true).sum(1) / count.sum(1))
