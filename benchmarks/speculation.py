"""Measure speculative decoding: steps saved on a small kit's answers, and the cost of a step at a
large kit's shapes.

    python benchmarks/speculation.py KIT BENCH [--answers N] [--tasks A,B] [--costs BIGKIT] [--depth N] [--threads N]

KIT answers in words and has a draft table (`calibration draft-table`); BENCH has pages that its
table was not made of. Every question is answered with steps of one token, with steps of four
without draft tokens, and with draft tokens. The last two must be equal token for token, else the
command fails; the first may differ where two tokens are as good as equally likely, and is counted.
BIGKIT (default: KIT) reads random embeddings, and is only timed. The speed-up is tokens a step by
cost of a step, against single tokens.
"""

from __future__ import annotations

import statistics
import sys
import time
from contextlib import closing
from pathlib import Path

import click
import numpy as np

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT)]

from calibration import ecgbench
from pulse_edge import PulseModel
from pulse_edge.inference import decoding, language_model
from pulse_edge.kit.kit import open_kit

PATH = click.Path(path_type=Path)
WIDTHS = (1, 2, decoding.STEP_WIDTH, 2 * decoding.STEP_WIDTH)


def answers(
    model: PulseModel, samples: list[ecgbench.Sample]
) -> dict[str, list[tuple[list[int], int, float]]]:
    """For each way of decoding: tokens, steps and seconds of every sample's first turn."""
    language, drafter = model.language, model.drafter
    by_way: dict[str, list[tuple[list[int], int, float]]] = {
        "single": [],
        "steps": [],
        "drafts": [],
    }
    for sample in samples:
        encoded = model.encode(sample.picture or b"", admit=False)
        for way, turns in by_way.items():
            language.step_width = 1 if way == "single" else decoding.STEP_WIDTH
            model.drafter = drafter if way == "drafts" else None
            before = language.steps
            answering = model.ask(encoded, sample.turns[0][0])
            answering.answer()
            turns.append((answering.ids, language.steps - before, answering.seconds["answer"]))
    return by_way


def costs(kit: Path, depth: int, threads: int, runs: int = 7) -> dict[int, float]:
    """Seconds of a step of each width behind `depth` random embeddings: the smallest of several,
    which the machine can reach.
    """
    m = open_kit(kit).manifest
    with closing(
        language_model.LanguageModel(
            kit / m.language.file,
            language_model.Settings(context=m.language.context_length, threads=threads),
        )
    ) as model:
        rows = (
            np.random.default_rng(0)
            .standard_normal((depth, model.embedding_length))
            .astype(np.float32)
        )
        model.feed_embeddings(rows * 0.02)
        seconds: dict[int, list[float]] = {width: [] for width in WIDTHS}
        for _ in range(runs):
            for width, took in seconds.items():
                start = time.perf_counter()
                model.feed_tokens([5] * width, every=True)
                took.append(time.perf_counter() - start)
                model.rewind(width)
    return {width: statistics.median(took) for width, took in seconds.items()}


@click.command()
@click.argument("kit", type=PATH)
@click.argument("bench", type=PATH)
@click.option(
    "--answers",
    "count",
    type=int,
    default=100,
    show_default=True,
    help="Questions, of each task as many.",
)
@click.option("--tasks", default="ptb-test-report", show_default=True, help="Separated by commas.")
@click.option("--costs", "large", type=PATH, help="The kit that is timed. Default: KIT.")
@click.option(
    "--depth", type=int, default=512, show_default=True, help="Rows behind which a step is timed."
)
@click.option("--threads", type=int, default=2, show_default=True)
def main(
    kit: Path, bench: Path, count: int, tasks: str, large: Path | None, depth: int, threads: int
) -> None:
    """Measure."""
    opened, names = ecgbench.open_bench(bench), tasks.split(",")
    samples = [
        s for task in names for s in list(opened.samples(task, click.echo))[: count // len(names)]
    ]
    with PulseModel.load(kit, device="cpu", threads=threads) as model:
        by_way = answers(model, samples)
    ids = {way: [one[0] for one in turns] for way, turns in by_way.items()}
    click.echo(
        f"| {len(samples)} answers of {kit.name} | tokens | steps | tokens a step | tokens/s |\n|---|---|---|---|---|"
    )
    for way, turns in by_way.items():
        tokens, steps, seconds = (
            sum(column) for column in zip(*((len(i), n, s) for i, n, s in turns), strict=True)
        )
        click.echo(
            f"| {way} | {tokens} | {steps} | {tokens / steps:.2f} | {tokens / seconds:.1f} |"
        )
    gain = sum(map(len, ids["drafts"])) / sum(one[1] for one in by_way["drafts"])
    other = sum(a != b for a, b in zip(ids["single"], ids["steps"], strict=True))
    click.echo(f"\n{other} answers differ between single tokens and steps of {decoding.STEP_WIDTH}")
    timed = costs(large or kit, depth, threads)
    for width, took in timed.items():
        click.echo(
            f"a step of {width}: {took * 1e3:.2f} ms, {took / timed[1]:.2f} x a single token"
        )
    click.echo(
        f"speed-up against single tokens: {gain / (timed[decoding.STEP_WIDTH] / timed[1]):.2f} x"
    )
    if ids["steps"] != ids["drafts"]:
        raise SystemExit("draft tokens changed an answer")


if __name__ == "__main__":
    main()
