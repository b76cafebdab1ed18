"""Filters that leave gaps as they are: what was not traced (NaN) neither counts nor is filled."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pulse_edge.measurement.signal import SAMPLES_PER_SECOND

Samples = npt.NDArray[np.float64]


def samples(milliseconds: float) -> int:
    """Convert milliseconds into whole samples."""
    return round(milliseconds * SAMPLES_PER_SECOND / 1000)


def bridge(values: Samples, longest: int) -> Samples:
    """Interpolate gaps of at most `longest` samples between two values, for filtering only: (n,) to
    (n,)."""
    valid = np.isfinite(values)
    if valid.all() or not valid.any():
        return values
    index = np.arange(values.size)
    points = index[valid]
    bridged = np.interp(index, points, values[valid])
    after = np.searchsorted(points, index).clip(0, points.size - 1)
    before = (np.searchsorted(points, index, side="right") - 1).clip(0)
    width = points[after] - points[before]
    inside = (index > points[0]) & (index < points[-1]) & (width - 1 <= longest)
    return np.where(valid | inside, bridged, np.nan)


def smooth(values: Samples, milliseconds: float) -> Samples:
    """Smooth the last axis by a Gaussian of this sigma, weighing only samples that exist: (..., n)
    to (..., n)."""
    valid = np.isfinite(values)
    weights = _gaussian(milliseconds)
    total = _convolve(np.where(valid, values, 0.0), weights)
    share = (
        _convolve(np.ones(values.shape[-1]), weights)
        if valid.all()
        else _convolve(valid.astype(np.float64), weights)
    )
    return np.where(valid, total / np.maximum(share, 1e-9), np.nan)


def velocity(values: Samples, milliseconds: float) -> Samples:
    """Differentiate after a Gaussian of this sigma, per second: (..., n) to (..., n); NaN at the
    ends of each trace."""
    smoothed = smooth(values, milliseconds)
    slope = np.full_like(smoothed, np.nan)
    slope[..., 1:-1] = (smoothed[..., 2:] - smoothed[..., :-2]) * (SAMPLES_PER_SECOND / 2)
    return slope


def _gaussian(milliseconds: float) -> Samples:
    sigma = milliseconds * SAMPLES_PER_SECOND / 1000
    reach = max(int(np.ceil(3 * sigma)), 1)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return np.asarray(weights / weights.sum())


def _convolve(values: Samples, weights: Samples) -> Samples:
    """Convolve the last axis and keep its length."""
    size = values.shape[-1] + weights.size - 1
    length = 1 << (size - 1).bit_length()
    spectrum = np.fft.rfft(values, length) * np.fft.rfft(weights, length)
    reach = weights.size // 2
    return np.asarray(np.fft.irfft(spectrum, length)[..., reach : reach + values.shape[-1]])
