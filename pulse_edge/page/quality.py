"""From a flat page to facts with numbers, and a verdict with reasons that a nurse can act on.

In: `Flat`. Out: `Quality`. Text on the page is not read, and no measurement is compared with
what is printed on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pulse_edge.common.arrays import Pixels
from pulse_edge.page.channels import brightest, pixels
from pulse_edge.page.ink import Ink
from pulse_edge.page.light import edge_width, glare_share, shadow_ratio
from pulse_edge.page.page_turn import MIRROR_LOG_ODDS
from pulse_edge.page.quality_limits import LIMITS
from pulse_edge.page.rectify import STRETCH_LIMIT, Flat
from pulse_edge.page.traces import (
    LEADS,
    Classify,
    classify_rows,
    cut_traces,
    find_rows,
    has_two_ecgs,
    inside_frame,
    likeliest_layout,
    traced_share,
)

GOOD, USABLE, REFUSED = "good", "usable", "refused"
_COARSE = 4.0
"""Pixels per millimetre at which rows are sought, at most."""
_EVEN = 0.06
"""Share by which a grid may vary for moire to be told from it."""
_PAGE_MM = 270
"""Longer side in millimetres of a page without a grid."""
_BLACK = 60
"""Level of 255 below which a background is black."""
_MIN_TRACED = 0.12
"""Share of a row that a trace runs through; real pages have 0.33 and more, tables 0 to 0.03."""
_DOUBTED, _NO_ECG, _FULLY = 0.7, 0.2, 0.75
"""Probability of an ECG by the network below which there must be a trace, and below which it must
run through the third share of each row. Real pages get 0.5 and more, tables whose lines seem a grid
0.02 to 0.31, two ECGs on one page 0.07."""


@dataclass(frozen=True)
class Reason:
    """One thing that is wrong with a page."""

    check: str
    """A key of LIMITS."""
    value: float
    unit: str
    threshold: float
    """The limit that `value` lies beyond."""
    advice: str
    """What is wrong and what to do, in a clinic's words."""
    refuses: bool
    """True: the page is refused for it; False: it is a warning."""


@dataclass(frozen=True)
class Quality:
    """The verdict on a page, and what it rests on."""

    verdict: str
    """`good`; `usable`: answered with warnings; `refused`."""
    reasons: tuple[Reason, ...]
    """Refusals first."""
    facts: dict[str, float]
    """Every number that was judged; those that could not be measured are absent."""
    layout: str | None
    """Rows by columns and rhythm strips, such as 3x4+1, or partial; None where the page is no
    ECG."""
    leads: int
    """Leads that the page shows."""
    rows: tuple[float, ...]
    """Pixels from the page's top to each row of traces."""
    forced: bool = False
    """True: the page was refused, and is answered all the same because a person asked for it."""


def judge(flat: Flat, *, unfilled: float = 0.0, classify: Classify | None = None) -> Quality:
    """Measure a flat page and judge it.

    `unfilled`: share of the picture that was never filled in (unfilled.py). `classify` gives the
    probability of each layout of another picture; without it the layout rests on the whole page
    alone.
    """
    picture = pixels(flat.image)
    ink, mm = coarse_ink(flat, picture)
    rows = find_rows(ink)
    layouts: Mapping[str, float] = flat.layout
    if classify is not None:
        layouts = classify_rows(picture, layouts, [y / ink.scale for y in rows], classify)
    layout, probability = likeliest_layout(layouts, len(rows))
    facts = _page_facts(flat, picture, ink, rows, mm)
    facts["unfilled"] = unfilled
    facts["ecg"] = _ecg_probability(layouts, rows, ink, picture, flat)
    if flat.grid is None and layout == "partial":  # neither a grid nor a whole set of leads
        facts["ecg"] = min(facts["ecg"], 0.4)
    leads = LEADS.get(layout, min(len(rows), 11))
    if has_two_ecgs(rows):  # twice three rows may be a 3x4+3 or 6x2 all the same
        facts["ecgs"] = 2.0 if layout == "partial" else 1.5
    is_ecg = facts["ecg"] >= 0.5
    if is_ecg:
        facts |= {"leads": float(leads), "layout": probability}
    reasons = judge_facts(facts)
    return Quality(
        verdict=verdict_of(reasons),
        reasons=reasons,
        facts={name: round(value, 3) for name, value in facts.items()},
        layout=layout if is_ecg else None,
        leads=leads if is_ecg else 0,
        rows=tuple(round(y / ink.scale, 1) for y in rows),
    )


def coarse_ink(flat: Flat, picture: Pixels) -> tuple[Ink, float]:
    """Return the ink of a flat page on which rows are sought, and the page's pixels per
    millimetre; `picture` holds the page's pixels."""
    grid = flat.grid
    across, down = (grid.across, grid.down) if grid else (max(flat.image.size) / _PAGE_MM,) * 2
    mm = (across * down) ** 0.5
    scale = min(1.0, _COARSE / mm)
    return Ink(picture, across, down, scale, grid=grid is not None), mm


def _page_facts(
    flat: Flat, picture: Pixels, ink: Ink, rows: list[int], mm: float
) -> dict[str, float]:
    """Measure what can be measured without the layout; `mm`: pixels of a millimetre."""
    inside = np.ones(flat.light.shape, bool)
    light_scale = flat.light.shape[1] / flat.image.width
    if flat.frame is not None:
        inside = inside_frame(flat.frame * light_scale, flat.light.shape)
    stretch = max(flat.stretch, 1 / flat.stretch)
    facts = {
        "sharpness": edge_width(picture, ink, mm),
        "contrast": ink.contrast,
        "glare": glare_share(
            flat.light, inside, picture, mm * flat.light.shape[1] / flat.image.width
        ),
        "shadow": shadow_ratio(flat.light, inside),
        "cut off": float(cut_traces(ink, rows, flat.frame)),
        "grid": flat.grid.strength if flat.grid else 0.0,
        "orientation": flat.orientation_log_odds,
        "stretched": stretch,
        "part": flat.part,
    }
    if flat.grid:
        facts |= {"uneven": flat.grid.uneven, "resolution": mm}
        if flat.grid.uneven <= _EVEN:  # a bent grid's own waves leave its lattice
            facts["moire"] = flat.grid.moire
    if flat.sheet.mirrored or flat.mirror > MIRROR_LOG_ODDS:
        facts["mirrored"] = 1.0
    if (dark := _dark_background(picture)) is not None:
        facts["dark"] = dark
    return facts


def judge_facts(facts: Mapping[str, float]) -> tuple[Reason, ...]:
    """Compare facts with LIMITS; refusals come first.

    Where a page is no ECG, only the advice that fits remains.
    """
    reasons = []
    for check, limit in LIMITS.items():
        if check not in facts:
            continue
        value, sign = facts[check], -1 if limit.high_is_bad else 1
        for threshold, refuses in ((limit.refuses, True), (limit.warns, False)):
            if threshold is None:
                continue
            # "cut off" warns from 1 on, the rest below or above a limit.
            bad = value >= threshold if check == "cut off" else sign * value < sign * threshold
            if bad:
                fact = limit.fact.format(value=value, threshold=threshold)
                advice = f"{fact.replace('in 1 places', 'in 1 place')} {limit.action}"
                reasons.append(
                    Reason(check, round(value, 3), limit.unit, threshold, advice, refuses)
                )
                break
    reasons.sort(key=lambda reason: not reason.refuses)
    if facts.get("ecg", 1.0) < 0.5:  # all other advice would mislead
        by_check = {reason.check: reason for reason in reasons}
        reasons = [by_check[c] for c in ("unfilled", "dark", "ecg") if c in by_check][:1]
    return tuple(reasons)


def verdict_of(reasons: tuple[Reason, ...]) -> str:
    """Return the verdict that reasons make."""
    if any(reason.refuses for reason in reasons):
        return REFUSED
    return USABLE if reasons else GOOD


def _dark_background(picture: Pixels) -> float | None:
    """Return the level of 255 of an ECG's background where it is light on dark.

    It is None for anything else.
    """
    background = float(np.median(brightest(picture[::8, ::8])))
    if background >= _BLACK:
        return None
    mm = max(picture.shape) / _PAGE_MM
    ink = Ink(np.asarray(255 - picture, np.uint8), mm, mm, min(1.0, _COARSE / mm), grid=False)
    rows = find_rows(ink)
    return background if len(rows) >= 3 and traced_share(ink, rows) > _MIN_TRACED else None


def _ecg_probability(
    layouts: Mapping[str, float], rows: list[int], ink: Ink, picture: Pixels, flat: Flat
) -> float:
    """Return how likely the page is an ECG, by its grid, its rows of traces and the network."""
    if float(np.median(brightest(picture[::8, ::8]))) < _BLACK:
        return 0.1  # a screen: light traces on black
    by_network = 1 - layouts.get("none", 0.0)
    traced = traced_share(ink, rows)
    if flat.grid is None:
        return by_network if len(rows) >= 3 and traced >= _MIN_TRACED else 0.4 * by_network
    if not rows:
        return 0.45 * by_network
    doubtful = by_network < _DOUBTED or max(flat.stretch, 1 / flat.stretch) > STRETCH_LIMIT
    if (doubtful and traced < _MIN_TRACED) or (by_network < _NO_ECG and traced < _FULLY):
        return 0.4 * by_network  # what seemed a grid was the lines and columns of a table
    return max(0.6, by_network) if len(rows) >= 2 else 0.5 * by_network
