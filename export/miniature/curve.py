"""curve.jsonl -> a picture of the training: F1 of each finding, and the rate's error, over the pages seen.

python -m export.miniature.curve CURVE.jsonl OUT.svg
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any

import click

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 900, 420, 46, 30, 130, 46
COLOURS = "#1f77b4 #ff7f0e #2ca02c #d62728 #9467bd #8c564b #e377c2 #7f7f7f #bcbd22 #17becf".split()  # noqa: SIM905

Line = tuple[str, list[tuple[float, float]]]


def exams(path: Path) -> list[dict[str, Any]]:
    """The measurements on unseen pages, in order; of what was done again after a kill, the last."""
    lines = (json.loads(line) for line in path.read_text("utf-8").splitlines())
    return sorted(
        {e["pages"]: e for e in lines if "exam" in e}.values(), key=lambda e: float(e["pages"])
    )


def lines_of(found: Sequence[dict[str, Any]]) -> list[Line]:
    """One line a finding, and the share of rates within 5 bpm, which has no finding's scale problem."""
    names = list(found[0]["exam"]["f1"])
    lines = [(name, [(e["pages"], e["exam"]["f1"][name]) for e in found]) for name in names]
    return [
        *lines,
        ("rate within 5 bpm", [(e["pages"], e["exam"]["rate_within_5"]) for e in found]),
    ]


def picture(found: Sequence[dict[str, Any]]) -> str:
    """SVG: both axes, a line for each, the stages' borders."""
    lines, last = lines_of(found), float(max(e["pages"] for e in found))

    def x(pages: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * pages / last

    def y(share: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - share)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="12"><rect width="100%" height="100%" fill="white"/>',
        f'<text x="{LEFT}" y="18" font-size="14">F1 on 192 unseen pages, by pages seen</text>',
    ]
    for share in (0, 0.25, 0.5, 0.75, 0.9, 1):
        parts.append(f'<path d="M{LEFT} {y(share):.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(
            f'<text x="{LEFT - 6}" y="{y(share) + 4:.1f}" text-anchor="end">{share:g}</text>'
        )
    for k in range(5):
        pages = last * k / 4
        parts.append(
            f'<text x="{x(pages):.1f}" y="{HEIGHT - 24}" text-anchor="middle">{pages:,.0f}</text>'
        )
    borders = [(a["pages"], b["stage"]) for a, b in pairwise(found) if a["stage"] != b["stage"]]
    for n, (pages, stage) in enumerate(borders):
        parts.append(
            f'<path d="M{x(pages):.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#999" stroke-dasharray="4"/>'
        )
        parts.append(
            f'<text x="{x(pages) + 3:.1f}" y="{HEIGHT - BOTTOM - 6 - 13 * (n % 3)}">{escape(stage)}</text>'
        )
    ends = _apart([y(points[-1][1]) for _, points in lines])
    for i, ((name, points), end) in enumerate(zip(lines, ends, strict=True)):
        colour, dash = (
            COLOURS[i % len(COLOURS)],
            ' stroke-dasharray="6 3"' if i >= len(COLOURS) else "",
        )
        path = "L".join(f"{x(p):.1f} {y(v):.1f}" for p, v in points)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.6"{dash}/>')
        parts.append(
            f'<text x="{WIDTH - RIGHT + 6}" y="{end + 4:.1f}" fill="{colour}">{escape(name)}</text>'
        )
    return "\n".join([*parts, "</svg>\n"])


def _apart(heights: Sequence[float], room: float = 13.0) -> list[float]:
    """Heights moved so that no two labels lie on one another, in the same order."""
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    moved, free = list(heights), float("-inf")
    for i in order:
        moved[i] = free = max(heights[i], free + room)
    over = max(0.0, free - (HEIGHT - BOTTOM + 20))
    return [m - over for m in moved]


@click.command()
@click.argument("curve", type=click.Path(exists=True, path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
def main(curve: Path, out: Path) -> None:
    """Draw the curve of a training."""
    found = exams(curve)
    if not found:
        raise click.ClickException(f"{curve}: no exam yet. They are held every 250 steps.")
    out.write_text(picture(found), "utf-8")


if __name__ == "__main__":
    main()
