"""Workers of the local page that do at once what a test tells them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from reports import report

from pulse_edge.audit_log.log import AuditLog
from pulse_edge.errors import PulseEdgeError
from pulse_edge.inference.request import Request
from pulse_edge.web.child import WorkerCrashed
from pulse_edge.web.model_client import ModelState
from pulse_edge.web.options import ServeOptions
from pulse_edge.web.readings import Reading
from pulse_edge.web.service import Service

T = TypeVar("T")

AGREED = {"reader": "Dr Amina Diallo", "texts": [{"answer": 0, "decision": "agreed"}]}
"""What a reader confirms."""
ADMITTED = {"admission": {"verdict": "good"}, "measurements": None, "pictures": {}}


class Pages:
    """A page worker without a process: every upload has `pages` good pages."""

    def __init__(self) -> None:
        self.pages = 1
        self.refusal: str | None = None
        self.errors: dict[str, list[Exception]] = {}
        """Name of a page -> what its next jobs raise."""
        self.jobs: list[dict[str, Any]] = []
        self.gate = asyncio.Event()
        """Checks wait for it."""
        self.gate.set()
        self.picture = b""
        """A picture that each check writes."""

    def start(self) -> None:
        pass

    async def call(self, do: str, _urgency: int = 0, /, **about: Any) -> Any:
        self.jobs.append({"do": do, **about})
        if errors := self.errors.get(f"{do} {about['name']}"):
            raise errors.pop(0)
        if do == "count":
            return self.pages
        await self.gate.wait()
        if self.picture:
            Path(f"{about['prefix']}-page.png").write_bytes(self.picture)
        return {**ADMITTED, "refusal": None if about["force"] else self.refusal}

    async def close(self) -> None:
        pass


class Model:
    """A model worker without a process. `answers` are what its next jobs do."""

    def __init__(self) -> None:
        self.state = ModelState("ready")
        self.jobs: list[Mapping[str, Any]] = []
        self.page_seconds: float | None = None
        """What it says that a page takes."""
        self.answers: list[Any] = []
        """A text; an exception; or a text to speak before the job waits to be stopped, in a list.
        """
        self.error: PulseEdgeError | None = None
        """Why the kit cannot be used."""
        self.gate = asyncio.Event()
        """Jobs wait for it."""
        self.gate.set()
        self._stop = asyncio.Event()

    async def load(self) -> None:
        if self.error is not None:
            self.state = ModelState("failed", str(self.error))
            raise self.error
        self.state = ModelState("ready")

    async def run(
        self, job: Mapping[str, Any], event_seen: Callable[[dict[str, Any]], None]
    ) -> dict[str, Any]:
        self.jobs.append(job)
        await self.gate.wait()
        answer = self.answers.pop(0) if self.answers else f"Answer {len(self.jobs)}."
        if isinstance(answer, WorkerCrashed):
            raise answer
        if isinstance(answer, PulseEdgeError):
            about = {"error": str(answer), "kind": type(answer).__name__, "exit_code": 1}
            return {"event": "failed", **about}
        if isinstance(answer, list):
            (text,) = answer
            if text:
                event_seen({"event": "text", "text": text})
            await self._stop.wait()
            self._stop.clear()
            if not text:
                return {"event": "stopped"}
            return {"event": "done", "report": self._report(job, text), "ended": "broken off"}
        event_seen({"event": "text", "text": answer})
        done = {"event": "done", "report": self._report(job, answer), "ended": "whole"}
        return done | {"page_seconds": self.page_seconds}

    def _report(self, job: Mapping[str, Any], text: str) -> dict[str, Any]:
        question = job.get("question", "What?")
        whole = dataclasses.asdict(report(text, question=question, file=job["name"]))
        return dict(json.loads(json.dumps(whole)))

    async def stop(self, _job: int) -> None:
        self._stop.set()

    async def close(self) -> None:
        pass


@contextlib.asynccontextmanager
async def serving(folder: Path, **more: Any) -> AsyncIterator[tuple[Service, Pages, Model]]:
    """A service with workers of a test."""
    options = ServeOptions(Request(**more), folder / "web")
    service = Service(options, AuditLog(folder / "audit-log"))
    pages, model = Pages(), Model()
    service.work.pages, service.work.model = pages, model  # type: ignore[assignment]
    async with service:
        yield service, pages, model


def run(test: Callable[[], Awaitable[T]]) -> T:
    return asyncio.run(asyncio.wait_for(test(), 60))  # type: ignore[arg-type]


async def until(service: Service, id: str, condition: Callable[[Reading], bool]) -> Reading:
    """Wait until a page's state satisfies a condition."""
    async for reading in service.events(id):
        if condition(reading):
            return reading
    raise AssertionError


async def settled(service: Service, id: str) -> Reading:
    return await until(service, id, lambda reading: reading.settled)


def logged(folder: Path) -> list[tuple[str, str]]:
    """Id and end of every answer in the audit log."""
    log = AuditLog(folder / "audit-log")
    exists = (log.folder / "entries.log").exists()
    return [(e.fields["id"], e.fields["ended"]) for e in log.entries()] if exists else []
