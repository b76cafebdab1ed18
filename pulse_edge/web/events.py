"""Server-sent events: each is a reading as JSON, the current state first, then every change.

`/r/ID/events` sends the whole reading, `/events` a short one of every page.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from pulse_edge.web.options import ServeOptions
from pulse_edge.web.readings import Reading
from pulse_edge.web.responses import problem
from pulse_edge.web.service import Service

HEARTBEAT = 15.0
"""Seconds without a change after which a comment shows both sides that the connection lives."""
RETRY = 1000
"""Milliseconds after which a browser connects again."""


def routes(service: Service, options: ServeOptions) -> list[Route]:
    """Return the routes of this module."""
    open_streams = 0

    async def stream(request: Request, id: str | None) -> Response:
        nonlocal open_streams
        if open_streams >= options.limits.streams:
            return problem(request, 503, "Too many pages watch at once. Close some.", "busy")
        if id is not None:
            try:
                await service.reading(id)
            except KeyError:
                return problem(request, 404, "There is no such page.", "not_found")

        async def body() -> AsyncIterator[str]:
            nonlocal open_streams
            open_streams += 1
            try:
                async for text in _texts(service, id):
                    yield text
            finally:
                open_streams -= 1

        return StreamingResponse(body(), media_type="text/event-stream")

    async def one(request: Request) -> Response:
        return await stream(request, request.path_params["id"])

    async def everything(request: Request) -> Response:
        return await stream(request, None)

    return [Route("/r/{id}/events", one), Route("/events", everything)]


async def _texts(service: Service, id: str | None) -> AsyncIterator[str]:
    """Yield events as text, and a comment where nothing happens for long."""
    readings = service.events(id).__aiter__()
    yield f"retry: {RETRY}\n\n"
    pending: asyncio.Task[Reading] | None = None
    try:
        while True:
            pending = pending or asyncio.ensure_future(_next(readings))
            done, _ = await asyncio.wait({pending}, timeout=HEARTBEAT)
            if not done:
                yield ": still here\n\n"
                continue
            finished, pending = pending, None
            try:
                reading = finished.result()
            except (StopAsyncIteration, KeyError):
                return
            shown = reading.to_short_json() if id is None else reading.to_json()
            yield f"event: reading\ndata: {json.dumps(shown)}\n\n"
    finally:
        if pending is not None:
            pending.cancel()
            await asyncio.gather(pending, return_exceptions=True)
        await readings.aclose()  # type: ignore[attr-defined]


async def _next(readings: AsyncIterator[Reading]) -> Reading:
    """A StopAsyncIteration cannot leave a task as such in every version of Python."""
    async for reading in readings:
        return reading
    raise KeyError("the events have ended")
