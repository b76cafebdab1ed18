"""Calibrations of findings for kits."""

from __future__ import annotations

from pulse_edge.kit.manifest import Calibration


def calibration(
    scale: float = 1, offset: float = 0, band: tuple[float, float] = (0.5, 0.5)
) -> Calibration:
    return Calibration(scale, offset, *band, pages=100, auc=0.9)
