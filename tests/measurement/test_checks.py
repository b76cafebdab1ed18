"""Each rule against measurements: supported, contradicted, near the limit, not measurable."""

from __future__ import annotations

import dataclasses
import json

import pytest
from measured_values import (
    DENIED,
    FLAT,
    HIGH,
    NORMAL,
    PARTS,
    ROWS,
    STE,
    Values,
    leads,
    measured,
    missing,
    trace,
    verdict,
)

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
from pulse_edge.measurement.conditions import Person
from pulse_edge.measurement.number_rules import NUMBERS
from pulse_edge.measurement.rule import DERIVED
from pulse_edge.measurement.rules import RULES
from pulse_edge.report.report import UNCALIBRATED, Finding


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
