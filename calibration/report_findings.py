"""Files of `calibration findings` -> a section of the accuracy report: a table for each kit, and its reliability picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calibration import findings
from calibration.platt import NOT_TOLD, TOO_FEW
from calibration.results import Results
from pulse_edge.errors import BenchError

if TYPE_CHECKING:
    from calibration.report import Table

Figures = dict[str, Any]
HEAD = (
    "statement",
    "pages with / without",
    "AUC of probabilities",
    "AUC of greedy labels",
    "difference",
    "calibration error before",
    "after",
    "no verdict from – to",
    "verdict given",
    "wrong of present",
    "wrong of absent",
    "have it",
    "have it, called absent",
    "have it not, called present",
)
SHARES = ("coverage", "risk_present", "risk_absent", "prior", "missed", "alarmed")
"""Figures of the last columns."""


def load(paths: Sequence[Path], results: Results) -> dict[str, Figures]:
    """By `KIT on DATA`; BenchError for a file of a kit that is not among the results, and for a second one of both."""
    names = {results.kit(name)["identity"]: name for name in results.kits}
    found: dict[str, Figures] = {}
    for path in paths:
        made = findings.load(path)
        if (name := names.get(made["kit"]["identity"])) is None:
            raise BenchError(
                f"{path}: is of {made['kit']['id']}, which {results.path} has no answers of; evaluate it too"
            )
        title = f"{name} on {made['data']}"
        if title in found:
            raise BenchError(f"{path}: there is another file of {title}; give one of them")
        found[title] = {
            key: value for key, value in made.items() if key not in ("lines", "calibrated_on")
        }
    return found


def tables(figures: Figures) -> Iterator[Table]:
    """Statement by statement, for each kit whose findings were measured."""
    from calibration.report import Table

    for name, made in figures.get("findings", {}).items():
        rows = [_row("all", made["all"], None)]
        rows += [
            _row(s["name"], s, s["calibration"])
            for s in made["statements"].values()
            if _measured(s)
        ]
        source = made.get("fitted_on")
        fitted = (
            f"{source['pages']} of {source['data']}"
            if source
            else f"{made['pages']['calibration']} others"
        )
        note = (
            f"Of 100, on {made['pages']['test']} test pages; fitted on {fitted}. A verdict is given "
            f"where on those, with {made['confidence']:.0%} confidence, at most {made['risk']:.0%} of it was wrong, at most "
            f"{made['risk']:.0%} of the pages of which it is not true got it, and it was wrong a third as often at most as "
            f"if it were said of all. Without abstaining {_percent(made['all']['risk_always'])} would be wrong. The error of "
            "few pages is too large by chance."
        )
        yield Table(f"Findings of {name}: probabilities and verdicts", HEAD, tuple(rows), note)


def _measured(statement: Figures) -> bool:
    return min(map(int, statement["test_pages"].values())) > 0


def _row(name: str, s: Figures, calibration: Mapping[str, Any] | None) -> tuple[str, ...]:
    from calibration.report import points_ranged

    pages = "" if calibration is None else "{with} / {without}".format(**s["test_pages"])
    fitted = calibration is None or calibration["reason"] not in (NOT_TOLD, TOO_FEW)
    cells = [name, pages, _percent(s.get("auc")), _percent(s.get("auc_of_labels"))]
    cells.append(points_ranged(s["auc_difference"]) if "auc_difference" in s else "")
    cells += [_percent(s.get(key)) if fitted else "" for key in ("ece_before", "ece_after")]
    if calibration is None:
        cells.append("")
    else:
        low, high = calibration["uncertain_from"], calibration["uncertain_to"]
        cells.append(calibration["reason"] or f"{100 * low:.1f} – {100 * high:.1f}")
    # how many have anything at all says nothing
    return (
        *cells,
        *(_percent(s.get(key)) if calibration or key != "prior" else "" for key in SHARES),
    )


def _percent(figure: Figures | None) -> str:
    from calibration.report import ranged

    return "" if figure is None or figure["value"] is None else ranged(figure)


def not_known(figures: Figures) -> Iterator[str]:
    """What the section does not tell."""
    for name, made in figures.get("findings", {}).items():
        statements = made["statements"].values()
        if untold := [s["name"] for s in statements if not _measured(s)]:
            yield f"{name}: the test pages do not tell of both kinds for {', '.join(untold)}."
        if never := [
            f"{s['name']} ({s['calibration']['reason']})"
            for s in statements
            if s["calibration"]["reason"]
        ]:
            yield f"{name}: gives no verdict on {', '.join(never)}."
        if "fitted_on" not in made:
            yield f"{name}: findings were calibrated on these pages; probabilities of other pages may be off."


# --- the picture ------------------------------------------------------------------------------------------------------

SIDE, LEFT, TOP = 320, 60, 12
SERIES = (
    ("bins_before", "as the model has them", "#b45f06", "4 3"),
    ("bins_after", "calibrated", "#204a87", ""),
)


def drawings(figures: Figures) -> Iterator[str]:
    """Probability against how often it was so, before and after, over all statements that were fitted."""
    for name, made in figures.get("findings", {}).items():
        if "bins_after" in made["all"]:
            yield _reliability(
                f"Reliability of findings of {name}: on the diagonal is right", made["all"]
            )


def _reliability(title: str, told: Figures) -> str:
    def at(x: float, y: float) -> tuple[float, float]:
        return round(LEFT + x * SIDE, 1), round(TOP + (1 - y) * SIDE, 1)

    def text(x: float, y: float, words: str, anchor: str, colour: str = "#333") -> str:
        return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(words)}</text>'

    bottom = TOP + SIDE
    parts = [
        f'<rect x="{LEFT}" y="{TOP}" width="{SIDE}" height="{SIDE}" fill="none" stroke="#888"/>'
    ]
    parts.append('<path d="M{} {}L{} {}" stroke="#bbb"/>'.format(*at(0, 0), *at(1, 1)))
    for mark in (0.0, 0.25, 0.5, 0.75, 1.0):
        (x, _), (_, y) = at(mark, 0), at(0, mark)
        parts += [
            text(x, bottom + 18, f"{mark:g}", "middle"),
            text(LEFT - 6, y + 4, f"{mark:g}", "end"),
        ]
    parts.append(text(LEFT + SIDE / 2, bottom + 38, "probability of the finding", "middle"))
    parts.append(
        f'<g transform="rotate(-90 16 {TOP + SIDE / 2})">{text(16, TOP + SIDE / 2, "how often it was there", "middle")}</g>'
    )
    for n, (key, words, colour, dash) in enumerate(SERIES):
        points = [
            (b["probability"], b["share"]) for b in told[key] if b["share"]["value"] is not None
        ]
        line = " ".join("{},{}".format(*at(p, s["value"])) for p, s in points)
        parts.append(
            f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-dasharray="{dash}"/>'
        )
        for p, share in points:
            (x, y), low, high = (
                at(p, share["value"]),
                *(at(0, end or 0.0)[1] for end in share["interval"]),
            )
            parts.append(
                f'<path d="M{x} {low}V{high}" stroke="{colour}"/><circle cx="{x}" cy="{y}" r="4" fill="{colour}"/>'
            )
        y = TOP + 20 + 20 * n
        parts.append(
            f'<path d="M{LEFT + SIDE + 14} {y - 4}h22" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>'
        )
        parts.append(text(LEFT + SIDE + 42, y, words, "start", colour))
    caption = f"<figcaption><strong>{escape(title)}</strong></figcaption>"
    svg = f'<svg viewBox="0 0 600 384" role="img" aria-label="{escape(title)}" font-size="13" font-family="sans-serif">'
    return f"<figure>{caption}{svg}{''.join(parts)}</svg></figure>"
