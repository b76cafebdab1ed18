"""What must be read with every answer, for programs and for clients that show the text alone.

In: a report as JSON. Out: the `pulse_edge` field of a response, and the lines in front of the text.
A conversation that comes back has those lines in its answers; `without_marks` takes them off, so
that the model gets its own words only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pulse_edge.common.text import counted
from pulse_edge.report.confirmation import UNCONFIRMED

CONTRADICTION = "CONTRADICTION: "
UNCHECKED = "Streamed before it was checked against the trace: contradictions stand below the text"
REPORT_FIELDS = (
    "file",
    "page_sha256",
    "kit",
    "quality",
    "findings",
    "contradictions",
    "measurements",
    "checks",
    "image_tokens_read",
    "intended_use",
    "created",
)
"""Fields of a report that a response carries under `pulse_edge`, as they are."""
_FIRST_LINE = re.compile(rf"\[{UNCONFIRMED}[^\n]*\](?:\n|\Z)")


def field(reading_id: str, report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `pulse_edge` field of a response about a reading."""
    return {
        "reading": reading_id,
        "unconfirmed": report["confirmation"] is None,
        "overread": report["overread"],
        "notices": notices(report),
        **{name: report[name] for name in REPORT_FIELDS},
    }


def notices(report: Mapping[str, Any]) -> list[str]:
    """Return the report's notices."""
    notice: str = report["notice"]
    return notice.splitlines()


def contradictions(report: Mapping[str, Any]) -> list[str]:
    """Return a line for each contradiction."""
    return [CONTRADICTION + _one_line(one["text"]) for one in report["contradictions"]]


def before_text(report: Mapping[str, Any]) -> str:
    """Return the lines in front of an answer's text.

    The first holds overread, notices and the number of contradictions, so that a client that shows
    one line shows that they exist; the contradictions follow, then an empty line.
    """
    lines = contradictions(report)
    number = [counted(len(lines), "CONTRADICTION", "CONTRADICTIONS")] if lines else []
    return "\n".join([_first_line([*notices(report), *number]), *lines]) + "\n\n"


def before_unchecked_text(notice_lines: Sequence[str]) -> str:
    """Return the lines in front of a text that is streamed before its checks are done."""
    return _first_line([*notice_lines, UNCHECKED]) + "\n\n"


def after_unchecked_text(report: Mapping[str, Any]) -> str:
    """Return the contradictions, to stand below a text that was streamed before its checks."""
    return "".join(f"\n\n{line}" for line in contradictions(report))


def without_marks(text: str) -> str:
    """Return an answer of a conversation as the model gave it."""
    first = _FIRST_LINE.match(text)
    if first is None:
        return text
    lines = text[first.end() :].split("\n")
    while lines and (not lines[0].strip() or lines[0].startswith(CONTRADICTION)):
        lines.pop(0)
    while lines and (not lines[-1].strip() or lines[-1].startswith(CONTRADICTION)):
        lines.pop()
    return "\n".join(lines)


def _first_line(parts: list[str]) -> str:
    return f"[{'. '.join(map(_one_line, (UNCONFIRMED, *parts)))}.]"


def _one_line(text: str) -> str:
    return " ".join(text.split())
