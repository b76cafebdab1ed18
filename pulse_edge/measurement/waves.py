"""Find onset, peak and end of P, QRS and T on the median beat.

QRS: spatial velocity, the root mean square slope of all leads, against a threshold above its own
floor on either side, as in van Bemmel, Zywietz and Kors, "Signal analysis for ECG interpretation"
(Methods Inf Med 29, 1990, 317). T end: the tangent at the steepest part of the T wave's last limb
meets the level after T (Lepeschkin and Surawicz, Circulation 6, 1952, 378), lead by lead; the upper
quartile over the leads whose T is high enough. P: the first principal component of all leads before
the QRS; onset and end where it has fallen to 10 % of its height.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pulse_edge.measurement.alignment import Members, windows
from pulse_edge.measurement.beats import Channel, Index
from pulse_edge.measurement.filters import Samples, samples, smooth, velocity
from pulse_edge.measurement.signal import LEADS

BEFORE, AFTER = samples(500), samples(760)
"""Samples of the median beat before and after the centre of the QRS."""
WIDTH = BEFORE + AFTER

QRS_SIGMA_MS, QRS_SHARE, QRS_QUIET_MS = 7.0, 0.03, 18.0
"""Smoothing of the spatial velocity, share of its peak that bounds the QRS, and for how long it
stays below."""
T_SIGMA_MS, T_QUARTILE, T_TAIL_MS = 10.0, 0.75, 18.0
"""The tangent cuts off the tail of T: cardiologists mark the end 18 ms later (median of 100
recordings of LUDB)."""
P_SIGMA_MS, P_SHARE = 8.0, 0.07
NOISE_MV = 0.020
"""Noise of the median beat from which on a lead counts for less in the sums over all leads."""


@dataclass(frozen=True)
class MedianBeat:
    """One beat for each lead, averaged over the middle of the beats of the dominant shape."""

    millivolts: Samples
    """(12, WIDTH), the QRS around BEFORE; NaN for leads without such a beat."""
    noise: Samples
    """(12,) standard deviation of what remains of the noise after averaging, mV; NaN for fewer than
    two beats."""
    counts: Index
    """(12,) beats that were averaged."""

    @property
    def present(self) -> npt.NDArray[np.bool_]:
        """(12,): leads that have a beat."""
        return self.counts > 0

    @property
    def weights(self) -> Samples:
        """(12,): less for leads that are noisier than others, such as those with few beats."""
        noise = np.where(np.isnan(self.noise), 0.03, self.noise)
        return np.asarray(1 / (1 + np.square(noise / NOISE_MV)))


@dataclass(frozen=True)
class Waves:
    """Samples of the median beat at which waves begin, culminate and end; None for a wave that is
    not there."""

    qrs_onset: int
    qrs_end: int
    p_onset: int | None = None
    p_peak: int | None = None
    p_end: int | None = None
    t_peak: int | None = None
    t_end: int | None = None
    t_spread: float = 0.0
    """Interquartile range of the T end over the leads, ms."""
    p_reason: str = ""
    t_reason: str = ""


def median_beat(
    channels: tuple[Channel, ...], beats: Index, members: Members, onset: int
) -> MedianBeat:
    """Average the member beats of each lead; `onset` is the QRS onset in samples from the beat's
    centre (negative).

    The level just before each member's QRS is taken off, and what drifts between two of them with
    it: the QRS of a premature beat may stand on a T wave.
    """
    average, noise, counts = (
        np.full((12, WIDTH), np.nan),
        np.full(12, np.nan),
        np.zeros(12, np.intp),
    )
    own = _own(beats, members, channels[0].millivolts.size)
    for n, lead in enumerate(LEADS):
        stack = []
        for channel in channels:
            if channel.lead == lead:
                level = without_baseline(channel.millivolts, beats[members] + onset)
                cut = np.where(own, windows(level, beats, BEFORE, AFTER), np.nan)
                whole = np.isfinite(cut[:, BEFORE - samples(60) : BEFORE + samples(80)]).all(axis=1)
                stack.append(cut[whole & members])
        cut = np.concatenate(stack) if stack else np.zeros((0, WIDTH))
        counts[n] = len(cut)
        if len(cut):
            average[n] = central(cut)
        if len(cut) > 1:
            difference = np.diff(cut, axis=0)
            spread = (
                np.nanmedian(np.abs(difference[np.isfinite(difference)])) / 0.954
            )  # of a normal distribution
            noise[n] = float(spread) / np.sqrt(len(cut))
    return MedianBeat(average, noise, counts)


def central(values: Samples) -> Samples:
    """Average the middle of the beats at each sample: (beats, n) to (n,); one beat in five is left
    out on either side."""
    ordered = np.sort(values, axis=0)  # NaN last
    count = np.isfinite(values).sum(axis=0)
    drop = np.where(count >= 3, np.maximum(count // 5, 1), 0)
    rank = np.arange(len(values))[:, None]
    inside = (rank >= drop) & (rank < count - drop)
    total = np.where(inside, np.nan_to_num(ordered), 0).sum(axis=0)
    number = inside.sum(axis=0)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


def _own(beats: Index, members: Members, size: int) -> Members:
    """(beats, WIDTH): samples that belong to a beat's own cycle; the QRS of beats that are no
    members may be broad."""
    time = np.asarray(beats)[:, None] + np.arange(-BEFORE, AFTER)
    previous = np.concatenate([[-WIDTH], beats[:-1]])[:, None]
    following = np.concatenate([beats[1:], [size + WIDTH]])[:, None]
    before = np.where(members, samples(100), samples(160))
    after = np.where(members, samples(60), samples(130))
    ends = previous + np.concatenate([[0], before[:-1]])[:, None]
    starts = following - np.concatenate([after[1:], [0]])[:, None]
    return np.asarray((time > ends) & (time < starts))


def without_baseline(values: Samples, references: Index) -> Samples:
    """Subtract the line through the mean levels of the 22 ms before each reference sample."""
    levels, places = [], []
    for reference in references:
        first, last = max(int(reference) - samples(22), 0), max(int(reference), 0)
        part = values[first:last]
        if np.isfinite(part).sum() >= samples(12):
            levels.append(float(np.nanmean(part)))
            places.append((first + last) / 2)
    if not levels:
        return np.asarray(values - np.nanmedian(values))
    return np.asarray(values - np.interp(np.arange(values.size), places, levels))


def qrs_bounds(beat: MedianBeat) -> tuple[int, int]:
    """QRS onset and end in samples of the median beat, from the spatial velocity of its leads."""
    slopes = velocity(beat.millivolts[beat.present], QRS_SIGMA_MS)
    exists = np.isfinite(slopes)
    weights = np.where(exists, beat.weights[beat.present, None], 0)
    mean = np.where(exists, weights * slopes**2, 0).sum(axis=0) / np.maximum(
        weights.sum(axis=0), 1e-9
    )
    speed = np.where(exists.any(axis=0), np.sqrt(mean), np.nan)
    level = smooth(speed, 10)
    core = speed[BEFORE - samples(80) : BEFORE + samples(100)]
    top = BEFORE - samples(80) + int(np.nanargmax(core))
    before = float(np.nanmin(level[BEFORE - samples(160) : BEFORE - samples(40)]))
    after = float(np.nanmin(level[BEFORE + samples(40) : BEFORE + samples(220)]))
    quiet = samples(QRS_QUIET_MS)
    onset = end = top
    threshold = before + QRS_SHARE * (speed[top] - before)
    while (
        onset > BEFORE - samples(200)
        and not (speed[onset - quiet + 1 : onset + 1] < threshold).all()
    ):
        onset -= 1
    threshold = after + QRS_SHARE * (speed[top] - after)
    while end < BEFORE + samples(280) and not (speed[end : end + quiet] < threshold).all():
        end += 1
    return onset, end


def delineate(beat: MedianBeat, rr: float, p_present: bool) -> Waves:
    """Locate all waves of the median beat; `rr` is the usual RR interval in samples."""
    onset, end = qrs_bounds(beat)
    first = _t_wave(beat, onset, end, min(onset + rr - samples(100), WIDTH - 5), rr)
    if not p_present:
        waves = Waves(onset, end, p_reason="no P wave precedes the QRS at a constant distance")
        return _with_t(waves, first)
    t_before = onset + 0.36 * np.sqrt(rr * 500) - rr if isinstance(first, str) else first[1] - rr
    p = _p_wave(beat, onset, int(t_before))
    if isinstance(p, str):
        return _with_t(Waves(onset, end, p_reason=p), first)
    waves = Waves(onset, end, p_onset=p[0], p_peak=p[1], p_end=p[2])
    limit = rr + p[0] - samples(10)
    return _with_t(waves, _t_wave(beat, onset, end, min(limit, WIDTH - 5), rr))


def _with_t(waves: Waves, t: tuple[int, int, float] | str) -> Waves:
    if isinstance(t, str):
        return replace(waves, t_reason=t)
    return replace(waves, t_peak=t[0], t_end=t[1], t_spread=t[2])


def _t_wave(
    beat: MedianBeat, onset: int, end: int, limit: float, rr: float
) -> tuple[int, int, float] | str:
    """Peak and end of T in samples, and the spread of the end over the leads in ms; or why there is
    none."""
    latest = onset + 0.48 * np.sqrt(rr / 500) * 500
    ends: list[tuple[float, float, float]] = []
    for values, noise in zip(beat.millivolts[beat.present], beat.noise[beat.present], strict=True):
        t = _t_of_lead(smooth(values, T_SIGMA_MS), end, int(limit), int(latest))
        if t is not None and t[2] > max(0.05, 4 * (0.0 if np.isnan(noise) else noise)):
            ends.append(t)
    if not ends:
        return "no lead shows a T wave that stands out"
    table = np.array(ends)
    table = table[table[:, 2] >= 0.5 * np.median(table[:, 2])]
    low, high = np.quantile(table[:, 1], [0.25, T_QUARTILE])
    peak = float(np.median(table[:, 0]))
    return round(peak), round(float(high)) + samples(T_TAIL_MS), float(high - low) * 2


def _t_of_lead(
    level: Samples, end: int, limit: int, latest: int
) -> tuple[float, float, float] | None:
    """Peak and tangent end of T in samples, and its height in mV, of one lead; None without one."""
    start = end + samples(50)
    part = level[start:limit]
    part = part[: int(np.argmin(np.isfinite(part)))] if not np.isfinite(part).all() else part
    if part.size < samples(120):
        return None
    raised = part - np.median(part[-samples(30) :])
    top = int(np.argmax(np.abs(raised[: max(latest - start, 1)])))
    sign = float(np.sign(raised[top]))
    slope = -sign * np.gradient(raised)
    last = min(top + samples(160), raised.size - 1)
    if last <= top + 3:
        return None
    steepest = top + int(np.argmax(slope[top:last]))
    if slope[steepest] <= 0:
        return None
    foot = steepest + sign * raised[steepest] / slope[steepest]
    return float(start + top), float(start + foot), float(abs(raised[top]))


def _p_wave(beat: MedianBeat, onset: int, t_before: int) -> tuple[int, int, int] | str:
    """Onset, peak and end of P in samples of the median beat, or why it cannot be delineated."""
    first, last = max(onset - samples(300), t_before + samples(20), samples(24)), onset - samples(8)
    if last - first < samples(110):
        return "P and the T wave before it overlap"
    part = smooth(beat.millivolts[beat.present], P_SIGMA_MS)[:, first:last] * np.sqrt(
        beat.weights[beat.present, None]
    )
    part = part[np.isfinite(part).all(axis=1)]
    if not len(part):
        return "no lead shows the time before the QRS"
    component = (
        np.linalg.svd(part - part.mean(axis=1, keepdims=True), full_matrices=False)[0][:, 0] @ part
    )
    distance = np.arange(last - first, 0, -1) + samples(8)
    likely = np.interp(distance, [samples(200), samples(300)], [1.0, 0.5])
    shape = max((component, -component), key=lambda c: float((_prominence(c) * likely).max()))
    peak = int(np.argmax(_prominence(shape) * likely))
    reach = samples(90)
    left = max(peak - reach, 0) + int(np.argmin(shape[max(peak - reach, 0) : peak + 1]))
    right = peak + int(np.argmin(shape[peak : peak + reach]))
    begin = stop = peak
    while begin > left and shape[begin] - shape[left] > P_SHARE * (shape[peak] - shape[left]):
        begin -= 1
    while stop < right and shape[stop] - shape[right] > P_SHARE * (shape[peak] - shape[right]):
        stop += 1
    return first + begin, first + peak, first + stop


def _prominence(values: Samples) -> Samples:
    """Height of each sample over the higher of the lowest points on either side."""
    before = np.minimum.accumulate(values)
    after = np.minimum.accumulate(values[::-1])[::-1]
    return np.asarray(values - np.maximum(before, after))


def p_consistency(
    channels: tuple[Channel, ...], beats: Index, onset: int, t_before: int
) -> tuple[float, int]:
    """Share of the signal before the QRS that recurs from beat to beat, and how many pairs of beats
    show it.

    The intraclass correlation of 240 ms before the QRS, straight line taken off: 1 where every beat
    has the same P wave, 0 where the atria go their own way. `onset` and `t_before` in samples from
    the beat's centre; where P and the T before it come close, the window begins later.
    """
    start = min(max(onset - samples(240), t_before), onset - samples(140))
    size = onset - samples(30) - start
    line = np.linalg.qr(np.stack([np.ones(size), np.linspace(-1, 1, size)], axis=1))[0]
    total = weight = 0.0
    pairs = 0
    for channel in channels:
        cut = windows(smooth(channel.millivolts, 10), beats + start, 0, size)
        cut = cut[np.isfinite(cut).all(axis=1)]
        count = len(cut)
        if count < 2:
            continue
        cut = cut - (cut @ line) @ line.T
        power = float(np.square(cut).sum()) / count
        common = (float(np.square(cut.sum(axis=0)).sum()) - count * power) / (count * (count - 1))
        total += count * common / max(power, 1e-9)
        weight += count
        pairs += count * (count - 1) // 2
    return (total / weight if weight else 0.0), pairs
