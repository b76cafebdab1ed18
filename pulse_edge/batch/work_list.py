"""A folder of pages -> answers, over night: a work list and its results in SQLite, going on where a power cut ended it.

In: folders, patterns, lists and files; questions. Out: `batch.sqlite` in the batch's folder, and its exports
`results.jsonl` and `results.csv`, beside what `documents` writes for each page.

A page is committed once, with everything about it, after its answers are on record and its documents are written; what
was begun and not committed is done again. One process at a time works on a folder.
"""

from __future__ import annotations

import contextlib
import csv
import glob
import io
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pulse_edge.audit_log import log as logs
from pulse_edge.common import folders as owned
from pulse_edge.common.files import UNFINISHED, write_whole
from pulse_edge.common.text import one_line, spreadsheet_cell
from pulse_edge.errors import (
    AuditLogError,
    BatchError,
    OutputError,
    PageFailed,
    PageRefused,
    PulseEdgeError,
    ScanError,
    UsageError,
    on_page,
)
from pulse_edge.report.report import INTENDED_USE, NoAnswer

if TYPE_CHECKING:
    from pulse_edge.page.reader import Document, Page
    from pulse_edge.report.report import Report

DATABASE = "batch.sqlite"
RESULTS = ("results.jsonl", "results.csv")
COLUMNS = (
    "notice", "file", "page", "state", "verdict", "leads", "reasons", "contradictions", "question", "answer", "complete", "findings",
    "error", "page_sha256", "kit", "kit_sha256", "image_tokens_read", "intended_use",
)  # fmt: skip
_SCHEMA = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL);
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
"""
_BEGUN = """
CREATE TABLE IF NOT EXISTS begun (   -- what is being read: what stands here at the start was ended in the middle
    file INTEGER NOT NULL REFERENCES files (id),
    page INTEGER NOT NULL,
    crashes INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (file, page)
)
"""
CRASHES = 2
"""Of a page, in a process of its own the second time, after which it is not read again."""
LEFT_OUT = -2
"""Size of a folder on the list that cannot be looked into; -1 is a file that is not there."""
_NO_PAGES = frozenset({"thumbs.db", "desktop.ini"})


class File(NamedTuple):
    """A file of the work list."""

    id: int
    path: str


class Counts(NamedTuple):
    """Files of the work list by state."""

    waiting: int
    done: int
    failed: int


@dataclass(frozen=True)
class Work:
    """How a page becomes a report, and what else is done with it."""

    answer: Callable[[Page], Report]
    record: Callable[[Report, Page], None]
    """Puts the report's answers on record."""
    documents: Callable[[Report, Page, str], None]
    """Writes a page's documents, named by the text given."""
    told: Callable[[str, Report | None, PulseEdgeError | None], None]
    """Hears of each page or file that is finished, by name: its report, or why it has none."""


class Store:
    """A batch's folder, open for one process. Use as a context manager."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        """Open or begin the batch. Raises BatchError if it was begun with other settings, or is being worked on."""
        self.folder = folder
        self._path = folder / DATABASE
        self._lock = _lock(folder)
        try:
            for left in (*folder.glob(f"{UNFINISHED}*"), *folder.glob(f"pages/{UNFINISHED}*")):
                left.unlink(
                    missing_ok=True
                )  # by a process that was killed: only one at a time works here
            for name in (
                DATABASE,
                f"{DATABASE}-wal",
                f"{DATABASE}-shm",
            ):  # SQLite gives the others the first one's rights
                if name == DATABASE or (folder / name).exists():
                    os.close(logs.open_owned(folder / name))
            with self._explained():
                self._db = sqlite3.connect(self._path, isolation_level=None, timeout=60)
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = FULL")
                self._begin(settings)
                self._db.execute(_BEGUN)
        except OSError as e:
            self.close()
            raise BatchError(
                f"{folder}: cannot be written ({e.strerror}). Choose another folder with -o."
            ) from None
        except BaseException:
            self.close()
            raise

    def _begin(self, settings: Mapping[str, Any]) -> None:
        told = {key: json.dumps(value) for key, value in settings.items()}
        if not self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'pages'").fetchone():
            with self._transaction():
                for statement in _SCHEMA.split(";\n"):
                    self._db.execute(statement)
                self._db.executemany("INSERT INTO about VALUES (?, ?)", told.items())
            return
        begun = dict(self._db.execute("SELECT key, value FROM about"))
        if other := sorted(
            key for key in begun.keys() | told.keys() if begun.get(key) != told.get(key)
        ):
            raise BatchError(
                f"{self.folder}: was begun with another {' and '.join(other)}. Choose another folder with -o."
            )

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as e:
            raise BatchError(
                f"{self._path}: {e}. Look at the disk (space, rights), and run the same command again: it goes on where "
                "it stopped."
            ) from e

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._explained():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    # --- work list ----------------------------------------------------------------------------------------------------

    def add(self, paths: Iterator[tuple[str, int, int]]) -> int:
        """Put files (path, size, time of change) on the list; how many are new or have changed since they failed."""
        new, left_out = 0, set()
        with self._transaction():
            for path, size, changed in paths:
                raw = os.fsencode(path)
                if size == LEFT_OUT:
                    left_out.add(raw)
                query = "SELECT id, state, size, changed FROM files WHERE path = ? ORDER BY id DESC LIMIT 1"
                row = self._db.execute(query, (raw,)).fetchone()
                if row is not None and row[2:] == (size, changed):
                    continue
                if row is None or row[1] == "done":
                    self._db.execute(
                        "INSERT INTO files (path, size, changed) VALUES (?, ?, ?)",
                        (raw, size, changed),
                    )
                else:
                    self._wait_again(row[0])
                    self._db.execute(
                        "UPDATE files SET size = ?, changed = ? WHERE id = ?",
                        (size, changed, row[0]),
                    )
                new += 1
            for (raw,) in self._db.execute(
                "SELECT path FROM files WHERE size = ?", (LEFT_OUT,)
            ).fetchall():
                if raw not in left_out:  # it can be looked into now, or is gone
                    self._db.execute(
                        "DELETE FROM files WHERE size = ? AND path = ?", (LEFT_OUT, raw)
                    )
        return new

    def retry(self) -> None:
        """Put what failed on the list again."""
        with self._transaction():
            query = "SELECT id FROM files WHERE state = 'failed' UNION SELECT file FROM pages WHERE error IS NOT NULL"
            for (file,) in self._db.execute(query).fetchall():
                self._wait_again(file)

    def _wait_again(self, file: int) -> None:
        self._db.execute("DELETE FROM pages WHERE file = ? AND error IS NOT NULL", (file,))
        self._db.execute(
            "UPDATE files SET state = 'waiting', error = NULL, exit_code = 0 WHERE id = ?", (file,)
        )

    def next(self) -> File | None:
        """The next file to read."""
        with self._explained():
            row = self._db.execute(
                "SELECT id, path FROM files WHERE state = 'waiting' ORDER BY id LIMIT 1"
            ).fetchone()
        return None if row is None else File(row[0], os.fsdecode(row[1]))

    def counts(self) -> Counts:
        """How many files wait, are done, and could not be read."""
        with self._explained():
            found = dict(self._db.execute("SELECT state, count(*) FROM files GROUP BY state"))
        return Counts(*(found.get(state, 0) for state in Counts._fields))

    def exit_code(self) -> int:
        """That of the worst page."""
        query = "SELECT max(exit_code) FROM (SELECT exit_code FROM files UNION ALL SELECT exit_code FROM pages)"
        with self._explained():
            return int(self._db.execute(query).fetchone()[0] or 0)

    def failed_pages(self) -> int:
        """How many pages have no answer, in files that were read."""
        with self._explained():
            return int(
                self._db.execute("SELECT count(*) FROM pages WHERE error IS NOT NULL").fetchone()[0]
            )

    def begin(self, file: int, page: int) -> int:
        """Note that a page is being read; how often the program has crashed at it."""
        with self._transaction():
            self._db.execute("INSERT OR IGNORE INTO begun (file, page) VALUES (?, ?)", (file, page))
            query = "SELECT crashes FROM begun WHERE file = ? AND page = ?"
            return int(self._db.execute(query, (file, page)).fetchone()[0])

    def crashed(self) -> bool:
        """Note that the program crashed at what was being read; whether there is such a page."""
        with self._transaction():
            return self._db.execute("UPDATE begun SET crashes = crashes + 1").rowcount > 0

    # --- results ------------------------------------------------------------------------------------------------------

    def has(self, file: int, page: int) -> bool:
        """Whether a page's result is there."""
        with self._explained():
            found = self._db.execute(
                "SELECT 1 FROM pages WHERE file = ? AND page = ?", (file, page)
            ).fetchone()
        return found is not None

    def put(
        self,
        file: int,
        page: int,
        report: Report | None,
        error: PulseEdgeError | None = None,
        *,
        last: bool = True,
    ) -> None:
        """A page's report, or why there is none, written at once and for good; with the `last` page the file is done."""
        text = None if report is None else report.to_json()
        why, code = (None, 0) if error is None else (str(error), error.exit_code)
        contradictions = 0 if report is None else len(report.contradictions)
        with self._transaction():
            self._db.execute(
                "INSERT INTO pages VALUES (?, ?, ?, ?, ?, ?)",
                (file, page, contradictions, text, why, code),
            )
            self._db.execute("DELETE FROM begun WHERE file = ? AND page = ?", (file, page))
            if last:
                self._db.execute("UPDATE files SET state = 'done' WHERE id = ?", (file,))

    def finish(self, file: int, error: PulseEdgeError | None = None) -> None:
        """All pages of a file are there, or it cannot be read."""
        state, why, code = (
            ("done", None, 0) if error is None else ("failed", str(error), error.exit_code)
        )
        with self._transaction():
            query = "UPDATE files SET state = ?, error = ?, exit_code = ? WHERE id = ?"
            self._db.execute(query, (state, why, code, file))
            self._db.execute("DELETE FROM begun WHERE file = ?", (file,))

    def results(self) -> Iterator[tuple[str, int, str | None, str | None, int]]:
        """File, page (0: the whole file), report as JSON, error and exit code; those with contradictions first."""
        query = """
            SELECT path, page, report, pages.error, pages.exit_code, contradictions, id FROM pages JOIN files ON file = id
            UNION ALL SELECT path, 0, NULL, error, exit_code, 0, id FROM files WHERE state = 'failed'
            ORDER BY contradictions DESC, id, page
        """
        with self._explained():
            for path, page, report, error, code, _marks, _id in self._db.execute(query):
                yield os.fsdecode(path), page, report, error, code

    def export(self) -> None:
        """Write results.jsonl and results.csv anew."""
        write_whole(
            self.folder / RESULTS[0],
            (line.encode("utf-8", "replace") for line in self._jsonl()),
            overwrite=True,
        )
        write_whole(
            self.folder / RESULTS[1],
            (line.encode("utf-8", "replace") for line in self._csv()),
            overwrite=True,
        )

    def _jsonl(self) -> Iterator[str]:
        for path, _page, report, error, code in self.results():
            yield (report or NoAnswer(one_line(path), error or "", code).to_json()) + "\n"

    def _csv(self) -> Iterator[str]:
        """One row for each answer, and for each page or file without one. A byte order mark tells Excel that it is UTF-8."""
        yield "\ufeff" + ",".join(COLUMNS) + "\r\n"
        for path, page, report, error, code in self.results():
            state = "refused" if code == PageRefused.exit_code else "failed"
            rows = (
                [{"state": state, "error": error}] if report is None else _rows(json.loads(report))
            )
            for row in rows:
                line = io.StringIO()
                values = {"file": one_line(path), "page": page or ""} | row
                csv.writer(line).writerow(
                    [spreadsheet_cell(values.get(name, "")) for name in COLUMNS]
                )
                yield line.getvalue()

    def close(self) -> None:
        """Give the folder back."""
        if db := getattr(self, "_db", None):
            with contextlib.suppress(
                sqlite3.Error
            ):  # a full disk: the write-ahead file stays, and is read next time
                db.close()
        os.close(self._lock)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def _rows(report: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One row for each answer of a page."""
    quality = report.get("quality") or {}
    page = {
        "notice": report.get("notice") or "",
        "state": "answered",
        "verdict": quality.get("verdict", "not checked"),
        "leads": quality.get("leads", ""),
        "reasons": "\n".join(reason["advice"] for reason in quality.get("reasons", ())),
        "contradictions": "\n".join(c["text"] for c in report.get("contradictions") or ()),
        "findings": "\n".join(map(_finding, report.get("findings") or ())),
        "page_sha256": report["page_sha256"],
        "kit": report["kit"]["id"],
        "kit_sha256": report["kit"]["sha256"],
        "image_tokens_read": report.get("image_tokens_read", "all"),
        "intended_use": report.get("intended_use", INTENDED_USE),
    }
    for answer in report["answers"]:
        yield page | {
            "question": answer["question"],
            "answer": answer["text"],
            "complete": answer["complete"],
        }


def _finding(finding: dict[str, Any]) -> str:
    """Verdict and probability, or the rank where there are none."""
    if finding["verdict"] is None:
        return f"{finding['statement']}: no verdict, rank {finding['rank']} ({finding['reason']})"
    return f"{finding['statement']}: {finding['verdict']} {finding['probability']}"


def finished(folder: Path) -> int:
    """How many pages of a batch are done, looked up from outside while another process works on it; 0 without a batch."""
    if not (folder / DATABASE).is_file():
        return 0
    try:
        with contextlib.closing(
            sqlite3.connect(f"{(folder / DATABASE).resolve().as_uri()}?mode=ro", uri=True)
        ) as db:
            return int(db.execute("SELECT count(*) FROM pages").fetchone()[0])
    except sqlite3.Error:
        return 0


def run(store: Store, work: Work) -> None:
    """Read and answer everything on the list. A page that fails is noted, and the others go on.

    Only what must stop everything is raised: AuditLogError, since what cannot be put on record must not be answered, and
    BatchError and OutputError, where results or documents cannot be stored.
    """
    from pulse_edge.page import reader

    while file := store.next():
        try:
            if why := _no_file(file.path):
                raise why
            with reader.Document(file.path) as document:
                for number in range(1, len(document) + 1):
                    if not store.has(file.id, number):
                        _page(store, work, file, document, number)
        except (AuditLogError, BatchError, OutputError):
            raise
        except Exception as e:
            error = on_page(one_line(file.path), e)
            store.finish(file.id, error)
            work.told(one_line(file.path), None, error)
        else:
            store.finish(file.id)


def _page(store: Store, work: Work, file: File, document: Document, number: int) -> None:
    from pulse_edge.page.reader import UnreadablePage

    name = f"{one_line(file.path)}#{number}" if len(document) > 1 else one_line(file.path)
    last = number == len(document)
    try:
        if (crashes := store.begin(file.id, number)) >= CRASHES:
            raise PageFailed(
                f"{name}: ended the program {crashes} times. Export the page as PNG and try that."
            )
        page = document.page(number)
        if isinstance(page, UnreadablePage):
            raise page.error
        report = work.answer(page)
        work.record(report, page)
        work.documents(report, page, f"{file.id:06}-{number}")
    except (AuditLogError, BatchError, OutputError):
        raise
    except Exception as e:
        error = on_page(name, e)
        store.put(file.id, number, None, error, last=last)
        work.told(name, None, error)
        return
    store.put(file.id, number, report, last=last)
    work.told(page.name, report, None)


def _no_file(path: str) -> ScanError | None:
    """Why a folder on the list was not looked into; None for anything else."""
    name = one_line(path)
    if not os.path.isdir(path):
        return None
    if os.path.islink(path):
        return ScanError(
            f"{name}: is a link to a folder, and links are not followed. Name that folder as well."
        )
    try:
        os.scandir(path).close()
    except OSError as e:
        return ScanError(
            f"{name}: is a folder that cannot be looked into ({e.strerror}). Ask for the right to read it."
        )
    return None


# --- sources ----------------------------------------------------------------------------------------------------------


def files(
    sources: Sequence[str], without: Path, *, may_be_empty: bool = False
) -> Iterator[tuple[str, int, int]]:
    """Absolute path, bytes, and time of change (ns) of every file that the sources name, nothing below `without`.

    A source is a folder (with all below it but what is hidden), a pattern, a `.txt` file with a path a line (or with NUL
    characters between them), or a page. A file that is not there is listed with -1 bytes, a folder that cannot be looked into
    or is a link with LEFT_OUT; both fail later, so that nothing is left out in silence. Raises UsageError where a source
    names nothing, unless it `may_be_empty`.
    """
    out = os.path.abspath(without)
    for source in sources:
        found = False
        for path in _paths(source):
            full = os.path.abspath(path)
            if full == out or full.startswith(out + os.sep):
                continue
            found = True
            if _no_file(full) is not None:
                yield full, LEFT_OUT, 0
                continue
            try:
                about = os.stat(full)
                yield full, about.st_size, about.st_mtime_ns
            except (OSError, ValueError):
                yield full, -1, -1
        if not (found or may_be_empty):
            raise UsageError(
                f"{one_line(source)}: names no file. Check the name; a pattern needs quotes."
            )


def _paths(source: str) -> Iterator[str]:
    if os.path.isdir(source):
        yield from _below(source)
    elif source.lower().endswith(".txt") and os.path.isfile(source):
        yield from _listed(source)
    elif not os.path.lexists(source) and glob.has_magic(source):
        yield from sorted(glob.glob(source, recursive=True))
        if (
            "**" in source
        ):  # glob says nothing of folders that it cannot look into, and follows links
            yield from _closed_below(os.path.dirname(source[: source.index("**")]) or os.curdir)
    else:
        yield source


def _below(folder: str) -> Iterator[str]:
    """Every file below a folder; also folders that cannot be looked into, and links to folders elsewhere."""
    closed: list[str] = []
    top = os.path.realpath(folder)
    for at, folders, names in os.walk(
        folder, onerror=lambda e: closed.append(os.fspath(e.filename))
    ):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in folders:
            path = os.path.join(at, name)
            if os.path.islink(path) and not f"{os.path.realpath(path)}{os.sep}".startswith(
                top + os.sep
            ):
                yield path  # what it leads to below the same folder is read anyway
        for name in sorted(names):
            if not name.startswith(".") and name.lower() not in _NO_PAGES:
                yield os.path.join(at, name)
    yield from closed


def _closed_below(folder: str) -> Iterator[str]:
    closed: list[str] = []
    for _at, folders, _names in os.walk(
        folder, onerror=lambda e: closed.append(os.fspath(e.filename))
    ):
        folders[:] = [name for name in folders if not name.startswith(".")]
    yield from closed


def _listed(path: str) -> Iterator[str]:
    with open(path, "rb") as file:
        raw = file.read()
    lines = raw.split(b"\0") if b"\0" in raw else raw.removeprefix(b"\xef\xbb\xbf").splitlines()
    yield from (os.fsdecode(line) for line in lines if line.strip())


class Settled:
    """Keeps back files that still grow: one is let through when it is as it was when it was last seen."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, int]] = {}

    def __call__(self, found: Iterator[tuple[str, int, int]]) -> Iterator[tuple[str, int, int]]:
        now = {path: (size, changed) for path, size, changed in found}
        seen, self._seen = self._seen, now
        return ((path, *about) for path, about in now.items() if seen.get(path) == about)


def _is_older(folder: Path) -> bool:
    """Whether a version before the marks made this folder: its database has our tables."""
    if not (folder / DATABASE).is_file() or not (folder / "lock").is_file():
        return False
    try:
        with contextlib.closing(
            sqlite3.connect(f"{(folder / DATABASE).resolve().as_uri()}?mode=ro", uri=True)
        ) as db:
            tables = {
                name
                for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            }
    except sqlite3.Error:
        return False
    return {"about", "files", "pages"} <= tables


def _lock(folder: Path) -> int:
    """The folder's lock, held by the file that is returned. Raises BatchError if another process has it.

    Raises FolderError for a folder that holds other files than a batch's.
    """
    try:
        owned.claim(folder, "batch", lambda: _is_older(folder))
        lock = logs.open_owned(folder / "lock")
    except OSError as e:
        raise BatchError(
            f"{folder}: cannot be written ({e.strerror}). Choose another folder with -o."
        ) from None
    for _ in range(20):  # a worker whose supervisor was killed leaves within milliseconds
        if logs.try_lock(lock):
            break
        time.sleep(0.1)
    else:
        os.close(lock)
        raise BatchError(
            f"{folder}: another pulse-edge works on it. Wait until it is done, or choose another with -o."
        )
    return lock
