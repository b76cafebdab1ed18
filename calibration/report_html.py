"""Figures and tables -> one HTML file that needs nothing else: styles, drawings and pages inside, made for a phone too."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from calibration import ecgbench, report_findings
from pulse_edge.errors import PulseEdgeError
from pulse_edge.page import reader

if TYPE_CHECKING:
    from calibration.report import Table

Figures = dict[str, Any]
SHOWN = 24
"""Pages with turned answers that are shown; report.json has all of them."""
WIDTH, QUALITY = 1000, 60
"""Of a page's picture: pixels, and JPEG's quality."""
STYLE = """
:root{color-scheme:light}
body{font:16px/1.5 system-ui,sans-serif;color:#1a1a1a;background:#fff;max-width:64rem;margin:0 auto;padding:1rem}
h1{font-size:1.4rem;line-height:1.25}h2{font-size:1.15rem;margin:2rem 0 .5rem;border-bottom:1px solid #ccc}
.wide{overflow-x:auto;-webkit-overflow-scrolling:touch}
table{border-collapse:collapse;font-size:.85rem;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .6rem;text-align:right;white-space:nowrap;border-bottom:1px solid #e3e3e3}
th{background:#f4f4f4}th:first-child,td:first-child{text-align:left;position:sticky;left:0;background:#fff}
th:first-child{background:#f4f4f4}td.bad{color:#a40000;font-weight:600}td.good{color:#00622d;font-weight:600}
.note{color:#555;font-size:.85rem;margin:.3rem 0 0}
.kit{border-left:4px solid #3465a4;padding:.2rem .8rem;margin:.6rem 0}.kit.bad{border-color:#a40000}
figure{margin:1rem 0}figure svg,figure img{width:100%;height:auto}figure svg{max-width:40rem;display:block}
article{border:1px solid #ccc;border-radius:6px;padding:.8rem;margin:1rem 0;overflow-wrap:anywhere}
article dt{font-weight:600;margin-top:.4rem}article dd{margin:0 0 0 .8rem;white-space:pre-wrap}
.lost{color:#a40000}.gained{color:#00622d}
summary{cursor:pointer;font-weight:600;margin:.6rem 0}
"""


def render(
    figures: Figures, tables: Sequence[Table], bench: Path | None, hidden: Sequence[str] = ()
) -> str:
    """The whole file. `bench` overrides the folder in which the pages lay when the kits were asked.

    Of `hidden` tasks no page is shown.
    """
    from calibration.report import made_with, title

    folded = [t for t in tables if "of each diagnosis" in t.title]
    body = [f"<h1>{escape(title(figures))}</h1>", *_verdicts(figures)]
    body += [
        _table(tables[0]),
        *_drawings(figures),
        *(_table(t) for t in tables[1:] if t not in folded),
    ]
    body += report_findings.drawings(figures)
    body += ["<h2>Diagnosis by diagnosis</h2>"] if folded else []
    body += [
        f"<details><summary>{escape(t.title)}</summary>{_table(t, heading=False)}</details>"
        for t in folded
    ]
    body += _turned(figures, bench or Path(figures["run"]["bench"]), hidden)
    unknown = "".join(f"<li>{escape(text)}</li>" for text in figures["not_known"])
    body += [
        f"<h2>What is not known</h2><ul>{unknown}</ul>",
        f'<p class="note">Made with {escape(made_with(figures))}.</p>',
    ]
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
    )
    head += f"<title>{escape(title(figures))}</title><style>{STYLE}</style>"
    return (
        f'<!doctype html><html lang="en"><head>{head}</head><body>\n'
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _verdicts(figures: Figures) -> Iterator[str]:
    for name, text in figures["verdicts"].items():
        bad = any(not gate["passed"] for gate in figures["gates"].get(name, ()))
        yield f'<p class="kit{" bad" * bad}"><strong>{escape(name)}</strong>: {escape(text)}</p>'


def _table(table: Table, heading: bool = True) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.head)
    rows = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in table.rows)
    title = f"<h2>{escape(table.title)}</h2>" if heading else ""
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    return f'{title}<div class="wide"><table><tr>{head}</tr>{rows}</table></div>{note}'


def _cell(text: str) -> str:
    """A table's cell; coloured where a difference is more than chance, or a gate failed."""
    kind = ""
    if text.endswith(" *") or text == "NOT PASSED":
        kind = ' class="good"' if text.startswith("+") else ' class="bad"'
    return f"<td{kind}>{escape(text)}</td>"


# --- drawings ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Point:
    """A kit in a drawing."""

    name: str
    x: float
    y: float
    low: float
    high: float


def _drawings(figures: Figures) -> Iterator[str]:
    """Size against divergence and against accuracy."""
    kits: Mapping[str, Figures] = figures["kits"]
    sizes = {name: sum(kit["bytes"].values()) / 1e6 for name, kit in kits.items()}
    kld = [_point(name, sizes, kit["kld"]["mean"], 1) for name, kit in kits.items() if "kld" in kit]
    score = [
        _point(name, sizes, kit["score"], 100)
        for name, kit in kits.items()
        if kit["score"]["value"] is not None
    ]
    if kld:
        yield draw(
            "Size and divergence: lower is better", kld, "mean KLD, nats a token", log=True, best=-1
        )
    if score:
        yield draw("Size and accuracy: higher is better", score, "mean score", log=False, best=1)


def _point(name: str, sizes: Mapping[str, float], figure: Figures, factor: float) -> Point:
    low, high = (figure["value"] if end is None else end for end in figure["interval"])
    return Point(name, sizes[name], figure["value"] * factor, low * factor, high * factor)


def draw(title: str, points: Sequence[Point], label: str, log: bool, best: int) -> str:
    """Points with their intervals; a line joins those that no smaller kit equals or beats. `best`: 1 up, -1 down."""
    left, top, right, bottom = 70, 14, 620, 330
    floor = min((p.y for p in points if p.y > 0), default=1.0) / 3
    level = (lambda v: math.log10(max(v, floor))) if log else float
    ends = [level(v) for p in points for v in (p.low, p.high, p.y)]
    y0, y1 = _room(min(ends), max(ends))
    x0, x1 = _room(min(p.x for p in points), max(p.x for p in points))

    def at(p: Point, value: float) -> tuple[float, float]:
        x = left + (p.x - x0) / (x1 - x0) * (right - left)
        return round(x, 1), round(bottom - (level(value) - y0) / (y1 - y0) * (bottom - top), 1)

    parts = [f'<path d="M{left} {top}V{bottom}H{right}" fill="none" stroke="#888"/>']
    for mark in _marks(y0, y1, log):
        y = round(bottom - (mark - y0) / (y1 - y0) * (bottom - top), 1)
        text = f"{10**mark if log else mark:.4g}"
        parts.append(
            f'<path d="M{left} {y}H{right}" stroke="#eee"/>' + _text(left - 6, y + 4, text, "end")
        )
    for mark in _marks(x0, x1, False):
        parts.append(
            _text(
                left + (mark - x0) / (x1 - x0) * (right - left),
                bottom + 18,
                f"{mark:.4g}",
                "middle",
            )
        )
    parts.append(_text((left + right) / 2, bottom + 40, "size of the kit, MB", "middle"))
    line = " ".join("{},{}".format(*at(p, p.y)) for p in frontier(points, best))
    parts.append(f'<polyline points="{line}" fill="none" stroke="#3465a4" stroke-dasharray="5 4"/>')
    names: list[str] = []  # drawn last, over everything
    labels: list[tuple[float, float]] = []
    for p in sorted(points, key=lambda p: (p.x, p.y)):
        (x, y), (_, high), (_, low) = at(p, p.y), at(p, p.high), at(p, p.low)
        parts.append(
            f'<path d="M{x} {low}V{high}" stroke="#3465a4"/><circle cx="{x}" cy="{y}" r="4.5" fill="#204a87"/>'
        )
        place = _free(labels, x, y)
        names.append(
            _text(x + (8 if x < 480 else -8), place + 4, p.name, "start" if x < 480 else "end")
        )
    caption = f"<figcaption><strong>{escape(title)}</strong></figcaption>"
    axis = _text(left, top - 2, label, "start")
    svg = f'<svg viewBox="0 0 640 390" role="img" aria-label="{escape(title)}" font-size="13" font-family="sans-serif">'
    return f"<figure>{caption}{svg}{''.join(parts + names)}{axis}</svg></figure>"


def frontier(points: Sequence[Point], best: int) -> list[Point]:
    """Points that are better than every smaller one, by size (Pareto's front)."""
    front: list[Point] = []
    for p in sorted(points, key=lambda p: (p.x, -best * p.y)):
        if not front or best * p.y > best * front[-1].y:
            front.append(p)
    return front


def _room(low: float, high: float) -> tuple[float, float]:
    """A little more than the values take."""
    margin = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    return low - margin, high + margin


def _marks(low: float, high: float, log: bool) -> list[float]:
    """Round numbers on an axis: whole powers of ten, or about five steps."""
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step *= max(k for k in (1, 2, 5) if k == 1 or (high - low) / (k * step) >= 4)
    if log:
        step = max(1.0, round(step))
    return [round(k * step, 10) for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _free(taken: list[tuple[float, float]], x: float, y: float) -> float:
    """The next height at which a label does not cover another one."""
    for shift in (0, 14, -14, 28, -28, 42, -42):
        if all(abs(x - a) > 110 or abs(y + shift - b) >= 13 for a, b in taken):
            break
    taken.append((x, y + shift))
    return y + shift


def _text(x: float, y: float, text: str, anchor: str) -> str:
    halo = 'paint-order="stroke" stroke="#fff" stroke-width="4"'
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#333" {halo}>{escape(text)}</text>'


# --- pages ------------------------------------------------------------------------------------------------------------


def _turned(figures: Figures, bench: Path, hidden: Sequence[str]) -> list[str]:
    """The pages on which answers turned, with both answers."""
    flips = figures["flips"]
    if not flips:
        return []
    shown = _spread(flips)
    pictures = _pictures([flip for flip in shown if flip["task"] not in hidden], bench)
    more = (
        f" {len(shown)} of {len(flips)} are shown; report.json has all."
        if len(flips) > len(shown)
        else ""
    )
    out = [
        "<h2>Pages on which answers turned</h2>",
        f'<p class="note">Those that most kits lost come first.{more}</p>',
    ]
    return out + [
        _article(figures, flip, None if flip["task"] in hidden else pictures.get(flip["image"]))
        for flip in shown
    ]


def _spread(flips: Sequence[Figures]) -> list[Figures]:
    """As many as are shown, from each task in turn."""
    tasks = {flip["task"]: [f for f in flips if f["task"] == flip["task"]] for flip in flips}
    turns = [some[n] for n in range(SHOWN) for some in tasks.values() if n < len(some)]
    return turns[:SHOWN]


def _article(figures: Figures, flip: Figures, picture: str | None) -> str:
    question, gold, before = (
        "\n".join([x] if isinstance(x, str) else x)
        for x in (flip["question"], flip["gold"], flip["reference"])
    )
    parts = [("question", "", question), ("right", "", gold), (figures["reference"], "", before)]
    for name, answer in flip["answers"].items():
        way = answer["way"]
        text = answer["text"] if isinstance(answer["text"], str) else "\n".join(answer["text"])
        parts.append(
            (f"{name} ({'right → wrong' if way == 'lost' else 'wrong → right'})", way, text)
        )
    image = (
        f'<img loading="lazy" alt="{escape(flip["image"])}" src="{picture}">'
        if picture
        else "<em>The page is not shown.</em>"
    )
    listed = "".join(
        f'<dt class="{way}">{escape(name)}</dt><dd>{escape(text) or "(nothing)"}</dd>'
        for name, way, text in parts
    )
    return f"<article><strong>{escape(flip['task'])} {escape(flip['id'])}</strong><figure>{image}</figure><dl>{listed}</dl></article>"


def _pictures(flips: Sequence[Figures], bench: Path) -> dict[str, str]:
    """Pages as data addresses, by path; nothing where the data are not there any more."""
    out: dict[str, str] = {}
    try:
        opened = ecgbench.open_bench(bench)
        for task in {flip["task"] for flip in flips}:
            ids = {flip["id"] for flip in flips if flip["task"] == task}
            for sample in opened.samples(task, lambda _: None, only=ids):
                if sample.picture and sample.image not in out:
                    out[sample.image] = _small(sample.picture)
    except PulseEdgeError:
        return out
    return out


def _small(picture: bytes) -> str:
    image = reader.read(picture).image
    image.thumbnail((WIDTH, WIDTH), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
