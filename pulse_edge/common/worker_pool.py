"""Call functions in worker processes, which are started isolated (see `child_process`), one core
each.

It replaces multiprocessing, whose children import from the current directory. A call is sent as a
pickle of the function (by its module and name) and its arguments, and answered by a pickle of the
result or the exception; only this program's own processes are at either end.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import IO, Any, TypeVar

from pulse_edge.common import child_process
from pulse_edge.errors import EngineError

T = TypeVar("T")


class Workers:
    """A pool of `count` processes that call functions; each calls `start` first. Use it as a
    context manager."""

    def __init__(self, count: int, start: Callable[[], None] | None = None) -> None:
        self._threads = ThreadPoolExecutor(count)
        self._free: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._all: list[_Worker] = []
        try:
            for _ in range(count):
                self._all.append(_Worker(start))
                self._free.put(self._all[-1])
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def map(self, function: Callable[..., T], items: Iterable[Any]) -> Iterator[T]:
        """Yield `function(item)` for each item, in order. Raises what it raises; EngineError where
        a worker dies."""
        return self._threads.map(partial(self.call, function), items)

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Return `function(*arguments)` of a free worker; wait for one, and for the result. Raises
        as `map`."""
        worker = self._free.get()
        try:
            return worker.call(function, arguments)  # type: ignore[no-any-return]
        finally:
            self._free.put(worker)

    def close(self) -> None:
        """End the processes, even in the middle of a call."""
        for worker in self._all:
            worker.end()
        self._threads.shutdown(cancel_futures=True)
        for worker in self._all:
            worker.leave()


class _Worker:
    """One process."""

    def __init__(self, start: Callable[[], None] | None) -> None:
        self._process = subprocess.Popen(
            child_process.command("pulse_edge.common.worker_pool"),
            env=child_process.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        if start is not None:
            self.call(start, ())

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            _send(self._process.stdin, pickle.dumps((function, arguments)))
            answer = _receive(self._process.stdout)
        except (OSError, EOFError, ValueError) as e:  # ValueError: closed by `end`
            code = self._process.wait()
            why = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
            raise EngineError(
                f"a worker process {why}. Start fewer at once, or make memory free."
            ) from e
        good, value = pickle.loads(answer)
        if not good:
            raise value
        return value

    def end(self) -> None:
        self._process.kill()
        self._process.wait()

    def leave(self) -> None:
        """Close the pipes, once no thread waits at them."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # unsent bytes of a process that was killed
                    pipe.close()


def _send(pipe: IO[bytes], content: bytes) -> None:
    pipe.write(len(content).to_bytes(8, "little") + content)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> bytes:
    """The next message. Raises EOFError where the other process has ended."""
    size = int.from_bytes(pipe.read(8).ljust(8, b"\0"), "little")
    content = pipe.read(size)
    if not content or len(content) < size:
        raise EOFError
    return content


def _serve() -> None:
    """Answer calls until the other process closes its pipe or ends."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches the process that waits for this one
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # the output of a function must not mix with the messages
    while True:
        try:
            call = _receive(sys.stdin.buffer)
        except EOFError:
            return
        _send(out, _answer(call))


def _answer(call: bytes) -> bytes:
    """The pickled result of a pickled call, or its exception."""
    try:
        function, arguments = pickle.loads(call)
        answer = True, function(*arguments)
    except Exception as e:
        answer = False, e
    try:
        return pickle.dumps(answer)
    except (pickle.PicklingError, TypeError, AttributeError):
        return pickle.dumps(
            (False, EngineError(f"unexpected {type(answer[1]).__name__}: {answer[1]}"))
        )


if __name__ == "__main__":
    _serve()
