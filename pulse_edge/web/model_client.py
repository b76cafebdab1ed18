"""The model worker as the server sees it: one job at a time, in a process that loads the kit once
and is started again after a crash."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pulse_edge.errors import EngineError, PulseEdgeError
from pulse_edge.web.child import Child, WorkerCrashed, error_of

MODULE = "pulse_edge.web.model_worker"
MAX_LOAD_CRASHES = 2
"""Crashes in a row while the kit is loaded, after which a page is not the cause."""
SHOW_SECONDS = 1.0
_LAST = frozenset({"done", "failed", "stopped"})


@dataclass(frozen=True)
class ModelState:
    """What the server knows of the model."""

    state: Literal["loading", "ready", "failed"] = "loading"
    reason: str | None = None
    """Why the kit cannot be used, and the next step."""
    progress: dict[str, Any] | None = None
    """Of loading: stage, done, total, seconds_left."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """Kit, device, warnings; empty until it is loaded."""


class ModelWorker:
    """The model worker; jobs are given by one caller."""

    def __init__(self, settings: Mapping[str, Any], changed: Callable[[], None]) -> None:
        """`settings`: see `page_options.to_json`; `changed` is called when `state` has changed."""
        self._settings, self._changed = settings, changed
        self._child: Child | None = None
        self._crashes = 0
        self._shown = 0.0
        self.state = ModelState()

    @property
    def pid(self) -> int | None:
        """Process id of the worker; None while there is none."""
        return None if self._child is None else self._child.pid

    def _set(self, state: ModelState) -> None:
        self.state = state
        self._changed()

    async def load(self) -> None:
        """Start the process and wait until it is ready. Raises PulseEdgeError where the kit cannot
        be used."""
        while self.state.state != "ready" or self._child is None:
            self._set(ModelState())
            try:
                await self._load()
            except WorkerCrashed as e:
                await self._drop()
                self._crashes += 1
                if self._crashes < MAX_LOAD_CRASHES:
                    continue
                why = f"the program crashed while it loaded the kit ({e}). Run pulse-edge doctor."
                self._fail(EngineError(why))
            except OSError as e:
                why = f"the model's process cannot be started ({e.strerror}). Free memory."
                self._fail(EngineError(why))

    async def _load(self) -> None:
        self._child = await Child.start(MODULE, self._settings)
        async for event in self._child.events():
            if event["event"] == "progress":
                self._progress(event)
            elif event["event"] == "unusable":
                await self._drop()
                self._fail(error_of(event))
            elif event["event"] == "ready":
                self._crashes = 0
                self._set(ModelState("ready", about=event))
                return

    def _progress(self, event: dict[str, Any]) -> None:
        """Note how far loading is; everybody who waits hears of it once a second."""
        self.state = ModelState(progress=event)
        now = time.monotonic()
        if now - self._shown >= SHOW_SECONDS:
            self._shown = now
            self._changed()

    def _fail(self, error: PulseEdgeError) -> None:
        self._crashes = 0
        self._set(ModelState("failed", str(error)))
        raise error

    async def run(
        self, job: Mapping[str, Any], event_seen: Callable[[dict[str, Any]], None]
    ) -> dict[str, Any]:
        """Do a job; return its last event, and give the others to `event_seen`.

        Raises WorkerCrashed where the process ended at it; the next `load` starts another.
        """
        assert self._child is not None
        try:
            await self._child.send(job)
            async for event in self._child.events():
                if event.get("job") != job["job"]:
                    continue
                if event["event"] in _LAST:
                    return event
                event_seen(event)
        except WorkerCrashed:
            await self._drop()
            self._set(ModelState())
            raise
        raise AssertionError

    async def stop(self, job: int) -> None:
        """Ask the worker to stop a job; its last event says how far it came."""
        if self._child is not None:
            try:
                await self._child.send({"do": "stop", "job": job})
            except WorkerCrashed:
                return  # `run` sees it too

    async def _drop(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            await child.close()

    async def close(self) -> None:
        """End the worker."""
        await self._drop()
