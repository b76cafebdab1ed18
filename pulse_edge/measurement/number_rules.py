"""Numbers that a text states: the measurement that each is compared with, and the tolerance.
No guideline states how exact a number in a report has to be, so tolerances were chosen, and each
says by what. They are wide: a false contradiction of a right text does more harm than a missed one.
"""

from __future__ import annotations

from pulse_edge.measurement.rule import NumberRule

NUMBERS = (
    NumberRule(
        "rate", ("rate", "rate_median"), 5, 0.05, "chosen here: monitors state 5 bpm or 5 %"
    ),
    NumberRule("atrial rate", ("atrial_rate",), 10, 0.10, "chosen here: twice that of the rate"),
    NumberRule(
        "RR interval", ("rr_mean", "rr_median"), 40, 0.05, "chosen here: one small square of 40 ms"
    ),
    NumberRule("PR interval", ("pr",), 20, 0.0, "chosen here: half a small square of 40 ms"),
    NumberRule(
        "QRS duration",
        ("qrs",),
        15,
        0.0,
        "chosen here: programs may differ by 10 ms (IEC 60601-2-25) and readers by more",
    ),
    NumberRule(
        "QT interval", ("qt",), 30, 0.0, "chosen here: the deviation that IEC 60601-2-25 allows"
    ),
    NumberRule(
        "QTc interval",
        ("qtc_bazett", "qtc_fridericia"),
        30,
        0.0,
        "chosen here: that of the QT interval",
    ),
    NumberRule("axis", ("qrs_axis",), 20, 0.0, "chosen here: methods for the axis differ"),
    NumberRule("pause", ("rr_longest",), 300, 0.10, "chosen here"),
)
ROUGH = 2.0
""""About 150 bpm" may be off by twice the tolerance."""
