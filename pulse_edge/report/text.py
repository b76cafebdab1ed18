"""A report as text, for a terminal or a letter."""

from __future__ import annotations

from collections.abc import Sequence

from pulse_edge.measurement.checks import ORDER
from pulse_edge.measurement.measurements import Measurement
from pulse_edge.measurement.summary import summary_lines
from pulse_edge.report.content import (
    AS_WRITTEN,
    EDITED,
    MEASURED_ON,
    REJECTED,
    by_urgency,
    page_lines,
    read_at,
    without_verdict,
)
from pulse_edge.report.overread import differences, text_review
from pulse_edge.report.report import Report


def to_text(report: Report) -> str:
    """Return contradictions first, then findings by urgency, then the answers as they came."""
    lines = [*filter(None, [report.notice]), report.overread]
    lines += [f"# {report.file}", *overread_lines(report), *page_lines(report.quality)]
    lines += [] if report.confirmation is None else ["The software:"]
    lines += [*findings_lines(report), *measurement_lines(report.measurements)]
    for number, answer in enumerate(report.answers):
        lines += ["", f"## {answer.question}", *_versions(report, number)]
        lines += [] if answer.complete else [f"(cut off after {answer.tokens} tokens)"]
    lines += ["", *check_summary(report)] if report.checks else []
    lines += ["", f"Read {read_at(report)}.", report.intended_use]
    return "\n".join(lines) + "\n"


def overread_lines(report: Report) -> list[str]:
    """Return the reader's conclusion, changes and comment; no line of an unconfirmed report."""
    confirmation = report.confirmation
    if confirmation is None:
        return []
    lines = [confirmation.conclusion] if confirmation.conclusion.strip() else []
    for item in differences(report):
        comment = f" ({item.comment})" if item.comment else ""
        lines.append(
            f"OVERREAD: {item.name}: {item.reader}; the software: {item.software}{comment}"
        )
    return [*lines, f"Comment: {confirmation.comment}"] if confirmation.comment.strip() else lines


def _versions(report: Report, number: int) -> list[str]:
    """Return a text as the reader edited it, and as the software wrote it where they differ."""
    review, text = text_review(report, number), report.answers[number].text
    if review is None or review.decision == "agreed":
        return [text]
    if review.decision == "rejected":
        return [REJECTED, text]
    return [EDITED, review.text, "", AS_WRITTEN, text]


def measurement_lines(measurements: Sequence[Measurement]) -> list[str]:
    """Return what was measured on the trace; no line where it was not measured."""
    if not measurements:
        return []
    return [f"{MEASURED_ON}:", *(f"  {line}" for line in summary_lines(measurements))]


def check_summary(report: Report) -> list[str]:
    """Return how many statements the trace supports, contradicts, or cannot judge."""
    if not report.checks:
        return []
    counts = [f"{sum(c.verdict == v for c in report.checks)} {v}" for v in ORDER]
    return [f"Statements against the trace: {', '.join(counts)}."]


def contradiction_lines(report: Report) -> list[str]:
    """Return a line for each contradiction."""
    return [f"CONTRADICTION: {c.text}" for c in report.contradictions]


def findings_lines(report: Report) -> list[str]:
    """Return the lines about contradictions and findings.

    Findings with a verdict come by urgency, those without it by rank or with the reason.
    """
    lines = contradiction_lines(report)
    for finding in by_urgency(report):
        if finding.verdict != "absent":
            reason = f" ({finding.reason})" if finding.reason else ""
            probability = f"{finding.probability:>5.0%}"
            lines.append(f"{finding.verdict:<10}{probability}  {finding.name}{reason}")
    if absent := [f.name for f in report.findings if f.verdict == "absent"]:
        lines.append(f"absent: {', '.join(absent)}")
    return [*lines, *without_verdict(report)]
