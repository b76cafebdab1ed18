"""What reports show of the measurements: which, in what order, and in which words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pulse_edge.measurement.measurements import Measurement

LABELS = {
    "asystole": "asystole, or leads off",
    "rate": "ventricular rate (mean RR)",
    "rate_median": "ventricular rate (median RR)",
    "regular": "regular rhythm",
    "pauses": "pauses of 2 s and more",
    "ectopic": "premature beats",
    "paced": "pacemaker spikes",
    "p_present": "P waves before the QRS",
    "atrial_fibrillation": "irregular without P waves",
    "pr": "PR",
    "qrs": "QRS",
    "qt": "QT",
    "qtc_bazett": "QTc (Bazett)",
    "qtc_fridericia": "QTc (Fridericia)",
    "qrs_axis": "QRS axis",
    "t_axis": "T axis",
    "sokolow_lyon": "Sokolow-Lyon voltage",
    "cornell": "Cornell voltage",
    "limb_voltage": "highest limb lead QRS",
}
"""Key of a measurement that reports show -> its short name, in the order of a report."""
YES_OR_NO = frozenset({"asystole", "regular", "paced", "p_present", "atrial_fibrillation"})
COUNTS = frozenset({"pauses", "ectopic"})
ST_LEVEL = "st_j60."
ST_SHOWN = 0.1
"""mV: a report shows ST levels that are at least one small square away from the baseline."""


def selected(measurements: Iterable[Measurement]) -> tuple[Measurement, ...]:
    """Return the measurements that a report carries: those with a label, and the ST level of each
    lead."""
    by_key = {m.key: m for m in measurements}
    labelled = [by_key[key] for key in LABELS if key in by_key]
    return (*labelled, *(m for key, m in by_key.items() if key.startswith(ST_LEVEL)))


def summary_lines(measurements: Sequence[Measurement]) -> list[str]:
    """Return a line for each value, then one with all that could not be measured, by reason."""
    shown = [m for m in selected(measurements) if not m.key.startswith(ST_LEVEL)]
    lines = [f"{LABELS[m.key]}: {value_text(m)}" for m in shown if m.value is not None]
    lines += _st_lines(measurements)
    reasons: dict[str, list[str]] = {}
    for m in shown:
        if m.value is None:
            reasons.setdefault(m.reason, []).append(LABELS[m.key])
    return [*lines, *(f"not measurable ({why}): {', '.join(n)}" for why, n in reasons.items())]


def value_text(m: Measurement) -> str:
    """Return a value with unit, uncertainty and doubt: `74 bpm ± 2`, `yes`, `not measurable`."""
    if m.value is None:
        return "not measurable"
    if m.key in YES_OR_NO:
        return "yes" if m.value else "no"
    if m.key in COUNTS:
        return f"{m.value:.0f}"
    digits = 2 if m.unit == "mV" else 0
    number = f"{m.value:.{digits}f} {m.unit}"
    number += "" if m.uncertainty is None else f" ± {m.uncertainty:.{digits}f}"
    return f"{number} ({m.doubt})" if m.doubt else number


def _st_lines(measurements: Iterable[Measurement]) -> list[str]:
    """Return one line with the leads whose ST level is away from the baseline, or none."""
    levels = [m for m in measurements if m.key.startswith(ST_LEVEL) and m.value is not None]
    away = [m for m in levels if abs(m.value or 0.0) >= ST_SHOWN]
    if not levels:
        return []
    shown = ", ".join(f"{m.key.removeprefix(ST_LEVEL)} {m.value:+.2f} mV" for m in away)
    leads = "1 lead" if len(levels) == 1 else f"{len(levels)} leads"
    return [f"ST level at J + 60 ms: {shown or f'within {ST_SHOWN} mV in {leads}'}"]
