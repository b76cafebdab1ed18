"""Rows of traces on a page: where they run, what layout they make, and where they are cut off."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import cv2
import numpy as np

from pulse_edge.common.arrays import Mask, Pixels, Points
from pulse_edge.page.channels import odd
from pulse_edge.page.ink import Ink

LEADS = {"3x4": 12, "3x4+1": 12, "3x4+2": 12, "3x4+3": 12, "6x2": 12, "12x1": 12}
"""Layout -> leads that it shows."""
ROWS = {"3x4": 3, "3x4+1": 4, "3x4+2": 5, "3x4+3": 6, "6x2": 6, "12x1": 12}
"""Layout -> rows of traces."""

Classify = Callable[[Pixels], Mapping[str, float]]
"""Gives the probability of each layout of a picture (H, W, 3)."""


def find_rows(ink: Ink) -> list[int]:
    """Return y of each row of traces: where ink runs through most of the width, more than above and
    below.

    In pixels of the mask, from the top.
    """
    height, width = ink.mask.shape
    bin_px = max(1, int(2 * ink.mm))
    count = width // bin_px
    if count < 5 or height < 3 * ink.mm:
        return []
    columns = (
        ink.mask[:, : count * bin_px].reshape(height, count, bin_px).any(axis=2).astype(np.uint8)
    )
    band = np.asarray(cv2.dilate(columns, np.ones((odd(3 * ink.mm), 1), np.uint8)), np.float32)
    share = cv2.GaussianBlur(band.mean(axis=1).reshape(-1, 1), (1, odd(2 * ink.mm)), 0).ravel()
    reach, margin = max(1, int(5 * ink.mm)), int(3.5 * ink.mm)
    peaks = [
        y
        for y in range(margin, height - margin)
        if share[y] > 0.3 and share[y] >= share[max(0, y - reach) : y + reach + 1].max()
    ]
    peaks = [y for n, y in enumerate(peaks) if n == 0 or y - peaks[n - 1] > reach]
    if not peaks:
        return []
    most = float(np.sort(share[peaks])[-min(3, len(peaks))])
    ends = [0, *peaks, height - 1]
    rows = []
    for before, y, after in zip(ends, ends[1:-1], ends[2:], strict=False):
        stands_out = share[y] - max(share[before : y + 1].min(), share[y : after + 1].min())
        if share[y] > 0.68 * most and stands_out > 0.25:
            rows.append(y)
    return rows


def likeliest_layout(layouts: Mapping[str, float], rows: int) -> tuple[str, float]:
    """Return the layout that the network and the number of rows make likeliest, and its
    probability.

    `layouts`: probability of each layout by the network.
    """
    fit = {}
    for name, p in layouts.items():
        if name == "none":
            continue
        off = abs(rows - ROWS.get(name, rows))
        weight = {0: 1.0, 1: 0.25}.get(off, 0.06)
        if name == "partial" and rows > 2:
            weight = 0.5
        fit[name] = (p + 0.02) * weight
    best = max(fit, key=lambda name: fit[name])
    return best, fit[best] / sum(fit.values())


_WIDE = 1.25
"""Width over height from which on a page has the shape that the network for layouts was trained on.
"""
_RESHAPED, _CERTAIN = 1.6, 0.85
"""Width over height to which the rows of another page are reshaped, and the probability from which
on the network is believed then. A page that is cut off at the left or right gets up to 0.6,
complete square and portrait pages 0.92 and more."""


def classify_rows(
    page: Pixels,
    layouts: Mapping[str, float],
    rows: list[float],
    classify: Callable[[Pixels], Mapping[str, float]],
) -> Mapping[str, float]:
    """Return the probabilities of the layouts, by the rows alone where the page is square, portrait
    or partly empty.

    The rows are cut out and reshaped to a landscape page for `classify`. `rows`: pixels from the
    top. The probabilities `layouts` of the whole page stay where that gives no certain answer.
    """
    width = page.shape[1]
    if width > _WIDE * page.shape[0]:
        return layouts
    if len(rows) < 3 or max(layouts.get("partial", 0), layouts.get("none", 0)) < 0.5:
        return layouts
    reach = 0.7 * float(np.median(np.diff(rows)))
    band = page[max(0, int(rows[0] - reach)) : int(rows[-1] + reach)]
    size = max(width, round(_RESHAPED * len(band))), max(len(band), round(width / _RESHAPED))
    reshaped = classify(
        np.asarray(cv2.resize(band, size, interpolation=cv2.INTER_LINEAR), np.uint8)
    )
    best = max(reshaped, key=lambda name: reshaped[name])
    return reshaped if reshaped[best] > _CERTAIN and ROWS.get(best) == len(rows) else layouts


_GAP = 1.3
"""Gap between two ECGs over the widest gap between rows of one; real pages with even numbers of
rows have 1.05 at most."""


def has_two_ecgs(rows: list[int]) -> bool:
    """Whether two ECGs lie one below the other: three or more rows above a wide gap, and as many
    below it."""
    if len(rows) < 6 or len(rows) % 2:
        return False
    gaps, middle = np.diff(rows), len(rows) // 2 - 1
    return bool(gaps[middle] > _GAP * np.delete(gaps, middle).max())


_RULE, _STROKE = 25, 5
"""Millimetres: a line that is straight for longer is ruled, and ink that is connected for longer is
more than a letter."""


def traced_share(ink: Ink, rows: list[int]) -> float:
    """Return the share of the width that connected ink takes which is neither letters nor ruled
    lines: median of the rows."""
    mask = ink.mask.astype(np.uint8)
    rules = cv2.morphologyEx(
        mask, cv2.MORPH_OPEN, np.ones((1, max(3, round(_RULE * ink.mm))), np.uint8)
    )
    columns = cv2.morphologyEx(
        mask, cv2.MORPH_OPEN, np.ones((max(3, round(2 * _RULE * ink.mm)), 1), np.uint8)
    )
    near = np.ones((3, 3), np.uint8)
    mask[(cv2.dilate(rules, near) | cv2.dilate(columns, near)) > 0] = 0
    _, labels, stats, _ = cv2.connectedComponentsWithStats(cv2.dilate(mask, near), connectivity=8)
    wide = stats[:, cv2.CC_STAT_WIDTH] >= _STROKE * ink.mm
    wide[0] = False
    reach = 10 * ink.mm
    shares = [
        wide[labels[max(0, int(y - reach)) : int(y + reach)]].any(axis=0).mean() for y in rows
    ]
    return float(np.median(shares)) if shares else 0.0


def cut_traces(ink: Ink, rows: Sequence[float], frame: Points | None, *, sides: bool = True) -> int:
    """Count the traces that touch the border of the picture: at the top and bottom of any page, on
    all sides of a photograph.

    Screenshots and scans are often cropped where the traces begin and end. A photograph's border is
    where the picture ends, which may lie inside the page; the sheet's own edge cuts no trace off.
    `frame` as in `Flat`; `rows`: y in pixels of the mask. Without `sides` what lies next to the left
    and right border of a photograph does not count.
    """
    height, width = ink.mask.shape
    band = max(2, round(0.7 * ink.mm))
    border = np.zeros((height, width), bool)
    inside = np.ones((height, width), bool)
    if frame is None:
        border[:band] = border[-band:] = True
    else:
        inside = inside_frame(frame * ink.scale, ink.mask.shape)
        core = cv2.erode(
            inside.astype(np.uint8), np.ones((2 * band + 1,) * 2, np.uint8), borderValue=1
        )
        border = inside & (core == 0)
        if not sides:
            upright = _near_upright_sides(frame * ink.scale, ink.mask.shape, round(_SIDE * ink.mm))
            inside &= ~upright
            border &= inside
    if not rows or not border.any():
        return 0
    _, labels, stats, _ = cv2.connectedComponentsWithStats(
        (ink.mask & inside).astype(np.uint8), connectivity=8
    )
    cut = 0
    for n in np.unique(labels[border & ink.mask]).tolist():
        left, top, wide, tall, area = (int(v) for v in stats[n])
        near_row = any(top - 25 * ink.mm < y < top + tall + 25 * ink.mm for y in rows)
        thin = area < 1.2 * ink.mm * (wide + tall)
        along = np.count_nonzero(
            border[top : top + tall, left : left + wide]
            & (labels[top : top + tall, left : left + wide] == n)
        )
        cut += int(
            bool(n) and near_row and thin and max(tall, wide) > 6 * ink.mm and along < 0.2 * area
        )
    return cut


_SIDE = 8
"""Millimetres from the left and right border of a photograph in which the sheet's edge and the
calibration pulses lie."""


def _near_upright_sides(frame: Points, shape: tuple[int, ...], reach: int) -> Mask:
    """Return (H, W): what lies within `reach` pixels of the page's left and right side, or of those
    sides of the four corners `frame` (4, 2) that are more upright than level."""
    near = np.zeros(shape[:2], np.uint8)
    near[:, :reach] = near[:, -reach:] = 1
    for one, two in zip(frame, np.roll(frame, -1, axis=0), strict=True):
        if abs(one[0] - two[0]) < abs(one[1] - two[1]):
            ends = [tuple(int(v) for v in np.round(corner)) for corner in (one, two)]
            cv2.line(near, ends[0], ends[1], (1,), 2 * reach + 1)
    return near > 0


def inside_frame(frame: Points, shape: tuple[int, ...]) -> Mask:
    """Return (H, W): what lies inside the four corners `frame` (4, 2); everything where they span
    no area."""
    inside = np.zeros(shape[:2], np.uint8)
    cv2.fillConvexPoly(inside, np.round(frame).astype(np.int32), 1)
    return inside > 0 if inside.any() else inside == 0
