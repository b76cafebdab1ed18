"""Numbers that a text states: the measurement that each is compared with, and the tolerance.
Sources as in `rules`."""

from __future__ import annotations

from pulse_edge.measurement.rule import NumberRule

NUMBERS = (
    NumberRule(
        "rate", ("rate", "rate_median"), 5, 0.05, "AHA I: rates are read from the page to about 5 %"
    ),
    NumberRule("atrial rate", ("atrial_rate",), 10, 0.10, "AHA I"),
    NumberRule(
        "RR interval", ("rr_mean", "rr_median"), 40, 0.05, "AHA I: one small square of 40 ms"
    ),
    NumberRule(
        "PR interval", ("pr",), 20, 0.0, "AHA I: half a small square; readers differ by 20 ms"
    ),
    NumberRule(
        "QRS duration", ("qrs",), 15, 0.0, "AHA I: readers and programs differ by 10 to 20 ms"
    ),
    NumberRule("QT interval", ("qt",), 30, 0.0, "AHA IV: methods for the end of T differ by 30 ms"),
    NumberRule("QTc interval", ("qtc_bazett", "qtc_fridericia"), 30, 0.0, "AHA IV"),
    NumberRule(
        "axis", ("qrs_axis",), 20, 0.0, "AHA III: methods for the axis differ by 20 degrees"
    ),
    NumberRule("pause", ("rr_longest",), 300, 0.10, "BRADY"),
)
ROUGH = 2.0
""""About 150 bpm" may be off by twice the tolerance."""
