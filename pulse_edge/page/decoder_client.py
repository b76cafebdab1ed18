"""Start, limit and restart the process that decodes foreign files, and send it requests.

The process itself runs decoder_worker.py.

One process serves all files of the program, because starting it takes 30 ms and its libraries more.
It ends after some seconds without work. Standard library only: a command may start it before
importing libraries that take long.
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

PAGE_SECONDS = 4.5
"""Processor time for a page, including opening its file: a page that takes longer was built to. A
page of 35 million pixels takes 1 s on a slow core of 2013. By the clock, which is all that Windows
has, the limit is BUSY_FACTOR times as long, because the machine may be busy."""
BUSY_FACTOR = 5
MEMORY = 900 << 20
"""Bytes of address space, including libraries. A page of 100 million pixels takes 400 MB in Pillow.
"""
_LONGEST_LINE = 1 << 16
_CPU_SIGNALS = {
    -int(getattr(signal, name)) for name in ("SIGXCPU", "SIGPROF") if hasattr(signal, name)
}
_SMALLER = "Save it again as PNG at 300 dpi: that is 9 million pixels for an A4 page."


ReadPage: TypeAlias = Callable[[int, int, Any, IO[bytes]], Any]
"""Gets a page's width and height, the facts of a plotted page (JSON, or None), and the pipe to read
its RGB bytes from."""


@dataclass(frozen=True)
class Task:
    """A file to decode."""

    kind: str
    """A key of decoder_worker.py's openers."""
    kind_name: str
    """The kind for people."""
    name: str
    """The file's name for people."""
    data: bytes
    """The file's content."""
    pixels: int
    """Pixels of a page at most."""
    pages: int
    """Pages of the file at most."""

    def request(self) -> dict[str, Any]:
        """Return the request that opens the file."""
        about = {
            "kind": self.kind,
            "kind_name": self.kind_name,
            "name": self.name,
            "bytes": len(self.data),
        }
        return {"do": "open", **about, "pixels": self.pixels, "pages": self.pages}


class WorkerEnded(Exception):
    """The process ended in the middle of a request; the message says why, in words for people."""

    def __init__(self, why: str, *, timed_out: bool = False, idle: bool = False) -> None:
        super().__init__(why)
        self.timed_out = timed_out
        """The page took too long."""
        self.idle = idle
        """The process had just ended because it had no work."""


class OutOfMemory(Exception):
    """A decoder exceeded the memory limit; `error` says so for people."""

    def __init__(self, error: PulseEdgeError) -> None:
        super().__init__(str(error))
        self.error = error


class Worker:
    """A worker process, which decodes one file at a time."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.task: Task | None = None
        self.files = 0
        """Files that it was sent so far."""
        self._timed_out = threading.Event()
        self.process = subprocess.Popen(
            child_process.command("pulse_edge.page.decoder_worker", str(MEMORY)),
            env=child_process.environment(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        _widen_pipes(self.process)

    def gone(self) -> bool:
        """Whether the process has ended by itself, as it does without work."""
        return self.process.poll() is not None

    def open(self, task: Task) -> int:
        """Send it a file and return how many pages that has.

        Raises WorkerEnded, OutOfMemory and the project's errors.
        """
        self.task, self.files = None, self.files + 1
        reply = self._ask(task.request(), task.data)
        self.task = task
        return int(reply["pages"])

    def page(self, number: int, read_page: ReadPage) -> Any:
        """Have a page decoded, counted from 0, and return what `read_page` makes of it.

        Raises as `open` does.
        """
        return self._ask({"do": "page", "page": number}, read_page=read_page)

    def forget(self) -> None:
        """Tell it to drop the file."""
        self.task = None
        with contextlib.suppress(WorkerEnded):
            self._ask({"do": "close"})

    def _ask(
        self, request: dict[str, Any], data: bytes = b"", read_page: ReadPage | None = None
    ) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        clock = threading.Timer(BUSY_FACTOR * PAGE_SECONDS, self._stop)
        clock.daemon = True
        clock.start()
        try:
            self.process.stdin.write(
                json.dumps(request | {"seconds": PAGE_SECONDS}).encode() + b"\n"
            )
            self.process.stdin.write(data)
            self.process.stdin.flush()
            reply = json.loads(self.process.stdout.readline(_LONGEST_LINE))
            if read_page is not None and "size" in reply:
                width, height = map(int, reply["size"])
                return read_page(width, height, reply.get("plot"), self.process.stdout)
        except (OSError, ValueError, EOFError):  # a pipe without a reader, or a broken reply
            raise self._end_error() from None
        except (
            BaseException
        ):  # Ctrl-C: the rest of the reply on the pipe would confuse the next request
            self.end()
            raise
        finally:
            clock.cancel()
        if "error" in reply:
            error = _error(reply)
            raise OutOfMemory(error) if reply.get("of_memory") else error
        return reply

    def _stop(self) -> None:
        self._timed_out.set()
        self.process.kill()

    def _end_error(self) -> WorkerEnded:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(1)  # a signal by the kernel takes a moment
        self.end()
        code = self.process.returncode
        if self._timed_out.is_set() or code in _CPU_SIGNALS:
            return WorkerEnded(
                f"takes longer than {PAGE_SECONDS:g} seconds of work to read", timed_out=True
            )
        return WorkerEnded(f"ends the decoder ({_signal_name(code)})", idle=code == 0)

    def end(self) -> None:
        """Kill the process."""
        self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()
        self.process.wait()


_ERRORS = {"ScanError": ScanError, "PageRefused": PageRefused}


def _error(reply: dict[str, Any]) -> PulseEdgeError:
    return _ERRORS.get(reply["error"], errors.ScanError)(str(reply["text"]))


def _signal_name(code: int) -> str:
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"exit code {code}"


def _widen_pipes(popen: subprocess.Popen[bytes]) -> None:
    """Make pipes of 1 MiB on Linux: a page has about 30 MB."""
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl

        for pipe in (popen.stdin, popen.stdout):
            if pipe is not None:
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 1 << 20)


# --- the process of this program ------------------------------------------------------------------

_lock = threading.RLock()
atexit.register(lambda: stop())  # defined below
_worker: Worker | None = None


def start() -> None:
    """Start the process if it does not run.

    Commands call this first, so that it is ready when the first file is read.
    """
    global _worker
    with _lock:
        if _worker is not None and _worker.owner != os.getpid():
            _worker = None  # after a fork it belongs to the parent
        if _worker is not None and _worker.gone():
            _worker.end()
            _worker = None
        if _worker is None:
            _worker = Worker()


def _fresh_worker() -> Worker:
    """Return a process that has not read any file."""
    stop()
    start()
    assert _worker is not None
    return _worker


def running_worker() -> Worker | None:
    """Return the process of this program; None where it was not started."""
    return _worker


def stop() -> None:
    """End the process of this program."""
    global _worker
    with _lock:
        if _worker is not None and _worker.owner == os.getpid():
            _worker.end()
        _worker = None


class Decoding:
    """A file that is decoded page by page. `len` is how many pages it has."""

    def __init__(self, task: Task) -> None:
        """Open the file. Raises ScanError and PageRefused."""
        self._task = task
        with _lock:
            try:
                self._count: int = self._retry_once(lambda worker: worker.open(task), task.name)
            except DecoderFailure as e:
                raise e.error from None

    def __len__(self) -> int:
        return self._count

    def page(self, number: int, name: str, read_page: ReadPage) -> Any:
        """Return page `number`, from 0, as `read_page` makes it; `name`: the page's, for messages.

        Raises DecoderFailure, ScanError and PageRefused.
        """
        with _lock:
            return self._retry_once(lambda worker: self._page(worker, number, read_page), name)

    def _page(self, worker: Worker, number: int, read_page: ReadPage) -> Any:
        if worker.task is not self._task:  # another file came between, or the worker is new
            worker.open(self._task)
        return worker.page(number, read_page)

    def close(self) -> None:
        """Let the process drop the file."""
        with _lock:
            if _worker is not None and _worker.task is self._task and not _worker.gone():
                _worker.forget()

    def _retry_once(self, job: Callable[[Worker], Any], name: str) -> Any:
        """Do a job; where the process ends or runs out of memory, repeat it once in a new one.

        A page that took too long is not repeated: its time does not depend on the files before it.
        """
        start()
        worker = _worker
        assert worker is not None
        alone = worker.files == 0
        try:
            return job(worker)
        except (WorkerEnded, OutOfMemory) as e:
            if (isinstance(e, WorkerEnded) and e.timed_out) or (
                alone and not (isinstance(e, WorkerEnded) and e.idle)
            ):
                raise _failure(name, e) from None
        try:
            return job(_fresh_worker())
        except (WorkerEnded, OutOfMemory) as e:
            raise _failure(name, e) from None


class DecoderFailure(PulseEdgeError):
    """A page that exceeded a limit or broke the decoder, with the project's `error` that says so.

    Internal to this package.
    """

    def __init__(self, error: PulseEdgeError) -> None:
        super().__init__(str(error))
        self.error = error


def _failure(name: str, ended: WorkerEnded | OutOfMemory) -> DecoderFailure:
    if isinstance(ended, OutOfMemory):
        return DecoderFailure(ended.error)
    if ended.timed_out:
        return DecoderFailure(PageRefused(f"{name}: {ended}. {_SMALLER}"))
    return DecoderFailure(
        ScanError(
            f"{name}: {ended}: it is damaged, or was made to do harm. Scan the page again, or "
            "export it as PNG."
        )
    )
