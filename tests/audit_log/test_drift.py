"""When readers change more than at first, and when there are too few cases to say so."""

from __future__ import annotations

import random

import pytest

from pulse_edge.audit_log.drift import ALARM, MIN_CASES, REFERENCE_REPORTS, check_drift

FIRST = ["2026-01"] * REFERENCE_REPORTS


def same(cases: int, changed: int) -> list[bool]:
    """Cases, the first of them changed."""
    return [n >= changed for n in range(cases)]


def test_nothing_is_tested_before_the_reference_is_whole() -> None:
    drift = check_drift(FIRST[:99], same(99, 50), {})
    assert (drift.reference, drift.reference_needed, drift.tests) == (99, 100, ())


@pytest.mark.parametrize(("changed", "alarm"), [(5, False), (6, True)])
def test_six_of_twenty_alarm_after_five_of_a_hundred(changed: int, alarm: bool) -> None:
    drift = check_drift([*FIRST, *["2026-02"] * 20], same(100, 5) + same(20, changed), {})
    (test,) = drift.tests
    assert (test.changed, test.cases, test.changed_before, test.cases_before) == (
        changed, 20, 5, 100
    )  # fmt: skip
    assert (test.statement, test.limit, test.alarm) == (None, ALARM, alarm)
    assert bool(drift.alarms) == alarm


def test_month_with_few_reports_is_named_and_not_tested() -> None:
    months = [*FIRST, *["2026-02"] * (MIN_CASES - 1), *["2026-03"] * MIN_CASES]
    drift = check_drift(months, same(100, 0) + same(19, 19) + same(20, 0), {})
    assert drift.too_few == ("2026-02",)
    assert [test.month for test in drift.tests] == ["2026-03"]
    assert drift.alarms == ()


def test_rest_of_the_month_that_ends_the_reference_is_tested() -> None:
    drift = check_drift(["2026-01"] * 130, same(100, 5) + same(30, 30), {})
    assert [(test.month, test.cases, test.alarm) for test in drift.tests] == [("2026-01", 30, True)]


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_few_months_without_drift_alarm(share: float) -> None:
    """At most 1 of 100 by the level; 0.5 to 0.6 of 100 in benchmarks/drift.py."""
    numbers, months = random.Random(7), [*FIRST, *["2026-02"] * 40]
    alarms = 0
    for _ in range(1000):
        agreed = [numbers.random() >= share for _ in months]
        alarms += bool(check_drift(months, agreed, {}).alarms)
    assert 0 < alarms <= 10


def test_fewer_changes_are_no_alarm() -> None:
    drift = check_drift([*FIRST, *["2026-02"] * 50], same(100, 80) + same(50, 0), {})
    assert drift.tests[0].p == pytest.approx(1.0)
    assert drift.alarms == ()


def test_findings_of_a_month_share_the_level() -> None:
    months = [*FIRST, *["2026-02"] * 40]
    steady = dict(enumerate(same(100, 5) + same(40, 2)))
    worse = dict(enumerate(same(100, 5) + same(40, 20)))
    findings = {("AFIB", True): steady, ("LVH", True): worse, ("PVC", False): steady}
    drift = check_drift(months, [True] * 140, findings)
    limits = {(t.statement, t.calibrated): t.limit for t in drift.tests}
    assert limits[None, None] == ALARM
    assert limits["LVH", True] == pytest.approx(ALARM / 3)
    assert [(t.statement, t.changed, t.cases) for t in drift.alarms] == [("LVH", 20, 40)]


@pytest.mark.parametrize(("before", "later"), [(MIN_CASES - 1, 40), (100, MIN_CASES - 1)])
def test_finding_with_few_cases_is_not_tested(before: int, later: int) -> None:
    months = [*FIRST, *["2026-02"] * 40]
    cases = dict.fromkeys(range(before), True) | dict.fromkeys(range(100, 100 + later), False)
    drift = check_drift(months, [True] * 140, {("AFIB", True): cases})
    assert [test.statement for test in drift.tests] == [None]
