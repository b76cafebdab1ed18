"""Find the calibration pulses of a page, which tell its gain and its speed.

In: the traced lines of the rows. Out: `Pulse` per row and place. A pulse is 1 mV high and 0.2 s
long: two upright strokes with a level stroke between their upper ends. The waves of a heart have no
such corners.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pulse_edge.measurement.tracing import Line

Float = npt.NDArray[np.float32]

MILLIVOLTS, SECONDS = 1.0, 0.2
"""Height and length of a calibration pulse."""
STEEP_MM = 2.0
"""A run of ink that is higher than this is an upright stroke."""
HEIGHT_MM = (3.5, 23.0)
LENGTH_MM = (2.0, 12.0)
SLOPE = 0.2
"""Slope of the level stroke at most, on a bent page."""
BROKEN_MM = 4.0
"""By how much an upright stroke may begin below the level one, where a photograph has lost a piece
of it."""
LEVEL_MM = 0.35
"""By how much the upper stroke may go up or down."""


@dataclass(frozen=True)
class Pulse:
    """A calibration pulse of one row."""

    row: int
    left: float
    """x in pixels of the pen's centre on the rising stroke, and `right` on the falling one."""
    right: float
    foot: float
    """y in pixels of the pen's centre at its foot, and `top` on the level stroke."""
    top: float

    @property
    def height(self) -> float:
        """Pixels."""
        return self.foot - self.top

    @property
    def length(self) -> float:
        """Pixels."""
        return self.right - self.left


def find_pulses(lines: tuple[Line, ...], across: float, down: float) -> tuple[Pulse, ...]:
    """Find the pulses of the rows; those of several rows stand one below the other."""
    every = [pulse for n, line in enumerate(lines) for pulse in _pulses(n, line, across, down)]
    agreed: list[Pulse] = []
    for pulse in every:
        same = {
            p.row: p
            for p in every
            if abs(p.left - pulse.left) < 2.5 * across
            and abs(p.height / pulse.height - 1) < 0.12
            and abs(p.length / pulse.length - 1) < 0.15
        }
        if len(same) >= max(2, round(0.35 * len(lines))) or (
            len(lines) <= 2 and len(same) == len(lines)
        ):
            agreed.append(pulse)
    if not agreed:
        agreed = [p for p in every if _standard(p, across, down)]
    return tuple(agreed)


def _standard(pulse: Pulse, across: float, down: float) -> bool:
    """Whether it has the very size of a pulse at a usual gain and speed."""
    height, length = pulse.height / down, pulse.length / across
    high = min(abs(height / usual - 1) for usual in (5, 10, 20)) < 0.07
    return high and min(abs(length / usual - 1) for usual in (2.5, 5, 10)) < 0.1


def _pulses(row: int, line: Line, across: float, down: float) -> list[Pulse]:
    tall, width = line.bottom - line.top, line.stroke
    fine = line.fine
    steep = np.nan_to_num(tall) > STEEP_MM * down
    edges = np.flatnonzero(np.diff(np.concatenate([[0], steep.astype(np.int8), [0]]))).reshape(
        -1, 2
    )
    strokes = [(int(a), int(b)) for a, b in edges if b - a < (1.2 * across + width) * fine]
    pulses = []
    for n, one in enumerate(strokes):
        for two in strokes[n + 1 : n + 3]:
            pulse = _pulse(row, line, one, two, (across, down))
            if pulse is not None:
                pulses.append(pulse)
    return pulses


def _pulse(
    row: int, line: Line, one: tuple[int, int], two: tuple[int, int], scale: tuple[float, float]
) -> Pulse | None:
    """The pulse between two upright strokes, given as first and last column; None where it is none."""
    across, down = scale
    width, fine = line.stroke, line.fine
    left, right = (line.pixel((a + b - 1) / 2) for a, b in (one, two))
    if not LENGTH_MM[0] * across < right - left < LENGTH_MM[1] * across:
        return None
    inner = line.y[one[1] + fine : two[0] - fine]
    if inner.size < 0.4 * (right - left) * fine or np.isfinite(inner).mean() < 0.9:
        return None
    # On a bent page the level stroke has a slope.
    place = np.linspace(-0.5, 0.5, inner.size)[np.isfinite(inner)]
    level = inner[np.isfinite(inner)].astype(np.float64)
    slope, top = np.polyfit(place, level, 1)
    off = np.abs(level - top - slope * place)
    if np.quantile(off, 0.85) > max(LEVEL_MM * down, 0.8) or abs(slope) > SLOPE * (right - left):
        return None
    ends = top - slope / 2, top + slope / 2
    tops = [
        float(line.top[a:b].min()) + width / 2 - end
        for (a, b), end in zip((one, two), ends, strict=True)
    ]
    slack = max(0.6 * down, 1.5)
    if min(tops) < -slack or max(tops) > BROKEN_MM * down or min(np.abs(tops)) > slack:
        return None
    high = [
        float(line.bottom[a:b].max()) - width / 2 - end
        for (a, b), end in zip((one, two), ends, strict=True)
    ]
    if (
        abs(high[0] - high[1]) > 3 * slack
    ):  # a stroke that meets print or a wave is too long, a broken one too short
        high = [
            min(
                high,
                key=lambda h: min(abs(np.log(max(h, 1) / down / usual)) for usual in (5, 10, 20)),
            )
        ]
        if min(abs(high[0] / down / usual - 1) for usual in (5, 10, 20)) > 0.12:
            return None
    height = float(np.mean(high))
    if not HEIGHT_MM[0] * down < height < HEIGHT_MM[1] * down:
        return None
    return Pulse(row, left, right, top + height, top)
