"""`pulse-edge bench`: how fast a kit is on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from pulse_edge.cli.console import Console, say
from pulse_edge.cli.options import PATH, ReadyCommand, device, threads
from pulse_edge.common import paths
from pulse_edge.common.text import json_text


@click.command(cls=ReadyCommand)
@click.argument("kit", required=False, type=PATH)
@click.option(
    "--page", type=PATH, metavar="PAGE", show_default="the example page", help="Page to read."
)
@click.option(
    "--runs",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    metavar="N",
    help="Measured runs; the median is shown.",
)
@click.option(
    "--max-tokens",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    metavar="N",
    help="Longest answer, in tokens.",
)
@device
@threads
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON.")
def bench(
    kit: Path | None,
    page: Path | None,
    runs: int,
    max_tokens: int,
    device: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Measure how fast a kit is on this machine.

    It shows the seconds of each stage and the peak memory. Answers are discarded. Without KIT it
    measures the kit that answers when none is named.
    """
    from pulse_edge.diagnostics import benchmark
    from pulse_edge.inference.model import PulseModel
    from pulse_edge.page import reader

    example = reader.read(page or paths.EXAMPLE_PAGE)
    console = Console()
    with (
        console.progress() as progress,
        PulseModel.load(kit, device=device, threads=threads, progress=progress) as model,
    ):
        console.loaded(model)
        figures = benchmark.measure(model, example, runs=runs, tokens=max_tokens)
    say(json_text(figures) + "\n" if as_json else benchmark.table(figures))
