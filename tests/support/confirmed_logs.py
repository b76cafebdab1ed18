"""Confirmations in an audit log without pages and answers, for counting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pulse_edge.audit_log.entries import Entry

KIT = {"id": "kit-7b", "sha256": "a" * 64, "demonstration": False}
OTHER_KIT = {"id": "kit-4b", "sha256": "b" * 64, "demonstration": True}


def verdict(software: str | None, reader: str, *, calibrated: bool = True) -> dict[str, Any]:
    """Both verdicts on a finding, as an entry has them."""
    decision = "agreed" if software == reader else "changed"
    return {
        "software": software,
        "reader": reader,
        "calibrated": calibrated,
        "decision": decision,
    }


def confirmation(
    page: int,
    findings: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    day: str = "2026-01-15",
    overall: str = "agreed",
    kit: Mapping[str, Any] = KIT,
    reader: str = "Dr Amina Diallo",
) -> dict[str, Any]:
    """The fields of an entry, as far as they are counted."""
    return {
        "kind": "confirmation",
        "time": f"{day}T11:00:00Z",
        "local_time": f"{day}T12:00:00+01:00",
        "page_sha256": f"{page:064x}",
        "page_number": None,
        "kit": dict(kit),
        "reader": reader,
        "overall": overall,
        "findings": {key: dict(both) for key, both in (findings or {}).items()},
    }


def entries(fields: Iterable[Mapping[str, Any]]) -> list[Entry]:
    """Entries as a log gives them, with numbers in order."""
    return [Entry(n, f"{n:064x}", dict(one)) for n, one in enumerate(fields, 1)]
