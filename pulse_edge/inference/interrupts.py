"""Signals and exceptions during calls of llama.cpp: raised when llama.cpp has returned, because C
code loses them."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


class Interrupts:
    """The stop flag of one model: llama.cpp's callbacks read it, and a signal or an exception sets
    it."""

    def __init__(self, stopped: Callable[[], None] = lambda: None) -> None:
        """`stopped` is called after a stopped call: the state of the context is unknown then."""
        self._stopped = stopped
        self._stop = threading.Event()
        self._exception: BaseException | None = None

    def is_set(self) -> bool:
        """Whether llama.cpp is to return as soon as it can."""
        return self._stop.is_set()

    @contextlib.contextmanager
    def deferred(self, *, gentle: bool = False) -> Iterator[None]:
        """Hold back signals and exceptions during a call of llama.cpp, and raise them when it has
        returned.

        A signal sets the flag that makes llama.cpp return, and then reaches the handler that it was
        for. A `gentle` call is short and runs to its end: the page then stays in the context, and
        the next question need not prefill it again.
        """
        numbers: list[int] = []

        def note(number: int, _frame: Any) -> None:
            numbers.append(number)
            if not gentle:
                self._stop.set()

        main = threading.current_thread() is threading.main_thread()
        handlers = {n: h for n in _SIGNALS if callable(h := signal.getsignal(n))} if main else {}
        try:
            for number in handlers:
                signal.signal(number, note)
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        if self._stop.is_set():
            self._stop.clear()
            self._stopped()
            exception, self._exception = self._exception, None
            for number in numbers:
                handlers[number](number, None)
            raise exception or KeyboardInterrupt
        for number in numbers:
            handlers[number](number, None)

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        """Go around Python code in a callback: ctypes would print its exception and continue."""
        try:
            yield
        except BaseException as e:
            self._exception = e
            self._stop.set()
