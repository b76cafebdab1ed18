"""Plot a recorded 12-lead ECG as the pages that a cart would print.

The layout is 3x4 with a rhythm strip of lead II, at 25 mm/s and 10 mm/mV.

In: a `Recording`. Out: RGB pages of ten seconds, each with the facts about it (`PlottedPage`). Only
lead names, speed and gain are written on a page, and which seconds it shows where that is not all
of a ten-second recording.

- A shorter recording: each of the four columns shows 2.5 seconds of it; the rest of the page stays
  blank.
- A longer one: further pages; the last one shows the last ten seconds.
- Waves that do not fit: the page is drawn at half or a quarter of the gain, which its calibration
  pulses show too.
- Leads beyond the twelve: further rows above the rhythm strip.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pulse_edge.page.plot_drawing import (
    BOTTOM,
    INK,
    LEFT,
    PEN,
    PX_PER_MM,
    RIGHT,
    ROW,
    SPEED,
    TOP,
    Trace,
    blank_paper,
    draw_row,
    row_middle,
    zero_pixel,
)
from pulse_edge.page.plot_remarks import GAINS, JUMP, ROUGHLY, SECONDS, Sheet, remarks
from pulse_edge.page.plotted_page import PlottedPage
from pulse_edge.page.recording import LEADS, Millivolts, Recording, Signal

ROWS = (("I", "aVR", "V1", "V4"), ("II", "aVL", "V2", "V5"), ("III", "aVF", "V3", "V6"))
STRIP = "II"
COLUMNS = 4
WIDER = 1.0
"""Seconds beyond ten up to which the page is made wider; from then on another page begins."""
Draw = Callable[[], tuple[Image.Image, PlottedPage]]
"""Gives an RGB page and its facts."""


def pages(recording: Recording) -> list[Draw]:
    """Return the pages of a recording, each as a function that draws it; there is at least one."""
    spans = _spans(recording.seconds)
    return [
        partial(_SheetPlot(recording, start, stop, n + 1, len(spans)).draw)
        for n, (start, stop) in enumerate(spans)
    ]


def _spans(seconds: float) -> list[tuple[float, float]]:
    """Return the first and last second of each page."""
    count, rest = divmod(seconds, SECONDS)
    if count < 1 or (count == 1 and rest < WIDER):
        return [(0.0, seconds)]
    spans = [(SECONDS * n, SECONDS * (n + 1)) for n in range(int(count))]
    if rest >= WIDER:
        spans.append((seconds - SECONDS, seconds))
    elif rest > 0:
        spans[-1] = spans[-1][0], seconds
    return spans


class _SheetPlot:
    """One page of a recording."""

    def __init__(
        self, recording: Recording, start: float, stop: float, number: int, count: int
    ) -> None:
        self._recording, self._start, self._stop = recording, start, stop
        self._number, self._count = number, count
        self._span = stop - start
        extra = [lead for lead in recording.leads if lead not in LEADS]
        self._rows = (
            *ROWS,
            *(tuple(extra[n : n + COLUMNS]) for n in range(0, len(extra), COLUMNS)),
            (STRIP,),
        )
        self._columns = [self._column(c) for c in range(COLUMNS)]
        self._width = round((LEFT + SECONDS * SPEED + RIGHT) * PX_PER_MM)
        self._width += max(0, math.ceil((self._span - SECONDS) * SPEED - 0.5)) * PX_PER_MM
        self._height = (TOP + len(self._rows) * ROW + BOTTOM) * PX_PER_MM

    def draw(self) -> tuple[Image.Image, PlottedPage]:
        """Draw the page at the first gain at which every wave fits; return it with its facts."""
        traces = [
            self._trace(lead, r, c)
            for r, row in enumerate(self._rows)
            for c, lead in enumerate(row)
        ]
        gain = next((g for g in GAINS if all(self._fits(t, g) for t in traces)), GAINS[-1])
        page = Image.fromarray(blank_paper(self._width, self._height))
        for r in range(len(self._rows)):
            draw_row(page, row_middle(r), [t for t in traces if t.row == r], gain)
        self._names(page, gain)
        return page, self._facts(traces, gain)

    # --- where the seconds of each lead go ---

    @property
    def _whole(self) -> bool:
        """Whether the page is full: each column shows its own 2.5 seconds, as the rhythm strip
        below does."""
        return self._span >= SECONDS - ROUGHLY

    def _column(self, c: int) -> tuple[float, float]:
        """Return the first and last second of a column: its quarter of the page, or where its leads
        were recorded."""
        quarter = SECONDS / COLUMNS
        if self._whole:
            start = self._start + c * quarter
            stop = start + quarter if c < COLUMNS - 1 else max(self._stop, start + quarter)
        else:
            width = min(quarter, self._span)
            start = self._start + c * (self._span - width) / (COLUMNS - 1)
            stop = start + width
        leads = [self._recording.leads[row[c]] for row in self._rows[:-1] if c < len(row)]
        width, best = stop - start, start

        def shown(at: float) -> float:
            return sum(signal.recorded(at, at + width) for signal in leads)

        rough = ROUGHLY * len(leads)
        if shown(start) < len(leads) * min(width, self._stop - start) - rough:
            candidates = [at for signal in leads for at in _recorded_windows(signal, width)]
            candidates = [
                min(max(at, self._start), max(self._start, self._stop - width)) for at in candidates
            ]
            best = max(
                (start, *candidates), key=lambda at: (shown(at) > shown(start) + rough, shown(at))
            )
        return best, best + width

    def _trace(self, lead: str, row: int, column: int) -> Trace:
        """Return the stretch of a lead for a row and column, its baseline moved where it would
        leave the strip."""
        signal = self._recording.leads[lead]
        is_strip = row == len(self._rows) - 1
        start, stop = (
            (self._start, max(self._stop, self._start)) if is_strip else self._columns[column]
        )
        shift = (0 if is_strip else column * SECONDS / COLUMNS) - start
        seconds, mv = signal.between(start, stop)
        baseline, moved = _median(signal.between(self._start, self._stop)[1]), 0.0
        if np.isfinite(mv).any() and abs(_median(mv) - baseline) > JUMP:
            moved = _median(mv) - baseline
            baseline += moved
        trace = Trace(lead, row, shift, start, stop, seconds, mv - baseline, moved)
        if not is_strip and not self._fits(trace, GAINS[0]):
            # The sample at `stop` belongs to the next column: a jump between them must not lower
            # the gain.
            trace = replace(trace, seconds=seconds[:-1], mv=trace.mv[:-1])
        if self._fits(trace, GAINS[-1]):
            return trace
        middle = sum(trace.range) / 2
        return replace(trace, mv=trace.mv - middle, moved=moved + middle)

    def _fits(self, trace: Trace, gain: float) -> bool:
        """Whether every wave stays on the page and on the strip of two rows' height that a row is
        drawn on."""
        low, high = trace.range
        up = min(ROW, row_middle(trace.row)) - PEN
        down = min(ROW, self._height / PX_PER_MM - row_middle(trace.row)) - PEN
        return high * gain <= up and -low * gain <= down

    # --- text on the page ---

    def _names(self, page: Image.Image, gain: float) -> None:
        k, pen = PX_PER_MM, ImageDraw.Draw(page)
        font = ImageFont.load_default(round(3.6 * k))
        for r, row in enumerate(self._rows):
            for c, name in enumerate(row):
                x = LEFT + c * SECONDS * SPEED / COLUMNS + 1
                pen.text((x * k, (row_middle(r) - 14) * k), name, INK, font)
                if c:
                    line = (x - 1) * k, row_middle(r) * k
                    pen.line([(line[0], line[1] - 3 * k), (line[0], line[1] + 3 * k)], INK, 2)
        below = "    ".join((f"{SPEED} mm/s", f"{gain:g} mm/mV", *self._footer()))
        pen.text((LEFT * k, page.height - 8 * k), below, INK, font)

    def _footer(self) -> list[str]:
        """Return the notes on a page that is not all of a ten-second recording of twelve leads."""
        notes = []
        if self._count > 1:
            notes.append(
                f"seconds {self._start:.1f} to {self._stop:.1f} of {self._recording.seconds:.1f}"
            )
        elif not self._whole:
            notes.append(f"{self._recording.seconds:.1f} s recorded")
        quarters = [self._start + c * SECONDS / COLUMNS for c in range(COLUMNS)]
        if any(abs(a - b) > ROUGHLY for (a, _), b in zip(self._columns, quarters, strict=True)):
            notes.append(f"columns from {', '.join(f'{a:.1f}' for a, _ in self._columns)} s")
        if self._recording.computed:
            notes.append(f"{', '.join(self._recording.computed)} computed")
        return notes

    # --- facts about the page ---

    def _facts(self, traces: Sequence[Trace], gain: float) -> PlottedPage:
        shown: dict[str, float] = {}
        for t in traces:
            seconds = min(
                float(t.recorded.sum()) / self._recording.leads[t.lead].hz, t.stop - t.start
            )
            shown[t.lead] = max(shown.get(t.lead, 0.0), seconds)
        sheet = Sheet(
            recording=self._recording,
            traces=tuple(traces),
            shown=shown,
            gain=gain,
            start=self._start,
            stop=self._stop,
            number=self._number,
            count=self._count,
            whole=self._whole,
            seconds_per_lead=self._columns[0][1] - self._columns[0][0],
            fits=self._fits,
        )
        return PlottedPage(
            pixels_per_mm=float(PX_PER_MM),
            layout="3x4+1",
            speed=float(SPEED),
            gain=gain,
            rows=tuple(zero_pixel(row_middle(r)) for r in range(len(self._rows))),
            first=round(self._start, 3),
            last=round(self._stop, 3),
            recorded=round(self._recording.seconds, 3),
            leads={lead: round(seconds, 3) for lead, seconds in shown.items()},
            computed=self._recording.computed,
            remarks=tuple(remarks(sheet)),
        )


def _recorded_windows(signal: Signal, width: float) -> list[float]:
    """Return the seconds at which a window of `width` begins or ends with a recorded stretch of a
    lead."""
    recorded = np.flatnonzero(np.isfinite(signal.mv))
    if not recorded.size:
        return []
    breaks = np.flatnonzero(np.diff(recorded) > 1)
    firsts = recorded[np.concatenate([[0], breaks + 1])][:50]
    lasts = recorded[np.concatenate([breaks, [recorded.size - 1]])][:50]
    return [
        *(signal.start + firsts / signal.hz).tolist(),
        *(signal.start + (lasts + 1) / signal.hz - width).tolist(),
    ]


def _median(mv: Millivolts) -> float:
    recorded_mv = mv[np.isfinite(mv)]
    return float(np.median(recorded_mv)) if recorded_mv.size else 0.0
