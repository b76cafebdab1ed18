"""Join a reader's confirmation to the report of a reading, for the audit log and for documents."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from pulse_edge.audit_log.confirmations import ConfirmationLogger
from pulse_edge.errors import UsageError
from pulse_edge.web.readings import Reading
from pulse_edge.web.store import Entry
from pulse_edge.web.work import Work


def with_confirmation(reading: Reading) -> dict[str, Any]:
    """Return the report with what the reader confirmed last. Raises UsageError without a report.

    The line about the overread follows from both, so it is left out here; `report.stored` fills it
    in.
    """
    if reading.report is None:
        raise UsageError(f"{reading.name}: the page has no report yet. Wait until it is read.")
    fields = {key: value for key, value in reading.report.items() if key != "overread"}
    return fields | {"confirmation": reading.confirmation}


async def confirm(work: Work, reading: Reading, given: Mapping[str, Any]) -> None:
    """Check what a reader decided, commit it with its entry, and append that to the audit log.

    Only one call at a time: each confirmation names the one that it corrects. Raises UsageError
    where a decision is missing or does not fit the report, AuditLogError where the log cannot be
    read.
    """
    report: dict[str, Any] = await work.pages.call_twice(
        "confirm", name=reading.name, report=with_confirmation(reading), confirmation=dict(given)
    )
    fields = await work.logged(ConfirmationLogger(work.audit_log).fields, report)
    entry = Entry(f"{reading.id}/confirmation/{secrets.token_hex(8)}", fields, None)
    await work.stored(work.store.confirm, reading.id, report["confirmation"], entry)
    await work.log_all()
    work.watchers.changed(reading.id)
