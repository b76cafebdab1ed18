"""The server's end of a worker process: start it, send it jobs, receive its events."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Mapping
from typing import Any

from pulse_edge import errors
from pulse_edge.common import child_process
from pulse_edge.errors import EngineError, PulseEdgeError

LONGEST_LINE = 64 << 20
"""Bytes of an event: the longest holds a report."""
END_SECONDS = 1.0
"""Until a worker whose input has ended is killed."""


class WorkerCrashed(Exception):
    """The worker process ended; the message names the signal or exit code."""


class Child:
    """A running worker process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    @classmethod
    async def start(cls, module: str, settings: Mapping[str, Any]) -> Child:
        """Start `python -m MODULE`, and send it its settings as the first line."""
        process = await asyncio.create_subprocess_exec(
            *child_process.command(module),
            env=child_process.environment(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LONGEST_LINE,
            start_new_session=True,  # on a terminal Ctrl-C is for the server alone
        )
        child = cls(process)
        with contextlib.suppress(WorkerCrashed):  # `events` says so too
            await child.send(settings)
        return child

    async def send(self, message: Mapping[str, Any]) -> None:
        """Send a message. Raises WorkerCrashed where the process has ended."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            await self._process.stdin.drain()
        except (OSError, RuntimeError):
            raise WorkerCrashed(await self._end()) from None

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """Yield events; raises WorkerCrashed when the process ends."""
        while True:
            yield await self.event()

    async def event(self) -> dict[str, Any]:
        """Wait for the next event. Raises WorkerCrashed when the process ends."""
        assert self._process.stdout is not None
        try:
            line = await self._process.stdout.readline()
            if line.endswith(b"\n"):
                event: dict[str, Any] = json.loads(line)
                return event
        except (OSError, ValueError):
            pass
        raise WorkerCrashed(await self._end())

    async def _end(self) -> str:
        """Wait for the end of a process that has closed a pipe, and say why it ended."""
        try:
            code = await asyncio.wait_for(self._process.wait(), END_SECONDS)
        except asyncio.TimeoutError:
            self.kill()
            code = await self._process.wait()
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"exit code {code}"

    def kill(self) -> None:
        """End the process at once."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def close(self) -> None:
        """End the process, and wait for that."""
        self.kill()
        await self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
            with contextlib.suppress(OSError, RuntimeError):
                await self._process.stdin.wait_closed()


def error_of(event: Mapping[str, Any]) -> PulseEdgeError:
    """Return the error of an event as an exception of its own class."""
    kind = getattr(errors, str(event.get("kind")), EngineError)
    if not (isinstance(kind, type) and issubclass(kind, PulseEdgeError)):
        kind = EngineError
    return kind(str(event["error"]))


def alive(pid: int) -> bool:
    """Whether a process runs; for tests and diagnostics."""
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True
