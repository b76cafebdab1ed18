"""`pulse-edge bench`: how fast a kit is on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from pulse_edge.cli.options import ReadyCommand
from pulse_edge.common import paths


@click.command(cls=ReadyCommand)
@click.argument("kit", required=False, type=click.Path(path_type=Path))
@click.option(
    "--page",
    type=click.Path(path_type=Path),
    help="Page to read. Default: the one that the package carries.",
)
@click.option(
    "--runs",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="The table shows their medians.",
)
@click.option(
    "--max-tokens", type=click.IntRange(1), default=64, show_default=True, help="Longest answer."
)
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True
)
@click.option(
    "--threads",
    type=click.IntRange(1, 512),
    help="Default: the processors that this process may use.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def bench(
    kit: Path | None,
    page: Path | None,
    runs: int,
    max_tokens: int,
    device: str,
    threads: int | None,
    as_json: bool,
    debug: bool,
) -> None:
    """Measure each stage with KIT: seconds (medians over runs) and peak memory. Answers go nowhere."""
    from pulse_edge.cli.console import Screen, say
    from pulse_edge.common.text import json_text
    from pulse_edge.diagnostics import benchmark as benches
    from pulse_edge.inference.model import PulseModel
    from pulse_edge.page import reader

    read = reader.read(page or paths.EXAMPLE_PAGE)
    screen = Screen()
    with (
        screen.progress() as progress,
        PulseModel.load(kit, device=device, threads=threads, progress=progress) as model,
    ):
        screen.loaded(model)
        told = benches.measure(model, read, runs=runs, tokens=max_tokens)
    say(json_text(told) + "\n" if as_json else benches.table(told))
