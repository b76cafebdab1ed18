"""Flatten a page and judge its picture.

The verdict on the picture is not the last word: `pulse_edge.measurement.admission` adds what the
trace shows, and every command takes the verdict from there.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from pulse_edge.page import channels, orientation, quality, reader, rectify
from pulse_edge.page.page_turn import PageTurn
from pulse_edge.page.plotted_page import MIN_LEAD_SECONDS, PlottedPage
from pulse_edge.page.unfilled import unfilled_share


@dataclass(frozen=True)
class CheckedPage:
    """A page as the model may see it, and the verdict on it."""

    page: reader.Page
    """The page as it was read."""
    flat: rectify.Flat
    quality: quality.Quality
    seconds: float
    """Time that the check took."""


def check(page: reader.Page, *, straighten: bool = True) -> CheckedPage:
    """Flatten a page and judge its picture, without refusing it.

    Without `straighten` its pixels stay as they are.
    """
    start = time.perf_counter()
    if page.plot is not None:
        flat, judged = _check_plot(page.image, page.plot)
        return CheckedPage(page, flat, judged, time.perf_counter() - start)
    flat = rectify.flatten(page.image) if straighten else rectify.describe(page.image)
    judged = quality.judge(
        flat,
        unfilled=unfilled_share(channels.pixels(page.image)),
        classify=orientation.layout_probabilities,
    )
    return CheckedPage(page, flat, judged, time.perf_counter() - start)


def turned(checked: CheckedPage, turn: PageTurn) -> CheckedPage:
    """Turn or mirror a checked page, and judge it once more."""
    flat = rectify.turned(checked.flat, checked.page.image, turn)
    judged = quality.judge(
        flat,
        unfilled=checked.quality.facts.get("unfilled", 0.0),
        classify=orientation.layout_probabilities,
    )
    return replace(checked, flat=flat, quality=judged)


def _check_plot(image: Image.Image, plot: PlottedPage) -> tuple[rectify.Flat, quality.Quality]:
    """Return the facts of a page that this program plotted from a recording, without measuring."""
    scale = plot.pixels_per_mm
    flat = rectify.Flat(
        image=image,
        changed=False,
        sheet=rectify.Sheet(None, (False,) * 4, 0, 0.0),
        grid=rectify.Grid(scale, scale, scale, strength=math.inf, moire=0.0, uneven=0.0),
        layout={plot.layout: 1.0},
        orientation_log_odds=math.inf,
        to_page=None,
        frame=None,
        light=np.full((1, 1), 255, np.uint8),
    )
    reasons = tuple(
        quality.Reason(r.check, round(r.value, 3), r.unit, r.threshold, r.text, r.refuses)
        for r in sorted(plot.remarks, key=lambda r: not r.refuses)
    )
    refused = any(reason.refuses for reason in reasons)
    leads = sum(1 for seconds in plot.leads.values() if seconds >= MIN_LEAD_SECONDS)
    measured = {
        "leads": leads,
        "resolution": scale,
        "seconds": plot.last - plot.first,
        "gain": plot.gain,
    }
    judged = quality.Quality(
        verdict=quality.REFUSED if refused else quality.USABLE if reasons else quality.GOOD,
        reasons=reasons,
        facts={name: round(float(value), 3) for name, value in measured.items()},
        layout=plot.layout,
        leads=leads,
        rows=plot.rows,
    )
    return flat, judged


def facts(checked: CheckedPage) -> dict[str, Any]:
    """Return what `check --json` prints about a page and a report stores of it: a JSON object."""
    flat, judged = checked.flat, checked.quality
    corners, skew = flat.sheet.corners, flat.sheet.skew_degrees
    return {
        "file": checked.page.name.removesuffix(f"#{checked.page.number}"),
        "page": checked.page.number,
        "verdict": judged.verdict,
        "forced": judged.forced,
        "reasons": [
            {
                "check": r.check,
                "value": r.value,
                "unit": r.unit,
                "threshold": r.threshold,
                "advice": r.advice,
            }
            for r in judged.reasons
        ],
        "sheet": {
            "corners": corners and [[round(x, 1), round(y, 1)] for x, y in corners],
            "rotation": flat.sheet.rotation,
            "mirrored": flat.sheet.mirrored,
            "skew_degrees": skew if skew is None else round(skew, 2),
        },
        "grid": {
            "pixels_per_mm": flat.grid and round(flat.grid.pixels_per_mm, 3),
            "across": flat.grid and round(flat.grid.across, 3),
            "down": flat.grid and round(flat.grid.down, 3),
        },
        "layout": judged.layout,
        "leads": judged.leads,
        "changed": flat.changed,
        "recording": checked.page.plot and _recording(checked.page.plot),
        "facts": judged.facts,
        "seconds": round(checked.seconds, 3),
    }


def _recording(plot: PlottedPage) -> dict[str, Any]:
    """Return what a plotted page shows of its recording."""
    return {
        "first_second": plot.first,
        "last_second": plot.last,
        "seconds": plot.recorded,
        "mm_per_mv": plot.gain,
        "mm_per_second": plot.speed,
        "leads": plot.leads,
        "computed": list(plot.computed),
    }
