"""The median beat of every lead."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pulse_edge.measurement.alignment import windows
from pulse_edge.measurement.beats import Channel, Index
from pulse_edge.measurement.filters import Samples, samples
from pulse_edge.measurement.signal import LEADS

BEFORE, AFTER = samples(500), samples(760)
WIDTH = BEFORE + AFTER


def central(values: Samples) -> Samples:
    """Average the middle of the beats at each sample: (beats, n) to (n,); one beat in five is left out on either side."""
    ordered = np.sort(values, axis=0)  # NaN last
    count = np.isfinite(values).sum(axis=0)
    drop = np.where(count >= 3, np.maximum(count // 5, 1), 0)
    rank = np.arange(len(values))[:, None]
    inside = (rank >= drop) & (rank < count - drop)
    total = np.where(inside, np.nan_to_num(ordered), 0).sum(axis=0)
    number = inside.sum(axis=0)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


@dataclass(frozen=True)
class MedianBeat:
    millivolts: Samples  # (12, WIDTH)
    noise: Samples  # (12,) of the median beat
    counts: Index


def median_beats(channels: tuple[Channel, ...], beats: Index, members: npt.NDArray[np.bool_], onset: int) -> MedianBeat:
    """onset: samples from R to QRS onset (negative)."""
    out = np.full((12, WIDTH), np.nan)
    noise = np.full(12, np.nan)
    counts = np.zeros(12, np.intp)
    size = channels[0].millivolts.size
    for n, lead in enumerate(LEADS):
        stack = []
        for channel in channels:
            if channel.lead != lead:
                continue
            flat = without_baseline(channel.millivolts, beats + onset)
            cut = windows(flat, beats, BEFORE, AFTER)
            cut = np.where(_own(beats, size), cut, np.nan)
            whole = np.isfinite(cut[:, BEFORE - samples(60) : BEFORE + samples(80)]).all(axis=1) & members
            stack.append(cut[whole])
        if not stack:
            continue
        cut = np.concatenate(stack)
        counts[n] = len(cut)
        if len(cut):
            out[n] = central(cut)
            if len(cut) > 1:
                spread = np.nanstd(cut - out[n], axis=0, ddof=1)
                noise[n] = float(np.nanmedian(spread) / np.sqrt(len(cut)))
    return MedianBeat(out, noise, counts)


def _own(beats: Index, size: int) -> npt.NDArray[np.bool_]:
    """(beats, WIDTH): samples that belong to a beat's own cycle."""
    time = np.asarray(beats)[:, None] + np.arange(-BEFORE, AFTER)
    previous = np.concatenate([[-10000], beats[:-1]])[:, None]
    following = np.concatenate([beats[1:], [size + 10000]])[:, None]
    return (time > previous + samples(100)) & (time < following - samples(60))


def without_baseline(values: Samples, references: Index) -> Samples:
    """Subtract the line through the levels of 20 ms before each reference sample."""
    level, where = [], []
    for r in references:
        a, b = max(int(r) - samples(22), 0), max(int(r), 0)
        part = values[a:b]
        if len(part) and np.isfinite(part).sum() >= samples(12):
            level.append(float(np.nanmean(part)))
            where.append((a + b) / 2)
    if not level:
        return values - np.nanmedian(values)
    return values - np.interp(np.arange(values.size), where, level)
