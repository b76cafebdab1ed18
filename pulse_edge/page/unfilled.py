"""Which part of a picture was never filled in? Programs that load or save half a picture fill the rest with one colour.

In: a picture as it was read. Out: the share of it that is such a filling. White is no sign: pages have white margins.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

_SAME = 6
"""Of 255: what differs by no more is one colour, after JPEG too."""
_OTHER = 24
"""Of 255: what differs by more is another colour than the page's paper."""
_WHITE = 245
_SURE, _BESIDE = 0.15, 0.005
"""Share of a side from which on a band is a filling wherever it ends; and from which on one along another side makes it a frame."""
_LEAST = 0.02
_TOUCHES = 0.3
"""A page's margin has less than this share of the detail of its middle; a cut goes through grid and trace."""
_CROSSINGS = 10


def unfilled(picture: Pixels, sure: float = _SURE) -> float:
    """Share of an RGB picture (H, W, 3), 0 to 1, that is a filling: a band along one side, of one colour that is not the paper's.

    From a share of `sure` on the band counts wherever it ends, below it where it cuts through grid or trace.
    Also a last line that is repeated down to the end, as fax decoders do. 0 where bands of that colour lie along other
    sides too: a frame, or the background of a page that does not fill the picture. No real page of those looked at has
    a band of 0.02 along one side.
    """
    sides = [picture, picture[::-1], picture.swapaxes(0, 1), picture.swapaxes(0, 1)[::-1]]
    found = [(_band(side), side[-1, 0].astype(int)) for side in sides]
    best = 0.0
    for n, (share, colour) in enumerate(found):
        others = [c for k, (s, c) in enumerate(found) if k != n and s >= _BESIDE]
        framed = any(np.abs(c - colour).max() <= 2 * _SAME for c in others)
        if (
            share >= _LEAST
            and not framed
            and colour.min() < _WHITE
            and _is_filling(sides[n], share, colour, sure)
        ):
            best = max(best, share)
    return max(best, *(_repeated(side) for side in sides[:2]))


def _band(side: Pixels) -> float:
    """Share of lines at the end that have one colour all over, the same."""
    colour, count = side[-1, 0].astype(np.int16), 0
    for line in side[::-1]:
        if np.abs(line - colour).max() > _SAME:
            break
        count += 1
    return count / len(side)


def _is_filling(side: Pixels, share: float, colour: npt.NDArray[np.int_], sure: float) -> bool:
    edge = len(side) - round(share * len(side))
    rest = side[:edge]
    if len(rest) < 8:  # one colour all over: quality has better words for it
        return False
    paper = np.median(
        rest[:: max(1, edge // 200), :: max(1, side.shape[1] // 200)].reshape(-1, 3), axis=0
    )
    if np.abs(paper - colour).max() <= _OTHER:
        return False
    if share >= sure:
        return True
    last, middle = _detail(rest[-8:-2]), _detail(rest[:: max(1, edge // 60)])
    return bool(np.median(last) > _TOUCHES * np.median(middle))


def _detail(lines: Pixels) -> npt.NDArray[np.float64]:
    """(n,) how much neighbours along each line differ."""
    return np.asarray(np.abs(np.diff(lines.astype(np.int16), axis=1)).mean(axis=(1, 2)))


def _repeated(side: Pixels) -> float:
    """Share of lines at the end that repeat one that is no plain paper."""
    last = side[-1].astype(np.int16)
    if np.count_nonzero(np.abs(np.diff(last, axis=0)).max(axis=1) > _OTHER) < _CROSSINGS:
        return 0.0
    count = 0
    for line in side[::-1]:
        if np.abs(line - last).max() > 2:
            break
        count += 1
    return count / len(side) if count >= _LEAST * len(side) and count < len(side) - 8 else 0.0
