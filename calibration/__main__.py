"""`python -m calibration synthesize | split | collect | merge | draft-table | evaluate | findings | report | score`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from pulse_edge.common.text import visible

PATH = click.Path(path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Measure kits: calibration data and accuracy."""


def say(text: str) -> None:
    """Notes go to stderr."""
    click.echo(visible(text), err=True)


def names(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """`a,b` -> its names."""
    return (
        None if value is None else tuple(part.strip() for part in value.split(",") if part.strip())
    )


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cli.command()
@click.option("-o", "--output", "target", type=PATH, required=True, help="The folder to make.")
@click.option("--pages", type=click.IntRange(1), required=True, help="How many pages.")
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="The same seed, the same bytes.",
)
@click.option(
    "--signals",
    type=PATH,
    help="Draw the records of this .npz (labels in the .json beside it), in turn.",
)
@click.option(
    "--tasks", callback=names, metavar="A,B", help="Which tasks. Default: ECGBench's nine."
)
@click.option("--layouts", callback=names, metavar="A,B", help="Which page layouts. Default: all.")
@click.option(
    "--parquet",
    is_flag=True,
    help="Write the hub's parquet folders instead of TASK.json and images/.",
)
@click.option(
    "--processes",
    type=click.IntRange(1, 256),
    help="Default: the processors that this process may use.",
)
@click.option("--force", is_flag=True, help="Replace an existing folder.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def synthesize(
    target: Path, processes: int | None, force: bool, debug: bool, **options: Any
) -> None:
    """Draw pages with questions and right answers, in ECGBench's layout."""
    from .synthesize import Plan
    from .synthesize import synthesize as run

    plan = Plan(**{key: value for key, value in options.items() if value is not None})
    run(target, plan, processes or cores(), force, say)
    click.echo(target)


@cli.command()
@click.option(
    "--bench", type=PATH, required=True, help="ECGBench: parquet folders, or TASK.json and images/."
)
@click.option(
    "--key", default="pulse-edge", show_default=True, help="The same key, the same split."
)
@click.option(
    "--share", type=float, default=0.1, show_default=True, help="For calibration, of every task."
)
@click.option("-o", "--output", "target", type=PATH, required=True, help="The file to write.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def split(bench: Path, key: str, share: float, target: Path, debug: bool) -> None:
    """Divide ECGBench's ids into calibration and test, and record them."""
    from . import ecgbench

    opened, problems = ecgbench.open_bench(bench), list[ecgbench.Problem]()
    samples = (one for task in opened.tasks for one in opened.samples(task, problems.append))
    made = ecgbench.split(samples, key, share)
    for problem in problems:
        say(f"left out: {problem}")
    for task, ids in made.calibration.items():
        say(f"{task}: {len(ids)} for calibration, {len(made.test[task])} for test")
    ecgbench.save_split(made, target, problems)
    click.echo(target)


def part(_: click.Context, __: click.Parameter, value: str) -> tuple[int, int]:
    """`1/4` -> (1, 4)."""
    try:
        i, n = map(int, value.split("/"))
    except ValueError:
        raise click.BadParameter("expected I/N, such as 1/4") from None
    return i, n


@cli.command()
@click.argument("kit", type=PATH)
@click.option(
    "-o", "--output", "target", type=PATH, required=True, help="The file to write (GGUF)."
)
@click.option(
    "--samples",
    type=click.IntRange(1),
    default=128,
    show_default=True,
    help="How many, of all tasks.",
)
@click.option(
    "--bench",
    type=PATH,
    help="ECGBench: parquet folders, or TASK.json and images/. Default: draw pages.",
)
@click.option("--split", type=PATH, help="Take only the calibration ids of this recorded split.")
@click.option(
    "--part",
    callback=part,
    default="1/1",
    show_default=True,
    help="Only the I-th of N parts; see merge.",
)
@click.option(
    "--threads", type=click.IntRange(1), help="Default: the processors that this process may use."
)
@click.option("--force", is_flag=True, help="Replace an existing file.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def collect(kit: Path, target: Path, force: bool, debug: bool, **options: Any) -> None:
    """Run KIT over calibration pages: importance matrix and ranges for `python -m export quantize --stats`."""
    from .collect import Plan
    from .collect import collect as run

    run(kit, target, Plan(**options), force, say)
    click.echo(target)


@cli.command()
@click.argument("parts", type=PATH, nargs=-1, required=True)
@click.option("-o", "--output", "target", type=PATH, required=True, help="The file to write.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def merge(parts: tuple[Path, ...], target: Path, force: bool, debug: bool) -> None:
    """Put files of `collect --part` together: the bytes of one run over all of it."""
    from calibration import statistics_file
    from calibration.files import refuse_existing

    if not force:
        refuse_existing(target)
    loaded = [(path, statistics_file.load(path)) for path in parts]
    statistics_file.save(statistics_file.merge(loaded), target)
    click.echo(target)


@cli.command("draft-table")
@click.argument("kit", type=PATH)
@click.option("-o", "--output", "target", type=PATH, required=True, help="The kit to make.")
@click.option(
    "--bench", type=PATH, required=True, help="ECGBench: parquet folders, or TASK.json and images/."
)
@click.option("--split", type=PATH, help="Take only the calibration ids of this recorded split.")
@click.option("--force", is_flag=True, help="Replace an existing kit.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def draft_table(kit: Path, target: Path, debug: bool, **options: Any) -> None:
    """Make a copy of KIT with a draft table, for faster answers that stay the same."""
    from calibration.draft_table import add

    say(f"{add(kit, target, **options)} contexts")
    click.echo(target)


@cli.command()
@click.argument("kits", nargs=-1, required=True, type=PATH, metavar="KIT...")
@click.option(
    "-o",
    "--output",
    "target",
    type=PATH,
    required=True,
    help="The folder of results: new, or to go on with.",
)
@click.option(
    "--bench", type=PATH, required=True, help="ECGBench: parquet folders, or TASK.json and images/."
)
@click.option(
    "--tasks", callback=names, metavar="A,B", help="Which tasks. Default: ECGBench's nine."
)
@click.option("--split", type=PATH, help="Ask only the test ids of this recorded split.")
@click.option("--limit", type=click.IntRange(1), help="Only the first questions of each task.")
@click.option(
    "--max-tokens", type=click.IntRange(1), help="Longest answer. Default: the kit's limit."
)
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True
)
@click.option(
    "--threads",
    type=click.IntRange(1, 512),
    help="Default: the processors that this process may use.",
)
@click.option(
    "--cluster",
    metavar="ADDRESS",
    help="Run on this Ray cluster (auto, HOST:PORT); local: on one started here.",
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def evaluate(kits: tuple[Path, ...], target: Path, debug: bool, **options: Any) -> None:
    """Ask kits the questions of ECGBench; the first kit is the reference. Interrupted, it goes on where it was."""
    from .evaluate import Plan
    from .evaluate import evaluate as run

    run(target, Plan(kits, **options), say)
    click.echo(target)


@cli.command()
@click.argument("kit", type=PATH)
@click.option(
    "-o",
    "--output",
    "target",
    type=PATH,
    required=True,
    help="The file to write (JSON), or to go on with.",
)
@click.option(
    "--bench", type=PATH, required=True, help="ECGBench: parquet folders, or TASK.json and images/."
)
@click.option(
    "--split",
    type=PATH,
    help="Fit on its calibration ids, measure on its test ids. Default: by halves.",
)
@click.option(
    "--fitted",
    type=PATH,
    metavar="FINDINGS",
    help="Fit nothing: measure the calibration of this file here.",
)
@click.option("--limit", type=click.IntRange(1), help="Pages of either side at most.")
@click.option(
    "--risk",
    type=float,
    default=0.1,
    show_default=True,
    help="Of verdicts, and of either truth, wrong at most.",
)
@click.option("--attach", is_flag=True, help="Put the calibration into KIT.")
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True
)
@click.option(
    "--threads",
    type=click.IntRange(1, 512),
    help="Default: the processors that this process may use.",
)
@click.option("--force", is_flag=True, help="Begin anew, and replace an existing file.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def findings(
    kit: Path, target: Path, attach: bool, force: bool, debug: bool, **options: Any
) -> None:
    """Calibrate the probabilities of KIT's findings, and measure them. Interrupted, it goes on where it was."""
    from .findings import Plan, in_words
    from .findings import findings as run

    for text in in_words(run(kit, target, Plan(**options), attach, force, say)):
        say(text)
    click.echo(target)


@cli.command()
@click.argument("results", type=PATH)
@click.option(
    "-o",
    "--output",
    "target",
    type=PATH,
    required=True,
    help="The folder for report.html, .md and .json.",
)
@click.option("--bench", type=PATH, help="Where the pages lie now. Default: where they lay.")
@click.option(
    "--gates",
    "recipe",
    metavar="RECIPE",
    help="Hold kits against this recipe's gates; exit 1 when one fails.",
)
@click.option("--recipes", type=PATH, help="The YAML file of recipes. Default: models.yaml.")
@click.option("--attach", type=PATH, metavar="KIT", help="Put verdict and report into this kit.")
@click.option(
    "--findings",
    type=PATH,
    multiple=True,
    help="A kit's file of `calibration findings`. Repeatable.",
)
@click.option(
    "--no-pictures", "hidden", callback=names, metavar="A,B", help="Show no page of these tasks."
)
@click.option("--force", is_flag=True, help="Replace an existing folder.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def report(results: Path, target: Path, recipes: Path | None, debug: bool, **options: Any) -> None:
    """Say what the kits' answers are worth, and what differs from the reference."""
    from .report import RECIPES, failed
    from .report import report as run

    figures = run(results, target, recipes=recipes or RECIPES, **options)
    for name, text in figures["verdicts"].items():
        say(f"{name}: {text}")
    click.echo(target)
    for gate in failed(figures):
        say(f"not passed: {gate}")
    click.get_current_context().exit(1 if failed(figures) else 0)


@cli.command()
@click.option("--bench", type=PATH, required=True, help="ECGBench: parquet folders, or TASK.json.")
@click.option(
    "--predictions", type=PATH, required=True, help="The run's folder, with TASK/step-final.jsonl."
)
@click.option(
    "--scorer",
    type=click.Choice(["corrected", "published"]),
    default="corrected",
    show_default=True,
)
@click.option(
    "--split",
    "split_file",
    type=PATH,
    help="Score only the test ids of this recorded split (corrected).",
)
@click.option("-o", "--output", "target", type=PATH, required=True, help="The file to write.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def score(
    bench: Path, predictions: Path, scorer: str, split_file: Path | None, target: Path, debug: bool
) -> None:
    """Score the answers of a run."""
    from .ecgbench import load_split, open_bench
    from .files import write_json
    from .score import score as run

    if split_file and scorer == "published":
        raise click.UsageError("the published scorer knows no split; leave --split out")
    scores = run(
        open_bench(bench), predictions, scorer, load_split(split_file) if split_file else None
    )
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


def main() -> None:
    """Errors become one line and an exit code."""
    from pulse_edge.cli.main import run

    run(cli)


if __name__ == "__main__":
    main()
