"""Notice when readers change a kit's reports more often than they did at first.

In: a kit's reports in the order of their confirmation, and judged findings. Out: `DriftCheck`. The
first REFERENCE_REPORTS reports are the reference. Each later month is compared with it by Fisher's
exact test, one-sided: whole reports at the level ALARM, and all findings together at the same level
(Bonferroni). The exact test takes the reference's own uncertainty into account. A CUSUM chart does
not: its false alarms multiply where the expected share is estimated from so few cases (Jensen et
al. 2006, Journal of Quality Technology 38:349).

Without drift, 0.5 to 0.6 of 100 months alarm on whole reports (4,000 simulated months of 40 or 100
reports, 5 to 20 % changed: benchmarks/drift.py). A rise from 10 to 30 % changed is noticed in 61 of
100 months of 40 reports, from 10 to 20 % in 31 of 100 months of 100. Standard library only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pulse_edge.audit_log.proportions import probability_of_more

REFERENCE_REPORTS = 100
"""Reports that later months are compared with."""
MIN_CASES = 20
"""Fewest cases of a month, and of a finding in the reference, that are tested: 6 changed reports of
20 are the fewest that alarm after 5 of 100."""
ALARM = 0.01
"""Probability of a false alarm on whole reports in a month, and on any finding in a month."""


@dataclass(frozen=True)
class DriftTest:
    """One month against the reference."""

    month: str
    """Such as `2026-03`."""
    statement: str | None
    """Key of a finding; None: whole reports."""
    calibrated: bool | None
    """Of a finding: whether the software gave verdicts."""
    changed: int
    """Cases of the month on which reader and software differ."""
    cases: int
    """Cases of the month."""
    changed_before: int
    """The same of the reference."""
    cases_before: int
    """Cases of the reference."""
    p: float
    """Probability of as many changes without drift."""
    limit: float
    """p at or below which the test alarms."""

    @property
    def alarm(self) -> bool:
        """Whether readers change more than at first."""
        return self.p <= self.limit


@dataclass(frozen=True)
class DriftCheck:
    """What the tests of one kit say."""

    reference: int
    """Reports that the reference has so far."""
    reference_needed: int
    """Reports that it needs; before that no month is tested."""
    too_few: tuple[str, ...]
    """Months behind the reference with fewer than MIN_CASES reports, which are not tested."""
    tests: tuple[DriftTest, ...]
    """Every test, month by month."""

    @property
    def alarms(self) -> tuple[DriftTest, ...]:
        """The tests that alarm."""
        return tuple(test for test in self.tests if test.alarm)


@dataclass(frozen=True)
class _Cases:
    """Agreement by month, before and after the end of the reference."""

    before: tuple[bool, ...]
    later: Mapping[str, Sequence[bool]]

    @classmethod
    def of(cls, months: Sequence[str], same: Mapping[int, bool]) -> _Cases:
        """Divide cases, which are given by the number of their report."""
        later: dict[str, list[bool]] = defaultdict(list)
        for number, agrees in same.items():
            if number >= REFERENCE_REPORTS:
                later[months[number]].append(agrees)
        before = tuple(agrees for number, agrees in same.items() if number < REFERENCE_REPORTS)
        return cls(before, later)

    def test(self, month: str, about: tuple[str, bool] | None = None) -> DriftTest | None:
        """Test a month; None where it or the reference has too few cases."""
        now = self.later.get(month, ())
        if min(len(now), len(self.before)) < MIN_CASES:
            return None
        changed, changed_before = now.count(False), self.before.count(False)
        p = probability_of_more(changed, len(now), changed_before, len(self.before))
        statement, calibrated = about or (None, None)
        counts = (changed, len(now), changed_before, len(self.before))
        return DriftTest(month, statement, calibrated, *counts, p, ALARM)


def check_drift(
    months: Sequence[str],
    same: Sequence[bool],
    findings: Mapping[tuple[str, bool], Mapping[int, bool]],
) -> DriftCheck:
    """Compare later months with the reference.

    `months` and `same` have an item for each report: its month, and whether the reader agreed with
    it without change. `findings` holds for each key and calibration whether reader and software
    agree, by the number of the report, from 0.
    """
    reference = min(len(months), REFERENCE_REPORTS)
    reports = _Cases.of(months, dict(enumerate(same)))
    by_finding = {about: _Cases.of(months, cases) for about, cases in findings.items()}
    tests: list[DriftTest] = []
    too_few = []
    for month in sorted(reports.later):
        whole = reports.test(month)
        if whole is None:
            too_few.append(month)
            continue
        tests += [whole, *_of_findings(month, by_finding)]
    return DriftCheck(reference, REFERENCE_REPORTS, tuple(too_few), tuple(tests))


def _of_findings(month: str, by_finding: Mapping[tuple[str, bool], _Cases]) -> Iterator[DriftTest]:
    """Yield the tests of a month's findings, which share the level ALARM."""
    tests = [cases.test(month, about) for about, cases in by_finding.items()]
    possible = [test for test in tests if test is not None]
    yield from (replace(test, limit=ALARM / len(possible)) for test in possible)
