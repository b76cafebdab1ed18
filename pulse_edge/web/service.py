"""Everything that a page or a program can ask of the server. Routes call this alone.

In: uploads, questions, ids. Out: `Reading`s and JSON objects. What is stored and computed is in
store.py and work.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pulse_edge.audit_log.confirmations import ConfirmationLogger
from pulse_edge.audit_log.log import AuditLog
from pulse_edge.common import files
from pulse_edge.common.text import one_line
from pulse_edge.errors import KitError, OutputError, PulseEdgeError, ServeError, UsageError
from pulse_edge.kit import locate
from pulse_edge.kit.manifest import Manifest
from pulse_edge.report.overread import confirmed_json
from pulse_edge.report.report import INTENDED_USE
from pulse_edge.web import retention
from pulse_edge.web.live import StopWatching
from pulse_edge.web.options import ServeOptions
from pulse_edge.web.present import Moment
from pulse_edge.web.readings import (
    SOURCES,
    PageRequest,
    Reading,
    Turn,
    check_question,
)
from pulse_edge.web.search import HOLDS_TEXT
from pulse_edge.web.store import Entry, Store
from pulse_edge.web.work import Work

MAX_NAME = 200
"""Characters of an upload's name that are stored."""
FORMS = ("pdf", "html", "json", "fhir", "text")
SHOWN = 50
"""Newest readings that a watcher of everything gets first."""
PICTURE_KINDS = ("page", "overlay", "trace", "thumb")


class Service:
    """The running service. Use it as an asynchronous context manager."""

    def __init__(self, options: ServeOptions, audit_log: AuditLog | None = None) -> None:
        """Open the folder. Raises ServeError if another process has it, FolderError, AuditLogError
        where answers cannot be logged."""
        self.options = options
        log = audit_log or AuditLog()
        log.ready()
        self.store = Store(options.folder, options.request.output.retain_days)
        self.work = Work(options.request, self.store, log)
        self._confirming = asyncio.Lock()
        self._kit = _kit(options.request.model.kit)

    async def __aenter__(self) -> Service:
        await self.work.stored(retention.sweep, self.store)
        await self.work.start()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End the workers; what was not finished stays on the list."""
        await self.work.close()
        self.store.close()

    # --- uploads ----------------------------------------------------------------------------------

    def new_upload(self) -> Path:
        """Return a new path for an upload's bytes, in which a crash leaves nothing."""
        return self.store.upload_path(f"{files.UNFINISHED}{secrets.token_hex(16)}")

    async def submit(
        self,
        upload: Path | bytes,
        name: str,
        *,
        source: str,
        owner: str | None = None,
        options: dict[str, Any] | None = None,
    ) -> list[str]:
        """Store an upload and put its pages on the list; return an id for each page.

        A path below the store's folder is moved, any other is copied. Raises UsageError for options
        that do not exist, ServeError where the disk is full.
        """
        if source not in SOURCES:
            raise UsageError(f"source {source!r}: expected one of {', '.join(SOURCES)}.")
        request, shown = PageRequest.of(options), _printable(name)
        key = secrets.token_urlsafe(16)
        first = await self.work.stored(self._place, upload, key, (shown, source, owner, request))
        self.work.watchers.changed(first)
        return await self.work.open_upload(key, shown, first)

    def _place(self, upload: Path | bytes, key: str, about: tuple[Any, ...]) -> str:
        target = self.store.upload_path(key)
        try:
            if isinstance(upload, bytes):
                files.write_whole(target, (upload,))
            elif upload.parent == target.parent:
                with open(upload, "rb+") as file:
                    files.sync(file.fileno())
                upload.rename(target)
            else:
                files.write_whole(target, (upload.read_bytes(),))
            files.sync_folder(target.parent)
        except OSError as e:
            target.unlink(missing_ok=True)
            raise ServeError(
                f"{target.parent}: the upload cannot be written ({e.strerror}). Free space on the "
                "disk, and upload it again."
            ) from None
        return self.store.add(key, *about)

    # --- what is known ----------------------------------------------------------------------------

    async def reading(self, id: str) -> Reading:
        """Return a page as it is now. Raises KeyError."""
        stored = await self.work.stored(self.store.get, id)
        return (await Moment.of(self.work)).reading(stored.reading)

    async def readings(
        self,
        *,
        day: str | None = None,
        text: str | None = None,
        limit: int = SHOWN,
        before: str | None = None,
        owner: str | None = None,
    ) -> list[Reading]:
        """Return readings, newest first: of a local `day` (ISO 8601), with `text` in its name, in the
        model's texts or in the reader's, older than the reading `before`, of a phone."""
        where, values = ["1"], []
        for condition, value in (("r.day = ?", day), ("u.owner = ?", owner)):
            if value is not None:
                where.append(condition)
                values.append(value)
        if text:
            where.append(HOLDS_TEXT)
            values.append(text)
        if before is not None:
            where.append("r.number < (SELECT number FROM readings WHERE id = ?)")
            values.append(before)
        condition = " AND ".join(where)
        bounded = max(1, min(limit, 500))
        return await self._matching(condition, values, bounded)

    async def _matching(self, condition: str, values: list[Any], limit: int) -> list[Reading]:
        matching = await self.work.stored(self.store.matching, condition, values, limit)
        moment = await Moment.of(self.work)
        return [moment.reading(stored.reading) for stored in matching]

    async def events(self, id: str | None = None) -> AsyncIterator[Reading]:
        """Yield the current state first, then every change, at most ten a second.

        Without an id: of the newest readings, then of each that changes. A reading that was removed
        comes with the state `removed`, and ends the events about it. Raises KeyError.
        """
        with self.work.watchers.watching(id) as watcher:
            last: dict[str, Reading] = {}
            current = await self.readings() if id is None else [await self.reading(id)]
            while True:
                for reading in reversed(current):
                    if last.get(reading.id) != reading:
                        last[reading.id] = reading
                        yield reading
                    if reading.settled:  # it rarely changes again; remember few
                        last.pop(reading.id)
                if id is not None and current and current[0].state == "removed":
                    return
                try:
                    changed = await watcher.changes()
                except StopWatching:
                    return
                current = await self._changed({id} if id is not None else changed)

    async def _changed(self, ids: set[str] | None) -> list[Reading]:
        """Return the readings of some ids, or of everything that is being worked on."""
        if ids is None:
            active = "r.state IN ('checking', 'waiting') OR r.id IN (SELECT reading FROM jobs)"
            return await self._matching(active, [], SHOWN)
        readings = []
        for id in sorted(ids):
            try:
                readings.append(await self.reading(id))
            except KeyError:
                readings.append(Reading(id, "", "", "local", "removed"))
        return readings

    # --- what can be done -------------------------------------------------------------------------

    async def ask(self, id: str, question: str, *, fresh: bool = False) -> int:
        """Put a question about a page on the list; return its number.

        `fresh` begins a new conversation. Raises KeyError, UsageError.
        """
        check_question(question)
        reading = await self.reading(id)
        if reading.state != "done":
            raise UsageError("the page has no answer yet. Ask when it is read.")
        number = await self.work.stored(self.store.ask, id, question, fresh=fresh)
        self.work.job_added()
        return number

    async def stop(self, id: str) -> None:
        """Stop the answers about a page that run or wait. Raises KeyError."""
        await self.work.stored(self.store.get, id)
        await self.work.stop(id)
        self.work.watchers.changed(id)

    async def confirm(self, id: str, confirmation: dict[str, Any], *, corrects: int = 0) -> None:
        """Join what a reader decided to the report, and log it.

        `corrects`: number of the confirmation that the reader has seen and corrects; 0: there was
        none. Raises KeyError, UsageError, also where another reader was faster, and AuditLogError
        where the log cannot be read.
        """
        async with self._confirming:
            reading = await self.reading(id)
            if reading.report is None:
                raise UsageError("the page has no answer that could be confirmed.")
            if (last := reading.confirmation or {}).get("number", 0) != corrects:
                raise UsageError(
                    f"the page was confirmed meanwhile, by {one_line(last.get('reader', ''))}. "
                    "Look at that confirmation; if yours is to replace it, confirm once more."
                )
            report = confirmed_json(reading.report, confirmation)
            fields = await self.work.in_log(ConfirmationLogger(self.work.audit_log).fields, report)
            key = f"{id}/confirmation/{report['confirmation']['number']}"
            await self.work.stored(self.store.confirm, id, report, Entry(key, fields, None))
            await self.work.log_all()
        self.work.watchers.changed(id)

    async def force(self, id: str) -> None:
        """Read a refused page all the same; the report says so. Raises KeyError, UsageError."""
        await self._again(id, ("refused",), force=True)

    async def retry(self, id: str) -> None:
        """Read a page again that failed or was stopped. Raises KeyError, UsageError."""
        await self._again(id, ("failed",), force=False)

    async def _again(self, id: str, states: tuple[str, ...], *, force: bool) -> None:
        reading = await self.reading(id)
        if reading.state not in states or not await self.work.stored(
            self.store.again, id, force=force
        ):
            raise UsageError(f"the page is {reading.state}, so it is not read again.")
        self.work.page_added()
        self.work.watchers.changed(id)

    async def remove(self, id: str) -> None:
        """Remove everything about a page but its entries in the audit log.

        Raises KeyError, and AuditLogError where entries about it cannot be written.
        """
        await self.stop(id)
        await self.work.log_all(wait=False)
        await self.work.stored(retention.remove, self.store, id)
        self.work.watchers.changed(id)
        self.work.watchers.changed_all()

    def load_model(self) -> None:
        """Try again to load a kit that could not be used."""
        self.work.load_model()

    # --- files ------------------------------------------------------------------------------------

    async def picture(self, id: str, kind: str) -> Path:
        """Return the file of a picture, of PICTURE_KINDS. Raises KeyError."""
        if kind not in PICTURE_KINDS:
            raise KeyError(kind)
        return await self.work.stored(self.store.picture, id, kind)

    async def document(self, id: str, form: str) -> bytes:
        """Return the report in a form of FORMS. Raises KeyError, UsageError, EngineError."""
        if form not in FORMS:
            raise KeyError(form)
        stored = await self.work.stored(self.store.get, id)
        report = stored.reading.report
        if report is None:
            raise UsageError("the page has no report yet.")
        if form == "json":
            from pulse_edge.common.text import json_text

            return (json_text(report) + "\n").encode()
        picture = await self.work.stored(self.store.picture, id, "page")
        out = self.store.picture_path(id, f"{secrets.token_hex(8)}.{form}")
        job = self.work.page_job(stored) | {"form": form, "report": report, "out": str(out)}
        job |= {"picture": str(picture), "measured": stored.reading.measurements is not None}
        with _removing(out):
            await self.work.pages.call_twice("render", **job)
            return out.read_bytes()

    # --- one-shot ---------------------------------------------------------------------------------

    async def check(
        self, upload: Path | bytes, name: str, options: dict[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Return for each page what `check --json` prints; nothing is stored.

        `options`: no_rectify. Raises ScanError, UsageError.
        """
        straighten = not PageRequest.of(options).no_rectify
        return await self._once("check", upload, name, {"rectify": straighten})

    async def measure(
        self, upload: Path | bytes, name: str, options: dict[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Return for each page what `measure --json` prints; nothing is stored.

        `options`: age_years, sex, force. Raises ScanError, UsageError.
        """
        request = PageRequest.of(options)
        about = {"age_years": request.age_years, "sex": request.sex, "force": request.force}
        return await self._once("measure", upload, name, about)

    async def _once(
        self, do: str, upload: Path | bytes, name: str, about: dict[str, Any]
    ) -> list[dict[str, Any]]:
        path = self.new_upload() if isinstance(upload, bytes) else upload
        with _removing(path):
            if isinstance(upload, bytes):
                try:
                    files.write_whole(path, (upload,))
                except OSError as e:
                    raise OutputError(
                        f"{path.parent}: cannot be written ({e.strerror}). Free space."
                    ) from None
            result: list[dict[str, Any]] = await self.work.pages.call_twice(
                do, file=str(path), name=_printable(name), **about
            )
            return result

    def about(self) -> dict[str, Any]:
        """Return what a page says about the program: kit, device, warnings, state of the model."""
        model = self.work.model.state
        return {
            "version": version("pulse-edge"),
            "intended_use": INTENDED_USE,
            "model": {"state": model.state, "reason": model.reason, "progress": model.progress},
            "kit": dict(model.about) or None,
            "kit_id": self._kit and self._kit.id,
            "kit_created": self._kit and self._kit.created,
            "log_error": self.work.log_error,
            "page_seconds": self.work.page_seconds,
            "phone": self.options.phone is not None,
            "retain_days": self.options.request.output.retain_days,
        }


def _kit(kit: Path | None) -> Manifest | None:
    """Return the manifest of the kit that is loaded; None where there is none."""
    with contextlib.suppress(KitError):
        return locate.find(kit).manifest
    return None


@contextlib.contextmanager
def _removing(path: Path) -> Any:
    """Remove a file at the end of the block."""
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _printable(name: str) -> str:
    """Return an upload's name without folders and harmful characters."""
    base = name.replace("\\", "/").rpartition("/")[2].strip()
    return one_line(base or "page")[:MAX_NAME]


__all__ = ["FORMS", "PICTURE_KINDS", "PulseEdgeError", "Reading", "Service", "Turn"]
