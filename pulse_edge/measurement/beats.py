"""Find the heartbeats in all leads together, although printed columns are not simultaneous.

The detector is an energy detector after Hamilton and Tompkins (IEEE Trans Biomed Eng 33, 1986,
1157): the slope of every lead that exists at a moment, squared, averaged over those leads,
smoothed, and compared with a threshold that follows the height of the neighbouring beats. Each
stretch of time with the same leads has its own scale, because chest leads are steeper than limb
leads.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pulse_edge.measurement.filters import Samples, bridge, samples, smooth, velocity
from pulse_edge.measurement.signal import LEADS, TracedSignal

Index = npt.NDArray[np.intp]

SPIKE_MV = 0.15
"""Lowest spike of a pacemaker that is looked for."""
REFRACTORY_MS = 200.0
"""No ventricle beats twice within this time."""
T_WAVE_MS = 380.0
"""Up to here after a beat a lower deflection is taken for its T wave."""
LATE_T_MS, BLUNT = 480.0, 0.45
"""Up to here after a beat a deflection with less than 0.45 of its sharpness is its T wave: over an
infarct T is half as steep as the QRS."""
SHORTEST_MS = 600.0
"""A lead that is traced for less than this gives no beats."""
STRIP_SHARE = 0.4
"""Share of the strips' usual slope at a beat, below which a peak close to another is none.
Premature beats are as steep as the others on a strip, T waves have 0.05 to 0.35."""
MIN_LIFT, SURE_LIFT = 0.08, 0.3
"""Leads of annotated recordings have 0.11 to 0.9 with noise of 18 dB; lines of print taken for a
lead -0.2 to 0.04."""
MIN_CONTRAST = 3.0
"""Height of the beats' slope over the slope between them, below which there is noise alone. Noise
reaches 2.2."""
FLAT_MV = 0.15
"""Range of a resting pen's trace on paper. A readable trace that stays within it, and has no steep
part, is flat."""
MIN_SLOPE = 2.5
"""Slope of the weakest rhythm that counts, mV/s: a QRS of 0.1 mV has 4, the trace of a resting pen
below 1."""


@dataclass(frozen=True)
class Channel:
    """One traced line: a lead of a column, or a rhythm strip."""

    lead: str
    millivolts: Samples
    """(samples,), spikes of a pacemaker taken out; NaN where nothing was traced."""
    spikes: Index
    """Samples at which spikes of a pacemaker stand."""
    strip: bool = False

    @property
    def valid(self) -> npt.NDArray[np.bool_]:
        """(samples,): where there is a value."""
        return np.isfinite(self.millivolts)


@dataclass(frozen=True)
class Detection:
    """Where the ventricles beat, or why no beat was detected."""

    samples: Index
    """R peaks in time order, one per beat."""
    channels: tuple[Channel, ...]
    covered: npt.NDArray[np.bool_]
    """(samples,): where at least one channel has a value."""
    reason: str = ""
    """Empty if beats were detected."""
    astray: tuple[str, ...] = ()
    """Leads that were left out because their steep parts lie elsewhere than the beats of the
    others."""
    asystole: bool = False
    """True if the trace is readable and flat: no ventricular activity, or electrodes off."""


def channels_of(signal: TracedSignal) -> tuple[Channel, ...]:
    """List every lead and strip that is traced long enough, spikes set apart."""
    lines = [(lead, signal.millivolts[n], False) for n, lead in enumerate(LEADS)]
    lines += [(lead, values, True) for lead, values in signal.strips]
    channels = []
    for lead, values, strip in lines:
        bridged = bridge(np.asarray(values, np.float64), samples(24))
        if np.isfinite(bridged).sum() >= samples(SHORTEST_MS):
            spikes = spikes_in(bridged)
            channels.append(Channel(lead, without_spikes(bridged, spikes), spikes, strip))
    return tuple(channels)


def spikes_in(values: Samples) -> Index:
    """Find deflections of at most 12 ms that rise from a quiet trace and return to it: samples of
    their tips."""
    tips: list[int] = []
    for half in (2, 3, 5):
        flank = half + 6
        places = np.arange(flank, values.size - flank)
        if not places.size:
            break
        rise = values[places] - values[places - half]
        fall = values[places] - values[places + half]
        places = places[(np.minimum(np.abs(rise), np.abs(fall)) > SPIKE_MV) & (rise * fall > 0)]
        view = values[places[:, None] + np.arange(-flank, flank + 1)]
        tip = view[:, flank]
        before, after = view[:, : flank - half + 1], view[:, flank + half :]
        level = 0.5 * (before[:, -1] + after[:, 0])
        height = np.minimum(np.abs(tip - before[:, -1]), np.abs(tip - after[:, 0]))
        quiet = np.maximum(np.ptp(before, axis=1), np.ptp(after[:, :5], axis=1))
        middle = np.abs(view[:, flank - half : flank + half + 1] - level[:, None])
        sharp = (quiet < 0.25 * height) & (np.abs(tip - level) >= middle.max(axis=1, initial=0.0))
        tips += [int(place) for place in places[sharp]]
    tips.sort()
    apart: list[int] = []
    for place in tips:
        if not apart or place - apart[-1] > samples(16):
            apart.append(place)
    return np.asarray(apart, dtype=np.intp)


def without_spikes(values: Samples, spikes: Index) -> Samples:
    """Replace spikes by straight lines between their feet."""
    cleaned = values.copy()
    for tip in spikes:
        first, last = max(tip - 6, 0), min(tip + 6, values.size - 1)
        cleaned[first : last + 1] = np.linspace(values[first], values[last], last - first + 1)
    return cleaned


def detect(channels: tuple[Channel, ...], size: int) -> Detection:
    """Detect the beats in the energy of all channels together; `size` is the number of samples of
    the time axis.

    A trace that followed a line of print or of the grid is steep elsewhere than the others: it is
    left out, and the beats are detected again.
    """
    first = _detect(channels, size)
    lifts = [_lift(channel, first.samples) for channel in channels]
    agreeing = tuple(c for c, lift in zip(channels, lifts, strict=True) if lift >= MIN_LIFT)
    if len(agreeing) == len(channels) or max(lifts, default=0.0) < SURE_LIFT:
        return first
    leads = {channel.lead for channel in agreeing}
    astray = tuple(dict.fromkeys(c.lead for c in channels if c.lead not in leads))
    return replace(_detect(agreeing, size), astray=astray)


def _lift(channel: Channel, beats: Index) -> float:
    """Share of a channel's squared slope that lies within 100 ms of a beat, less the share of time
    that does."""
    slope = np.square(velocity(channel.millivolts, 8))
    exists = np.isfinite(slope)
    total = float(slope[exists].sum())
    if not len(beats) or total <= 0:
        return 0.0
    near = np.zeros(slope.size, bool)
    for beat in beats:
        near[max(int(beat) - samples(100), 0) : int(beat) + samples(100)] = True
    return float(slope[exists & near].sum()) / total - float((exists & near).sum() / exists.sum())


def _detect(channels: tuple[Channel, ...], size: int) -> Detection:
    """Detect the beats in all these channels."""
    covered = np.zeros(size, bool)
    for channel in channels:
        covered |= channel.valid
    nothing = Detection(np.zeros(0, np.intp), channels, covered)
    if not channels:
        return replace(nothing, reason=f"no lead is traced for {SHORTEST_MS / 1000:g} s")
    energy = activity(channels, size)
    if not np.nanmax(energy) >= MIN_SLOPE:
        if _extent(channels) > FLAT_MV:
            return replace(nothing, reason="no beats stand out from the noise")
        return replace(
            nothing, reason="the trace is flat: asystole, or electrodes off", asystole=True
        )
    scaled, contrast = _scaled(energy, channels)
    if contrast < MIN_CONTRAST:
        return replace(nothing, reason="no beats stand out from the noise")
    peaks = _accepted(scaled, activity(channels, size, sharp=True))
    peaks = _confirmed(channels, peaks, size)
    if not len(peaks):
        return replace(nothing, reason="no beats stand out from the noise")
    return replace(nothing, samples=_centred(energy, peaks))


def _confirmed(channels: tuple[Channel, ...], peaks: Index, size: int) -> Index:
    """Drop peaks close to another at which the rhythm strips are almost level: T waves and edges of
    a single column."""
    strips = tuple(channel for channel in channels if channel.strip)
    if not strips or len(peaks) < 3:
        return peaks
    slope = activity(strips, size)
    reach = samples(60)
    around = [slope[max(int(peak) - reach, 0) : int(peak) + reach + 1] for peak in peaks]
    traced = np.array([part.size > reach and np.isfinite(part).mean() > 0.8 for part in around])
    if traced.sum() < 3:
        return peaks
    tops = np.array(
        [float(np.nanmax(part)) if ok else np.nan for part, ok in zip(around, traced, strict=True)]
    )
    intervals = np.diff(peaks).astype(np.float64)
    nearest = np.minimum(np.append(intervals, np.inf), np.insert(intervals, 0, np.inf))
    level = np.nan_to_num(tops) < STRIP_SHARE * float(np.nanmedian(tops))
    extra = traced & level & (nearest < 0.65 * float(np.median(intervals)))
    return np.asarray(peaks[~extra], dtype=np.intp)


def _centred(energy: Samples, peaks: Index) -> Index:
    """Move each peak to the centre of its energy: of a broad QRS, leads of other columns peak up to
    140 ms apart."""
    reach = samples(70)
    offset = np.arange(-reach, reach + 1)
    padded = np.pad(np.square(np.nan_to_num(energy)), reach)
    centres = peaks
    for _ in range(3):
        weights = padded[centres[:, None] + offset + reach]
        shift = (weights * offset).sum(axis=1) / np.maximum(weights.sum(axis=1), 1e-12)
        centres = np.clip(centres + np.round(shift).astype(np.intp), 0, energy.size - 1)
    return centres


def _extent(channels: tuple[Channel, ...]) -> float:
    """Median over the channels of the range that holds 99 % of the samples, mV."""
    return float(
        np.median([np.subtract(*np.nanquantile(c.millivolts, [0.995, 0.005])) for c in channels])
    )


def activity(channels: tuple[Channel, ...], size: int, sharp: bool = False) -> Samples:
    """Root mean square slope of the channels that exist at each moment, mV/s: (samples,); NaN where
    there is none.

    `sharp` takes off what a smoother trace has of it, which leaves little of a T wave.
    """
    total, count = np.zeros(size), np.zeros(size)
    for channel in channels:
        slope = velocity(channel.millivolts, 8)
        if sharp:
            slope = slope - velocity(channel.millivolts, 30)
        exists = np.isfinite(slope)
        total[exists] += np.square(slope[exists])
        count[exists] += 1
    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return np.sqrt(np.maximum(smooth(mean, 22), 0))


def _scaled(energy: Samples, channels: tuple[Channel, ...]) -> tuple[Samples, float]:
    """Divide each stretch of time with the same channels by the height of its beats, and compare
    that with the slope between."""
    present = np.stack([channel.valid for channel in channels])
    starts = [0, *(np.flatnonzero(np.any(np.diff(present, axis=1), axis=0)) + 1), energy.size]
    stretches = [(a, b) for a, b in itertools.pairwise(starts) if b - a >= samples(SHORTEST_MS)]
    stretches = [
        (a, b) for a, b in stretches if np.isfinite(energy[a:b]).sum() >= samples(SHORTEST_MS)
    ]
    if not stretches:
        return np.full_like(energy, np.nan), 0.0
    heights = np.array([_height(energy[a:b]) for a, b in stretches])
    floors = np.array([float(np.nanquantile(energy[a:b], 0.35)) for a, b in stretches])
    weights = np.array([b - a for a, b in stretches], np.float64)
    usual = _weighted_median(heights, weights)
    if usual < MIN_SLOPE:  # long pauses: most of the time there is no beat at all
        usual = 0.6 * float(np.nanmax(energy))
        heights = np.maximum(heights, usual)
    contrast = _weighted_median(heights / np.maximum(floors, 1e-6), weights)
    centres = np.array([(a + b) / 2 for a, b in stretches])
    scale = np.full_like(energy, np.nan)
    for (a, b), height in zip(stretches, heights, strict=True):
        scale[a:b] = np.clip(height, 0.4 * usual, 2.5 * usual)
    short = np.isnan(scale)
    scale[short] = np.interp(
        np.flatnonzero(short), centres, np.clip(heights, 0.4 * usual, 2.5 * usual)
    )
    return energy / scale, contrast


def _height(energy: Samples) -> float:
    """Median over windows of 1.2 s of the highest energy in each."""
    width = samples(1200)
    count = max(energy.size // width, 1)
    return float(
        np.median(
            [np.nanmax(part) for part in np.array_split(energy, count) if np.isfinite(part).any()]
        )
    )


def _weighted_median(values: Samples, weights: Samples) -> float:
    order = np.argsort(values)
    share = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(share, 0.5 * share[-1])])


def _accepted(scaled: Samples, sharp: Samples) -> Index:
    """Peaks over the threshold, T waves left out, then a second search where a beat seems to be
    missing."""
    peaks = _peaks(np.nan_to_num(scaled), 0.12)
    heights = scaled[peaks]
    beats = _without_t_waves(peaks[heights > 0.38], scaled, sharp)
    if len(beats) < 3:
        return beats
    usual = float(np.median(np.diff(beats)))
    level = float(np.median(scaled[beats]))
    more = list(beats)
    edges = [
        max(beats[0] - int(1.6 * usual), 0),
        *beats,
        min(beats[-1] + int(1.6 * usual), scaled.size),
    ]
    for a, b in itertools.pairwise(edges):
        if b - a > 1.5 * usual:
            inside = peaks[
                (peaks > a + 0.45 * usual) & (peaks < b - 0.35 * usual) & (heights > 0.22 * level)
            ]
            if len(inside):
                more.append(int(inside[np.argmax(scaled[inside])]))
    return _without_t_waves(np.unique(more).astype(np.intp), scaled, sharp)


def _peaks(values: Samples, least: float) -> Index:
    """Local maxima above `least` that are the highest within the refractory time."""
    inner = (
        np.flatnonzero(
            (values[1:-1] >= values[:-2]) & (values[1:-1] > values[2:]) & (values[1:-1] > least)
        )
        + 1
    )
    chosen: list[int] = []
    for peak in inner[np.argsort(-values[inner])]:
        if all(abs(int(peak) - other) > samples(REFRACTORY_MS) for other in chosen):
            chosen.append(int(peak))
    return np.asarray(sorted(chosen), dtype=np.intp)


def _without_t_waves(peaks: Index, scaled: Samples, sharp: Samples) -> Index:
    """Drop a peak that follows a much higher one, or in beat after beat a much sharper one, before
    T can have ended."""
    beats: list[int] = []
    for peak in peaks:
        if (
            beats
            and peak - beats[-1] < samples(T_WAVE_MS)
            and scaled[peak] < 0.5 * scaled[beats[-1]]
        ):
            continue
        if (
            beats
            and peak - beats[-1] < samples(T_WAVE_MS)
            and scaled[beats[-1]] < 0.5 * scaled[peak]
        ):
            beats.pop()  # a P wave or an artefact stood before the QRS
        beats.append(int(peak))
    chosen = np.asarray(beats, dtype=np.intp)
    return chosen[~_blunt(chosen, scaled, sharp)] if len(chosen) > 2 else chosen


def _blunt(peaks: Index, scaled: Samples, sharp: Samples) -> npt.NDArray[np.bool_]:
    """Mark T waves over the threshold: each blunter than the beat before, and so the peak after the
    next beat, as late.

    A premature ventricular beat is blunt as well, but does not follow two beats in a row at the
    same distance.
    """
    reach = samples(60)
    edge = np.array(
        [float(np.nanmax(sharp[max(peak - reach, 0) : peak + reach + 1])) for peak in peaks]
    )
    delay = np.diff(peaks, prepend=peaks[0] - 10**6)
    suspect = np.zeros(len(peaks), bool)
    for n in range(1, len(peaks)):
        lower = edge[n] < BLUNT * edge[n - 1] and scaled[peaks[n]] < 0.85 * scaled[peaks[n - 1]]
        suspect[n] = lower and delay[n] < samples(LATE_T_MS) and not suspect[n - 1]
    alike = np.zeros(len(peaks), bool)
    for place in np.flatnonzero(suspect):
        n = int(place)
        others = [m for m in (n - 2, n + 2) if 0 <= m < len(peaks) and suspect[m]]
        alike[n] = any(abs(int(delay[n] - delay[m])) < samples(30) for m in others)
    return alike
