"""The work on uploads: open, check and measure their pages, have them answered, bring the answers
into the audit log. One page and one answer at a time; every step is committed before the next."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from pulse_edge.audit_log.log import AuditLog
from pulse_edge.batch.work import MAX_CRASHES
from pulse_edge.common.text import one_line
from pulse_edge.errors import AuditLogError, EngineError, PageFailed, PulseEdgeError
from pulse_edge.inference.request import Request
from pulse_edge.web import log_entries, page_options, retention
from pulse_edge.web.child import WorkerCrashed, error_of
from pulse_edge.web.live import Watchers
from pulse_edge.web.model_client import ModelWorker
from pulse_edge.web.page_client import ORDINARY, PageWorker
from pulse_edge.web.readings import Progress
from pulse_edge.web.store import PICTURES, Job, Store, Stored

T = TypeVar("T")
LOG_PAUSE = 5.0
"""Seconds until the audit log is tried again after an error."""
DAY_PAUSE = 600.0
"""Seconds between two looks at the date."""
RETRY_SECONDS = 60.0
"""Until a kit that could not be used is tried again: memory may be free by then."""
NEWEST_SHARE = 0.3
"""Weight of the newest page in the average time of a check."""
LOGGING = "log"
"""Stage of an answer that is whole, and on its way into the audit log."""
_log = logging.getLogger("pulse_edge.web")


@dataclass(frozen=True)
class Running:
    """The job that the model is working on."""

    job: Job
    progress: Progress | None = None
    text: str = ""
    notices: tuple[str, ...] = ()


class Work:
    """The loops that empty the lists of the store."""

    def __init__(self, request: Request, store: Store, audit_log: AuditLog) -> None:
        self.request, self.store, self.audit_log = request, store, audit_log
        self.watchers = Watchers()
        self.pages = PageWorker()
        self.model = ModelWorker(page_options.to_json(request), self.watchers.changed_all)
        self.running: Running | None = None
        self.log_error: str | None = None
        """Why answers cannot be logged at the moment, so that none is shown."""
        self.page_seconds: float | None = None
        """Seconds of a page, as the model worker expects them."""
        self.check_seconds: float | None = None
        """Seconds in which the page worker checks and measures a page, on average."""
        self._cached: str | None = None
        self._new_page, self._new_job, self._load = (
            asyncio.Event(),
            asyncio.Event(),
            asyncio.Event(),
        )
        self._ended = asyncio.Event()
        self._uncertain = True  # entries of an earlier process may be in the log
        self._log_lock = asyncio.Lock()
        self._threads = ThreadPoolExecutor(1, "store"), ThreadPoolExecutor(1, "audit-log")
        self._tasks: list[asyncio.Task[None]] = []

    # --- threads ----------------------------------------------------------------------------------

    async def stored(self, call: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """Call a method of the store in its thread."""
        return await _in_thread(self._threads[0], call, *arguments, **named)

    async def in_log(self, call: Callable[..., T], *arguments: Any) -> T:
        """Call what reads the audit log in its thread, when every entry that is due is there.

        Raises PulseEdgeError where the log cannot be written.
        """
        await self.log_all(wait=False)
        return await _in_thread(self._threads[1], call, *arguments)

    async def start(self) -> None:
        """Begin to work, with what an earlier process left on the list."""
        self.pages.start()
        self._tasks = [
            asyncio.create_task(self._guarded(loop))
            for loop in (self._check_pages, self._answer_jobs, self._remove_daily)
        ]

    async def _guarded(self, loop: Callable[[], Any]) -> None:
        """Run a loop for ever: a fault of one page ends neither the loop nor the server."""
        while True:
            try:
                await loop()
            except asyncio.CancelledError:
                raise
            except Exception:
                _log.exception("the work goes on after an unexpected error")
                await asyncio.sleep(1.0)

    async def close(self) -> None:
        """End both workers. What was not finished stays on the list."""
        self.watchers.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(self.pages.close(), self.model.close())
        for thread in self._threads:
            thread.shutdown()

    # --- pages ------------------------------------------------------------------------------------

    def page_added(self) -> None:
        """Wake the loop that checks pages."""
        self._new_page.set()

    def job_added(self) -> None:
        """Wake the loop that answers."""
        self._new_job.set()
        self.watchers.changed_all()

    async def open_upload(self, upload: str, name: str, first: str) -> list[str]:
        """Count the pages of an upload; return the ids of its readings.

        An upload that cannot be opened has one reading, which failed.
        """
        while True:
            try:
                path = str(self.store.upload_path(upload))
                count = await self.pages.call("count", file=path, name=name)
            except PulseEdgeError as e:
                return await self._unreadable(upload, first, e)
            except WorkerCrashed as e:
                if await self.stored(self.store.upload_crashed, upload) >= MAX_CRASHES:
                    return await self._unreadable(upload, first, _ended(name, e))
            else:
                ids = await self.stored(self.store.opened, upload, count)
                self.page_added()
                return ids

    async def _unreadable(self, upload: str, first: str, error: PulseEdgeError) -> list[str]:
        await self.stored(self.store.failed, first, error)
        await self.stored(self.store.opened, upload, 1)
        self.watchers.changed(first)
        return [first]

    async def _check_pages(self) -> None:
        for upload, first, name in await self.stored(self.store.unopened):
            await self.open_upload(upload, name, first)
        while True:
            self._new_page.clear()
            page = await self.stored(self.store.next_unchecked)
            if page is None:
                await self._new_page.wait()
            else:
                await self._check(page)
                self.watchers.changed(page.reading.id)

    async def _check(self, page: Stored) -> None:
        id, name, begun = page.reading.id, page.reading.name, time.monotonic()
        try:
            checked = await self.pages.call(
                "prepare",
                ORDINARY,
                **self.page_job(page),
                prefix=str(self.store.picture_path(id, "")).rstrip("-"),
            )
        except PulseEdgeError as e:
            await self.stored(self.store.failed, id, e)
        except WorkerCrashed as e:
            if await self.stored(self.store.page_crashed, id) >= MAX_CRASHES:
                await self.stored(self.store.failed, id, _ended(name, e))
        else:
            seconds = time.monotonic() - begun
            each = seconds if self.check_seconds is None else self.check_seconds
            self.check_seconds = each + (seconds - each) * NEWEST_SHARE
            await self.stored(self.store.checked, id, checked, checked.pop("refusal"))
            await self.stored(retention.remove_orphans, self.store, id)
            self.job_added()

    def page_job(self, page: Stored) -> dict[str, Any]:
        """Return what the page worker needs to know about a page."""
        request = self.request_of(page)
        return {
            "file": str(self.store.upload_path(page.upload)),
            "page": page.page,
            "name": page.reading.name.removesuffix(f"#{page.page}"),
            "rectify": request.page.rectify,
            "force": request.page.force,
            "measure": request.measurement.enabled,
            "age_years": request.measurement.age_years,
            "sex": request.measurement.sex,
            "retain": request.output.retain_days is not None,
        }

    def request_of(self, page: Stored) -> Request:
        """Return the request that a page is read with."""
        return page_options.for_page(self.request, page.request, force=page.forced)

    async def _remove_daily(self) -> None:
        """Remove at the beginning of each day what was stored until the day before.

        The time in which a laptop sleeps does not count for a pause, so pauses are short.
        """
        day = retention.present_day()  # what is over by now was removed at the start
        while True:
            await asyncio.sleep(min(retention.seconds_to_next_day(), DAY_PAUSE))
            if day == (day := retention.present_day()):
                continue
            for reading in await self.stored(retention.sweep, self.store):
                self.watchers.changed(reading)
            with contextlib.suppress(AuditLogError):
                await _in_thread(self._threads[1], self.audit_log.forget)

    # --- answers ----------------------------------------------------------------------------------

    def load_model(self) -> None:
        """Try to load the kit again after it could not be used."""
        self._load.set()

    async def _answer_jobs(self) -> None:
        while True:
            await self.log_all()
            try:
                await self.model.load()
            except PulseEdgeError as e:
                _log.error("%s", one_line(str(e)))
                await self._wait_to_load(e)
                continue
            self.page_seconds = self.page_seconds or self.model.state.about.get("page_seconds")
            self._new_job.clear()
            job = await self.stored(self.store.next_job, self._cached)
            if job is None:
                await self._new_job.wait()
            else:
                await self._answer(job)
                self.watchers.changed_all()

    async def _wait_to_load(self, error: PulseEdgeError) -> None:
        """Wait until the kit may be tried again. A kit that crashes the program is not tried by
        itself."""
        self._load.clear()
        seconds = None if isinstance(error, EngineError) else RETRY_SECONDS
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._load.wait(), seconds)

    async def _answer(self, job: Job) -> None:
        page = await self.stored(self.store.page_of, job)
        if page is None:  # stopped or removed in between
            return
        self.running = Running(job, Progress("encode", 0, 1, self.page_seconds))
        self.watchers.changed_all()
        try:
            event = await self.model.run(self._model_job(job, page), self._event)
            self._cached = job.reading
            await self._ended_job(job, page, event)
        except WorkerCrashed as e:
            self._cached = None
            if await self.stored(self.store.job_crashed, job.number) >= MAX_CRASHES:
                await self._failed(job, _ended(page.reading.name, e))
        finally:
            self.running = None
            self._ended.set()
            self.watchers.changed(job.reading)

    async def _ended_job(self, job: Job, page: Stored, event: dict[str, Any]) -> None:
        """Commit what the last event of a job says."""
        self.page_seconds = event.get("page_seconds") or self.page_seconds
        if event["event"] == "failed":
            await self._failed(job, error_of(event))
        elif event["event"] == "stopped":
            await self._stopped(job.reading, job.turn)
        else:
            if self.running is not None:  # what was spoken stays to be seen while it is logged
                self.running = replace(self.running, progress=Progress(LOGGING, 0, 1, None))
            await self._finish(job, page, event["report"], event["ended"])

    def _model_job(self, job: Job, page: Stored) -> dict[str, Any]:
        request = self.request_of(page)
        about = self.page_job(page)
        common = {
            "job": job.number,
            "file": about["file"],
            "page": about["page"],
            "name": about["name"],
            "request": page_options.to_json(request),
        }
        if not job.turn:
            return common | {"do": "read", "history": page.request.history}
        turn = page.reading.turns[job.turn - 1]
        return common | {
            "do": "ask",
            "question": turn.question,
            "history": _history(page, job.turn),
        }

    def _event(self, event: dict[str, Any]) -> None:
        """Take over an event of the running job."""
        running = self.running
        if running is None:
            return
        if event["event"] == "text":
            running = replace(running, text=running.text + event["text"])
        elif event["event"] == "answer":
            text = f"{running.text}\n\n" if running.text else ""
            running = replace(running, text=text, notices=tuple(event["notices"]))
        elif event["event"] == "progress":
            progress = (event["stage"], event["done"], event["total"], event["seconds_left"])
            running = replace(running, progress=Progress(*progress))
        self.running = running
        self.watchers.changed(running.job.reading)

    async def _finish(self, job: Job, page: Stored, report: dict[str, Any], ended: str) -> None:
        request = self.request_of(page)
        days = request.output.retain_days
        picture = f"{job.reading}-original.png"
        retained = None if days is None else (days, picture)
        key = f"{job.reading}/{job.turn}"
        settings = request.settings()
        entries = log_entries.entries_of(key, report, settings, ended, retained)
        await self.stored(self.store.answered, job, report, ended, entries)
        await self.log_all()

    async def _failed(self, job: Job, error: PulseEdgeError) -> None:
        if job.turn:
            await self.stored(self.store.turn_ended, job.reading, job.turn, "failed", str(error))
        else:
            await self.stored(self.store.failed, job.reading, error)

    async def _stopped(self, reading: str, turn: int) -> None:
        if turn:
            await self.stored(self.store.turn_ended, reading, turn, "stopped", None)
        else:
            why = "The reading was stopped before the first word. Read the page again."
            await self.stored(self.store.failed, reading, PageFailed(why))

    async def stop(self, reading: str) -> None:
        """Stop what the model says about a page, and take the page off the list.

        Returns when nothing about the page runs any more.
        """
        for waiting, turn in (await self.stored(self.store.queues))[0]:
            running = self.running
            if waiting == reading and (running is None or running.job[1:3] != (reading, turn)):
                await self._stopped(reading, turn)
        while (running := self.running) is not None and running.job.reading == reading:
            if running.progress is not None and running.progress.stage == LOGGING:
                break
            self._ended.clear()
            await self.model.stop(running.job.number)
            await self._ended.wait()

    # --- audit log --------------------------------------------------------------------------------

    async def log_all(self, *, wait: bool = True) -> None:
        """Bring every entry that is due into the audit log, and make the answers final.

        Waits while the log cannot be written: an answer that is not logged must not be shown.
        Without `wait`, for a person who looks at the page meanwhile, it raises PulseEdgeError.
        """
        while True:
            async with self._log_lock:
                try:
                    await self._log_once()
                except PulseEdgeError as e:
                    self._log_failed(str(e))
                    if not wait:
                        raise
                else:
                    self.log_error = None
                    for reading in await self.stored(self.store.finish):
                        self.watchers.changed(reading)
                    return
            await asyncio.sleep(LOG_PAUSE)

    def _log_failed(self, why: str) -> None:
        """Note why the log cannot be written; the terminal shows it once."""
        if self.log_error != why:
            _log.error("%s", one_line(why))
        self.log_error = why
        self.watchers.changed_all()

    async def _log_once(self) -> None:
        due, thread = await self.stored(self.store.entries), self._threads[1]
        there: set[str] = set()
        uncertain, self._uncertain = self._uncertain, True
        if uncertain and due:
            keys = [entry.key for entry in due]
            there = await _in_thread(thread, log_entries.present, self.audit_log, keys)
        pictures = self.store.folder / PICTURES
        for entry in due:
            if entry.key not in there:
                await _in_thread(thread, log_entries.append, self.audit_log, entry, pictures)
            await self.stored(self.store.logged, entry.key)
        self._uncertain = False


def _history(page: Stored, turn: int) -> list[tuple[str, str]]:
    """Return the questions and answers before a turn, as far as its conversation goes back."""
    history: list[tuple[str, str]] = [*page.request.history]
    report = page.reading.report
    if report is not None:
        history += [(answer["question"], answer["text"]) for answer in report["answers"]]
    for earlier in page.reading.turns[:turn]:
        if earlier.fresh:
            history.clear()
        if earlier.number < turn:
            history.append((earlier.question, earlier.text))
    return [pair for pair in history if pair[1]]  # an empty answer cannot be a turn


def _ended(name: str, crash: WorkerCrashed) -> PageFailed:
    return PageFailed(
        f"{name}: ended the program {MAX_CRASHES} times ({crash}). Export the page as PNG and try "
        "that."
    )


async def _in_thread(
    thread: ThreadPoolExecutor, call: Callable[..., T], *arguments: Any, **named: Any
) -> T:
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(thread, lambda: call(*arguments, **named))
