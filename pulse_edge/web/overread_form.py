"""The form in which a reader agrees with, changes or rejects what the software says.

In: a report as JSON, and the fields of the form as the browser sends them. Out: what the form
offers, and the confirmation as JSON for `report.confirmation.Confirmation.from_json`, which checks
it. Standard library only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pulse_edge.common.text import printable
from pulse_edge.errors import UsageError
from pulse_edge.report.findings import STATEMENTS
from pulse_edge.web.catalogue import N_

Json = Mapping[str, Any]

CORRECTS = "corrects"
"""Field of the form: number of the confirmation that it shows, 0 without one."""
READ = "final"
"""Field of the form: "yes" where the reader has read the ECG."""


@dataclass(frozen=True)
class Choice:
    """One radio button of a finding."""

    value: str
    """`agreed`, a verdict of the reader, or empty for no decision."""
    label: str
    """Words to be translated."""


AGREE = Choice("agreed", N_("Agree"))
PRESENT = Choice("present", N_("It is present"))
ABSENT = Choice("absent", N_("It is absent"))
NOT_ASSESSABLE = Choice("not assessable", N_("Not assessable on this page"))
NO_DECISION = Choice("", N_("No decision"))
_CHOICES = {
    "present": (AGREE, ABSENT, NOT_ASSESSABLE),
    "absent": (AGREE, PRESENT, NOT_ASSESSABLE),
    "uncertain": (AGREE, PRESENT, ABSENT),
    None: (NO_DECISION, PRESENT, ABSENT, NOT_ASSESSABLE),
}
"""The software's verdict -> what the reader may decide."""
_KEYS = {name.casefold(): s.key for s in STATEMENTS for name in (s.name, s.key)}
"""Name or key of a statement of the fixed list -> its key."""
_OPPOSITE = {"present": "absent", "absent": "present"}


@dataclass(frozen=True)
class FindingChoices:
    """A finding, and what the reader may decide about it."""

    statement: str
    name: str
    """Name of the finding; English."""
    verdict: str | None
    """The software's verdict."""
    choices: tuple[Choice, ...]
    default: str
    """Value of the choice that is made for the reader; a value that no choice has: none."""

    @property
    def field(self) -> str:
        """Name of the form's field."""
        return f"finding-{self.statement}"


@dataclass(frozen=True)
class TextChoices:
    """A text of the model, and how the reader may change it."""

    number: int
    """Number of the answer in the report, from 0."""
    text: str

    @property
    def field(self) -> str:
        """Name of the form's field."""
        return f"text-{self.number}"


@dataclass(frozen=True)
class ReaderDifference:
    """A finding on which the reader differs from the software, or that the reader added."""

    name: str
    verdict: str
    """The reader's verdict."""


@dataclass(frozen=True)
class OverreadForm:
    """What a reader decides about."""

    judged: tuple[FindingChoices, ...]
    """Findings judged present or uncertain: each needs the reader's own choice."""
    absent: tuple[FindingChoices, ...]
    """Findings judged absent: agreed with unless the reader changes it."""
    open: tuple[FindingChoices, ...]
    """Findings without a verdict: the reader may judge them."""
    texts: tuple[TextChoices, ...]
    differences: tuple[ReaderDifference, ...]
    """Where the present confirmation differs from the software."""


def overread_form(report: Json, confirmation: Json | None) -> OverreadForm:
    """Return what the reader of a report decides about, the most urgent findings first."""
    findings = sorted(report.get("findings", ()), key=lambda f: (f["urgency"], f["rank"]))
    choices = [
        FindingChoices(
            f["statement"], f["name"], f["verdict"], _CHOICES[f["verdict"]], _default(f["verdict"])
        )
        for f in findings
    ]
    return OverreadForm(
        judged=tuple(c for c in choices if c.verdict in ("present", "uncertain")),
        absent=tuple(c for c in choices if c.verdict == "absent"),
        open=tuple(c for c in choices if c.verdict is None),
        texts=tuple(
            TextChoices(number, printable(answer["text"]))
            for number, answer in enumerate(report.get("answers", ()))
        ),
        differences=tuple(_differences(report, confirmation or {})),
    )


def _default(verdict: str | None) -> str:
    return {"absent": AGREE.value, None: NO_DECISION.value}.get(verdict, "-")


def _differences(report: Json, confirmation: Json) -> Iterable[ReaderDifference]:
    names = {f["statement"]: f["name"] for f in report.get("findings", ())}
    for review in confirmation.get("findings", ()):
        if review["decision"] != "agreed" and review.get("verdict"):
            name = names.get(review["statement"], review["statement"])
            yield ReaderDifference(name, review["verdict"])
    for added in confirmation.get("added", ()):
        yield ReaderDifference(printable(added["name"] or added["statement"]), added["verdict"])


def confirmation(fields: Mapping[str, str], report: Json) -> dict[str, Any]:
    """Return the confirmation that the form's fields stand for, as JSON.

    Decisions that are missing stay missing: what takes the confirmation refuses it then.
    """
    statements = {f["statement"] for f in report.get("findings", ())}
    added = [*_added(fields.get("added", ""))]
    present = {a["statement"] for a in added if a.get("statement") in statements}
    choices = {**fields, **{f"finding-{key}": PRESENT.value for key in present}}
    findings = [_finding(choices, f) for f in report.get("findings", ())]
    texts = [
        _text(fields, number, answer["text"])
        for number, answer in enumerate(report.get("answers", ()))
    ]
    value: dict[str, Any] = {
        "reader": " ".join(fields.get("reader", "").split()),
        "findings": [f for f in findings if f],
        "texts": [t for t in texts if t],
        "added": [a for a in added if a.get("statement") not in present],
        "conclusion": _unix(fields.get("conclusion", "")).strip(),
    }
    if fields.get("overall") == "rejected":
        value["overall"] = "rejected"
    return value


def check_read(fields: Mapping[str, str]) -> None:
    """Raise UsageError unless the reader says that they have read the ECG."""
    if fields.get(READ) != "yes":
        raise UsageError("confirmation: read the ECG yourself first, and say so in the form.")


def corrected(fields: Mapping[str, str]) -> int:
    """Return the number of the confirmation that the form showed; 0: none."""
    number = fields.get(CORRECTS, "")
    return int(number) if number.isdecimal() and len(number) < 10 else 0


def _finding(fields: Mapping[str, str], finding: Json) -> dict[str, Any] | None:
    statement, software = finding["statement"], finding["verdict"]
    choice = fields.get(f"finding-{statement}", "")
    if not choice:
        return None
    if choice == AGREE.value or choice == software:
        return {"statement": statement, "decision": "agreed"}
    opposite = _OPPOSITE.get(software) == choice
    decision = "judged" if software is None else "rejected" if opposite else "changed"
    return {"statement": statement, "decision": decision, "verdict": choice}


def _text(fields: Mapping[str, str], number: int, original: str) -> dict[str, Any] | None:
    """Return the decision about a text; an edited text is a change even where "agree" is chosen.

    A text that was emptied is one too, which has no sense: what takes the confirmation refuses it.
    """
    decision = fields.get(f"text-{number}", "")
    shown = printable(original).strip()
    edited = _unix(fields.get(f"edited-{number}", shown)).strip()
    differs = edited != shown
    if not decision:
        return None
    if decision == "rejected":
        return {"answer": number, "decision": "rejected"}
    if differs:
        return {"answer": number, "decision": "changed", "text": edited}
    return {"answer": number, "decision": "agreed"}


def _added(lines: str) -> Iterator[dict[str, Any]]:
    """Yield the findings that the reader added, a line each; those of the fixed list by their key."""
    for line in _unix(lines).splitlines():
        name = " ".join(line.split())
        if name.casefold().startswith("no ") and name[3:].casefold() in _KEYS:
            raise UsageError(
                f"{name}: only findings that are present are added. Decide about its absence in the "
                "list of findings."
            )
        if key := _KEYS.get(name.casefold()):
            yield {"statement": key, "verdict": "present"}
        elif name:
            yield {"name": name, "verdict": "present"}


def _unix(text: str) -> str:
    """Return a text with line feeds; browsers send the line ends of MS-DOS."""
    return text.replace("\r\n", "\n").replace("\r", "\n")
