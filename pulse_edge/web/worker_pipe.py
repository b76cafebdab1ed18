"""The worker's end of its pipes: jobs come in as lines of JSON, events go out as lines of JSON.

Standard library only.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

from pulse_edge.errors import PulseEdgeError


class Pipe:
    """Standard input and output of this process. The end of the input ends the process."""

    def __init__(self, urgent: Callable[[Mapping[str, Any]], bool] = lambda _job: False) -> None:
        """`urgent` sees every message first, in a thread of its own, and returns whether it was for
        it."""
        if hasattr(signal, "SIGINT"):
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the server, which ends us
        self._out = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)  # what a library prints must not mix with the events
        self._jobs: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._urgent = urgent
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in sys.stdin.buffer:
            message = json.loads(line)
            if not self._urgent(message):
                self._jobs.put(message)
        os._exit(1)  # the server has ended

    def next(self) -> dict[str, Any]:
        """Wait for the next job."""
        while True:
            try:  # a wait with an end lets the main thread see signals
                return self._jobs.get(timeout=0.5)
            except queue.Empty:
                continue

    def send(self, event: Mapping[str, Any]) -> None:
        """Send an event, from the main thread. Ends the process where the server has ended."""
        line = json.dumps(event).encode() + b"\n"
        try:
            self._out.write(line)
            self._out.flush()
        except OSError:
            os._exit(1)


def error_fields(error: PulseEdgeError) -> dict[str, Any]:
    """Return an error as an event carries it."""
    return {"error": str(error), "exit_code": error.exit_code, "kind": type(error).__name__}
