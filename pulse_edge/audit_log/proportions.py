"""Shares with intervals, agreement beyond chance, and an exact test. Standard library only."""

from __future__ import annotations

import math
from dataclasses import dataclass

Z_95 = 1.959963984540054
"""97.5 % quantile of the normal distribution, for intervals of 95 %."""


@dataclass(frozen=True)
class Share:
    """A share of cases with its 95 % interval."""

    value: float | None
    """From 0 to 1; None without cases."""
    low: float | None
    """Lower end of the interval."""
    high: float | None
    """Upper end of the interval."""
    cases: int
    """Number of cases that the share is of."""


def share(count: int, cases: int) -> Share:
    """Return `count` of `cases` with Wilson's score interval.

    Its coverage is near 95 % for few cases and for shares near 0 and 1 too (Wilson 1927; Newcombe
    1998, Statistics in Medicine 17:857, method 3; Brown, Cai and DasGupta 2001).
    """
    if not cases:
        return Share(None, None, None, 0)
    square = Z_95**2
    middle = (count + square / 2) / (cases + square)
    half = Z_95 / (cases + square) * math.sqrt(count * (cases - count) / cases + square / 4)
    low = 0.0 if count == 0 else middle - half
    high = 1.0 if count == cases else middle + half
    return Share(count / cases, low, high, cases)


def kappa(both: int, first: int, second: int, neither: int) -> float | None:
    """Return Cohen's kappa of two judges of yes or no (Cohen 1960).

    `first` and `second` are the cases to which that judge alone says yes. It is None where chance
    alone would make them agree always: without cases, and where both say the same of all.
    """
    cases = both + first + second + neither
    if not cases:
        return None
    yes = (both + first) * (both + second)
    no = (second + neither) * (first + neither)
    by_chance = (yes + no) / cases**2
    if by_chance == 1:
        return None
    return ((both + neither) / cases - by_chance) / (1 - by_chance)


def probability_of_more(count: int, cases: int, before: int, cases_before: int) -> float:
    """Return how likely at least `count` of `cases` is if the true share has not risen.

    The earlier period had `before` of `cases_before`. This is Fisher's exact test, one-sided: the
    tail of the hypergeometric distribution, which takes into account that the earlier share is
    itself an estimate from few cases (Fisher 1935; Agresti, Categorical Data Analysis, 3.5).
    """
    total = count + before
    every = math.comb(cases + cases_before, total)
    tail = range(count, min(cases, total) + 1)
    return sum(math.comb(cases, k) * math.comb(cases_before, total - k) for k in tail) / every
