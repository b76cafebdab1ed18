"""RR intervals, kinds of beats, regularity, pauses and pacing."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from pulse_edge.measurement.alignment import Alignment
from pulse_edge.measurement.beats import Channel, Detection, Index
from pulse_edge.measurement.filters import Samples, samples
from pulse_edge.measurement.signal import SAMPLES_PER_SECOND

NORMAL, VENTRICULAR, SUPRAVENTRICULAR, OTHER, UNKNOWN = (
    "normal",
    "ventricular",
    "supraventricular",
    "other shape",
    "unknown",
)
"""Kinds of beats. `other shape`: not premature, yet unlike the dominant beat. `unknown`: cut off by
the end of the trace."""

GAP_MS = 120.0
"""A longer stretch without any trace may hide a QRS, so the interval across it does not count."""
PREMATURE, PREMATURE_OTHER = 0.80, 0.92
"""Share of the usual RR interval below which a beat of the dominant shape is premature, and one of
another shape, whose broad QRS has its centre later."""
PAUSE_MS = 2000.0
"""Pauses of 2 s and more: 2018 ACC/AHA/HRS guideline on bradycardia, Circulation 140 (2019) e382."""
REGULAR_RANGE_MS, IRREGULAR_RANGE, IRREGULAR_RMSSD = 120.0, 0.30, 0.10
"""RR intervals within 120 ms of one another are regular; a range of 30 % of the mean interval, or
an RMSSD of 10 % of it, is irregular (Dash and others, Ann Biomed Eng 37, 2009, 1701, detect atrial
fibrillation at 10 %); breathing lies between."""
SPIKE_LEADS = 3
"""Leads in which a spike of a pacemaker shows at least."""
FEWEST_INTERVALS = 3
MIN_DOMINANT = 0.4
"""Share of beats with the dominant shape below which the deflections are no beats: noise, or
ventricular fibrillation."""


@dataclass(frozen=True)
class Rhythm:
    """When the ventricles beat, and how."""

    kinds: tuple[str, ...]
    """Of each beat."""
    intervals: Samples
    """(beats - 1,) RR intervals in ms; NaN where a gap of the trace may hide a beat."""
    normal: Samples
    """RR intervals in ms between two normal beats that follow one another."""

    @property
    def valid(self) -> Samples:
        """RR intervals in ms without those across a gap."""
        return self.intervals[np.isfinite(self.intervals)]

    @property
    def rmssd(self) -> float | None:
        """Root mean square of successive differences of the normal intervals, ms; None for fewer
        than three."""
        if self.normal.size < FEWEST_INTERVALS:
            return None
        return float(np.sqrt(np.mean(np.square(np.diff(self.normal)))))

    @property
    def regular(self) -> bool | None:
        """Whether normal RR intervals hardly vary (True) or vary a lot (False); None between, or
        for fewer than three."""
        rmssd = self.rmssd
        if rmssd is None:
            return None
        mean, spread = float(self.normal.mean()), float(np.ptp(self.normal))
        if rmssd > IRREGULAR_RMSSD * mean or spread > IRREGULAR_RANGE * mean:
            return False
        return True if spread <= REGULAR_RANGE_MS else None


def rhythm_of(detection: Detection, alignment: Alignment, beats: Index) -> Rhythm:
    """Measure RR intervals between `beats` (samples) and name the kind of each beat."""
    intervals = np.diff(beats) * 1000 / SAMPLES_PER_SECOND
    for n, (first, last) in enumerate(itertools.pairwise(beats)):
        if _longest_gap(detection, int(first), int(last)) > samples(GAP_MS):
            intervals[n] = np.nan
    kinds: list[str] = []
    for n in range(len(beats)):
        share = PREMATURE if alignment.dominant[n] else PREMATURE_OTHER
        early = n > 0 and bool(intervals[n - 1] < share * _usual(intervals, n - 1))
        if not alignment.whole[n]:
            kinds.append(UNKNOWN)
        elif not alignment.dominant[n]:
            kinds.append(VENTRICULAR if early else OTHER)
        elif early and kinds[-1] in (NORMAL, UNKNOWN):
            kinds.append(SUPRAVENTRICULAR)
        else:
            kinds.append(NORMAL)
    plain = np.array([kind == NORMAL for kind in kinds])
    between = plain[1:] & plain[:-1] & np.isfinite(intervals)
    return Rhythm(tuple(kinds), intervals, intervals[between])


def _longest_gap(detection: Detection, first: int, last: int) -> int:
    """Longest stretch without any trace between two samples."""
    holes = np.flatnonzero(np.concatenate([[True], detection.covered[first : last + 1], [True]]))
    return int(np.diff(holes).max()) - 1


def _usual(intervals: Samples, n: int) -> float:
    """Median of the intervals around the n-th, which may drift: up to four on either side."""
    return (
        float(np.nanmedian(intervals[max(n - 4, 0) : n + 5]))
        if np.isfinite(intervals).any()
        else np.nan
    )


def paced_beats(channels: tuple[Channel, ...], beats: Index, onset: int) -> float:
    """Share of the beats with a spike at the same distance from the QRS; `onset` in samples from
    the beat's centre.

    A spike shows in most leads. One that only a lead or two show is a notch of the QRS, and does
    not count.
    """
    first, last = onset - samples(300), onset + samples(60)
    leads = tuple(dict.fromkeys(c.lead for c in channels))
    marks = np.zeros((len(leads), len(beats), last - first))
    for channel in channels:
        for spike in channel.spikes:
            distance = spike - beats
            for n in np.flatnonzero((distance >= first) & (distance < last)):
                marks[leads.index(channel.lead), n, int(distance[n]) - first] = 1
    if not marks.size:
        return 0.0
    near = np.lib.stride_tricks.sliding_window_view(marks, samples(20), axis=2).max(axis=3)
    shown = near.any(axis=1).sum(axis=0) >= min(SPIKE_LEADS, len(leads))
    return float((near.max(axis=0).mean(axis=0) * shown).max())
