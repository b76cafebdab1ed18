"""`pulse-edge`: the group of commands. Each command is a module of this package."""

from __future__ import annotations

import click

from pulse_edge.cli import (
    ask,
    audit,
    batch,
    benchmark,
    bundle,
    cache,
    check,
    doctor,
    interpret,
    kit,
    measure,
    serve,
)
from pulse_edge.cli.run import Program, run


@click.group(cls=Program)
@click.version_option(package_name="pulse-edge", prog_name="pulse-edge")
def cli() -> None:
    """Read 12-lead ECG pages with a PULSE kit, offline.

    Decision support for clinicians, never a diagnosis.
    """


for _command in (
    interpret.interpret,
    ask.ask,
    batch.batch,
    benchmark.bench,
    bundle.bundle,
    cache.cache,
    check.check,
    doctor.doctor,
    kit.kit,
    measure.measure,
    audit.audit,
    serve.serve,
):
    cli.add_command(_command)


def main() -> None:
    """Entry point."""
    run(cli)


if __name__ == "__main__":
    main()
