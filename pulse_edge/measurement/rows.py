"""Find the rows of traces on a page, and in each row where its trace begins and ends.

In: `Ink`. Out: y of each row, from top to bottom.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import combinations, pairwise

import cv2
import numpy as np
import numpy.typing as npt

from pulse_edge.measurement.ink import Ink, Mask
from pulse_edge.measurement.tracing import Line, follow

Float = npt.NDArray[np.float32]

LETTER_MM = 5.0
"""A piece of ink less wide than this is a letter or a mark."""
ON_GRID = 0.55
"""Share of a line's ink that lies on level lines of the grid from which on it is one of them; they
take 0.14 of the page."""
TWIN = 0.4
"""Share of its ink that a line has in common with another from which on both are the same trace."""
EVEN = (0.72, 1.4)
"""Distance of two neighbouring rows over the usual one, at least and at most; rhythm strips stand a
little apart."""
MANY = 14
"""More rows than any page has: lines of the grid."""
MOST = 9
"""More rows than that are not sorted out."""
COMPLETE = 0.75
"""Share of the columns with ink in which a row that was not seen at first has some."""
STRAIGHT, STRAIGHT_MM = 0.5, 0.25
"""Share of the page's width that a printed rule covers at least, and how far it strays from a
straight line at most."""
THROUGH = 0.3
"""Share of the page's width that ink of a row covers at least."""
BANDS_MM = (3.0, 7.0, 12.0)
"""Heights of the bands in which ink is counted, the next one where the rows found are no layout: a
baseline may wander by more than the height of the first."""
SKIPPED = (1.85, 2.15)
"""Distance of two neighbouring rows over the usual one where a row between them was not seen."""


def find_rows(ink: Ink, band_mm: float = BANDS_MM[0]) -> tuple[float, ...]:
    """Find y in pixels of the rows: where ink runs through much of the width, and more than above
    and below.

    Ink is counted in bands of a height of `band_mm` millimetres.
    """
    mask = traces_only(ink)
    height, width = mask.shape
    mm = ink.mm
    bin_px = max(1, int(2 * mm))
    count = width // bin_px
    if count < 5 or height < 3 * mm:
        return ()
    columns = mask[:, : count * bin_px].reshape(height, count, bin_px).any(axis=2).astype(np.uint8)
    band = cv2.dilate(columns, np.ones((int(band_mm * mm) | 1, 1), np.uint8)).astype(np.float32)
    share = cv2.GaussianBlur(band.mean(axis=1).reshape(-1, 1), (1, int(2 * mm) | 1), 0).ravel()
    reach, margin = max(1, int(max(5, band_mm) * mm)), int(2 * mm)
    peaks: list[int] = []
    for y in range(margin, height - margin):
        highest = share[y] > THROUGH and share[y] >= share[max(0, y - reach) : y + reach + 1].max()
        if highest and (not peaks or y - peaks[-1] > reach):
            peaks.append(y)
    if not peaks:
        return ()
    most = float(np.sort(share[peaks])[-min(3, len(peaks))])
    ends = [0, *peaks, height - 1]
    rows = []
    for before, y, after in zip(ends, ends[1:-1], ends[2:], strict=False):
        stands_out = share[y] - max(share[before : y + 1].min(), share[y : after + 1].min())
        if share[y] > 0.6 * most and stands_out > 0.2:
            rows.append(_centre(mask, y, int(max(2.5, 0.6 * band_mm) * mm)))
    return tuple(_completed(mask, rows))


def traced_rows(
    ink: Ink, hints: Sequence[float] = (), counts: Collection[int] = ()
) -> tuple[Line, ...]:
    """Follow the rows of a page; lines of a dark grid, of print and of the sheet's edge are left
    out.

    `hints`: y in pixels of rows that were found by other means. `counts`: how many rows the layouts
    have; where another number is found, wandering baselines are looked for.
    """
    first: tuple[Line, ...] = ()
    for band_mm in BANDS_MM:
        lines = _traced_rows(ink, hints, band_mm)
        if not counts or len(lines) in counts:
            return lines
        first = first or lines
    return first


def _traced_rows(ink: Ink, hints: Sequence[float], band_mm: float) -> tuple[Line, ...]:
    rows = find_rows(ink, band_mm)
    if len(rows) > MANY:  # what was found are lines of a dark grid
        return ()
    lines: tuple[Line, ...] = ()
    for _ in range(4):
        lines = follow(ink, rows)
        ruled = _outer_rule(lines, ink)
        if ruled is not None:
            ink = _erased(ink, lines[ruled])
            rows = find_rows(ink, band_mm)
            continue
        right = [line for line, ok in zip(lines, _are_traces(lines, ink), strict=True) if ok]
        worth = [float(np.isfinite(line.y).mean()) for line in right]
        chosen = _together([line.row for line in right], worth, hints, 3 * ink.down)
        if len(chosen) == len(rows):
            break
        rows = tuple(chosen)
    return lines


def _outer_rule(lines: tuple[Line, ...], ink: Ink) -> int | None:
    """The first or last line, if it is a printed rule: straight, while most of the others are not."""
    straight = [_is_straight(line, ink.down) for line in lines]
    if len(lines) < 3 or sum(straight) > 2:
        return None
    return next((n for n in (len(lines) - 1, 0) if straight[n]), None)


def _is_straight(line: Line, down: float) -> bool:
    there = np.flatnonzero(np.isfinite(line.y))
    if there.size < STRAIGHT * len(line.y):
        return False
    slope, level = np.polyfit(there, line.y[there].astype(np.float64), 1)
    off = np.abs(line.y[there] - level - slope * there)
    return bool(np.quantile(off, 0.99) < STRAIGHT_MM * down)


def _erased(ink: Ink, line: Line) -> Ink:
    """The ink without that of a straight line."""
    cover = ink.cover.copy()
    reach = int(np.ceil(line.stroke / 2 + 1.5))
    x = np.arange(cover.shape[1])
    for off in range(-reach, reach + 1):
        cover[np.clip(line.path + off, 0, len(cover) - 1), x] = 0
    return replace(ink, cover=cover)


def _are_traces(lines: tuple[Line, ...], ink: Ink) -> list[bool]:
    """Whether each line is a trace: with ink along most of it, most of that off the lines of the
    grid, and its own."""
    cover = [float(np.isfinite(line.y).mean()) for line in lines]
    usual = float(np.median(cover)) if cover else 0.0
    out = []
    for n, line in enumerate(lines):
        there = np.isfinite(line.y[:: line.fine])
        x = np.flatnonzero(there)
        on_grid = (
            float(ink.level[line.path[x], x].mean()) if ink.level is not None and x.size else 0.0
        )
        twin = any(
            m != n
            and float((np.abs(line.path - other.path) <= 2)[there].mean()) > TWIN
            and cover[m] >= cover[n]
            for m, other in enumerate(lines)
            if x.size
        )
        out.append(cover[n] > 0.55 * usual and on_grid < ON_GRID and not twin)
    return out


def _regular(rows: Sequence[float]) -> bool:
    """Whether rows lie at about equal distances."""
    gaps = np.diff(rows) / np.median(np.diff(rows)) if len(rows) > 2 else np.ones(1)
    return bool(gaps.min() > EVEN[0] and gaps.max() < EVEN[1])


def _together(
    rows: Sequence[float], worth: Sequence[float], hints: Sequence[float], near: float
) -> list[float]:
    """The rows that belong together: most ink at about equal distances, where all of them do not.

    `worth` is how much of each is ink; rows within `near` pixels of a hint count half as much
    again.
    """
    if len(rows) < 4 or len(rows) > MOST or _regular(rows):
        return list(rows)
    best: tuple[float, list[float]] = (0.0, list(rows))
    for count in range(3, len(rows) + 1):
        for chosen in combinations(range(len(rows)), count):
            some = [rows[n] for n in chosen]
            if not _regular(some):
                continue
            score = sum(
                worth[n] * (1.5 if any(abs(rows[n] - h) < near for h in hints) else 1.0)
                for n in chosen
            )
            if score > best[0]:
                best = score, some
    return best[1]


def _completed(mask: Mask, rows: list[float]) -> list[float]:
    """The rows with those that an even spacing asks for above, below and between, where a trace
    wanders too much to be seen."""
    if len(rows) < 3:
        return rows
    gap = float(np.median(np.diff(rows)))
    steps = np.diff(rows) / gap
    skipped = (steps > SKIPPED[0]) & (steps < SKIPPED[1])
    if not (skipped | ((steps > EVEN[0]) & (steps < EVEN[1]))).all():
        return rows
    places = [rows[0] - gap, rows[-1] + gap]
    places += [(a + b) / 2 for (a, b), step in zip(pairwise(rows), skipped, strict=True) if step]
    out = list(rows)
    for y in places:
        top, bottom = max(0, int(y - 0.45 * gap)), min(len(mask), int(y + 0.45 * gap))
        if bottom - top > 0.5 * gap:
            band = mask[top:bottom]
            used = np.flatnonzero(np.count_nonzero(mask, axis=0))
            if (
                used.size
                and (np.count_nonzero(band, axis=0)[used[0] : used[-1]] > 0).mean() > COMPLETE
            ):
                out.append(_centre(mask, int(y), int(0.4 * gap)))
    return sorted(out)


def traces_only(ink: Ink) -> Mask:
    """The ink (H, W) without what is no wider than a letter, and without rules that are straight
    across the page."""
    mask = ink.mask
    if ink.dark and ink.upright is not None and ink.level is not None:
        mask = mask & ~ink.upright & ~ink.level
    _, labels, stats, _ = cv2.connectedComponentsWithStats(
        cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)), connectivity=8
    )
    wide = stats[:, cv2.CC_STAT_WIDTH] >= LETTER_MM * ink.across
    wide[0] = False
    return np.asarray(wide[labels] & mask)


def _centre(mask: Mask, y: int, reach: int) -> float:
    """The usual y of the ink within `reach` pixels of y: the level of the baseline."""
    top = max(0, y - reach)
    weight = mask[top : y + reach + 1].sum(axis=1)
    if not weight.any():
        return float(y)
    return float(top + np.searchsorted(np.cumsum(weight), weight.sum() / 2))
