"""A batch's work list and results in SQLite, in a folder that one process at a time works on.

In: files to read, reports. Out: `batch.sqlite` and its exports (see results.py). A page is
committed once, with its report, after its answers are in the audit log and its documents are
written. A page that was begun and not committed is read again, so a batch continues after a power
cut.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pulse_edge.batch import results
from pulse_edge.batch.results import Result
from pulse_edge.batch.source_files import UNREADABLE_FOLDER, SourceFile
from pulse_edge.common.database import Database, Kind
from pulse_edge.errors import BatchError, PulseEdgeError

if TYPE_CHECKING:
    from pulse_edge.report.report import Report

DATABASE = "batch.sqlite"
_SCHEMA = """
CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE files (
    id INTEGER PRIMARY KEY,
    path BLOB NOT NULL,             -- absolute, as the file system has it
    size INTEGER NOT NULL,
    changed INTEGER NOT NULL,       -- ns
    state TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'done', 'failed')),
    error TEXT,
    exit_code INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX files_by_path ON files (path);
CREATE INDEX files_by_state ON files (state, id);
CREATE TABLE pages (
    file INTEGER NOT NULL REFERENCES files (id),
    page INTEGER NOT NULL,          -- from 1
    contradictions INTEGER NOT NULL,  -- how many
    report TEXT,                    -- JSON; null: see error
    error TEXT,
    exit_code INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (file, page)
);
CREATE TABLE in_progress (          -- pages being read; at the start: pages that were interrupted
    file INTEGER NOT NULL REFERENCES files (id),
    page INTEGER NOT NULL,
    crashes INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (file, page)
);
"""
KIND = Kind(DATABASE, "batch", BatchError, "-o", _SCHEMA, unfinished=("", "pages"))


class File(NamedTuple):
    """A file of the work list."""

    id: int
    path: str


class Counts(NamedTuple):
    """Files of the work list by state."""

    waiting: int
    done: int
    failed: int


class Store:
    """A batch's folder, open for one process. Use as a context manager."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        """Open or begin the batch.

        Raises BatchError if it was begun with other settings, or another process has it.

        `settings` are JSON values that all pages of the batch share.
        """
        self.folder = folder
        self._db = Database(folder, KIND)
        try:
            self._begin(settings)
        except BaseException:
            self.close()
            raise

    def _begin(self, settings: Mapping[str, Any]) -> None:
        values = {key: json.dumps(value) for key, value in settings.items()}
        insert = "INSERT INTO settings VALUES (?, ?)"
        if self._db.begin(lambda db: db.executemany(insert, values.items())):
            return
        stored = dict(self._db.all("SELECT key, value FROM settings"))
        names = stored.keys() | values.keys()
        if other := sorted(key for key in names if stored.get(key) != values.get(key)):
            raise BatchError(
                f"{self.folder}: was begun with another {' and '.join(other)}. Choose another "
                "folder with -o."
            )

    # --- work list --------------------------------------------------------------------------------

    def add(self, paths: Iterator[SourceFile]) -> int:
        """Put files on the list; return how many are new or have changed since they failed."""
        new, unreadable = 0, set()
        with self._db.transaction() as db:
            for path, size, changed in paths:
                raw = os.fsencode(path)
                if size == UNREADABLE_FOLDER:
                    unreadable.add(raw)
                new += self._add(db, raw, size, changed)
            query = "SELECT path FROM files WHERE size = ?"
            for (raw,) in db.execute(query, (UNREADABLE_FOLDER,)).fetchall():
                if raw not in unreadable:  # it can be read now, or is gone
                    remove = "DELETE FROM files WHERE size = ? AND path = ?"
                    db.execute(remove, (UNREADABLE_FOLDER, raw))
        return new

    def _add(self, db: sqlite3.Connection, raw: bytes, size: int, changed: int) -> bool:
        query = "SELECT id, state, size, changed FROM files WHERE path = ? ORDER BY id DESC LIMIT 1"
        row = db.execute(query, (raw,)).fetchone()
        if row is not None and row[2:] == (size, changed):
            return False
        if row is None or row[1] == "done":
            insert = "INSERT INTO files (path, size, changed) VALUES (?, ?, ?)"
            db.execute(insert, (raw, size, changed))
        else:
            self._wait_again(db, row[0])
            update = "UPDATE files SET size = ?, changed = ? WHERE id = ?"
            db.execute(update, (size, changed, row[0]))
        return True

    def retry(self) -> None:
        """Put every file that failed, or that has a page that failed, on the list again."""
        with self._db.transaction() as db:
            query = """
                SELECT id FROM files WHERE state = 'failed'
                UNION SELECT file FROM pages WHERE error IS NOT NULL
            """
            for (file,) in db.execute(query).fetchall():
                self._wait_again(db, file)

    def _wait_again(self, db: sqlite3.Connection, file: int) -> None:
        db.execute("DELETE FROM pages WHERE file = ? AND error IS NOT NULL", (file,))
        update = "UPDATE files SET state = 'waiting', error = NULL, exit_code = 0 WHERE id = ?"
        db.execute(update, (file,))

    def next(self) -> File | None:
        """Return the next file to read."""
        row = self._db.one("SELECT id, path FROM files WHERE state = 'waiting' ORDER BY id LIMIT 1")
        return None if row is None else File(row[0], os.fsdecode(row[1]))

    def counts(self) -> Counts:
        """Return how many files wait, are done, and could not be read."""
        with self._db.explained():
            query = "SELECT state, count(*) FROM files GROUP BY state"
            by_state = dict(self._db.connection.execute(query))
        return Counts(*(by_state.get(state, 0) for state in Counts._fields))

    def exit_code(self) -> int:
        """Return the exit code of the worst page."""
        query = """
            SELECT max(exit_code) FROM
            (SELECT exit_code FROM files UNION ALL SELECT exit_code FROM pages)
        """
        return int(self._db.one(query)[0] or 0)

    def failed_pages(self) -> int:
        """Return how many pages have no answer, in files that were read."""
        return int(self._db.one("SELECT count(*) FROM pages WHERE error IS NOT NULL")[0])

    def begin(self, file: int, page: int) -> int:
        """Note that a page is being read; return how often the program has crashed at it."""
        with self._db.transaction() as db:
            insert = "INSERT OR IGNORE INTO in_progress (file, page) VALUES (?, ?)"
            db.execute(insert, (file, page))
            query = "SELECT crashes FROM in_progress WHERE file = ? AND page = ?"
            return int(db.execute(query, (file, page)).fetchone()[0])

    def note_crash(self) -> bool:
        """Note that the program crashed at the page in progress.

        Return whether there is such a page.
        """
        with self._db.transaction() as db:
            return db.execute("UPDATE in_progress SET crashes = crashes + 1").rowcount > 0

    # --- results ----------------------------------------------------------------------------------

    def has(self, file: int, page: int) -> bool:
        """Whether a page has a result."""
        query = "SELECT 1 FROM pages WHERE file = ? AND page = ?"
        return self._db.one(query, (file, page)) is not None

    def put(
        self,
        file: int,
        page: int,
        report: Report | None,
        error: PulseEdgeError | None = None,
        *,
        last: bool = True,
    ) -> None:
        """Commit a page's report, or the reason why it has none.

        With the `last` page the file is done.
        """
        text = None if report is None else report.to_json()
        reason, code = (None, 0) if error is None else (str(error), error.exit_code)
        contradictions = 0 if report is None else len(report.contradictions)
        with self._db.transaction() as db:
            insert = "INSERT INTO pages VALUES (?, ?, ?, ?, ?, ?)"
            db.execute(insert, (file, page, contradictions, text, reason, code))
            db.execute("DELETE FROM in_progress WHERE file = ? AND page = ?", (file, page))
            if last:
                db.execute("UPDATE files SET state = 'done' WHERE id = ?", (file,))

    def finish(self, file: int, error: PulseEdgeError | None = None) -> None:
        """Note that all pages of a file have results, or that it cannot be read."""
        state, reason, code = (
            ("done", None, 0) if error is None else ("failed", str(error), error.exit_code)
        )
        with self._db.transaction() as db:
            update = "UPDATE files SET state = ?, error = ?, exit_code = ? WHERE id = ?"
            db.execute(update, (state, reason, code, file))
            db.execute("DELETE FROM in_progress WHERE file = ?", (file,))

    def results(self) -> Iterator[Result]:
        """Give the results of all pages and unreadable files, those with contradictions first."""
        query = """
            SELECT path, page, report, pages.error, pages.exit_code, contradictions, id
            FROM pages JOIN files ON file = id
            UNION ALL
            SELECT path, 0, NULL, error, exit_code, 0, id FROM files WHERE state = 'failed'
            ORDER BY contradictions DESC, id, page
        """
        with self._db.explained():
            for path, page, report, error, code, _count, _id in self._db.connection.execute(query):
                yield Result(os.fsdecode(path), page, report, error, code)

    def export(self) -> None:
        """Write results.jsonl and results.csv again. Raises OSError."""
        results.write(self.folder, self.results)

    def close(self) -> None:
        """Close the database and release the folder."""
        self._db.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def finished_pages(folder: Path) -> int:
    """Count the finished pages of a batch that another process may be working on.

    The count is 0 without a batch.
    """
    path = folder / DATABASE
    if not path.is_file():
        return 0
    try:
        address = f"{path.resolve().as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(address, uri=True)) as db:
            return int(db.execute("SELECT count(*) FROM pages").fetchone()[0])
    except sqlite3.Error:
        return 0
