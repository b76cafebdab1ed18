"""Bound the bodies of requests while they stream in: bytes, pauses, pace."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pulse_edge.web.options import Limits
from pulse_edge.web.responses import problem


class BodyTooLong(Exception):
    """The body exceeds the limit."""


class BodyTooSlow(Exception):
    """The body comes too slowly, or stopped coming."""


class BodyLimits:
    """ASGI middleware: a body beyond the limits ends the request with 413 or 408."""

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        long_paths: tuple[str, ...],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`long_paths` begin the paths whose bodies may hold files."""
        self._app, self._limits, self._long, self._clock = app, limits, long_paths, clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with a bounded body."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        holds_files = scope["path"].startswith(self._long)
        limit = self._limits.upload_bytes if holds_files else self._limits.form_bytes
        started = False

        async def sender(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            declared = _declared(scope)
            if declared is not None and declared > limit:
                raise BodyTooLong
            await self._app(scope, self._bounded(receive, limit), sender)
        except ClientDisconnect:
            return  # in the middle of its upload
        except BodyTooLong:
            if not started:
                text = f"The upload is longer than {limit >> 20} MiB. Scan the page at 300 dpi."
                text = text if holds_files else "The form is too long."
                await _answer(
                    scope, receive, sender, problem(Request(scope), 413, text, "too_large")
                )
        except BodyTooSlow:
            if not started:
                text = "The upload stopped, or is too slow. Send it again."
                await _answer(scope, receive, sender, problem(Request(scope), 408, text, "timeout"))

    def _bounded(self, receive: Receive, limit: int) -> Receive:
        size, whole, begun = 0, False, self._clock()

        async def receiver() -> Message:
            nonlocal size, whole
            if whole:  # what comes now is the client's end
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), self._limits.idle_seconds)
            except asyncio.TimeoutError:
                raise BodyTooSlow from None
            if message["type"] != "http.request":
                whole = True
                return message
            size += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if size > limit:
                raise BodyTooLong
            seconds = self._clock() - begun - self._limits.idle_seconds
            if not whole and seconds > 0 and size < seconds * self._limits.body_bytes_per_second:
                raise BodyTooSlow
            return message

        return receiver


def _declared(scope: Scope) -> int | None:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and len(value) < 20:
            return int(value)
    return None


async def _answer(scope: Scope, receive: Receive, send: Send, response: Response) -> None:
    """Answer a request whose body was not read, and close the connection."""
    more = {"connection": "close", "cache-control": "no-store", "x-content-type-options": "nosniff"}
    response.headers.update(more)
    await response(scope, receive, send)
