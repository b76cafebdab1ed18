"""The report as one HTML file that loads nothing: styles, drawings and pages are inside."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from calibration.figures import ReportFigures
from calibration.report import pages, plots
from calibration.report.numbers import WAYS
from calibration.report.tables import made_with, tables, title

TEMPLATE = "report.html.j2"
FAILURES = ("NOT PASSED", "MISSED", "OUTSIDE")
"""Cells that say that a limit was not held."""


def render(figures: ReportFigures, bench: Path, hidden: Sequence[str] = ()) -> str:
    """The whole file, with pages from `bench`; pages of `hidden` tasks are not shown."""
    visible = [flip for flip in pages.shown(figures.flips) if flip.task not in hidden]
    return render_with(figures, pages.pictures(visible, bench), hidden)


def render_with(
    figures: ReportFigures, pictures: dict[str, str], hidden: Sequence[str] = ()
) -> str:
    """The whole file, with these pictures (data URLs by path)."""
    every = tables(figures)
    flips = pages.shown(figures.flips)
    failed = {name for name, results in figures.gates.items() if not all(r.passed for r in results)}
    return (
        environment()
        .get_template(TEMPLATE)
        .render(
            title=title(figures),
            figures=figures,
            failed=failed,
            summary=every[0],
            tables=[table for table in every[1:] if not table.folded],
            folded=[table for table in every if table.folded],
            plots=list(plots.kit_plots(figures)),
            reliability=list(plots.reliability_plots(figures.findings)),
            flips=[
                (flip, None if flip.task in hidden else pictures.get(flip.image)) for flip in flips
            ],
            ways=WAYS,
            lines=_lines,
            cell_class=cell_class,
            made_with=made_with(figures),
        )
    )


def environment(*folders: Path) -> Environment:
    """Jinja with the parts that reports share, and the templates of more folders."""
    return Environment(
        loader=FileSystemLoader([*folders, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _lines(text: str | Sequence[str]) -> str:
    """An answer as one text."""
    return text if isinstance(text, str) else "\n".join(text)


def cell_class(text: str) -> str:
    """The class of a cell: a difference that is more than chance, or a gate that failed."""
    if text.endswith(" *") or text in FAILURES:
        return "good" if text.startswith("+") else "bad"
    return ""
