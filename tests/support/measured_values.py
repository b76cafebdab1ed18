"""Measurements of a normal ECG, and of ECGs that support or contradict each rule."""

from __future__ import annotations

from pulse_edge.measurement.checks import (
    check_claim,
)
from pulse_edge.measurement.claims import Claim
from pulse_edge.measurement.conditions import Person, Trace
from pulse_edge.measurement.measurements import Measurement

ALL_LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")


UNITS = {"bpm": 2.0, "ms": 8.0, "degrees": 5.0, "mV": 0.02, "": 0.0}
"""Unit -> uncertainty."""


NORMAL: dict[str, tuple[float, str]] = {
    "asystole": (0, ""),
    "rate": (72, "bpm"),
    "rate_median": (72, "bpm"),
    "atrial_rate": (72, "bpm"),
    "rr_mean": (833, "ms"),
    "rr_median": (833, "ms"),
    "rr_shortest": (815, "ms"),
    "rr_longest": (850, "ms"),
    "rr_variation": (0.02, ""),
    "ectopic": (0, ""),
    "ventricular_ectopic": (0, ""),
    "supraventricular_ectopic": (0, ""),
    "paced": (0, ""),
    "p_present": (1, ""),
    "atrial_fibrillation": (0, ""),
    "pr": (160, "ms"),
    "qrs": (90, "ms"),
    "qt": (390, "ms"),
    "qtc_bazett": (425, "ms"),
    "qtc_fridericia": (415, "ms"),
    "qrs_axis": (45, "degrees"),
    "sokolow_lyon": (2.0, "mV"),
    "cornell": (1.0, "mV"),
    "peguero": (1.2, "mV"),
    "limb_voltage": (1.2, "mV"),
    "chest_voltage": (2.2, "mV"),
    **{f"st_j.{lead}": (0.0, "mV") for lead in ALL_LEADS},
    **{f"st_j60.{lead}": (0.02, "mV") for lead in ALL_LEADS},
    **{f"t.{lead}": (-0.2 if lead == "aVR" else 0.3, "mV") for lead in ALL_LEADS},
    **{f"q.{lead}": (0.0, "mV") for lead in ALL_LEADS},
    **{f"r.{lead}": (0.2 if lead in ("V1", "aVR") else 0.8, "mV") for lead in ALL_LEADS},
    **{f"s.{lead}": (-0.9 if lead in ("V1", "V2", "aVR") else -0.2, "mV") for lead in ALL_LEADS},
}


AF = {"p_present": 0, "rr_variation": 0.2, "atrial_fibrillation": 1}


IRREGULAR = {"rr_variation": 0.2, "rr_longest": 1200}


FLAT = {"asystole": 1}


Values = dict[str, float | None]


def trace(changes: Values) -> Trace:
    return Trace(measured(changes))


def measured(changes: Values) -> list[Measurement]:
    """Measurements of a normal ECG with some values changed; None: not measurable. The median rate
    follows the mean."""
    rows = []
    changes = {"rate_median": changes["rate"], **changes} if "rate" in changes else changes
    for key, (normal, unit) in NORMAL.items():
        value = changes.get(key, normal)
        reason = "" if value is not None else "the trace is too noisy"
        lead = key.partition(".")[2]
        rows.append(
            Measurement(
                key,
                key.replace("_", " "),
                value,
                unit,
                UNITS[unit] or None,
                (lead,) if lead else ("II",),
                reason,
            )
        )
    assert set(changes) <= set(NORMAL), "the test changes a measurement that does not exist"
    return rows


def verdict(
    topic: str,
    changes: Values,
    *,
    present: bool = True,
    person: Person | None = None,
    place: str = "",
) -> str:
    check = check_claim(
        Claim(topic, topic, 0, len(topic), present, leads=tuple(place.split())),
        trace(changes),
        person or Person(),
    )
    assert check is not None
    return check.verdict


def leads(key: str, names: str, value: float) -> Values:
    return {f"{key}.{name}": value for name in names.split()}


LBBB: Values = {"qrs": 160, "r.V1": 0.1, "s.V1": -1.5, "r.I": 1.2, "s.I": 0.0, "t.V6": -0.2}


RBBB: Values = {"qrs": 150, "r.V1": 1.0, "s.V1": -0.2, "s.V6": -0.5}


STE: Values = leads("st_j", "II III aVF", 0.3) | leads("st_j60", "II III aVF", 0.3)


STD: Values = leads("st_j", "V4 V5 V6", -0.2) | leads("st_j60", "V4 V5 V6", -0.2)


HIGH: Values = {"sokolow_lyon": 5.0, "cornell": 3.6, "peguero": 3.8}


# topic, a trace that supports it, one that contradicts it, one near the limit, what must be
# measured for it
ROWS: list[tuple[str, Values, Values, Values, str]] = [
    ("tachycardia", {"rate": 120}, {"rate": 80}, {"rate": 95}, "rate"),
    ("bradycardia", {"rate": 45}, {"rate": 80}, {"rate": 64}, "rate"),
    ("normal rate", {}, {"rate": 130}, {"rate": 108}, "rate"),
    ("sinus tachycardia", {"rate": 120}, {"rate": 80}, {"rate": 97}, "rate"),
    ("sinus bradycardia", {"rate": 45}, {"rate": 80}, {"rate": 63}, "rate"),
    ("sinus rhythm", {}, {**AF}, {"rr_variation": 0.2}, "rr_variation"),
    ("normal sinus rhythm", {}, {"rate": 130}, {"rate": 105}, "rate"),
    ("regular rhythm", {}, {"rr_variation": 0.2}, {"rr_variation": 0.12}, "rr_variation"),
    ("irregular rhythm", {**IRREGULAR}, {}, {"rr_longest": 980}, "rr_variation"),
    ("atrial fibrillation", {**AF}, {}, {**AF, "rr_variation": 0.08}, "p_present"),
    ("P waves", {}, {**AF}, {"rr_variation": 0.2}, "rr_variation"),
    ("asystole", {**FLAT}, {}, {**FLAT}, "asystole"),
    ("pause", {"rr_longest": 3000}, {"rr_longest": 1000}, {"rr_longest": 1700}, "rr_longest"),
    ("paced rhythm", {"paced": 1}, {}, {"paced": 1, "qrs": 90}, "qrs"),
    ("ventricular ectopic beats", {"ectopic": 2, "ventricular_ectopic": 2}, {}, {"ectopic": 1}, "ectopic"),
    ("atrial ectopic beats", {"ectopic": 1, "supraventricular_ectopic": 1}, {}, {"ectopic": 1}, "ectopic"),
    ("ectopic beats", {"ectopic": 1}, {}, {"ectopic": 1}, "ectopic"),
    ("first-degree AV block", {"pr": 260}, {"pr": 150}, {"pr": 193}, "pr"),
    ("long PR", {"pr": 260}, {"pr": 150}, {"pr": 193}, "pr"),
    ("short PR", {"pr": 90}, {"pr": 160}, {"pr": 135}, "pr"),
    ("normal PR", {}, {"pr": 260}, {"pr": 215}, "pr"),
    ("wide QRS", {"qrs": 150}, {"qrs": 85}, {"qrs": 105}, "qrs"),
    ("narrow QRS", {}, {"qrs": 150}, {"qrs": 130}, "qrs"),
    ("left bundle branch block", LBBB, {}, {**LBBB, "qrs": 108}, "qrs"),
    ("right bundle branch block", RBBB, {}, {**RBBB, "qrs": 108}, "qrs"),
    ("bundle branch block", {"qrs": 150}, {}, {"qrs": 108}, "qrs"),
    ("long QT", {"qtc_bazett": 520, "qtc_fridericia": 505}, {"qtc_bazett": 400, "qtc_fridericia": 390}, {"qtc_bazett": 435}, "qtc_bazett"),
    ("short QT", {"qtc_fridericia": 330}, {"qtc_fridericia": 450}, {"qtc_fridericia": 400}, "qtc_fridericia"),
    ("normal QT", {}, {"qtc_bazett": 520, "qtc_fridericia": 510}, {"qtc_bazett": 470, "qtc_fridericia": 470}, "qtc_bazett"),
    ("normal axis", {}, {"qrs_axis": -70}, {"qrs_axis": -40}, "qrs_axis"),
    ("left axis deviation", {"qrs_axis": -60}, {}, {"qrs_axis": -20}, "qrs_axis"),
    ("right axis deviation", {"qrs_axis": 120}, {}, {"qrs_axis": 80}, "qrs_axis"),
    ("extreme axis", {"qrs_axis": -120}, {}, {"qrs_axis": 170}, "qrs_axis"),
    ("ST elevation", STE, {}, leads("st_j", "II aVF", 0.06), "st_j.*"),
    ("ST depression", STD, leads("st_j60", "V1", 0.1), leads("st_j", "V5 V6", -0.03), "st_j.*"),
    ("T-wave inversion", leads("t", "V4 V5", -0.4), {}, leads("t", "V4", 0.0), "t.*"),
    (
        "left ventricular hypertrophy by voltage",
        HIGH,
        {"r.aVL": 0.3},
        {"sokolow_lyon": 3.3, "r.aVL": 0.3},
        "sokolow_lyon",
    ),
    ("low voltage", {"limb_voltage": 0.3}, {}, {"limb_voltage": 0.6}, "limb_voltage"),
]  # fmt: skip


PARTS: list[tuple[str, Values, Values]] = [
    ("sinus arrhythmia", {"rr_variation": 0.12}, {**AF}),
    ("atrial flutter", {"rate": 150}, {**FLAT}),
    ("supraventricular tachycardia", {"rate": 180}, {}),
    ("ventricular tachycardia", {"rate": 180, "qrs": 160}, {"rate": 180}),
    ("incomplete LBBB", {"qrs": 112}, {"qrs": 160}),
    ("incomplete RBBB", {"qrs": 112}, {"qrs": 160}),
    ("conduction delay", {"qrs": 130}, {}),
    ("left anterior fascicular block", {"qrs_axis": -60}, {}),
    ("left posterior fascicular block", {"qrs_axis": 120}, {}),
    ("Wolff-Parkinson-White pattern", {"pr": 90, "qrs": 130}, {}),
    ("normal ECG", {}, {"qrs": 160}),
]
"""Rules that see a part of the definition: topic, a trace that fits, one that contradicts."""


DENIED: list[tuple[str, Values]] = [
    ("tachycardia", {"rate": 130}),
    ("bradycardia", {"rate": 40}),
    ("sinus tachycardia", {"rate": 130}),
    ("sinus bradycardia", {"rate": 40}),
    ("sinus rhythm", {}),
    ("regular rhythm", {}),
    ("irregular rhythm", {"rr_variation": 0.2}),
    ("atrial fibrillation", {**AF}),
    ("P waves", {}),
    ("asystole", {**FLAT}),
    ("pause", {"rr_longest": 3000}),
    ("paced rhythm", {"paced": 1}),
    ("ventricular ectopic beats", {"ventricular_ectopic": 1}),
    ("atrial ectopic beats", {"supraventricular_ectopic": 1, "rr_longest": 1200}),
    ("ectopic beats", {"ectopic": 1}),
    ("first-degree AV block", {"pr": 280}),
    ("long PR", {"pr": 280}),
    ("short PR", {"pr": 80}),
    ("wide QRS", {"qrs": 170}),
    ("left bundle branch block", LBBB),
    ("right bundle branch block", RBBB),
    ("bundle branch block", {"qrs": 170}),
    ("long QT", {"qtc_bazett": 560, "qtc_fridericia": 550}),
    ("left axis deviation", {"qrs_axis": -60}),
    ("right axis deviation", {"qrs_axis": 130}),
    ("ST elevation", STE),
    ("ST depression", STD),
    ("ST deviation", STE),
    ("ST deviation", STD),
    ("T-wave inversion", leads("t", "V4 V5", -0.5)),
    ("left ventricular hypertrophy", HIGH),
    ("left ventricular hypertrophy by voltage", HIGH),
    ("low voltage", {"limb_voltage": 0.3, "chest_voltage": 0.7}),
]
"""A denial, and a trace that contradicts it."""


def missing(keys: str) -> Values:
    """The measurement that cannot be taken; `st_j.*`: in no lead, with all others of the same
    leads."""
    if keys == "st_j.*":
        return {f"{key}.{lead}": None for lead in ALL_LEADS for key in ("st_j", "st_j60")}
    if keys.endswith("*"):
        return {keys[:-1] + lead: None for lead in ALL_LEADS}
    return {keys: None}
