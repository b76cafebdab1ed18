"""The page worker as the server sees it: calls one after the other, urgent ones first, in a process
that is started again after a crash."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import Any

from pulse_edge.errors import EngineError
from pulse_edge.web.child import Child, WorkerCrashed, error_of

MODULE = "pulse_edge.web.page_worker"
SECONDS = 300.0
"""Of one call at most; an ordinary page takes 3 s on a slow laptop."""
URGENT, ORDINARY = 0, 1


class PageWorker:
    """Calls of the page worker. Use `call` after `start`."""

    def __init__(self) -> None:
        self._child: Child | None = None
        self._numbers = itertools.count()
        self._calls: asyncio.PriorityQueue[tuple[int, int, dict[str, Any], asyncio.Future[Any]]]
        self._calls = asyncio.PriorityQueue()
        self._loop: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the worker; None while there is none."""
        return None if self._child is None else self._child.pid

    def start(self) -> None:
        """Begin to work on calls."""
        self._loop = asyncio.create_task(self._work())

    async def call(self, do: str, urgency: int = URGENT, /, **arguments: Any) -> Any:
        """Have the worker do a job, and return its result.

        Raises the job's PulseEdgeError, and WorkerCrashed where the process ended at it.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        number = next(self._numbers)
        await self._calls.put((urgency, number, {"do": do, "id": number, **arguments}, future))
        return await future

    async def call_twice(self, do: str, /, **arguments: Any) -> Any:
        """As `call`, for jobs that are not counted: repeat it once after a crash.

        Raises EngineError after the second.
        """
        for attempt in (1, 2):
            try:
                return await self.call(do, **arguments)
            except WorkerCrashed as e:
                if attempt == 2:
                    name = arguments.get("name", do)
                    raise EngineError(
                        f"{name}: ended the program twice ({e}). Export the page as PNG and try "
                        "that."
                    ) from None
        raise AssertionError

    async def _work(self) -> None:
        while True:
            _urgency, _number, job, future = await self._calls.get()
            if future.cancelled():
                continue
            try:
                answer = await asyncio.wait_for(self._one(job), SECONDS)
            except (WorkerCrashed, asyncio.TimeoutError) as e:
                await self._drop()
                why = str(e) or f"no result within {SECONDS:.0f} s"
                _finish(future, error=WorkerCrashed(why))
            except Exception as e:  # the process could not be started
                await self._drop()
                why = f"the page worker cannot be started ({e}). Free memory, and try again."
                _finish(future, error=EngineError(why))
            else:
                if "error" in answer:
                    _finish(future, error=error_of(answer))
                else:
                    _finish(future, answer["ok"])

    async def _one(self, job: dict[str, Any]) -> dict[str, Any]:
        if self._child is None:
            self._child = await Child.start(MODULE, {})
            await self._child.event()
        await self._child.send(job)
        while True:
            event = await self._child.event()
            if event.get("id") == job["id"]:
                return event

    async def _drop(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            await child.close()

    async def close(self) -> None:
        """End the worker."""
        if self._loop is not None:
            self._loop.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._loop
        await self._drop()


def _finish(
    future: asyncio.Future[Any], result: Any = None, error: Exception | None = None
) -> None:
    """Give a caller its result, unless it does not wait any more."""
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
