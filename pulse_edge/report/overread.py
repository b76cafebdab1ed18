"""The overread: join a reader's confirmation to a report, and say where the two versions differ.

In: a report and what a reader decided about it. Out: the same report with its `confirmation`. What
the software said is never changed: the reader's version stands next to it. Standard library only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pulse_edge.common import times
from pulse_edge.errors import UsageError
from pulse_edge.report import stored
from pulse_edge.report.confirmation import (
    AddedFinding,
    Confirmation,
    Correction,
    Decision,
    FindingReview,
    TextReview,
    Verdict,
)
from pulse_edge.report.findings import BY_KEY, STATEMENTS
from pulse_edge.report.report import Finding, Report

NO_VERDICT = "no verdict"
"""The software's version of a finding that it only ranked, or did not judge."""
_KEYS = {name.lower(): s.key for s in STATEMENTS for name in (s.key, s.name)}
"""Key or name of a statement, in lower case -> its key."""
_OPPOSITE: dict[str, Verdict] = {"present": "absent", "absent": "present"}
_AGREED: dict[str, Verdict] = {
    "present": "present",
    "absent": "absent",
    "uncertain": "not assessable",
}
"""The software's verdict -> the verdict of a reader who agrees."""


@dataclass(frozen=True)
class Difference:
    """A finding on which software and reader differ, or that only one of them judged."""

    statement: str | None
    """Key of the statement; None: the reader's free text."""
    name: str
    """Name of the finding."""
    software: str
    """The software's verdict, or `no verdict`."""
    reader: Verdict
    """The reader's verdict."""
    comment: str
    """The reader's comment."""


def confirmed(
    report: Report, confirmation: Confirmation, moment: times.Moment | None = None
) -> Report:
    """Return the report with a confirmation that was given at `moment`, by default now.

    Verdicts, `overall`, time and number are filled in. If the report has a confirmation already,
    the new one corrects it. Raises UsageError where a finding with a verdict or a text has no
    decision, and where a decision does not fit the report.
    """
    moment = times.now("seconds") if moment is None else moment
    before = report.confirmation
    complete = replace(
        confirmation,
        findings=tuple(_finding_reviews(report, confirmation.findings)),
        added=tuple(_additions(report, confirmation.added)),
        time=moment.utc,
        local_time=moment.local,
        number=1 if before is None else before.number + 1,
        corrects=None if before is None else Correction(before.reader, before.time, before.sha256),
    )
    _check_texts(report, complete.texts)
    complete = replace(complete, overall=_overall(complete))
    if complete.overall != "rejected":
        _require_every_decision(report, complete)
    return replace(report, confirmation=complete)


def confirmed_json(report: Mapping[str, Any], confirmation: Mapping[str, Any]) -> dict[str, Any]:
    """Return a report's JSON object with a confirmation, which is given as JSON too.

    As `confirmed`, without loading NumPy. Raises UsageError.
    """
    try:
        outline = stored.without_trace(report)
    except ValueError as e:
        raise UsageError(
            f"this report is none of this version of pulse-edge ({e}). Read the page again."
        ) from None
    result = confirmed(outline, Confirmation.from_json(confirmation))
    fields = None if result.confirmation is None else result.confirmation.to_json()
    return {**report, "overread": result.overread, "confirmation": fields}


def agreement(report: Report, reader: str) -> Confirmation:
    """Return a confirmation that agrees with every verdict and every text of a report."""
    findings = (FindingReview(f.statement, "agreed") for f in report.findings if f.verdict)
    texts = (TextReview(n, "agreed") for n in range(len(report.answers)))
    return Confirmation(reader, findings=tuple(findings), texts=tuple(texts))


def reviews(report: Report) -> dict[str, FindingReview]:
    """Return the reader's decisions by statement; none of an unconfirmed report."""
    confirmation = report.confirmation
    return {} if confirmation is None else {r.statement: r for r in confirmation.findings}


def text_review(report: Report, answer: int) -> TextReview | None:
    """Return the reader's decision about an answer's text, if there is one."""
    texts = () if report.confirmation is None else report.confirmation.texts
    return next((review for review in texts if review.answer == answer), None)


def differences(report: Report) -> list[Difference]:
    """Return where the reader's version differs from the software's, the most urgent first."""
    confirmation = report.confirmation
    if confirmation is None:
        return []
    by_key = {f.statement: f for f in report.findings}
    items = [
        Difference(
            r.statement,
            by_key[r.statement].name,
            by_key[r.statement].verdict or NO_VERDICT,
            r.verdict,
            r.comment,
        )
        for r in confirmation.findings
        if r.statement in by_key and r.verdict is not None and (r.decision != "agreed" or r.comment)
    ]
    items += [
        Difference(a.statement, a.name, NO_VERDICT, a.verdict, a.comment)
        for a in confirmation.added
    ]
    return sorted(items, key=_urgency)


def _urgency(difference: Difference) -> int:
    """Return a statement's urgency; free text counts as urgent as any."""
    statement = BY_KEY.get(difference.statement or "")
    return 1 if statement is None else statement.urgency


# --- findings -------------------------------------------------------------------------------------


def _finding_reviews(report: Report, given: Iterable[FindingReview]) -> Iterator[FindingReview]:
    """Yield the decisions with the reader's verdicts, in the order of the report's findings."""
    by_key: dict[str, FindingReview] = {}
    for review in given:
        if review.statement in by_key:
            raise UsageError(
                f"confirmation: {review.statement} is decided twice. Keep one of them."
            )
        by_key[review.statement] = review
    for finding in report.findings:
        if finding.statement in by_key:
            yield _with_verdict(finding, by_key.pop(finding.statement))
    if by_key:
        raise UsageError(
            f"confirmation: {', '.join(sorted(by_key))} is no finding of {report.file}. Put what "
            "the report does not have among the added findings."
        )


def _with_verdict(finding: Finding, review: FindingReview) -> FindingReview:
    """Return a decision with the reader's verdict. Raises UsageError where it has no sense."""
    key, software = finding.statement, finding.verdict
    decision, verdict = review.decision, review.verdict
    if software is None:
        if decision in ("agreed", "rejected") or verdict is None:
            raise UsageError(
                f"confirmation: {key} has no verdict of the software to agree with or to reject. "
                "Give your verdict (present, absent, not assessable), or leave it out."
            )
        return replace(review, decision="judged")
    follows = _AGREED[software] if decision == "agreed" else None
    if decision == "rejected":
        follows = _OPPOSITE.get(software)
        if follows is None:
            raise UsageError(
                f"confirmation: {key} is {software}, which has no opposite. Change it to your "
                "verdict instead of rejecting it."
            )
    if follows is not None:
        if verdict not in (None, follows):
            raise UsageError(
                f"confirmation: {key} is {software}, {decision}, and also {verdict}. Change it to "
                f"{verdict}, or leave the verdict out."
            )
        return replace(review, verdict=follows)
    if decision == "judged" or verdict is None:
        raise UsageError(
            f"confirmation: {key} is {software}, and the reader's verdict is missing or not "
            'called a change. Make it "changed" with present, absent or not assessable.'
        )
    if verdict == _AGREED[software]:
        raise UsageError(
            f"confirmation: {key} is changed to {verdict}, which is what the software says. Agree "
            "with it instead."
        )
    return review


def _additions(report: Report, added: Iterable[AddedFinding]) -> Iterator[AddedFinding]:
    """Yield the added findings; one whose words are those of the fixed list is its statement."""
    keys = {f.statement for f in report.findings}
    listed: set[str] = set()
    for addition in added:
        key = addition.statement or _KEYS.get(addition.name.lower())
        if key is None:
            if addition.name in listed:
                raise UsageError(f"confirmation: {addition.name} is added twice. Keep one of them.")
            listed.add(addition.name)
            yield addition
            continue
        if key not in BY_KEY:
            raise UsageError(
                f"confirmation: {key} is no statement of the fixed list. Add it in free text."
            )
        if key in keys or key in listed:
            raise UsageError(
                f"confirmation: {key} is added, and it is a finding already. Decide about it there."
            )
        listed.add(key)
        yield replace(addition, statement=key, name=BY_KEY[key].name)


# --- the whole ------------------------------------------------------------------------------------


def _check_texts(report: Report, texts: Sequence[TextReview]) -> None:
    numbers = [review.answer for review in texts]
    if len(set(numbers)) < len(numbers) or any(
        n not in range(len(report.answers)) for n in numbers
    ):
        raise UsageError(
            f"confirmation: decides about the texts of answers {[n + 1 for n in numbers]}; "
            f"{report.file} has {len(report.answers)}. Decide about each once."
        )
    for review in texts:
        if review.text == report.answers[review.answer].text:
            raise UsageError(
                f"confirmation: the edited text of answer {review.answer + 1} is the software's. "
                "Agree with it instead."
            )


def _overall(confirmation: Confirmation) -> Decision:
    """Return what the decisions come to. Raises UsageError where `overall` says something else."""
    same = all(r.decision in ("agreed", "judged") for r in confirmation.findings)
    same = same and all(r.decision == "agreed" for r in confirmation.texts)
    same = same and not any(a.verdict == "present" for a in confirmation.added)
    follows: Decision = "agreed" if same else "changed"
    if confirmation.overall not in (None, follows, "rejected"):
        raise UsageError(
            f"confirmation: is {confirmation.overall} as a whole, and the decisions make it "
            f"{follows}. Leave `overall` out, or look at the decisions again."
        )
    return confirmation.overall or follows


def _require_every_decision(report: Report, confirmation: Confirmation) -> None:
    decided = {review.statement for review in confirmation.findings}
    missing = [f.statement for f in report.findings if f.verdict and f.statement not in decided]
    texts = {review.answer for review in confirmation.texts}
    missing += [f"the text of answer {n + 1}" for n in range(len(report.answers)) if n not in texts]
    if missing:
        raise UsageError(
            f"confirmation: no decision about {', '.join(missing)}. Agree, change or reject each "
            "finding and text, or reject the report as a whole."
        )
