"""Measure what the miniature's accuracy report leaves open: agreement of torch and kit,
photographs, and pictures without an ECG.

    python benchmarks/miniature.py agree CHECKPOINT KIT [--pages N]      greedy answers of torch float32 and of the kit
    python benchmarks/miniature.py photographs KIT LABELS                real photographs of printed recordings with labels
    python benchmarks/miniature.py odd KIT [FILE...]                     blank grid, noise, grey, and any other pictures

Accuracy itself: `python -m calibration synthesize`, `evaluate` and `report`.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT)]
SEED = 900_002
QUESTIONS = 2


@click.group()
def cli() -> None:
    """Measure."""


class Original:
    """The checkpoint in torch, by transformers' classes, float32."""

    def __init__(self, path: Path) -> None:
        import sentencepiece
        from transformers import LlamaForCausalLM

        from export.checkpoint import Checkpoint
        from export.config import read_config
        from export.vision import Encoder

        config = read_config(path / "config.json", tower_dir=None)
        checkpoint = Checkpoint(path, config, tower_dir=None)
        self.encoder = Encoder(checkpoint).eval()
        self.llama = LlamaForCausalLM(config.text).eval()
        names = [
            n
            for n in checkpoint.names()
            if n.startswith(("model.layers", "model.embed", "model.norm", "lm_head"))
        ]
        self.llama.load_state_dict({n: checkpoint.tensor(n).float() for n in names}, strict=True)
        self.pieces = sentencepiece.SentencePieceProcessor(model_file=str(path / "tokenizer.model"))

    @torch.inference_mode()
    def answer(self, pixels: Any, before: str, after: str, limit: int) -> str:
        """The greedy answer."""
        rows = self.encoder(torch.from_numpy(pixels)).flatten(0, 1)
        embed = self.llama.get_input_embeddings()
        start = embed(torch.tensor([1, *self.pieces.encode(before)]))
        end = embed(torch.tensor(self.pieces.encode(after)))
        inputs = torch.cat([start, rows, end])[None]
        result = self.llama.generate(
            inputs_embeds=inputs,
            attention_mask=torch.ones(inputs.shape[:2], dtype=torch.long),
            do_sample=False,
            max_new_tokens=limit,
            eos_token_id=2,
            pad_token_id=0,
        )
        return str(self.pieces.decode([t for t in result[0].tolist() if t != 2])).strip()


@cli.command()
@click.argument("checkpoint", type=click.Path(exists=True, path_type=Path))
@click.argument("kit", type=click.Path(exists=True, path_type=Path))
@click.option("--pages", type=int, default=200, show_default=True)
def agree(checkpoint: Path, kit: Path, pages: int) -> None:
    """Share of pages on which torch and kit give the same answer, and the first difference."""
    from calibration.synthetic import page_at
    from calibration.synthetic.questions import questions
    from pulse_edge import PulseModel
    from pulse_edge.inference import tiling
    from pulse_edge.kit import prompt

    original, same, requests = Original(checkpoint), 0, 0
    with PulseModel.load(kit, device="cpu") as model:
        m = model.kit.manifest
        for i in range(pages):
            page = page_at(SEED, i)
            picture = Image.fromarray(page.image)
            pixels = tiling.cut(
                picture,
                size=m.vision.image_size,
                aspect_ratio=m.packing.aspect_ratio,
                pinpoints=m.packing.grid_pinpoints,
                mean=m.vision.mean,
                std=m.vision.std,
            )
            scan = model.encode(picture, admit=False)
            for question in questions(
                page.recording, np.random.default_rng(i), ("cpsc-test", "ptb-test-report")
            ):
                text = question.turns[0][0]
                ours = "".join(model.ask(scan, text, 160))
                theirs = original.answer(
                    pixels, m.prompt.before, prompt.fill(m.prompt.after, text), 160
                )
                requests, same = requests + 1, same + (ours == theirs)
                if ours != theirs:
                    click.echo(f"page {i}: torch {theirs!r}, kit {ours!r}", err=True)
    click.echo(
        f"{same} of {requests} greedy answers are the same ({same / requests:.2%}), {pages} pages"
    )


@cli.command()
@click.argument("kit", type=click.Path(exists=True, path_type=Path))
@click.argument("labels", type=click.Path(exists=True, path_type=Path))
def photographs(kit: Path, labels: Path) -> None:
    """Superclasses of photographs, and of synthetic pages of the same signals.

    LABELS is a CSV with `superclass` of the recording `file` and its photograph `paired_images`,
    both next to the CSV's folder.
    """
    from calibration.ecgbench import labels_in
    from calibration.synthetic import PTBXL, PageStyle, draw, synthesize
    from calibration.synthetic.questions import questions
    from calibration.synthetic.real import read_wfdb
    from pulse_edge import PulseModel

    root = labels.parent.parent
    rows = [
        r
        for r in csv.DictReader(labels.open(encoding="utf-8"))
        if r["paired_images"] and r["superclass"]
    ]
    right = {"photographed": [0, 0], "drawn": [0, 0]}
    click.echo("| record | is | photographed | drawn |\n|---|---|---|---|")
    with PulseModel.load(kit, device="cpu") as model:
        requests = questions(synthesize(0), np.random.default_rng(0), ("ptb-test",))[0].turns[0][0]
        for row in rows:
            truth = labels_in(row["superclass"], PTBXL)
            pages: dict[str, Any] = {
                "photographed": root / row["paired_images"],
                "drawn": Image.fromarray(draw(read_wfdb(root / row["file"]), PageStyle()).image),
            }
            words = {}
            for how, page in pages.items():
                words[how] = labels_in(
                    "".join(model.ask(model.encode(page, force=True), requests)), PTBXL
                )
                right[how][0] += sum((name in truth) == (name in words[how]) for name in PTBXL)
                right[how][1] += words[how] == truth
            click.echo(
                f"| {row['record']} | {' | '.join(', '.join(x) for x in (truth, *words.values()))} |"
            )
    for how, (each, whole) in right.items():
        click.echo(
            f"{how}: {each} of {5 * len(rows)} labels right, {whole} of {len(rows)} pages wholly"
        )


@cli.command()
@click.argument("kit", type=click.Path(exists=True, path_type=Path))
@click.argument("files", nargs=-1, type=click.Path(exists=True, path_type=Path))
def odd(kit: Path, files: tuple[Path, ...]) -> None:
    """Answers about pictures that show no ECG."""
    from calibration.synthetic import PageStyle, draw, synthesize
    from pulse_edge import PulseModel
    from pulse_edge.errors import PulseEdgeError

    rng = np.random.default_rng(0)
    record = synthesize(1, ())
    flat = type(record)(**{**vars(record), "signal": np.zeros_like(record.signal)})
    paper = PageStyle(pulse="none", join="none", ink=(250, 205, 205), text=(255, 255, 255))
    pages: dict[str, Any] = {
        "an empty grid": Image.fromarray(draw(flat, paper).image),
        "flat lines": Image.fromarray(draw(flat, PageStyle()).image),
        "noise": Image.fromarray(rng.integers(0, 256, (800, 1250, 3), dtype=np.uint8)),
        "grey": Image.new("RGB", (1250, 800), (128, 128, 128)),
    } | {p.name: p for p in files}
    with PulseModel.load(kit, device="cpu") as model:
        click.echo("| page | it says |\n|---|---|")
        for name, page in pages.items():
            try:
                click.echo(
                    f"| {name} | {''.join(model.ask(model.encode(page, admit=False), _REPORT))} |"
                )
            except PulseEdgeError as e:
                click.echo(f"| {name} | refused: {e} |")


_REPORT = "Please write a clinical report based on this ECG image."

if __name__ == "__main__":
    cli()
