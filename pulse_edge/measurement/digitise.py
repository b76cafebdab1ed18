"""A flat page -> the 12-lead signal that is printed on it, in millivolts and seconds.

In: an upright RGB page, the scale of its grid, and how probable each layout is. Out: `TracedSignal`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from pulse_edge.measurement.ink import Ink, Pixels, find_ink
from pulse_edge.measurement.layout import Layout, choose
from pulse_edge.measurement.pulse import MILLIVOLTS, SECONDS, Pulse, find_pulses
from pulse_edge.measurement.rows import find_rows
from pulse_edge.measurement.signal import LEADS, SAMPLES_PER_SECOND, TracedSignal
from pulse_edge.measurement.tracing import Line, follow

Float = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

FINEST = 8.0
"""Pixels per millimetre at which a page is traced at most."""
SPEEDS, GAINS = (25.0, 50.0, 12.5), (10.0, 5.0, 20.0)
"""mm/s and mm/mV of carts, the usual one first."""
PAGE_MM = 270.0
"""Width of a page whose grid does not tell its scale."""


@dataclass(frozen=True)
class Scale:
    """Pixels of a page per second and per millivolt."""

    per_second: float
    per_millivolt: float
    speed: float
    gain: float
    speed_certain: bool
    gain_certain: bool


def digitise(page: Pixels, across: float | None, down: float | None, layouts: Mapping[str, float]) -> TracedSignal:
    """Trace a page (H, W, 3); `across` and `down` in pixels per mm along and over the rows, None without a grid."""
    known = across is not None and down is not None
    if across is None or down is None:
        across = down = page.shape[1] / PAGE_MM
    shrink = min(1.0, FINEST / (across * down) ** 0.5)
    if shrink < 1:
        size = round(page.shape[1] * shrink), round(page.shape[0] * shrink)
        page = np.asarray(cv2.resize(page, size, interpolation=cv2.INTER_AREA), np.uint8)
        across, down = across * shrink, down * shrink
    ink = find_ink(page, across, down, grid=known)
    lines = follow(ink, find_rows(ink))
    pulses = find_pulses(lines, across, down)
    layout = choose(len(lines), layouts)
    if layout is None:
        return _nothing(f"{len(lines)} rows of traces were found, which no layout of twelve leads has.")
    spans = extents(lines, pulses, ink)
    scale = _scale(ink, pulses, spans, known=known)
    return _signal(lines, spans, layout, scale, ink)


def _nothing(reason: str) -> TracedSignal:
    empty = np.full((len(LEADS), 0), np.nan, np.float32)
    return TracedSignal(empty, (0.0,) * len(LEADS), SPEEDS[0], GAINS[0], False, False, "", (), (reason,))


def _scale(ink: Ink, pulses: tuple[Pulse, ...], spans: list[tuple[int, int]], *, known: bool) -> Scale:
    if not pulses:
        per_second, per_millivolt = SPEEDS[0] * ink.across, GAINS[0] * ink.down
        if not known:
            width = float(np.median([b - a for a, b in spans]))
            per_second = width / 10.0
            per_millivolt = per_second / SPEEDS[0] * GAINS[0]
        return Scale(per_second, per_millivolt, SPEEDS[0], GAINS[0], False, False)
    high = float(np.median([p.height for p in pulses])) / MILLIVOLTS
    long = float(np.median([p.length for p in pulses])) / SECONDS
    if not known:
        pairs = [(s, g) for s in SPEEDS for g in GAINS]
        speed, gain = min(pairs, key=lambda pair: round(abs(np.log(high / long * pair[0] / pair[1])), 1))
        width = float(np.median([b - a for a, b in spans]))
        whole = 10.0 if width / long > 7.5 else 5.0  # a pulse is too short to tell the time to a hundredth
        if abs(width / long / whole - 1) < 0.06:
            long = width / whole
        return Scale(long, high, speed, gain, False, True)
    gain, gain_certain = _nearest(high / ink.down, GAINS)
    speed, speed_certain = _nearest(long / ink.across, SPEEDS)
    return Scale(speed * ink.across, gain * ink.down, speed, gain, speed_certain, gain_certain)


def _nearest(value: float, usual: tuple[float, ...]) -> tuple[float, bool]:
    """The usual value that is nearest, and whether it is near; the first where none is."""
    best = min(usual, key=lambda u: abs(np.log(value / u)))
    near = abs(np.log(value / best)) < 0.2
    return (best, True) if near else (usual[0], False)


# ---------------------------------------------------------------------------------------------- where the traces begin and end


def extents(lines: tuple[Line, ...], pulses: tuple[Pulse, ...], ink: Ink) -> list[tuple[int, int]]:
    """First and last column, excluded, of each row's trace without its calibration pulse."""
    spans = []
    for n, line in enumerate(lines):
        spans.append(_extent(line, [p for p in pulses if p.row == n] or list(pulses), ink))
    return spans


def _extent(line: Line, pulses: list[Pulse], ink: Ink) -> tuple[int, int]:
    there = np.isfinite(line.y).reshape(-1, line.fine).any(axis=1)
    width = len(there)
    for pulse in pulses:
        if pulse.right < 0.4 * width:
            there[: _past_foot(there, pulse.right, 1, ink.across, line.stroke)] = False
        elif pulse.left > 0.6 * width:
            there[_past_foot(there, pulse.left, -1, ink.across, line.stroke) + 1 :] = False
    pieces = _pieces(there, max(2, round(0.8 * ink.across)))
    while len(pieces) > 1 and pieces[0][1] - pieces[0][0] < 9 * ink.across:
        pieces = pieces[1:]
    while len(pieces) > 1 and pieces[-1][1] - pieces[-1][0] < 9 * ink.across:
        pieces = pieces[:-1]
    return (pieces[0][0], pieces[-1][1]) if pieces else (0, 0)


def _past_foot(there: Mask, edge: float, way: int, mm: float, stroke: float) -> int:
    """The column where a trace begins that a pulse precedes: past the gap after the pulse's foot, or at the pulse itself."""
    start = round(edge + way * (stroke / 2 + 0.2 * mm))
    gap = max(2, round(0.3 * mm))
    for x in range(start, start + way * round(3.5 * mm), way):
        if 0 <= min(x, x + way * gap) and max(x, x + way * gap) < len(there):
            if not there[x : x + way * gap : way].any():
                return x
    return start


def _pieces(there: Mask, gap: int) -> list[tuple[int, int]]:
    """Runs of columns with ink; gaps shorter than `gap` are bridged."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], there.astype(np.int8), [0]]))).reshape(-1, 2)
    pieces: list[tuple[int, int]] = []
    for a, b in edges:
        if pieces and a - pieces[-1][1] < gap:
            pieces[-1] = pieces[-1][0], int(b)
        else:
            pieces.append((int(a), int(b)))
    return pieces


# --------------------------------------------------------------------------------------------------------- pixels to millivolts


def _signal(
    lines: tuple[Line, ...], spans: list[tuple[int, int]], layout: Layout, scale: Scale, ink: Ink
) -> TracedSignal:
    cap = lines[0].stroke / 2  # a pen's nib reaches that far beyond where its centre began and ended
    begin = float(np.median([a for a, _ in spans])) - 0.5 + cap
    end = float(np.median([b for _, b in spans])) - 0.5 - cap
    samples = int((end - begin) / scale.per_second * SAMPLES_PER_SECOND) + 1
    millivolts = np.full((len(LEADS), samples), np.nan, np.float32)
    scores = [0.0] * len(LEADS)
    for line, span, row in zip(lines, spans, layout.rows, strict=False):
        cuts = np.linspace(begin, end, len(row) + 1)
        for lead, a, b in zip(row, cuts[:-1], cuts[1:], strict=True):
            values = _sampled(line, (max(a, span[0]), min(b, span[1])), begin, samples, scale)
            millivolts[LEADS.index(lead)] = values
            scores[LEADS.index(lead)] = float(np.isfinite(values).mean() * len(row))
    strips = []
    for line, span, lead in zip(lines[len(layout.rows) :], spans[len(layout.rows) :], layout.strips, strict=False):
        strips.append((lead, _sampled(line, span, begin, samples, scale)))
    return TracedSignal(
        millivolts=millivolts,
        scores=tuple(min(1.0, s) for s in scores),
        millimetres_per_second=scale.speed,
        millimetres_per_millivolt=scale.gain,
        speed_certain=scale.speed_certain,
        gain_certain=scale.gain_certain,
        layout=layout.name,
        strips=tuple(strips),
    )


def _sampled(line: Line, span: tuple[float, float], begin: float, samples: int, scale: Scale) -> Float:
    """Millivolts (samples,) of a row between two columns, around their median; NaN elsewhere and in gaps."""
    out = np.full(samples, np.nan, np.float32)
    first, last = max(0, int(np.ceil(line.place(span[0] - 0.5)))), min(len(line.y), int(line.place(span[1] - 0.5)))
    y = line.y[first:last]
    there = np.isfinite(y)
    if there.sum() < 2:
        return out
    x = line.place(begin) + np.arange(samples) * (scale.per_second * line.fine / SAMPLES_PER_SECOND)
    near = np.round(x).astype(int) - first
    inside = (near >= 0) & (near < len(y))
    inside[inside] = there[near[inside]]
    columns = np.arange(first, last)[there]
    values = np.interp(x[inside], columns, y[there])
    out[inside] = (float(np.median(y[there])) - values) / scale.per_millivolt
    return out
