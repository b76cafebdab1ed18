"""Run a command's work in a process of its own and start it again after a crash.

In this way no page ends a batch.

The worker notes Python's errors page by page. What ends a whole process (an abort in native code,
the kernel's out-of-memory killer) is only seen from here. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

from pulse_edge.common import child_process
from pulse_edge.errors import BatchError

Start: TypeAlias = Literal["first", "again"]
"""Why a worker is started: for the first time, or after a crash."""
PATIENCE = 6
"""Crashes in a row, without a page finished in between, after which the cause is not a page."""
_END_ON_REQUEST = {
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGPIPE")
    if hasattr(signal, name)
}


def follow_supervisor() -> None:
    """In the worker: end this process when its supervisor ends."""
    threading.Thread(target=_wait_for_end_of_input, daemon=True).start()


def _wait_for_end_of_input() -> None:
    """Wait for the end of standard input, a pipe that the supervisor holds open."""
    while os.read(0, 1):
        pass
    os._exit(1)


def run(words: Callable[[Start], Sequence[str]], finished_pages: Callable[[], int]) -> int:
    """Run `pulse-edge WORDS` as a worker, again after each crash, and return its exit code.

    `words` gives the command line of a first or a repeated start. Raises BatchError where the
    crashes do not come from a page.
    """
    start: Start = "first"
    crashes, before = 0, finished_pages()
    while True:
        code = _run_worker(words(start))
        if not _crashed(code):
            return code
        now = finished_pages()
        crashes = crashes + 1 if now == before else 1
        start, before = "again", now
        if crashes >= PATIENCE:
            raise BatchError(
                f"the program crashed {crashes} times in a row ({_name(code)}). Run pulse-edge "
                "doctor."
            )
        text = f"warning: the program crashed ({_name(code)}). It continues."
        print(text, file=sys.stderr, flush=True)


def _run_worker(words: Sequence[str]) -> int:
    """Run one worker to its exit code, and pass signals on.

    The worker has a session of its own, because on a terminal it would otherwise get each Ctrl-C
    twice.
    """
    worker = subprocess.Popen(
        child_process.command("pulse_edge", *words),
        env=child_process.environment(),
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    while True:
        try:
            return worker.wait()
        except KeyboardInterrupt as e:  # cli/run.py raises it for SIGTERM and SIGHUP too
            number = e.args[0] if e.args else signal.SIGINT
            if os.name == "posix":  # on Windows the console tells both
                with contextlib.suppress(ProcessLookupError):
                    worker.send_signal(number)


def _crashed(code: int) -> bool:
    by_signal = code < 0 and -code not in _END_ON_REQUEST
    return by_signal or code >= 0xC0000000  # exceptions of Windows


def _name(code: int) -> str:
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"exit code {code:#x}"
