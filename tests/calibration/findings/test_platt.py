"""Fits, ranges of abstention and figures that a person can check."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.bootstrap import Flags, Floats, draws
from calibration.findings import platt
from calibration.findings.platt import (
    Responses,
    band,
    binomial_below,
    calibrate,
    calibration_error,
    fit,
    logistic,
    verdicts,
)

ONCE = np.ones((1, 4))


def one_statement(
    gold: list[int], after: list[float], *, greedy: list[int] | None = None, edges: float = 0.5
) -> Responses:
    """One statement on as many pages."""
    g, p = np.array(gold, bool)[:, None], np.array(after, float)[:, None]
    s = g if greedy is None else np.array(greedy, bool)[:, None]
    return Responses(np.ones_like(g), g, s, np.log(p / (1 - p)), p, p > 1 - edges, p < edges)


def drawn(n: int, scale: float, offset: float, seed: int = 3) -> tuple[Floats, Flags]:
    rng = np.random.default_rng(seed)
    log_odds = rng.normal(-1, 2, n)
    return log_odds, rng.random(n) < logistic(scale * log_odds + offset)


def test_scale_and_offset_are_recovered() -> None:
    a, b = fit(*drawn(40_000, 0.6, 1.2))
    assert a == pytest.approx(0.6, abs=0.03)
    assert b == pytest.approx(1.2, abs=0.05)


def test_pages_that_log_odds_part_perfectly_have_a_finite_fit() -> None:
    log_odds = np.array([-2.0] * 12 + [2.0] * 12)
    a, b = fit(log_odds, log_odds > 0)
    assert logistic(np.array(2 * a + b)) == pytest.approx(
        13 / 14, abs=1e-6
    )  # Platt's target for a page with the finding
    assert b == pytest.approx(0, abs=1e-6)


def test_log_odds_that_say_nothing_give_the_share_of_the_targets() -> None:
    _, b = fit(np.zeros(4), np.array([True, True, True, False]))
    assert logistic(np.array([b]))[0] == pytest.approx((3 * 4 / 5 + 1 / 3) / 4)


def test_a_binomial_tail_by_hand() -> None:
    assert binomial_below(0, 22, 0.1) == pytest.approx(0.9**22)
    assert binomial_below(1, 2, 0.1) == pytest.approx(0.99)
    assert binomial_below(2, 2, 0.1) == pytest.approx(1)


def test_verdicts_are_given_where_enough_pages_were_right() -> None:
    p = np.concatenate([np.full(40, 0.9), np.full(20, 0.6), np.full(21, 0.2)])
    gold = np.concatenate([np.ones(40), np.tile([1, 0], 10), np.zeros(21)]).astype(bool)
    low, high = band(p, gold, 0.1)
    assert (low, high) == (
        0.0,
        pytest.approx(0.75),
    )  # 22 pages without an error are the fewest that 90 % takes
    assert band(np.append(p, 0.2), np.append(gold, False), 0.1)[0] > 0.2


def test_a_verdict_never_crosses_one_half() -> None:
    gold = np.array([True] * 200 + [False] * 3)
    p = np.where(gold, 0.9, 0.3)
    assert band(p, gold, 0.1)[1] >= 0.5


def test_the_share_of_errors_holds_on_the_pages_it_was_chosen_on_and_on_others() -> None:
    log_odds, gold = drawn(2000, 1.0, 0.0)
    p = logistic(log_odds)
    low, high = band(p[:1000], gold[:1000], 0.1)
    for half in (slice(0, 1000), slice(1000, 2000)):
        present, absent = p[half] > high, p[half] < low
        assert 0.3 < (present | absent).mean() < 1
        assert (~gold[half])[present].mean() < 0.12
        assert gold[half][absent].mean() < 0.12
        assert present[~gold[half]].mean() < 0.12
        assert absent[gold[half]].mean() < 0.12


def test_what_is_rare_is_not_called_absent_for_being_rare() -> None:
    gold = np.arange(2000) % 20 == 0
    constant = np.where(
        np.arange(2000) % 3 == 0, 0.04, 0.06
    )  # says nothing of the 5 % that have it
    assert band(constant, gold, 0.1) == (0.0, 1.0)
    assert (gold[constant < 0.5]).mean() == 0.05  # within the risk, and worthless


def test_what_is_common_is_not_called_present_for_being_common() -> None:
    gold = np.arange(2000) % 20 != 0
    assert band(np.where(np.arange(2000) % 3 == 0, 0.94, 0.96), gold, 0.1) == (0.0, 1.0)


@pytest.mark.parametrize(("missed", "allowed"), [(2, True), (3, False)])
def test_of_those_who_have_it_few_may_be_called_free_of_it(missed: int, allowed: bool) -> None:
    gold = np.arange(1000) < 55  # at most 2 of 55 are below a tenth with 90 % confidence
    p = np.where(gold, 0.4, 0.1)
    p[:missed] = 0.1
    assert binomial_below(2, 55, 0.1) < 0.1 < binomial_below(3, 55, 0.1)
    assert (band(p, gold, 0.1)[0] == pytest.approx(0.25)) is allowed


@pytest.mark.parametrize(("wrong", "allowed"), [(10, False), (1, True)])
def test_a_verdict_is_wrong_less_often_than_on_any_page(wrong: int, allowed: bool) -> None:
    gold = np.arange(1000) >= 900 + wrong  # a tenth of all have it
    gold[:wrong] = True
    p = np.where(np.arange(1000) < 200, 0.05, 0.4)
    assert wrong / 200 <= 0.05
    assert (band(p, gold, 0.1)[0] > 0.05) is allowed


@pytest.mark.parametrize(("risk", "least"), [(0.1, 22), (0.2, 11), (0.02, 114)])
def test_so_few_pages_without_an_error_are_the_fewest(risk: float, least: int) -> None:
    assert platt.fewest(risk) == least
    assert binomial_below(0, least, risk) <= 0.1 < binomial_below(0, least - 1, risk)


@pytest.mark.parametrize(
    ("reason", "n", "scale"),
    [
        (platt.NOT_SHOWN, 0, 1.0),
        (platt.TOO_FEW, 12, 1.0),
        (platt.CHANCE, 300, 0.0),
        (platt.WRONG, 300, 0.25),
        ("", 900, 2.0),
    ],
)
def test_a_kit_that_does_not_know_is_told_to_abstain(reason: str, n: int, scale: float) -> None:
    log_odds, gold = drawn(n, scale, 0.0)
    groups = [str(i) for i in range(n)]
    calibration = calibrate(log_odds, gold, groups, 0.02 if reason == platt.WRONG else 0.1)
    assert calibration.reason == reason
    assert ((calibration.uncertain_from, calibration.uncertain_to) == (0.0, 1.0)) == bool(reason)
    assert calibration.pages == n


def test_log_odds_that_rank_the_wrong_way_round_are_not_turned_over() -> None:
    log_odds, gold = drawn(500, 1.5, 0.0)
    assert calibrate(-log_odds, gold, [str(i) for i in range(500)], 0.1).reason == platt.CHANCE


def test_the_calibration_error_by_hand() -> None:
    responses = one_statement([1, 1, 0, 0], [0.8, 0.8, 0.8, 0.8])
    assert calibration_error(responses.calibrated, responses, ONCE)[0] == pytest.approx(0.3)
    assert calibration_error(responses.calibrated, responses, np.array([[2.0, 2, 0, 0]]))[
        0
    ] == pytest.approx(0.2)


def test_what_is_not_known_counts_nowhere() -> None:
    responses = one_statement([1, 1, 0, 0], [0.8, 0.8, 0.1, 0.1])
    less = Responses(
        **{**vars(responses), "has_truth": np.array([[True], [True], [False], [False]])}
    )
    assert calibration_error(less.calibrated, less, ONCE)[0] == pytest.approx(0.2)
    assert verdicts(less, ONCE)["coverage"][0] == 1
    assert platt.auc_both(less, ONCE) is None


def test_coverage_and_risk_by_hand() -> None:
    responses = one_statement([1, 0, 0, 1], [0.9, 0.9, 0.1, 0.45], edges=0.2)
    figures = {name: values[0] for name, values in verdicts(responses, ONCE).items()}
    assert figures == pytest.approx(
        {
            "coverage": 3 / 4,
            "risk": 1 / 3,
            "risk_present": 1 / 2,
            "risk_absent": 0,
            "risk_always": 1 / 2,
            "prior": 1 / 2,
            "missed": 0,
            "alarmed": 1 / 2,
        }
    )


def test_probabilities_rank_where_one_word_cannot() -> None:
    responses = one_statement([1, 1, 0, 0], [0.4, 0.3, 0.2, 0.1], greedy=[0, 0, 0, 0])
    both = platt.auc_both(responses, ONCE)
    assert both is not None
    assert (both[0][0], both[1][0]) == (1.0, 0.5)


def test_draws_of_a_bootstrap_go_through_every_figure() -> None:
    responses = one_statement([1, 0, 1, 0], [0.9, 0.2, 0.6, 0.4])
    w = draws(["a", "b", "c", "d"])
    for values in (
        *verdicts(responses, w).values(),
        calibration_error(responses.calibrated, responses, w),
    ):
        assert values.shape == (len(w),)
