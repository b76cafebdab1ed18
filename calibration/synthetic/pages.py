"""Draw a recording in a style: RGB pixels, and the positions of all traces on them.

The grid has few kinds of rows (on a line, between lines, and the antialiased edges), so each kind
is mixed once and copied. All ink goes into one coverage mask, and paper and ink are blended only
where there is ink. Coordinates are those of OpenCV: pixel centres are whole numbers, x to the
right, y down.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from calibration.synthetic.findings import PREVALENCE
from calibration.synthetic.recording import HZ, Recording
from calibration.synthetic.signals import synthesize
from calibration.synthetic.style import NO_NAMES, ROWS, PageStyle, Rgb, random_style

Pixels = NDArray[np.uint8]
Points = NDArray[np.float64]
SHIFT = 4
"""Bits of a pixel's fraction that OpenCV's drawing takes."""
JOIN_MM = {
    "bar": ((-3.0, 3.0),),
    "ticks": ((-6.0, -3.5), (3.5, 6.0)),
    "dots": ((-4.0, -3.0), (-1.0, 0.0), (2.0, 3.0)),
}
"""Vertical strokes between columns, relative to the baseline."""
HERSHEY = {
    "simplex": cv2.FONT_HERSHEY_SIMPLEX,
    "duplex": cv2.FONT_HERSHEY_DUPLEX,
    "complex": cv2.FONT_HERSHEY_COMPLEX,
}


@dataclass(frozen=True)
class Trace:
    """Where a stretch of a lead is drawn: x = x0 + (i - start) px_per_sample, y = y0 - (mV -
    baseline) px_per_mv.
    """

    lead: str
    row: int
    column: int
    start: int  # samples of the recording, stop excluded
    stop: int
    x0: float
    y0: float
    px_per_sample: float
    px_per_mv: float
    baseline: float  # mV that lies on y0: the lead's median

    def x_at(self, seconds: float) -> float:
        """Pixel column of a time of the recording, inside this stretch or not."""
        return self.x0 + (seconds * HZ - self.start) * self.px_per_sample

    def points(self, recording: Recording) -> Points:
        """Pixel coordinates (n, 2) of the samples; NaN where the recording has no data."""
        mv = recording.lead(self.lead)[self.start : self.stop].astype(np.float64)
        x = self.x0 + np.arange(mv.size) * self.px_per_sample
        return np.stack([x, self.y0 - (mv - self.baseline) * self.px_per_mv], axis=1)


@dataclass(frozen=True)
class Pulse:
    """A calibration pulse of 1 mV and 0.2 s: its foot's left corner, its width and height in
    pixels.
    """

    x0: float
    y0: float
    width: float
    height: float


@dataclass(frozen=True, eq=False)
class Page:
    """A synthetic page and its exact ground truth.

    A page of 5 s shows the recording's first half: labels hold there too, the rate is the mean of
    all 10 s.
    """

    image: Pixels  # (height, width, 3) RGB
    recording: Recording
    style: PageStyle
    traces: tuple[Trace, ...]  # row by row, left to right
    pulses: tuple[Pulse, ...]

    @property
    def px_per_mm(self) -> float:
        """Resolution, the same both ways."""
        return self.style.px_per_mm


def page_at(seed: int, index: int, prevalence: Mapping[str, float] = PREVALENCE) -> Page:
    """Page number `index` of source `seed`, with the recording that `recording_at` gives; depends
    on nothing else.
    """
    sequence = np.random.SeedSequence((seed, index))
    recording = synthesize(np.random.default_rng(sequence), prevalence=prevalence)
    return draw(recording, random_style(np.random.default_rng(sequence.spawn(1)[0])))


def draw(recording: Recording, style: PageStyle) -> Page:
    """Draw the recording as a page of this style."""
    traces, pulses = _traces(recording, style), _pulses(style)
    image = _paper(style)
    ink, width = np.zeros(image.shape[:2], np.uint8), max(1, int(style.ink_px))
    for trace in traces:
        _stroke(ink, trace.points(recording), width)
    for pulse in pulses:
        _stroke(ink, _pulse_points(pulse), width)
    _joins(ink, traces, style, width)
    _blend(image, ink, style.ink, style.ink_px / width)
    _write(image, traces, style)
    if style.soft_px:
        image = cast(Pixels, cv2.GaussianBlur(image, (0, 0), style.soft_px))
    return Page(image, recording, style, traces, pulses)


# --- where things lie -------------------------------------------------------------------------


def _traces(recording: Recording, style: PageStyle) -> tuple[Trace, ...]:
    """Every stretch of every lead, row by row."""
    k = style.px_per_mm
    per_sample = style.speed * k / HZ
    samples = round(style.seconds * HZ)
    traces = []
    for r, row in enumerate(ROWS[style.layout]):
        cuts = [round(c * samples / len(row)) for c in range(len(row) + 1)]
        for c, lead in enumerate(row):
            x0, y0 = _left_px(style) + cuts[c] * per_sample, _row_px(style, r)
            baseline = _baseline(recording.lead(lead))
            traces.append(
                Trace(
                    lead, r, c, cuts[c], cuts[c + 1], x0, y0, per_sample, style.gain * k, baseline
                )
            )
    return tuple(traces)


def _baseline(mv: NDArray[np.float32]) -> float:
    """The level that a lead is drawn around: its median, 0 for a lead without data."""
    finite = mv[np.isfinite(mv)]
    return float(np.median(finite)) if finite.size else 0.0


def _pulses(style: PageStyle) -> tuple[Pulse, ...]:
    """One pulse at the chosen end of every row."""
    if style.pulse == "none":
        return ()
    k = style.px_per_mm
    width, height = 0.2 * style.speed * k, style.gain * k
    offset = (
        -width - 2.5 * k if style.pulse == "left" else style.seconds * style.speed * k + 2.0 * k
    )
    x0 = _left_px(style) + offset
    return tuple(
        Pulse(x0, _row_px(style, r), width, height) for r in range(len(ROWS[style.layout]))
    )


def _left_px(style: PageStyle) -> float:
    """x of the strip's first sample."""
    return (style.left_mm + (style.pulse_mm if style.pulse == "left" else 0.0)) * style.px_per_mm


def _row_px(style: PageStyle, row: int) -> float:
    """y of a row's baseline: a little below the middle of the row, for R waves are taller than S
    waves are deep.
    """
    return (style.top_mm + (row + 0.56) * style.row_mm) * style.px_per_mm


# --- paper ------------------------------------------------------------------------------------


def _paper(style: PageStyle) -> Pixels:
    """Paper with its grid: (height, width, 3)."""
    width, height = style.size_px
    if style.grid != "none" and style.grid_everywhere:
        return _grid(height, width, style)
    image: Pixels = np.empty((height, width, 3), np.uint8)
    image[:] = np.tile(np.array(style.paper, np.uint8), (width, 1))
    if style.grid != "none":
        k = style.px_per_mm
        left, right = round(0.5 * style.left_mm * k), width - round(0.5 * style.right_mm * k)
        top, bottom = round((style.top_mm - 1) * k), height - round((style.bottom_mm - 1) * k)
        image[top:bottom, left:right] = _grid(bottom - top, right - left, style)
    return image


def _grid(height: int, width: int, style: PageStyle) -> Pixels:
    """The grid alone: each kind of row is mixed once, then copied to where it belongs."""
    across, down = _coverage(width, style), _coverage(height, style)
    kinds, which = np.unique(down, axis=1, return_inverse=True)
    paper, minor, major = (np.array(c, np.float64) for c in (style.paper, style.minor, style.major))
    mix = np.minimum if style.grid == "dots" else np.maximum
    fine = mix(kinds[0][:, None], across[0][None]) * (style.grid != "major")
    coarse = np.maximum(kinds[1][:, None], across[1][None])
    rows = paper + fine[..., None] * (minor - paper)
    rows += coarse[..., None] * (major - rows)
    mixed = np.round(rows).astype(np.uint8).reshape(len(rows), -1)
    grid: Pixels = mixed.take(which.reshape(-1), axis=0).reshape(height, width, 3)
    return grid


def _coverage(length: int, style: PageStyle) -> Points:
    """How much of each pixel the 1 mm and the 5 mm lines cover along one direction, in sixteenths:

    (2, length).
    """
    pixels = np.arange(length) + 0.5
    lines = []
    for spacing, line in ((style.px_per_mm, style.minor_mm), (5 * style.px_per_mm, style.major_mm)):
        half = max(line * style.px_per_mm, 0.5) / 2
        offset = np.abs((pixels + spacing / 2) % spacing - spacing / 2)
        lines.append(np.clip(half + 0.5 - offset, 0, min(1.0, 2 * half)))
    return np.round(np.stack(lines) * 16) / 16


# --- ink --------------------------------------------------------------------------------------


def _stroke(ink: Pixels, points: Points, width: int) -> None:
    """One antialiased line through the points, broken where there are none."""
    finite = np.asarray(np.isfinite(points).all(axis=1))
    fixed = np.round(np.where(finite[:, None], points, 0) * (1 << SHIFT)).astype(np.int32)
    if finite.all():
        pieces = [fixed]
    else:
        ends = np.flatnonzero(np.diff(np.concatenate([[0], finite.astype(np.int8), [0]])))
        pieces = [fixed[a:b] for a, b in ends.reshape(-1, 2)]
    for piece in pieces:
        cv2.polylines(ink, [piece], False, (255,), width, cv2.LINE_AA, SHIFT)


def _pulse_points(pulse: Pulse) -> Points:
    """Corners of a calibration pulse: foot, up, along, down, foot."""
    foot = 0.2 * pulse.width
    x = pulse.x0 + np.array([-foot, 0, 0, pulse.width, pulse.width, pulse.width + foot])
    y = pulse.y0 - pulse.height * np.array([0, 0, 1, 1, 0, 0])
    return np.stack([x, y], axis=1)


def _joins(ink: Pixels, traces: tuple[Trace, ...], style: PageStyle, width: int) -> None:
    """Draw the marks between columns; a gap erases the trace instead."""
    k = style.px_per_mm
    for trace in traces:
        if trace.column == 0 or style.join == "none":
            continue
        if style.join == "gap":
            x = round(trace.x0)
            top, bottom = (
                round(trace.y0 - style.row_mm * k / 2),
                round(trace.y0 + style.row_mm * k / 2),
            )
            ink[max(top, 0) : bottom, x - round(0.4 * k) : x + round(0.4 * k)] = 0
            continue
        for near, far in JOIN_MM[style.join]:
            _stroke(
                ink,
                np.array([[trace.x0, trace.y0 + near * k], [trace.x0, trace.y0 + far * k]]),
                width,
            )


def _blend(image: Pixels, ink: Pixels, colour: Rgb, strength: float = 1.0) -> None:
    """Colour over the page by coverage times `strength`, in place, only where there is any."""
    where = np.flatnonzero(ink != 0)
    flat = image.reshape(-1, 3)
    boosted = np.minimum(np.round(np.arange(256) * strength), 255).astype(np.int32)
    cover = boosted[ink.reshape(-1)[where]][:, None]
    under = flat[where].astype(np.int32)
    flat[where] = (under + ((np.array(colour, np.int32) - under) * cover + 127) // 255).astype(
        np.uint8
    )


# --- words ------------------------------------------------------------------------------------


def _write(image: Pixels, traces: tuple[Trace, ...], style: PageStyle) -> None:
    """Lead names, header and footer."""
    k, (width, height) = style.px_per_mm, style.size_px
    size = max(8, round(style.label_mm * k))
    for trace in traces if style.names != NO_NAMES else ():
        in_margin = style.names == "left" and trace.column == 0
        x = 1.5 * k if in_margin else trace.x0 + 1.2 * k
        lift = 0.0 if in_margin else 0.25 if style.names == "below" else -0.30
        y = trace.y0 + lift * style.row_mm * k - (0 if style.names == "below" else size / 2)
        _put(image, trace.lead, style, size, x, y)
    size = max(8, round(style.text_mm * k))
    head, foot = 0.30 * style.top_mm * k - size / 2, height - 0.62 * style.bottom_mm * k
    for entries, y in ((style.header, head), (style.footer, foot)):
        step = (width - 2 * style.left_mm * k) / max(len(entries), 1)
        for i, entry in enumerate(entries):
            for n, words in enumerate(entry.split("\n")):
                _put(
                    image,
                    words,
                    style,
                    size,
                    style.left_mm * k + i * step,
                    max(y, 1) + 1.5 * n * size,
                )


def _put(image: Pixels, words: str, style: PageStyle, size: int, x: float, y: float) -> None:
    """Words with their upper left corner at (x, y), cut off at the page's edge."""
    mask = _words(words, style.font, size, style.face, style.face_scale)
    left, top = round(x), round(y)
    box = image[max(top, 0) : top + mask.shape[0], max(left, 0) : left + mask.shape[1]]
    cover = mask[max(-top, 0) :, max(-left, 0) :][: box.shape[0], : box.shape[1], None].astype(
        np.int32
    )
    under = box.astype(np.int32)
    box[:] = under + ((np.array(style.text, np.int32) - under) * cover + 127) // 255


@lru_cache(maxsize=4096)
def _words(words: str, font: str, size: int, file: str | None, scale: float) -> Pixels:
    """Coverage mask of one line of text, about `size` pixels high."""
    if font == "pillow":
        face = _face(round(1.25 * size), file, scale)
        ascent, descent = face.getmetrics()
        picture = Image.new("L", (int(face.getlength(words)) + 2, ascent + descent))
        ImageDraw.Draw(picture).text((1, 0), words, fill=255, font=face)
        mask: Pixels = np.array(picture)
        return mask
    scale = size / 22.0  # of OpenCV's own fonts
    (width, height), base = cv2.getTextSize(words, HERSHEY[font], scale, 1)
    mask = np.zeros((height + base + 2, width + 2), np.uint8)
    cv2.putText(mask, words, (1, height + 1), HERSHEY[font], scale, (255,), 1, cv2.LINE_AA)
    return mask


@lru_cache(maxsize=64)
def _face(size: int, file: str | None, scale: float) -> Any:
    """A TrueType file at `scale` times the size, or Pillow's own font."""
    if file is None:
        return ImageFont.load_default(size)
    return ImageFont.truetype(file, max(6, round(size * scale)))
