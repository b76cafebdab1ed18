"""Remove what a page has left behind: on request, and when its last day is over.

A page is settled when a reader has confirmed it, or when it has no answer (refused, failed). From
that day on its upload, pictures and texts are stored for the days of `--retain`, without it until
the end of the same day. What was answered and not confirmed stays: it is somebody's work. Entries
in the audit log are never removed. Standard library only.
"""

from __future__ import annotations

import datetime

from pulse_edge.web.store import PICTURES, UPLOADS, Store, last_day, today

ID_LENGTH = 22
"""Characters of a reading's id, with which its pictures' names begin."""


def remove(store: Store, reading: str) -> None:
    """Remove everything about a page but its entries in the audit log. Raises KeyError.

    The rows go first: a file without a row is removed by `sweep`.
    """
    with store.database.transaction() as db:
        row = db.execute("SELECT upload FROM readings WHERE id = ?", (reading,)).fetchone()
        if row is None:
            raise KeyError(reading)
        for table, column in (("turns", "reading"), ("jobs", "reading"), ("readings", "id")):
            db.execute(f"DELETE FROM {table} WHERE {column} = ?", (reading,))
        rest = "SELECT 1 FROM readings WHERE upload = ?"
        is_last = db.execute(rest, row).fetchone() is None
        if is_last:
            db.execute("DELETE FROM uploads WHERE id = ?", row)
    if is_last:
        store.upload_path(row[0]).unlink(missing_ok=True)
    remove_orphans(store, reading)
    with store.database.explained():  # the write-ahead log holds the rows too
        store.database.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def remove_orphans(store: Store, reading: str) -> None:
    """Remove the pictures of a page that was removed, also while they were made."""
    if store.database.one("SELECT 1 FROM readings WHERE id = ?", (reading,)) is not None:
        return
    for path in (store.folder / PICTURES).iterdir():
        if path.name.startswith(f"{reading}-"):
            path.unlink(missing_ok=True)


def sweep(store: Store) -> list[str]:
    """Remove files without a row, and pages whose last day is over; return their ids."""
    _remove_stray_files(store)
    query = """
        SELECT id, settled FROM readings WHERE settled IS NOT NULL AND state != 'checking'
        AND id NOT IN (SELECT reading FROM jobs) AND id NOT IN (SELECT reading FROM entries)
    """
    rows = store.database.all(query)
    over = [id for id, settled in rows if last_day(settled, store.retain_days) < today()]
    for id in over:
        remove(store, id)
    return over


def _remove_stray_files(store: Store) -> None:
    """Remove uploads that were never committed, and what a crash left of removed pages."""
    uploads = {id for (id,) in store.database.all("SELECT id FROM uploads")}
    readings = {id for (id,) in store.database.all("SELECT id FROM readings")}
    for path in (store.folder / UPLOADS).iterdir():
        if path.name not in uploads and not path.name.startswith("."):
            path.unlink(missing_ok=True)
    for path in (store.folder / PICTURES).iterdir():
        if path.name[:ID_LENGTH] not in readings and not path.name.startswith("."):
            path.unlink(missing_ok=True)


def present_day() -> str:
    """Return the local day whose beginning was the last time to remove, ISO 8601."""
    return today()


def seconds_to_next_day() -> float:
    """Return the seconds until the next local day begins, and a little more."""
    now = datetime.datetime.now()
    tomorrow = datetime.datetime.combine(now.date() + datetime.timedelta(1), datetime.time())
    return (tomorrow - now).total_seconds() + 1.0
