"""What an entry of the audit log holds, and how entries are chained.

An entry is a JSON object (page, kit, settings, hashes of question and answer; never a text or a
name but the reader's, see confirmations.py) on a line `HASH JSON`, where HASH is the SHA-256 of the hash before it, a space, and the
object's bytes. Standard library only.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pulse_edge.common import times

FIRST_HASH = "0" * 64
"""Stands before the first entry's hash."""
HASH_LENGTH = len(FIRST_HASH)
MAX_TEXT = 500
"""Characters of a text in an entry that comes from a kit or the system. Kits are told apart by
their hash."""


@dataclass(frozen=True)
class Head:
    """Where the chain ends."""

    entries: int = 0
    """Number of entries."""
    size: int = 0
    """Bytes of all lines."""
    hash: str = FIRST_HASH
    """Hash of the last entry."""

    def line(self) -> bytes:
        """Return the content of the file `head`."""
        return f"{self.entries} {self.size} {self.hash}\n".encode()

    def after(self, line: bytes) -> Head:
        """Return the head behind one more line."""
        digest = line[:HASH_LENGTH].decode("ascii", "replace")
        return Head(self.entries + 1, self.size + len(line), digest)


@dataclass(frozen=True)
class Entry:
    """One line of the log."""

    number: int
    """From 1."""
    hash: str
    """SHA-256 over the hash before it and the fields."""
    fields: dict[str, Any]
    """The JSON object."""


@dataclass(frozen=True)
class Retained:
    """Texts and picture to store with an entry for some days."""

    days: int
    """Days that they are stored, from today."""
    texts: dict[str, Any]
    """File name, question and answer, as JSON values."""
    picture: bytes | None
    """The page as a PNG file."""


def answer_entry(
    report: Mapping[str, Any],
    answer: Mapping[str, Any],
    settings: Mapping[str, Any],
    ended: str = "whole",
) -> dict[str, Any]:
    """Return the fields about one answer of a report (both as JSON objects).

    They are hashes and figures, without names and texts. `checks` holds the topic and
    the verdict of each statement that the trace judges.

    The field `file` still holds the file's name: `AuditLog.append` replaces it by a hash.
    """
    return _common_fields(report, settings) | {
        "question_sha256": sha256(answer["question"]),
        "answer_sha256": sha256(answer["text"]),
        "tokens": answer["tokens"],
        "complete": answer["complete"],
        "ended": ended,
        "checks": _checks(report),
    }


def findings_entry(report: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields about a report's findings and contradictions.

    They hold verdicts, probabilities, and a hash of both.
    """
    verdicts = {
        f["statement"]: [f["verdict"], f["probability"], f["calibrated"]]
        for f in report["findings"]
    }
    return _common_fields(report, settings) | {
        "question_sha256": FINDINGS_SHA256,
        "answer_sha256": findings_sha256(report),
        "tokens": 0,
        "complete": True,
        "ended": "whole",
        "findings": verdicts,
        "contradictions": [[c["kind"], *c["statements"]] for c in report["contradictions"]],
        "checks": _checks(report),
    }


def findings_sha256(report: Mapping[str, Any]) -> str:
    """Return the hash of a report's findings and contradictions."""
    return sha256(json.dumps([report["findings"], report["contradictions"]], sort_keys=True))


def _checks(report: Mapping[str, Any]) -> list[list[str]]:
    """Return topic and verdict of each check against the trace, such as `["rate", "supported"]`."""
    return [[check["topic"], check["verdict"]] for check in report.get("checks", ())]


def _common_fields(report: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    fields = {name: report[name] for name in ("page_sha256", "kit", "device", "versions")}
    if quality := report.get("quality"):  # without the file's name, which may be a patient's
        names = ("verdict", "forced", "changed", "facts")
        fields["quality"] = {name: quality[name] for name in names}
    fields = {name: shortened(value) for name, value in fields.items()}
    moment = times.now()
    fields |= {"time": moment.utc, "local_time": moment.local}
    about = {"file": report["file"], "page_number": page_number(report["file"])}
    return fields | about | {"settings": dict(settings)}


def shortened(value: Any) -> Any:
    """Return a JSON value whose texts have at most MAX_TEXT characters."""
    if isinstance(value, str):
        return value if len(value) <= MAX_TEXT else f"{value[: MAX_TEXT - 1]}\u2026"
    if isinstance(value, Mapping):
        return {shortened(key): shortened(item) for key, item in value.items()}
    return [shortened(item) for item in value] if isinstance(value, list | tuple) else value


def page_number(file: str) -> int | None:
    """Return the number of a page in a file of several, from its name `FILE#N`; else None."""
    match = re.search(r"#(\d{1,6})$", file)
    return None if match is None else int(match[1])


def base_name(file: str) -> str:
    """Return a page's file name without its folder and page number, in Unicode's composed form."""
    name = re.sub(r"#\d+$", "", file).replace("\\", "/").rpartition("/")[2]
    return unicodedata.normalize("NFC", name)


def sha256(text: str) -> str:
    """Return the SHA-256 of a text's UTF-8 bytes, in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


FINDINGS_SHA256 = sha256("findings")
"""Stands for the question in an entry about findings."""


def chained_hash(previous: str, text: bytes) -> str:
    """Return the hash of an entry's JSON that follows the hash `previous`."""
    return hashlib.sha256(previous.encode() + b" " + text).hexdigest()


def json_of(line: bytes) -> Any:
    """Return the JSON object of a line."""
    return json.loads(line[HASH_LENGTH + 1 :])


def fault(line: bytes, previous: str) -> str:
    """Return what is wrong with a line that follows the hash `previous`.

    The text is empty if the line is as it was written.
    """
    if line[HASH_LENGTH : HASH_LENGTH + 1] != b" " or not line.endswith(b"\n"):
        return "is no line of this log"
    if line[:HASH_LENGTH] != chained_hash(previous, line[HASH_LENGTH + 1 : -1]).encode():
        return "was altered, or one before it was removed, added or moved"
    try:
        return "" if isinstance(json_of(line), dict) else "is no JSON object"
    except (ValueError, RecursionError):
        return "is no JSON"
