"""What the local page remembers: uploads, readings, questions, the queue, and entries that the audit
log does not have yet.

In: committed facts. Out: rows as dataclasses. An upload is committed before it is acknowledged. An
answer is committed together with its entries for the audit log; it is shown as final when these
are in the log, and a crash in between neither loses nor repeats one. Standard library only; calls
come from one thread at a time.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pulse_edge.common import times
from pulse_edge.common.database import Database
from pulse_edge.errors import PulseEdgeError
from pulse_edge.web import search
from pulse_edge.web.readings import PageRequest, Reading, Turn
from pulse_edge.web.schema import KIND

UPLOADS, PICTURES = "uploads", "pictures"
_SELECT = """
SELECT r.id, r.name, u.created, u.source, u.owner, r.state, r.checked, r.report, r.error,
    r.exit_code, r.confirmation, r.settled, r.number, r.upload, r.page, r.forced, u.options
FROM readings r JOIN uploads u ON u.id = r.upload
"""


class Stored(NamedTuple):
    """A reading, and what the workers need to know about it."""

    reading: Reading
    number: int
    upload: str
    page: int
    forced: bool
    request: PageRequest


class Job(NamedTuple):
    """Work for the model: a page's report, or a question about it."""

    number: int
    reading: str
    turn: int
    """0: the report."""
    crashes: int


class Entry(NamedTuple):
    """An entry that the audit log may lack."""

    key: str
    fields: dict[str, Any]
    retained: dict[str, Any] | None


class Store:
    """The open folder. Use it as a context manager."""

    def __init__(self, folder: Path, retain_days: int | None = None) -> None:
        """Open or begin it. Raises ServeError if another process has it, FolderError if it is not
        ours."""
        self.folder = folder
        self.retain_days = retain_days
        self.database = Database(folder, KIND)
        try:
            for name in (UPLOADS, PICTURES):
                (folder / name).mkdir(mode=0o700, exist_ok=True)
            with self.database.explained():
                self.database.connection.execute("PRAGMA secure_delete = ON")
                search.prepare(self.database.connection)
            self.database.begin()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the database and release the folder."""
        self.database.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def upload_path(self, upload: str) -> Path:
        """Return where an upload's bytes are."""
        return self.folder / UPLOADS / upload

    def picture_path(self, reading: str, file: str) -> Path:
        """Return where a picture of a reading is."""
        return self.folder / PICTURES / f"{reading}-{file}"

    # --- uploads ----------------------------------------------------------------------------------

    def add(
        self, upload: str, name: str, source: str, owner: str | None, request: PageRequest
    ) -> str:
        """Commit an upload whose file is in its place; return the id of its first page."""
        reading = secrets.token_urlsafe(16)
        insert = "INSERT INTO uploads (id, name, created, source, owner, options) VALUES (?, ?, ?, ?, ?, ?)"
        values = (upload, name, times.now().utc, source, owner, json.dumps(request.to_json()))
        with self.database.transaction() as db:
            db.execute(insert, values)
            self._insert_page(reading, upload, 1, name)
        return reading

    def _insert_page(self, reading: str, upload: str, page: int, name: str) -> None:
        insert = "INSERT INTO readings (id, upload, page, name, day) VALUES (?, ?, ?, ?, ?)"
        values = (reading, upload, page, name, today())
        self.database.connection.execute(insert, values)

    def opened(self, upload: str, pages: int) -> list[str]:
        """Commit how many pages an upload has; return their ids in order."""
        with self.database.transaction() as db:
            row = db.execute("SELECT name, pages FROM uploads WHERE id = ?", (upload,)).fetchone()
            if row is not None and row[1] is None:
                db.execute("UPDATE uploads SET pages = ? WHERE id = ?", (pages, upload))
                for page in range(2, pages + 1):
                    self._insert_page(secrets.token_urlsafe(16), upload, page, f"{row[0]}#{page}")
                if pages > 1:
                    update = "UPDATE readings SET name = ? WHERE upload = ? AND page = 1"
                    db.execute(update, (f"{row[0]}#1", upload))
        query = "SELECT id FROM readings WHERE upload = ? ORDER BY page"
        return [id for (id,) in self.database.all(query, (upload,))]

    def unopened(self) -> list[tuple[str, str, str]]:
        """Return (upload, id of its first page, name) of uploads whose pages were not counted."""
        query = """
            SELECT upload, r.id, u.name FROM readings r JOIN uploads u ON u.id = upload
            WHERE u.pages IS NULL AND state = 'checking' ORDER BY r.number
        """
        return [(upload, first, name) for upload, first, name in self.database.all(query)]

    def upload_crashed(self, upload: str) -> int:
        """Note that the page worker crashed while it opened an upload; return how often."""
        with self.database.transaction() as db:
            db.execute("UPDATE uploads SET crashes = crashes + 1 WHERE id = ?", (upload,))
            query = "SELECT crashes FROM uploads WHERE id = ?"
            row = db.execute(query, (upload,)).fetchone()
        return int(row[0]) if row else 0

    # --- pages ------------------------------------------------------------------------------------

    def get(self, reading: str) -> Stored:
        """Return a reading. Raises KeyError."""
        row = self.database.one(f"{_SELECT} WHERE r.id = ?", (reading,))
        if row is None:
            raise KeyError(reading)
        return self._stored(row)

    def next_unchecked(self) -> Stored | None:
        """Return the next page to check and measure, of an upload that was opened."""
        where = "WHERE r.state = 'checking' AND u.pages IS NOT NULL ORDER BY r.number LIMIT 1"
        row = self.database.one(f"{_SELECT} {where}")
        return None if row is None else self._stored(row)

    def checked(self, reading: str, checked: Mapping[str, Any], refusal: str | None) -> None:
        """Commit what the page worker says; an admitted page waits for the model.

        `refusal`: why the page is refused, with the advice; None: it is admitted.
        """
        state, code = ("waiting", 0) if refusal is None else ("refused", 3)
        with self.database.transaction() as db:
            update = """
                UPDATE readings SET state = ?, checked = ?, error = ?, exit_code = ?, settled = ?
                WHERE id = ? AND state = 'checking'
            """
            settled = None if refusal is None else today()
            values = (state, json.dumps(checked), refusal, code, settled, reading)
            if db.execute(update, values).rowcount and refusal is None:
                self._add_job(reading, 0)

    def _add_job(self, reading: str, turn: int) -> None:
        query = "SELECT options FROM uploads u JOIN readings r ON r.upload = u.id WHERE r.id = ?"
        options = json.loads(self.database.connection.execute(query, (reading,)).fetchone()[0])
        insert = "INSERT OR IGNORE INTO jobs (reading, turn, priority) VALUES (?, ?, ?)"
        self.database.connection.execute(insert, (reading, turn, int(options["priority"])))

    def page_crashed(self, reading: str) -> int:
        """Note that the page worker crashed at a page; return how often."""
        with self.database.transaction() as db:
            db.execute("UPDATE readings SET crashes = crashes + 1 WHERE id = ?", (reading,))
            query = "SELECT crashes FROM readings WHERE id = ?"
            row = db.execute(query, (reading,)).fetchone()
        return int(row[0]) if row else 0

    def failed(self, reading: str, error: PulseEdgeError) -> None:
        """Commit why a page has no answer."""
        update = """
            UPDATE readings SET state = 'failed', error = ?, exit_code = ?, settled = ? WHERE id = ?
        """
        with self.database.transaction() as db:
            db.execute(update, (str(error), error.exit_code, today(), reading))
            db.execute("DELETE FROM jobs WHERE reading = ? AND turn = 0", (reading,))

    def again(self, reading: str, *, force: bool) -> bool:
        """Put a page on the list again that was refused (with `force`) or failed."""
        update = """
            UPDATE readings SET state = 'checking', forced = max(forced, ?), error = NULL,
                exit_code = 0, crashes = 0, settled = NULL
            WHERE id = ? AND state IN ('refused', 'failed')
        """
        with self.database.transaction() as db:
            return db.execute(update, (int(force), reading)).rowcount > 0

    def confirm(self, reading: str, report: Mapping[str, Any], entry: Entry) -> None:
        """Commit a confirmed report, with its entry for the audit log."""
        update = "UPDATE readings SET report = ?, confirmation = ?, settled = ? WHERE id = ?"
        values = (json.dumps(report), json.dumps(report["confirmation"]), today(), reading)
        with self.database.transaction() as db:
            if not db.execute(update, values).rowcount:
                raise KeyError(reading)
            self._put_entry(reading, entry)

    def matching(self, where: str, values: Sequence[Any], limit: int) -> list[Stored]:
        """Return readings, newest first, for a condition on `r` and `u`."""
        query = f"{_SELECT} WHERE {where} ORDER BY r.number DESC LIMIT ?"
        return [self._stored(row) for row in self.database.all(query, (*values, limit))]

    # --- questions and the queue ------------------------------------------------------------------

    def ask(self, reading: str, question: str, *, fresh: bool) -> int:
        """Commit a question about a page; return its number. Raises KeyError."""
        with self.database.transaction() as db:
            if db.execute("SELECT 1 FROM readings WHERE id = ?", (reading,)).fetchone() is None:
                raise KeyError(reading)
            query = "SELECT coalesce(max(number), 0) + 1 FROM turns WHERE reading = ?"
            number = int(db.execute(query, (reading,)).fetchone()[0])
            insert = "INSERT INTO turns (reading, number, question, fresh) VALUES (?, ?, ?, ?)"
            db.execute(insert, (reading, number, question, int(fresh)))
            self._add_job(reading, number)
        return number

    def turn_ended(self, reading: str, turn: int, state: str, error: str | None) -> None:
        """Commit that a question has no answer: it failed, or was stopped before its first word."""
        update = "UPDATE turns SET state = ?, error = ? WHERE reading = ? AND number = ?"
        with self.database.transaction() as db:
            db.execute(update, (state, error, reading, turn))
            db.execute("DELETE FROM jobs WHERE reading = ? AND turn = ?", (reading, turn))

    def next_job(self, cached: str | None) -> Job | None:
        """Return the next work for the model: a question about the `cached` page first."""
        query = """
            SELECT number, reading, turn, crashes FROM jobs WHERE report IS NULL
            ORDER BY (turn > 0 AND reading = ?) DESC, priority DESC, number LIMIT 1
        """
        row = self.database.one(query, (cached or "",))
        return None if row is None else Job(*row)

    def page_of(self, job: Job) -> Stored | None:
        """Return the page of a job; None where the job was stopped or removed."""
        query = "SELECT 1 FROM jobs WHERE number = ? AND report IS NULL"
        return None if self.database.one(query, (job.number,)) is None else self.get(job.reading)

    def queues(self) -> tuple[list[tuple[str, int]], list[str]]:
        """Return what waits for the model as (reading, turn), and the pages that wait for the page
        worker; next first."""
        query = "SELECT reading, turn FROM jobs WHERE report IS NULL ORDER BY priority DESC, number"
        unchecked = "SELECT id FROM readings WHERE state = 'checking' ORDER BY number"
        jobs = [(reading, turn) for reading, turn in self.database.all(query)]
        return jobs, [id for (id,) in self.database.all(unchecked)]

    def job_crashed(self, job: int) -> int:
        """Note that the model worker crashed at a job; return how often."""
        with self.database.transaction() as db:
            db.execute("UPDATE jobs SET crashes = crashes + 1 WHERE number = ?", (job,))
            row = db.execute("SELECT crashes FROM jobs WHERE number = ?", (job,)).fetchone()
        return int(row[0]) if row else 0

    def answered(
        self, job: Job, report: Mapping[str, Any], ended: str, entries: Sequence[Entry]
    ) -> None:
        """Commit an answer, and the entries that the audit log must have before it is shown."""
        with self.database.transaction() as db:
            update = "UPDATE jobs SET report = ?, ended = ? WHERE number = ?"
            if db.execute(update, (json.dumps(report), ended, job.number)).rowcount:
                for entry in entries:
                    self._put_entry(job.reading, entry)

    def _put_entry(self, reading: str, entry: Entry) -> None:
        insert = "INSERT INTO entries (key, reading, fields, retained) VALUES (?, ?, ?, ?)"
        retained = None if entry.retained is None else json.dumps(entry.retained)
        values = (entry.key, reading, json.dumps(entry.fields), retained)
        self.database.connection.execute(insert, values)

    def entries(self) -> list[Entry]:
        """Return the entries that the audit log may lack, oldest first."""
        rows = self.database.all("SELECT key, fields, retained FROM entries ORDER BY number")
        return [Entry(k, json.loads(f), None if r is None else json.loads(r)) for k, f, r in rows]

    def logged(self, key: str) -> None:
        """Note that the audit log has an entry."""
        with self.database.transaction() as db:
            db.execute("DELETE FROM entries WHERE key = ?", (key,))

    def finish(self) -> list[str]:
        """Make every answer final whose entries are in the audit log; return their readings."""
        query = """
            SELECT number, reading, turn, report, ended FROM jobs WHERE report IS NOT NULL
            AND reading NOT IN (SELECT reading FROM entries) ORDER BY number
        """
        with self.database.transaction() as db:
            rows = db.execute(query).fetchall()
            for number, reading, turn, report, ended in rows:
                if turn:
                    update = (
                        "UPDATE turns SET state = ?, report = ? WHERE reading = ? AND number = ?"
                    )
                    state = "done" if ended == "whole" else "stopped"
                    db.execute(update, (state, report, reading, turn))
                else:
                    update = """
                        UPDATE readings SET state = 'done', report = ?, error = NULL, exit_code = 0
                        WHERE id = ?
                    """
                    db.execute(update, (report, reading))
                db.execute("DELETE FROM jobs WHERE number = ?", (number,))
        return [reading for _number, reading, *_rest in rows]

    def free_bytes(self) -> int:
        """Return the free space of the folder's disk."""
        return shutil.disk_usage(self.folder).free

    # --- sessions of browsers ---------------------------------------------------------------------

    def add_session(self, cookie: str) -> None:
        """Remember a browser's cookie, as a hash."""
        with self.database.transaction() as db:
            values = (_digest(cookie), times.now().utc)
            db.execute("INSERT OR IGNORE INTO sessions VALUES (?, ?)", values)
            newest = "SELECT hash FROM sessions ORDER BY created DESC, rowid DESC LIMIT 100"
            db.execute(f"DELETE FROM sessions WHERE hash NOT IN ({newest})")

    def sessions(self) -> list[str]:
        """Return the SHA-256 of every cookie that is valid.

        There are some where the last server was killed: one that ends forgets them.
        """
        return [hash for (hash,) in self.database.all("SELECT hash FROM sessions")]

    def forget_sessions(self) -> None:
        """End every session. While no server runs, a program of another user may listen on the
        port, and a browser would show it the cookie."""
        with self.database.transaction() as db:
            db.execute("DELETE FROM sessions")

    # --- rows -------------------------------------------------------------------------------------

    def _stored(self, row: tuple[Any, ...]) -> Stored:
        (id, name, created, source, owner, state, checked, report, error, code) = row[:10]
        (confirmation, settled, number, upload, page, forced, options) = row[10:]
        about = json.loads(checked) if checked else {}
        whole = json.loads(report) if report else None
        reading = Reading(
            id=id,
            name=name,
            created=created,
            source=source,
            owner=owner,
            state=state,
            text=answer_text(whole),
            notices=tuple(whole["notice"].splitlines()) if whole else (),
            admission=about.get("admission"),
            measurements=about.get("measurements"),
            report=whole,
            error=error,
            exit_code=code,
            turns=self._turns(id),
            confirmation=json.loads(confirmation) if confirmation else None,
            pictures=tuple(about.get("pictures", {})),
            kept_until=None if settled is None else last_day(settled, self.retain_days),
        )
        request = PageRequest.from_json(json.loads(options))
        return Stored(reading, number, upload, page, bool(forced), request)

    def picture(self, reading: str, kind: str) -> Path:
        """Return a picture's file. Raises KeyError where there is none."""
        row = self.database.one("SELECT checked FROM readings WHERE id = ?", (reading,))
        about = json.loads(row[0]) if row and row[0] else {}
        return self.picture_path(reading, about.get("pictures", {})[kind])

    def _turns(self, reading: str) -> tuple[Turn, ...]:
        query = """
            SELECT number, question, fresh, state, report, error FROM turns WHERE reading = ?
            ORDER BY number
        """
        return tuple(_turn(*row) for row in self.database.all(query, (reading,)))


def _turn(
    number: int, question: str, fresh: int, state: Any, report: str | None, error: Any
) -> Turn:
    about = json.loads(report) if report else None
    return Turn(
        number=number,
        question=question,
        text=answer_text(about),
        complete=bool(about and about["answers"][0]["complete"]),
        state=state,
        checks=tuple(about["checks"]) if about else (),
        contradictions=tuple(about["contradictions"]) if about else (),
        error=error,
        fresh=bool(fresh),
    )


def answer_text(report: Mapping[str, Any] | None) -> str:
    """Return the texts of a report's answers, a paragraph each."""
    return "" if report is None else "\n\n".join(answer["text"] for answer in report["answers"])


def last_day(settled: str, retain_days: int | None) -> str:
    """Return the last local day on which a page is stored that was settled on a day."""
    last = datetime.date.fromisoformat(settled) + datetime.timedelta(retain_days or 0)
    return last.isoformat()


def today() -> str:
    """Return the local day, ISO 8601."""
    return datetime.date.today().isoformat()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
