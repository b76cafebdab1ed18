"""`python -m calibration`: make calibration data, measure kits, and report on them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from pulse_edge.cli.run import Program, run
from pulse_edge.common.text import visible

PATH = click.Path(path_type=Path)
F = TypeVar("F", bound=Callable[..., Any])


@click.group(cls=Program)
def cli() -> None:
    """Make calibration data, measure kits, and report on them."""


def say(text: str) -> None:
    """Print a note to stderr."""
    click.echo(visible(text), err=True)


def names(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """The names in `a,b`."""
    if value is None:
        return None
    return tuple(part.strip() for part in value.split(",") if part.strip())


def cores() -> int:
    """Number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def part(_: click.Context, __: click.Parameter, value: str) -> tuple[int, int]:
    """The numbers in `1/4`."""
    try:
        i, n = map(int, value.split("/"))
    except ValueError:
        raise click.BadParameter("expected I/N, such as 1/4") from None
    return i, n


# --- shared options ---------------------------------------------------------------------------


def output(help_text: str) -> Callable[[F], F]:
    """`-o`: what the command writes."""
    return click.option("-o", "--output", "target", type=PATH, required=True, help=help_text)


def force(what: str) -> Callable[[F], F]:
    """`--force`: replace an earlier result."""
    return click.option("--force", is_flag=True, help=f"Replace an existing {what}.")


def bench(help_text: str = "Folder with ECGBench.", required: bool = True) -> Callable[[F], F]:
    """`--bench`: the questions and pages."""
    layouts = "Either its parquet folders, or TASK.json files and images/."
    return click.option("--bench", type=PATH, required=required, help=f"{help_text} {layouts}")


device = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where the models run.",
)
threads = click.option(
    "--threads",
    type=click.IntRange(1, 512),
    help="Threads of the models.  [default: all processors that this process may use]",
)
calibration_split = click.option(
    "--split", type=PATH, help="Use only the calibration ids of this split file."
)
tasks = click.option(
    "--tasks", callback=names, metavar="A,B", help="Tasks to use.  [default: ECGBench's nine]"
)


# --- data -------------------------------------------------------------------------------------


@cli.command()
@output("Folder to write.")
@click.option("--pages", type=click.IntRange(1), required=True, help="Number of pages.")
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Seed of the pages; the same seed gives the same bytes.",
)
@click.option(
    "--signals",
    type=PATH,
    help="Plot the recordings of this .npz file in turn; its labels are in the .json file of the "
    "same name.  [default: synthetic signals]",
)
@tasks
@click.option(
    "--layouts", callback=names, metavar="A,B", help="Page layouts to use.  [default: all]"
)
@click.option(
    "--parquet", is_flag=True, help="Write parquet folders instead of TASK.json files and images/."
)
@click.option(
    "--processes",
    type=click.IntRange(1, 256),
    help="Number of processes.  [default: all processors that this process may use]",
)
@force("folder")
def synthesize(target: Path, processes: int | None, force: bool, **options: Any) -> None:
    """Make synthetic pages with questions and right answers, in ECGBench's layout."""
    from calibration.synthesize import Plan
    from calibration.synthesize import synthesize as run

    plan = Plan(**{key: value for key, value in options.items() if value is not None})
    run(target, plan, processes or cores(), force, say)
    click.echo(target)


@cli.command()
@bench()
@click.option(
    "--key",
    default="pulse-edge",
    show_default=True,
    help="Key of the split; the same key gives the same split.",
)
@click.option(
    "--share",
    type=float,
    default=0.1,
    show_default=True,
    help="Share of every task's samples that is used for calibration.",
)
@output("Split file to write (JSON).")
def split(bench: Path, key: str, share: float, target: Path) -> None:
    """Divide ECGBench's ids into calibration and test ids."""
    from calibration import ecgbench, splits

    opened, problems = ecgbench.open_bench(bench), list[ecgbench.Problem]()
    samples = (one for task in opened.tasks for one in opened.samples(task, problems.append))
    result = splits.split(samples, key, share)
    for problem in problems:
        say(f"left out: {problem}")
    for task, ids in result.calibration.items():
        say(f"{task}: {len(ids)} for calibration, {len(result.test[task])} for test")
    splits.save(result, target, problems)
    click.echo(target)


# --- statistics for quantization --------------------------------------------------------------


@cli.command()
@click.argument("kit", type=PATH)
@output("Statistics file to write (GGUF).")
@click.option(
    "--samples",
    type=click.IntRange(1),
    default=128,
    show_default=True,
    help="Number of samples, over all tasks.",
)
@bench("Folder with ECGBench [default: synthetic pages].", required=False)
@calibration_split
@click.option(
    "--part",
    callback=part,
    default="1/1",
    show_default=True,
    metavar="I/N",
    help="Use only the I-th of N parts of the samples; `merge` joins them.",
)
@threads
@force("file")
def collect(kit: Path, target: Path, force: bool, **options: Any) -> None:
    """Collect statistics of KIT on calibration pages, for `python -m export quantize --stats`."""
    from calibration.collect import Plan
    from calibration.collect import collect as run

    run(kit, target, Plan(**options), force, say)
    click.echo(target)


@cli.command()
@click.argument("parts", type=PATH, nargs=-1, required=True)
@output("Statistics file to write (GGUF).")
@force("file")
def merge(parts: tuple[Path, ...], target: Path, force: bool) -> None:
    """Merge the files of `collect --part` into the file of one run over all parts."""
    from calibration import statistics_file
    from calibration.files import refuse_existing

    if not force:
        refuse_existing(target)
    loaded = [(path, statistics_file.load(path)) for path in parts]
    statistics_file.save(statistics_file.merge(loaded), target)
    click.echo(target)


@cli.command("draft-table")
@click.argument("kit", type=PATH)
@output("Kit to write.")
@bench()
@calibration_split
@force("kit")
def draft_table(kit: Path, target: Path, **options: Any) -> None:
    """Make a copy of KIT with a draft table: answers stay the same and come faster."""
    from calibration.draft_table import add

    say(f"{add(kit, target, **options)} contexts")
    click.echo(target)


# --- accuracy ---------------------------------------------------------------------------------


@cli.command()
@click.argument("kits", nargs=-1, required=True, type=PATH, metavar="KIT...")
@output("Folder of results; an interrupted run is resumed in its folder.")
@bench()
@tasks
@click.option("--split", type=PATH, help="Ask only the test ids of this split file.")
@click.option("--limit", type=click.IntRange(1), help="Ask only the first N questions of a task.")
@click.option(
    "--max-tokens", type=click.IntRange(1), help="Longest answer.  [default: the kit's limit]"
)
@device
@threads
@click.option(
    "--cluster",
    metavar="ADDRESS",
    help="Run on a Ray cluster: auto, HOST:PORT, or local to start one on this machine.",
)
def evaluate(kits: tuple[Path, ...], target: Path, **options: Any) -> None:
    """Ask kits the questions of ECGBench; the first kit is the reference."""
    from calibration.evaluate import Plan
    from calibration.evaluate import evaluate as run

    run(target, Plan(kits, **options), say)
    click.echo(target)


@cli.command()
@click.argument("kit", type=PATH)
@output("File to write (JSON); an interrupted run is resumed from TARGET.partial.")
@bench()
@click.option(
    "--split",
    type=PATH,
    help="Fit on this split's calibration ids and measure on its test ids.  [default: halves]",
)
@click.option(
    "--fitted",
    type=PATH,
    metavar="FILE",
    help="Measure the calibration of this file instead of fitting one.",
)
@click.option("--limit", type=click.IntRange(1), help="Largest number of pages of either side.")
@click.option(
    "--max-error",
    "risk",
    metavar="RATE",
    type=float,
    default=0.1,
    show_default=True,
    help='Highest error rate allowed among "present" and among "absent" verdicts.',
)
@click.option("--attach", is_flag=True, help="Put the calibration into KIT.")
@device
@threads
@click.option("--force", is_flag=True, help="Start again, and replace an existing file.")
def findings(kit: Path, target: Path, attach: bool, force: bool, **options: Any) -> None:
    """Calibrate the probabilities of KIT's findings, and measure them."""
    from calibration.findings.pages import Plan
    from calibration.findings.run import findings as run
    from calibration.findings.run import in_words

    for text in in_words(run(kit, target, Plan(**options), attach, force, say)):
        say(text)
    click.echo(target)


@cli.command()
@click.argument("results", type=PATH)
@output("Folder for report.html, report.md and report.json.")
@click.option(
    "--bench", type=PATH, help="Folder with the pages.  [default: where `evaluate` read them]"
)
@click.option(
    "--gates",
    "recipe",
    metavar="RECIPE",
    help="Check kits against this recipe's gates; exit with 1 if one fails.",
)
@click.option("--recipes", type=PATH, help="YAML file of recipes.  [default: models.yaml]")
@click.option("--attach", type=PATH, metavar="KIT", help="Put verdict and report into this kit.")
@click.option(
    "--findings",
    type=PATH,
    multiple=True,
    help="File of `calibration findings` to include. Repeatable.",
)
@click.option(
    "--no-pictures",
    "hidden",
    callback=names,
    metavar="A,B",
    help="Leave out the pages of these tasks.",
)
@force("folder")
def report(results: Path, target: Path, recipes: Path | None, **options: Any) -> None:
    """Report how accurate kits are, and what differs from the reference kit."""
    from calibration.report.gates import RECIPES
    from calibration.report.write import Options
    from calibration.report.write import report as run

    figures = run(results, target, Options(recipes=recipes or RECIPES, **options))
    for name, text in figures.verdicts.items():
        say(f"{name}: {text}")
    click.echo(target)
    for gate in figures.failed_gates:
        say(f"not passed: {gate}")
    click.get_current_context().exit(1 if figures.failed_gates else 0)


@cli.command()
@click.option(
    "--bench", type=PATH, required=True, help="Folder with ECGBench: parquet, or TASK.json files."
)
@click.option(
    "--predictions",
    type=PATH,
    required=True,
    help="Folder of a run with TASK/step-final.jsonl files.",
)
@click.option(
    "--scorer",
    type=click.Choice(["corrected", "published"]),
    default="corrected",
    show_default=True,
    help="This project's scorer, or the benchmark's own with its faults.",
)
@click.option(
    "--split",
    "split_file",
    type=PATH,
    help="Score only the test ids of this split file (corrected scorer).",
)
@output("File to write (JSON).")
def score(
    bench: Path,
    predictions: Path,
    scorer: str,
    split_file: Path | None,
    target: Path,
) -> None:
    """Score the answers of any runner that writes PULSE's format."""
    from calibration import splits
    from calibration.ecgbench import open_bench
    from calibration.files import write_json
    from calibration.score import score as run

    if split_file and scorer == "published":
        raise click.UsageError("the published scorer knows no split; leave --split out")
    only = splits.load(split_file) if split_file is not None else None
    scores = run(open_bench(bench), predictions, scorer, only)
    for task, result in scores["tasks"].items():
        figures = ", ".join(
            f"{name} {value:.4g}"
            for name, value in result.items()
            if isinstance(value, (int, float))
        )
        say(f"{task}: {figures}")
    for task, why in scores["not_scored"].items():
        say(f"{task}: not scored, {why}")
    write_json(target, scores)
    click.echo(target)


# --- measurements of the trace ----------------------------------------------------------------


@cli.command()
@output("Folder for report.html, report.md, report.json and pages.jsonl.")
@click.option(
    "--data",
    type=PATH,
    required=True,
    help="Folder with recordings (.npz with .json) and pictures; docs/evaluation.md has the layout.",
)
@click.option(
    "--sets",
    callback=names,
    metavar="A,B",
    help="Sets to measure.  [default: recordings,synthetic,distorted,scans,photos]",
)
@click.option(
    "--recordings",
    callback=names,
    metavar="A,B",
    help="Names of .npz files below the folder.  [default: ludb_dev,ptbxl_cases_dev]",
)
@click.option(
    "--photographs",
    metavar="NAME",
    help="Name of the photographs' .npz file.  [default: photos_more_dev]",
)
@click.option(
    "--pages", type=click.IntRange(1), help="Largest number of pages of a set.  [default: all]"
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the pages."
)
@force("folder")
def measurements(target: Path, force: bool, **options: Any) -> None:
    """Report how accurately traces are measured, on pages whose signals are known."""
    from calibration.measurements.run import measurements as run
    from calibration.measurements.sets import Plan

    plan = Plan(**{key: value for key, value in options.items() if value is not None})
    run(target, plan, force, say)
    click.echo(target)


def main() -> None:
    """Run the program: errors become one line and an exit code."""
    run(cli)


if __name__ == "__main__":
    main()
