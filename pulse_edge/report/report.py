"""A report on one page: answers, findings, contradictions, and what it takes to trace them.
Standard library only."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pulse_edge.common.text import json_text
from pulse_edge.report.confirmation import UNCONFIRMED, Confirmation

if TYPE_CHECKING:  # `--help` must not wait for NumPy
    from pulse_edge.measurement.checks import Check
    from pulse_edge.measurement.measurements import Measurement

INTENDED_USE = (
    "Decision support for clinicians, never a diagnosis: it can be wrong and sound certain. "
    "Read the ECG yourself."
)
DEMONSTRATION = "DEMONSTRATION KIT - NOT FOR PATIENTS"
FORCED_KIT = "THE KIT WAS REFUSED BY PULSE-EDGE DOCTOR ON THIS MACHINE, AND ANSWERS ALL THE SAME"
FORCED = "THE PAGE WAS REFUSED, AND ANSWERED ALL THE SAME"
NOT_ALL_READ = "NOT ALL OF THE PAGE WAS READ, AND THE ANSWER CAN DIFFER: IMAGE TOKENS"
NOT_PROVEN = "NOT PROVEN ON THIS MACHINE: RUN pulse-edge doctor"
UNCALIBRATED = "not calibrated for this kit"
"""Reason of a finding without a verdict whose kit has no calibration for the statement."""


@dataclass(frozen=True)
class Answer:
    """One question and its answer."""

    question: str
    """The question as it was asked."""
    text: str
    """The answer as the model generated it, without white space at its ends."""
    tokens: int
    """Generated tokens."""
    complete: bool
    """False: cut off at the token limit before the model ended it."""
    prompt_tokens: int = 0
    """Tokens in front of the answer, image tokens and earlier turns among them; 0: not counted."""


@dataclass(frozen=True)
class KitSummary:
    """The kit that answered."""

    id: str
    """Name of the kit, from its manifest."""
    sha256: str
    """SHA-256 of its manifest, which holds the SHA-256 of every file."""
    demonstration: bool
    """The kit is a demonstration, and not for patients."""
    warning: str | None = None
    """What to say about the bundle that brought it: unsigned, or signed by a key that is not
    trusted here."""
    refused: str | None = None
    """Why `doctor` refused it on this machine, where it was forced to answer."""
    proven: bool = False
    """Whether its golden cases passed on this machine, in these versions, when `doctor` ran last.
    """


@dataclass(frozen=True)
class Finding:
    """A statement of the fixed list, and how the kit judges it on this page."""

    statement: str
    """Key of the statement, e.g. `AFIB`."""
    name: str
    """Name of the statement, in the words of the question."""
    group: str
    """Rhythm, conduction, ..."""
    urgency: int
    """1: act now, 2: soon, 3: note it, 4: nothing to do."""
    codes: dict[str, str]
    """`scp` (SCP-ECG acronym) and `snomed` (SNOMED CT), as far as the statement has them."""
    rank: int
    """Rank among the page's findings by `log_odds`; 1: the likeliest. An order without a
    probability."""
    log_odds: float
    """Log odds (natural logarithm) of the answer yes against no, as the model gives them."""
    probability: float | None
    """Probability, calibrated for this kit; None: not calibrated, so only the rank means anything.
    """
    calibrated: bool
    """Whether there is a probability."""
    verdict: Literal["present", "absent", "uncertain"] | None
    """Conclusion from the probability; None: not calibrated."""
    reason: str
    """Why it is uncertain or has no verdict; else empty."""

    @property
    def answer(self) -> bool | None:
        """The model's answer, for comparison with its words: True yes, False no, None neither.

        A finding that the kit is known to judge badly has no answer.
        """
        if self.verdict is None:
            return self.log_odds > 0 if self.reason == UNCALIBRATED and self.log_odds else None
        return {"present": True, "absent": False}.get(self.verdict)


@dataclass(frozen=True)
class Contradiction:
    """Two outputs about one page that exclude one another."""

    kind: Literal["text", "findings", "wording", "measurement"]
    """A text is involved; findings only; the answers to two wordings of one question; or the trace
    shows something else."""
    statements: tuple[str, ...]
    """Keys of the statements involved."""
    text: str
    """Sentence for people."""


@dataclass(frozen=True)
class Report:
    """Everything that a run says about one page."""

    notice: str
    """What must be read before any answer, a line each: a demonstration, an unknown bundle, a
    refused kit or page; else empty."""
    file: str
    """Name of the page: its file, and `#N` for page N of several."""
    page_sha256: str
    """SHA-256 of the file's bytes."""
    answers: tuple[Answer, ...]
    """An answer for each question."""
    kit: KitSummary
    """The kit that answered."""
    device: str
    """Device, batch, threads and KV type that the answers depend on."""
    versions: dict[str, str]
    """Versions of pulse-edge and its engines."""
    seconds: dict[str, float]
    """Wall time by stage: load, read, check, encode, prefill, answer; `cached` instead of `encode`
    for a page that was encoded earlier."""
    image_tokens: int
    """Image tokens that the page takes in the language model's context."""
    quality: dict[str, Any] | None = None
    """What `check --json` says about the page, with `forced` where it was refused and answered;
    None: not checked."""
    created: str = ""
    """UTC, ISO 8601."""
    findings: tuple[Finding, ...] = ()
    """Findings of the fixed list; empty where they were not judged."""
    contradictions: tuple[Contradiction, ...] = ()
    """Contradictions between texts and findings."""
    image_tokens_read: str = "all"
    """The page's image tokens that the language model read: `all`, or the choice of
    `--image-tokens` and their number."""
    intended_use: str = INTENDED_USE
    """Sentence that belongs to every report."""
    created_local: str = ""
    """The same moment in local time with its offset from UTC, ISO 8601."""
    measurements: tuple[Measurement, ...] = ()
    """What was measured on the trace, without the model; empty where it was not measured."""
    checks: tuple[Check, ...] = ()
    """Each statement of the answers and findings that the trace can support or contradict."""
    confirmation: Confirmation | None = None
    """What a reader decided about the report; None: no reader has confirmed it."""
    overread: str = field(init=False, default=UNCONFIRMED)
    """Line at the top of every report: unconfirmed, or who confirmed it and when."""

    def __post_init__(self) -> None:
        if self.confirmation is not None:
            object.__setattr__(self, "overread", self.confirmation.line)

    def to_json(self) -> str:
        """Return one line of JSON, which begins with the notice and the line about the overread."""
        fields = dataclasses.asdict(self)
        first = {name: fields.pop(name) for name in ("notice", "overread")}
        return json_text(first | fields)


@dataclass(frozen=True)
class NoAnswer:
    """Why a page or a file has no report."""

    file: str
    """Name of the page or file."""
    error: str
    """What is wrong, and what to do next."""
    exit_code: int
    """3: the page was refused; 1 or 2: it could not be read or answered."""

    def to_json(self) -> str:
        """Return one line of JSON, in the place of a report's."""
        return json_text(dataclasses.asdict(self))
