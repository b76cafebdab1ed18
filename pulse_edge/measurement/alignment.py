"""Lay the beats over one another, and tell beats of one shape from those of another.

Beats are compared in the band of the QRS, over the channels that both of them have: a strip, or the
leads of one column.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pulse_edge.measurement.beats import Channel, Index
from pulse_edge.measurement.filters import Samples, samples, smooth

Members = npt.NDArray[np.bool_]

BEFORE_MS, AFTER_MS = 90.0, 110.0
"""The stretch around a beat's centre in which shapes are compared."""
EARLY = 0.85
"""Share of the usual RR interval: of two beats in a column, the earlier than this is not the
dominant one."""
ALIKE = 0.80
"""Correlation from which on two beats have the same shape: beats of one origin on a noisy page have
0.9 and more."""


@dataclass(frozen=True)
class Alignment:
    """Beats laid over one another."""

    beats: Index
    """Sample of each beat, comparable between beats that share a channel."""
    group: Index
    """Number of the set of beats that share channels: one with a strip or simultaneous leads, else
    one for each column."""
    dominant: Members
    """True for beats of the most frequent shape of their group."""
    whole: Members
    """False for beats at the end of a trace, whose shape cannot be told."""


def aligned_beats(channels: tuple[Channel, ...], beats: Index) -> Alignment:
    """Align the beats, choose the dominant shape, and align again by it."""
    bands = {id(c): smooth(c.millivolts, 4) - smooth(c.millivolts, 50) for c in channels}
    everyone = np.ones(len(beats), bool)
    if len(beats) < 2:
        return Alignment(beats, np.zeros(len(beats), np.intp), everyone, everyone)
    first = align(channels, bands, beats, everyone)
    likeness = _likeness(channels, bands, first)
    whole = np.isfinite(np.diag(likeness))
    if not whole.any():
        return Alignment(first, np.zeros(len(beats), np.intp), whole, whole)
    group = _groups(likeness)
    nearest = np.flatnonzero(whole)[np.argmin(np.abs(beats[:, None] - beats[whole][None]), axis=1)]
    group = np.unique(group[nearest], return_inverse=True)[1]
    early = np.diff(beats, prepend=beats[0] - 10**6) < EARLY * np.median(np.diff(beats))
    dominant = _dominant(likeness, group, whole, early)
    second = align(channels, bands, first, dominant)
    return Alignment(
        second, group, _dominant(_likeness(channels, bands, second), group, whole, early), whole
    )


def _likeness(channels: tuple[Channel, ...], bands: dict[int, Samples], beats: Index) -> Samples:
    """Correlation of each pair of beats over the channels that both have: (beats, beats), NaN where
    they share none."""
    reach = samples(8)
    product = np.zeros((2 * reach + 1, len(beats), len(beats)))
    power = np.zeros_like(product)
    mirror = np.zeros_like(product)
    for channel in channels:
        cut = windows(
            bands[id(channel)], beats, samples(BEFORE_MS) + reach, samples(AFTER_MS) + reach
        )
        whole = np.isfinite(cut).all(axis=1)
        if not whole.any():
            continue
        pair = np.ix_(whole, whole)
        core = cut[whole, reach : cut.shape[1] - reach]
        own = np.sum(core**2, axis=1)
        for n in range(2 * reach + 1):
            shifted = cut[whole, n : n + core.shape[1]]
            product[n][pair] += core @ shifted.T
            power[n][pair] += own[:, None]
            mirror[n][pair] += np.sum(shifted**2, axis=1)[None]
    scale = np.sqrt(power * mirror)
    ratio = np.where(scale > 0, product / np.maximum(scale, 1e-12), np.nan)
    best = np.max(ratio, axis=0)
    return np.asarray(np.fmax(best, best.T))


def _groups(likeness: Samples) -> Index:
    """Number the sets of beats that share a channel, directly or through others: (beats,)."""
    group = np.full(len(likeness), -1, np.intp)
    for n in range(len(likeness)):
        if group[n] >= 0:
            continue
        members = np.zeros(len(likeness), bool)
        members[n] = True
        while True:
            wider = members | np.isfinite(likeness[members]).any(axis=0)
            if (wider == members).all():
                break
            members = wider
        group[members] = group.max() + 1
    return group


def _dominant(likeness: Samples, group: Index, whole: Members, early: Members) -> Members:
    """Mark in each group the beat that most others resemble, and those others; early beats only if
    others resemble them."""
    dominant = np.zeros(len(group), bool)
    alike = np.nan_to_num(likeness, nan=0.0) >= ALIKE
    for number in np.unique(group):
        members = (group == number) & whole
        support = alike[:, members].sum(axis=1) + 0.1 * np.nansum(
            np.where(members, likeness, 0), axis=1
        ) / len(group)
        centre = int(np.argmax(np.where(members, support - 0.6 * early, -1)))
        like = members & (alike[centre] | (np.arange(len(group)) == centre))
        if not early[like].all():
            dominant |= like
    return dominant


def windows(values: Samples, centres: Index, before: int, after: int) -> Samples:
    """Cut the same stretch around each centre: (beats, before + after), NaN beyond the ends."""
    index = np.asarray(centres, np.intp)[:, None] + np.arange(-before, after)
    inside = (index >= 0) & (index < values.size)
    return np.where(inside, values[np.clip(index, 0, values.size - 1)], np.nan)


def align(
    channels: tuple[Channel, ...], bands: dict[int, Samples], beats: Index, members: Members
) -> Index:
    """Shift each R peak so that the beats of one shape lie over one another, strips first since
    they span all columns."""
    aligned = np.asarray(beats, np.intp).copy()
    strips = tuple(c for c in channels if c.strip)
    if strips:
        aligned = _shifted(strips, bands, aligned, members, samples(80), model=True)
    aligned = _shifted(strips or channels, bands, aligned, members, samples(30))
    return _shifted(channels, bands, aligned, members, samples(6 if strips else 12))


def _shifted(
    channels: tuple[Channel, ...],
    bands: dict[int, Samples],
    beats: Index,
    members: Members,
    reach: int,
    model: bool = False,
) -> Index:
    """Shift beats by at most `reach` samples to where they differ least from the template, or from
    a model beat."""
    error, leads = np.zeros((len(beats), 2 * reach + 1)), np.zeros(len(beats))
    for channel in channels:
        cut = windows(
            bands[id(channel)], beats, samples(BEFORE_MS) + reach, samples(AFTER_MS) + reach
        )
        whole = np.isfinite(cut).all(axis=1)
        pattern = whole & members
        if pattern.sum() < 2:
            continue
        core = cut[:, reach : cut.shape[1] - reach]
        template = _model(cut, core, pattern) if model else np.median(core[pattern], axis=0)
        error[whole] += _errors(cut[whole], template)
        leads[whole] += 1
    shift = np.argmin(error + 1e-6 * np.abs(np.arange(-reach, reach + 1)), axis=1) - reach
    return beats + np.where(leads > 0, shift, 0)


def _errors(cut: Samples, template: Samples) -> Samples:
    """Squared difference from the template at each shift, in shares of its energy: (beats, shifts)."""
    view = np.lib.stride_tricks.sliding_window_view(cut, template.size, axis=1)
    power = float(np.sum(template**2)) + 1e-9
    squares = np.square(view).sum(axis=2) + power - 2 * (view @ template)
    return np.asarray(np.minimum(squares / power, 4.0))


def _model(cut: Samples, core: Samples, pattern: Members) -> Samples:
    """Choose the beat that most of the others resemble at some shift."""
    candidates = np.flatnonzero(pattern)
    likeness = [np.median(_errors(cut[pattern], core[n]).min(axis=1)) for n in candidates]
    return np.asarray(core[candidates[int(np.argmin(likeness))]])
