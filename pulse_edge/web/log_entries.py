"""Bring entries into the audit log exactly once, across crashes.

An answer is committed to the database together with its entries. Each entry has a field `id`. What
the database still lists may be in the log already, if the program ended in between: then the log
is searched for the ids first. Standard library only; calls block, so they come from a thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pulse_edge.audit_log.entries import Retained, answer_entry, findings_entry
from pulse_edge.audit_log.log import AuditLog
from pulse_edge.web.store import Entry

ID = "id"
"""Field of an entry that identifies it: reading, turn, and the number of the answer."""


def entries_of(
    key: str,
    report: Mapping[str, Any],
    settings: Mapping[str, Any],
    ended: str,
    retained: tuple[int, str] | None,
) -> list[Entry]:
    """Return the entries of a report, given as a JSON object.

    `key` begins their ids. `retained`: days that texts and picture are stored with them, and the
    picture's file name; None: hashes only.
    """
    entries = []
    for number, answer in enumerate(report["answers"]):
        texts = None
        if retained is not None:
            about = {
                "file": report["file"],
                "question": answer["question"],
                "answer": answer["text"],
            }
            texts = {"days": retained[0], "texts": about, "picture": retained[1]}
        fields = answer_entry(report, answer, settings, ended)
        entries.append(Entry(f"{key}/{number}", fields, texts))
    if report["findings"]:
        entries.append(Entry(f"{key}/findings", findings_entry(report, settings), None))
    return entries


def append(log: AuditLog, entry: Entry, pictures: Path) -> None:
    """Append an entry to the log. Raises AuditLogError; then it is not there."""
    retained = None
    if entry.retained is not None:
        about = entry.retained
        try:
            picture = (pictures / about["picture"]).read_bytes()
        except OSError:  # removed by hand: the texts are retained all the same
            picture = None
        retained = Retained(about["days"], about["texts"], picture)
    log.append({**entry.fields, ID: entry.key}, retained)


def present(log: AuditLog, keys: Sequence[str]) -> set[str]:
    """Return which ids the log has. Raises AuditLogError where it cannot be read."""
    ids = set(keys)
    if not ids or not (log.folder / "entries.log").exists():
        return set()
    return {entry.fields[ID] for entry in log.entries() if entry.fields.get(ID) in ids}
