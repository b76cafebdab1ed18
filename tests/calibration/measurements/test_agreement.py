"""Errors, limits of agreement and shares over pages."""

from __future__ import annotations

import numpy as np
import pytest
from measurement_data import comparison, result

from calibration.bootstrap import draws, weighted_quantile
from calibration.measurements.agreement import (
    MARKS,
    PRINTED,
    QUANTITIES,
    agreement,
    agreements,
    presence,
    share,
)
from calibration.measurements.results import PageResult

BY_NAME = {quantity.name: quantity for quantity in QUANTITIES}


def pages(key: str, pairs: list[tuple[float | None, float]]) -> list[PageResult]:
    """A page for each (value, marked truth)."""
    return [
        result(f"p{n}", comparisons=[comparison(key, value, marked=truth, uncertainty=10.0)])
        for n, (value, truth) in enumerate(pairs)
    ]


def test_bias_and_limits_of_agreement_are_those_of_bland_and_altman() -> None:
    errors = np.array([-4.0, 0.0, 2.0, 10.0])
    one = agreement(pages("pr", [(160 + e, 160) for e in errors]), BY_NAME["pr"], MARKS)
    assert one.bias.value == pytest.approx(2.0)
    assert one.deviation == pytest.approx(errors.std(ddof=1))
    half = 1.96 * errors.std(ddof=1)
    assert one.limits == pytest.approx((2 - half, 2 + half))
    assert one.median_error.value == 3.0  # of 0, 2, 4, 10
    assert [pair.mean for pair in one.pairs] == [158.0, 160.0, 161.0, 165.0]


def test_values_without_a_number_are_counted_by_reason() -> None:
    one = agreement(pages("qt", [(400, 398), (None, 380)]), BY_NAME["qt"], MARKS)
    assert (one.measured, one.truths, one.reasons) == (1, 2, {"no beats": 1})


def test_a_page_without_truth_is_left_out() -> None:
    assert agreement(pages("qt", [(400, 398)]), BY_NAME["qt"], PRINTED).truths == 0
    assert [a.name for a in agreements(pages("qt", [(400, 398)]))] == ["qt"]


def test_axes_differ_by_the_shorter_way_round() -> None:
    rows = pages("qrs_axis", [(-178.0, 176.0), (10.0, 350.0)])
    one = agreement(rows, BY_NAME["qrs_axis"], MARKS)
    assert [pair.difference for pair in one.pairs] == [6.0, 20.0]
    assert one.within_uncertainty.value == 0.5


def test_st_levels_are_compared_in_microvolts() -> None:
    levels = [comparison("st_j60.V2", 0.12, marked=0.1), comparison("st_j60.I", 0.0, marked=0.01)]
    one = agreement([result("p", comparisons=levels)], BY_NAME["st_j60"], MARKS)
    assert [pair.difference for pair in one.pairs] == pytest.approx([20.0, -10.0])


def test_rates_are_near_within_5_bpm() -> None:
    rows = pages("rate_median", [(70, 71), (80, 86), (60, 65)])
    near = agreement(rows, BY_NAME["rate"], MARKS).near
    assert near is not None
    assert near.value == pytest.approx(2 / 3)


def test_four_of_100_outliers_are_left_out_for_the_standard() -> None:
    pairs: list[tuple[float | None, float]] = [(160 + (-1) ** n * 5, 160) for n in range(96)]
    pairs += [(300, 160)] * 4
    standard = agreement(pages("pr", pairs), BY_NAME["pr"], MARKS).standard
    assert standard is not None
    assert (standard.outliers, standard.met) == (4, True)
    assert standard.mean == pytest.approx(0.0)
    worse = agreement(pages("pr", [*pairs, (300, 160)]), BY_NAME["pr"], MARKS).standard
    assert worse is not None
    assert not worse.met


def test_p_waves_that_are_missed_and_false_are_counted_apart() -> None:
    rows = pages("p_present", [(1, 1), (0, 1), (None, 1), (1, 0), (0, 0)])
    one = presence(rows, MARKS)
    assert one is not None
    assert (one.with_p, one.without_p, one.not_measurable) == (3, 2, 1)
    assert (one.missed.value, one.false.value) == (0.5, 0.5)
    assert presence(rows, PRINTED) is None


def test_a_share_of_none_has_the_exact_interval_over_recordings() -> None:
    none = share([False] * 20, [f"r{n % 10}" for n in range(20)])
    assert none.value == 0
    assert none.interval == pytest.approx((0, 0.3085), abs=1e-3)  # of 0 in 10
    every = share([True] * 5, list("abcde"))
    assert every.interval == pytest.approx((0.4782, 1), abs=1e-3)  # of 5 in 5
    assert share([], []).value is None


def test_the_weighted_median_counts_values_as_often_as_their_weights_say() -> None:
    values = np.array([5.0, 1.0, 3.0, np.nan])
    weights = np.array([[1.0, 1, 1, 1], [0, 2, 0, 5], [2, 1, 1, 0], [0, 0, 0, 1]])
    medians = weighted_quantile(values, weights, 0.5)
    assert medians[:3].tolist() == [3.0, 1.0, 4.0]
    assert np.isnan(medians[3])


def test_the_weighted_median_of_single_weights_is_the_median() -> None:
    values = np.random.default_rng(5).normal(size=40)
    drawn = weighted_quantile(values, draws([str(n) for n in range(40)]), 0.5)
    assert drawn[0] == pytest.approx(np.median(values))
    assert np.quantile(drawn[1:], 0.025) < np.median(values) < np.quantile(drawn[1:], 0.975)
