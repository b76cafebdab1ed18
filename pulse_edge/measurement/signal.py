"""The 12-lead signal that was traced from a page."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Millivolts = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
SAMPLES_PER_SECOND = 500


@dataclass(frozen=True, eq=False)
class LeadPath:
    """Where the trace of a lead or a rhythm strip runs over the flat page."""

    lead: str
    points: Millivolts
    """(samples, 2) float32 pixels x, y of each sample of the signal; NaN where nothing was traced."""
    strip: bool = False
    """A rhythm strip rather than one of the twelve leads."""


@dataclass(frozen=True)
class TracedSignal:
    """Twelve leads in millivolts on one time axis, as they were traced; what was not traced is NaN."""

    millivolts: Millivolts
    """(12, samples), order of `LEADS`, 500 samples a second. The time axis starts at the left end
    of the leftmost trace; a lead that is printed in the second of four columns starts 2.5 s later.
    NaN where no ink was followed: gaps are never drawn over."""
    scores: tuple[float, ...]
    """12 values from 0 to 1: how probably each lead is right;
    0 for a lead that was not traced, or left out because its trace is probably wrong."""
    millimetres_per_second: float
    millimetres_per_millivolt: float
    speed_certain: bool
    """False where the speed is assumed, because nothing on the page shows it."""
    gain_certain: bool
    """True where a calibration pulse was found."""
    layout: str
    """Rows x columns and strips, such as `3x4+1`; empty where unknown."""
    strips: tuple[tuple[str, Millivolts], ...] = ()
    """Long rhythm strips as (lead, (samples,) millivolts): the same time axis as `millivolts`."""
    reasons: tuple[str, ...] = ()
    """Why leads are missing, a sentence each."""
    paths: tuple[LeadPath, ...] = ()
    """Where the traces run over the page, for a picture."""

    @property
    def valid(self) -> Mask:
        """(12, samples): where there is a value."""
        return np.isfinite(self.millivolts)
