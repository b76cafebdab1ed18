"""Drawings of the accuracy report."""

from __future__ import annotations

import re

import pytest

from calibration.report.plots import Point, frontier, size_plot


def test_the_front_holds_what_no_smaller_kit_equals() -> None:
    points = [
        Point(name, x, y, y, y)
        for name, x, y in (("a", 1, 5), ("b", 2, 6), ("c", 3, 2), ("d", 3, 4))
    ]
    assert [p.name for p in frontier(points, -1)] == ["a", "c"]
    assert [p.name for p in frontier(points, 1)] == ["a", "b"]


@pytest.mark.parametrize("values", [(0.0,), (0.0, 0.0), (1e-5, 0.3), (50.0, 50.0)])
def test_a_drawing_of_any_values_stays_inside_its_frame(values: tuple[float, ...]) -> None:
    points = [Point(f"k{n}", 1.0 + n, y, y, y) for n, y in enumerate(values)]
    for log in (True, False):
        svg = size_plot("t", points, "y", log, 1)
        assert "nan" not in svg
        marks = re.search(r'<g id="kits">.*?</g>\n  </g>', svg, re.S)
        assert marks is not None
        assert marks[0].count("<use") == len(values)
        assert all(f">k{n}<" in svg for n in range(len(values)))


def test_the_same_figures_give_the_same_drawing() -> None:
    points = [Point("a", 1, 5, 4, 6), Point("b", 2, 6, 5, 7)]
    assert size_plot("t", points, "y", False, 1) == size_plot("t", points, "y", False, 1)
