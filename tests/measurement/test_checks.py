"""Each rule against measurements: supported, contradicted, near the limit, not measurable."""

from __future__ import annotations

import dataclasses
import json

import pytest

from pulse_edge.measurement.bounds import LEADS, bounds_of, elevation_limit
from pulse_edge.measurement.checks import (
    TOPICS,
    Check,
    check_answers,
    check_claim,
    check_findings,
    check_lines,
    spans,
)
from pulse_edge.measurement.claims import Claim
from pulse_edge.measurement.conditions import Person, Trace
from pulse_edge.measurement.measurements import Measurement
from pulse_edge.measurement.number_rules import NUMBERS
from pulse_edge.measurement.rule import DERIVED
from pulse_edge.measurement.rules import RULES
from pulse_edge.report.report import UNCALIBRATED, Finding

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


@pytest.mark.parametrize(("topic", "changes"), [(row[0], row[1]) for row in ROWS])
def test_a_right_statement_is_supported(topic: str, changes: Values) -> None:
    assert verdict(topic, changes) == "supported"


@pytest.mark.parametrize(("topic", "changes"), [(row[0], row[2]) for row in ROWS])
def test_a_wrong_statement_is_contradicted(topic: str, changes: Values) -> None:
    assert verdict(topic, changes) == "contradicted"


@pytest.mark.parametrize(("topic", "changes"), [(row[0], row[3]) for row in ROWS])
def test_a_statement_near_the_limit_is_supported(topic: str, changes: Values) -> None:
    assert verdict(topic, changes) == "supported"


@pytest.mark.parametrize(
    ("topic", "changes"), [(row[0], {**row[1], **missing(row[4])}) for row in ROWS]
)
def test_a_statement_without_its_measurement_is_not_measurable(topic: str, changes: Values) -> None:
    every_way: dict[str, Values] = {
        "irregular rhythm": {"ectopic": None, "rr_longest": None},
        "ventricular ectopic beats": {"rr_longest": None},
        "atrial ectopic beats": {"rr_longest": None},
        "ectopic beats": {"rr_longest": None},
        "sinus rhythm": {"p_present": None},
        "P waves": {"p_present": None},
        "atrial fibrillation": {"rr_variation": None, "atrial_fibrillation": None},
        "paced rhythm": {"paced": None, "p_present": None},
        "long QT": {"qtc_fridericia": None},
        "normal QT": {"qtc_fridericia": None},
        "left ventricular hypertrophy by voltage": {
            "cornell": None,
            "peguero": None,
            "r.aVL": None,
        },
        "low voltage": {"chest_voltage": None},
    }
    changes = {**changes, **every_way.get(topic, {})}
    claim = Claim(topic, topic, 0, 1)
    check = check_claim(claim, trace(changes), Person())
    assert check is not None
    assert check.verdict == "not measurable"
    assert "the trace is too noisy" in check.sentence


@pytest.mark.parametrize(("topic", "fits", "wrong"), PARTS)
def test_a_part_of_a_definition_contradicts_and_never_supports(
    topic: str, fits: Values, wrong: Values
) -> None:
    assert verdict(topic, fits) == "not measurable"
    assert verdict(topic, wrong) == "contradicted"


@pytest.mark.parametrize(("topic", "changes"), DENIED)
def test_a_wrong_denial_is_contradicted(topic: str, changes: Values) -> None:
    assert verdict(topic, changes, present=False) == "contradicted"


@pytest.mark.parametrize(
    "topic", sorted({topic for topic, _ in DENIED} - {"sinus rhythm", "regular rhythm", "P waves"})
)
def test_a_right_denial_is_supported(topic: str) -> None:
    assert verdict(topic, {}, present=False) == "supported"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.topic)
def test_each_rule_is_tested_and_has_a_source(rule: object) -> None:
    assert isinstance(rule, type(RULES[0]))
    tested = {row[0] for row in (*ROWS, *PARTS)} | {"ST deviation", "left ventricular hypertrophy"}
    assert rule.topic in tested
    assert rule.source
    if rule.proves:
        assert rule.topic in {topic for topic, _ in DENIED}


def test_rules_ask_for_measurements_that_exist() -> None:
    keys = {
        b.key
        for rule in RULES
        for part in (*rule.needs, *rule.proves, *rule.supports)
        for b in bounds_of(part)
    }
    keys |= {key for number in NUMBERS for key in number.keys}
    keys |= {name for derived in DERIVED.values() for name, _ in derived.parts}
    bases = {key.partition(".")[0] for key in NORMAL}
    assert {
        key for key in keys if key not in DERIVED and key.partition(".")[0] not in bases
    } == set()


# --- numbers ----------------------------------------------------------------------------------------------------------

NUMBER_ROWS: list[tuple[str, str, float, float, float]] = [
    ("rate", "bpm", 73, 42, 77),
    ("atrial rate", "bpm", 72, 300, 82),
    ("RR interval", "ms", 830, 600, 870),
    ("PR interval", "ms", 160, 240, 180),
    ("QRS duration", "ms", 92, 140, 106),
    ("QT interval", "ms", 390, 480, 420),
    ("QTc interval", "ms", 420, 520, 455),
    ("axis", "degrees", 50, -60, 64),
    ("pause", "ms", 900, 3000, 1150),
]
"""Topic, unit, a right number, a wrong one, one near the tolerance."""


def number(
    topic: str,
    unit: str,
    low: float | None,
    high: float | None,
    changes: Values,
    rough: bool = False,
) -> Check:
    check = check_claim(
        Claim(topic, topic, 0, 1, True, low, high, unit, rough), trace(changes), Person()
    )
    assert check is not None
    return check


@pytest.mark.parametrize(("topic", "unit", "right", "wrong", "near"), NUMBER_ROWS)
def test_numbers(topic: str, unit: str, right: float, wrong: float, near: float) -> None:
    assert number(topic, unit, right, right, {}).verdict == "supported"
    assert number(topic, unit, wrong, wrong, {}).verdict == "contradicted"
    assert number(topic, unit, near, near, {}).verdict == "supported"
    keys = next(rule.keys for rule in NUMBERS if rule.topic == topic)
    check = number(topic, unit, right, right, dict.fromkeys(keys))
    assert check.verdict == "not measurable"
    assert "the trace is too noisy" in check.sentence


def test_each_number_rule_is_tested() -> None:
    assert {rule.topic for rule in NUMBERS} == {row[0] for row in NUMBER_ROWS}


def test_ranges_and_bounds_hold_the_measurement() -> None:
    assert number("rate", "bpm", 60, 80, {}).verdict == "supported"
    assert number("rate", "bpm", 90, 110, {}).verdict == "contradicted"
    assert number("rate", "bpm", 100, None, {}).verdict == "contradicted"
    assert number("QRS duration", "ms", None, 120, {}).verdict == "supported"
    assert number("QRS duration", "ms", 120, None, {}).verdict == "contradicted"


def test_an_angle_goes_round_the_circle() -> None:
    assert number("axis", "degrees", 175, 175, {"qrs_axis": -178}).verdict == "supported"


def test_about_doubles_the_tolerance() -> None:
    assert number("rate", "bpm", 82, 82, {}).verdict == "contradicted"
    assert number("rate", "bpm", 82, 82, {}, rough=True).verdict == "supported"


def test_the_sentence_gives_both_numbers_and_the_uncertainty() -> None:
    (check,) = check_answers(
        [("", "Heart rate 42 bpm.")], measured({"rate": 74, "rate_median": 74})
    )
    assert check.sentence == 'The text says "Heart rate 42 bpm"; the trace shows rate 74 bpm (± 2).'


def test_the_sentence_of_a_denial_names_what_is_denied() -> None:
    (check,) = check_answers([("", "ST segments are isoelectric.")], measured(STE))
    assert check.sentence.startswith("The text denies ST deviation; the trace shows st j")
    (check,) = check_answers([("", "No abnormalities are seen.")], measured({"qrs": 160}))
    assert (
        check.sentence
        == 'The text says "No abnormalities"; the trace shows qrs 160 ms (± 8). Adult limits.'
    )


def test_an_assumption_that_a_value_rests_on_is_told() -> None:
    doubt = "the paper speed of 25 mm/s is assumed"
    rows = [dataclasses.replace(m, doubt=doubt) for m in measured({})]
    (check,) = check_answers([("", "Heart rate 42 bpm.")], rows)
    assert check.sentence.endswith("rate 72 bpm (± 2). The paper speed of 25 mm/s is assumed.")


def test_one_beat_is_singular() -> None:
    (check,) = check_answers([("", "No PVCs.")], measured({"ventricular_ectopic": 1}))
    assert (
        check.sentence
        == "The text denies ventricular ectopic beats; the trace shows 1 broad premature beat."
    )


def test_a_rate_on_a_flat_line_is_contradicted() -> None:
    nothing = dict.fromkeys(("rate", "rate_median", "rr_variation", "p_present", "pr", "qrs"))
    rows = measured({**nothing, **FLAT})
    checks = check_answers([("", "42 bpm, sinus bradycardia. QRS duration 90 ms.")], rows)
    assert [check.verdict for check in checks] == ["contradicted"] * 3
    assert all("a flat line without beats" in check.sentence for check in checks)


# --- persons, places --------------------------------------------------------------------------------------------------


def test_children_have_their_own_limits_and_adult_limits_are_named() -> None:
    infant = Person(age=0.2)
    assert verdict("sinus tachycardia", {"rate": 140}, person=infant) == "contradicted"
    assert verdict("sinus tachycardia", {"rate": 225}, person=infant) == "supported"
    assert verdict("normal rate", {"rate": 140}, person=infant) == "supported"
    assert verdict("normal axis", {"qrs_axis": 115}, person=infant) == "supported"
    assert verdict("wide QRS", {"qrs": 100}, person=infant) == "supported"
    assert verdict("left ventricular hypertrophy", HIGH, person=infant) == "not measurable"
    (unknown,) = check_answers([("", "Tachycardia.")], measured({}))
    assert unknown.sentence.endswith("Adult limits.")
    (expected,) = check_answers([("", "Tachycardia.")], measured({}), Person(age=50))
    assert "dult limits" not in expected.sentence


def test_uneven_rr_intervals_leave_ectopic_beats_open() -> None:
    assert verdict("ectopic beats", {"rr_longest": 1100}) == "not measurable"


def test_low_voltages_leave_hypertrophy_open_and_contradict_it_by_voltage() -> None:
    assert verdict("left ventricular hypertrophy", HIGH) == "supported"
    assert verdict("left ventricular hypertrophy", {"r.aVL": 0.3}) == "not measurable"
    assert verdict("left ventricular hypertrophy by voltage", {"r.aVL": 0.3}) == "contradicted"
    (check,) = check_answers([("", "LVH.")], measured({"r.aVL": 0.3}), Person(age=60, sex="male"))
    assert check.sentence.endswith("which does not decide it.")


def test_limits_by_sex_leave_the_benefit_to_the_text_where_the_sex_is_unknown() -> None:
    changes: Values = {"cornell": 2.35, "sokolow_lyon": 2.0, "peguero": 1.0, "r.aVL": 0.3}
    wide: Values = {**changes, "cornell": 2.25}
    assert (
        verdict("left ventricular hypertrophy by voltage", wide, person=Person(sex="male"))
        == "contradicted"
    )
    assert (
        verdict("left ventricular hypertrophy by voltage", wide, person=Person(sex="female"))
        == "supported"
    )
    assert verdict("left ventricular hypertrophy by voltage", wide) == "supported"


def test_st_limits_by_lead_sex_and_age() -> None:
    assert elevation_limit("II", 50, "male") == 0.1
    assert elevation_limit("V2", 50, "male") == 0.2
    assert elevation_limit("V3", 30, "male") == 0.25
    assert elevation_limit("V3", 30, "female") == 0.15
    assert elevation_limit("V3", None, None) == 0.25


def test_st_elevation_is_looked_for_where_the_text_places_it() -> None:
    assert verdict("ST elevation", STE, place="II III aVF") == "supported"
    assert verdict("ST elevation", STE, place="V1 V2 V3 V4") == "contradicted"
    assert verdict("ST elevation", STE, present=False, place="II III aVF") == "contradicted"
    assert verdict("ST elevation", STE, present=False, place="V1 V2 V3") == "supported"


def test_a_wide_qrs_leaves_a_denied_st_elevation_open() -> None:
    assert verdict("ST elevation", {**STE, "qrs": 160}, present=False) == "supported"


def test_leads_without_an_opinion_do_not_include_avr() -> None:
    assert "aVR" not in LEADS
    assert verdict("ST elevation", leads("st_j", "aVR", 0.3)) == "contradicted"
    assert verdict("ST elevation", leads("st_j", "aVR", 0.3), place="aVR") == "supported"


# --- findings and outputs ---------------------------------------------------------------------------------------------


def finding(key: str, name: str, log_odds: float) -> Finding:
    return Finding(key, name, "rhythm", 2, {}, 1, log_odds, None, False, None, UNCALIBRATED)


def test_findings_are_checked_by_the_same_rules() -> None:
    rows = [
        finding("AFIB", "atrial fibrillation", 2.0),
        finding("SR", "sinus rhythm", -1.0),
        finding("MI", "x", 1.0),
    ]
    checks = check_findings(rows, measured({}))
    assert [(c.finding, c.verdict, c.start) for c in checks] == [
        ("AFIB", "contradicted", None),
        ("SR", "contradicted", None),
    ]
    assert checks[0].sentence.startswith(
        "Asked for it, the model says yes to atrial fibrillation; the trace shows"
    )
    assert checks[1].sentence.startswith(
        "Asked for it, the model says no to sinus rhythm; the trace shows P waves"
    )


def test_findings_topics_all_have_rules() -> None:
    assert set(TOPICS.values()) <= {rule.topic for rule in RULES}


def test_lines_begin_with_what_is_contradicted() -> None:
    answers = [
        ("", "Sinus rhythm. Heart rate 42 bpm."),
        ("", "Heart rate 42 bpm. Ventricular tachycardia, rate 72 bpm."),
    ]
    checks = check_answers(answers, measured({}))
    lines = check_lines(checks)
    assert (
        lines[0]
        == 'CONTRADICTED: The text says "Heart rate 42 bpm"; the trace shows rate 72 bpm (± 2).'
    )
    assert len(lines) == len(set(lines))
    words = [line.split(":")[0] for line in lines]
    assert words == ["CONTRADICTED", "CONTRADICTED", "supported", "supported"]


def test_spans_do_not_overlap_and_show_the_worst_verdict() -> None:
    text = "Left axis deviation (axis 45 degrees)."
    checks = check_answers([("", text)], measured({}))
    marks = spans(checks)
    assert [(text[a:b], v) for a, b, v in marks] == [
        ("Left axis deviation", "contradicted"),
        ("axis 45 degrees", "supported"),
    ]


def test_checks_are_plain_data() -> None:
    checks = check_answers([("", "Sinus rhythm, 72 bpm.")], measured({}))
    rows = json.loads(json.dumps([dataclasses.asdict(check) for check in checks]))
    assert rows[1]["used"][0]["key"] == "rate"
    assert rows[1]["verdict"] == "supported"
