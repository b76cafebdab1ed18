"""Follow a reading until it has ended, and stop it when its client has gone.

In: a service, a reading's id, the request that waits. Out: its states one after the other, with
None where nothing has changed for a while, so that a caller can send something that keeps the
connection open. A reading whose client has gone is stopped: it would hold up the queue for minutes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Coroutine
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect, Request

from pulse_edge.web import api_errors
from pulse_edge.web.api_errors import RequestError

if TYPE_CHECKING:
    from pulse_edge.web.service import Reading, Service

QUIET_SECONDS = 10.0
"""Seconds without a change until None comes. Proxies and clients wait 30 s and more for a byte."""
LOOK_SECONDS = 1.0
"""Seconds between two looks at the connection and at the model."""
STOPPING = "The server stops. The page stays on its list, and is read after the next start."
ENDED = frozenset({"refused", "done", "failed", "removed"})
"""States in which a reading stays, unless a person acts."""
JUDGED = ENDED | {"waiting", "reading"}
"""States in which the page was admitted or refused."""
_tasks: set[asyncio.Task[None]] = set()
"""Tasks that run to their end without anyone waiting; the event loop holds weak references only."""


class ClientGone(ClientDisconnect):
    """The client has closed its connection, so an answer would reach no one."""


States = AsyncGenerator["Reading | None", None]


async def follow(service: Service, reading_id: str, request: Request) -> States:
    """Yield the states of a reading up to its end, and None after QUIET_SECONDS without a change.

    However it ends early, the reading is stopped, except where the server stops. Raises ClientGone,
    and RequestError where the model cannot be loaded or the server stops.
    """
    events = aiter(service.events(reading_id))
    coming = asyncio.ensure_future(anext(events))
    ended, quiet = False, 0.0
    try:
        while not ended:
            done, _ = await asyncio.wait({coming}, timeout=LOOK_SECONDS)
            if await request.is_disconnected():
                raise ClientGone
            if done:
                try:
                    reading, quiet = coming.result(), 0.0
                except StopAsyncIteration:
                    ended = True
                    raise RequestError("busy", STOPPING) from None
                ended = reading.state in ENDED
                if not ended:
                    coming = asyncio.ensure_future(anext(events))
                yield reading
                continue
            if failure := api_errors.not_ready(service.about()):
                raise failure
            quiet += LOOK_SECONDS
            if quiet >= QUIET_SECONDS:
                quiet = 0.0
                yield None
    finally:
        coming.cancel()
        if not ended:  # not awaited here, where the next await may be cancelled
            _in_background(_stop(service, reading_id))


async def judged(states: States) -> Reading:
    """Return the first state in which the page was admitted or refused."""
    async for reading in states:
        if reading is not None and reading.state in JUDGED:
            return reading
    raise RuntimeError("a reading ended in a state that is no end")


async def last(states: States, reading: Reading) -> Reading:
    """Return the last of the states that follow `reading`."""
    async for following in states:
        reading = following or reading
    return reading


def _in_background(coroutine: Coroutine[Any, Any, None]) -> None:
    task = asyncio.get_running_loop().create_task(coroutine)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


async def _stop(service: Service, reading_id: str) -> None:
    with contextlib.suppress(KeyError):  # removed meanwhile
        await service.stop(reading_id)
