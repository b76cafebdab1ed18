"""`pulse-edge doctor`: is this machine fit for a kit?"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from pulse_edge.cli import options
from pulse_edge.cli.console import Console, say
from pulse_edge.common.text import json_text


@click.command()
@options.kit
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON with every check.")
@options.memory
def doctor(kit: Path | None, as_json: bool, memory: int | None) -> None:
    """Check this machine, and test a kit on it.

    It checks processor, memory, devices and the kit, runs the kit's self-test, and measures this
    machine's speed. A kit whose golden cases fail here is refused until they pass, or until
    --force-kit. Takes as long as one page with a few short answers. The exit code is 1 when a check
    fails.
    """
    from pulse_edge.diagnostics import doctor as checks

    console, done = Console(), []
    with console.progress() as progress:
        for check in checks.examine(kit, limit=memory, progress=progress):
            done.append(check)
            if not as_json:
                say(f"{check.state:<8}{check.name:<14}{check.text}\n")
    failed = [check.name for check in done if check.state == "failed"]
    if as_json:
        figures = {"fit": not failed, "checks": [dataclasses.asdict(check) for check in done]}
        say(json_text(figures, allow_nan=False) + "\n")
    raise SystemExit(1 if failed else 0)
