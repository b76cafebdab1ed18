"""What lies over a heart's signal: fibrillatory waves, breathing, muscle and mains noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calibration.synthetic import beats as b
from calibration.synthetic.beats import Eight
from calibration.synthetic.recording import (
    HZ,
    SAMPLES,
)

Rng = np.random.Generator


def fibrillation(rng: Rng) -> Eight:
    """f waves: two sources of 4.5 to 8 Hz that wander in rate and height, saw-toothed:

    (8, 5000) mV.
    """
    t = np.arange(SAMPLES) / HZ
    total = np.zeros((8, SAMPLES))
    for vector, share in zip(b.F_WAVES, (1.0, 0.6), strict=True):
        rate = rng.uniform(4.8, 7.6) + 0.7 * _slow(rng, t, 0.6) + 0.3 * _slow(rng, t, 1.7)
        phase = 2 * np.pi * np.cumsum(rate) / HZ + rng.uniform(0, 2 * np.pi)
        wave = np.sin(phase) + 0.35 * np.sin(2 * phase + 0.6) + 0.12 * np.sin(3 * phase + 1.1)
        total += np.outer(share * vector, wave * (1 + 0.45 * _slow(rng, t, 0.45)))
    return total * rng.uniform(0.025, 0.08)


def _slow(rng: Rng, t: NDArray[np.float64], hz: float) -> NDArray[np.float64]:
    """A smooth wandering between about -1 and 1 around `hz`: (n,)."""
    a, c, p, q = rng.uniform(0.6, 1.4, 2).tolist() + rng.uniform(0, 2 * np.pi, 2).tolist()
    wave: Eight = 0.6 * np.sin(2 * np.pi * hz * a * t + p) + 0.4 * np.sin(
        2 * np.pi * hz * 1.7 * c * t + q
    )
    return wave


def disturbance(rng: Rng, breath: float) -> Eight:
    """Muscle noise, now and then hum, and baseline wander: (8, 5000) mV."""
    t = np.arange(SAMPLES) / HZ
    white = rng.standard_normal((8, SAMPLES + 2))
    muscle = (0.25 * white[:, :-2] + 0.5 * white[:, 1:-1] + 0.25 * white[:, 2:]) / 0.61
    level = rng.uniform(0, 0.012) if rng.random() < 0.85 else rng.uniform(0.012, 0.028)
    total = muscle * (level * rng.lognormal(0, 0.3, (8, 1)))
    if rng.random() < 0.12:
        hum = np.sin(2 * np.pi * rng.choice([50.0, 60.0]) * t + rng.uniform(0, 2 * np.pi))
        total += np.outer(rng.uniform(0.002, 0.010, 8), hum)
    wander = rng.uniform(0, 0.10) if rng.random() < 0.85 else rng.uniform(0.10, 0.22)
    slow = np.stack(
        [
            np.sin(2 * np.pi * breath * t + rng.uniform(0, 6.28)),
            _slow(rng, t, 0.12),
            _slow(rng, t, 0.3),
        ]
    )
    total += wander * rng.normal(0, (0.5, 0.6, 0.25), (8, 3)) @ slow
    return total
