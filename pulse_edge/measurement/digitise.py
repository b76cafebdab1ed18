"""A flat page -> the 12-lead signal that is printed on it, in millivolts and seconds.

In: an upright RGB page, the scale of its grid, and how probable each layout is. Out:
`TracedSignal`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from pulse_edge.measurement.columns import Bar, agreed, find_bars, without
from pulse_edge.measurement.consistency import agreement, factors, strip_lead
from pulse_edge.measurement.facts import TracedRows, is_flat, polarity
from pulse_edge.measurement.grid import GridMap, even
from pulse_edge.measurement.ink import Ink, Pixels, find_grid, find_ink, without_frame
from pulse_edge.measurement.layout import LAYOUTS, Layout, fitting
from pulse_edge.measurement.pulse import MILLIVOLTS, SECONDS, Pulse, find_pulses
from pulse_edge.measurement.rows import traced_rows
from pulse_edge.measurement.signal import LEADS, SAMPLES_PER_SECOND, LeadPath, TracedSignal
from pulse_edge.measurement.tilt import levelled, tilt_of
from pulse_edge.measurement.tracing import Line
from pulse_edge.measurement.trust import reported

Float = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

FINEST = 8.0
"""Pixels per millimetre at which a page is traced at most."""
SPEEDS, GAINS = (25.0, 50.0, 12.5), (10.0, 5.0, 20.0)
"""mm/s and mm/mV of carts, the usual one first."""
SLOW = 12.5
"""mm/s that a pulse cannot show."""
UNLIKELY = 0.2
"""Probability of a layout over that of the likeliest one up to which a row may have been missed."""
FOOT_MM = 3.5
"""Length of the level line before the rising stroke of a calibration pulse."""
SHORTEST = 2.0
"""Seconds of a column at least: less than that are two columns of four, or a half page."""
SHORT_MM = 9.0
"""A piece of ink at the end of a row that is shorter than this is a lead name or a mark."""
PAGE_MM = 270.0
"""Width of a page whose grid does not tell its scale."""


@dataclass(frozen=True)
class Digitised:
    """A traced page."""

    signal: TracedSignal
    rows: TracedRows


@dataclass(frozen=True)
class Scale:
    """Millimetres of paper per second and per millivolt."""

    speed: float
    gain: float
    speed_certain: bool
    gain_certain: bool


def digitise(
    page: Pixels,
    across: float | None,
    down: float | None,
    layouts: Mapping[str, float],
    rows: Sequence[float] = (),
) -> Digitised:
    """Trace a page (H, W, 3); `across` and `down` in pixels per mm along and over the rows, None
    without a grid.

    `layouts` says how probable each layout is; `rows` are y in pixels of rows that were found by
    other means.
    """
    has_grid = across is not None and down is not None
    if across is None or down is None:
        across = down = page.shape[1] / PAGE_MM
    shrink = min(1.0, FINEST / (across * down) ** 0.5)
    if shrink < 1:
        size = round(page.shape[1] * shrink), round(page.shape[0] * shrink)
        page = np.asarray(cv2.resize(page, size, interpolation=cv2.INTER_AREA), np.uint8)
        across, down = across * shrink, down * shrink
    page, grid = find_grid(page, across, down) if has_grid else (page, even(across, down))
    ink = without_frame(find_ink(page, grid, has_grid=has_grid))
    height, width = page.shape[:2]
    del page  # 25 MB of a large photograph, while its rows are followed
    lines = traced_rows(ink, [y * shrink for y in rows], {layout.count for layout in LAYOUTS})
    pulses = find_pulses(lines, across, down)
    if not has_grid:
        grid = levelled(grid, tilt_of(lines, pulses), width, height)
    if not lines and len(rows) > 1:
        return nothing(
            "No trace could be told from the grid, whose lines are as dark as the trace."
        )
    choices = fitting(len(lines), layouts)
    if not choices:
        count = "No row" if not lines else "One row" if len(lines) == 1 else f"{len(lines)} rows"
        return nothing(f"{count} of traces found, which is no layout of twelve leads.")
    spans = extents(lines, pulses, ink)
    scale = _scale(ink, pulses, spans, has_grid=has_grid)
    plots = _plots(lines, spans, choices[0][0], grid, pulses)
    facts = _facts(lines, plots, pulses, scale, width, shrink)
    long_enough = [
        (layout, p) for layout, p in choices if facts.seconds >= SHORTEST * layout.columns
    ]
    if not long_enough:
        reason = f"The traces are {facts.seconds:.1f} seconds long, too short for columns of leads."
        return replace(nothing(reason), rows=facts)
    tried = [
        (_signal(_plots(lines, spans, layout, grid, pulses), layout, scale, shrink), p)
        for layout, p in long_enough
    ]
    signal, chance = max(tried, key=lambda t: t[1] * agreement(t[0].millivolts) ** 2)
    sure = chance > UNLIKELY * max(layouts.values(), default=0.0)
    facts = replace(facts, polarity=polarity(signal.millivolts))
    return Digitised(reported(signal, layout_sure=sure), facts)


def nothing(reason: str) -> Digitised:
    """No signal, and why."""
    empty = np.full((len(LEADS), 0), np.nan, np.float32)
    signal = TracedSignal(
        empty, (0.0,) * len(LEADS), SPEEDS[0], GAINS[0], False, False, "", (), (reason,)
    )
    return Digitised(signal, TracedRows((), (), 0.0, ""))


def _facts(
    lines: tuple[Line, ...],
    plots: list[Plot],
    pulses: tuple[Pulse, ...],
    scale: Scale,
    width: int,
    shrink: float,
) -> TracedRows:
    ends = {
        "left" if p.right < 0.4 * width else "right"
        for p in pulses
        if not 0.4 * width <= p.right <= 0.6 * width
    }
    length = float(np.median([plot.end - plot.begin for plot in plots])) / scale.speed
    inside = [plot.y[(plot.x >= plot.begin) & (plot.x <= plot.end)] for plot in plots]
    return TracedRows(
        rows=tuple(round(line.row / shrink, 1) for line in lines),
        flat=tuple(is_flat(y) for y in inside),
        seconds=round(max(0.0, length), 3),
        pulse="both" if len(ends) == 2 else next(iter(ends), ""),
    )


def _scale(
    ink: Ink, pulses: tuple[Pulse, ...], spans: list[tuple[int, int]], *, has_grid: bool
) -> Scale:
    """Speed and gain by the pulses; without a grid they stand for what the page's assumed
    millimetres are."""
    if has_grid and not pulses:
        return Scale(SPEEDS[0], GAINS[0], False, False)
    high = float(np.median([p.height for p in pulses])) / ink.down / MILLIVOLTS if pulses else 0.0
    long = float(np.median([p.length for p in pulses])) / ink.across / SECONDS if pulses else 0.0
    if has_grid:
        speed, speed_certain = _nearest(long, SPEEDS)
        if speed == SLOW:  # many carts print a pulse of half the length at the usual speed
            speed, speed_certain = SPEEDS[0], False
        gain, gain_certain = _nearest(high, GAINS)
        return Scale(speed, gain, speed_certain, gain_certain)
    width = float(np.median([b - a for a, b in spans])) / ink.across
    if not pulses:
        return Scale(width / 10, width / 10 / SPEEDS[0] * GAINS[0], False, False)
    whole = (
        10.0 if width / long > 7.5 else 5.0
    )  # a pulse is too short to tell the time to a hundredth
    return Scale(width / whole if abs(width / long / whole - 1) < 0.06 else long, high, False, True)


def _nearest(value: float, usual: tuple[float, ...]) -> tuple[float, bool]:
    """The usual value that is nearest, and whether it is near; the first where none is."""
    best = min(usual, key=lambda u: abs(np.log(value / u)))
    near = abs(np.log(value / best)) < 0.2
    return (best, True) if near else (usual[0], False)


# ---------------------------------------------------------------------------------------------- whe


def extents(lines: tuple[Line, ...], pulses: tuple[Pulse, ...], ink: Ink) -> list[tuple[int, int]]:
    """First and last column, excluded, of each row's trace without its calibration pulse."""
    spans = []
    for n, line in enumerate(lines):
        spans.append(_extent(line, [p for p in pulses if p.row == n] or list(pulses), ink))
    return spans


def _extent(line: Line, pulses: list[Pulse], ink: Ink) -> tuple[int, int]:
    inked = np.isfinite(line.y) | line.shared  # a spike that another row hides is no gap
    there = np.asarray(np.count_nonzero(inked.reshape(-1, line.fine), axis=1) > 0)
    width = len(there)
    for pulse in pulses:
        if pulse.right < 0.4 * width:
            there[: _past_foot(there, pulse.right, 1, ink.across, line.stroke)] = False
        elif pulse.left > 0.6 * width:
            there[_past_foot(there, pulse.left, -1, ink.across, line.stroke) + 1 :] = False
    pieces = _pieces(there, max(2, round(0.8 * ink.across)))
    while len(pieces) > 1 and pieces[0][1] - pieces[0][0] < SHORT_MM * ink.across:
        pieces = pieces[1:]
    while len(pieces) > 1 and pieces[-1][1] - pieces[-1][0] < SHORT_MM * ink.across:
        pieces = pieces[:-1]
    return (pieces[0][0], pieces[-1][1]) if pieces else (0, 0)


def _past_foot(there: Mask, edge: float, way: int, mm: float, stroke: float) -> int:
    """The column where a trace begins that a pulse precedes: past the gap after the pulse's foot,
    or at the pulse itself."""
    start = round(edge + way * (stroke / 2 + 0.5 * mm))
    gap = max(2, round(0.3 * mm))
    for x in range(start, start + way * round(3.5 * mm), way):
        ends = x, x + way * gap
        if (
            min(ends) >= 0
            and max(ends) < len(there)
            and not np.count_nonzero(there[x : x + way * gap : way])
        ):
            return x
    return start


def _pieces(there: Mask, gap: int) -> list[tuple[int, int]]:
    """Runs of columns with ink; gaps shorter than `gap` are bridged."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], there.astype(np.int8), [0]]))).reshape(
        -1, 2
    )
    pieces: list[tuple[int, int]] = []
    for a, b in edges:
        if pieces and a - pieces[-1][1] < gap:
            pieces[-1] = pieces[-1][0], int(b)
        else:
            pieces.append((int(a), int(b)))
    return pieces


# --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Plot:
    """The trace of one row on its paper."""

    x: Float
    """(n,) millimetres of paper, from left to right; `y` upwards. NaN in `y` where there is no ink."""
    y: Float
    begin: float
    """Millimetres at which the trace begins, and `end` at which it ends."""
    end: float
    pixels: Float
    """(n, 2) x, y of the pen on the page, in pixels of the traced picture."""
    cuts: tuple[float, ...] = ()
    """Millimetres at which the columns meet."""


def _plots(
    lines: tuple[Line, ...],
    spans: list[tuple[int, int]],
    layout: Layout,
    grid: GridMap,
    pulses: tuple[Pulse, ...],
) -> list[Plot]:
    """The traces of the rows on their paper, and where their columns meet."""
    body = lines[: len(layout.rows)]
    begin = _common([float(span[0]) for span in spans], grid.across)
    end = _common([float(span[1]) for span in spans], grid.across)
    meets = [
        find_bars(body, x, grid.across, grid.down)
        for x in np.linspace(begin, end, layout.columns + 1)[1:-1]
    ]
    places = [
        {row: _paper_x(lines[row], bar.middle, grid) for row, bar in matches.items()}
        for matches in meets
    ]
    edges = [float(np.median([_paper_x(line, x, grid) for line in body])) for x in (begin, end)]
    usual = [float(np.median(list(place.values()))) if place else float("nan") for place in places]
    sure = agreed(usual, edges[0], edges[1])
    meets = [matches if ok else {} for matches, ok in zip(meets, sure, strict=True)]
    places = [place if ok else {} for place, ok in zip(places, sure, strict=True)]
    plots = []
    for row, (line, span) in enumerate(zip(lines, spans, strict=True)):
        bars = [matches[row] for matches in meets if row in matches]
        # Some carts print a pulse before each column; the lead begins after it.
        foot = FOOT_MM * grid.across
        bars += [Bar(p.left - foot, p.right + line.stroke) for p in pulses if p.row == row]
        plots.append(_plotted(line, grid, span, bars))
    return _with_cuts(plots, places)


def _common(ends: list[float], mm: float) -> float:
    """Where the traces of the rows begin, or end: ink that is hidden lets a row begin late or end
    early, and a lead name in the margin lets it begin early.

    The place that most rows have in common within a millimetre, which is `mm` in the unit of
    `ends`, the rightmost of several such places; the middle where no two rows agree.
    """
    ordered = np.sort(ends)
    near = np.abs(ordered[:, None] - ordered) < mm
    count = near.sum(axis=1)
    if count.max() < 2:
        return float(np.median(ordered))
    best = np.flatnonzero(count == count.max())[-1]
    return float(np.median(ordered[near[best]]))


def _paper_x(line: Line, x: float, grid: GridMap) -> float:
    """Millimetres of paper at a pixel of a row."""
    place = np.array([x], np.float32)
    level = np.interp(place, np.arange(len(line.path)), line.path).astype(np.float32)
    return float(grid.millimetres(place, level)[0][0])


def _with_cuts(plots: list[Plot], places: list[dict[int, float]]) -> list[Plot]:
    """The plots with where the columns meet in each: at its bar, at the usual place of the bars, or
    at equal distances.

    `places` are the millimetres at which the bars of each pair of columns stand in some rows.
    """
    begin = _common([plot.begin for plot in plots], 1.0)
    end = _common([plot.end for plot in plots], 1.0)
    even_cuts = np.linspace(begin, end, len(places) + 2)[1:-1]
    usual = [
        float(np.median(list(place.values()))) if place else float(x)
        for place, x in zip(places, even_cuts, strict=True)
    ]
    return [
        replace(plot, cuts=tuple(place.get(row, x) for place, x in zip(places, usual, strict=True)))
        for row, plot in enumerate(plots)
    ]


def _plotted(line: Line, grid: GridMap, span: tuple[int, int], bars: list[Bar]) -> Plot:
    """Where a trace lies on its paper."""
    place = (
        np.arange(len(line.y), dtype=np.float32) - np.float32((line.fine - 1) / 2)
    ) / np.float32(line.fine)
    level = np.interp(place, np.arange(len(line.path)), line.path).astype(np.float32)
    traced = without(line, bars, grid.across)
    pen = np.where(np.isfinite(traced), traced, level).astype(np.float32)
    x, y = grid.millimetres(place, pen)
    cap = (
        line.stroke / 2 / grid.across
    )  # a pen's nib reaches that far beyond where its centre began and ended
    ends = np.interp([span[0] - 0.5, span[1] - 0.5], place, x)
    height = np.where(np.isfinite(traced), -y, np.nan).astype(np.float32)
    return Plot(x, height, ends[0] + cap, ends[1] - cap, np.stack(grid.before(place, pen), axis=1))


def _signal(plots: list[Plot], layout: Layout, scale: Scale, shrink: float) -> TracedSignal:
    begin = _common([plot.begin for plot in plots], 1.0)
    end = _common([plot.end for plot in plots], 1.0)
    samples = int((end - begin) / scale.speed * SAMPLES_PER_SECOND) + 1
    time = begin + np.arange(samples) * (scale.speed / SAMPLES_PER_SECOND)
    millivolts = np.full((len(LEADS), samples), np.nan, np.float32)
    scores = [0.0] * len(LEADS)
    paths = []
    for plot, row in zip(plots, layout.rows, strict=False):
        cuts = (begin, *plot.cuts, end)
        for lead, a, b in zip(row, cuts[:-1], cuts[1:], strict=True):
            values = _sampled(plot, max(a, plot.begin), min(b, plot.end), time) / scale.gain
            millivolts[LEADS.index(lead)] = values
            paths.append(LeadPath(lead, _path(plot, values, time, shrink)))
            scores[LEADS.index(lead)] = float(np.isfinite(values).mean() * len(row))
    checked = factors(millivolts)
    strips = []
    for plot, usual in zip(plots[len(layout.rows) :], layout.strips, strict=False):
        strip = _sampled(plot, plot.begin, plot.end, time) / np.float32(scale.gain)
        lead = strip_lead(strip, millivolts, usual)
        strips.append((lead, strip))
        paths.append(LeadPath(lead, _path(plot, strip, time, shrink), strip=True))
    return TracedSignal(
        millivolts=millivolts,
        scores=tuple(min(1.0, s) * float(f) for s, f in zip(scores, checked, strict=True)),
        millimetres_per_second=scale.speed,
        millimetres_per_millivolt=scale.gain,
        speed_certain=scale.speed_certain,
        gain_certain=scale.gain_certain,
        layout=layout.name,
        strips=tuple(strips),
        paths=tuple(paths),
    )


def _path(plot: Plot, values: Float, places: npt.NDArray[np.floating], shrink: float) -> Float:
    """Pixels (samples, 2) on the page, before it was made smaller by `shrink`, of a lead's samples."""
    x = np.maximum.accumulate(plot.x)
    there = np.isfinite(plot.y)
    columns = [np.interp(places, x[there], plot.pixels[there, n]) for n in (0, 1)]
    points = np.stack(columns, axis=1).astype(np.float32) / np.float32(shrink)
    points[~np.isfinite(values)] = np.nan
    return points


def _sampled(plot: Plot, first: float, last: float, places: npt.NDArray[np.floating]) -> Float:
    """Millimetres above their median of a trace at `places` on the paper (mm); NaN outside `first`
    to `last` and in gaps."""
    out = np.full(len(places), np.nan, np.float32)
    inside = (plot.x >= first) & (plot.x <= last)
    there = inside & np.isfinite(plot.y)
    if there.sum() < 2:
        return out
    # On a bent page a phase may waver by a hundredth of a millimetre, time does not run backwards.
    x = np.maximum.accumulate(plot.x)
    near = np.clip(np.searchsorted(x, places), 1, len(x) - 1)
    near -= places - x[near - 1] < x[near] - places
    visited = (places >= first) & (places <= last) & there[near]
    values = np.interp(places[visited], x[there], plot.y[there])
    out[visited] = values - float(np.median(plot.y[there]))
    return out
