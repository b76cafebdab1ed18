"""Show the steps of a long command on standard error: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

import click

from pulse_edge.common.text import visible


def say(text: str) -> None:
    """Print a line on standard error; control characters become visible."""
    click.echo(visible(text), err=True)


@contextlib.contextmanager
def display(
    *, count: bool = False
) -> Iterator[tuple[Callable[[str], None], Callable[[int, int], None]]]:
    """Yield two functions: one takes the name of each step, the other its progress and total.

    `count`: progress is a number of things; otherwise it is bytes.
    """
    if not sys.stderr.isatty():
        yield say, lambda _done, _of: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    amount = MofNCompleteColumn() if count else DownloadColumn()
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        amount,
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True) as bar:

        def begin(text: str) -> None:
            console.print(visible(text), markup=False, highlight=False, soft_wrap=True)
            for task in bar.task_ids:
                bar.remove_task(task)
            bar.add_task(text, total=None)

        yield begin, lambda done, of: bar.update(bar.task_ids[-1], completed=done, total=of)
