"""How well the trace of a flat page agrees with the page that was printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from calibration.synthetic import wfdb
from pulse_edge.page import admission
from pulse_edge.page.ink import Ink

ECG = Path(__file__).resolve().parents[2] / "shared" / "ecg"
Array = npt.NDArray[Any]
PAGE_MM, FINE = (279.4, 215.9), 4
"""Size of a letter page in mm, and pixels per millimetre of the masks that are compared."""


def trace_mask(page: admission.CheckedPage) -> Array:
    """The trace's mask at FINE pixels per millimetre of its own grid, softened by a millimetre.

    Not by the page's size: a print is rarely as large as what was printed, but its grid shrinks
    along.
    """
    pixels, g = np.asarray(page.flat.image), page.flat.grid
    across, down = (g.across, g.down) if g else (max(pixels.shape) / 270,) * 2
    ink = Ink(pixels, across, down, min(1.0, 4 / (across * down) ** 0.5), grid=g is not None)
    size = round(pixels.shape[1] / across * FINE), round(pixels.shape[0] / down * FINE)
    return cv2.GaussianBlur(
        cv2.resize(ink.mask.astype(np.float32), size, interpolation=cv2.INTER_AREA), (0, 0), FINE
    )


def drawn_reference(number: str) -> Array:
    """Return the page of the photographed prints, drawn from its signal: 3x4 and a strip of lead
    II."""
    header = wfdb.read_header(ECG / "records" / "paper2pulse" / f"{number}_hr.hea")
    record = dict(
        zip((c.name.upper() for c in header.channels), wfdb.read_signals(header), strict=True)
    )
    mask = np.zeros((round(PAGE_MM[1] * FINE), round(PAGE_MM[0] * FINE)), np.uint8)
    layout = (
        ("I", "aVR", "V1", "V4"),
        ("II", "aVL", "V2", "V5"),
        ("III", "aVF", "V3", "V6"),
        ("II",),
    )
    for y, row in zip((92.0, 127.5, 163.0, 196.0), layout, strict=True):
        for c, name in enumerate(row):
            mv = record[name.upper()]
            n = len(mv) // len(row)
            part = mv[c * n : (c + 1) * n]
            x = 15.3 + (c * n + np.arange(n)) / 500 * 25
            recorded = np.isfinite(part)
            if recorded.any():
                points = np.stack([x, y - 10 * part], axis=1)[recorded] * FINE * 16
                cv2.polylines(
                    mask, [np.round(points).astype(np.int32)], False, (255,), 1, cv2.LINE_AA, 4
                )
    return cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), FINE)


def agreement(reference: Array, other: Array) -> float:
    """Return Pearson's correlation at the best shift, of up to 20 mm beyond the picture."""
    y, x = (20 * FINE + max(0, n - m) for n, m in zip(reference.shape, other.shape, strict=True))
    padded = cv2.copyMakeBorder(other, y, y, x, x, cv2.BORDER_CONSTANT, value=0)
    return float(
        cv2.matchTemplate(
            padded.astype(np.float32), reference.astype(np.float32), cv2.TM_CCOEFF_NORMED
        ).max()
    )
