"""Decide which of two rows owns ink in which their traces have grown together.

In: for each row the run of ink that its path passes, column by column. Out: upper and lower limits
of what belongs to each row, and where that cannot be told.

A spike is widest where it leaves its own baseline and narrowest at its tip. So the width of the ink
on either side of both baselines tells whose spike bridges the two rows, and whether it goes on
beyond the other row's trace. Where the ink has a waist between the baselines, two spikes meet there
tip to tip.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float32]
Index = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

NARROWER, WIDER = 0.8, 1.15
"""Width of a spike's tip over that of its base at most; and of another spike's base over that tip
at least."""
LONGEST_MM = 7.0
"""Two traces that share ink for longer lie on one another."""
WAIST = 0.75
"""Width of the ink where the tips of two spikes meet over that of either spike at most."""
TOUCHING = 1.7
"""Width of that ink over the pen's at most: where it is more, the tips have passed one another and
cannot be seen."""
BEYOND_MM = 0.8
"""Ink that reaches this far past a baseline is a spike."""


@dataclass(frozen=True, eq=False)
class Owned:
    """What belongs to one row, per fine column of the page."""

    top: Float
    """Limit above in pixels, minus infinity where there is none; `bottom` is the limit below."""
    bottom: Float
    shared: Mask
    """Columns whose ink belongs to another row as well."""
    hidden: Mask
    """Columns in which it cannot be told what belongs to the row."""


@dataclass(frozen=True, eq=False)
class _Pair:
    """Two neighbouring rows in one stretch of shared ink."""

    upper: float
    """y of the upper row's baseline, and `lower` of the lower one's."""
    lower: float
    widths: tuple[int, int, int, int]
    """Columns with ink just above and below the upper baseline, and just above and below the lower
    one."""
    waist: tuple[int, float]
    """Columns with ink where they are fewest between the baselines, and y there."""


def part(
    mask: Mask,
    ends: list[tuple[Index, Index]],
    paths: list[Index],
    nib: tuple[float, float],
    mm: tuple[float, float],
) -> list[Owned]:
    """Part the ink (H, W) of rows, given as first and last pixel of each row's run, -1 where there
    is none, and each row's path.

    `nib` is the pen's width in columns and height in pixels; `mm` are columns per millimetre across
    and pixels per millimetre down.
    """
    width = mask.shape[1]
    owned = [
        Owned(
            np.full(width, -np.inf, np.float32),
            np.full(width, np.inf, np.float32),
            np.zeros(width, bool),
            np.zeros(width, bool),
        )
        for _ in ends
    ]
    same = [(a[0] >= 0) & (a[0] == b[0]) & (a[1] == b[1]) for a, b in pairwise(ends)]
    for r, together in enumerate(same):
        for a, b in _stretches(together, round(0.4 * mm[0])):
            where = slice(a, b)
            for row in (owned[r], owned[r + 1]):
                row.shared[where] = together[where]
            chained = any(same[n][where].any() for n in (r - 1, r + 1) if 0 <= n < len(same))
            if b - a > LONGEST_MM * mm[0]:
                continue
            pair = _pair(mask, (paths[r], paths[r + 1]), (a, b), nib[1], mm)
            if not chained and _meet(owned[r], owned[r + 1], pair, where, nib[0]):
                continue
            _settle(owned[r], owned[r + 1], pair, where, chained=chained)
    return owned


def _stretches(mask: Mask, gap: int) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]]))).reshape(-1, 2)
    out: list[tuple[int, int]] = []
    for a, b in edges:
        if out and a - out[-1][1] <= gap:
            out[-1] = out[-1][0], int(b)
        else:
            out.append((int(a), int(b)))
    return out


def _pair(
    mask: Mask,
    paths: tuple[Index, Index],
    stretch: tuple[int, int],
    stroke: float,
    mm: tuple[float, float],
) -> _Pair:
    a, b = stretch
    reach = max(2, round(1.5 * mm[0]))
    before, after = slice(max(0, a - reach), max(1, a)), slice(b, b + reach)
    levels = [
        float(np.median(np.concatenate([path[before], path[after], path[a:b][:1]])))
        for path in paths
    ]
    clear = stroke / 2 + BEYOND_MM * mm[1]
    slack = round(0.6 * mm[0])
    left, right = max(0, a - slack), b + slack

    def columns(y: float) -> int:
        row = round(y)
        return int(np.count_nonzero(mask[row, left:right])) if 0 <= row < len(mask) else 0

    upper, lower = levels
    between = max(min(clear, (lower - upper) / 2), 0)
    counts = (
        columns(upper - clear),
        columns(upper + between),
        columns(lower - between),
        columns(lower + clear),
    )
    first, last = round(upper + between), round(lower - between)
    narrow = [columns(y) for y in range(first, last + 1)] or [max(counts)]
    places = first + np.flatnonzero(np.array(narrow) == min(narrow))
    return _Pair(upper, lower, counts, (min(narrow), float(np.median(places))))


def _meet(one: Owned, two: Owned, pair: _Pair, where: slice, pen: float) -> bool:
    """Part the rows where two spikes meet tip to tip; `pen` is the pen's width in columns.

    Returns False where there is no such place.
    """
    width, y = pair.waist
    if not 0 < width < min(WAIST * min(pair.widths[1:3]), TOUCHING * pen):
        return False
    one.bottom[where] = np.fmin(one.bottom[where], y)
    two.top[where] = np.fmax(two.top[where], y)
    return True


def _settle(one: Owned, two: Owned, pair: _Pair, where: slice, *, chained: bool) -> None:
    """Set the limits of the upper row `one` and the lower row `two` in a stretch of columns."""
    above, high, low, below = pair.widths
    rises = high < NARROWER * low
    falls = low < NARROWER * high
    own_above, own_below = above > WIDER * high, below > WIDER * low
    cross_above, cross_below = 0 < above <= high, 0 < below <= low
    if chained or not (rises or falls):
        one.hidden[where] = two.hidden[where] = True
    elif rises:
        # The lower row's spike goes up to the upper trace, or through it.
        if above and not own_above and not cross_above:
            one.hidden[where] = two.hidden[where] = True
        elif cross_above:
            _level(one, pair.upper, where)
        else:
            two.top[where] = np.fmax(two.top[where], pair.upper)
            one.bottom[where] = np.fmin(one.bottom[where], pair.upper + 0.5)
            if not above:
                _level(one, pair.upper, where)
    elif below and not own_below and not cross_below:
        one.hidden[where] = two.hidden[where] = True
    elif cross_below:
        _level(two, pair.lower, where)
    else:
        one.bottom[where] = np.fmin(one.bottom[where], pair.lower)
        two.top[where] = np.fmax(two.top[where], pair.lower - 0.5)
        if not below:
            _level(two, pair.lower, where)


def _level(row: Owned, y: float, where: slice) -> None:
    """The row runs level through a stretch that another row's spike crosses."""
    row.top[where] = np.fmax(row.top[where], y - 0.5)
    row.bottom[where] = np.fmin(row.bottom[where], y + 0.5)
