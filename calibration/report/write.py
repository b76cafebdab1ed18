"""Write a report: results -> report.json, report.md and report.html; put it into a kit.

The reference kit comes first, then every other one with the differences that its weights make.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from calibration import compare, into_kit
from calibration.bootstrap import Estimate
from calibration.figures import Divergence, GateResult, ReportFigures
from calibration.files import fresh_folder, refuse_existing
from calibration.records import as_json
from calibration.report import findings
from calibration.report.gates import RECIPES, check, load_gates
from calibration.report.html import render
from calibration.report.numbers import SCORE_NAMES, points_ranged, ranged
from calibration.report.pages import flips
from calibration.report.tables import markdown
from calibration.report.verdicts import findings_limits, limits, verdict
from calibration.results import Results, identity
from pulse_edge.errors import KitError, UsageError
from pulse_edge.kit.kit import open_kit

JSON, MARKDOWN, HTML = "report.json", "report.md", "report.html"
INSIDE = "accuracy"
"""The folder of a kit that holds its report."""


@dataclass(frozen=True)
class Options:
    """How to make a report."""

    bench: Path | None = None
    """Where the pages lie now; None: where they lay when the kits were asked."""
    recipe: str | None = None
    """The recipe whose gates are held against `attach`'s kit, or against all but the reference."""
    recipes: Path = RECIPES
    attach: Path | None = None
    """A kit that gets its verdict and the report."""
    force: bool = False
    findings: tuple[Path, ...] = ()
    """Files of `calibration findings`, of kits among the results."""
    hidden: tuple[str, ...] | None = None
    """Tasks whose pages are not shown: patients' recordings stay where they are."""


def report(source: Path, target: Path, options: Options = Options()) -> ReportFigures:
    """Write the report of the results in `source` to the folder `target`.

    BenchError, KitError and UsageError where something does not belong together; nothing is written
    then.
    """
    results = Results(source)
    figures = collect(results, options)
    if not options.force and not (target.is_dir() and _is_report(target)):
        refuse_existing(target)
    bench = options.bench or Path(figures.run.bench)
    with fresh_folder(target, force=True, ours=_is_report) as work:
        text = json.dumps(as_json(figures), indent=1, ensure_ascii=False, allow_nan=False)
        (work / JSON).write_text(text + "\n", encoding="utf-8")
        (work / MARKDOWN).write_text(markdown(figures), encoding="utf-8")
        html = render(figures, bench, options.hidden or ())
        (work / HTML).write_text(html, encoding="utf-8")
    if options.attach is not None:
        put_into_kit(options.attach, _name_of(results, options.attach), figures, target)
    return figures


def collect(results: Results, options: Options) -> ReportFigures:
    """All figures of the report."""
    gates = {} if options.recipe is None else load_gates(options.recipes, options.recipe)
    comparison = compare.compare(results)
    files = findings.load(options.findings, results)
    unknown = sorted({*(options.hidden or ())} - comparison.reference_kit.tasks.keys())
    if unknown:
        raise UsageError(f"--no-pictures: the results have no task {', '.join(unknown)}")
    checked = comparison.others if options.attach is None else [_name_of(results, options.attach)]
    outcomes = {name: check(comparison.kits[name], gates) for name in checked if gates}
    return ReportFigures(
        **vars(comparison),
        findings=files,
        gates=outcomes,
        recipe=options.recipe,
        verdicts={
            name: verdict(comparison, name, options.recipe, outcomes.get(name))
            for name in comparison.kits
        },
        flips=tuple(flips(results, comparison)),
        limits=tuple(limits(results, comparison, findings_limits(files))),
    )


def _is_report(folder: Path) -> bool:
    """Whether a folder holds a report and no other file."""
    if not {path.name for path in folder.iterdir()} <= {JSON, MARKDOWN, HTML}:
        return False
    try:
        content = json.loads((folder / JSON).read_text("utf-8"))
        return isinstance(content, dict) and {"kits", "reference", "verdicts"} <= content.keys()
    except (OSError, ValueError, RecursionError):
        return False


# --- into the kit -----------------------------------------------------------------------------


@dataclass(frozen=True)
class ScoreLine:
    """One line of the manifest's table."""

    task: str
    score: str
    questions: int
    reference: str
    this: str
    difference: str


@dataclass(frozen=True)
class AccuracySummary:
    """What the manifest says of a kit's accuracy."""

    verdict: str
    reference: str
    table: tuple[ScoreLine, ...]
    kld: Divergence | None
    same_top: Estimate | None
    gates: Sequence[GateResult] | None
    report: str


def _name_of(results: Results, path: Path) -> str:
    """The name under which a kit was measured; KitError where it was not."""
    opened = open_kit(path)
    for name in results.kits:
        if results.kit(name).identity == identity(opened.manifest):
            return name
    raise KitError(f"{path}: {results.path} has no answers of this kit; evaluate it first")


def put_into_kit(path: Path, name: str, figures: ReportFigures, written: Path) -> None:
    """Replace a kit by one that carries verdict, short table and report."""
    files = {f"{INSIDE}/{file}": (written / file).read_bytes() for file in (JSON, MARKDOWN, HTML)}
    summary = as_json(summary_for_kit(figures, name))
    into_kit.put(path, files, f"{INSIDE}/", accuracy=summary)


def summary_for_kit(figures: ReportFigures, name: str) -> AccuracySummary:
    """The manifest's summary of a kit's accuracy."""
    kit, first = figures.kits[name], figures.reference_kit
    table = tuple(
        ScoreLine(
            task=task,
            score=SCORE_NAMES[of_task.primary],
            questions=of_task.questions,
            reference=ranged(first.tasks[task].scores[of_task.primary]),
            this=ranged(of_task.scores[of_task.primary]),
            difference=points_ranged(of_task.difference) if of_task.changes else "",
        )
        for task, of_task in kit.tasks.items()
    )
    return AccuracySummary(
        verdict=figures.verdicts[name],
        reference=first.id,
        table=table,
        kld=kit.kld,
        same_top=kit.same_top,
        gates=figures.gates.get(name),
        report=f"{INSIDE}/{HTML}",
    )
