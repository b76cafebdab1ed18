"""Make the tables of docs/proof.md: faults that the proof notices, and figures of right kits.

    python benchmarks/proof.py mutations WORK                  every mutation of tests/support/mutations.py, and what refused it
    python benchmarks/proof.py right WORK CHECKPOINT...        figures of right conversions, expected and measured

Both print Markdown. A mutation that no gate notices is named, and ends the program with code 1.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]


@click.group()
def cli() -> None:
    """Tables of docs/proof.md."""


@cli.command()
@click.argument("work", type=click.Path(path_type=Path))
def mutations(work: Path) -> None:
    """Put every fault into the converter, the runtime and the quantizer, and print the gate that
    notices it.
    """
    import mutations as faults
    import pytest
    from mutation_table import MUTATIONS
    from quantizer_mutations import QUANTIZER

    from export import convert, quantize
    from pulse_edge.errors import ParityError

    right = {}
    for layout in faults.LAYOUTS:
        path, options = faults.source(work, layout)
        convert.convert(path, work / f"{layout}-kit", options)
        right[layout] = path, work / f"{layout}-kit", options
    missed = 0

    def row(layout: str, name: str, what: str) -> None:
        click.echo(f"| {layout} | {name} | {what.split(' No kit was written')[0][:160]} |")

    click.echo("| checkpoint | fault | what notices it |\n|---|---|---|")
    for fault in (*MUTATIONS, *QUANTIZER):
        try:
            with pytest.MonkeyPatch.context() as patch:
                if isinstance(fault, faults.Mutation):
                    path, kit, options = right[fault.layout]
                    faults.mutated(fault, path, kit, options, work / "kit", patch)
                else:
                    fault.apply(patch)
                    smaller = quantize.Options(llm="Q8_0", vision="w8", threads=1)
                    quantize.quantize(right["unpad"][1], work / "kit", smaller)
            missed += 1
            output = "NOTHING"
        except ParityError as e:
            output = str(e).replace("|", "\\|")
        row(getattr(fault, "layout", "quantizer"), fault.name, output)
    sys.exit(1 if missed else 0)


@cli.command()
@click.argument("work", type=click.Path(path_type=Path))
@click.argument("checkpoints", type=click.Path(path_type=Path), nargs=-1, required=True)
def right(work: Path, checkpoints: tuple[Path, ...]) -> None:
    """Convert right checkpoints, and print each figure with its expected value."""
    from export.convert import Options, convert

    gates = (
        ("vision", "token_error", "token"),
        ("language", "mean_kld", "kld"),
        ("language", "logit_error", "logit"),
    )
    click.echo(
        "| checkpoint | type | image token: error, expected | mean KLD, expected | logit: error, expected |"
    )
    click.echo("|---|---|---|---|---|")
    for path in checkpoints:
        for language, vision in (("f16", "fp16"), ("bf16", "fp16"), ("f32", "fp32")):
            kit = work / f"{path.name}-{language}"
            convert(path, kit, Options(language=language, vision=vision, demonstration=True))
            figures = json.loads((kit / "manifest.json").read_text())["parity"]
            cells = [
                f"{figures[part][name]:.2g}, {figures[part][f'{gate}_expected']:.2g}"
                for part, name, gate in gates
            ]
            click.echo(f"| {path.name} | {language} | {' | '.join(cells)} |")


if __name__ == "__main__":
    cli()
