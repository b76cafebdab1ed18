"""Draw the curve of a training: F1 of each finding, and rates within 5 bpm, over the pages seen.

python -m export.miniature.curve CURVE.jsonl OUT.svg
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import matplotlib
from matplotlib.figure import Figure

LABEL_HEIGHT = 0.031
"""Smallest distance between two labels, as a share of the axis."""

Line = tuple[str, list[tuple[float, float]]]


def exams(path: Path) -> list[dict[str, Any]]:
    """The measurements on unseen pages, in order; the last of those repeated after a kill."""
    lines = (json.loads(line) for line in path.read_text("utf-8").splitlines())
    return sorted(
        {e["pages"]: e for e in lines if "exam" in e}.values(), key=lambda e: float(e["pages"])
    )


def lines_of(measured: Sequence[dict[str, Any]]) -> list[Line]:
    """A line of (pages, F1) for each finding, and one of the share of rates within 5 bpm."""
    names = list(measured[0]["exam"]["f1"])
    lines = [(name, [(e["pages"], e["exam"]["f1"][name]) for e in measured]) for name in names]
    rates = [(e["pages"], e["exam"]["rate_within_5"]) for e in measured]
    return [*lines, ("rate within 5 bpm", rates)]


def picture(measured: Sequence[dict[str, Any]]) -> Figure:
    """A line for each score with its name at its end, and the borders of the training's stages."""
    lines = lines_of(measured)
    last = float(max(e["pages"] for e in measured))
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    axes: Any = figure.subplots()
    palette: Any = matplotlib.colormaps["tab10"]
    colours = palette.colors
    ends = spaced([points[-1][1] for _, points in lines], LABEL_HEIGHT)
    for i, ((name, points), end) in enumerate(zip(lines, ends, strict=True)):
        colour, style = colours[i % len(colours)], "-" if i < len(colours) else "--"
        axes.plot(*zip(*points, strict=True), style, color=colour, linewidth=1.2)
        axes.text(1.01 * last, end, name, color=colour, va="center", fontsize=8)
    stages = [(a["pages"], b["stage"]) for a, b in pairwise(measured) if a["stage"] != b["stage"]]
    for n, (pages, stage) in enumerate(stages):
        axes.axvline(pages, color="#999999", linestyle=":", linewidth=1)
        axes.text(pages + 0.005 * last, 0.01 + 0.04 * (n % 3), stage, fontsize=8)
    axes.set(xlim=(0, last), ylim=(0, 1), xlabel="pages seen", ylabel="F1 on 192 unseen pages")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.grid(axis="y", color="#dddddd")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def spaced(heights: Sequence[float], room: float) -> list[float]:
    """Heights moved up so that labels lie at least `room` apart, in the same order.

    All move down again where the topmost one would leave the axis, whose end is 1.
    """
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    moved, free = list(heights), float("-inf")
    for i in order:
        moved[i] = max(heights[i], free)
        free = moved[i] + room
    ceiling = 1.0
    for i in reversed(order):
        moved[i] = min(moved[i], ceiling)
        ceiling = moved[i] - room
    return moved


def save(figure: Figure, out: Path) -> None:
    """Write an SVG file with real text; the same curve gives the same bytes."""
    settings: Any = {"svg.hashsalt": "curve", "svg.fonttype": "none", "font.family": "sans-serif"}
    with matplotlib.rc_context(settings):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})


@click.command()
@click.argument("curve", type=click.Path(exists=True, path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
def main(curve: Path, out: Path) -> None:
    """Draw the curve of a training as an SVG file."""
    measured = exams(curve)
    if not measured:
        raise click.ClickException(f"{curve}: has no exam yet. They are held every 250 steps.")
    save(picture(measured), out)


if __name__ == "__main__":
    main()
