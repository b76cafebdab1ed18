"""Train the small network that tells layouts apart.

    python -m calibration.page_networks.layouts [--pages N] [--seed N] [-o FILE]

The result is `pulse_edge/assets/layouts.onnx`. The network sees a page as
`orientation.layout_input` makes it and gives nine numbers: the layouts in `orientation.LAYOUTS`,
and how upright the page is. The ninth task only makes it look at traces and lead names;
`page_networks.orientation` trains the networks that turn pages.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from calibration.page_networks import other_pictures
from calibration.page_networks.training_pages import (
    Pixels,
    crop,
    degraded,
    recording_and_style,
)
from calibration.synthetic import pages
from pulse_edge.page.orientation import LAYOUT_SIZE, LAYOUTS, layout_input

BATCH = 10


class Net(nn.Module):
    """Scores (n, 9) of pages (n, 2, LAYOUT_SIZE, LAYOUT_SIZE): eight layouts, and how upright the
    page is.
    """

    def __init__(self) -> None:
        super().__init__()
        widths = (2, 12, 20, 32, 48, 64)
        layers: list[nn.Module] = []
        for a, b in pairwise(widths):
            layers += [nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU()]
        layers += [
            nn.Conv2d(64, 64, 3, 1, 1),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.Conv2d(64, 12, 1),
            nn.ReLU(),
            nn.Flatten(),
        ]
        side = LAYOUT_SIZE // 32
        self.layers = nn.Sequential(
            *layers, nn.Dropout(0.2), nn.Linear(12 * side * side, 64), nn.ReLU(), nn.Linear(64, 9)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)  # type: ignore[no-any-return]


def sample(seed: int) -> tuple[NDArray[np.float32], int]:
    """An upright page as the network sees it, (2, LAYOUT_SIZE, LAYOUT_SIZE), and its layout's index
    in LAYOUTS.
    """
    rng = np.random.default_rng(seed)
    if rng.random() < 0.14:
        return layout_input(degraded(other_pictures.draw(rng), rng)), LAYOUTS.index("none")
    page, layout = _ecg(rng)
    return layout_input(degraded(page, rng)), LAYOUTS.index(layout)


def _ecg(rng: np.random.Generator) -> tuple[Pixels, str]:
    drawn = pages.draw(*recording_and_style(rng))
    image, layout = drawn.image, drawn.style.layout
    name = layout if layout in LAYOUTS else "partial"
    if rng.random() < 0.4:
        image, name = crop(image, drawn, drawn.px_per_mm, rng, name)
    return image, name


def train(page_count: int, seed: int, say: Callable[[str], None], out: Path) -> None:
    """Train a network on `page_count` fresh pages and save it every 100 steps."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    net, steps = Net(), page_count // BATCH
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=1e-3)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps, pct_start=0.15)
    start, upright, layouts, shown = time.perf_counter(), 0.0, 0.0, 0
    for step in range(steps):
        samples = [sample(seed * 10_000_000 + step * BATCH + n) for n in range(BATCH)]
        loss, *shares = _loss(net, samples, step)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        rate.step()
        upright, layouts, shown = upright + shares[0], layouts + shares[1], shown + 1
        if step % 20 == 19:
            seconds = time.perf_counter() - start
            say(
                f"{step + 1}/{steps} upright {upright / shown:.3f} "
                f"layout {layouts / shown:.3f} {seconds:.0f} s"
            )
            upright, layouts, shown = 0.0, 0.0, 0
        if step % 100 == 99 or step == steps - 1:
            save(net, out)


def _loss(
    net: Net, samples: list[tuple[NDArray[np.float32], int]], step: int
) -> tuple[torch.Tensor, float, float]:
    """The loss of a batch, and which shares of its pages and of its layouts were right."""
    x = torch.from_numpy(np.stack([page for page, _ in samples]))
    layout = torch.tensor([index for _, index in samples])
    # Half of the wrong turns are upside down, which is the hard one.
    turn = int(torch.randint(0, 5, ()).clamp(1, 3)) if step % 2 else 2
    output = net(torch.cat([x, torch.rot90(x, turn, (2, 3))]))
    scores = output[:, 8].reshape(2, len(samples)).T
    ecg = layout != LAYOUTS.index("none")
    turn_loss = nn.functional.cross_entropy(
        scores[ecg], torch.zeros(int(ecg.sum()), dtype=torch.long)
    )
    logits = output[: len(samples), :8]
    layout_loss = nn.functional.cross_entropy(logits, layout, label_smoothing=0.02)
    upright = float((scores[ecg].argmax(1) == 0).float().mean())
    return turn_loss + layout_loss, upright, float((logits.argmax(1) == layout).float().mean())


def save(net: Net, out: Path) -> None:
    """Write the network as ONNX, batch norm folded in."""
    net.eval()
    torch.onnx.export(
        net,
        (torch.zeros(1, 2, LAYOUT_SIZE, LAYOUT_SIZE),),
        str(out),
        input_names=["page"],
        output_names=["said"],
        opset_version=13,
        dynamo=False,
    )
    net.train()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m calibration.page_networks.layouts",
        description="Train the small network that tells layouts apart.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--pages", type=int, default=8000, help="Pages to train on.")
    parser.add_argument("--seed", type=int, default=1, help="Seed of pages and weights.")
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        default=Path("pulse_edge/assets/layouts.onnx"),
        help="The ONNX file to write.",
    )
    options = parser.parse_args()
    train(options.pages, options.seed, lambda text: print(text, flush=True), options.out)


if __name__ == "__main__":
    main()
