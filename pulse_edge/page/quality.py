"""A flat page -> facts about it with numbers, and a verdict with reasons that a nurse can act on.

In: an RGB page, and what rectify found on it. Out: `Quality`. Nothing printed on the page is read, and nothing measured
in the picture is compared with what is printed on it.

Trace and grid are told apart by colour where the grid is coloured; a dark grid is found by its phase (the picture is
multiplied by waves of the grid's own spacing and smoothed), which follows lines over folds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from pulse_edge.page import channels
from pulse_edge.page.channels import brightest, darkest

Pixels = npt.NDArray[np.uint8]
Float = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Points = npt.NDArray[np.float64]

_STRETCHED = 1.12
"""Pixels per millimetre of one direction over the other, from which on a page is squared; see rectify.STRETCHED."""
GOOD, USABLE, REFUSED = "good", "usable", "refused"
LEADS = {"3x4": 12, "3x4+1": 12, "3x4+2": 12, "3x4+3": 12, "6x2": 12, "12x1": 12}
ROWS = {"3x4": 3, "3x4+1": 4, "3x4+2": 5, "3x4+3": 6, "6x2": 6, "12x1": 12}
_FINE, _COARSE = 8.0, 4.0
"""Pixels per millimetre at which sharpness is measured, and rows are looked for, at most."""
_EVEN = 0.06
"""Share by which a grid may vary for moire to be told from it."""
_SOLID = 0.95
"""Of the darkest ink: so dark is trace wherever it lies. Thick traces take more of a page than quantiles allow for."""
_BLANK = 12
"""Of 255: less than this between the lightest and the darkest spot is neither grid nor trace."""


@dataclass(frozen=True)
class Limit:
    """From where on a fact warns, and from where on it refuses; None: never."""

    unit: str
    warns: float | None
    refuses: float | None
    high_is_bad: bool
    fact: str
    """What is wrong, for a nurse: a format of `value` and `threshold`."""
    action: str
    """What to do about it."""


LIMITS = {
    "unfilled": Limit(
        "of the picture",
        None,
        0.02,
        True,
        "{value:.0%} of the picture is of one flat colour, as in a file that is cut short.",
        "Copy the file or scan the page again.",
    ),
    "dark": Limit(
        "of 255",
        None,
        60,
        False,
        "The page is light on dark, as on a screen.",
        "Print it, or invert its colours, and read that.",
    ),
    "ecgs": Limit(
        "ECGs",
        1,
        1.5,
        True,
        "There seem to be two ECGs on the picture, one below the other.",
        "Scan or cut them out one by one: an answer is about one patient.",
    ),
    # what refuses was set where pages stop being readable; docs/intake.md has the curves
    "ecg": Limit(
        "likelihood",
        None,
        0.5,
        False,
        "This does not look like an ECG page.",
        "Check that the right file or sheet was taken.",
    ),
    "leads": Limit(
        "leads",
        12,
        3,
        False,
        "Only {value:.0f} of 12 leads were found.",
        "Take the picture again with the whole sheet in view.",
    ),
    "orientation": Limit(
        "log odds",
        5.0,
        None,
        False,
        "It is not clear which way is up.",
        "Check that the page is the right way up.",
    ),
    "mirrored": Limit(
        "mirror images",
        0,
        None,
        True,
        "The picture shows the page as a mirror does.",
        "Compare the names of the leads with the original, and take it again from the front.",
    ),
    "stretched": Limit(
        "times",
        _STRETCHED,
        None,
        True,
        "The picture was stretched {value:.2f} times in one direction, as by a fax.",
        "Compare intervals and heights with the original.",
    ),
    "part": Limit(
        "of the picture",
        0.999,
        None,
        False,
        "The ECG takes only {value:.0%} of the picture, and was cut out of it.",
        "Crop the picture to the ECG.",
    ),
    "resolution": Limit(
        "pixels/mm",
        3.0,
        2.0,
        False,
        "The picture is too small: it has {value:.1f} pixels for a millimetre of paper, and {threshold:g} are needed.",
        "Go closer, or scan at 300 dpi.",
    ),
    "sharpness": Limit(
        "mm",
        0.75,
        1.1,
        True,
        "The picture is blurred: the edge of the trace is {value:.1f} mm wide, and {threshold:g} mm is the limit.",
        "Hold still, tap on the trace to focus, and take it again.",
    ),
    "contrast": Limit(
        "of paper white",
        0.22,
        0.12,
        False,
        "The trace is too pale: {value:.0%} darker than the paper, and {threshold:.0%} is needed.",
        "Take the picture in brighter light, or print the page darker.",
    ),
    "moire": Limit(
        "waves over noise",
        16.0,
        22.0,
        True,
        "A pattern of dots or stripes lies over the page.",
        "Do not photograph a screen: print the ECG, or export it as a file.",
    ),
    "glare": Limit(
        "of the page",
        0.01,
        0.25,
        True,
        "Light is reflected by {value:.0%} of the page.",
        "Turn the lamp or the sheet, and take it again without flash.",
    ),
    "shadow": Limit(
        "darkest to lightest",
        0.35,
        0.12,
        False,
        "A shadow lies on the sheet: its darkest part has {value:.0%} of the light of the brightest, and {threshold:.0%} "
        "is needed.",
        "Move away from the light, and take it again.",
    ),
    "uneven": Limit(
        "of the grid's spacing",
        0.1,
        0.15,
        True,
        "The page is bent or seen too steeply to be flattened.",
        "Lay the sheet flat, and take it from straight above.",
    ),
    "cut off": Limit(
        "traces",
        1,
        None,
        True,
        "The trace runs out of the picture in {value:.0f} places.",
        "Take it again with the whole sheet in view.",
    ),
    "grid": Limit(
        "waves over noise",
        2.3,
        None,
        False,
        "No grid is seen, so nothing tells the scale.",
        "Take it sharper and closer, if the paper has a grid.",
    ),
    "layout": Limit(
        "likelihood",
        0.4,
        None,
        False,
        "The arrangement of the leads is unusual or not clear.",
        "Check that the page is a 12-lead ECG.",
    ),
}
"""What is judged, in the order in which people should mend it."""


@dataclass(frozen=True)
class Reason:
    """One thing that is wrong with a page."""

    check: str
    value: float
    unit: str
    threshold: float
    advice: str
    """What is wrong and what to do, in a clinic's words."""
    refuses: bool


@dataclass(frozen=True)
class Quality:
    """What is known about a page."""

    verdict: str
    """`good`; `usable`: warns and goes on; `refused`."""
    reasons: tuple[Reason, ...]
    facts: dict[str, float]
    """Every number that was judged; those that could not be measured are absent."""
    layout: str | None
    """3x4, 3x4+1, 3x4+2, 3x4+3, 6x2, 12x1, partial, or None where it is no ECG."""
    leads: int
    rows: tuple[float, ...]
    """Pixels from the page's top to each row of traces."""
    forced: bool = False
    """True: refused, and answered all the same because a person asked for it."""


def judge(
    page: Image.Image,
    *,
    across: float | None,
    down: float | None,
    waves: Mapping[str, float],
    layouts: Mapping[str, float],
    orientation: float,
    light: Pixels,
    frame: Points | None,
    unfilled: float = 0.0,
    stretch: float = 1.0,
    mirrored: bool = False,
    part: float = 1.0,
    look: Callable[[Pixels], Mapping[str, float]] | None = None,
) -> Quality:
    """Measure a flat RGB page and judge it.

    `across`, `down`: pixels per millimetre along and over the rows, None without a grid. `waves`: the facts `grid`,
    `moire` and `uneven`, the latter two with a grid only. `layouts`: how probable each layout is, with `partial` and
    `none`. `orientation`: log odds of the page's turn against the likeliest other. `light` (h, w): how bright the paper was,
    coarsely, before shadows were evened out. `frame` (4, 2): where the picture's corners lie on the page, None where page
    and picture are the same. `unfilled`: the share of the picture that was never filled in; see fill.py. `stretch`: pixels
    per millimetre across over down of the picture as it came. `mirrored`: the picture shows a mirror image. `part`: the
    share of it that is the page. `look` gives the likelihood of each layout for another picture; None: as for `layouts`.
    """
    pixels = channels.pixels(page)
    scale_known = across is not None and down is not None
    across, down = (across, down) if across and down else (max(page.size) / 270,) * 2
    mm = (across * down) ** 0.5
    ink = _Ink(pixels, across, down, min(1.0, _COARSE / mm), grid=scale_known)
    rows = _rows(ink)
    if look is not None and pixels.shape[1] <= _WIDE * pixels.shape[0]:
        layouts = _looked_at_again(pixels, layouts, [y / ink.scale for y in rows], look)
    layout, sure = _layout(layouts, len(rows))
    inside = np.ones(light.shape, bool)
    if frame is not None:
        inside = _within(frame * (light.shape[1] / page.width), light.shape)
    paper = light[inside]
    facts = {
        "ecg": _ecg(layouts, rows, scale_known, ink, pixels, max(stretch, 1 / stretch)),
        "sharpness": _sharpness(pixels, ink, mm),
        "contrast": ink.contrast,
        "glare": _glare(light, inside, pixels, mm * light.shape[1] / page.width),
        "shadow": float(np.quantile(paper, 0.03)) / max(float(np.quantile(paper, 0.97)), 1.0),
        "cut off": float(_cut(ink, rows, frame)),
        **waves,
        "orientation": orientation,
        "unfilled": unfilled,
        "stretched": max(stretch, 1 / stretch),
        "part": part,
    }
    if mirrored:
        facts["mirrored"] = 1.0
    if facts.get("uneven", 0) > _EVEN:  # a bent grid's own waves leave its lattice
        facts.pop("moire", None)
    if scale_known:
        facts["resolution"] = mm
    elif layout == "partial":  # neither a grid nor a whole set of leads: nothing that says ECG
        facts["ecg"] = min(facts["ecg"], 0.4)
    leads = LEADS.get(layout, min(len(rows), 11))
    if _two_ecgs(rows):  # twice three rows may be a 3x4+3 or 6x2 all the same
        facts["ecgs"] = 2.0 if layout == "partial" else 1.5
    if (dark := _dark(pixels)) is not None:
        facts["dark"] = dark
    if facts["ecg"] >= 0.5:
        facts |= {"leads": float(leads), "layout": sure}
    reasons = tuple(sorted(_reasons(facts), key=lambda r: not r.refuses))
    if facts["ecg"] < 0.5:  # all other advice would mislead
        said = {r.check: r for r in reasons}
        reasons = tuple(said[check] for check in ("unfilled", "dark", "ecg") if check in said)[:1]
    verdict = REFUSED if any(r.refuses for r in reasons) else USABLE if reasons else GOOD
    return Quality(
        verdict=verdict,
        reasons=reasons,
        facts={k: round(v, 3) for k, v in facts.items()},
        layout=layout if facts["ecg"] >= 0.5 else None,
        leads=leads if facts["ecg"] >= 0.5 else 0,
        rows=tuple(round(y / ink.scale, 1) for y in rows),
    )


def _reasons(facts: Mapping[str, float]) -> list[Reason]:
    found = []
    for name, limit in LIMITS.items():
        if name not in facts:
            continue
        value, sign = facts[name], -1 if limit.high_is_bad else 1
        for threshold, refuses in ((limit.refuses, True), (limit.warns, False)):
            if threshold is None:
                continue
            # "cut off" warns from 1 on, the rest below or above a limit.
            bad = value >= threshold if name == "cut off" else sign * value < sign * threshold
            if bad:
                fact = limit.fact.format(value=value, threshold=threshold).replace(
                    "in 1 places", "in 1 place"
                )
                advice = f"{fact} {limit.action}"
                found.append(Reason(name, round(value, 3), limit.unit, threshold, advice, refuses))
                break
    return found


# ---------------------------------------------------------------------------------------------------- trace and paper


class _Ink:
    """The trace of a page, at `scale` of its size."""

    def __init__(
        self, pixels: Pixels, across: float, down: float, scale: float, *, grid: bool
    ) -> None:
        self.scale = scale
        self.across, self.down = across * scale, down * scale
        self.mm = (self.across * self.down) ** 0.5
        small = _resized(pixels, scale)
        self.depth = depth(small, self.mm)
        """(H, W) 0..1: how dark against the paper round it, in the channel that shows a coloured grid least."""
        sample = self.depth[::2, ::2]
        strong = float(np.quantile(sample, 0.99))
        threshold = max(0.10, 0.5 * strong)
        self.crowded = float((sample > threshold).mean())
        """Share of pixels as dark as half the trace: a page has 0.02 to 0.04, more where the grid is as dark."""
        mask = self.depth > threshold
        if self.crowded > 0.045:
            mask = (
                self._without_lines(threshold, strong)
                if grid
                else self.depth
                > max(threshold, min(float(np.quantile(sample, 0.96)), _SOLID * strong))
            )
        self.mask: Mask = mask
        self.contrast = float(np.median(self.depth[mask])) if mask.any() else 0.0

    def _without_lines(self, threshold: float, strong: float) -> Mask:
        lines = grid_lines(np.minimum(self.depth, 0.7 * strong), self.across, self.down)
        clear, on = self.depth[~lines], self.depth[lines]
        threshold = max(threshold, min(float(np.quantile(clear[::3], 0.965)), _SOLID * strong))
        over = max(threshold, float(np.quantile(on[::3], 0.97))) if on.size else threshold
        return (self.depth > threshold) & ~lines | (self.depth > over)


def depth(pixels: Pixels, mm: float) -> Float:
    """(H, W) 0..1: how much darker each pixel is than the paper round it; `mm` in pixels."""
    grey = brightest(pixels)
    paper = cv2.blur(
        cv2.dilate(grey, np.ones((_odd(2.5 * mm),) * 2, np.uint8)), (_odd(6 * mm),) * 2
    )
    return np.asarray(cv2.subtract(paper, grey).astype(np.float32) / np.maximum(paper, 40))


def grid_lines(dark: Float, across: float, down: float, spacing: float = 5.0) -> Mask:
    """(H, W): where the lines of a grid of `spacing` mm lie; `across`, `down` in pixels per mm.

    Multiplied by the grid's wave and smoothed over two cells, the phase that is left says how far the lines lie from
    where they should: it follows a fold.
    """
    found = np.zeros(dark.shape, bool)
    for axis, mm in ((1, across), (0, down)):
        phase = 2 * np.pi * np.arange(dark.shape[axis]) / (spacing * mm)
        shape = (1, -1) if axis == 1 else (-1, 1)
        cosine, sine = (f(phase).astype(np.float32).reshape(shape) for f in (np.cos, np.sin))
        size = (_odd(2.4 * spacing * mm),) * 2
        real, imaginary = (cv2.blur(cv2.blur(dark * wave, size), size) for wave in (cosine, sine))
        near = (real * cosine + imaginary * sine) / (np.hypot(real, imaginary) + 1e-9)
        found |= near > np.cos(2 * np.pi * 0.45 / spacing)
    return found


def _odd(size: float) -> int:
    return max(3, int(size) | 1)


def _resized(pixels: Pixels, scale: float) -> Pixels:
    if scale >= 1:
        return pixels
    size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


# ------------------------------------------------------------------------------------------------------ rows and leads


def _rows(ink: _Ink) -> list[int]:
    """y of the rows of traces: where ink runs through most of the width, more than above and below."""
    height, width = ink.mask.shape
    bin_px = max(1, int(2 * ink.mm))
    count = width // bin_px
    if count < 5 or height < 3 * ink.mm:
        return []
    columns = (
        ink.mask[:, : count * bin_px].reshape(height, count, bin_px).any(axis=2).astype(np.uint8)
    )
    band = np.asarray(cv2.dilate(columns, np.ones((_odd(3 * ink.mm), 1), np.uint8)), np.float32)
    share = cv2.GaussianBlur(band.mean(axis=1).reshape(-1, 1), (1, _odd(2 * ink.mm)), 0).ravel()
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


def _layout(layouts: Mapping[str, float], rows: int) -> tuple[str, float]:
    """What the network sees and what the number of rows says, together; and how sure."""
    fit = {}
    for name, p in layouts.items():
        if name == "none":
            continue
        off = abs(rows - ROWS.get(name, rows))
        agrees = {0: 1.0, 1: 0.25}.get(off, 0.06)
        if name == "partial" and rows > 2:
            agrees = 0.5
        fit[name] = (p + 0.02) * agrees
    best = max(fit, key=lambda name: fit[name])
    return best, fit[best] / sum(fit.values())


_WIDE = 1.25
"""A page that is wider than this, as width over height, has the shape that the network for layouts knows."""
_AGAIN, _SURELY = 1.6, 0.85
"""Shape in which the rows of another page are shown to it once more, and from what likelihood on it is believed then: what is
cut off at the left or right of a page gets up to 0.6, complete square and portrait pages 0.92 and more."""


def _looked_at_again(
    page: Pixels,
    layouts: Mapping[str, float],
    rows: list[float],
    look: Callable[[Pixels], Mapping[str, float]],
) -> Mapping[str, float]:
    """The layouts of a square or portrait page, or of one that has its rows in a part of it, judged by its rows alone.

    They are cut out and pressed into the shape of a landscape page. `rows`: pixels from the top.
    """
    width = page.shape[1]
    if len(rows) < 3 or max(layouts.get("partial", 0), layouts.get("none", 0)) < 0.5:
        return layouts
    reach = 0.7 * float(np.median(np.diff(rows)))
    band = page[max(0, int(rows[0] - reach)) : int(rows[-1] + reach)]
    size = max(width, round(_AGAIN * len(band))), max(len(band), round(width / _AGAIN))
    again = look(np.asarray(cv2.resize(band, size, interpolation=cv2.INTER_LINEAR), np.uint8))
    best = max(again, key=lambda name: again[name])
    return again if again[best] > _SURELY and ROWS.get(best) == len(rows) else layouts


_GAP = 1.3
"""The gap between two ECGs over the widest between rows of one; real pages with even numbers of rows have 1.05 at most."""


def _two_ecgs(rows: list[int]) -> bool:
    """Whether two ECGs lie below each other: as many rows, three or more, above and below one wide gap."""
    if len(rows) < 6 or len(rows) % 2:
        return False
    gaps, middle = np.diff(rows), len(rows) // 2 - 1
    return bool(gaps[middle] > _GAP * np.delete(gaps, middle).max())


def _dark(pixels: Pixels) -> float | None:
    """Of 255, how bright an ECG's background is where it is light on dark; None for anything else."""
    background = float(np.median(brightest(pixels[::8, ::8])))
    if background >= _BLACK:
        return None
    mm = max(pixels.shape) / 270
    ink = _Ink(np.asarray(255 - pixels, np.uint8), mm, mm, min(1.0, _COARSE / mm), grid=False)
    rows = _rows(ink)
    return background if len(rows) >= 3 and _traced(ink, rows) > _TRACED else None


_BLACK = 60
_RULE, _STROKE = 25, 5
"""Millimetres: what is straight for longer is a ruled line, what is connected for longer is more than a letter."""
_TRACED = 0.12
"""Share of a row that a trace runs through; real pages have 0.33 and more, tables 0 to 0.03."""


def _traced(ink: _Ink, rows: list[int]) -> float:
    """Share of the width through which connected ink runs that is neither letters nor a ruled line: median of the rows."""
    mask = ink.mask.astype(np.uint8)
    rules = cv2.morphologyEx(
        mask, cv2.MORPH_OPEN, np.ones((1, max(3, round(_RULE * ink.mm))), np.uint8)
    )
    posts = cv2.morphologyEx(
        mask, cv2.MORPH_OPEN, np.ones((max(3, round(2 * _RULE * ink.mm)), 1), np.uint8)
    )
    near = np.ones((3, 3), np.uint8)
    mask[(cv2.dilate(rules, near) | cv2.dilate(posts, near)) > 0] = 0
    _, labels, stats, _ = cv2.connectedComponentsWithStats(cv2.dilate(mask, near), connectivity=8)
    wide = stats[:, cv2.CC_STAT_WIDTH] >= _STROKE * ink.mm
    wide[0] = False
    reach = 10 * ink.mm
    shares = [
        wide[labels[max(0, int(y - reach)) : int(y + reach)]].any(axis=0).mean() for y in rows
    ]
    return float(np.median(shares)) if shares else 0.0


_DOUBTED, _NO_PAGE, _FULLY = 0.7, 0.2, 0.75
"""Likelihood of an ECG by the network below which there must be a trace, and below which it must run through that share of each
row: real pages get 0.5 and more, what has a table's false grid 0.02 to 0.31, two ECGs on one page 0.07."""


def _ecg(
    layouts: Mapping[str, float],
    rows: list[int],
    grid: bool,
    ink: _Ink,
    pixels: Pixels,
    stretch: float,
) -> float:
    """How likely the page is an ECG at all: grid, rows of traces, and what the network says."""
    if float(np.median(brightest(pixels[::8, ::8]))) < _BLACK:
        return 0.1  # a screen: light traces on black
    not_none = 1 - layouts.get("none", 0.0)
    traced = _traced(ink, rows)
    if not grid:
        return not_none if len(rows) >= 3 and traced >= _TRACED else 0.4 * not_none
    if not rows:
        return 0.45 * not_none
    doubtful = not_none < _DOUBTED or stretch > _STRETCHED
    if (doubtful and traced < _TRACED) or (not_none < _NO_PAGE and traced < _FULLY):
        return 0.4 * not_none  # what seemed a grid was the lines and columns of a table
    return max(0.6, not_none) if len(rows) >= 2 else 0.5 * not_none


# --------------------------------------------------------------------------------------------------- light, focus, edges


def _sharpness(pixels: Pixels, ink: _Ink, mm: float) -> float:
    """Millimetres over which the trace's edge goes from paper to ink, 1.65 times the sigma of a blur; the median."""
    scale = min(1.0, _FINE / mm)
    small = _resized(pixels, scale)
    dark = depth(small, mm * scale)
    size = dark.shape[1], dark.shape[0]
    mask = cv2.resize(ink.mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    if not mask.any():
        return 9.0
    slope = np.hypot(
        cv2.Sobel(dark, cv2.CV_32F, 1, 0, scale=1 / 8),
        cv2.Sobel(dark, cv2.CV_32F, 0, 1, scale=1 / 8),
    )
    near = np.ones((_odd(1.5 * mm * scale),) * 2, np.uint8)
    steepest, darkest = cv2.dilate(slope, near)[mask], cv2.dilate(dark, near)[mask]
    return float(np.median(darkest / np.maximum(steepest, 1e-3))) / (mm * scale)


def _glare(light: Pixels, inside: Mask, pixels: Pixels, mm: float) -> float:
    """Share of the page that is burnt out while the rest is not; `mm` in pixels of `light`.

    White paper beside a shadow is as bright, but shows grid or trace within 3 mm.
    """
    if float(np.median(light[inside])) >= 228:
        return 0.0
    size = light.shape[1], light.shape[0]
    grey = darkest(np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8))
    near = np.ones((_odd(6 * mm),) * 2, np.uint8)
    blank = cv2.subtract(cv2.dilate(grey, near), cv2.erode(grey, near)) < _BLANK
    return float(((light > 251) & blank)[inside].mean())


def _within(frame: Points, shape: tuple[int, ...]) -> Mask:
    """(H, W): inside the four corners; everything, should they span nothing."""
    inside = np.zeros(shape[:2], np.uint8)
    cv2.fillConvexPoly(inside, np.round(frame).astype(np.int32), 1)
    return inside > 0 if inside.any() else inside == 0


def _cut(ink: _Ink, rows: list[int], frame: Points | None) -> int:
    """How many traces touch the border of the picture: through the top or bottom of any page, all round a photograph.

    Screenshots and scans are often cropped where the traces begin and end. A photograph's border is where the picture
    ends, which may lie inside the page; the sheet's own edge cuts nothing off.
    """
    height, width = ink.mask.shape
    band = max(2, round(0.7 * ink.mm))
    border = np.zeros((height, width), bool)
    inside = np.ones((height, width), bool)
    if frame is None:
        border[:band] = border[-band:] = True
    else:
        inside = _within(frame * ink.scale, ink.mask.shape)
        core = cv2.erode(
            inside.astype(np.uint8), np.ones((2 * band + 1,) * 2, np.uint8), borderValue=1
        )
        border = inside & (core == 0)
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


# ------------------------------------------------------------------------------------------------- pictures for people


def overlay(
    page: Image.Image, quality: Quality, across: float | None, down: float | None
) -> Image.Image:
    """A copy of the page with rows, grid scale and verdict drawn over it."""
    canvas = np.array(page)
    thick = max(1, round(max(page.size) / 900))
    colour = {GOOD: (0, 140, 0), USABLE: (200, 120, 0), REFUSED: (200, 0, 0)}[quality.verdict]
    for y in quality.rows:
        cv2.line(canvas, (0, round(y)), (canvas.shape[1], round(y)), (0, 90, 220), thick)
    if across and down:  # a ruler of centimetres along two edges
        for n in range(int(canvas.shape[1] / (10 * across)) + 1):
            cv2.line(
                canvas,
                (round(10 * n * across), 0),
                (round(10 * n * across), 6 * thick),
                (0, 140, 0),
                thick,
            )
        for n in range(int(canvas.shape[0] / (10 * down)) + 1):
            cv2.line(
                canvas,
                (0, round(10 * n * down)),
                (6 * thick, round(10 * n * down)),
                (0, 140, 0),
                thick,
            )
    lines = [f"{quality.verdict.upper()}  {quality.layout or 'no ECG'}, {quality.leads} leads"]
    lines += [r.advice for r in quality.reasons]
    size = 0.55 * thick + 0.15
    lines = [
        part for line in lines for part in _wrapped(line, size, thick, canvas.shape[1] - 12 * thick)
    ]
    strip = np.full((round(30 * size * (len(lines) + 0.5)), canvas.shape[1], 3), 255, np.uint8)
    for n, line in enumerate(lines):
        place = (6 * thick, round(30 * size * (n + 0.9)))
        cv2.putText(
            strip,
            line,
            place,
            cv2.FONT_HERSHEY_SIMPLEX,
            size,
            colour if n == 0 else (0, 0, 0),
            thick,
            cv2.LINE_AA,
        )
    return Image.fromarray(np.concatenate([strip, canvas]))


def _wrapped(line: str, size: float, thick: int, width: int) -> list[str]:
    """The line in pieces that are at most `width` pixels wide; a word alone may be wider."""
    parts: list[str] = []
    for word in line.split(" "):
        longer = f"{parts[-1]} {word}" if parts else word
        if parts and cv2.getTextSize(longer, cv2.FONT_HERSHEY_SIMPLEX, size, thick)[0][0] <= width:
            parts[-1] = longer
        else:
            parts.append(word)
    return parts


def sheet_overlay(picture: Image.Image, corners: Any) -> Image.Image:
    """A copy of the picture with the sheet's outline."""
    canvas = np.array(picture)
    thick = max(2, round(max(picture.size) / 500))
    cv2.polylines(
        canvas,
        [np.round(np.array(corners)).astype(np.int32)],
        True,
        (0, 160, 0),
        thick,
        cv2.LINE_AA,
    )
    return Image.fromarray(canvas)
