"""What was answered about one page, with what it takes to trace it; as text and as JSON."""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

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


# --- texts and files that hold what a model or a stranger wrote -------------------------------------------------------

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
    fd, name = tempfile.mkstemp(prefix=".unfinished-", dir=path.parent)
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
