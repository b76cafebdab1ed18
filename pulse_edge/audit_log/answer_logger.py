"""Append the answers of one run to the audit log."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pulse_edge.audit_log.entries import Retained, answer_entry, findings_entry
from pulse_edge.audit_log.log import AuditLog


@dataclass(frozen=True)
class AnswerLogger:
    """Logs the answers and findings of one run, with the settings of that run."""

    log: AuditLog
    """Where entries are appended."""
    settings: Mapping[str, Any]
    """The options that can change an answer (see `Request.settings`)."""
    retain_days: int | None = None
    """Days that texts and picture are stored too; None: hashes only."""

    def __call__(
        self, report: Mapping[str, Any], picture: Callable[[], bytes], ended: str = "whole"
    ) -> None:
        """Append every answer of a report, given as a JSON object. Raises AuditLogError.

        `picture` gives the page as a PNG file, and is called only where pictures are retained.
        """
        for answer in report["answers"]:
            retained = None
            if self.retain_days is not None:
                texts = {
                    "file": report["file"],
                    "question": answer["question"],
                    "answer": answer["text"],
                }
                retained = Retained(self.retain_days, texts, picture())
            self.log.append(answer_entry(report, answer, self.settings, ended), retained)

    def findings(self, report: Mapping[str, Any]) -> None:
        """Append the findings of a report, if it has any. Raises AuditLogError."""
        if report["findings"]:
            self.log.append(findings_entry(report, self.settings))
