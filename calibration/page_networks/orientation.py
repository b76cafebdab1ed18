"""Train the small network that tells which way is up, or the one that recognises mirror images.

    python -m calibration.page_networks.orientation [--mirrored] [--pages N] [--steps N] [-o FILE]

The results are `pulse_edge/assets/orientation.onnx` and `mirrored.onnx`.

The network is local: at every 8th pixel of a page (`orientation.strokes`) it looks at a field of
about 35 mm, at lead names, calibration pulses, the order of QRS and T, and words, and gives log
odds; their sum says how upright the page is. It therefore learns from pieces of pages, thousands of
them from a few hundred pages, and does not learn where things stand on a synthetic page.

It is trained on pieces upright and upside down, then also on a side, which is easier: the sum of
the upright one must win (cross entropy). The network for mirror images is of the same kind, trained
on pieces as they are, mirrored and flipped.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from calibration.page_networks.training_pages import Pixels, degraded, recording_and_style
from calibration.synthetic import pages
from pulse_edge.page.orientation import strokes

Float = NDArray[np.float32]
SIDE = 256
"""Pixels of a piece's side: 85 mm."""
HELD_OUT = 60
"""Pages kept out of training, on which the result is measured."""
BATCH = 16


class Net(nn.Module):
    """Log odds (n, 1, H / 8, W / 8) of pieces (n, 1, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(1, 12, 5, 2, 2, bias=False),
            nn.BatchNorm2d(12),
            nn.ReLU(),
        ]
        for n, (a, b) in enumerate(pairwise((12, 20, 32, 40, 40))):
            step, wide = (2, 1) if n < 2 else (1, n - 1)
            layers += [
                nn.Conv2d(a, b, 3, step, wide, wide, bias=False),
                nn.BatchNorm2d(b),
                nn.ReLU(),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(40, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x) / 100  # type: ignore[no-any-return]


def page_strokes(seed: int) -> Pixels:
    """Strokes (H, W) of an upright, degraded page whose scale is taken to be up to 10 % off."""
    rng = np.random.default_rng(seed)
    recording, look = recording_and_style(rng)
    if rng.random() < 0.25:  # a grid as dark as the trace, as printers in black make it
        dark = int(rng.integers(30, 150))
        fine = int(rng.integers(dark, 240))
        look = dataclasses.replace(look, grid="lines", minor=(fine,) * 3, major=(dark,) * 3)
    size = {"px_per_mm": float(rng.uniform(2.8, 4.4)), "ink_px": float(rng.uniform(0.8, 2.0))}
    look = dataclasses.replace(
        look,
        **size,  # type: ignore[arg-type]
        label_mm=float(rng.uniform(2, 4.6)),
        text_mm=float(rng.uniform(1.8, 3.6)),
    )
    image = degraded(pages.draw(recording, look).image, rng)
    across, down = look.px_per_mm * rng.uniform(0.9, 1.1, 2)
    return np.round(255 * strokes(image, float(across), float(down))).astype(np.uint8)


def piece(page: Pixels, rng: np.random.Generator) -> Float:
    """A piece (SIDE, SIDE) of a page, distorted once more and partly covered.

    Covering parts forces the network to use every clue without the others.
    """
    height, width = page.shape
    for _ in range(6):
        y, x = (int(rng.integers(0, max(1, n - SIDE + 1))) for n in (height, width))
        part = page[y : y + SIDE, x : x + SIDE].astype(np.float32) / 255
        if part.mean() > 0.01:
            break
    part = np.pad(part, ((0, SIDE - part.shape[0]), (0, SIDE - part.shape[1])))
    if rng.random() < 0.5:
        matrix = np.eye(2) + rng.normal(0, 0.05, (2, 2))
        shift = SIDE / 2 - matrix @ np.full(2, SIDE / 2)
        part = np.asarray(
            cv2.warpAffine(part, np.column_stack([matrix, shift]), (SIDE, SIDE)), np.float32
        )
    if rng.random() < 0.3:
        part = np.asarray(cv2.GaussianBlur(part, (0, 0), float(rng.uniform(0.4, 1.1))), np.float32)
    if rng.random() < 0.5:
        part = part + rng.normal(0, rng.uniform(0.01, 0.12), part.shape).astype(np.float32)
    part = np.clip(part * rng.uniform(0.7, 1.4), 0, 1) ** rng.uniform(0.6, 1.6)
    if rng.random() < 0.5:
        for _ in range(int(rng.integers(1, 4))):
            y, x = rng.integers(0, SIDE - 40, 2)
            part[y : y + rng.integers(10, 90), x : x + rng.integers(10, 90)] = 0
    return part.astype(np.float32)


def turned(
    net: nn.Module, pieces: torch.Tensor, turns: tuple[int, ...] = (0, 1, 2, 3)
) -> torch.Tensor:
    """Sums of log odds (n, turns) of each piece after so many quarter turns.

    All turns go through the network in one batch: otherwise batch norm would tell the turns apart
    by their statistics.
    """
    every = torch.cat([torch.rot90(pieces, turn, (2, 3)) for turn in turns])
    return torch.stack(net(every).sum((1, 2, 3)).split(len(pieces)), dim=1)


def mirrored(net: nn.Module, pieces: torch.Tensor) -> torch.Tensor:
    """Sums of log odds (n, 3) of each piece as it is, mirrored left to right, flipped top to
    bottom.
    """
    every = torch.cat([pieces, pieces.flip(3), pieces.flip(2)])
    return torch.stack(net(every).sum((1, 2, 3)).split(len(pieces)), dim=1)


@dataclass(frozen=True)
class Training:
    """What to train, and for how long."""

    pages: int
    steps: int
    seed: int
    mirrored: bool
    out: Path

    def scores(self, net: nn.Module, pieces: torch.Tensor, turns: tuple[int, ...]) -> torch.Tensor:
        """Sums of log odds of the views of each piece; the first view is the right one."""
        return mirrored(net, pieces) if self.mirrored else turned(net, pieces, turns)


def train(training: Training, say: Callable[[str], None]) -> None:
    """Draw pages, train a network on pieces of them, save it, and measure it on the held-out pages."""
    torch.manual_seed(training.seed)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    start, rng = time.process_time(), np.random.default_rng(training.seed)
    pool = [page_strokes(training.seed * 10_000_000 + n) for n in range(training.pages)]
    say(f"{len(pool)} pages drawn, {time.process_time() - start:.0f} s")
    net, steps = Net(), training.steps
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3, weight_decay=1e-2)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps, pct_start=0.2)
    right, loss_sum, first_view = 0.0, 0.0, torch.zeros(BATCH, dtype=torch.long)
    for step in range(steps):
        sides = (int(rng.choice([1, 3])),) if step >= 0.75 * steps else ()
        pieces = [piece(pool[rng.integers(HELD_OUT, len(pool))], rng) for _ in range(BATCH)]
        stack = torch.from_numpy(np.stack(pieces))[:, None]
        sums = training.scores(net, stack, (0, 2, *sides))
        loss = nn.functional.cross_entropy(sums, first_view)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        rate.step()
        right += float((sums.argmax(1) == 0).float().mean())
        loss_sum += float(loss.detach())
        if step % 25 == 24:
            seconds = time.process_time() - start
            say(
                f"{step + 1}/{steps} pieces right {right / 25:.3f} loss {loss_sum / 25:.3f} "
                f"{seconds:.0f} s"
            )
            right = loss_sum = 0.0
        if step % 100 == 99 or step == steps - 1:
            save(net, training.out)
    say(_measure(net, training, pool[:HELD_OUT]))


def _measure(net: nn.Module, training: Training, pages: Sequence[Pixels]) -> str:
    """How many whole held-out pages are recognised, and by which margin."""
    net.eval()
    with torch.no_grad():
        whole = [torch.from_numpy(page.astype(np.float32) / 255)[None, None] for page in pages]
        sums = [
            mirrored(net, page)[0] if training.mirrored else _turns(net, page) for page in whole
        ]
    margins = torch.stack([of_page[0] - of_page[1:].max() for of_page in sums])
    return (
        f"{len(pages)} held-out pages, whole: {int((margins > 0).sum())} right, "
        f"least margin {float(margins.min()):.1f} in log odds"
    )


def _turns(net: nn.Module, page: torch.Tensor) -> torch.Tensor:
    """Sums (4,) of a whole page, whose sides may differ."""
    return torch.cat([turned(net, page, (turn,)) for turn in range(4)], dim=1)[0]


def save(net: Net, out: Path) -> None:
    """Write the network as ONNX for pages of any size, batch norm folded in."""
    net.eval()
    torch.onnx.export(
        net,
        (torch.zeros(1, 1, SIDE, SIDE),),
        str(out),
        input_names=["strokes"],
        output_names=["odds"],
        dynamic_axes={"strokes": {0: "n", 2: "h", 3: "w"}, "odds": {0: "n", 2: "h8", 3: "w8"}},
        opset_version=13,
        dynamo=False,
    )
    net.train()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m calibration.page_networks.orientation",
        description="Train the small network that tells which way is up.",
    )
    parser.add_argument("--pages", type=int, default=600, help="Pages to draw. [default: 600]")
    parser.add_argument("--steps", type=int, default=700, help="Training steps. [default: 700]")
    parser.add_argument(
        "--seed", type=int, default=1, help="Seed of pages and weights. [default: 1]"
    )
    parser.add_argument(
        "--mirrored", action="store_true", help="Train the network that recognises mirror images."
    )
    parser.add_argument(
        "-o", "--out", type=Path, help="The ONNX file to write. [default: the asset of that name]"
    )
    options = parser.parse_args()
    name = "mirrored" if options.mirrored else "orientation"
    out = options.out or Path(f"pulse_edge/assets/{name}.onnx")
    training = Training(options.pages, options.steps, options.seed, options.mirrored, out)
    train(training, lambda text: print(text, flush=True))


if __name__ == "__main__":
    main()
