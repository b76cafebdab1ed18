"""Shares, kappa and the exact test against published and hand-computed values."""

from __future__ import annotations

import pytest

from pulse_edge.audit_log.proportions import Share, kappa, probability_of_more, share


@pytest.mark.parametrize(
    ("count", "cases", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)  # fmt: skip
def test_intervals_are_those_that_newcombe_published(
    count: int, cases: int, low: float, high: float
) -> None:
    """Statistics in Medicine 1998;17:857, table I, method 3."""
    result = share(count, cases)
    assert result.value == count / cases
    assert (result.low, result.high) == (
        pytest.approx(low, abs=5e-5),
        pytest.approx(high, abs=5e-5),
    )


def test_share_of_all_ends_at_one() -> None:
    result = share(20, 20)
    assert result.high == 1.0
    assert result.low == pytest.approx(1 - 0.1611, abs=5e-5)


def test_share_of_no_case_is_not_defined() -> None:
    assert share(0, 0) == Share(None, None, None, 0)


@pytest.mark.parametrize(
    ("table", "value"),
    [
        ((20, 5, 10, 15), 0.4),  # observed 0.7, by chance 0.5 * 0.6 + 0.5 * 0.4 = 0.5
        ((10, 0, 0, 10), 1.0),
        ((0, 10, 10, 0), -1.0),
        ((5, 5, 5, 5), 0.0),
    ],
)
def test_kappa_by_hand(table: tuple[int, int, int, int], value: float) -> None:
    assert kappa(*table) == pytest.approx(value)


@pytest.mark.parametrize("table", [(0, 0, 0, 0), (7, 0, 0, 0), (0, 0, 0, 7)])
def test_kappa_is_not_defined_where_chance_explains_all(table: tuple[int, int, int, int]) -> None:
    assert kappa(*table) is None


@pytest.mark.parametrize(
    ("arguments", "p"),
    [
        ((3, 4, 1, 4), 17 / 70),  # Fisher's lady tasting tea: (16 + 1) of 70
        ((4, 4, 0, 4), 1 / 70),
        ((0, 4, 2, 4), 1.0),
        ((2, 2, 0, 3), 1 / 10),  # one of the ten pairs of five
    ],
)
def test_exact_probability_by_hand(arguments: tuple[int, int, int, int], p: float) -> None:
    assert probability_of_more(*arguments) == pytest.approx(p)
