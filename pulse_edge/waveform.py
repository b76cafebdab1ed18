"""A recorded 12-lead ECG -> the page a cart would print: 25 mm/s, 10 mm/mV, 3x4 and a rhythm strip of lead II.

In: millivolts per lead. Out: RGB. Nothing is written on the page but lead names, speed and gain.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Millivolts = npt.NDArray[np.float64]

ROWS = (("I", "aVR", "V1", "V4"), ("II", "aVL", "V2", "V5"), ("III", "aVF", "V3", "V6"), ("II",))
LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
SECONDS = 10.0
"""Of the record, on the page: 2.5 for each lead, all of it for the rhythm strip."""
PX_PER_MM = 8
_FINER = 4
"""The trace is drawn this much larger, and comes out antialiased."""
_SPEED, _GAIN = 25, 10  # mm/s, mm/mV
_LEFT, _TOP, _ROW, _RIGHT, _BOTTOM = 16, 12, 36, 8, 14  # mm
_PAPER, _MINOR, _MAJOR, _INK = (255, 253, 252), (251, 214, 212), (238, 156, 156), (20, 20, 25)


def completed(leads: Mapping[str, Millivolts]) -> dict[str, Millivolts]:
    """With III, aVR, aVL and aVF worked out from I and II where they are absent (Einthoven, Goldberger)."""
    made = dict(leads)
    if "I" in made and "II" in made:
        one, two = made["I"], made["II"]
        for name, values in (("III", two - one), ("aVR", -(one + two) / 2), ("aVL", one - two / 2)):
            made.setdefault(name, values)
        made.setdefault("aVF", two - one / 2)
    return made


def draw(leads: Mapping[str, Millivolts], hz: float) -> Image.Image:
    """The page of all twelve leads, (n,) millivolts each at `hz` samples a second; NaN where nothing was recorded."""
    k = PX_PER_MM
    width = round((_LEFT + SECONDS * _SPEED + _RIGHT) * k)
    height = (_TOP + len(ROWS) * _ROW + _BOTTOM) * k
    page = Image.fromarray(_paper(width, height))
    ink = Image.new("L", (width, _ROW * 2 * k))
    for r, row in enumerate(ROWS):
        middle = _TOP + (r + 0.56) * _ROW
        # A row's own strip, two rows high: tall waves reach into the neighbour's, as on paper.
        strip = Image.new("L", (width * _FINER, ink.height * _FINER))
        pen = ImageDraw.Draw(strip)
        _pulse(pen)
        for c, name in enumerate(row):
            _trace(pen, leads[name], hz, c * SECONDS / len(row), (c + 1) * SECONDS / len(row))
        mask = strip.resize(ink.size, Image.Resampling.BOX)
        page.paste(_INK, (0, round((middle - _ROW) * k)), mask)
    _names(page)
    return page


def _paper(width: int, height: int) -> npt.NDArray[np.uint8]:
    """(height, width, 3) with lines each 1 and 5 mm."""
    paper = np.full((height, width, 3), _PAPER, np.uint8)
    for step, colour, thick in ((PX_PER_MM, _MINOR, 1), (5 * PX_PER_MM, _MAJOR, 2)):
        for n in range(thick):
            paper[n::step] = colour
            paper[:, n::step] = colour
    return paper


def _at(seconds: Millivolts | float, mv: Millivolts | float) -> npt.NDArray[np.float64]:
    """Pixels (n, 2) on a row's fine strip, whose middle is 0 mV."""
    k = PX_PER_MM * _FINER
    x = (_LEFT + np.asarray(seconds) * _SPEED) * k
    return np.stack(np.broadcast_arrays(x, (_ROW - np.asarray(mv) * _GAIN) * k), axis=-1)


def _trace(pen: ImageDraw.ImageDraw, mv: Millivolts, hz: float, start: float, stop: float) -> None:
    first, last = round(start * hz), min(round(stop * hz) + 1, mv.size)
    values = mv[first:last]
    found = np.isfinite(values)
    if not found.any():
        return
    points = _at(np.arange(first, last)[: values.size] / hz, values - np.median(mv[np.isfinite(mv)]))
    breaks = np.flatnonzero(np.diff(np.concatenate([[False], found, [False]]).astype(np.int8)))
    for a, b in breaks.reshape(-1, 2):
        pen.line([(x, y) for x, y in points[a:b]], 255, round(0.28 * PX_PER_MM * _FINER), "curve")


def _pulse(pen: ImageDraw.ImageDraw) -> None:
    """1 mV for 0.2 s, left of the trace."""
    corners = _at(np.array([-0.40, -0.34, -0.34, -0.14, -0.14, -0.08]), np.array([0, 0, 1, 1, 0, 0]))
    pen.line([(x, y) for x, y in corners], 255, round(0.28 * PX_PER_MM * _FINER))


def _names(page: Image.Image) -> None:
    k, pen = PX_PER_MM, ImageDraw.Draw(page)
    font = ImageFont.load_default(round(3.6 * k))
    for r, row in enumerate(ROWS):
        for c, name in enumerate(row):
            x = _LEFT + c * SECONDS * _SPEED / len(row) + 1
            pen.text((x * k, (_TOP + (r + 0.56) * _ROW - 14) * k), name, _INK, font)
            if c:
                line = (x - 1) * k, (_TOP + (r + 0.56) * _ROW) * k
                pen.line([(line[0], line[1] - 3 * k), (line[0], line[1] + 3 * k)], _INK, 2)
    pen.text((_LEFT * k, page.height - 8 * k), f"{_SPEED} mm/s    {_GAIN} mm/mV", _INK, font)
