"""How readers and software agree, counted from the confirmations in the audit log.

In: entries. Out: `Agreement`: for each kit its reports and, finding by finding, counts, shares and
drift. A page counts once for each kit, by its last confirmation. Only findings that the reader
judged count. Verdicts of findings without calibration are the side of the log odds, which the
reader did not see as a verdict; they are counted apart. Standard library only.

The reader sees the software's verdict before giving one, and readers tend to follow what they see
(Bond et al. 2018, Journal of Electrocardiology 51:S6): agreement tends to overstate accuracy.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pulse_edge.audit_log.confirmations import is_confirmation
from pulse_edge.audit_log.drift import DriftCheck, check_drift
from pulse_edge.audit_log.entries import Entry
from pulse_edge.audit_log.proportions import Share, kappa, share
from pulse_edge.report.findings import BY_KEY, STATEMENTS

_CLEAR = ("present", "absent")
_ORDER = {s.key: n for n, s in enumerate(STATEMENTS)}


@dataclass(frozen=True)
class Month:
    """A month of the clinic's calendar."""

    month: str
    """Such as `2026-03`."""
    cases: int
    """Reports, or judged verdicts of one finding."""
    same: int
    """Those on which reader and software agree."""


@dataclass(frozen=True)
class FindingAgreement:
    """Software against readers on one finding; the readers count as right."""

    statement: str
    """Key of the statement."""
    name: str
    """Name of the statement."""
    calibrated: bool
    """Whether the software gave verdicts; False: the side of its log odds."""
    judged: int
    """Pages on which a reader judged the finding."""
    both_present: int
    """Software and reader: present."""
    software_alone: int
    """Present for the software, absent for the reader."""
    reader_alone: int
    """Absent for the software, present for the reader."""
    both_absent: int
    """Software and reader: absent."""
    abstained: int
    """The software says uncertain or gives no verdict."""
    not_assessable: int
    """The reader says that the page does not show it, and the software gave a verdict."""
    sensitivity: Share
    """Of what readers call present: present for the software."""
    specificity: Share
    """Of what readers call absent: absent for the software."""
    positive_predictive_value: Share
    """Of what the software calls present: present for readers."""
    negative_predictive_value: Share
    """Of what the software calls absent: absent for readers."""
    kappa: float | None
    """Cohen's kappa; None where it is not defined."""
    months: tuple[Month, ...]
    """By month, of the verdicts of both that are present or absent."""


@dataclass(frozen=True)
class KitAgreement:
    """One kit's confirmed reports."""

    kit: str
    """Name of the kit."""
    sha256: str
    """SHA-256 of its manifest."""
    demonstration: bool
    """The kit is for demonstration only."""
    reports: int
    """Confirmed reports, each page once."""
    readers: int
    """Number of different readers."""
    unchanged: Share
    """Reports that the reader agreed with as a whole, without any change."""
    rejected: int
    """Reports that the reader rejected as a whole."""
    months: tuple[Month, ...]
    """By month: reports, and those without change."""
    findings: tuple[FindingAgreement, ...]
    """By finding, in the order of the fixed list; calibrated ones first."""
    drift: DriftCheck
    """Whether readers change more than at first."""


@dataclass(frozen=True)
class Agreement:
    """All kits of a log."""

    since: str | None
    """First local day of confirmation that counts."""
    until: str | None
    """Last local day of confirmation that counts."""
    kits: tuple[KitAgreement, ...]
    """In the order of their first confirmation."""


@dataclass(frozen=True)
class _Case:
    """One judged finding of one page."""

    report: int
    """Number of the report among the kit's, from 0."""
    month: str
    software: str | None
    reader: str

    @property
    def clear(self) -> bool:
        """Whether both say present or absent."""
        return self.software in _CLEAR and self.reader in _CLEAR

    @property
    def same(self) -> bool:
        return self.software == self.reader


def agreement(
    entries: Iterable[Entry],
    *,
    since: str | None = None,
    until: str | None = None,
    kit: str | None = None,
) -> Agreement:
    """Return how readers agree with each kit.

    `since` and `until` are local days of the confirmation, ISO 8601, both included; `kit` is a
    kit's name, or how its SHA-256 begins.
    """
    by_kit: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for fields in _latest(entries):
        day, about = str(fields.get("local_time"))[:10], fields["kit"]
        if (since and day < since) or (until and day > until):
            continue
        if kit and about.get("id") != kit and not str(about.get("sha256")).startswith(kit):
            continue
        by_kit[str(about.get("sha256"))].append(fields)
    return Agreement(since, until, tuple(_of_kit(some) for some in by_kit.values()))


def _latest(entries: Iterable[Entry]) -> list[Mapping[str, Any]]:
    """Return the last confirmation of each page and kit, in the order of the log."""
    latest: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for entry in filter(is_confirmation, entries):
        fields = entry.fields
        if not isinstance(fields.get("kit"), dict):
            continue
        page = (fields.get("page_sha256"), fields.get("page_number"))
        key = (*page, fields["kit"].get("sha256"))
        latest.pop(key, None)
        latest[key] = fields
    return list(latest.values())


def _of_kit(reports: Sequence[Mapping[str, Any]]) -> KitAgreement:
    kit = reports[0]["kit"]
    whole = [(_month(r), r.get("overall") == "agreed") for r in reports]
    cases = _cases(reports)
    return KitAgreement(
        kit=str(kit.get("id")),
        sha256=str(kit.get("sha256")),
        demonstration=bool(kit.get("demonstration")),
        reports=len(reports),
        readers=len({r.get("reader") for r in reports}),
        unchanged=share(sum(same for _, same in whole), len(whole)),
        rejected=sum(r.get("overall") == "rejected" for r in reports),
        months=_months(whole),
        findings=tuple(_of_finding(*key, some) for key, some in cases.items()),
        drift=check_drift(
            [month for month, _ in whole],
            [same for _, same in whole],
            {key: {c.report: c.same for c in some if c.clear} for key, some in cases.items()},
        ),
    )


def _cases(reports: Sequence[Mapping[str, Any]]) -> dict[tuple[str, bool], list[_Case]]:
    """Return the judged findings by key and calibration, in the order of the list."""
    cases: dict[tuple[str, bool], list[_Case]] = defaultdict(list)
    for number, report in enumerate(reports):
        for key, both in report.get("findings", {}).items():
            case = _Case(number, _month(report), both["software"], both["reader"])
            cases[key, bool(both["calibrated"])].append(case)
    order = sorted(cases, key=lambda key: (not key[1], _ORDER.get(key[0], len(_ORDER)), key[0]))
    return {key: cases[key] for key in order}


def _of_finding(key: str, calibrated: bool, cases: Sequence[_Case]) -> FindingAgreement:
    table = Counter((c.software, c.reader) for c in cases)
    both, alone = table["present", "present"], table["present", "absent"]
    missed, neither = table["absent", "present"], table["absent", "absent"]
    return FindingAgreement(
        statement=key,
        name=BY_KEY[key].name if key in BY_KEY else key,
        calibrated=calibrated,
        judged=len(cases),
        both_present=both,
        software_alone=alone,
        reader_alone=missed,
        both_absent=neither,
        abstained=sum(c.software not in _CLEAR for c in cases),
        not_assessable=sum(c.software in _CLEAR and c.reader not in _CLEAR for c in cases),
        sensitivity=share(both, both + missed),
        specificity=share(neither, neither + alone),
        positive_predictive_value=share(both, both + alone),
        negative_predictive_value=share(neither, neither + missed),
        kappa=kappa(both, alone, missed, neither),
        months=_months([(c.month, c.same) for c in cases if c.clear]),
    )


def _months(cases: Iterable[tuple[str, bool]]) -> tuple[Month, ...]:
    by_month: dict[str, list[bool]] = defaultdict(list)
    for month, same in cases:
        by_month[month].append(same)
    return tuple(Month(m, len(some), sum(some)) for m, some in sorted(by_month.items()))


def _month(fields: Mapping[str, Any]) -> str:
    return str(fields.get("local_time"))[:7]


def as_json(result: Agreement) -> dict[str, Any]:
    """Return the JSON object that `audit agreement --json` prints."""
    fields = dataclasses.asdict(result)
    for kit, kit_fields in zip(result.kits, fields["kits"], strict=True):
        for test, test_fields in zip(kit.drift.tests, kit_fields["drift"]["tests"], strict=True):
            test_fields["alarm"] = test.alarm
    return fields
