"""Reports that a reader confirms, and logs that hold their answers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from reports import report, uncalibrated

from pulse_edge.audit_log.answer_logger import AnswerLogger
from pulse_edge.audit_log.log import AuditLog
from pulse_edge.common.times import Moment
from pulse_edge.report.findings import BY_KEY
from pulse_edge.report.report import Finding, Report

READER = "Dr Amina Diallo"
AT = Moment("2026-03-04T05:06:07Z", "2026-03-04T06:06:07+01:00")
LATER = Moment("2026-03-05T05:06:07Z", "2026-03-05T06:06:07+01:00")


def judged(key: str, verdict: str, probability: float = 0.9) -> Finding:
    """A calibrated finding of the fixed list."""
    s = BY_KEY[key]
    about = (s.key, s.name, s.group, s.urgency, s.codes, 1, 0.5)
    return Finding(*about, probability, True, verdict, "")  # type: ignore[arg-type]


def read_page(**more: object) -> Report:
    """A report with findings of every verdict and two that are only ranked."""
    findings = (
        judged("AFIB", "present"),
        judged("LVH", "absent", 0.1),
        judged("PVC", "uncertain", 0.5),
        *uncalibrated(STE=1.5, PACE=-2.0),
    )
    return report(demonstration=False, findings=findings, **more)  # type: ignore[arg-type]


def log_with(folder: Path, *reports: Report, **settings: Any) -> AuditLog:
    """A log that holds the answers and findings of some reports."""
    log = AuditLog(folder)
    logger = AnswerLogger(log, {}, settings.get("retain_days"))
    for one in reports:
        fields = dataclasses.asdict(one)
        logger(fields, settings.get("picture", lambda: b"\x89PNG of a page"))
        logger.findings(fields)
    return log
