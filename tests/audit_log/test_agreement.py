"""Readers against software, counted by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest
from confirmed_logs import KIT, OTHER_KIT, confirmation, entries, verdict

from pulse_edge.audit_log.agreement import (
    FindingAgreement,
    KitAgreement,
    Month,
    agreement,
    as_json,
)
from pulse_edge.audit_log.proportions import share


def of_kit(fields: list[dict[str, Any]], **choice: str) -> KitAgreement:
    (kit,) = agreement(entries(fields), **choice).kits
    return kit


def finding(kit: KitAgreement, key: str, *, calibrated: bool = True) -> FindingAgreement:
    (one,) = (f for f in kit.findings if (f.statement, f.calibrated) == (key, calibrated))
    return one


PAIRS = [("present", "present")] * 8 + [("present", "absent")] * 2
PAIRS += [("absent", "present")] * 4 + [("absent", "absent")] * 16
PAIRS += [("uncertain", "present")] * 3 + [("absent", "not assessable")] * 2
PAIRS += [("uncertain", "not assessable")]


def test_counts_and_shares_of_a_finding_by_hand() -> None:
    kit = of_kit([confirmation(n, {"AFIB": verdict(*pair)}) for n, pair in enumerate(PAIRS)])
    one = finding(kit, "AFIB")
    counts = (one.both_present, one.software_alone, one.reader_alone, one.both_absent)
    assert counts == (8, 2, 4, 16)
    assert (one.judged, one.abstained, one.not_assessable) == (36, 4, 2)
    assert one.sensitivity == share(8, 12)
    assert one.specificity == share(16, 18)
    assert one.positive_predictive_value == share(8, 10)
    assert one.negative_predictive_value == share(16, 20)
    # observed 24 / 30; by chance (10 * 12 + 18 * 20) / 900 = 8 / 15
    assert one.kappa == pytest.approx((24 / 30 - 8 / 15) / (7 / 15))
    assert one.months == (Month("2026-01", 30, 24),)


def test_findings_that_the_reader_passed_over_do_not_count() -> None:
    kit = of_kit([confirmation(1, {"AFIB": verdict("present", "present")}), confirmation(2)])
    assert [f.statement for f in kit.findings] == ["AFIB"]
    assert finding(kit, "AFIB").judged == 1


def test_calibrated_verdicts_and_sides_of_log_odds_are_apart() -> None:
    kit = of_kit([
        confirmation(1, {"AFIB": verdict("present", "present")}),
        confirmation(2, {"AFIB": verdict("present", "absent", calibrated=False)}),
    ])  # fmt: skip
    assert [(f.calibrated, f.both_present, f.software_alone) for f in kit.findings] == [
        (True, 1, 0), (False, 0, 1)
    ]  # fmt: skip


def test_share_of_reports_without_change() -> None:
    outcomes = ["agreed"] * 7 + ["changed"] * 2 + ["rejected"]
    kit = of_kit([confirmation(n, overall=o) for n, o in enumerate(outcomes)])
    assert kit.unchanged == share(7, 10)
    assert (kit.reports, kit.rejected, kit.readers) == (10, 1, 1)


def test_correction_replaces_the_confirmation_of_its_page() -> None:
    first = confirmation(1, {"AFIB": verdict("present", "absent")}, overall="changed")
    last = confirmation(1, {"AFIB": verdict("present", "present")}, reader="Dr Ben Okri")
    kit = of_kit([first, confirmation(2), last])
    assert (kit.reports, kit.unchanged.value) == (2, 1.0)
    assert finding(kit, "AFIB").both_present == 1


def test_pages_of_one_file_count_each() -> None:
    sheets = [confirmation(1) | {"page_number": n} for n in (1, 2, 3)]
    assert of_kit(sheets).reports == 3


def test_kits_are_apart() -> None:
    fields = [confirmation(1), confirmation(1, kit=OTHER_KIT), confirmation(2)]
    kits = agreement(entries(fields)).kits
    assert [(k.kit, k.reports, k.demonstration) for k in kits] == [
        ("kit-7b", 2, False), ("kit-4b", 1, True)
    ]  # fmt: skip
    assert of_kit(fields, kit="kit-4b").reports == 1
    assert of_kit(fields, kit="aaaaaaaa").reports == 2


def test_days_are_local_and_included() -> None:
    days = ["2026-01-30", "2026-01-31", "2026-02-01", "2026-02-02"]
    fields = [confirmation(n, day=day) for n, day in enumerate(days)]
    assert of_kit(fields, since="2026-01-31", until="2026-02-01").reports == 2
    assert of_kit(fields).months == (Month("2026-01", 2, 2), Month("2026-02", 2, 2))


def test_answers_and_other_versions_are_passed_over() -> None:
    fields: list[dict[str, Any]] = [{"question_sha256": "x"}, {"kind": "confirmation"}]
    assert agreement(entries(fields)).kits == ()
    assert of_kit([*fields, confirmation(1)]).reports == 1


def test_json_says_which_tests_alarm() -> None:
    reports = [confirmation(n) for n in range(100)]
    reports += [confirmation(n, day="2026-02-15", overall="changed") for n in range(100, 130)]
    fields = json.loads(json.dumps(as_json(agreement(entries(reports)))))
    (test,) = fields["kits"][0]["drift"]["tests"]
    assert (test["month"], test["alarm"], fields["kits"][0]["sha256"]) == (
        "2026-02", True, KIT["sha256"]
    )  # fmt: skip
