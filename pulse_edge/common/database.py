"""A SQLite database in a folder of pulse-edge that one process at a time works on. Standard library
only.

The folder is claimed and locked, the database is its owner's alone, and what was committed survives
a power cut (write-ahead log, synchronous FULL).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pulse_edge.common import folders
from pulse_edge.common.files import UNFINISHED, open_private, try_lock
from pulse_edge.errors import PulseEdgeError

LOCK = "lock"
"""File whose lock a process holds while it works on the folder."""
LOCK_ATTEMPTS, LOCK_PAUSE = 20, 0.1
"""A worker whose supervisor was killed ends within milliseconds; the next one waits 2 s for the
folder."""


@dataclass(frozen=True)
class Kind:
    """What a database holds, and how its faults are explained."""

    file: str
    """Name of the database in its folder."""
    folder: str
    """Kind of the folder in its marker: see `folders.KINDS`."""
    error: type[PulseEdgeError]
    """Raised for every fault of folder and database."""
    option: str
    """Option that names another folder."""
    schema: str
    """Statements that make the tables, each ending with `;` and a line feed."""
    unfinished: tuple[str, ...] = ("",)
    """Folders, below the database's own, in which a killed process leaves half-written files."""


def is_locked(folder: Path) -> bool:
    """Whether a process works on a folder's database."""
    try:
        lock = os.open(folder / LOCK, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return False
    try:
        return not try_lock(lock)
    finally:
        os.close(lock)


class Database:
    """The open database. Use it as a context manager, or close it."""

    def __init__(self, folder: Path, kind: Kind) -> None:
        """Claim and lock the folder, and open the database, which is made if it is absent.

        Raises the kind's error if another process has the folder, and FolderError for a folder
        with other files than its own.
        """
        self.folder, self.kind = folder, kind
        self.path = folder / kind.file
        self._db: sqlite3.Connection | None = None
        self._lock = self._locked()
        try:
            self._remove_unfinished()
            self._restrict_access()
            with self.explained():
                # Calls may come from several threads, one at a time.
                self._db = sqlite3.connect(
                    self.path, isolation_level=None, timeout=60, check_same_thread=False
                )
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = FULL")
        except OSError as e:
            self.close()
            raise self._unwritable(e) from None
        except BaseException:
            self.close()
            raise

    def begin(self, fill: Callable[[sqlite3.Connection], object] = lambda _db: None) -> bool:
        """Make the tables if there are none, and `fill` them; return whether they were made."""
        if self.one("SELECT 1 FROM sqlite_master WHERE type = 'table'"):
            return False
        with self.transaction() as db:
            for statement in self.kind.schema.split(";\n"):
                db.execute(statement)
            fill(db)
        return True

    @property
    def connection(self) -> sqlite3.Connection:
        """The open connection."""
        assert self._db is not None  # from the end of __init__ to `close`
        return self._db

    def one(self, query: str, values: tuple[Any, ...] = ()) -> Any:
        """Return the first row of a query; None without one."""
        with self.explained():
            return self.connection.execute(query, values).fetchone()

    def all(self, query: str, values: tuple[Any, ...] = ()) -> list[Any]:
        """Return every row of a query."""
        with self.explained():
            return self.connection.execute(query, values).fetchall()

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Raise the kind's error, with the next step, for an error of SQLite."""
        try:
            yield
        except sqlite3.Error as e:
            raise self.kind.error(
                f"{self.path}: {e}. Look at the disk (space, rights), and run the same command "
                "again: it continues where it stopped."
            ) from e

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit what the block does, or nothing of it where it raises."""
        with self.explained():
            db = self.connection
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Close the database and release the folder."""
        if self._db is not None:
            # On a full disk the write-ahead file stays, and is read the next time.
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _locked(self) -> int | None:
        """Lock the folder by an open file, and return its handle."""
        try:
            folders.claim(self.folder, self.kind.folder)
            lock = open_private(self.folder / LOCK)
        except OSError as e:
            raise self._unwritable(e) from None
        for _ in range(LOCK_ATTEMPTS):
            if try_lock(lock):
                return lock
            time.sleep(LOCK_PAUSE)
        os.close(lock)
        raise self.kind.error(
            f"{self.folder}: another pulse-edge works on it. Wait until it is done, or choose "
            f"another with {self.kind.option}."
        )

    def _unwritable(self, error: OSError) -> PulseEdgeError:
        return self.kind.error(
            f"{self.folder}: cannot be written ({error.strerror}). Choose another folder with "
            f"{self.kind.option}."
        )

    def _remove_unfinished(self) -> None:
        """Remove files that a killed process left half-written.

        Only one process at a time works here.
        """
        for below in self.kind.unfinished:
            for path in (self.folder / below).glob(f"{UNFINISHED}*"):
                path.unlink(missing_ok=True)

    def _restrict_access(self) -> None:
        """Restrict the database to its owner; SQLite gives its other files the same rights."""
        name = self.kind.file
        for file in (name, f"{name}-wal", f"{name}-shm"):
            if file == name or (self.folder / file).exists():
                os.close(open_private(self.folder / file))
