"""A recorded 12-lead ECG -> the pages a cart would print: 25 mm/s, 10 mm/mV, 3x4 and a rhythm strip of lead II.

In: a `Recording`. Out: RGB pages of ten seconds, each with what is known about it (`PlottedPage`). Nothing is written on a page
but lead names, speed, gain, and which seconds it shows where that is not all of a ten-second recording.

- A shorter recording: each of the four columns takes 2.5 seconds of what there is; the rest of the page stays blank.
- A longer one: further pages, the last of which shows the last ten seconds.
- Waves that do not fit: the page is drawn at half or a quarter of the gain, which its calibration pulses show too.
- Leads beyond the twelve: further rows above the rhythm strip.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from pulse_edge.page.plotted_page import LEAST, PlottedPage, Remark
from pulse_edge.page.recording import LEADS, Millivolts, Recording, Signal

ROWS = (("I", "aVR", "V1", "V4"), ("II", "aVL", "V2", "V5"), ("III", "aVF", "V3", "V6"))
STRIP = "II"
COLUMNS = 4
SECONDS = 10.0
"""Of the recording, on a page: 2.5 for each lead, all of it for the rhythm strip."""
PX_PER_MM = 8
GAINS = (10.0, 5.0, 2.5)
"""mm/mV. The first at which every wave fits is taken."""
ROUGHLY = 0.1
"""Seconds that may be missing without a word: carts end some samples before or after ten seconds."""
WIDER = 1.0
"""Seconds beyond ten for which the page is made wider instead of beginning another one."""
JUMP = 1.0
"""Millivolts by which a lead's baseline may stand off in a column before it is moved back into its strip."""
FLAT = 0.1
"""Millivolts from the lowest to the highest point of a flat line: 1 mm on paper."""
_FINER = 4
"""The trace is drawn this much larger, and comes out antialiased."""
_DENSE = 3
"""Points of a fine pixel column that are all drawn: 2,400 samples a second."""
_SPEED = 25  # mm/s
_LEFT, _TOP, _ROW, _RIGHT, _BOTTOM = 16, 12, 36, 8, 14  # mm
_ZERO = 0.56
"""Where 0 mV lies in a row."""
_PEN = 0.28  # mm
_PAPER, _MINOR, _MAJOR, _INK = (255, 253, 252), (251, 214, 212), (238, 156, 156), (20, 20, 25)

Draw = Callable[[], tuple[Image.Image, PlottedPage]]


def pages(recording: Recording) -> list[Draw]:
    """The pages of a recording, to be drawn one by one; there is at least one."""
    spans = _spans(recording.seconds)
    return [
        partial(_Sheet(recording, start, stop, n + 1, len(spans)).draw)
        for n, (start, stop) in enumerate(spans)
    ]


def _spans(seconds: float) -> list[tuple[float, float]]:
    """First and last second of each page."""
    count, rest = divmod(seconds, SECONDS)
    if count < 1 or (count == 1 and rest < WIDER):
        return [(0.0, seconds)]
    spans = [(SECONDS * n, SECONDS * (n + 1)) for n in range(int(count))]
    if rest >= WIDER:
        spans.append((seconds - SECONDS, seconds))
    elif rest > 0:
        spans[-1] = spans[-1][0], seconds
    return spans


@dataclass(frozen=True)
class _Trace:
    """A stretch of a lead, where it goes on the page."""

    lead: str
    row: int
    shift: float
    """Seconds to add to those of the recording for where they lie on the page, from the left end of the strip on."""
    start: float
    """Second of the recording, as `stop`."""
    stop: float
    seconds: Millivolts
    mv: Millivolts
    """Above and below the lead's baseline."""
    moved: float
    """Millivolts that its baseline was moved by, against the lead's own on this page."""

    @property
    def recorded(self) -> npt.NDArray[np.bool_]:
        return np.isfinite(self.mv)

    @property
    def range(self) -> tuple[float, float]:
        """Lowest and highest point; 0 and 0 of nothing."""
        some = self.mv[self.recorded]
        return (float(some.min()), float(some.max())) if some.size else (0.0, 0.0)


class _Sheet:
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
        self._width = round((_LEFT + SECONDS * _SPEED + _RIGHT) * PX_PER_MM)
        self._width += max(0, math.ceil((self._span - SECONDS) * _SPEED - 0.5)) * PX_PER_MM
        self._height = (_TOP + len(self._rows) * _ROW + _BOTTOM) * PX_PER_MM

    def draw(self) -> tuple[Image.Image, PlottedPage]:
        traces = [
            self._trace(lead, r, c)
            for r, row in enumerate(self._rows)
            for c, lead in enumerate(row)
        ]
        gain = next((g for g in GAINS if all(self._fits(t, g) for t in traces)), GAINS[-1])
        page = Image.fromarray(_paper(self._width, self._height))
        for r in range(len(self._rows)):
            _draw_row(page, _middle(r), [t for t in traces if t.row == r], gain)
        self._names(page, gain)
        return page, self._facts(traces, gain)

    # --- which seconds of which lead go where ---

    @property
    def _whole(self) -> bool:
        """Whether the page is full: each column shows its own 2.5 seconds, as the rhythm strip below does."""
        return self._span >= SECONDS - ROUGHLY

    def _column(self, c: int) -> tuple[float, float]:
        """First and last second of a column: its quarter of the page, or where its leads were recorded."""
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
            candidates = [at for signal in leads for at in _stretches(signal, width)]
            candidates = [
                min(max(at, self._start), max(self._start, self._stop - width)) for at in candidates
            ]
            best = max(
                (start, *candidates), key=lambda at: (shown(at) > shown(start) + rough, shown(at))
            )
        return best, best + width

    def _trace(self, lead: str, row: int, column: int) -> _Trace:
        signal = self._recording.leads[lead]
        of_strip = row == len(self._rows) - 1
        start, stop = (
            (self._start, max(self._stop, self._start)) if of_strip else self._columns[column]
        )
        shift = (0 if of_strip else column * SECONDS / COLUMNS) - start
        seconds, mv = signal.between(start, stop)
        baseline, moved = _median(signal.between(self._start, self._stop)[1]), 0.0
        if np.isfinite(mv).any() and abs(_median(mv) - baseline) > JUMP:
            moved = _median(mv) - baseline
            baseline += moved
        trace = _Trace(lead, row, shift, start, stop, seconds, mv - baseline, moved)
        if not of_strip and not self._fits(trace, GAINS[0]):
            # The sample at `stop` belongs to the next column: a jump between them must not lower the gain.
            trace = replace(trace, seconds=seconds[:-1], mv=trace.mv[:-1])
        if self._fits(trace, GAINS[-1]):
            return trace
        middle = sum(trace.range) / 2
        return replace(trace, mv=trace.mv - middle, moved=moved + middle)

    def _fits(self, trace: _Trace, gain: float) -> bool:
        """Whether no wave leaves the strip of two rows' height that each row is drawn on, or the page."""
        low, high = trace.range
        up = min(_ROW, _middle(trace.row)) - _PEN
        down = min(_ROW, self._height / PX_PER_MM - _middle(trace.row)) - _PEN
        return high * gain <= up and -low * gain <= down

    # --- what is written ---

    def _names(self, page: Image.Image, gain: float) -> None:
        k, pen = PX_PER_MM, ImageDraw.Draw(page)
        font = ImageFont.load_default(round(3.6 * k))
        for r, row in enumerate(self._rows):
            for c, name in enumerate(row):
                x = _LEFT + c * SECONDS * _SPEED / COLUMNS + 1
                pen.text((x * k, (_middle(r) - 14) * k), name, _INK, font)
                if c:
                    line = (x - 1) * k, _middle(r) * k
                    pen.line([(line[0], line[1] - 3 * k), (line[0], line[1] + 3 * k)], _INK, 2)
        below = "    ".join((f"{_SPEED} mm/s", f"{gain:g} mm/mV", *self._footer()))
        pen.text((_LEFT * k, page.height - 8 * k), below, _INK, font)

    def _footer(self) -> list[str]:
        """What is said of a page that is not all of a ten-second recording of twelve leads."""
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

    # --- what is known ---

    def _facts(self, traces: Sequence[_Trace], gain: float) -> PlottedPage:
        shown: dict[str, float] = {}
        for t in traces:
            seconds = min(
                float(t.recorded.sum()) / self._recording.leads[t.lead].hz, t.stop - t.start
            )
            shown[t.lead] = max(shown.get(t.lead, 0.0), seconds)
        return PlottedPage(
            pixels_per_mm=float(PX_PER_MM),
            layout="3x4+1",
            speed=float(_SPEED),
            gain=gain,
            rows=tuple(_zero_pixel(_middle(r)) for r in range(len(self._rows))),
            first=round(self._start, 3),
            last=round(self._stop, 3),
            recorded=round(self._recording.seconds, 3),
            leads={lead: round(seconds, 3) for lead, seconds in shown.items()},
            computed=self._recording.computed,
            remarks=tuple(self._remarks(traces, shown, gain)),
        )

    def _remarks(
        self, traces: Sequence[_Trace], shown: dict[str, float], gain: float
    ) -> Iterable[Remark]:
        yield from self._about_seconds()
        yield from self._about_leads(traces, shown)
        if gain != GAINS[0]:
            tall = _listed(
                dict.fromkeys(t.lead for t in traces if not self._fits(t, GAINS[0])), "Lead"
            )
            yield Remark(
                "gain",
                gain,
                "mm/mV",
                GAINS[0],
                f"{tall} would leave the strip at 10 mm/mV, so the page is drawn at {gain:g} mm/mV, as its calibration pulse "
                "shows. Read voltages by that.",
            )
        cut = {t.lead: max(map(abs, t.range)) for t in traces if not self._fits(t, gain)}
        if cut:
            yield Remark(
                "cut off",
                max(cut.values()),
                "mV",
                _ROW / gain,
                f"{_listed(cut, 'Lead')} cannot be shown whole: up to {max(cut.values()):.0f} mV from the middle. Check the "
                "electrodes, and record again.",
            )
        if moved := {t.lead: abs(t.moved) for t in traces if t.moved and t.lead not in cut}:
            yield Remark(
                "baseline",
                max(moved.values()),
                "mV",
                JUMP,
                f"The baseline of {_listed(moved, 'lead')} jumps or wanders by {max(moved.values()):.1f} mV, and was moved "
                "back into the strip. Check the electrodes.",
            )
        if self._recording.averaged:
            yield Remark(
                "average",
                1.0,
                "recordings",
                0.0,
                "The file says that what it holds was derived by a machine: filtered or averaged. Compare it with the "
                "printed ECG.",
            )
        if rest := self._recording.left_out:
            some = ", ".join(rest[:4]) + (f" and {len(rest) - 4} more" if len(rest) > 4 else "")
            text = f"The file also holds {some}: not shown here. Check whether that matters."
            yield Remark("not shown", float(len(rest)), "things", 0.0, text)

    def _about_seconds(self) -> Iterable[Remark]:
        whole = self._recording.seconds
        if self._count > 1:
            text = (
                f"This page shows seconds {self._start:.1f} to {self._stop:.1f} of {whole:.1f}: page {self._number} of "
                f"{self._count}. Read the other pages too."
            )
            yield Remark("part", round(self._span, 3), "seconds", round(whole, 3), text)
        elif not self._whole:
            each = self._columns[0][1] - self._columns[0][0]
            text = (
                f"Only {whole:.1f} of {SECONDS:g} seconds were recorded; {each:.2g} of each lead are shown. "
                "Record ten seconds if you can."
            )
            yield Remark("seconds", round(whole, 3), "seconds", SECONDS, text)

    def _about_leads(self, traces: Sequence[_Trace], shown: dict[str, float]) -> Iterable[Remark]:
        count = sum(1 for seconds in shown.values() if seconds >= LEAST)
        absent = [lead for lead, seconds in shown.items() if not seconds]
        if count < len(shown):
            never = [lead for lead in absent if not self._recording.leads[lead].recorded()]
            other = [
                lead for lead, seconds in shown.items() if seconds < LEAST and lead not in never
            ]
            said = [f"{_listed(never, 'Lead')} {_were(never)} never recorded."] if never else []
            if other:
                said.append(
                    f"{_listed(other, 'Lead')} {_were(other)} recorded for less than a second of this page."
                )
            text = f"{' '.join(said)} Check the electrodes, and record again."
            yield Remark("leads", float(count), "leads", float(len(LEADS)), text, refuses=count < 3)
        gaps: dict[str, float] = {}
        for t in traces:
            gone = (
                min(t.stop, self._stop)
                - t.start
                - float(t.recorded.sum()) / self._recording.leads[t.lead].hz
            )
            if gone > ROUGHLY and shown[t.lead] >= LEAST:
                gaps[t.lead] = max(gaps.get(t.lead, 0.0), gone)
        if gaps:
            text = f"{_listed(gaps, 'Lead')} {_has(gaps)} gaps: up to {max(gaps.values()):.1f} seconds were not recorded."
            yield Remark(
                "gaps",
                round(max(gaps.values()), 3),
                "seconds",
                ROUGHLY,
                f"{text} Check the electrodes.",
            )
        ranges: dict[str, float] = {}
        for t in traces:
            ranges[t.lead] = max(ranges.get(t.lead, 0.0), t.range[1] - t.range[0])
        if flat := [lead for lead, mv in ranges.items() if mv < FLAT and lead not in absent]:
            if len(flat) == len(ranges) - len(absent):
                text = f"All leads are flat lines: less than {FLAT:g} mV. Look at the patient first, then at the electrodes."
            else:
                look = (
                    "Check the electrodes."
                    if len(flat) < 4
                    else "Look at the patient first, then at the electrodes."
                )
                lines = "is a flat line" if len(flat) == 1 else "are flat lines"
                text = f"{_listed(flat, 'Lead')} {lines} in the seconds shown: less than {FLAT:g} mV. {look}"
            yield Remark("flat", float(len(flat)), "leads", 1.0, text)


def _listed(names: Iterable[str], word: str) -> str:
    some = list(names)
    if len(some) == 1:
        return f"{word} {some[0]}"
    return f"{word}s {', '.join(some[:-1])} and {some[-1]}"


def _were(names: Sequence[str]) -> str:
    return "was" if len(names) == 1 else "were"


def _has(names: Iterable[str]) -> str:
    return "has" if len(list(names)) == 1 else "have"


def _stretches(signal: Signal, width: float) -> list[float]:
    """Seconds at which a window of `width` begins or ends with what was recorded of a lead."""
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
    some = mv[np.isfinite(mv)]
    return float(np.median(some)) if some.size else 0.0


# ------------------------------------------------------------------------------------------------------------- pixels


def _middle(row: int) -> float:
    """mm from the page's top to 0 mV of a row."""
    return _TOP + (row + _ZERO) * _ROW


def _zero_pixel(middle: float) -> float:
    """The same in pixels, as it is drawn: a row's strip begins at a whole pixel."""
    return float(round((middle - _ROW) * PX_PER_MM) + _ROW * PX_PER_MM)


def _paper(width: int, height: int) -> npt.NDArray[np.uint8]:
    """(height, width, 3) with lines each 1 and 5 mm."""
    paper = np.full((height, width, 3), _PAPER, np.uint8)
    for step, colour, thick in ((PX_PER_MM, _MINOR, 1), (5 * PX_PER_MM, _MAJOR, 2)):
        for n in range(thick):
            paper[n::step] = colour
            paper[:, n::step] = colour
    return paper


def _draw_row(page: Image.Image, middle: float, traces: Sequence[_Trace], gain: float) -> None:
    # A row's own strip, two rows high: tall waves reach into the neighbour's, as on paper.
    size = page.width, _ROW * 2 * PX_PER_MM
    strip = Image.new("L", (size[0] * _FINER, size[1] * _FINER))
    pen = ImageDraw.Draw(strip)
    _pulse(pen, gain)
    for trace in traces:
        _line(pen, trace, gain)
    page.paste(
        _INK, (0, round((middle - _ROW) * PX_PER_MM)), strip.resize(size, Image.Resampling.BOX)
    )


def _at(mm: Millivolts | float, mv: Millivolts | float, gain: float) -> npt.NDArray[np.float64]:
    """Pixels (n, 2) on a row's fine strip, whose middle is 0 mV; `mm` from the page's left."""
    k = PX_PER_MM * _FINER
    return np.stack(
        np.broadcast_arrays(np.asarray(mm) * k, (_ROW - np.asarray(mv) * gain) * k), axis=-1
    )


def _line(pen: ImageDraw.ImageDraw, trace: _Trace, gain: float) -> None:
    points = _at(_LEFT + (trace.seconds + trace.shift) * _SPEED, trace.mv, gain)
    breaks = np.flatnonzero(
        np.diff(np.concatenate([[False], trace.recorded, [False]]).astype(np.int8))
    )
    for a, b in breaks.reshape(-1, 2):
        stretch = _thinned(points[a:b])
        if len(stretch) == 1:  # a sample alone would not show
            stretch = np.concatenate([stretch, stretch + np.array([[1.0, 0.0]])])
        pen.line([(x, y) for x, y in stretch], 255, round(_PEN * PX_PER_MM * _FINER), "curve")


def _thinned(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The highest and lowest of many points that fall on one pixel column: 50,000 samples a second would take 10 s to draw."""
    columns = points[-1, 0] - points[0, 0] if len(points) else 0.0
    each = int(len(points) / max(columns, 1.0))
    if each <= _DENSE:
        return points
    y = points[: len(points) // each * each, 1].reshape(-1, each)
    starts = np.arange(len(y)) * each
    chosen = np.concatenate(
        [[0], starts + y.argmin(axis=1), starts + y.argmax(axis=1), [len(points) - 1]]
    )
    return np.asarray(points[np.unique(chosen)])


def _pulse(pen: ImageDraw.ImageDraw, gain: float) -> None:
    """1 mV for 0.2 s, left of the trace."""
    seconds = np.array([-0.40, -0.34, -0.34, -0.14, -0.14, -0.08])
    corners = _at(_LEFT + seconds * _SPEED, np.array([0, 0, 1, 1, 0, 0]), gain)
    pen.line([(x, y) for x, y in corners], 255, round(_PEN * PX_PER_MM * _FINER))
