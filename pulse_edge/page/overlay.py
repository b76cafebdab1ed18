"""Copies of pages and pictures that show people the verdict, the rows, the scale and the sheet."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image

from pulse_edge.common.arrays import Pixels
from pulse_edge.page.quality import GOOD, REFUSED, USABLE, Quality

_COLOURS = {GOOD: (0, 140, 0), USABLE: (200, 120, 0), REFUSED: (200, 0, 0)}
"""Verdict -> RGB."""
_ROW, _RULER, _OUTLINE = (0, 90, 220), (0, 140, 0), (0, 160, 0)


def page_overlay(
    page: Image.Image, quality: Quality, across: float | None, down: float | None
) -> Image.Image:
    """Return a copy of the page with its rows, a ruler in centimetres, and the verdict above it.

    `across`, `down`: pixels per millimetre; without them there is no ruler.
    """
    canvas = np.array(page)
    thick = max(1, round(max(page.size) / 900))
    for y in quality.rows:
        cv2.line(canvas, (0, round(y)), (canvas.shape[1], round(y)), _ROW, thick)
    if across and down:
        _draw_ruler(canvas, 10 * across, 10 * down, thick)
    lines = [f"{quality.verdict.upper()}  {quality.layout or 'no ECG'}, {quality.leads} leads"]
    lines += [reason.advice for reason in quality.reasons]
    strip = _text(lines, canvas.shape[1], thick, _COLOURS[quality.verdict])
    return Image.fromarray(np.concatenate([strip, canvas]))


def _draw_ruler(canvas: Pixels, across: float, down: float, thick: int) -> None:
    """Draw a mark each centimetre along the left and top edge.

    `across`, `down`: pixels of a centimetre.
    """
    for n in range(int(canvas.shape[1] / across) + 1):
        x = round(n * across)
        cv2.line(canvas, (x, 0), (x, 6 * thick), _RULER, thick)
    for n in range(int(canvas.shape[0] / down) + 1):
        y = round(n * down)
        cv2.line(canvas, (0, y), (6 * thick, y), _RULER, thick)


def _text(lines: Sequence[str], width: int, thick: int, colour: tuple[int, int, int]) -> Pixels:
    """Return a white strip (h, width, 3) with lines of text, the first of them in `colour`."""
    size = 0.55 * thick + 0.15
    parts = [part for line in lines for part in wrapped(line, size, thick, width - 12 * thick)]
    strip = np.full((round(30 * size * (len(parts) + 0.5)), width, 3), 255, np.uint8)
    for n, part in enumerate(parts):
        cv2.putText(
            strip,
            part,
            (6 * thick, round(30 * size * (n + 0.9))),
            cv2.FONT_HERSHEY_SIMPLEX,
            size,
            colour if n == 0 else (0, 0, 0),
            thick,
            cv2.LINE_AA,
        )
    return strip


def wrapped(line: str, size: float, thick: int, width: int) -> list[str]:
    """Split a line between words into parts that are at most `width` pixels wide.

    A single word may be wider.

    `size`, `thick`: scale and thickness of the letters, as OpenCV draws them.
    """
    parts: list[str] = []
    for word in line.split(" "):
        longer = f"{parts[-1]} {word}" if parts else word
        if parts and cv2.getTextSize(longer, cv2.FONT_HERSHEY_SIMPLEX, size, thick)[0][0] <= width:
            parts[-1] = longer
        else:
            parts.append(word)
    return parts


def sheet_overlay(picture: Image.Image, corners: Sequence[tuple[float, float]]) -> Image.Image:
    """Return a copy of the picture with the outline of the sheet, whose four corners are given in
    pixels."""
    canvas = np.array(picture)
    thick = max(2, round(max(picture.size) / 500))
    outline = [np.round(np.array(corners)).astype(np.int32)]
    cv2.polylines(canvas, outline, True, _OUTLINE, thick, cv2.LINE_AA)
    return Image.fromarray(canvas)
