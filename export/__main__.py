"""The commands of `python -m export`, which make kits from checkpoints on a workstation."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from export.progress import display, say
from pulse_edge.cli.run import Program, run

PATH = click.Path(path_type=Path)


@click.group(cls=Program)
def cli() -> None:
    """Make kits from PULSE checkpoints."""


@cli.command()
@click.argument("source")
@click.option("-o", "--output", "target", type=PATH, required=True, help="Folder of the new kit.")
@click.option(
    "--llm",
    "language",
    type=click.Choice(["f16", "bf16", "f32"]),
    default="f16",
    show_default=True,
    help="Type of the language model's weights.",
)
@click.option(
    "--vision",
    type=click.Choice(["fp32", "fp16"]),
    default="fp16",
    show_default=True,
    help="Type of the vision encoder's weights.",
)
@click.option(
    "--lora",
    type=PATH,
    show_default="no adapter",
    help="Folder of a LLaVA LoRA adapter to merge into the weights.",
)
@click.option(
    "--vision-tower",
    type=PATH,
    show_default="the checkpoint's own",
    help="Folder of the CLIP vision tower, for a checkpoint that carries none.",
)
@click.option(
    "--merge",
    type=click.Choice(["flat", "spatial", "spatial_unpad"]),
    show_default="as config.json says",
    help="Packing of the image tokens, in place of the checkpoint's own.",
)
@click.option(
    "--golden",
    multiple=True,
    type=PATH,
    metavar="PAGE",
    show_default="none",
    help="Store this page and the kit's answers about it in the kit, for doctor. Repeatable.",
)
@click.option("--demonstration", is_flag=True, help="Mark every answer as not for patients.")
@click.option("--force", is_flag=True, help="Replace an existing kit.")
def convert(source: str, target: Path, **options: Any) -> None:
    """Convert SOURCE into a kit, and prove the kit against the original.

    SOURCE is a checkpoint's folder or a name in models.yaml.
    """
    from export.early import check_convert

    check_convert(source, target, options)
    _announce_imports()
    from export.convert import Options, resolve
    from export.convert import convert as make

    path, spec = resolve(source, say)
    with display() as (step, progress):
        make(path, target, Options(**options), step, spec, progress)
    click.echo(target)


@cli.command()
@click.argument("base", type=PATH)
@click.option("-o", "--output", "target", type=PATH, required=True, help="Folder of the new kit.")
@click.option(
    "--llm",
    metavar="TYPE",
    show_default="Q4_K_M",
    help="Type of the whole language model, one of llama.cpp's, such as Q5_K_M.",
)
@click.option(
    "--size",
    type=click.IntRange(1),
    metavar="BYTES",
    show_default="as --llm gives",
    help="Size of the whole kit; each matrix gets a type of its own.",
)
@click.option(
    "--bpw",
    type=click.FloatRange(1, 16),
    metavar="BITS",
    show_default="as --llm gives",
    help="Bits per weight of the language model; each matrix gets a type of its own.",
)
@click.option(
    "--vision",
    metavar="TYPE",
    show_default="as BASE has it",
    help="Type of the vision encoder: fp32, fp16, w8, int8 or int8-static.",
)
@click.option(
    "--key-cache-type",
    metavar="TYPE",
    show_default="f16",
    help="Type of the keys in the KV cache: f16, or q8_0, which takes a quarter less memory.",
)
@click.option(
    "--stats",
    type=PATH,
    metavar="FILE",
    show_default="none",
    help="Statistics of `calibration collect`, by which weights are rounded and types chosen.",
)
@click.option(
    "--sensitivity/--no-sensitivity",
    default=None,
    show_default="yes, up to 1.6 GB; a choice is required above",
    help="With --size or --bpw: weigh matrices by their measured effect on answers (a run each).",
)
@click.option(
    "--golden",
    multiple=True,
    type=PATH,
    metavar="PAGE",
    show_default="the example page",
    help="Store this page and the kit's answers about it in the kit, for doctor. Repeatable.",
)
@click.option(
    "--recipe",
    metavar="NAME",
    show_default="none",
    help="Use the settings and gates of this recipe in models.yaml.",
)
@click.option(
    "--threads",
    type=click.IntRange(1),
    show_default="the processors that this process may use",
    help="Threads to compute with.",
)
@click.option("--force", is_flag=True, help="Replace an existing kit.")
def quantize(base: Path, target: Path, recipe: str | None, **options: Any) -> None:
    """Make a smaller kit of BASE, an f16 kit, and prove it against BASE."""
    from export.early import check_quantize
    from export.models import find, load_recipes

    settings = find(recipe, load_recipes(), "recipe") if recipe else None
    check_quantize(base, target, options)
    _announce_imports()
    from export.quantize import Options
    from export.quantize import quantize as make

    with display(count=True) as (step, progress):
        make(base, target, Options(recipe=settings, **options), step, progress)
    click.echo(target)


@cli.command("train-miniature")
@click.option(
    "-o", "--output", "out", type=PATH, required=True, help="Folder of the checkpoint to train."
)
@click.option(
    "--minutes",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="Stop after so many minutes; --resume goes on later.",
)
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="Device to train on.",
)
@click.option("--resume", is_flag=True, help="Go on with the training in the folder.")
@click.option(
    "--start",
    type=PATH,
    show_default="none",
    help="Folder of a training whose weights a new plan begins with.",
)
@click.option(
    "--seed",
    type=int,
    default=1,
    show_default=True,
    help="Seed of weights and lessons; a resumed training keeps its own.",
)
@click.option(
    "--steps",
    multiple=True,
    metavar="STAGE=N",
    show_default="as planned",
    help="Steps of a stage (tower, language, real or words); 0 skips it. Repeatable.",
)
@click.option(
    "--signals",
    type=PATH,
    metavar="FILE",
    show_default="none; the stage real is skipped",
    help="Packed recordings (.npz) for the stage real.",
)
@click.option(
    "--processes",
    type=click.IntRange(1),
    show_default="all cores but two, and at least one",
    help="Processes that draw pages.",
)
def train_miniature(out: Path, **options: Any) -> None:
    """Train the miniature of PULSE, which stands in for its 14 GB.

    The result is a checkpoint that `convert` makes a kit of.
    """
    from export.early import check_train

    check_train(out, options)
    _announce_imports()
    from export.miniature.train import Options, start_or_resume

    start_or_resume(out, Options(**options), say)
    click.echo(out)


@cli.command("carry-miniature")
@click.argument("checkpoint", type=PATH)
@click.option(
    "-o",
    "--output",
    "target",
    type=PATH,
    show_default="the package's own demo kit",
    help="Folder of the kit to replace.",
)
def carry_miniature(checkpoint: Path, target: Path | None) -> None:
    """Make the demo kit that the package carries, from CHECKPOINT, a trained miniature."""
    from export.miniature.carry import TARGET, carry

    carry(checkpoint, target or TARGET, say)
    click.echo(target or TARGET)


def _announce_imports() -> None:
    """Say on a terminal why nothing happens for up to half a minute."""
    if sys.stderr.isatty():
        say("loading torch and transformers (up to half a minute)")


def main() -> None:
    """Run the command line."""
    run(cli)


if __name__ == "__main__":
    main()
