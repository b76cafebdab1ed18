"""`python -m export convert SOURCE -o KIT`, `python -m export quantize F16KIT -o KIT`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from pulse_edge.cli.run import Program, run
from pulse_edge.common.text import visible

_GOLDEN = click.option(
    "--golden",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="PAGE",
    help="Keep it with the kit's answers, for doctor. Default of quantize: the example page.",
)


@click.group(cls=Program)
def cli() -> None:
    """Make kits from PULSE checkpoints."""


@cli.command()
@click.argument("source")
@click.option(
    "-o",
    "--output",
    "target",
    type=click.Path(path_type=Path),
    required=True,
    help="The kit to make.",
)
@click.option(
    "--llm", "language", type=click.Choice(["f16", "bf16", "f32"]), default="f16", show_default=True
)
@click.option("--vision", type=click.Choice(["fp32", "fp16"]), default="fp16", show_default=True)
@click.option("--lora", type=click.Path(path_type=Path), help="A LLaVA LoRA folder to merge in.")
@click.option(
    "--vision-tower",
    type=click.Path(path_type=Path),
    help="A CLIP folder, where the checkpoint has none.",
)
@click.option(
    "--merge", type=click.Choice(["flat", "spatial", "spatial_unpad"]), help="Override the packing."
)
@_GOLDEN
@click.option("--demonstration", is_flag=True, help="Mark every answer as not for patients.")
@click.option("--force", is_flag=True, help="Replace an existing kit.")
def convert(source: str, target: Path, **options: Any) -> None:
    """Convert SOURCE, a checkpoint directory or a name in models.yaml, into a kit, and prove it against the original."""
    from export.early import check_convert

    check_convert(source, target, options)
    _loading()
    from export.convert import Options, resolve
    from export.convert import convert as make

    path, spec = resolve(source, _say)
    with _screen() as (say, progress):
        make(path, target, Options(**options), say, spec, progress)
    click.echo(target)


@cli.command()
@click.argument("base", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    "target",
    type=click.Path(path_type=Path),
    required=True,
    help="The kit to make.",
)
@click.option("--llm", metavar="TYPE", help="A type of llama.cpp, such as Q5_K_M. Default: Q4_K_M.")
@click.option(
    "--size",
    type=click.IntRange(1),
    metavar="BYTES",
    help="Of the whole kit; chooses each matrix's type.",
)
@click.option(
    "--bpw", type=click.FloatRange(1, 16), help="Bits per weight; chooses each matrix's type."
)
@click.option(
    "--vision", metavar="TYPE", help="fp32, fp16, w8, int8 or int8-static. Default: as BASE has it."
)
@click.option(
    "--key-cache-type",
    metavar="TYPE",
    help="Type of the keys in the KV cache: f16, or q8_0, which takes a quarter less memory. "
    "Default: f16.",
)
@click.option("--stats", type=click.Path(path_type=Path), help="What `calibration collect` wrote.")
@click.option(
    "--sensitivity/--no-sensitivity",
    default=None,
    help="With --size or --bpw: weigh matrices by what they do to answers (a run for each). Default: yes; of models "
    "above 1.6 GB it has to be said.",
)
@_GOLDEN
@click.option("--recipe", metavar="NAME", help="Settings and gates of that name in models.yaml.")
@click.option(
    "--threads", type=click.IntRange(1), help="Default: the processors that this process may use."
)
@click.option("--force", is_flag=True, help="Replace an existing kit.")
def quantize(base: Path, target: Path, recipe: str | None, **options: Any) -> None:
    """Make a smaller kit of BASE, an f16 kit, and prove it against BASE."""
    from export.early import check_quantize
    from export.models import find, load_recipes

    found = find(recipe, load_recipes(), "recipe") if recipe else None
    check_quantize(base, target, options)
    _loading()
    from export.quantize import Options
    from export.quantize import quantize as make

    with _screen(count=True) as (say, progress):
        make(base, target, Options(recipe=found, **options), say, progress)
    click.echo(target)


@cli.command("train-miniature")
@click.option(
    "-o",
    "--output",
    "out",
    type=click.Path(path_type=Path),
    required=True,
    help="The checkpoint to train.",
)
@click.option(
    "--minutes",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="Stop after so many.",
)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--resume", is_flag=True, help="Go on where the last sitting ended.")
@click.option(
    "--start",
    type=click.Path(path_type=Path),
    help="A training whose weights a new plan begins with.",
)
@click.option(
    "--seed",
    type=int,
    default=1,
    show_default=True,
    help="Of weights and lessons; kept when resuming.",
)
@click.option(
    "--steps",
    multiple=True,
    metavar="STAGE=N",
    help="Length of a stage (0: none): tower, language, real, words.",
)
@click.option(
    "--signals",
    type=click.Path(path_type=Path),
    help="Packed recordings (.npz), for the stage real.",
)
@click.option(
    "--processes",
    type=click.IntRange(1),
    help="That draw pages. Default: one, or all cores but two.",
)
def train_miniature(out: Path, **options: Any) -> None:
    """Train the miniature of PULSE that stands in for its 14 GB: a checkpoint that `convert` makes a kit of."""
    from export.early import check_train

    check_train(out, options)
    _loading()
    from export.miniature.train import Options, start_or_resume

    start_or_resume(out, Options(**options), _say)
    click.echo(out)


@cli.command("carry-miniature")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", "target", type=click.Path(path_type=Path), help="Default: the package's own."
)
def carry_miniature(checkpoint: Path, target: Path | None) -> None:
    """Make the kit that the package carries of CHECKPOINT, a trained miniature."""
    from export.miniature.carry import TARGET, carry

    carry(checkpoint, target or TARGET, _say)
    click.echo(target or TARGET)


def _say(text: str) -> None:
    click.echo(visible(text), err=True)


def _loading() -> None:
    if sys.stderr.isatty():  # for those who wait
        _say("loading torch and transformers (up to half a minute)")


@contextlib.contextmanager
def _screen(
    count: bool = False,
) -> Iterator[tuple[Callable[[str], None], Callable[[int, int], None]]]:
    """What takes the name of each step, and what takes its bytes or count: a bar on a terminal, lines elsewhere."""
    if not sys.stderr.isatty():
        yield _say, lambda _done, _of: None
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

        def say(text: str) -> None:
            console.print(visible(text), markup=False, highlight=False, soft_wrap=True)
            for task in bar.task_ids:
                bar.remove_task(task)
            bar.add_task(text, total=None)

        yield say, lambda done, of: bar.update(bar.task_ids[-1], completed=done, total=of)


def main() -> None:
    """Entry point."""
    run(cli)


if __name__ == "__main__":
    main()
