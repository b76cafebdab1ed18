"""`python -m calibration.layouts [--pages N] [-o FILE]`: train the small network that tells layouts.

In: pages of `calibration.synthetic` only, so the weights may be shipped. Out: `pulse_edge/assets/layouts.onnx`, which
`pulse_edge.page.orientation` runs through OpenCV. One page costs about half a second on a core. The network sees a page as
`orientation.layout_input` makes it and says nine numbers: the layouts in `orientation.LAYOUTS`, and how upright the page is, a task that
is only to make it look at traces and names: `calibration.upright` trains what turns pages.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ImageFont
from torch import nn

from calibration.synthetic import pages, style
from calibration.synthetic.record import Record
from calibration.synthetic.signals import synthesize
from pulse_edge.page.orientation import LAYOUT_SIZE, LAYOUTS, layout_input

Pixels = NDArray[np.uint8]
FONTS = sorted(Path("/usr/share/fonts").rglob("*.ttf")) if Path("/usr/share/fonts").is_dir() else []
FONTS = [
    f for f in FONTS if "Math" not in f.name and "Oblique" not in f.name and "Italic" not in f.name
]
_L = ("I", "II", "III", "aVR", "aVL", "aVF")
_V = ("V1", "V2", "V3", "V4", "V5", "V6")
MORE: dict[str, style.Rows] = {
    "3x4+2": (*style.LAYOUTS["3x4"], ("V1",), ("II",)),
    "6x1": tuple((n,) for n in _L),
    "6x1v": tuple((n,) for n in _V),
    "3x1": (("II",), ("V1",), ("V5",)),
    "2x1": (("V4",), ("V5",)),
    "1x1": (("II",),),
    "3x2": (("I", "aVR"), ("II", "aVL"), ("III", "aVF")),
    "3x5": tuple(
        (*row, extra) for row, extra in zip(style.LAYOUTS["3x4"], ("V4", "V5", "V6"), strict=True)
    ),
}
WORDS = (
    "Vent. rate",
    "PR interval",
    "QRS duration",
    "QT/QTc",
    "P-R-T axes",
    "Sinus rhythm",
    "Abnormal ECG",
    "ms",
    "BPM",
    "Name:",
    "Age",
    "Sex",
)


class Net(nn.Module):
    """(n, 2, LAYOUT_SIZE, LAYOUT_SIZE) -> (n, 9)."""

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
    """A page as the network sees it, (2, LAYOUT_SIZE, LAYOUT_SIZE) upright, and the number of its layout in LAYOUTS."""
    rng = np.random.default_rng(seed)
    if rng.random() < 0.14:
        return layout_input(spoilt(_no_ecg(rng), rng)), LAYOUTS.index("none")
    page, layout = _ecg(rng)
    return layout_input(spoilt(page, rng)), LAYOUTS.index(layout)


def _ecg(rng: np.random.Generator) -> tuple[Pixels, str]:
    drawn = pages.draw(*page(rng))
    image, k = drawn.image, drawn.px_per_mm
    layout = drawn.style.layout
    name = layout if layout in LAYOUTS else "partial"
    if rng.random() < 0.4:
        image, name = _cropped(image, drawn, k, rng, name)
    return image, name


def page(rng: np.random.Generator) -> tuple[Record, style.PageStyle]:
    """What to draw, in a layout of `style.LAYOUTS`, which must hold MORE; pages drawn from now on have lead names in another font."""
    look = style.random_style(rng)
    names = ["3x4", "3x4+1", "3x4+2", "3x4+3", "6x2", "12x1", *list(MORE)[1:]]
    layout = str(rng.choice(names, p=[0.13, 0.25, 0.11, 0.13, 0.12, 0.09, *[0.17 / 7] * 7]))
    rows = len(style.LAYOUTS[layout])
    low, high = {1: (24, 45), 2: (24, 45), 3: (24, 42), 4: (22, 40), 5: (19, 30), 6: (16, 28)}.get(
        rows, (12, 18)
    )
    changes: dict[str, Any] = {"layout": layout, "row_mm": float(rng.uniform(low, high))}
    changes |= {"px_per_mm": float(rng.uniform(3.2, 5.5)), "ink_px": float(rng.uniform(0.9, 2.2))}
    if rng.random() < 0.3:
        changes |= {"top_mm": float(rng.uniform(5, 90)), "right_mm": float(rng.uniform(2, 30))}
    if rng.random() < 0.25:
        lines = [
            "\n".join(rng.choice(WORDS, rng.integers(1, 6))) for _ in range(rng.integers(1, 5))
        ]
        changes |= {"header": tuple(lines), "top_mm": float(rng.uniform(20, 60))}
    if layout in ("6x1", "6x1v", "3x1", "2x1", "1x1", "3x2"):
        changes |= {"seconds": float(rng.choice([2.5, 5.0, 10.0])), "speed": 25.0}
        if rng.random() < 0.6:
            changes["names"] = str(rng.choice(["above", "below"]))
    look = dataclasses.replace(look, **changes)
    if FONTS:
        face = FONTS[rng.integers(len(FONTS))]
        grow = float(rng.uniform(0.85, 1.3))
        pages._face = lambda size: ImageFont.truetype(str(face), max(6, round(size * grow)))  # type: ignore[assignment]
        pages._words.cache_clear()
    return synthesize(rng), look


def _cropped(
    image: Pixels, drawn: Any, k: float, rng: np.random.Generator, name: str
) -> tuple[Pixels, str]:
    """Cut tightly round the traces, or through them."""
    width = image.shape[1]
    tops = [t.y0 for t in drawn.traces]
    row = drawn.style.row_mm * k
    left = min(t.x0 for t in drawn.traces)
    if rng.random() < 0.25 and name != "partial":  # a part: some rows, some columns
        y0 = rng.uniform(min(tops) - row / 2, max(tops) - row)
        y1 = y0 + rng.uniform(1.2, 2.4) * row
        x0 = rng.uniform(0, 0.6) * width
        x1 = x0 + rng.uniform(0.25, 0.6) * width
        rows = len(style.LAYOUTS[drawn.style.layout])
        return _box(image, x0, y0, x1, y1), name if rows <= 2 else "partial"
    y0, y1 = min(tops) - rng.uniform(0.45, 0.8) * row, max(tops) + rng.uniform(0.4, 0.8) * row
    return _box(
        image, rng.uniform(0, max(left - 1.0 * k, 1)), y0, width - rng.uniform(0, 8) * k, y1
    ), name


def _box(image: Pixels, x0: float, y0: float, x1: float, y1: float) -> Pixels:
    return np.ascontiguousarray(image[max(int(y0), 0) : int(y1), max(int(x0), 0) : int(x1)])


def spoilt(image: Pixels, rng: np.random.Generator) -> Pixels:
    """As cameras and copiers leave a page that was found and straightened: not quite straight, grey, shaded, soft."""
    height, width = image.shape[:2]
    if rng.random() < 0.7:
        corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
        tilt = np.deg2rad(rng.normal(0, 1.0))
        turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]], np.float32)
        moved = ((corners - corners.mean(0)) @ turn.T + corners.mean(0)) + rng.normal(
            0, 0.008 * width, (4, 2)
        )
        fill = tuple(
            int(v)
            for v in (np.median(image, (0, 1)) if rng.random() < 0.6 else rng.integers(0, 255, 3))
        )
        matrix = cv2.getPerspectiveTransform(corners, moved.astype(np.float32))
        image = cv2.warpPerspective(
            image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderValue=fill
        ).astype(np.uint8)
    if rng.random() < 0.3:
        image = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, 2).astype(np.uint8)
        if rng.random() < 0.4:  # a copier makes the grid as dark as the trace
            image = (255 * (image / 255.0) ** rng.uniform(2, 8)).astype(np.uint8)
    if rng.random() < 0.5:
        coarse = rng.uniform(0.45, 1.0, (4, 5)).astype(np.float32) ** rng.uniform(0.3, 1.2)
        shade = cv2.resize(coarse, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_CUBIC)[
            ..., None
        ]
        tint = rng.uniform(0.8, 1.0, 3).astype(np.float32)
        image = np.clip(image * shade * tint, 0, 255).astype(np.uint8)
    if rng.random() < 0.4:
        image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.4, 1.4))).astype(np.uint8)
    if rng.random() < 0.5:
        noise = rng.normal(0, rng.uniform(1, 12), image.shape[:2]).astype(np.float32)[..., None]
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.3:
        image = 255 - ((255 - image) * rng.uniform(0.4, 1)).astype(np.uint8)
    return image


def _no_ecg(rng: np.random.Generator) -> Pixels:
    """What people may hand in by mistake: text, empty grids, plots, patterns, photographs of things."""
    height, width = int(rng.integers(300, 1100)), int(rng.integers(400, 1300))
    kind = rng.integers(6)
    image = np.full((height, width, 3), rng.integers(180, 256, 3), np.uint8)
    ink = tuple(int(v) for v in rng.integers(0, 90, 3))
    if kind in (0, 1):  # text
        size, y = int(rng.integers(10, 40)), 20
        while y < height - size:
            words = " ".join(
                "".join(rng.choice(list("abcdefghijklmnoprstuvwxyzAEISV123"), rng.integers(1, 9)))
                for _ in range(18)
            )
            if rng.random() < 0.85:
                cv2.putText(
                    image,
                    words[: int(1.5 * width / size)],
                    (int(0.05 * width), y + size),
                    int(rng.integers(0, 5)),
                    size / 26,
                    ink,
                    1 + size // 20,
                    cv2.LINE_AA,
                )
            y += int(1.6 * size)
    elif kind == 2:  # an empty grid
        step = float(rng.uniform(4, 40))
        colour = tuple(int(v) for v in rng.integers(90, 240, 3))
        for n in range(int(max(width, height) / step) + 1):
            at, thick = round(n * step), 1 + (n % 5 == 0)
            cv2.line(image, (at, 0), (at, height), colour, thick)
            cv2.line(image, (0, at), (width, at), colour, thick)
    elif kind == 3:  # a plot: boxed axes, one to three smooth or noisy curves
        count = int(rng.integers(1, 4))
        for n in range(count):
            top, bottom = int(height * (n + 0.12) / count), int(height * (n + 0.9) / count)
            cv2.rectangle(image, (width // 10, top), (int(0.95 * width), bottom), ink, 1)
            x = np.linspace(width // 10, 0.95 * width, 500)
            curve = (
                np.cumsum(rng.normal(0, 1, 500))
                if rng.random() < 0.5
                else np.sin(x * rng.uniform(0.01, 0.2)) ** int(rng.integers(1, 20))
            )
            y = (
                (curve - curve.min()) / (np.ptp(curve) + 1e-6) * (bottom - top) * 0.8
                + top
                + 0.1 * (bottom - top)
            )
            cv2.polylines(
                image,
                [np.stack([x, y], 1).astype(np.int32)],
                False,
                tuple(int(v) for v in rng.integers(0, 200, 3)),
                int(rng.integers(1, 3)),
                cv2.LINE_AA,
            )
    else:  # things: blobs, edges, textures
        small = rng.integers(
            0, 256, (int(rng.integers(3, 40)), int(rng.integers(3, 40)), 3), np.uint8
        )
        way = cv2.INTER_CUBIC if rng.random() < 0.6 else cv2.INTER_NEAREST
        image = cv2.resize(small, (width, height), interpolation=way).astype(np.uint8)
        for _ in range(rng.integers(0, 15)):
            centre = int(rng.integers(width)), int(rng.integers(height))
            cv2.ellipse(
                image,
                centre,
                (int(rng.integers(5, 300)), int(rng.integers(5, 200))),
                float(rng.uniform(0, 180)),
                0,
                360,
                tuple(int(v) for v in rng.integers(0, 256, 3)),
                -1 if rng.random() < 0.6 else 2,
            )
    return image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, default=8000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("-o", "--out", type=Path, default=Path("pulse_edge/assets/layouts.onnx"))
    options = parser.parse_args()
    style.LAYOUTS.update(MORE)  # type: ignore[attr-defined]
    torch.manual_seed(options.seed)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    net, batch = Net(), 10
    steps = options.pages // batch
    best = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=1e-3)
    rate = torch.optim.lr_scheduler.OneCycleLR(best, 2e-3, steps, pct_start=0.15)
    start, right, kinds, shown = time.perf_counter(), 0.0, 0.0, 0
    for step in range(steps):
        made = [sample(options.seed * 10_000_000 + step * batch + n) for n in range(batch)]
        x = torch.from_numpy(np.stack([m[0] for m in made]))
        layout = torch.tensor([m[1] for m in made])
        wrong = (
            int(torch.randint(0, 5, ()).clamp(1, 3)) if step % 2 else 2
        )  # upside down is the hard one
        said = net(torch.cat([x, torch.rot90(x, wrong, (2, 3))]))
        scores = said[:, 8].reshape(2, batch).T
        real = layout != LAYOUTS.index("none")
        turn_loss = nn.functional.cross_entropy(
            scores[real], torch.zeros(int(real.sum()), dtype=torch.long)
        )
        kind_loss = nn.functional.cross_entropy(said[:batch, :8], layout, label_smoothing=0.02)
        best.zero_grad()
        (turn_loss + kind_loss).backward()  # type: ignore[no-untyped-call]
        best.step()
        rate.step()
        right += float((scores[real].argmax(1) == 0).float().mean())
        kinds += float((said[:batch, :8].argmax(1) == layout).float().mean())
        shown += 1
        if step % 20 == 19:
            print(
                f"{step + 1}/{steps} upright {right / shown:.3f} layout {kinds / shown:.3f} {time.perf_counter() - start:.0f} s",
                flush=True,
            )
            right, kinds, shown = 0.0, 0.0, 0
        if step % 100 == 99 or step == steps - 1:
            save(net, options.out)


def save(net: Net, out: Path) -> None:
    """As ONNX, batch norm folded in."""
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


if __name__ == "__main__":
    main()
