"""What was answered about one page, with what it takes to trace it; as text and as JSON.

Also what every output needs: files that are never half-written, and never replaced unless that was asked for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pulse_edge.common.text import json_text
from pulse_edge.common.text import one_line as one_line
from pulse_edge.common.text import printable as printable
from pulse_edge.common.text import spreadsheet_cell as spreadsheet_cell

INTENDED_USE = "Decision support for clinicians, never a diagnosis: it can be wrong and sound certain. Read the ECG yourself."
DEMONSTRATION = "DEMONSTRATION KIT - NOT FOR PATIENTS"
FORCED_KIT = "THE KIT WAS REFUSED BY PULSE-EDGE DOCTOR ON THIS MACHINE, AND ANSWERS ALL THE SAME"
FORCED = "THE PAGE WAS REFUSED, AND ANSWERED ALL THE SAME"
NOT_ALL_READ = "NOT ALL OF THE PAGE WAS READ, AND THE ANSWER CAN DIFFER: IMAGE TOKENS"
NOT_PROVEN = "NOT PROVEN ON THIS MACHINE: RUN pulse-edge doctor"
UNCALIBRATED = "not calibrated for this kit"
"""Reason of a finding without a verdict whose kit says nothing about the statement."""
RANKED = "ranked by the model, not calibrated for this kit: no verdicts and no probabilities"


@dataclass(frozen=True)
class Answer:
    """One question and its answer."""

    question: str
    text: str
    tokens: int
    """Generated tokens."""
    complete: bool
    """False: cut off at the token limit, not ended by the model."""


@dataclass(frozen=True)
class KitSummary:
    """Which kit answered."""

    id: str
    sha256: str
    """Of its manifest, which holds the sha256 of every file."""
    demonstration: bool
    warning: str | None = None
    """What is to be said about the bundle that brought it: unsigned, or signed by a key that is not trusted here."""
    refused: str | None = None
    """Why `doctor` refused it on this machine, where it was forced to answer all the same."""
    proven: bool = False
    """Whether its golden cases came back on this machine, in these versions, when `doctor` ran last."""


@dataclass(frozen=True)
class Finding:
    """A statement of the fixed list, and what the kit thinks of it."""

    statement: str
    """Its key, e.g. `AFIB`."""
    name: str
    """In the words of the question."""
    group: str
    """Rhythm, conduction, ..."""
    urgency: int
    """1: act now, 2: soon, 3: note it, 4: nothing to do."""
    codes: dict[str, str]
    """`scp` (SCP-ECG acronym) and `snomed` (SNOMED CT), as far as there are any."""
    rank: int
    """Among the findings of the page by `log_odds`; 1: the likeliest. An order, not a probability."""
    log_odds: float
    """Of the answer yes against no, natural logarithm, as the model gives them."""
    probability: float | None
    """Calibrated for this kit; None: not calibrated, so that only the rank means anything."""
    calibrated: bool
    verdict: Literal["present", "absent", "uncertain"] | None
    """None: not calibrated, so nothing is concluded."""
    reason: str
    """Why it is uncertain or has no verdict; else empty."""

    @property
    def answer(self) -> bool | None:
        """What the model says when asked, to compare words with words: True yes, False no, None neither.

        A finding that the kit is known not to judge well says nothing.
        """
        if self.verdict is None:
            return self.log_odds > 0 if self.reason == UNCALIBRATED and self.log_odds else None
        return {"present": True, "absent": False}.get(self.verdict)


@dataclass(frozen=True)
class Contradiction:
    """Two outputs about one page that exclude one another."""

    kind: Literal["text", "findings", "wording"]
    statements: tuple[str, ...]
    """Keys of the findings that are part of it."""
    text: str
    """For people."""


@dataclass(frozen=True)
class Report:
    """Everything said about one page."""

    notice: str
    """What must be read before any answer, a line each: a demonstration, an unknown bundle, a refused kit or page; else empty."""
    file: str
    page_sha256: str
    answers: tuple[Answer, ...]
    kit: KitSummary
    device: str
    versions: dict[str, str]
    seconds: dict[str, float]
    """Wall time by stage: load, read, check, encode, prefill, answer; `cached` in place of `encode` for a page that was
    encoded before."""
    image_tokens: int
    """Image tokens that the page takes in the language model's context."""
    quality: dict[str, Any] | None = None
    """What `check --json` says of the page; `forced` where it was refused and answered all the same."""
    created: str = ""
    """UTC, ISO 8601."""
    findings: tuple[Finding, ...] = ()
    """Empty where they were not asked for."""
    contradictions: tuple[Contradiction, ...] = ()
    image_tokens_read: str = "all"
    """Which of the page's image tokens the language model read: `all`, or what `--image-tokens` asked for and how many these are."""
    intended_use: str = INTENDED_USE

    def to_text(self) -> str:
        """For a terminal or a letter: contradictions first, then findings by urgency, then the answers as they came."""
        lines = [self.notice, f"# {self.file}"] if self.notice else [f"# {self.file}"]
        lines += page_lines(self.quality)
        lines += findings_lines(self)
        for answer in self.answers:
            lines += ["", f"## {answer.question}", answer.text]
            lines += [] if answer.complete else [f"(cut off after {answer.tokens} tokens)"]
        return "\n".join([*lines, "", self.intended_use]) + "\n"

    def to_json(self) -> str:
        """One line of JSON."""
        return json_text(dataclasses.asdict(self))


@dataclass(frozen=True)
class NoAnswer:
    """Why a page or a file has no report."""

    file: str
    error: str
    """What is wrong, and what to do next."""
    exit_code: int
    """3: the page was refused; 1 or 2: it could not be read or answered."""

    def to_json(self) -> str:
        """One line of JSON, in the place of a report's."""
        return json_text(dataclasses.asdict(self))


def page_lines(quality: Mapping[str, Any] | None) -> list[str]:
    """Verdict on the page and what is wrong with it, a line each, from `Report.quality`."""
    if quality is None:
        return ["Page: not checked."]
    verdict = "refused, and answered all the same" if quality["forced"] else quality["verdict"]
    layout = f", layout {quality['layout']}" if quality["layout"] else ""
    return [
        f"Page: {verdict}, {quality['leads']} leads{layout}.",
        *(f"- {r['advice']}" for r in quality["reasons"]),
    ]


def findings_lines(report: Report) -> list[str]:
    """Contradictions; findings with a verdict by urgency; those without: ranked, or the reason why not."""
    lines = [f"CONTRADICTION: {c.text}" for c in report.contradictions]
    for finding in by_urgency(report):
        if finding.verdict != "absent":
            why = f" ({finding.reason})" if finding.reason else ""
            lines.append(f"{finding.verdict:<10}{finding.probability:>5.0%}  {finding.name}{why}")
    if absent := [f.name for f in report.findings if f.verdict == "absent"]:
        lines.append(f"absent: {', '.join(absent)}")
    return [*lines, *without_verdict(report)]


def by_urgency(report: Report) -> list[Finding]:
    """The findings that have a verdict, the most urgent and most probable first."""
    judged = [f for f in report.findings if f.verdict is not None]
    return sorted(judged, key=lambda f: (f.urgency, -(f.probability or 0.0)))


def by_reason(findings: Iterable[Finding]) -> dict[str, str]:
    """Why there is no verdict -> the names of which."""
    names: dict[str, list[str]] = {}
    for finding in findings:
        names.setdefault(finding.reason or "uncertain", []).append(finding.name)
    return {reason: ", ".join(some) for reason, some in names.items()}


def without_verdict(report: Report) -> list[str]:
    """The findings without a verdict: the kit's own reasons, a line each, then the uncalibrated ones by rank."""
    others = [f for f in report.findings if f.verdict is None]
    ranked = sorted((f for f in others if f.reason == UNCALIBRATED), key=lambda f: f.rank)
    reasons = by_reason(f for f in others if f.reason != UNCALIBRATED)
    lines = [f"not judged ({reason}): {names}" for reason, names in reasons.items()]
    order = ", ".join(f"{f.rank}. {f.name}" for f in ranked)
    return [*lines, f"{RANKED}: {order}"] if ranked else lines
