"""Write the remarks on a plotted page that its reader needs.

They name missing seconds and leads, an unusual gain, gaps and flat lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pulse_edge.page.plot_drawing import ROW, Trace
from pulse_edge.page.plotted_page import MIN_LEAD_SECONDS, Remark
from pulse_edge.page.recording import LEADS, Recording

SECONDS = 10.0
"""Seconds of the recording on a page: 2.5 for each lead, all of it for the rhythm strip."""
GAINS = (10.0, 5.0, 2.5)
"""Gains in mm/mV. The first at which every wave fits is taken."""
ROUGHLY = 0.1
"""Seconds that may be missing without a remark: carts end some samples before or after ten seconds.
"""
JUMP = 1.0
"""Millivolts by which a lead's baseline may differ in a column before it is moved back into its
strip."""
FLAT = 0.1
"""Millivolts from the lowest to the highest point of a flat line: 1 mm on paper."""


@dataclass(frozen=True)
class Sheet:
    """A page that was laid out."""

    recording: Recording
    traces: Sequence[Trace]
    shown: Mapping[str, float]
    """Lead -> seconds of it on the page."""
    gain: float
    """Gain in mm/mV."""
    start: float
    """Second of the recording at which the page begins."""
    stop: float
    """Second of the recording at which the page ends."""
    number: int
    """Number of the page, from 1."""
    count: int
    """Pages of the recording."""
    whole: bool
    """Whether the page is full: each column shows its own 2.5 seconds."""
    seconds_per_lead: float
    fits: Callable[[Trace, float], bool]
    """Whether a trace stays on its strip at a gain."""


def remarks(sheet: Sheet) -> Iterable[Remark]:
    """Return all remarks on a page."""
    yield from _on_seconds(sheet)
    yield from _on_leads(sheet)
    yield from _on_gaps(sheet)
    yield from _on_flat_lines(sheet)
    yield from _on_heights(sheet)
    if sheet.recording.averaged:
        yield Remark(
            "average",
            1.0,
            "recordings",
            0.0,
            "The file says that what it holds was derived by a machine: filtered or averaged. "
            "Compare it with the printed ECG.",
        )
    if rest := sheet.recording.not_shown:
        names = ", ".join(rest[:4]) + (f" and {len(rest) - 4} more" if len(rest) > 4 else "")
        text = f"The file also holds {names}: not shown here. Check whether that matters."
        yield Remark("not shown", float(len(rest)), "things", 0.0, text)


def _on_seconds(sheet: Sheet) -> Iterable[Remark]:
    whole = sheet.recording.seconds
    if sheet.count > 1:
        text = (
            f"This page shows seconds {sheet.start:.1f} to {sheet.stop:.1f} of {whole:.1f}: page "
            f"{sheet.number} of {sheet.count}. Read the other pages too."
        )
        span = round(sheet.stop - sheet.start, 3)
        yield Remark("part", span, "seconds", round(whole, 3), text)
    elif not sheet.whole:
        text = (
            f"Only {whole:.1f} of {SECONDS:g} seconds were recorded; {sheet.seconds_per_lead:.2g} "
            "of each lead are shown. Record ten seconds if you can."
        )
        yield Remark("seconds", round(whole, 3), "seconds", SECONDS, text)


def _on_leads(sheet: Sheet) -> Iterable[Remark]:
    shown = sheet.shown
    count = sum(1 for seconds in shown.values() if seconds >= MIN_LEAD_SECONDS)
    if count == len(shown):
        return
    never = [lead for lead in _absent(sheet) if not sheet.recording.leads[lead].recorded()]
    short = [
        lead for lead, seconds in shown.items() if seconds < MIN_LEAD_SECONDS and lead not in never
    ]
    texts = [f"{_listed(never, 'Lead')} {_were(never)} never recorded."] if never else []
    if short:
        texts.append(
            f"{_listed(short, 'Lead')} {_were(short)} recorded for less than a second of this page."
        )
    text = f"{' '.join(texts)} Check the electrodes, and record again."
    yield Remark("leads", float(count), "leads", float(len(LEADS)), text, refuses=count < 3)


def _on_gaps(sheet: Sheet) -> Iterable[Remark]:
    gaps: dict[str, float] = {}
    for t in sheet.traces:
        recorded = float(t.recorded.sum()) / sheet.recording.leads[t.lead].hz
        gap = min(t.stop, sheet.stop) - t.start - recorded
        if gap > ROUGHLY and sheet.shown[t.lead] >= MIN_LEAD_SECONDS:
            gaps[t.lead] = max(gaps.get(t.lead, 0.0), gap)
    if gaps:
        longest = max(gaps.values())
        text = (
            f"{_listed(gaps, 'Lead')} {_has(gaps)} gaps: up to {longest:.1f} seconds were not "
            "recorded. Check the electrodes."
        )
        yield Remark("gaps", round(longest, 3), "seconds", ROUGHLY, text)


def _on_flat_lines(sheet: Sheet) -> Iterable[Remark]:
    ranges: dict[str, float] = {}
    for t in sheet.traces:
        ranges[t.lead] = max(ranges.get(t.lead, 0.0), t.range[1] - t.range[0])
    absent = _absent(sheet)
    flat = [lead for lead, mv in ranges.items() if mv < FLAT and lead not in absent]
    if not flat:
        return
    patient_first = "Look at the patient first, then at the electrodes."
    if len(flat) == len(ranges) - len(absent):
        text = f"All leads are flat lines: less than {FLAT:g} mV. {patient_first}"
    else:
        advice = "Check the electrodes." if len(flat) < 4 else patient_first
        lines = "is a flat line" if len(flat) == 1 else "are flat lines"
        text = (
            f"{_listed(flat, 'Lead')} {lines} in the seconds shown: less than {FLAT:g} mV. {advice}"
        )
    yield Remark("flat", float(len(flat)), "leads", 1.0, text)


def _on_heights(sheet: Sheet) -> Iterable[Remark]:
    gain = sheet.gain
    if gain != GAINS[0]:
        tall = dict.fromkeys(t.lead for t in sheet.traces if not sheet.fits(t, GAINS[0]))
        text = (
            f"{_listed(tall, 'Lead')} would leave the strip at 10 mm/mV, so the page is drawn at "
            f"{gain:g} mm/mV, as its calibration pulse shows. Read voltages by that."
        )
        yield Remark("gain", gain, "mm/mV", GAINS[0], text)
    cut = {t.lead: max(map(abs, t.range)) for t in sheet.traces if not sheet.fits(t, gain)}
    if cut:
        text = (
            f"{_listed(cut, 'Lead')} cannot be shown whole: up to {max(cut.values()):.0f} mV from "
            "the middle. Check the electrodes, and record again."
        )
        yield Remark("cut off", max(cut.values()), "mV", ROW / gain, text)
    if moved := {t.lead: abs(t.moved) for t in sheet.traces if t.moved and t.lead not in cut}:
        text = (
            f"The baseline of {_listed(moved, 'lead')} jumps or wanders by "
            f"{max(moved.values()):.1f} mV, and was moved back into the strip. Check the "
            "electrodes."
        )
        yield Remark("baseline", max(moved.values()), "mV", JUMP, text)


def _absent(sheet: Sheet) -> list[str]:
    """Return the leads that are not shown at all."""
    return [lead for lead, seconds in sheet.shown.items() if not seconds]


def _listed(names: Iterable[str], word: str) -> str:
    """Return names behind a word for them: `Lead I`, or `Leads I, II and V1`."""
    leads = list(names)
    if len(leads) == 1:
        return f"{word} {leads[0]}"
    return f"{word}s {', '.join(leads[:-1])} and {leads[-1]}"


def _were(names: Sequence[str]) -> str:
    return "was" if len(names) == 1 else "were"


def _has(names: Iterable[str]) -> str:
    return "has" if len(list(names)) == 1 else "have"
