"""May this page be read? The verdict on the picture, and what its trace adds or corrects.

In: a page as it was read. Out: `TracedPage`, the flat page with its final verdict and its trace.
Every command and every program takes the verdict from here, whether or not it measures the trace.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from pulse_edge.errors import PageRefused
from pulse_edge.measurement.beats import channels_of, detect
from pulse_edge.measurement.consistency import Residuals
from pulse_edge.measurement.digitise import Digitised, digitise, nothing
from pulse_edge.measurement.layout import LAYOUTS
from pulse_edge.measurement.page_turns import COMPLETE, TurnByTrace, log_odds, turn_by_trace
from pulse_edge.measurement.signal import LEADS
from pulse_edge.page import admission, quality, reader
from pulse_edge.page.admission import CheckedPage
from pulse_edge.page.channels import pixels
from pulse_edge.page.quality import Quality, Reason
from pulse_edge.page.quality_limits import LIMITS
from pulse_edge.page.traces import cut_traces

MIN_SIDE = 64
"""Pixels of a page's shorter side; ten times as many are needed to tell twelve leads apart."""
PARTIAL, THREE_COLUMNS = "partial", "4x3"
"""Layout of a page on which not all leads were seen, and the layout that the left three columns of a
3x4 page with a strip look like: their leads would get other names."""
TEN_SECONDS = 9.3
"""Seconds from which on a trace is complete from left to right: carts print ten, and traces of real
pages measure 9.45 to 10.2."""
TWO_PAGES = 13.0
"""Seconds above which leads that obey no law are those of two ECGs side by side."""
LAWFUL, LAWLESS = 0.9, 1.35
"""Einthoven's and Goldberger's residual added up: below LAWFUL the twelve leads stand where a
complete page has them, above LAWLESS they do not. Complete recordings of LUDB have 0.2 to 0.85, a
page without its first row 1.2 to 2.2, real pages 0.1 to 1.2, one of 15 leads 1.8."""
CLEARLY = 0.35
"""By how much the second column must obey Einthoven's law better than Goldberger's, which it ought
to obey, to show the leads of the first one once more."""
FLAT_LAWS = 0.7
"""Sum of both residuals below which a page is flat enough, however uneven its grid seems: on grids
with lines every 5 mm alone the spacing is uncertain."""
AGAIN = 0.5
"""Residual below which leads of a later column are the limb leads of the first one once more.
Complete pages have 0.56 and more, single columns that were taken for two up to 0.46."""
FLAT_MM, FLAT_MV = 1.0, 0.1
"""Height from the lowest to the highest point below which a lead is a flat line, on the paper and in
the heart: the columns of 516 recordings have 0.15 mV and more."""
ASSUMED_GAIN = 0.6
"""By what these heights are multiplied where no calibration pulse shows the gain: it may be half of
the assumed one."""
TRACED = 0.9
"""Share of a lead that must be traced for it to count as a flat line."""
FEWEST_ROWS = 3
"""Rows below which a page that does not look like an ECG is not traced."""
LIKELY_PARTIAL = 0.4
"""Probability of a part of a page, from which on leads are missing where no trace can tell. Scans
with a black grid have 0.2 to 0.4, incomplete pages 0.65 and more."""
UPRIGHT, ECG_BY_TRACE = 4.0, 0.6
"""Log odds of an upright page from which on twelve lawful leads make a page an ECG that does not
look like one to the network, and the likelihood that it gets."""
NO_HEARTBEAT = (
    "No heartbeat in the trace: asystole, or the leads were off. Look at the patient first, then at "
    "the electrodes."
)


@dataclass(frozen=True)
class TracedPage:
    """A page with its final verdict, and its trace."""

    checked: CheckedPage
    trace: Digitised


def check(page: reader.Page, *, straighten: bool = True) -> TracedPage:
    """Flatten, trace and judge a page, without refusing it.

    Without `straighten` its pixels stay as they are.
    """
    start = time.perf_counter()
    checked = admission.check(page, straighten=straighten)
    traced = trace(checked)
    if page.plot is None:
        by_trace = turn_by_trace(checked.flat, _layouts(checked), checked.quality.rows, traced)
        if by_trace.turn is not None and by_trace.certain and straighten:
            turn = replace(by_trace.turn, log_odds=by_trace.margin)
            checked = admission.turned(checked, turn)
            traced = trace(checked)
            by_trace = TurnByTrace(log_odds(traced))
        checked = replace(checked, quality=verdict(checked, traced, by_trace))
        if any(r.refuses and r.check == "ecgs" for r in checked.quality.reasons):
            traced = nothing("There are two ECGs on the picture.")
    return TracedPage(replace(checked, seconds=time.perf_counter() - start), traced)


def admit(page: reader.Page, straighten: bool, force: bool) -> TracedPage:
    """Check a page.

    Raises PageRefused where it is refused; with `force` that is only noted in its quality.
    """
    width, height = page.image.size
    if min(width, height) < MIN_SIDE:
        raise PageRefused(
            f"{page.name}: the page is {width} x {height} pixels: too narrow to be an ECG page. "
            "Take the picture again, with the whole sheet in view."
        )
    traced = check(page, straighten=straighten)
    if not force:
        raise_if_refused(traced.checked)
        return traced
    judged = traced.checked.quality
    if judged.verdict != quality.REFUSED:
        return traced
    return replace(traced, checked=replace(traced.checked, quality=replace(judged, forced=True)))


def raise_if_refused(checked: CheckedPage) -> None:
    """Raise PageRefused for a refused page, with what is wrong and how to take it again."""
    if checked.quality.verdict == quality.REFUSED:
        reason = next(r for r in checked.quality.reasons if r.refuses)
        raise PageRefused(f"{checked.page.name}: {reason.advice}")


def trace(checked: CheckedPage) -> Digitised:
    """Trace a checked page; leads that cannot be traced are missing, with the reasons.

    A page that does not look like an ECG is traced as well if it has rows on a grid.
    """
    flat, judged = checked.flat, checked.quality
    if judged.layout is None and (flat.grid is None or len(judged.rows) < FEWEST_ROWS):
        return nothing("The page does not look like an ECG, so no trace was followed.")
    traced = _digitised(checked, _layouts(checked))
    if has_twelve_leads(traced) is False and (others := _others(traced)):
        other = _digitised(checked, others)
        traced = other if has_twelve_leads(other) else traced
    if judged.layout == PARTIAL and traced.signal.layout == THREE_COLUMNS:
        return nothing("Leads are missing, and what remains could be read as another layout.")
    return traced


def _digitised(checked: CheckedPage, layouts: Mapping[str, float]) -> Digitised:
    grid = checked.flat.grid
    across, down = (grid.across, grid.down) if grid else (None, None)
    page = np.asarray(checked.flat.image)
    return digitise(page, across, down, layouts, checked.quality.rows)


def _others(traced: Digitised) -> dict[str, float]:
    """The complete layouts with as many rows as the traced one: 6x2 and 3x4+3 look alike where the
    leads are not named."""
    complete = [layout for layout in LAYOUTS if layout.name in COMPLETE]
    rows = [layout.count for layout in complete if layout.name == traced.signal.layout]
    return {
        layout.name: 1.0
        for layout in complete
        if layout.count in rows and layout.name != traced.signal.layout
    }


def _layouts(checked: CheckedPage) -> dict[str, float]:
    """Probability of each layout, at least one half for the page's own."""
    layouts = dict(checked.flat.layout)
    if checked.quality.layout is not None:
        own = checked.quality.layout
        layouts[own] = max(layouts.get(own, 0.0), 0.5)
    return layouts


# --- the verdict ----------------------------------------------------------------------------------


def verdict(checked: CheckedPage, traced: Digitised, by_trace: TurnByTrace) -> Quality:
    """Return the final quality of a page: that of its picture, with the number of its leads, what
    is cut off, what is flat and which way is up by its trace."""
    judged = checked.quality
    facts, layout = dict(judged.facts), judged.layout
    complete = has_twelve_leads(traced)
    if complete is False and layout in COMPLETE and traced.signal.layout not in ("", layout):
        complete = None  # rows were traced in another layout than the picture shows
    if layout is None:
        if not (complete and by_trace.log_odds >= UPRIGHT):
            return judged
        facts["ecg"] = max(facts["ecg"], ECG_BY_TRACE)
    if complete:
        layout = traced.signal.layout
        facts |= {"leads": 12.0, "layout": max(facts.get("layout", 0.0), _lawfulness(traced))}
    elif complete is False:
        layout = PARTIAL
        facts["leads"] = float(min(len(traced.rows.rows) or len(judged.rows), 11))
    elif layout == PARTIAL and _layout_unknown(checked, traced):
        del facts["leads"]  # neither the picture nor the trace says that leads are missing
        facts["layout"] = max(p for n, p in checked.flat.layout.items() if n in COMPLETE)
    if _two_side_by_side(traced):
        facts["ecgs"] = 2.0
    if complete and _lawfulness(traced) > 1 - FLAT_LAWS / 2 and "uneven" in facts:
        facts["uneven"] = min(facts["uneven"], float(LIMITS["uneven"].refuses or 0))
    if facts.get("cut off", 0) >= 1 and traced.rows.rows:
        facts["cut off"] = float(_cut(checked, traced))
    facts |= _orientation(facts["orientation"], by_trace)
    reasons = (*quality.judge_facts(facts), *_flat_lines(traced))
    reasons = tuple(sorted(reasons, key=lambda r: (not r.refuses, r.check != "flat")))
    return replace(
        judged,
        verdict=quality.verdict_of(reasons),
        reasons=reasons,
        facts={name: round(value, 3) for name, value in facts.items()},
        layout=layout,
        leads=int(facts.get("leads", judged.leads)),
    )


def _orientation(by_picture: float, by_trace: TurnByTrace) -> dict[str, float]:
    """Return the facts about which way is up, by the networks and by the trace."""
    if by_trace.turn is None:
        return {"orientation": max(by_picture, by_trace.log_odds or by_picture)}
    facts = {"orientation": min(by_picture, -by_trace.margin)}
    if by_trace.certain and by_trace.turn.mirrored:
        facts["mirrored"] = 1.0
    return facts


def has_twelve_leads(traced: Digitised) -> bool | None:
    """Tell by the trace whether a page shows all twelve leads; None where the trace cannot tell."""
    name, rows = traced.signal.layout, traced.rows
    if not name:
        # Rows of a layout were traced, and are too short for its columns.
        return False if rows.rows else None
    if name not in COMPLETE:
        return False
    if rows.all_flat:
        return None
    return obeys_laws(rows.polarity.residuals)


def obeys_laws(laws: Residuals) -> bool | None:
    """Tell whether leads stand where a complete page has them; None where that is not clear."""
    if math.isnan(laws.einthoven + laws.goldberger):
        return None
    if laws.goldberger_again < AGAIN and laws.goldberger < AGAIN:
        return False  # the limb leads go on through the second column
    apart = laws.einthoven + laws.goldberger
    repeated = laws.einthoven_again < min(AGAIN, laws.goldberger - CLEARLY)
    headless = laws.goldberger_first < AGAIN < laws.einthoven  # begins with aVR, aVL and aVF
    if repeated or headless or apart > LAWLESS:
        return False
    return True if apart < LAWFUL else None


def _layout_unknown(checked: CheckedPage, traced: Digitised) -> bool:
    """Whether no trace could be followed on a page of several rows, and its picture may as well
    show a complete layout as a part of one."""
    part = checked.flat.layout[PARTIAL]
    return (
        not traced.rows.rows and len(checked.quality.rows) > FEWEST_ROWS and part < LIKELY_PARTIAL
    )


def _lawfulness(traced: Digitised) -> float:
    """How well the limb leads obey the laws, 0 to 1."""
    laws = traced.rows.polarity.residuals
    return max(0.0, 1 - (laws.einthoven + laws.goldberger) / 2)


def _two_side_by_side(traced: Digitised) -> bool:
    """Whether the rows are as long as two ECGs, and their leads are not those of one."""
    return traced.rows.seconds > TWO_PAGES and has_twelve_leads(traced) is not True


def _cut(checked: CheckedPage, traced: Digitised) -> int:
    """Count the traces of the traced rows that touch the border of the picture.

    Where ten seconds were traced, the left and right border have cut off no more than a calibration
    pulse or the sheet's edge, and do not count.
    """
    ink, _ = quality.coarse_ink(checked.flat, pixels(checked.flat.image))
    rows = [y * ink.scale for y in traced.rows.rows]
    sides = traced.rows.seconds < TEN_SECONDS
    return cut_traces(ink, rows, checked.flat.frame, sides=sides)


def _flat_lines(traced: Digitised) -> tuple[Reason, ...]:
    """Say that all leads, or some, are flat lines."""
    signal = traced.signal
    if not signal.layout:
        return ()
    if traced.rows.all_flat and detect(channels_of(signal), signal.millivolts.shape[1]).asystole:
        return (Reason("flat", 12.0, "leads", 1.0, NO_HEARTBEAT, refuses=False),)
    flat = flat_leads(traced)
    if not flat:
        return ()
    lines = f"Lead {flat[0]} is a flat line" if len(flat) == 1 else _listed(flat)
    advice = f"{lines}: less than {FLAT_MV:g} mV. Check the electrodes."
    return (Reason("flat", float(len(flat)), "leads", 1.0, advice, refuses=False),)


def _listed(names: tuple[str, ...]) -> str:
    return f"Leads {', '.join(names[:-1])} and {names[-1]} are flat lines"


def flat_leads(traced: Digitised) -> tuple[str, ...]:
    """Leads that were traced and are flat lines."""
    signal = traced.signal
    limit = min(FLAT_MV, FLAT_MM / signal.millimetres_per_millivolt)
    limit *= 1.0 if signal.gain_certain else ASSUMED_GAIN
    flat = []
    for lead, values, score in zip(LEADS, signal.millivolts, signal.scores, strict=True):
        there = values[np.isfinite(values)]
        if score >= TRACED and there.size:
            height = float(np.ptp(there))
            flat += [lead] if height < limit else []
    return tuple(flat)
