"""How well pages are traced and measured: the tables of `calibration measurements`, printed.

    python benchmarks/measurement.py DATA [--sets synthetic,photos] [--pages 40] [--seed 0]
    python benchmarks/measurement.py DATA --held-out     # recordings that nothing was developed on
    python benchmarks/measurement.py DATA --oracle       # neurokit2 on the marked recordings

DATA is a folder as docs/evaluation.md describes it. Each set runs in a process of its own; seconds
are those from the file's bytes to the measurements, memory the highest resident set above that of
the program. The held-out recordings have no marks, so that their truth is the printed signal.
`--oracle` needs neurokit2, which the project itself never uses.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from calibration.measurements.run import check, collect, measured_set
from calibration.measurements.sets import DEVELOPMENT, HELD_OUT, Plan
from calibration.measurements.tables import tables
from calibration.report.tables import markdown_tables

PATH = click.Path(exists=True, file_okay=False, path_type=Path)
HELD_OUT_SETS = ("synthetic", "distorted", "scans")


@click.command(help=__doc__.partition("\n")[0])
@click.argument("data", type=PATH)
@click.option("--sets", help="Sets to measure.  [default: all; with --held-out those of pages]")
@click.option("--pages", type=click.IntRange(1), help="Largest number of pages of a set.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--held-out", is_flag=True, help="Take recordings that nothing was developed on.")
@click.option("--oracle", is_flag=True, help="Measure the marked recordings by neurokit2 instead.")
@click.option("--reasons", is_flag=True, help="Print why values are missing, and wrong leads.")
def main(
    data: Path,
    sets: str | None,
    pages: int | None,
    seed: int,
    held_out: bool,
    oracle: bool,
    reasons: bool,
) -> None:
    names = HELD_OUT_SETS if held_out else Plan(data).sets
    chosen = tuple(sets.split(",")) if sets else names
    plan = Plan(data, chosen, pages, seed, HELD_OUT if held_out else DEVELOPMENT)
    check(plan)
    if oracle:
        import measurement_oracle

        results = measurement_oracle.results(plan, lambda text: click.echo(text, err=True))
        every = measurement_oracle.tables(results)
    else:
        figures = collect(plan, {name: measured_set(plan, name)[0] for name in chosen})
        every = [table for table in tables(figures) if reasons or not table.folded]
        for one in figures.sets:
            for page in one.worst:
                click.echo(f"worst of {one.name}: {page.name}: {page.why}", err=True)
    click.echo("\n".join(markdown_tables(every)))


if __name__ == "__main__":
    main()
