"""The one type that synthetic and real ECGs share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.synthetic.findings import LEADS, Labels

HZ = 500
SECONDS = 10
SAMPLES = HZ * SECONDS


@dataclass(frozen=True)
class Beat:
    """One heartbeat; times in seconds from the start of the recording, all on the 2 ms sample grid."""

    kind: str  # "N" conducted from sinus node or fibrillating atria, "A" premature atrial, "V" premature ventricular
    p_onset: float | None  # None: no P wave of its own
    onset: float  # QRS onset
    peak: float  # largest QRS magnitude
    end: float  # J point
    t_end: float  # end of T, by the tangent method


@dataclass(frozen=True)
class Measurements:
    """What a cardiologist would measure, on the dominant beats; None where it does not exist or is
    not known.
    """

    rate: float | None  # beats per minute, mean over all beats in the 10 s
    pr: float | None  # ms, P onset to QRS onset; None in atrial fibrillation
    qrs: float | None  # ms
    qt: float | None  # ms
    axis: float | None  # degrees in (-180, 180], frontal plane, from net QRS areas in I and aVF
    st: (
        tuple[float, ...] | None
    )  # mV in each of the twelve leads, 40 ms after the J point, against QRS onset

    @property
    def qtc(self) -> float | None:
        """QT corrected by Bazett, ms."""
        if self.qt is None or self.rate is None:
            return None
        return self.qt / float(np.sqrt(60.0 / self.rate))


UNKNOWN = Measurements(None, None, None, None, None, None)


@dataclass(frozen=True, eq=False)
class Recording:
    """Ten seconds of twelve leads and all that is known about them."""

    signal: NDArray[
        np.float32
    ]  # (12, 5000) mV at 500 Hz, rows as in `leads`; NaN where a real recording has no data
    clean: NDArray[np.float32] | None  # the same without noise and wander; None for real recordings
    labels: Labels
    measurements: Measurements
    beats: tuple[
        Beat, ...
    ] = ()  # by QRS onset, those that begin within the 10 s; empty for real recordings
    findings: frozenset[str] | None = None  # None for real recordings
    sites: tuple[tuple[str, str], ...] = ()  # where: ("STE", "anterior"), ("MI", "inferior"), ...
    source: str = "synthetic"  # or the file and recording it was read from
    statement: str = ""  # a real recording's own words
    leads: tuple[str, ...] = LEADS

    def lead(self, name: str) -> NDArray[np.float32]:
        """One lead, (5000,) mV."""
        row: NDArray[np.float32] = self.signal[self.leads.index(name)]
        return row


def twelve_leads(eight: NDArray[np.float64]) -> NDArray[np.float64]:
    """I, II, V1..V6 (8, n) -> all twelve (12, n):

    III = II - I by Einthoven, aVR, aVL, aVF by Goldberger.
    """
    i, ii = eight[0], eight[1]
    limb = np.stack([i, ii, ii - i, -(i + ii) / 2, i - ii / 2, ii - i / 2])
    return np.concatenate([limb, eight[2:]])
