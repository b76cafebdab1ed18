"""`pulse-edge doctor`: is this machine fit for a kit? Registered by cli.py."""

from __future__ import annotations

from pathlib import Path

import click

from pulse_edge.cli.options import memory_limit
from pulse_edge.common.text import json_text


@click.command()
@click.option(
    "--kit",
    type=click.Path(path_type=Path),
    help="Kit directory. Default: $PULSE_EDGE_KIT, or the installed.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="One object with every check and its figures."
)
@memory_limit
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def doctor(kit: Path | None, as_json: bool, limit: int | None, debug: bool) -> None:
    """Check processor, memory, devices and a kit; let it answer its golden cases; keep this machine's speed.

    A kit that does not give its golden answers here is refused until it passes, or is forced. Takes as long as one
    page with a few short answers. Exit code 1 when a check fails.
    """
    import dataclasses

    from pulse_edge.cli.console import Screen, say
    from pulse_edge.diagnostics import doctor as doctors

    screen, checks = Screen(), []
    with screen.progress() as progress:
        for check in doctors.examine(kit, limit=limit, progress=progress):
            checks.append(check)
            if not as_json:
                say(f"{check.state:<8}{check.name:<14}{check.text}\n")
    failed = [check.name for check in checks if check.state == "failed"]
    if as_json:
        told = {"fit": not failed, "checks": [dataclasses.asdict(check) for check in checks]}
        say(json_text(told, allow_nan=False) + "\n")
    raise SystemExit(1 if failed else 0)
