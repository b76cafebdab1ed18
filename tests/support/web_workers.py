"""Workers of the local page that do at once what a test tells them."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

from reports import report

from pulse_edge.errors import PulseEdgeError
from pulse_edge.web.child import WorkerCrashed
from pulse_edge.web.model_client import ModelState

ADMITTED = {"admission": {"verdict": "good"}, "measurements": None, "pictures": {}}


class Pages:
    """A page worker without a process: every upload has `pages` good pages."""

    def __init__(self) -> None:
        self.pages = 1
        self.refusal: str | None = None
        self.errors: dict[str, list[Exception]] = {}
        """Name of a page -> what its next jobs raise."""
        self.jobs: list[dict[str, Any]] = []

    def start(self) -> None:
        pass

    async def call(self, do: str, _urgency: int = 0, /, **about: Any) -> Any:
        self.jobs.append({"do": do, **about})
        if errors := self.errors.get(f"{do} {about['name']}"):
            raise errors.pop(0)
        if do == "count":
            return self.pages
        return {**ADMITTED, "refusal": None if about["force"] else self.refusal}

    async def close(self) -> None:
        pass


class Model:
    """A model worker without a process. `answers` are what its next jobs do."""

    def __init__(self) -> None:
        self.state = ModelState("ready")
        self.jobs: list[Mapping[str, Any]] = []
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
        self, job: Mapping[str, Any], seen: Callable[[dict[str, Any]], None]
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
                seen({"event": "text", "text": text})
            await self._stop.wait()
            self._stop.clear()
            if not text:
                return {"event": "stopped"}
            return {"event": "done", "report": self._report(job, text), "ended": "broken off"}
        return {"event": "done", "report": self._report(job, answer), "ended": "whole"}

    def _report(self, job: Mapping[str, Any], text: str) -> dict[str, Any]:
        question = job.get("question", "What?")
        whole = dataclasses.asdict(report(text, question=question, file=job["name"]))
        return dict(json.loads(json.dumps(whole)))

    async def stop(self, _job: int) -> None:
        self._stop.set()

    async def close(self) -> None:
        pass
