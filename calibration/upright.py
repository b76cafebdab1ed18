"""`python -m calibration.upright [--mirrored] [--pages N] [--steps N] [-o FILE]`: train the small network that tells which
way is up, or with `--mirrored` the one that tells an upright page from its mirror images.

In: pages of `calibration.synthetic` only, so the weights may be shipped. Out: `pulse_edge/upright.onnx`, which
`pulse_edge.page.orientation` runs through OpenCV.

The network is local: at every 8th pixel of a page (`upright.strokes`) it looks at some 35 mm round it, at lead names,
calibration pulses, QRS and T in their order, words, and says a log odds; their sum says how upright the page is. So it
learns from pieces of pages, thousands of them from a few hundred pages, and does not learn where things stand on a page
that was drawn here. The one for mirrored pages is of the same kind: trained on pieces as they are, mirrored and flipped.
Trained on pieces upright and on their head, then also on a side, which is easier: the sum of the upright one must win
(cross entropy).
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from calibration import layouts
from calibration.synthetic import pages, style
from pulse_edge.page.orientation import strokes

Pixels = NDArray[np.uint8]
Float = NDArray[np.float32]
SIDE = 256
"""Pixels of a piece's side: 85 mm."""
HELD = 60
"""Pages that are kept from training and tell how good it is."""


class Net(nn.Module):
    """(n, 1, H, W) -> (n, 1, H / 8, W / 8) log odds."""

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


def drawn(seed: int) -> Pixels:
    """(H, W): a page's strokes, upright, spoilt as by a camera or copier, at not quite the scale that is believed."""
    rng = np.random.default_rng(seed)
    record, look = layouts.page(rng)
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
    image = layouts.spoilt(pages.draw(record, look).image, rng)
    across, down = look.px_per_mm * rng.uniform(0.9, 1.1, 2)
    return np.round(255 * strokes(image, float(across), float(down))).astype(np.uint8)


def piece(page: Pixels, rng: np.random.Generator) -> Float:
    """(SIDE, SIDE) of a page, distorted once more, with some of it covered: every clue must do without the others."""
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
    """(n, turns): the sum of log odds of each piece after so many quarter turns.

    One batch for all turns: batch norm would tell a batch of one turn from another without looking at a piece.
    """
    every = torch.cat([torch.rot90(pieces, turn, (2, 3)) for turn in turns])
    return torch.stack(net(every).sum((1, 2, 3)).split(len(pieces)), dim=1)


def mirrored(net: nn.Module, pieces: torch.Tensor) -> torch.Tensor:
    """(n, 3): the sum of log odds of each piece as it is, mirrored (left to right), and flipped (top to bottom)."""
    every = torch.cat([pieces, pieces.flip(3), pieces.flip(2)])
    return torch.stack(net(every).sum((1, 2, 3)).split(len(pieces)), dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, default=600)
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mirrored", action="store_true")
    parser.add_argument("-o", "--out", type=Path)
    options = parser.parse_args()
    out = options.out or Path(
        f"pulse_edge/assets/{'mirrored' if options.mirrored else 'orientation'}.onnx"
    )
    style.LAYOUTS.update(layouts.MORE)  # type: ignore[attr-defined]
    torch.manual_seed(options.seed)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    start, rng, batch = time.process_time(), np.random.default_rng(options.seed), 16
    pool = [drawn(options.seed * 10_000_000 + n) for n in range(options.pages)]
    print(f"{len(pool)} pages drawn, {time.process_time() - start:.0f} s", flush=True)
    net = Net()
    best = torch.optim.AdamW(net.parameters(), 3e-3, weight_decay=1e-2)
    rate = torch.optim.lr_scheduler.OneCycleLR(best, 3e-3, options.steps, pct_start=0.2)
    right, loss_sum, up = 0.0, 0.0, torch.zeros(batch, dtype=torch.long)
    for step in range(options.steps):
        sides = (int(rng.choice([1, 3])),) if step >= 0.75 * options.steps else ()
        pieces = [piece(pool[rng.integers(HELD, len(pool))], rng) for _ in range(batch)]
        stack = torch.from_numpy(np.stack(pieces))[:, None]
        sums = mirrored(net, stack) if options.mirrored else turned(net, stack, (0, 2, *sides))
        loss = nn.functional.cross_entropy(sums, up)
        best.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        best.step()
        rate.step()
        right, loss_sum = (
            right + float((sums.argmax(1) == 0).float().mean()),
            loss_sum + float(loss.detach()),
        )
        if step % 25 == 24:
            print(f"{step + 1}/{options.steps} pieces right {right / 25:.3f} loss {loss_sum / 25:.3f} "
                  f"{time.process_time() - start:.0f} s", flush=True)  # fmt: skip
            right = loss_sum = 0.0
        if step % 100 == 99 or step == options.steps - 1:
            save(net, out)
    net.eval()
    with torch.no_grad():
        whole = [
            torch.from_numpy(page.astype(np.float32) / 255)[None, None] for page in pool[:HELD]
        ]
        held = [mirrored(net, page)[0] if options.mirrored else _turns(net, page) for page in whole]
    margins = torch.stack([sums[0] - sums[1:].max() for sums in held])
    print(
        f"{HELD} held pages, whole: {int((margins > 0).sum())} right, least margin {float(margins.min()):.1f} in log odds"
    )


def _turns(net: nn.Module, page: torch.Tensor) -> torch.Tensor:
    """(4,) of a whole page, whose sides may differ."""
    return torch.cat([turned(net, page, (turn,)) for turn in range(4)], dim=1)[0]


def save(net: Net, out: Path) -> None:
    """As ONNX for pages of any size, batch norm folded in."""
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


if __name__ == "__main__":
    main()
