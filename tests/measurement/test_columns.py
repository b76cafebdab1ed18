"""Where columns meet is told by bars and gaps that agree with one another."""

import math

from pulse_edge.measurement.columns import agreed


def test_bars_at_equal_distances_agree_wherever_the_first_stands() -> None:
    assert agreed([66.0, 128.5, 191.0], 0.0, 250.0) == [True, True, True]


def test_complexes_that_look_like_a_bar_do_not_agree_with_the_bars() -> None:
    assert agreed([62.5, 129.5, 187.5], 0.0, 250.0) == [True, False, True]


def test_missing_bar_does_not_agree() -> None:
    assert agreed([math.nan, 125.2, 187.4], 0.0, 250.0) == [False, True, True]
