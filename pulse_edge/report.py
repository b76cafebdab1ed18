"""What was answered about one page, with what it takes to trace it; as text and as JSON.

Also what every output needs: files that are never half-written, and never replaced unless that was asked for.
"""

from __future__ import annotations

import dataclasses
import errno
import itertools
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .owned import place_new
from .text import json_text
from .text import one_line as one_line
from .text import printable as printable
from .text import spreadsheet_cell as spreadsheet_cell

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
        return json_text(dataclasses.asdict(self))


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


# --- files ------------------------------------------------------------------------------------------------------------

UNFINISHED = ".unfinished-"
"""How the name of a file begins until it is whole."""


def write_whole(path: Path, pieces: Iterable[bytes], *, overwrite: bool = False) -> None:
    """Make a file, for its owner alone; never half of it. A failure leaves what was there.

    Raises FileExistsError if `path` exists, be it a link, unless `overwrite`, which replaces it: a link itself and not
    what it leads to. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not overwrite and os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    fd, name = tempfile.mkstemp(prefix=UNFINISHED, dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            os.replace(name, path)
        else:
            place_new(Path(name), path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_set(folder: Path, stem: str, contents: Mapping[str, bytes], *, overwrite: bool = False) -> list[Path]:
    """Write files `stem` + ending for each ending of `contents`; return their paths.

    If one of them exists, all get a number behind the stem, the first that is free: `stem-2`, `stem-3`, ... With
    `overwrite` they are replaced instead. Raises OSError.
    """
    for number in itertools.count(1):
        name = stem if number == 1 else f"{stem}-{number}"
        paths = [folder / f"{name}{ending}" for ending in contents]
        if not overwrite and any(map(os.path.lexists, paths)):
            continue
        done = []
        try:
            for path, content in zip(paths, contents.values(), strict=True):
                write_whole(path, (content,), overwrite=overwrite)
                done.append(path)
        except FileExistsError:  # another process took the name meanwhile
            for path in done:
                path.unlink(missing_ok=True)
            continue
        break
    return paths
