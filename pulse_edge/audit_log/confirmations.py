"""Confirmations in the audit log: who read a report, when, and both versions of each verdict.

The reader signs, so the name stands in the log as it is; what the reader wrote stands there as
hashes only, unless texts are retained. A correction is an entry of its own that names the one
before it, and the earlier entry stays. Standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pulse_edge.audit_log.entries import (
    FINDINGS_SHA256,
    Entry,
    Retained,
    findings_sha256,
    page_number,
    sha256,
    shortened,
)
from pulse_edge.audit_log.log import AuditLog
from pulse_edge.errors import UsageError
from pulse_edge.report.confirmation import digest
from pulse_edge.report.report import UNCALIBRATED

CONFIRMATION = "confirmation"
"""Kind of these entries; entries about answers and findings have no field `kind`."""


def is_confirmation(entry: Entry) -> bool:
    """Whether an entry is a confirmation."""
    return entry.fields.get("kind") == CONFIRMATION


@dataclass(frozen=True)
class ConfirmationLogger:
    """Appends confirmations, each with the hashes of the entries that it is about."""

    log: AuditLog
    """Where entries are appended."""
    retain_days: int | None = None
    """Days that the reader's texts are stored too; None: hashes only."""

    def __call__(self, report: Mapping[str, Any]) -> Entry:
        """Append the confirmation of a report, given as a JSON object, and return its entry.

        Raises UsageError where the report's answers are not in this log, or where its confirmation
        does not follow the last one in the log; AuditLogError where the log cannot be read or
        written.
        """
        next(self.log.entries(), None)  # without a log none is made
        retained = None
        if self.retain_days is not None:
            texts = {"file": report["file"], "confirmation": report["confirmation"]}
            retained = Retained(self.retain_days, texts, None)
        return self.log.append(lambda: self.fields(report), retained)

    def last(self, report: Mapping[str, Any]) -> Entry | None:
        """Return the latest confirmation of a report, if there is one. Raises AuditLogError."""
        return _References.of(report, self.log).last

    def fields(self, report: Mapping[str, Any]) -> dict[str, Any]:
        """Return the entry of a report's confirmation, for callers that append it themselves.

        Raises what a call raises.
        """
        references = _References.of(report, self.log)
        references.require_all(report["file"])
        references.require_order(report)
        earlier = None if references.last is None else references.last.hash
        return confirmation_entry(report, references.hashes) | {"corrects": earlier}


@dataclass
class _References:
    """What the log holds about one report."""

    latest: dict[tuple[str, str], str | None]
    """Hashes of a question and its answer -> hash of the latest entry about them."""
    last: Entry | None = None
    """The report's latest confirmation."""

    @classmethod
    def of(cls, report: Mapping[str, Any], log: AuditLog) -> _References:
        """Read the log once."""
        answers = [(sha256(a["question"]), sha256(a["text"])) for a in report["answers"]]
        if report["findings"]:
            answers.append((FINDINGS_SHA256, findings_sha256(report)))
        references = cls(dict.fromkeys(answers))
        page, kit = report["page_sha256"], report["kit"]["sha256"]
        number, whole = page_number(report["file"]), report_sha256(report)
        for entry in log.entries():
            fields = entry.fields
            if is_confirmation(entry):
                if fields.get("report_sha256") == whole:
                    references.last = entry
                continue
            key = (fields.get("question_sha256"), fields.get("answer_sha256"))
            if key not in references.latest or fields.get("page_sha256") != page:
                continue
            entry_kit = fields["kit"] if isinstance(fields.get("kit"), dict) else {}
            if entry_kit.get("sha256") == kit and fields.get("page_number", number) == number:
                references.latest[key] = entry.hash
        return references

    @property
    def hashes(self) -> list[str]:
        """Hashes of the entries about the report, in its order."""
        return [hash_ for hash_ in self.latest.values() if hash_ is not None]

    def require_all(self, file: str) -> None:
        """Raise UsageError where an answer of the report is not in the log."""
        if None in self.latest.values():
            raise UsageError(
                f"{file}: this report's answers are not in this audit log, or were altered since. "
                "Confirm it where it was answered, or name that log with --audit-log."
            )

    def require_order(self, report: Mapping[str, Any]) -> None:
        """Raise UsageError unless the confirmation follows the last one in the log."""
        corrects = report["confirmation"]["corrects"]
        if self.last is None and corrects is not None:
            raise UsageError(
                f"{report['file']}: corrects a confirmation that is not in this audit log. Name "
                "the log that has it with --audit-log."
            )
        if self.last is None:
            return
        fields = self.last.fields
        if corrects is None or corrects["sha256"] != fields.get("confirmation_sha256"):
            raise UsageError(
                f"{report['file']}: {fields.get('reader')} has confirmed this report already, "
                f"{fields.get('time')} (entry {self.last.number}). Correct the confirmed report "
                "instead."
            )


def report_sha256(report: Mapping[str, Any]) -> str:
    """Return the hash of what the software said: the report without its confirmation."""
    names = ("confirmation", "overread")
    return digest({name: value for name, value in report.items() if name not in names})


def confirmation_entry(report: Mapping[str, Any], about: list[str]) -> dict[str, Any]:
    """Return the fields about a report's confirmation.

    `about` holds the hashes of the entries about its answers and findings. The field `file` still
    holds the file's name: `AuditLog.append` replaces it by a hash.
    """
    confirmation = report["confirmation"]
    return {
        "kind": CONFIRMATION,
        "time": confirmation["time"],
        "local_time": confirmation["local_time"],
        "file": report["file"],
        "page_sha256": report["page_sha256"],
        "page_number": page_number(report["file"]),
        "kit": shortened(report["kit"]),
        "refers_to": about,
        "report_sha256": report_sha256(report),
        "confirmation_sha256": digest(confirmation),
        "reader": confirmation["reader"],
        "number": confirmation["number"],
        "overall": confirmation["overall"],
        "findings": _verdicts(report),
        "added": [
            {
                "statement": added["statement"],
                "name_sha256": sha256(added["name"]),
                "reader": added["verdict"],
            }
            for added in confirmation["added"]
        ],
        "texts": [_text(report, review) for review in confirmation["texts"]],
    }


def _verdicts(report: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return both verdicts on each finding that the reader judged."""
    by_key = {finding["statement"]: finding for finding in report["findings"]}
    return {
        review["statement"]: {
            "software": software_verdict(by_key[review["statement"]]),
            "calibrated": by_key[review["statement"]]["calibrated"],
            "decision": review["decision"],
            "reader": review["verdict"],
        }
        for review in report["confirmation"]["findings"]
    }


def software_verdict(finding: Mapping[str, Any]) -> str | None:
    """Return the verdict on a finding; without calibration the side that its log odds take.

    It is None for log odds of zero, and where the kit is known to judge the statement badly.
    """
    verdict: str | None = finding["verdict"]
    if verdict is not None or finding["reason"] != UNCALIBRATED or not finding["log_odds"]:
        return verdict
    return "present" if finding["log_odds"] > 0 else "absent"


def _text(report: Mapping[str, Any], review: Mapping[str, Any]) -> dict[str, Any]:
    answer = report["answers"][review["answer"]]
    edited = sha256(review["text"]) if review["decision"] == "changed" else None
    return {
        "question_sha256": sha256(answer["question"]),
        "software_sha256": sha256(answer["text"]),
        "decision": review["decision"],
        "reader_sha256": edited,
    }
