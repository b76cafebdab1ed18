"""What reports show of the measurements: which, in what order, and in which words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pulse_edge.measurement.measurements import Measurement

LABELS = {
    "asystole": "asystole",
    "rate": "mean",
    "rate_median": "median",
    "regular": "regularity",
    "pauses": "pauses of 2 s or more",
    "ectopic": "premature beats",
    "paced": "pacemaker spikes",
    "p_present": "P waves",
    "atrial_fibrillation": "atrial fibrillation",
    "pr": "PR",
    "qrs": "QRS",
    "qt": "QT",
    "qtc_bazett": "QTc Bazett",
    "qtc_fridericia": "QTc Fridericia",
    "qrs_axis": "QRS",
    "t_axis": "T",
    "sokolow_lyon": "Sokolow-Lyon",
    "cornell": "Cornell",
    "limb_voltage": "highest limb lead",
}
"""Key of a measurement that reports show -> its short name, in the order of a report."""
GROUPS = {
    "Ventricular rate": ("rate", "rate_median"),
    "Rhythm": (
        "asystole",
        "regular",
        "p_present",
        "atrial_fibrillation",
        "pauses",
        "ectopic",
        "paced",
    ),
    "Intervals": ("pr", "qrs", "qt", "qtc_bazett", "qtc_fridericia"),
    "Axis": ("qrs_axis", "t_axis"),
    "Voltage": ("sokolow_lyon", "cornell", "limb_voltage"),
}
"""Line of a report -> the measurements in it."""
FULL_LABELS = LABELS | {
    "rate": "mean rate",
    "rate_median": "median rate",
    "qrs_axis": "QRS axis",
    "t_axis": "T axis",
    "sokolow_lyon": "Sokolow-Lyon voltage",
    "cornell": "Cornell voltage",
    "limb_voltage": "highest limb lead voltage",
}
"""Key of a measurement -> its name where no group's name stands before it."""
PHRASES = {
    "asystole": ("ventricular activity", "NO VENTRICULAR ACTIVITY, OR LEADS OFF"),
    "regular": ("irregular", "regular"),
    "paced": ("no pacemaker spikes", "pacemaker spikes"),
    "p_present": ("no P waves at a constant distance before the QRS", "P waves before the QRS"),
    "atrial_fibrillation": ("no sign of atrial fibrillation", "irregular without P waves"),
}
"""Yes-or-no measurement -> words for no, words for yes."""
YES_OR_NO = frozenset(PHRASES)
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
    """Return a line for each group of values, then one for each reason why others are missing."""
    by_key = {m.key: m for m in measurements}
    lines = []
    for group, keys in GROUPS.items():
        shown = [by_key[k] for k in keys if k in by_key and by_key[k].value is not None]
        if shown:
            lines.append(f"{group}: {', '.join(_in_group(m) for m in shown)}")
    lines += _st_lines(measurements)
    reasons: dict[str, list[str]] = {}
    for key, label in FULL_LABELS.items():
        if key in by_key and by_key[key].value is None:
            reasons.setdefault(by_key[key].reason, []).append(label)
    return [*lines, *(f"Not measurable ({why}): {', '.join(n)}" for why, n in reasons.items())]


def _in_group(m: Measurement) -> str:
    """Return a value with its name, as it stands in a group's line."""
    if m.key in YES_OR_NO:
        return PHRASES[m.key][bool(m.value)]
    if m.key in COUNTS:
        return f"{m.value:.0f} {LABELS[m.key]}" if m.value else f"no {LABELS[m.key]}"
    return f"{LABELS[m.key]} {value_text(m)}"


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
