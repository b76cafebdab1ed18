"""A command's work in a process of its own, started again where it crashes: no page ends a batch.

Python's errors are noted page by page where the work is done. What ends a whole process (an abort in native code, the
kernel's killer when memory runs out) is seen from here alone. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

from pulse_edge.common import child_process
from pulse_edge.errors import BatchError

WORKER = "PULSE_EDGE_WORKER"
"""In the worker's environment: "first", or "again" after a crash."""
PATIENCE = 6
"""Crashes in a row, without a page that is done, after which the fault is not a page's."""
_ASKED_FOR = {
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGPIPE")
    if hasattr(signal, name)
}


def is_worker() -> bool:
    """Whether this process does the work. It ends when its supervisor does."""
    if WORKER not in os.environ:
        return False
    threading.Thread(target=_follow, daemon=True).start()
    return True


def after_crash() -> bool:
    """Whether this worker was started because the one before crashed."""
    return os.environ.get(WORKER) == "again"


def _follow() -> None:
    """Standard input is a pipe from the supervisor that nothing is written to."""
    while os.read(0, 1):
        pass
    os._exit(1)


def run(arguments: list[str], done: Callable[[], int]) -> int:
    """Run `pulse-edge ARGUMENTS` as a worker, again after each crash, and return its exit code.

    `done`: how many pages are done. Raises BatchError where crashes do not come from a page.
    """
    how, crashes, before = "first", 0, done()
    while True:
        code = _once(arguments, how)
        if not _crashed(code):
            return code
        crashes = crashes + 1 if done() == before else 1
        how, before = "again", done()
        if crashes >= PATIENCE:
            raise BatchError(
                f"the program crashed {crashes} times in a row ({_name(code)}). Run pulse-edge doctor."
            )
        print(
            f"warning: the program crashed ({_name(code)}). It goes on.",
            file=sys.stderr,
            flush=True,
        )


def _once(arguments: list[str], how: str) -> int:
    """One worker's exit code. Signals reach it once, from here: on a terminal it would get its own Ctrl-C too."""
    worker = subprocess.Popen(
        child_process.command("pulse_edge", *arguments),
        env=child_process.environment(**{WORKER: how}),
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    while True:
        try:
            return worker.wait()
        except KeyboardInterrupt as e:  # cli.py raises it for SIGTERM and SIGHUP too
            number = e.args[0] if e.args else signal.SIGINT
            if os.name == "posix":  # on Windows the console tells both
                with contextlib.suppress(ProcessLookupError):
                    worker.send_signal(number)


def _crashed(code: int) -> bool:
    return (code < 0 and -code not in _ASKED_FOR) or code >= 0xC0000000  # Windows' exceptions


def _name(code: int) -> str:
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"exit code {code:#x}"
