"""A reader's confirmation of a report: who read the page, when, and what was agreed or changed.

In: what a reader decided, as JSON of a form or a file. Out: `Confirmation`, which checks itself.
What only the report can tell (whether each finding was decided, and the reader's verdicts) is
checked by `overread.confirmed`. Standard library only.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from pulse_edge.common import json_input, times
from pulse_edge.common.text import one_line
from pulse_edge.errors import UsageError

Verdict: TypeAlias = Literal["present", "absent", "not assessable"]
"""What a reader says of a finding; `not assessable`: this page does not show it either way."""
Decision: TypeAlias = Literal["agreed", "changed", "rejected"]
"""Of a text or a whole report."""
FindingDecision: TypeAlias = Literal["agreed", "changed", "rejected", "judged"]
"""Of a finding; `judged` where the software gives no verdict to agree with."""

UNCONFIRMED = "Unconfirmed: requires physician overread"
"""Stands at the top of every report that no reader has confirmed."""
MAX_READER = 100
"""Characters of a reader's name."""
MAX_NAME = 200
"""Characters of the name of a finding that the reader adds in free text."""
MAX_COMMENT = 2_000
"""Characters of a comment."""
MAX_TEXT = 20_000
"""Characters of a text as the reader edited it, some five printed pages."""
MAX_ITEMS = 100
"""Findings, additions or texts in one confirmation; the fixed list has 30."""
_OUTCOMES: dict[Decision, str] = {
    "agreed": "Confirmed without change by",
    "changed": "Confirmed with changes by",
    "rejected": "Rejected as a whole, do not use: read by",
}


@dataclass(frozen=True)
class FindingReview:
    """What the reader decided about one finding of the report."""

    statement: str
    """Key of the statement, such as `AFIB`."""
    decision: FindingDecision
    """Agreed, changed, rejected, or judged where the software gives no verdict."""
    verdict: Verdict | None = None
    """The reader's verdict. None until `overread.confirmed` fills in the one that follows from the
    decision."""
    comment: str = ""
    """The reader's comment."""

    def __post_init__(self) -> None:
        _check_length(f"comment on {one_line(self.statement[:20])}", self.comment, MAX_COMMENT)


@dataclass(frozen=True)
class AddedFinding:
    """A finding that the report does not have and the reader adds."""

    name: str = ""
    """Name in the reader's words; empty for a statement of the fixed list, whose name is filled in
    by `overread.confirmed`."""
    statement: str | None = None
    """Key of a statement of the fixed list; None: free text."""
    verdict: Verdict = "present"
    """The reader's verdict."""
    comment: str = ""
    """The reader's comment."""

    def __post_init__(self) -> None:
        if self.statement is None and not self.name.strip():
            raise UsageError("confirmation: an added finding has no name. Name it, or remove it.")
        _check_line("name of an added finding", self.name, MAX_NAME)
        _check_length("comment on an added finding", self.comment, MAX_COMMENT)


@dataclass(frozen=True)
class TextReview:
    """What the reader decided about one answer's text."""

    answer: int
    """Number of the answer in the report, from 0."""
    decision: Decision
    """Agreed, changed or rejected."""
    text: str = ""
    """The text as the reader edited it; empty unless it was changed."""

    def __post_init__(self) -> None:
        _check_length("edited text", self.text, MAX_TEXT)
        if (self.decision == "changed") != bool(self.text.strip()):
            raise UsageError(
                f"confirmation: the text of answer {self.answer + 1} is {self.decision} and "
                f"{'has' if self.text.strip() else 'lacks'} an edited version. An edited text is "
                '"changed"; a text without use is "rejected".'
            )


@dataclass(frozen=True)
class Correction:
    """The earlier confirmation that a later one replaces."""

    reader: str
    """Who gave it."""
    time: str
    """When, UTC, ISO 8601."""
    sha256: str
    """Its `Confirmation.sha256`."""


@dataclass(frozen=True)
class Confirmation:
    """What a reader decided about a whole report, with name and time.

    Raises UsageError for a reader without a name, and for texts that are too long.
    """

    reader: str
    """The reader's name, as it is printed."""
    overall: Decision | None = None
    """Agreed without any change, changed, or rejected as a whole. None until `overread.confirmed`
    fills in what follows from the decisions."""
    findings: tuple[FindingReview, ...] = ()
    """Decisions about the report's findings."""
    added: tuple[AddedFinding, ...] = ()
    """Findings that the reader adds."""
    texts: tuple[TextReview, ...] = ()
    """Decisions about the report's texts."""
    conclusion: str = ""
    """The reader's own conclusion, printed above everything that the software says."""
    comment: str = ""
    """The reader's comment on the report."""
    time: str = ""
    """UTC, ISO 8601; set by `overread.confirmed`."""
    local_time: str = ""
    """The same moment in local time with its offset from UTC, ISO 8601."""
    number: int = 1
    """1: the first confirmation of this report; more: a correction of the one before."""
    corrects: Correction | None = None
    """The confirmation that this one replaces."""

    def __post_init__(self) -> None:
        if not self.reader.strip():
            raise UsageError("confirmation: the reader's name is empty. Give the name to print.")
        if not any(map(str.isalpha, self.reader)):
            raise UsageError(
                "confirmation: the reader's name has no letter. Give the name to print."
            )
        _check_line("reader's name", self.reader, MAX_READER)
        _check_length("conclusion", self.conclusion, MAX_TEXT)
        _check_length("comment", self.comment, MAX_COMMENT)
        if (most := max(map(len, (self.findings, self.added, self.texts)))) > MAX_ITEMS:
            raise UsageError(
                f"confirmation: has {most} items of a kind; {MAX_ITEMS} is the limit. Put the rest "
                "into the comment."
            )

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Confirmation:
        """Return the confirmation that a parsed JSON object holds.

        Line ends become line feeds. Raises UsageError that names the field.
        """
        try:
            confirmation: Confirmation = json_input.build(cls, _line_feeds(value), "confirmation")
        except ValueError as e:
            raise UsageError(
                f"{e}. docs/overread.md shows a confirmation with all its fields."
            ) from None
        return confirmation

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that `from_json` takes, with every field."""
        fields: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return fields

    @property
    def sha256(self) -> str:
        """SHA-256 of the JSON object (see `digest`)."""
        return digest(self.to_json())

    @property
    def line(self) -> str:
        """Who confirmed the report, how and when, as it stands at the top of the report."""
        moment = times.for_people(self.time, self.local_time)
        line = f"{_OUTCOMES[self.overall or 'changed']} {self.reader}, {moment}"
        if self.corrects is None:
            return line
        return f"{line}; replaces what {self.corrects.reader} confirmed, {self.corrects.time}"


def digest(value: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a JSON object with sorted keys, in hexadecimal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _line_feeds(value: Any) -> Any:
    """Return a JSON value whose texts have the line ends of Unix; browsers send those of MS-DOS."""
    if isinstance(value, str):
        return value.replace("\r\n", "\n").replace("\r", "\n")
    if isinstance(value, Mapping):
        return {key: _line_feeds(item) for key, item in value.items()}
    return [_line_feeds(item) for item in value] if isinstance(value, list | tuple) else value


def _check_line(what: str, text: str, limit: int) -> None:
    """Raise UsageError unless a text is one printable line without white space at its ends."""
    _check_length(what, text, limit)
    if text and (text != text.strip() or one_line(text) != text):
        raise UsageError(
            f"confirmation: the {what}, {one_line(text)}, has spaces at an end, or characters that "
            "cannot be printed. Type it again; letters of any alphabet are allowed."
        )


def _check_length(what: str, text: str, limit: int) -> None:
    if len(text) > limit:
        raise UsageError(
            f"confirmation: the {what} has {len(text):,} characters; {limit:,} is the limit. "
            "Shorten it."
        )
