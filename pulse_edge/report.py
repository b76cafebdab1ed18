"""What was answered about one page, with what it takes to trace it; as text and as JSON."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

INTENDED_USE = (
    "Decision support for clinicians, never a diagnosis: it can be wrong and sound certain. Read the ECG yourself."
)
DEMONSTRATION = "DEMONSTRATION KIT - NOT FOR PATIENTS"


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


@dataclass(frozen=True)
class Report:
    """Everything said about one page."""

    file: str
    page_sha256: str
    answers: tuple[Answer, ...]
    kit: KitMark
    device: str
    versions: dict[str, str]
    seconds: dict[str, float]
    """Wall time by stage: load, read, encode, prefill, answer."""
    rows: int
    """Image rows that the page takes in the language model's context."""
    intended_use: str = INTENDED_USE

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)
