"""One heartbeat in eight independent leads (I, II, V1..V6), as sums of bumps, and its exact
measurements.

Time is in milliseconds from QRS onset, voltage in millivolts. A bump is a Gaussian whose two sides
may differ in width. Conventions that make every interval exact: a bump of the QRS begins and ends
2.5 sigma from its centre (4 % of its height), P begins 2.2 sigma before its first bump, and T ends
2 sigma after its centre, where the tangent at its steepest point meets the baseline.

Amplitudes follow the usual teaching values (AHA/ACCF/HRS recommendations for the standardization of
the ECG, 2007 and 2009): QRS of at least 120 ms with rsR' in V1 or notched R in V5 and V6 for bundle
branch block, PR above 200 ms for first-degree block, Sokolow-Lyon above 3.5 mV for hypertrophy, Q
of 40 ms for infarction, ST levels of 0.1 mV and more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.synthetic.recording import HZ, twelve_leads

Eight = NDArray[np.float64]
STEP_MS = 1000 / HZ
GRID_MS = np.arange(-400.0, 900.0, STEP_MS)
"""Times at which a beat is evaluated; all its waves lie inside."""
ONSET = int(np.searchsorted(GRID_MS, 0.0))
ST_AFTER_J_MS = 40.0
QRS_REACH, P_REACH, T_REACH = 2.5, 2.2, 2.0


def _v(*mv: float) -> Eight:
    """Amplitudes in I, II, V1, V2, V3, V4, V5, V6."""
    return np.array(mv, dtype=np.float64)


@dataclass(frozen=True)
class Bump:
    """A wave's place as fractions of QRS duration (centre, sigma), and its amplitudes (8,) mV."""

    centre: float
    sigma: float
    mv: Eight


P_RIGHT = _v(0.045, 0.085, 0.065, 0.055, 0.045, 0.04, 0.035, 0.03)
P_LEFT = _v(0.055, 0.075, -0.05, 0.01, 0.03, 0.035, 0.04, 0.04)
F_WAVES = (
    _v(0.25, 0.70, 1.00, 0.55, 0.35, 0.25, 0.20, 0.20),
    _v(0.30, -0.35, 0.55, 0.15, -0.10, -0.15, -0.10, -0.10),
)
"""Two fibrillatory sources, relative to their height in V1."""

SEPTAL = Bump(0.2125, 0.085, _v(-0.10, -0.10, 0.24, 0.50, 0.46, 0.06, -0.14, -0.13))
EARLY = Bump(0.38, 0.09, _v(0.10, 0.15, -0.05, 0.08, 0.50, 0.70, 0.40, 0.20))
MAIN = Bump(0.49, 0.10, _v(0.66, 0.98, -0.82, -1.25, -0.15, 1.05, 1.22, 1.00))
TERMINAL = Bump(0.725, 0.11, _v(-0.13, -0.16, -0.24, -0.70, -0.78, -0.46, -0.20, -0.08))
NORMAL_QRS: tuple[Bump, ...] = (SEPTAL, EARLY, MAIN, TERMINAL)
NORMAL_T = _v(0.20, 0.29, -0.03, 0.42, 0.46, 0.40, 0.31, 0.22)

LBBB_QRS: tuple[Bump, ...] = (
    Bump(0.15, 0.06, _v(0.05, 0.06, 0.10, 0.20, 0.24, 0.12, 0.03, 0.02)),
    Bump(0.33, 0.105, _v(0.78, 0.62, -0.45, -0.75, -0.75, -0.15, 0.62, 0.85)),
    Bump(0.50, 0.110, _v(0.20, 0.15, -1.00, -1.65, -1.45, -0.55, 0.20, 0.25)),
    Bump(0.69, 0.124, _v(0.78, 0.40, -0.62, -0.95, -0.70, -0.10, 0.65, 0.95)),
)
LBBB_ST = _v(-0.07, -0.03, 0.16, 0.27, 0.22, 0.06, -0.08, -0.10)
LBBB_T = _v(-0.20, -0.10, 0.32, 0.60, 0.55, 0.22, -0.18, -0.27)

RBBB_QRS: tuple[Bump, ...] = (
    Bump(0.15, 0.06, _v(-0.09, -0.07, 0.26, 0.38, 0.34, 0.06, -0.12, -0.12)),
    Bump(0.27, 0.06, _v(0.10, 0.15, -0.02, 0.05, 0.35, 0.60, 0.35, 0.15)),
    Bump(0.35, 0.07, _v(0.66, 0.95, -0.50, -0.70, 0.05, 1.00, 1.10, 0.90)),
    Bump(0.70, 0.12, _v(-0.34, -0.20, 0.80, 0.55, 0.05, -0.28, -0.36, -0.36)),
)
RBBB_T = _v(0.20, 0.26, -0.26, -0.20, 0.12, 0.34, 0.30, 0.24)

INFARCT_QRS: Mapping[str, tuple[Bump, ...]] = {
    "inferior": (
        Bump(0.32, 0.128, _v(0.08, -0.42, 0.18, 0.28, 0.22, 0.06, -0.06, -0.06)),
        Bump(0.42, 0.09, _v(0.08, 0.02, -0.05, 0.05, 0.36, 0.60, 0.30, 0.12)),
        Bump(0.56, 0.09, _v(0.62, 0.40, -0.70, -0.85, 0.00, 1.00, 1.05, 0.75)),
        TERMINAL,
    ),
    "anterior": (
        Bump(0.26, 0.104, _v(-0.05, -0.05, -0.12, -0.22, -0.30, -0.25, -0.08, -0.06)),
        Bump(0.38, 0.10, _v(0.10, 0.15, -0.30, -0.45, -0.40, -0.20, 0.10, 0.12)),
        Bump(0.50, 0.10, _v(0.55, 0.80, -0.75, -1.00, -0.85, -0.15, 0.55, 0.70)),
        Bump(0.725, 0.11, _v(-0.08, -0.08, -0.15, -0.35, -0.35, -0.15, -0.06, -0.04)),
    ),
    "lateral": (
        Bump(0.32, 0.128, _v(-0.32, -0.02, 0.20, 0.24, 0.12, -0.10, -0.32, -0.34)),
        Bump(0.42, 0.09, _v(0.05, 0.15, 0.05, 0.20, 0.40, 0.50, 0.15, 0.05)),
        Bump(0.55, 0.09, _v(0.34, 0.80, -0.60, -0.70, 0.10, 0.90, 0.65, 0.48)),
        TERMINAL,
    ),
}

STE_SITES: Mapping[str, Eight] = {
    "inferior": _v(-0.25, 0.70, -0.05, -0.40, -0.30, -0.05, 0.10, 0.15),
    "anterior": _v(0.10, -0.05, 0.55, 1.00, 1.00, 0.75, 0.30, 0.10),
    "anterolateral": _v(0.45, 0.05, 0.25, 0.75, 1.00, 1.00, 0.80, 0.55),
    "lateral": _v(0.65, 0.00, -0.30, -0.25, 0.05, 0.40, 0.85, 0.90),
}
STD_SITES: Mapping[str, Eight] = {
    "lateral": _v(-0.55, -0.40, 0.15, 0.05, -0.30, -0.80, -1.00, -0.90),
    "inferior": _v(-0.10, -0.85, 0.10, -0.05, -0.20, -0.50, -0.80, -0.80),
    "anterior": _v(-0.05, -0.10, -0.50, -1.00, -1.00, -0.75, -0.35, -0.15),
    "diffuse": _v(-0.45, -0.65, 0.20, -0.35, -0.80, -1.00, -1.00, -0.80),
}
TINV_SITES: Mapping[str, Eight] = {
    "lateral": _v(-0.22, -0.05, 0.02, 0.30, 0.20, -0.15, -0.26, -0.24),
    "inferior": _v(0.16, -0.20, 0.02, 0.40, 0.42, 0.30, 0.10, 0.00),
    "anterior": _v(0.05, 0.18, -0.20, -0.34, -0.36, -0.30, -0.14, 0.05),
}
PVC_ORIGINS: Mapping[str, tuple[Eight, Eight]] = {
    "right ventricular outflow": (
        _v(0.15, 0.90, -0.70, -0.90, -0.50, 0.40, 0.90, 0.90),
        _v(0.05, 1.00, -0.55, -1.00, -0.60, 0.30, 0.75, 0.80),
    ),
    "right ventricular apex": (
        _v(0.70, -0.40, -0.60, -0.85, -0.95, -0.70, -0.10, 0.30),
        _v(0.60, -0.85, -0.50, -1.00, -1.10, -0.90, -0.30, 0.15),
    ),
    "left ventricular base": (
        _v(-0.15, 0.75, 0.80, 1.10, 1.20, 1.10, 0.85, 0.60),
        _v(-0.35, 0.85, 0.70, 1.00, 0.95, 0.80, 0.55, 0.35),
    ),
    "left ventricular apex": (
        _v(-0.40, -0.65, 0.80, 0.95, 0.50, -0.40, -0.85, -0.80),
        _v(-0.60, -0.80, 0.60, 0.65, 0.15, -0.70, -1.00, -0.90),
    ),
}


@dataclass(frozen=True, eq=False)
class BeatShape:
    """One kind of beat, sampled on GRID_MS, its components apart, with its intervals in ms."""

    p: Eight  # (8, n) mV
    qrs: Eight
    repolarization: Eight  # ST and T together
    pr: float | None
    width: float  # QRS duration
    qt: float

    @property
    def peak(self) -> int:
        """Sample of the largest QRS magnitude, counted from QRS onset."""
        return int(np.argmax((self.qrs**2).sum(axis=0))) - ONSET

    @property
    def st(self) -> tuple[float, ...]:
        """Level (12,) mV of QRS, ST and T together, 40 ms after the J point; the baseline is zero."""
        total = twelve_leads(self.qrs + self.repolarization)
        late = ONSET + round((self.width + ST_AFTER_J_MS) / STEP_MS)
        return tuple(float(mv) for mv in total[:, late])


def bump(centre: float, left: float, right: float) -> NDArray[np.float64]:
    """A Gaussian of height 1 on GRID_MS with its own sigma on each side, all in ms; (n,)."""
    offset = GRID_MS - centre
    return np.exp(-0.5 * (offset / np.where(offset < 0, left, right)) ** 2)


def qrs_complex(bumps: tuple[Bump, ...], width: float) -> Eight:
    """Bumps scaled to a QRS of `width` ms, summed: (8, n) mV."""
    shapes = np.stack([bump(b.centre * width, b.sigma * width, b.sigma * width) for b in bumps])
    return np.stack([b.mv for b in bumps], axis=1) @ shapes


def p_wave(right: Eight, left: Eight, pr: float, sigma: float, split: float) -> Eight:
    """Right then left atrium, `split` ms apart, beginning `pr` ms before QRS onset: (8, n) mV."""
    first = -pr + P_REACH * sigma
    return np.outer(right, bump(first, sigma, sigma)) + np.outer(
        left, bump(first + split, sigma, 1.1 * sigma)
    )


def t_wave(mv: Eight, qt: float, skew: float = 1.5) -> Eight:
    """T ending at `qt` ms, `skew` times slower to rise than to fall: (8, n) mV."""
    return np.outer(mv, bump(t_top(qt), skew * t_sigma(qt), t_sigma(qt)))


def t_sigma(qt: float) -> float:
    """Sigma of T's falling side in ms."""
    return 0.088 * qt


def t_top(qt: float) -> float:
    """T's highest point in ms."""
    return qt - T_REACH * t_sigma(qt)


def st_segment(mv: Eight, width: float, qt: float, slope: float = 0.0) -> Eight:
    """A plateau (8, n) mV from the J point to T; `slope` is its relative change up to T's centre."""
    top = t_top(qt)
    rise = _ramp((GRID_MS - (width - 14)) / 26)
    fall = 1 - _ramp((GRID_MS - (top - 10)) / (qt - top + 20))
    tilt = 1 + slope * np.clip((GRID_MS - width) / (top - width) - 0.3, -0.3, 0.7)
    return np.outer(mv, rise * fall * tilt)


def rotate(eight: Eight, degrees: float) -> Eight:
    """The same beat with its frontal-plane vector turned by `degrees`; the chest leads stay.

    (8, n) -> (8, n).
    """
    x, y = eight[0], (2 * eight[1] - eight[0]) / np.sqrt(3)
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turned = eight.copy()
    turned[0] = c * x - s * y
    turned[1] = (turned[0] + np.sqrt(3) * (s * x + c * y)) / 2
    return turned


def sokolow(qrs: Eight) -> float:
    """S in V1 plus the taller R of V5 and V6, mV."""
    return float(-qrs[2].min() + max(qrs[6].max(), qrs[7].max()))


def frontal_axis(qrs: Eight) -> float:
    """Degrees in (-180, 180]: net QRS areas along I and, scaled to Einthoven's triangle, along aVF."""
    i, ii = qrs[0].sum(), qrs[1].sum()
    return float(np.degrees(np.arctan2((2 * ii - i) / np.sqrt(3), i)))


def _ramp(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """0 below 0, 1 above 1, half a cosine between."""
    return 0.5 - 0.5 * np.cos(np.pi * np.clip(x, 0, 1))
