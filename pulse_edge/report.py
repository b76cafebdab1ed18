"""What was answered about one page, with what it takes to trace it; as text and as JSON.

Also what every output needs: texts of strangers made harmless, and files that are never half-written.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

INTENDED_USE = (
    "Decision support for clinicians, never a diagnosis: it can be wrong and sound certain. Read the ECG yourself."
)
DEMONSTRATION = "DEMONSTRATION KIT - NOT FOR PATIENTS"
FORCED_KIT = "THE KIT WAS REFUSED BY PULSE-EDGE DOCTOR ON THIS MACHINE, AND ANSWERS ALL THE SAME"
FORCED = "THE PAGE WAS REFUSED, AND ANSWERED ALL THE SAME"
NOT_ALL_READ = "NOT ALL OF THE PAGE WAS READ, AND THE ANSWER CAN DIFFER: IMAGE ROWS"
UNCALIBRATED = "Some probabilities are not calibrated for this kit: they rank, and do not say how often it is right."


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
class KitMark:
    """Which kit answered."""

    id: str
    sha256: str
    """Of its manifest, which holds the sha256 of every file."""
    demonstration: bool
    warning: str | None = None
    """What is to be said about the stick that brought it: unsigned, or signed by a key that is not trusted here."""
    refused: str | None = None
    """Why `doctor` refused it on this machine, where it was forced to answer all the same."""


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
    probability: float
    """Of yes against no, calibrated where the kit says how."""
    calibrated: bool
    verdict: Literal["present", "absent", "uncertain"]
    reason: str
    """Why it is uncertain; else empty."""


@dataclass(frozen=True)
class Mark:
    """A contradiction between what was said and what was found."""

    kind: Literal["text", "findings", "wording"]
    statements: tuple[str, ...]
    """Keys of the findings that are part of it."""
    text: str
    """For people."""


@dataclass(frozen=True)
class Report:
    """Everything said about one page."""

    notice: str
    """What must be read before any answer, a line each: a demonstration, an unknown stick, a refused kit or page; else empty."""
    file: str
    page_sha256: str
    answers: tuple[Answer, ...]
    kit: KitMark
    device: str
    versions: dict[str, str]
    seconds: dict[str, float]
    """Wall time by stage: load, read, check, encode, prefill, answer; `cached` in place of `encode` for a page that was
    encoded before."""
    rows: int
    """Image rows that the page takes in the language model's context."""
    quality: dict[str, Any] | None = None
    """What `check --json` says of the page; `forced` where it was refused and answered all the same."""
    created: str = ""
    """UTC, ISO 8601."""
    findings: tuple[Finding, ...] = ()
    """Empty where they were not asked for."""
    marks: tuple[Mark, ...] = ()
    rows_read: str = "all"
    """Which of the page's image rows the language model read: `all`, or what `--rows` asked for and how many these are."""
    intended_use: str = INTENDED_USE

    def to_text(self) -> str:
        """For a terminal or a letter: contradictions first, then findings by urgency, then the answers as they came."""
        lines = [self.notice, f"# {self.file}"] if self.notice else [f"# {self.file}"]
        lines += findings_lines(self)
        for answer in self.answers:
            lines += ["", f"## {answer.question}", answer.text]
            lines += [] if answer.complete else [f"(cut off after {answer.tokens} tokens)"]
        return "\n".join([*lines, "", self.intended_use]) + "\n"

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)


def findings_lines(report: Report) -> list[str]:
    """Contradictions, then what is present or uncertain by urgency, then what is absent and what is not judged."""
    lines = [f"CONTRADICTION: {mark.text}" for mark in report.marks]
    for finding in by_urgency(report):
        if finding.verdict != "absent":
            why = f" ({finding.reason})" if finding.reason else ""
            lines.append(f"{finding.verdict:<10}{finding.probability:>5.0%}  {finding.name}{why}")
    if absent := [f.name for f in report.findings if f.verdict == "absent"]:
        lines.append(f"absent: {', '.join(absent)}")
    lines += not_judged(report)
    return [*lines, UNCALIBRATED] if uncalibrated(report) else lines


def judged(finding: Finding) -> bool:
    """Whether the kit says anything of it at all, be it that it is uncertain here."""
    return finding.calibrated or finding.verdict != "uncertain"


def by_urgency(report: Report) -> list[Finding]:
    """The findings that the kit judges, the most urgent and most probable first."""
    return sorted(filter(judged, report.findings), key=lambda f: (f.urgency, -f.probability))


def by_reason(findings: Iterable[Finding]) -> dict[str, str]:
    """Why there is no verdict -> the names of which."""
    names: dict[str, list[str]] = {}
    for finding in findings:
        names.setdefault(finding.reason or "uncertain", []).append(finding.name)
    return {reason: ", ".join(some) for reason, some in names.items()}


def not_judged(report: Report) -> list[str]:
    """What the kit says nothing of, a line for each reason."""
    others = by_reason(f for f in report.findings if not judged(f))
    return [f"not judged ({reason}): {names}" for reason, names in others.items()]


def uncalibrated(report: Report) -> bool:
    """Whether UNCALIBRATED has to be said."""
    return any(judged(f) and not f.calibrated for f in report.findings)


# --- texts and files that hold what a model or a stranger wrote -------------------------------------------------------

UNFINISHED = ".unfinished-"
"""How a file is called until it is whole."""
_DIRECTION = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Bidirectional controls: they make a text look like another one."""


def printable(text: str) -> str:
    """The text without what a terminal, a browser or an XML reader would act on or refuse: controls, lone surrogates."""
    bad = {"Cc", "Cs", "Cn"}
    kept = (c for c in text if c in "\n\t" or not (unicodedata.category(c) in bad or c in _DIRECTION))
    return "".join(kept)


def one_line(name: str) -> str:
    """A file's name as any terminal can show it: line breaks, controls, and bytes that are no text become visible."""
    return "".join(c if c not in "\n\t" and printable(c) else repr(c)[1:-1] for c in name)


def spreadsheet_cell(value: object) -> str:
    """A cell that no spreadsheet takes for a formula."""
    text = printable(str(value))
    start = unicodedata.normalize("NFKC", text.lstrip())[:1]
    return f"'{text}" if start and start in "=+-@" and not isinstance(value, int | float) else text


def write_whole(path: Path, pieces: Iterable[bytes]) -> None:
    """Make the file, or replace it; never half of it. A failure leaves what was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, name = tempfile.mkstemp(prefix=UNFINISHED, dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
