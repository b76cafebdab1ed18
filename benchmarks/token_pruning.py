"""Measure token pruning: time of prefill, and its effect on the answers.

    python benchmarks/token_pruning.py KIT BENCH [--pages N] [--tasks A,B] [--image-tokens no-padding,600,400] [--threads N]

Every question is answered with all image tokens and with each choice of `--image-tokens`, on the
same page one after the other. KLD is that of each token of the right answer, from all image tokens
to the choice. Loss is that of the same tokens, in nats; it is lower where an answer comes nearer to
the right one. A flip is a greedy answer with another text. Seconds are those of prefill alone; on a
machine with other work only their ratio counts. Ctrl-C ends early, with the results so far.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT)]

from calibration import answering, ecgbench
from pulse_edge import PulseModel
from pulse_edge.inference import token_pruning
from pulse_edge.inference.cache import ImageTokenCache
from pulse_edge.inference.page_encoder import EncodedPage

PATH = click.Path(path_type=Path)
LONGEST = 100
"""Tokens of a greedy answer."""


def read(model: PulseModel, encoded: EncodedPage) -> float:
    """Seconds that the language model takes for the page's image tokens."""
    model.language.clear()
    start = time.perf_counter()
    before = model.kit.manifest.prompt.before
    model.language.prefill(
        encoded.image_tokens_sha256, before, encoded.image_tokens, positions=encoded.positions
    )
    return time.perf_counter() - start


@dataclass(frozen=True)
class Found:
    """One question with one choice of image tokens."""

    rows: int
    gaps: int
    seconds: float
    text: str
    ahead: npt.NDArray[np.float64]
    """(n, vocabulary) log probabilities along the right answer."""
    right: list[int]
    """(n,) its tokens."""


def measure(
    model: PulseModel, sample: ecgbench.Sample, choices: Sequence[str], cache: ImageTokenCache
) -> list[Found]:
    """Ask the same question with each choice."""
    question, right = sample.turns[0]
    ids = [*model.language.tokenize(right, first=False), model.language.end]
    matches = []
    for choice in choices:
        encoded = model.encode(sample.picture or b"", admit=False, image_tokens=choice, cache=cache)
        gaps = (
            0
            if encoded.positions is None
            else int((np.diff(encoded.positions, prepend=-1) > 1).sum())
        )
        seconds = read(model, encoded)
        (logits,) = model.score(encoded, question, [ids])
        text = model.ask(encoded, question, LONGEST).answer().text
        matches.append(
            Found(
                len(encoded.image_tokens), gaps, seconds, text, answering.log_softmax(logits), ids
            )
        )
    return matches


@click.command()
@click.argument("kit", type=PATH)
@click.argument("bench", type=PATH)
@click.option("--pages", type=int, default=100, show_default=True, help="Of each task as many.")
@click.option(
    "--tasks", default="cpsc-test,ptb-test-report", show_default=True, help="Separated by commas."
)
@click.option(
    "--image-tokens",
    default="no-padding,600,400,200,160,400:similarity,200:similarity,160:similarity",
    show_default=True,
    help="Separated by commas.",
)
@click.option(
    "--shortest",
    type=int,
    default=token_pruning.SHORTEST_RUN,
    show_default=True,
    help="Run that is worth leaving out.",
)
@click.option("--threads", type=int, default=2, show_default=True)
def main(
    kit: Path, bench: Path, pages: int, tasks: str, image_tokens: str, shortest: int, threads: int
) -> None:
    """Measure."""
    token_pruning.SHORTEST_RUN = shortest
    choices = [token_pruning.ALL, *map(token_pruning.parse, image_tokens.split(","))]
    opened, names = ecgbench.open_bench(bench), tasks.split(",")
    some = [islice(opened.samples(task, click.echo), pages // len(names)) for task in names]
    matches: list[list[Found]] = []
    with (
        PulseModel.load(kit, device="cpu", threads=threads) as model,
        TemporaryDirectory() as folder,
    ):
        cache = ImageTokenCache(Path(folder))
        with contextlib.suppress(KeyboardInterrupt):
            for sample in chain.from_iterable(zip(*some, strict=True)):
                matches.append(measure(model, sample, choices, cache))
    click.echo(f"{len(matches)} pages, a question each, {kit.name}\n")
    click.echo(
        "| rows | read | gaps | prefill, ratio | mean KLD | same top token | loss | flips |\n|---|---|---|---|---|---|---|---|"
    )
    for n, choice in enumerate(choices):
        ones = [(each[0], each[n]) for each in matches]
        klds = np.concatenate([(np.exp(a.ahead) * (a.ahead - b.ahead)).sum(1) for a, b in ones])
        same = np.concatenate([a.ahead.argmax(1) == b.ahead.argmax(1) for a, b in ones])
        loss = -np.concatenate([b.ahead[np.arange(len(b.right)), b.right] for _, b in ones]).mean()
        ratio = statistics.median(b.seconds / a.seconds for a, b in ones)
        flips = sum(a.text != b.text for a, b in ones)
        read_, gaps = (
            statistics.mean(getattr(b, name) for _, b in ones) for name in ("rows", "gaps")
        )
        click.echo(
            f"| {choice} | {read_:.0f} | {gaps:.0f} | {ratio:.2f} | {klds.mean():.2g} | {same.mean():.3f} "
            f"| {loss:.4f} | {flips / len(ones):.0%} |"
        )


if __name__ == "__main__":
    main()
