"""Bland-Altman plots of a set: difference against mean, with bias and 95 % limits of agreement."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from matplotlib.figure import Figure

from calibration.measurements.agreement import Agreement
from calibration.measurements.figures import SetFigures
from calibration.report.plots import BROWN, DARK_BLUE, GREY, Plot, as_svg

PANELS = 4
"""Panels in a row."""
FEWEST = 3
"""Points below which a panel shows nothing."""
MOST_VECTORS = 300
"""Points from which on they are drawn as a picture, so that the file stays small."""


def bland_altman(figures: SetFigures) -> Iterator[Plot]:
    """One drawing of all quantities for each kind of truth."""
    for truth in dict.fromkeys(one.truth for one in figures.agreements):
        shown = [
            one for one in figures.agreements if one.truth == truth and len(one.pairs) >= FEWEST
        ]
        if shown:
            title = f"{figures.title}: difference from {truth}, against the mean of both"
            yield Plot(title, as_svg(_drawing(shown), title))


def _drawing(shown: Sequence[Agreement]) -> Figure:
    rows = -(-len(shown) // PANELS)
    figure = Figure(figsize=(2.9 * PANELS, 2.7 * rows), layout="constrained")
    grid: Any = figure.subplots(rows, PANELS, squeeze=False)
    panels = grid.ravel()
    for axes, one in zip(panels, shown, strict=False):
        _panel(axes, one)
    for axes in panels[len(shown) :]:
        axes.set_visible(False)
    return figure


def _panel(axes: Any, one: Agreement) -> None:
    """One quantity; the caption states bias and limits in numbers."""
    means, differences = [p.mean for p in one.pairs], [p.difference for p in one.pairs]
    axes.axhline(0, color=GREY, linewidth=0.8)
    many = len(one.pairs) > MOST_VECTORS
    (marks,) = axes.plot(
        means, differences, ".", color=DARK_BLUE, markersize=3, alpha=0.6, rasterized=many
    )
    marks.set_gid(f"pairs-{one.name}")
    caption = f"{one.title}, {one.unit}"
    if one.limits is not None and one.bias.value is not None:
        axes.axhline(one.bias.value, color=BROWN, linewidth=1)
        for limit in one.limits:
            axes.axhline(limit, color=BROWN, linewidth=1, linestyle="--")
        low, high = one.limits
        caption += f"\n{one.bias.value:+.1f} [{low:+.1f}, {high:+.1f}], n = {len(one.pairs)}"
    axes.margins(y=0.08)
    axes.set_title(caption, fontsize=8)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
