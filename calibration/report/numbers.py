"""How figures are printed in the report."""

from __future__ import annotations

from calibration.bootstrap import Estimate
from calibration.results import KitRecord

SCORE_NAMES = {
    "f1": "F1",
    "auc": "AUC of labels",
    "auc_of_probabilities": "AUC",
    "hamming_loss": "Hamming loss",
    "exact": "all labels right",
    "accuracy": "accuracy",
    "diagnosis_f1": "F1 of diagnoses",
    "diagnosis_micro_f1": "micro F1",
    "rouge_l": "ROUGE-L",
    "rate_within_5": "rate within 5 bpm",
    "cpsc_f1": "F1 of CPSC's nine",
}
"""Printed names of the scores."""
WAYS = {"lost": "right → wrong", "gained": "wrong → right"}
"""Printed names of the ways in which an answer turns."""


def megabytes(kit: KitRecord) -> str:
    """Size of a kit's models."""
    size = kit.total_bytes / 1e6
    return f"{size:,.1f}" if size < 100 else f"{size:,.0f}"


def percent(figure: Estimate) -> str:
    """A share times 100."""
    return "none" if figure.value is None else f"{100 * figure.value:.1f}"


def ranged(figure: Estimate) -> str:
    """A share with its interval, such as `74.8 [73.1, 76.4]`."""
    low, high = figure.interval
    interval = "" if low is None or high is None else f" [{100 * low:.1f}, {100 * high:.1f}]"
    return percent(figure) + interval


def points_ranged(difference: Estimate | None) -> str:
    """A difference in points with its interval, such as `-0.4 [-1.2, +0.3]`.

    A star follows where zero lies outside.
    """
    if difference is None or difference.value is None:
        return "none"
    points, (low, high) = f"{100 * difference.value:+.1f}", difference.interval
    if low is None or high is None:
        return points
    star = " *" if low > 0 or high < 0 else ""
    return f"{points} [{100 * low:+.1f}, {100 * high:+.1f}]{star}"


def short(value: float | None) -> str:
    """Two significant digits."""
    return "none" if value is None else f"{value:.2g}"


def decimal(value: float | None, digits: int) -> str:
    """A measured value with so many digits after the point."""
    return "not known" if value is None else f"{value:.{digits}f}"
