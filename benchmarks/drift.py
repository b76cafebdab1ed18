"""Simulate how often a month alarms, with and without drift: the table of docs/overread.md.

    python benchmarks/drift.py [--months 4000] [--seed 1]

Each simulated kit has REFERENCE_REPORTS reports, then one month. Readers change each report with
the same probability, in the month with another one. Takes some seconds.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).parent.parent))

from pulse_edge.audit_log.drift import REFERENCE_REPORTS, check_drift

CASES = (
    (0.05, 0.05, 40),
    (0.10, 0.10, 40),
    (0.10, 0.10, 100),
    (0.20, 0.20, 40),
    (0.05, 0.20, 40),
    (0.10, 0.20, 100),
    (0.10, 0.25, 100),
    (0.10, 0.30, 40),
)
"""Share that readers change at first and in the month, and reports of the month."""


def alarms(before: float, later: float, reports: int, months: int, seed: int) -> float:
    """Return the share of simulated months that alarm."""
    numbers = random.Random(seed)
    names = ["2026-01"] * REFERENCE_REPORTS + ["2026-02"] * reports
    chances = [before] * REFERENCE_REPORTS + [later] * reports
    count = 0
    for _ in range(months):
        same = [numbers.random() >= chance for chance in chances]
        count += bool(check_drift(names, same, {}).alarms)
    return count / months


@click.command()
@click.option("--months", default=4000, show_default=True, type=click.IntRange(1))
@click.option("--seed", default=1, show_default=True)
def main(months: int, seed: int) -> None:
    """Print a row for each case."""
    click.echo("at first  in the month  reports  months that alarm")
    for before, later, reports in CASES:
        share = alarms(before, later, reports, months, seed)
        click.echo(f"{before:8.0%}  {later:12.0%}  {reports:7}  {share:.1%}")


if __name__ == "__main__":
    main()
