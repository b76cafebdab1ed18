"""A report as text, for a terminal or a letter."""

from __future__ import annotations

from pulse_edge.report.content import by_urgency, page_lines, read_at, without_verdict
from pulse_edge.report.report import Report


def to_text(report: Report) -> str:
    """Return contradictions first, then findings by urgency, then the answers as they came."""
    lines = [report.notice] if report.notice else []
    lines += [f"# {report.file}", *page_lines(report.quality), *findings_lines(report)]
    for answer in report.answers:
        lines += ["", f"## {answer.question}", answer.text]
        lines += [] if answer.complete else [f"(cut off after {answer.tokens} tokens)"]
    lines += ["", f"Read {read_at(report)}.", report.intended_use]
    return "\n".join(lines) + "\n"


def findings_lines(report: Report) -> list[str]:
    """Return contradictions; findings with a verdict by urgency; those without: ranked, or the
    reason."""
    lines = [f"CONTRADICTION: {c.text}" for c in report.contradictions]
    for finding in by_urgency(report):
        if finding.verdict != "absent":
            reason = f" ({finding.reason})" if finding.reason else ""
            probability = f"{finding.probability:>5.0%}"
            lines.append(f"{finding.verdict:<10}{probability}  {finding.name}{reason}")
    if absent := [f.name for f in report.findings if f.verdict == "absent"]:
        lines.append(f"absent: {', '.join(absent)}")
    return [*lines, *without_verdict(report)]
