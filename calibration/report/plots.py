"""Drawings of the report as SVG, by matplotlib: the same figures give the same bytes."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from calibration.bootstrap import Estimate
from calibration.figures import Comparison
from calibration.findings.file import Bin, FindingsFile

BLUE, DARK_BLUE, BROWN, GREY = "#3465a4", "#204a87", "#b45f06", "#bbbbbb"
LABEL_STEPS = (0, 10, -10, 20, -20, 30, -30)
"""Offsets in points at which a kit's name is tried, until it covers no other one."""


@dataclass(frozen=True)
class Plot:
    """A drawing with its title."""

    title: str
    svg: str


@dataclass(frozen=True)
class Point:
    """A kit in a drawing: size in MB, and a figure with its interval."""

    name: str
    x: float
    y: float
    low: float
    high: float


def kit_plots(figures: Comparison) -> Iterator[Plot]:
    """Size against divergence, and size against accuracy."""
    kits = figures.kits.items()
    kld = [_point(n, k.total_bytes, k.kld.mean, 1) for n, k in kits if k.kld is not None]
    score = [_point(n, k.total_bytes, k.score, 100) for n, k in kits if k.score.value is not None]
    if kld:
        title = "Size and divergence: lower is better"
        yield Plot(title, size_plot(title, kld, "mean KLD, nats a token", log=True, best=-1))
    if score:
        title = "Size and accuracy: higher is better"
        yield Plot(title, size_plot(title, score, "mean score", log=False, best=1))


def _point(name: str, size: int, figure: Estimate, factor: float) -> Point:
    value = figure.value or 0.0
    low, high = (value if end is None else end for end in figure.interval)
    return Point(name, size / 1e6, value * factor, low * factor, high * factor)


def size_plot(title: str, points: Sequence[Point], label: str, log: bool, best: int) -> str:
    """Points with their intervals; a dashed line joins the `frontier`. `best`: 1 up, -1 down."""
    figure = Figure(figsize=(6.4, 3.9), layout="constrained")
    axes: Any = figure.subplots()
    floor = min((p.y for p in points if p.y > 0), default=1.0) / 3 if log else -math.inf
    heights = [max(p.y, floor) for p in points]
    below = [max(0.0, y - max(p.low, floor)) for p, y in zip(points, heights, strict=True)]
    above = [max(0.0, max(p.high, floor) - y) for p, y in zip(points, heights, strict=True)]
    x = [p.x for p in points]
    axes.errorbar(x, heights, yerr=(below, above), fmt="none", ecolor=BLUE)
    (marks,) = axes.plot(x, heights, "o", color=DARK_BLUE)
    marks.set_gid("kits")
    front = frontier(points, best)
    line_y = [max(p.y, floor) for p in front]
    axes.plot([p.x for p in front], line_y, "--", color=BLUE, linewidth=1)
    if log:
        axes.set_yscale("log")
    axes.margins(0.1)
    axes.set_xlabel("size of the kit, MB")
    axes.set_ylabel(label)
    axes.grid(axis="y", color="#eeeeee")
    axes.spines[["top", "right"]].set_visible(False)
    figure.draw_without_rendering()
    _label(axes, [p.name for p in points], list(zip(x, heights, strict=True)))
    return as_svg(figure, title)


def _label(axes: Any, names: Sequence[str], at: Sequence[tuple[float, float]]) -> None:
    """Write names next to points; one that would cover another moves up or down."""
    taken: list[tuple[float, float]] = []
    middle = axes.transAxes.transform((0.7, 0))[0]
    for n in sorted(range(len(at)), key=lambda n: at[n]):
        x, y = axes.transData.transform(at[n])
        step = next(
            (
                s
                for s in LABEL_STEPS
                if all(abs(x - a) > 80 or abs(y + s - b) >= 10 for a, b in taken)
            ),
            LABEL_STEPS[-1],
        )
        taken.append((x, y + step))
        axes.annotate(
            names[n],
            at[n],
            xytext=(6 if x < middle else -6, step),
            textcoords="offset points",
            ha="left" if x < middle else "right",
            va="center",
            fontsize=9,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5},
        )


def frontier(points: Sequence[Point], best: int) -> list[Point]:
    """The points that are better than every smaller one, by size (the Pareto front)."""
    front: list[Point] = []
    for p in sorted(points, key=lambda p: (p.x, -best * p.y)):
        if not front or best * p.y > best * front[-1].y:
            front.append(p)
    return front


# --- findings ---------------------------------------------------------------------------------


def reliability_plots(files: Mapping[str, FindingsFile]) -> Iterator[Plot]:
    """Probability against how often it was so, before and after calibration, for each file."""
    for name, file in files.items():
        if file.all.bins_after:
            title = f"Reliability of findings of {name}: on the diagonal is right"
            yield Plot(title, _reliability(title, file.all.bins_before, file.all.bins_after))


def _reliability(title: str, before: Sequence[Bin], after: Sequence[Bin]) -> str:
    figure = Figure(figsize=(4.6, 4.4), layout="constrained")
    axes: Any = figure.subplots()
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1)
    for bins, label, colour, line in (
        (before, "as the model has them", BROWN, "--"),
        (after, "calibrated", DARK_BLUE, "-"),
    ):
        points = [(b.probability, b.share.value, *b.share.interval) for b in bins]
        drawn = [(p, y, low or 0.0, high or 0.0) for p, y, low, high in points if y is not None]
        error = (
            [max(0.0, y - low) for _, y, low, _ in drawn],
            [max(0.0, high - y) for _, y, _, high in drawn],
        )
        x, y = [p for p, *_ in drawn], [share for _, share, *_ in drawn]
        style = {"color": colour, "linestyle": line, "linewidth": 1, "marker": "o"}
        axes.errorbar(x, y, yerr=error, markersize=5, label=label, **style)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.set_xlabel("probability of the finding")
    axes.set_ylabel("how often it was there")
    axes.legend(loc="lower right", frameon=False)
    return as_svg(figure, title)


def as_svg(figure: Figure, title: str) -> str:
    """An inline SVG element with real text; its ids depend on the title alone."""
    file = io.StringIO()
    settings: Any = {"svg.hashsalt": title, "svg.fonttype": "none", "font.family": "sans-serif"}
    metadata: Any = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context(settings):
        figure.savefig(file, format="svg", metadata=metadata)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)
