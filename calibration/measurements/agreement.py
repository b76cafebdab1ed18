"""Measurements of many pages against the truth: errors, limits of agreement, shares.

Intervals are those of a cluster bootstrap over recordings (`calibration.bootstrap`): the twelve ST
levels of a page, and pages of one recording, are not independent. Limits of agreement: Bland and
Altman, Lancet 327 (1986) 307: mean difference -+ 1.96 standard deviations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.bootstrap import (
    NO_ESTIMATE,
    Estimate,
    Floats,
    draws,
    estimate,
    weighted_mean,
    weighted_quantile,
)
from calibration.measurements.results import Comparison, PageResult
from pulse_edge.measurement.signal import LEADS

MARKS, PRINTED = "marks of cardiologists", "the printed signal"
"""The two kinds of truth."""
NEAR_BPM = 5.0
OUTLIERS = 4
"""Deviations per 100 recordings that IEC 60601-2-25 takes out before mean and deviation."""


@dataclass(frozen=True)
class Quantity:
    """What is compared."""

    name: str
    title: str
    unit: str
    printed: tuple[str, ...]
    """Measurements that are held against those of the printed signal."""
    marked: tuple[str, ...]
    """Measurements that are held against marks."""
    factor: float = 1.0
    """From the measurement's unit to `unit`."""
    circular: bool = False
    """Whether the values are angles."""
    limits: tuple[float, float] | None = None
    """IEC 60601-2-25:2011, limits of mean and standard deviation in ms, on biological recordings."""


def _levels(key: str) -> tuple[str, ...]:
    return tuple(f"{key}.{lead}" for lead in LEADS)


QUANTITIES: tuple[Quantity, ...] = (
    Quantity("rate", "Rate", "bpm", ("rate",), ("rate_median",)),
    Quantity("pr", "PR interval", "ms", ("pr",), ("pr",), limits=(10, 10)),
    Quantity("qrs", "QRS duration", "ms", ("qrs",), ("qrs",), limits=(10, 10)),
    Quantity("qt", "QT interval", "ms", ("qt",), ("qt",), limits=(25, 30)),
    Quantity("p_duration", "P duration", "ms", ("p_duration",), ("p_duration",)),
    Quantity("qrs_axis", "QRS axis", "degrees", ("qrs_axis",), ("qrs_axis",), circular=True),
    Quantity("st_j", "ST level at J", "uV", _levels("st_j"), _levels("st_j"), 1000.0),
    Quantity("st_j60", "ST level at J + 60 ms", "uV", _levels("st_j60"), _levels("st_j60"), 1000.0),
)


@dataclass(frozen=True)
class Pair:
    """One value and its truth."""

    page: str
    group: str
    truth: float
    value: float
    difference: float
    """Value less truth."""
    inside: bool | None
    """Whether the truth lies within the stated uncertainty; None where none is stated."""

    @property
    def mean(self) -> float:
        """Mean of value and truth, the abscissa of a Bland-Altman plot."""
        return self.truth + self.difference / 2


@dataclass(frozen=True, kw_only=True)
class StandardLimits:
    """Mean and standard deviation without the largest deviations, against IEC 60601-2-25."""

    outliers: int
    """Largest deviations that were taken out: 4 of 100."""
    mean: float
    deviation: float
    mean_limit: float
    deviation_limit: float

    @property
    def met(self) -> bool:
        """Whether both lie inside the limits."""
        return abs(self.mean) <= self.mean_limit and self.deviation <= self.deviation_limit


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """One quantity on one set against one kind of truth."""

    name: str
    title: str
    unit: str
    truth: str
    """MARKS or PRINTED."""
    truths: int
    """Values that could have been measured."""
    measured: int
    median_error: Estimate
    """Of the absolute errors."""
    error_95: float | None
    """The size that 95 % of the errors do not exceed."""
    bias: Estimate
    """Mean difference."""
    deviation: float | None
    """Standard deviation of the differences; None for fewer than two."""
    within_uncertainty: Estimate
    """Share of the values whose truth lies within the stated uncertainty; 95 % is right."""
    near: Estimate | None = None
    """Share within 5 bpm, of the rates that were measured."""
    reasons: Mapping[str, int]
    """Why values are missing, and how many."""
    standard: StandardLimits | None = None
    pairs: tuple[Pair, ...] = ()

    @property
    def limits(self) -> tuple[float, float] | None:
        """The 95 % limits of agreement."""
        if self.deviation is None or self.bias.value is None:
            return None
        half = 1.96 * self.deviation
        return self.bias.value - half, self.bias.value + half


@dataclass(frozen=True, kw_only=True)
class Presence:
    """Whether P waves are there, against one kind of truth."""

    truth: str
    with_p: int
    without_p: int
    missed: Estimate
    """Share of the pages with P waves that are called without."""
    false: Estimate
    """Share of the pages without P waves that are called with."""
    not_measurable: int


def agreements(results: Sequence[PageResult]) -> tuple[Agreement, ...]:
    """Every quantity against each truth that there is."""
    every = [
        agreement(results, quantity, truth) for truth in (MARKS, PRINTED) for quantity in QUANTITIES
    ]
    return tuple(one for one in every if one.truths)


def agreement(results: Sequence[PageResult], quantity: Quantity, truth: str) -> Agreement:
    """One quantity against one kind of truth."""
    keys = quantity.marked if truth == MARKS else quantity.printed
    pairs: list[Pair] = []
    reasons: Counter[str] = Counter()
    for result in results:
        for row in result.comparisons:
            if row.key not in keys or (right := _right(row, truth)) is None:
                continue
            if row.value is None:
                reasons[row.reason] += 1
            else:
                pairs.append(_pair(result, row, right, quantity))
    differences = np.array([pair.difference for pair in pairs])
    groups = [pair.group for pair in pairs]
    inside = [np.nan if pair.inside is None else float(pair.inside) for pair in pairs]
    rate = quantity.name == "rate"
    near = share(np.abs(differences) <= NEAR_BPM, groups) if rate else None
    return Agreement(
        name=quantity.name,
        title=quantity.title,
        unit=quantity.unit,
        truth=truth,
        truths=len(pairs) + sum(reasons.values()),
        measured=len(pairs),
        median_error=_estimate(np.abs(differences), groups, median),
        error_95=float(np.quantile(np.abs(differences), 0.95)) if pairs else None,
        bias=_estimate(differences, groups, weighted_mean),
        deviation=float(differences.std(ddof=1)) if len(pairs) > 1 else None,
        within_uncertainty=share(inside, groups),
        near=near,
        reasons=dict(reasons.most_common()),
        standard=_standard(differences, quantity) if truth == MARKS else None,
        pairs=tuple(pairs),
    )


def _right(row: Comparison, truth: str) -> float | None:
    return row.marked if truth == MARKS else row.printed


def _pair(result: PageResult, row: Comparison, right: float, quantity: Quantity) -> Pair:
    assert row.value is not None
    difference = (row.value - right) * quantity.factor
    if quantity.circular:
        difference = (difference + 180) % 360 - 180
    inside = None
    if row.uncertainty is not None:
        inside = abs(difference) <= row.uncertainty * quantity.factor
    value = row.value * quantity.factor
    return Pair(result.name, result.group, right * quantity.factor, value, difference, inside)


def _standard(differences: Floats, quantity: Quantity) -> StandardLimits | None:
    """Take out the 4 largest of 100 deviations from the median; None without a limit."""
    if quantity.limits is None or len(differences) < 25:
        return None
    outliers = round(OUTLIERS * len(differences) / 100)
    order = np.argsort(np.abs(differences - np.median(differences)))
    rest = differences[order[: len(differences) - outliers]]
    return StandardLimits(
        outliers=outliers,
        mean=float(rest.mean()),
        deviation=float(rest.std(ddof=1)),
        mean_limit=quantity.limits[0],
        deviation_limit=quantity.limits[1],
    )


def presence(results: Sequence[PageResult], truth: str) -> Presence | None:
    """P waves against one kind of truth; None where no page has it."""
    rows = [
        (result.group, row.value, right)
        for result in results
        for row in result.comparisons
        if row.key == "p_present" and (right := _right(row, truth)) is not None
    ]
    if not rows:
        return None
    wrong = {}
    for kind in (True, False):
        decided = [(g, v) for g, v, right in rows if v is not None and bool(right) is kind]
        errors = [bool(v) is not kind for _, v in decided]
        wrong[kind] = share(errors, [g for g, _ in decided])
    return Presence(
        truth=truth,
        with_p=sum(bool(right) for *_, right in rows),
        without_p=sum(not right for *_, right in rows),
        missed=wrong[True],
        false=wrong[False],
        not_measurable=sum(value is None for _, value, _ in rows),
    )


def median(values: Floats, w: Floats) -> Floats:
    """Weighted median (draws,)."""
    return weighted_quantile(values, w, 0.5)


def share(
    flags: Sequence[bool] | Sequence[float] | NDArray[Any], groups: Sequence[str]
) -> Estimate:
    """Share of true flags, with its interval; NaN is no flag.

    Where none or all are true, no draw shows anything else: the interval is then the exact one
    (Clopper and Pearson 1934) of as many independent flags as there are recordings.
    """
    values = np.array(flags, float)
    result = _estimate(values, groups, weighted_mean)
    if result.value not in (0.0, 1.0):
        return result
    there = ~np.isnan(values)
    count = len({group for group, use in zip(groups, there, strict=True) if use})
    beyond = 1 - 0.025 ** (1 / count)
    interval = (0.0, beyond) if result.value == 0 else (1 - beyond, 1.0)
    return Estimate(result.value, interval)


def middle(values: Sequence[float], groups: Sequence[str]) -> Estimate:
    """Median with its interval."""
    return _estimate(np.array(values, float), groups, median)


def _estimate(
    values: np.ndarray[tuple[int, ...], np.dtype[np.generic]],
    groups: Sequence[str],
    statistic: Callable[[Floats, Floats], Floats],
) -> Estimate:
    if not len(values):
        return NO_ESTIMATE
    return estimate(statistic(values.astype(float), draws(groups)))
