"""`python -m export convert SOURCE -o KIT`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from pulse_edge.errors import PulseEdgeError


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
    from .convert import convert as run

    def say(text: str) -> None:
        click.echo(text, err=True)

    path, spec = resolve(source, say)
    run(path, target, Options(**options), say, spec)
    click.echo(target)


def main() -> None:
    """Errors become one line and an exit code."""
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as e:
        e.show()
        code = e.exit_code
    except (KeyboardInterrupt, click.Abort):
        print("interrupted", file=sys.stderr)
        code = 130
    except PulseEdgeError as e:
        if "--debug" in sys.argv:
            raise
        print(f"error: {e}", file=sys.stderr)
        code = e.exit_code
    raise SystemExit(code)


if __name__ == "__main__":
    main()
