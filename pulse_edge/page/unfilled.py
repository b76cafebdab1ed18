"""Measure the part of a picture that was never filled in.

Programs that load or save half a picture fill the rest with one colour.

In: a picture as it was read. Out: the share of it that is such a filling. White is no sign: pages
have white margins.
"""

from __future__ import annotations

import itertools

import numpy as np

from pulse_edge.common.arrays import Double, Pixels, Positions

_SAME = 6
"""Levels of 255 by which pixels of one colour differ at most, after JPEG too."""
_OTHER = 24
"""Levels of 255 beyond which a colour is another than the page's paper."""
_WHITE = 245
"""Level of 255 from which on a band is white paper."""
_CERTAIN, _FRAME = 0.15, 0.005
"""Share of a side from which on a band is a filling wherever it ends, and from which on a band of
its colour along another side makes it a frame."""
_MIN_SHARE = 0.02
"""Share of a side below which a band is not counted."""
_TOUCHES = 0.3
"""A page's margin has less than this share of the detail of its middle; a cut goes through grid and
trace."""
_CELL, _FEW = 0.06, 5
"""Share of a page that the 5 mm between two level lines of a grid take at most, and lines like its
last one that must stand elsewhere."""
_CROSSINGS = 10
"""Changes of colour along a line that is not plain paper."""


def unfilled_share(picture: Pixels, certain: float = _CERTAIN) -> float:
    """Return the share (0 to 1) of an RGB picture (H, W, 3) that is a filling.

    A filling is a band along one side, of one colour that is not the paper's. From a share of
    `certain` on it counts wherever it ends, below that where it cuts through grid or trace. A last
    line that is repeated down to the end, as fax decoders do, counts too. 0 where bands of that
    colour lie along other sides: a frame, or the background of a page that does not fill the
    picture. None of the real pages that were looked at has a band of 0.02 along one side.
    """
    sides = [picture, picture[::-1], picture.swapaxes(0, 1), picture.swapaxes(0, 1)[::-1]]
    bands = [(_band_share(side), side[-1, 0].astype(int)) for side in sides]
    best = 0.0
    for n, (share, colour) in enumerate(bands):
        others = [c for k, (s, c) in enumerate(bands) if k != n and s >= _FRAME]
        framed = any(np.abs(c - colour).max() <= 2 * _SAME for c in others)
        if (
            share >= _MIN_SHARE
            and not framed
            and colour.min() < _WHITE
            and _is_filling(sides[n], share, colour, certain)
        ):
            best = max(best, share)
    return max(best, *(_repeated_share(side) for side in sides[:2]))


def _band_share(side: Pixels) -> float:
    """Return the share of lines at the end that have one and the same colour all over."""
    colour, count = side[-1, 0].astype(np.int16), 0
    for line in side[::-1]:
        if np.abs(line - colour).max() > _SAME:
            break
        count += 1
    return count / len(side)


def _is_filling(side: Pixels, share: float, colour: Positions, certain: float) -> bool:
    """Whether a band at the end of a side is a filling, by the paper before it and its edge."""
    edge = len(side) - round(share * len(side))
    rest = side[:edge]
    if len(rest) < 8:  # one colour all over: other checks have better advice
        return False
    paper = np.median(
        rest[:: max(1, edge // 200), :: max(1, side.shape[1] // 200)].reshape(-1, 3), axis=0
    )
    if np.abs(paper - colour).max() <= _OTHER:
        return False
    if share >= certain:
        return True
    last, middle = _detail(rest[-8:-2]), _detail(rest[:: max(1, edge // 60)])
    return bool(np.median(last) > _TOUCHES * np.median(middle))


def _detail(lines: Pixels) -> Double:
    """Return (n,): how much neighbours along each line differ."""
    return np.asarray(np.abs(np.diff(lines.astype(np.int16), axis=1)).mean(axis=(1, 2)))


def _repeated_share(side: Pixels) -> float:
    """Return the share of lines at the end that repeat the last, unless that is plain paper, or a
    grid's upright lines between two of its level ones."""
    last = side[-1].astype(np.int16)
    if np.count_nonzero(np.abs(np.diff(last, axis=0)).max(axis=1) > _OTHER) < _CROSSINGS:
        return 0.0
    count = 0
    for line in side[::-1]:
        if np.abs(line - last).max() > 2:
            break
        count += 1
    if not _MIN_SHARE * len(side) <= count < len(side) - 8:
        return 0.0
    share = count / len(side)
    return 0.0 if share < _CELL and _seen_again(side[: -count - 1], last) else share


def _seen_again(lines: Pixels, line: Positions) -> bool:
    """Whether a line stands among others as well: that of a grid does, where no trace crosses it."""
    alike = (part for part in lines[::-1] if np.abs(part - line).max() <= _SAME)
    return len(list(itertools.islice(alike, _FEW))) == _FEW
