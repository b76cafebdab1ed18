"""A recorded ECG in millivolts, lead by lead on one time axis, before it is plotted or measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Millivolts = npt.NDArray[np.float64]

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")


@dataclass(frozen=True)
class Signal:
    """One lead."""

    mv: Millivolts
    """(n,) millivolts, NaN where none was recorded."""
    hz: float
    """Samples a second."""
    start: float = 0.0
    """Seconds from the beginning of the recording to the first sample."""

    @property
    def end(self) -> float:
        """Seconds from the beginning of the recording to the end of the last sample."""
        return self.start + self.mv.size / self.hz

    def between(self, start: float, stop: float) -> tuple[Millivolts, Millivolts]:
        """Return seconds of the recording and millivolts, (n,) each, of the samples from `start` to
        `stop`, both included."""
        first = max(0, round((start - self.start) * self.hz))
        last = max(first, min(round((stop - self.start) * self.hz) + 1, self.mv.size))
        return self.start + np.arange(first, last) / self.hz, self.mv[first:last]

    def recorded(self, start: float = -np.inf, stop: float = np.inf) -> float:
        """Return the seconds that were recorded between two seconds of the recording."""
        start, stop = max(start, self.start), min(stop, self.end)
        if stop <= start:
            return 0.0
        return min(float(np.isfinite(self.between(start, stop)[1]).sum()) / self.hz, stop - start)


@dataclass(frozen=True)
class Recording:
    """The leads of an ECG. The first sample of the earliest lead is at second 0."""

    leads: Mapping[str, Signal]
    """All of LEADS, and further ones such as V7 or V3R."""
    computed: tuple[str, ...] = ()
    """Leads that were computed from others because they were not recorded."""
    averaged: bool = False
    """The file says that a machine filtered or averaged its signals."""
    not_shown: tuple[str, ...] = ()
    """What else the file holds, in words for people."""

    @property
    def seconds(self) -> float:
        """Seconds from the first sample to the end of the last."""
        return max((signal.end for signal in self.leads.values()), default=0.0)


def complete_leads(leads: Mapping[str, Signal]) -> tuple[dict[str, Signal], tuple[str, ...]]:
    """Add those of I, II, III, aVR, aVL and aVF that follow from two others.

    Return all leads and the names of the added.

    Einthoven: I + III = II. Goldberger: aVR = -(I + II) / 2, aVL = I - II / 2, aVF = II - I / 2.
    Exact, as all six leads come from three electrodes. Carts themselves record eight leads and
    compute the other four.
    """
    whole = dict(leads)
    for name, first, second, a, b in (
        ("II", "I", "III", 1.0, 1.0),
        ("I", "II", "III", 1.0, -1.0),
        ("III", "II", "I", 1.0, -1.0),
        ("aVR", "I", "II", -0.5, -0.5),
        ("aVL", "I", "II", 1.0, -0.5),
        ("aVF", "II", "I", 1.0, -0.5),
    ):
        one, two = whole.get(first), whole.get(second)
        if name not in whole and one is not None and two is not None and _are_aligned(one, two):
            whole[name] = Signal(a * one.mv + b * two.mv, one.hz, one.start)
    return whole, tuple(name for name in LEADS if name in whole and name not in leads)


def _are_aligned(one: Signal, two: Signal) -> bool:
    return (
        one.hz == two.hz
        and one.mv.size == two.mv.size
        and abs(one.start - two.start) < 0.5 / one.hz
    )
