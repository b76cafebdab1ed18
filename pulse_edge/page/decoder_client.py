"""The process that decodes foreign files (decoder_worker.py), as the program sees it: started, asked, bounded, started again.

One such process serves all files of the program, since starting it takes 30 ms and its libraries more. It leaves after
some seconds without work. Standard library only: a command may start it before it imports anything that takes long.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, TypeAlias

from pulse_edge import errors
from pulse_edge.common import child_process
from pulse_edge.errors import PageRefused, PulseEdgeError, ScanError

SECONDS = 4.5
"""Of processor time for a page, opening its file included: one that takes longer was made to. A page of 35 million pixels takes
1 s on a slow core of 2013. By the clock, which is all that Windows has, it is `BUSY` times as long: the machine may be busy."""
BUSY = 5
MEMORY = 900 << 20
"""Bytes of address space, libraries included. A page of 100 million pixels takes 400 MB in Pillow."""
_LONGEST_LINE = 1 << 16
_CPU_SIGNALS = {
    -int(getattr(signal, name)) for name in ("SIGXCPU", "SIGPROF") if hasattr(signal, name)
}
_SMALLER = "Save it again as PNG at 300 dpi: that is 9 million pixels for an A4 page."


Take: TypeAlias = Callable[[int, int, Any, IO[bytes]], Any]
"""Gets a page's width, height, what is known of a drawn one (JSON, or None), and the pipe to read its RGB bytes from."""


@dataclass(frozen=True)
class Task:
    """A file to decode."""

    kind: str
    """A key of decoder_worker.py's openers."""
    what: str
    """The kind for people."""
    name: str
    data: bytes
    pixels: int
    """Of a page at most."""
    pages: int
    """Of the file at most."""

    def request(self) -> dict[str, Any]:
        about = {"kind": self.kind, "what": self.what, "name": self.name, "bytes": len(self.data)}
        return {"do": "open", **about, "pixels": self.pixels, "pages": self.pages}


class Ended(Exception):
    """The process ended in the middle of a request; the message says why, in words for people."""

    def __init__(self, why: str, *, late: bool = False, idle: bool = False) -> None:
        super().__init__(why)
        self.late = late
        """It took too long."""
        self.idle = idle
        """It had just left for want of work."""


class OutOfMemory(Exception):
    """A decoder asked for more memory than it may have; `error` says so for people."""

    def __init__(self, error: PulseEdgeError) -> None:
        super().__init__(str(error))
        self.error = error


class _Process:
    """One process, which decodes one file at a time."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.task: Task | None = None
        self.files = 0
        """How many it was given."""
        self._late = threading.Event()
        self._popen = subprocess.Popen(
            child_process.command("pulse_edge.page.decoder_worker", str(MEMORY)),
            env=child_process.environment(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        _widen(self._popen)

    def gone(self) -> bool:
        """Whether it has left by itself, as it does without work."""
        return self._popen.poll() is not None

    def open(self, task: Task) -> int:
        """Give it a file; how many pages that has. Raises Ended, OutOfMemory and the project's errors."""
        self.task, self.files = None, self.files + 1
        reply = self._ask(task.request(), task.data)
        self.task = task
        return int(reply["pages"])

    def page(self, number: int, take: Take) -> Any:
        """Have a page decoded, from 0; see Take for `take`. Raises as `open` does."""
        return self._ask({"do": "page", "page": number}, take=take)

    def forget(self) -> None:
        """Let it drop the file."""
        self.task = None
        with contextlib.suppress(Ended):
            self._ask({"do": "close"})

    def _ask(self, request: dict[str, Any], data: bytes = b"", take: Take | None = None) -> Any:
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        clock = threading.Timer(BUSY * SECONDS, self._stop)
        clock.daemon = True
        clock.start()
        try:
            self._popen.stdin.write(json.dumps(request | {"seconds": SECONDS}).encode() + b"\n")
            self._popen.stdin.write(data)
            self._popen.stdin.flush()
            reply = json.loads(self._popen.stdout.readline(_LONGEST_LINE))
            if take is not None and "size" in reply:
                width, height = map(int, reply["size"])
                return take(width, height, reply.get("plot"), self._popen.stdout)
        except (OSError, ValueError, EOFError):  # a pipe without a reader, or a reply that is none
            raise self._ended() from None
        except BaseException:  # Ctrl-C: what comes next on the pipe belongs to nobody
            self.end()
            raise
        finally:
            clock.cancel()
        if "error" in reply:
            error = _error(reply)
            raise OutOfMemory(error) if reply.get("of_memory") else error
        return reply

    def _stop(self) -> None:
        self._late.set()
        self._popen.kill()

    def _ended(self) -> Ended:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(1)  # a signal that it got from the kernel
        self.end()
        code = self._popen.returncode
        if self._late.is_set() or code in _CPU_SIGNALS:
            return Ended(f"takes longer than {SECONDS:g} seconds of work to read", late=True)
        return Ended(f"ends the decoder ({_signal_name(code)})", idle=code == 0)

    def end(self) -> None:
        """Kill it."""
        self._popen.kill()
        for pipe in (self._popen.stdin, self._popen.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()
        self._popen.wait()


_ERRORS = {"ScanError": ScanError, "PageRefused": PageRefused}


def _error(reply: dict[str, Any]) -> PulseEdgeError:
    return _ERRORS.get(reply["error"], errors.ScanError)(str(reply["text"]))


def _signal_name(code: int) -> str:
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"exit code {code}"


def _widen(popen: subprocess.Popen[bytes]) -> None:
    """Pipes of 1 MiB on Linux: a page has some 30 MB."""
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl

        for pipe in (popen.stdin, popen.stdout):
            if pipe is not None:
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 1 << 20)


# --- the one of this program --------------------------------------------------------------------------------------------

_lock = threading.RLock()
atexit.register(lambda: stop())  # defined below
_process: _Process | None = None


def start() -> None:
    """Start the process if it is not there. A command calls it first, so that it is ready when the first file is read."""
    global _process
    with _lock:
        if _process is not None and _process.owner != os.getpid():
            _process = None  # after a fork it is the parent's
        if _process is not None and _process.gone():
            _process.end()
            _process = None
        if _process is None:
            _process = _Process()


def _fresh() -> _Process:
    """A process that has not read any file."""
    stop()
    start()
    assert _process is not None
    return _process


def stop() -> None:
    """End the process."""
    global _process
    with _lock:
        if _process is not None and _process.owner == os.getpid():
            _process.end()
        _process = None


class Decoding:
    """A file in the process, page by page. `len` is how many pages it has."""

    def __init__(self, task: Task) -> None:
        """Open the file. Raises ScanError and PageRefused."""
        self._task = task
        with _lock:
            try:
                self._count: int = self._twice(lambda process: process.open(task), task.name)
            except Broken as e:
                raise e.error from None

    def __len__(self) -> int:
        return self._count

    def page(self, number: int, name: str, take: Take) -> Any:
        """Page `number`, from 0; see _Process.page. `name`: of the page, for messages. Raises Broken, ScanError and PageRefused."""
        with _lock:
            return self._twice(lambda process: self._page(process, number, take), name)

    def _page(self, process: _Process, number: int, take: Take) -> Any:
        if process.task is not self._task:  # another file came between, or the process is a new one
            process.open(self._task)
        return process.page(number, take)

    def close(self) -> None:
        """Nothing more is asked for: the process drops the file."""
        with _lock:
            if _process is not None and _process.task is self._task and not _process.gone():
                _process.forget()

    def _twice(self, job: Callable[[_Process], Any], name: str) -> Any:
        """Do it; where the process ends or runs out of memory, once more in one that has done nothing else.

        Not where it took too long: the time of a page does not depend on what was read before.
        """
        start()
        process = _process
        assert process is not None
        alone = process.files == 0
        try:
            return job(process)
        except (Ended, OutOfMemory) as e:
            if (isinstance(e, Ended) and e.late) or (
                alone and not (isinstance(e, Ended) and e.idle)
            ):
                raise _broken(name, e) from None
        try:
            return job(_fresh())
        except (Ended, OutOfMemory) as e:
            raise _broken(name, e) from None


class Broken(PulseEdgeError):
    """Internal: a page that broke a bound or the decoder, with the project's `error` that says so."""

    def __init__(self, error: PulseEdgeError) -> None:
        super().__init__(str(error))
        self.error = error


def _broken(name: str, ended: Ended | OutOfMemory) -> Broken:
    if isinstance(ended, OutOfMemory):
        return Broken(ended.error)
    if ended.late:
        return Broken(PageRefused(f"{name}: {ended}. {_SMALLER}"))
    return Broken(
        ScanError(
            f"{name}: {ended}: it is damaged, or was made to do harm. Scan the page again, or export it as PNG."
        )
    )
