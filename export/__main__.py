"""`python -m export convert SOURCE -o KIT`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from pulse_edge.cli import run


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Make kits from PULSE checkpoints."""


@cli.command()
@click.argument("source")
@click.option("-o", "--output", "target", type=click.Path(path_type=Path), required=True, help="The kit to make.")
@click.option("--llm", "language", type=click.Choice(["f16", "bf16", "f32"]), default="f16", show_default=True)
@click.option("--vision", type=click.Choice(["fp32", "fp16"]), default="fp16", show_default=True)
@click.option("--lora", type=click.Path(path_type=Path), help="A LLaVA LoRA folder to merge in.")
@click.option("--vision-tower", type=click.Path(path_type=Path), help="A CLIP folder, where the checkpoint has none.")
@click.option("--merge", type=click.Choice(["flat", "spatial", "spatial_unpad"]), help="Override the packing.")
@click.option("--demonstration", is_flag=True, help="Mark every answer as not for patients.")
@click.option("--force", is_flag=True, help="Replace an existing kit.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def convert(source: str, target: Path, debug: bool, **options: Any) -> None:
    """Convert SOURCE, a checkpoint directory or a name in models.yaml, into a kit, and prove it against the original."""
    from .convert import Options, resolve
    from .convert import convert as make

    path, spec = resolve(source, _say)
    with _screen() as (say, progress):
        make(path, target, Options(**options), say, spec, progress)
    click.echo(target)


@cli.command("train-miniature")
@click.option("-o", "--output", "out", type=click.Path(path_type=Path), required=True, help="The checkpoint to train.")
@click.option("--minutes", type=click.FloatRange(min=0), default=60.0, show_default=True, help="Stop after so many.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--resume", is_flag=True, help="Go on where the last sitting ended.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of weights and lessons; kept when resuming.")
@click.option("--steps", multiple=True, metavar="STAGE=N", help="Length of a stage: tower, language, real. Repeatable.")
@click.option("--signals", type=click.Path(path_type=Path), help="Packed recordings (.npz), for the stage real.")
@click.option("--processes", type=click.IntRange(1), help="That draw pages. Default: one, or all cores but two.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def train_miniature(out: Path, debug: bool, **options: Any) -> None:
    """Train the miniature of PULSE that stands in for its 14 GB: a checkpoint that `convert` makes a kit of."""
    from .miniature.train import sitting

    sitting(out, say=_say, **options)
    click.echo(out)


def _say(text: str) -> None:
    click.echo(text, err=True)


@contextlib.contextmanager
def _screen() -> Iterator[tuple[Callable[[str], None], Callable[[int, int], None]]]:
    """What takes the name of each step, and what takes its bytes: a bar on a terminal, lines elsewhere."""
    if not sys.stderr.isatty():
        yield _say, lambda _done, _of: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True) as bar:

        def say(text: str) -> None:
            console.print(text, markup=False, highlight=False, soft_wrap=True)
            for task in bar.task_ids:
                bar.remove_task(task)
            bar.add_task(text, total=None)

        yield say, lambda done, of: bar.update(bar.task_ids[-1], completed=done, total=of)


def main() -> None:
    """Entry point."""
    run(cli)


if __name__ == "__main__":
    main()
