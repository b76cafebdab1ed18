"""Write a report on measurements: report.html (one file that loads nothing), report.md,
report.json, figures/*.svg, and the pages one by one in pages.jsonl."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from calibration.measurements.figures import MeasurementFigures, SetFigures
from calibration.measurements.plots import bland_altman
from calibration.measurements.results import PageResult
from calibration.measurements.tables import tables
from calibration.records import as_json
from calibration.report.html import cell_class, environment
from calibration.report.plots import Plot
from calibration.report.tables import markdown_tables

TITLE = "Accuracy of measurements"
JSON, MARKDOWN, HTML, PAGES, FIGURES = (
    "report.json",
    "report.md",
    "report.html",
    "pages.jsonl",
    "figures",
)


def write(
    folder: Path,
    figures: MeasurementFigures,
    results: Mapping[str, Sequence[PageResult]],
    pictures: Mapping[tuple[str, str], bytes],
) -> None:
    """Write all files into an empty folder; `pictures` are JPEGs by set and page."""
    drawings = {f.name: list(bland_altman(f)) for f in figures.sets}
    _write_json(folder, figures, results)
    (folder / FIGURES).mkdir()
    for name, plots in drawings.items():
        for number, plot in enumerate(plots):
            (folder / _file(name, number)).write_text(plot.svg, encoding="utf-8")
    (folder / MARKDOWN).write_text(markdown(figures, drawings), encoding="utf-8")
    (folder / HTML).write_text(html(figures, drawings, pictures), encoding="utf-8")


def _write_json(
    folder: Path, figures: MeasurementFigures, results: Mapping[str, Sequence[PageResult]]
) -> None:
    """The figures, and each page; pairs of values are left to the pages."""
    lean = replace(figures, sets=tuple(_without_pairs(one) for one in figures.sets))
    text = json.dumps(as_json(lean), indent=1, ensure_ascii=False, allow_nan=False)
    (folder / JSON).write_text(text + "\n", encoding="utf-8")
    with (folder / PAGES).open("w", encoding="utf-8") as file:
        for name, pages in results.items():
            for page in pages:
                line = {"set": name, **as_json(page)}
                file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")


def _without_pairs(figures: SetFigures) -> SetFigures:
    return replace(figures, agreements=tuple(replace(a, pairs=()) for a in figures.agreements))


def _file(name: str, number: int) -> str:
    return f"{FIGURES}/{name}-{number + 1}.svg"


def markdown(figures: MeasurementFigures, drawings: Mapping[str, Sequence[Plot]]) -> str:
    """The report as Markdown; its drawings are files."""
    lines = [f"# {TITLE}", *markdown_tables([t for t in tables(figures) if not t.folded])]
    lines += ["", "## Bland-Altman plots", ""]
    for name, plots in drawings.items():
        lines += [f"![{plot.title}]({_file(name, n)})" for n, plot in enumerate(plots)]
    lines += ["", "## Pages that went worst", ""]
    lines += [f"- {one.title}, {w.name}: {w.why}" for one in figures.sets for w in one.worst]
    lines += ["", "## Limits of these figures", "", *(f"- {text}" for text in figures.limits)]
    return "\n".join([*lines, "", f"Made with {made_with(figures)}.", ""])


def html(
    figures: MeasurementFigures,
    drawings: Mapping[str, Sequence[Plot]],
    pictures: Mapping[tuple[str, str], bytes],
) -> str:
    """The report as one file that loads nothing."""
    template = environment(Path(__file__).parent).get_template("measurements.html.j2")
    return template.render(
        title=TITLE,
        tables=tables(figures),
        plots=[plot for plots in drawings.values() for plot in plots],
        worst=[
            (one.title, page, _data_url(pictures.get((one.name, page.name))))
            for one in figures.sets
            for page in one.worst
        ],
        limits=figures.limits,
        cell_class=cell_class,
        made_with=made_with(figures),
    )


def _data_url(picture: bytes | None) -> str | None:
    if picture is None:
        return None
    return f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"


def made_with(figures: MeasurementFigures) -> str:
    """Programs, machine and data."""
    run = figures.run
    versions = ", ".join(f"{name} {number}" for name, number in run.versions.items())
    pages = "all recordings" if run.pages is None else f"at most {run.pages} pages a set"
    return (
        f"{versions}; {run.machine}, {run.threads} threads; data {Path(run.data).name}: "
        f"{', '.join(run.recordings)}; {pages}, seed {run.seed}"
    )


def is_report(folder: Path) -> bool:
    """Whether a folder holds such a report and no other file."""
    if not {p.name for p in folder.iterdir()} <= {JSON, MARKDOWN, HTML, PAGES, FIGURES}:
        return False
    try:
        content = json.loads((folder / JSON).read_text("utf-8"))
        return isinstance(content, dict) and {"run", "sets", "limits"} <= content.keys()
    except (OSError, ValueError, RecursionError):
        return False
