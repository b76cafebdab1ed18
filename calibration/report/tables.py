"""All figures as tables of text, and the report as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from calibration.bootstrap import Estimate
from calibration.compare import QUANTILES
from calibration.figures import Comparison, ReportFigures
from calibration.report import findings
from calibration.report.numbers import (
    SCORE_NAMES,
    WAYS,
    decimal,
    megabytes,
    percent,
    points_ranged,
    ranged,
    short,
)
from calibration.report.table import Table


def tables(figures: ReportFigures) -> list[Table]:
    """Every table of the report, the summary first."""
    every = [
        _summary(figures),
        *(_task(figures, task) for task in figures.reference_kit.tasks),
        *findings.tables(figures.findings),
        _divergence(figures),
        *_gates(figures),
        *_diagnoses(figures),
    ]
    return [table for table in every if table.rows]


def _summary(figures: Comparison) -> Table:
    head = (
        "kit",
        "MB",
        "mean score",
        "difference",
        "mean KLD",
        "same top",
        *WAYS.values(),
        "peak MiB",
        "first token s",
        "tokens/s",
    )
    rows = []
    for name, kit in figures.kits.items():
        reference = name == figures.reference
        peak = "not known" if kit.peak_bytes is None else f"{kit.peak_bytes / 2**20:,.0f}"
        rows.append(
            (
                name,
                megabytes(kit),
                ranged(kit.score),
                "" if reference else points_ranged(kit.score.difference),
                short(kit.kld.mean.value) if kit.kld else "",
                f"{percent(kit.same_top)} %" if kit.same_top else "",
                "" if reference else str(kit.lost),
                "" if reference else str(kit.gained),
                peak,
                decimal(kit.first_token_seconds, 2),
                decimal(kit.tokens_per_second, 1),
            )
        )
    note = (
        "Scores in percent, the mean of the tasks' first scores, with 95 % intervals in brackets; "
        "* marks a difference that is more than chance. KLD in nats a token."
    )
    return Table("All kits", head, tuple(rows), note)


def _task(figures: Comparison, task: str) -> Table:
    first = figures.reference_kit.tasks[task]
    names = list(first.scores)
    head = (
        "kit",
        *(SCORE_NAMES[n] for n in names),
        "difference",
        "McNemar p",
        *WAYS.values(),
        "texts changed",
    )
    rows = []
    for name, kit in figures.kits.items():
        of_task = kit.tasks[task]
        cells = [name, *(ranged(of_task.scores[n]) for n in names)]
        if (changes := of_task.changes) is not None:
            cells += [
                points_ranged(of_task.difference),
                short(changes.mcnemar_p),
                str(len(changes.lost)),
                str(len(changes.gained)),
                str(changes.texts_changed),
            ]
        rows.append(tuple(cells + [""] * (len(head) - len(cells))))
    note = (
        f"{first.questions} questions. The difference is that of {SCORE_NAMES[first.primary]}; "
        "p compares the answers that are right as a whole."
    )
    return Table(task, head, tuple(rows), note)


def _divergence(figures: Comparison) -> Table:
    head = (
        "kit",
        "tokens",
        "mean",
        "median",
        "90 %",
        "95 %",
        "99 %",
        "99.9 %",
        "most",
        "same top",
        "perplexity of the right answers",
    )
    rows = []
    for name, kit in figures.kits.items():
        cells = [name, *[""] * 9]
        if kit.kld is not None and kit.same_top is not None:
            cells = [
                name,
                str(kit.kld.tokens),
                _short_ranged(kit.kld.mean),
                *(short(kit.kld.quantiles[str(q)]) for q in QUANTILES),
                f"{ranged(kit.same_top)} %",
            ]
        perplexity = kit.gold_perplexity.value
        rows.append((*cells, "" if perplexity is None else f"{perplexity:.4g}"))
    note = (
        f"The next token's distribution on {figures.reference}'s own answers, in nats, "
        "over all tasks."
    )
    return Table("Divergence from the reference", head, tuple(rows), note)


def _short_ranged(figure: Estimate) -> str:
    low, high = figure.interval
    return f"{short(figure.value)} [{short(low)}, {short(high)}]"


def _gates(figures: ReportFigures) -> Iterator[Table]:
    for name, results in figures.gates.items():
        rows = tuple(
            (
                result.gate,
                result.what,
                "not measured" if result.value is None else f"{result.value:.4g}",
                f"{result.limit:.4g}",
                "passed" if result.passed else "NOT PASSED",
            )
            for result in results
        )
        title = f"Gates of {figures.recipe}: {name}"
        yield Table(title, ("gate", "what", "value", "limit", ""), rows)


def _diagnoses(figures: Comparison) -> Iterator[Table]:
    for task, base in figures.reference_kit.tasks.items():
        for what in ("sensitivity", "specificity"):
            rows = []
            for diagnosis, figure in base.diagnoses.items():
                changes = (
                    getattr(figures.kits[n].tasks[task].diagnoses[diagnosis], what).difference
                    for n in figures.others
                )
                first = ranged(getattr(figure, what))
                rows.append((diagnosis, str(figure.pages), first, *map(points_ranged, changes)))
            yield Table(
                f"{task}: {what} of each diagnosis",
                ("diagnosis", "pages", figures.reference, *figures.others),
                tuple(rows),
                folded=True,
            )


def markdown(figures: ReportFigures) -> str:
    """The report as Markdown, without its pictures."""
    lines = [f"# {title(figures)}", ""]
    lines += [f"- **{name}**: {text}" for name, text in figures.verdicts.items()]
    lines += markdown_tables(tables(figures))
    lines += ["", "## Limits of these figures", "", *(f"- {text}" for text in figures.limits)]
    return "\n".join([*lines, "", f"Made with {made_with(figures)}.", ""])


def markdown_tables(every: Sequence[Table]) -> list[str]:
    """The lines of tables in Markdown, each under its title."""
    lines: list[str] = []
    for table in every:
        lines += ["", f"## {table.title}", ""]
        lines += [
            " | ".join(("", *cells, "")).strip()
            for cells in (table.head, ("---",) * len(table.head), *table.rows)
        ]
        lines += ["", table.note] if table.note else []
    return lines


def title(figures: Comparison) -> str:
    """Title of the report."""
    others = len(figures.others)
    against = f"{others} kit{'s' * (others > 1)} against" if others else "the reference"
    return f"Accuracy: {against} {figures.reference_kit.id}"


def made_with(figures: Comparison) -> str:
    """Programs, machine and data."""
    kit = figures.reference_kit
    versions = ", ".join(f"{name} {number}" for name, number in kit.versions.items())
    return f"{versions}; {kit.device}; {kit.machine}; data {Path(figures.run.bench).name}"
