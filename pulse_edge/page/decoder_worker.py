"""`python -m pulse_edge.page.decoder_worker` decodes files for the program: no decoder of foreign files runs in the program's own process.

A file is sent once, its pages are asked for one by one, and each has its own bound of processor time; the memory is
bounded altogether. What breaks a bound, or a decoder, ends this process alone. decoder_client.py starts it and speaks with it.

In, on standard input: a line of JSON, for `open` with the file's bytes behind it. Out, on standard output: a line of
JSON, for a page with its RGB bytes behind it. Without a word for `IDLE` seconds it leaves, and so it does when the
program is gone.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import re
import select
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

IDLE = 5.0
STRIP = 4 << 20
"""Bytes of a page that are sent at a time: a second copy of it would not fit into the bound."""


def main(memory: int) -> None:
    """Serve until the program leaves. `memory`: bytes of address space; 0 is no bound."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the program, which ends this one
    _bound_space(memory)
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(
        sys.stderr.fileno(), sys.stdout.fileno()
    )  # a library that prints must not get between the replies
    server = _Server()
    while line := _line(sys.stdin.buffer):
        for reply in server.answer(json.loads(line), sys.stdin.buffer):
            out.write(reply)
        out.flush()


def _line(pipe: IO[bytes]) -> bytes:
    """The next request; empty when there is none to come."""
    with contextlib.suppress(
        OSError
    ):  # Windows cannot wait for a pipe: the process stays as long as the program
        if not select.select([pipe], [], [], IDLE)[0]:
            return b""
    return pipe.readline()


def _bound_space(memory: int) -> None:
    """Memory, and nothing is written to any disk. Windows has no such bounds."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        if memory:
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def _bound_time(seconds: float) -> None:
    """End this process after so many more seconds of processor time. Windows has no such bound."""
    with contextlib.suppress(ImportError, ValueError, OSError, AttributeError):
        import resource

        signal.setitimer(
            signal.ITIMER_PROF, seconds
        )  # to the millisecond, of whole processes; ends it by SIGPROF
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        resource.setrlimit(
            resource.RLIMIT_CPU, (math.ceil(time.process_time() + seconds) + 1, hard)
        )


class _Server:
    def __init__(self) -> None:
        from pulse_edge.page import pictures

        self._limits = pictures.Limits()
        self._pages: list[Callable[[], Any]] = []
        self._name, self._what = "", ""
        self._bounded = False

    def answer(self, request: dict[str, Any], pipe: IO[bytes]) -> Iterator[bytes]:
        """The reply to a request, in pieces."""
        if request["do"] == "close":
            self._pages = []
            yield _said(closed=True)
            return
        data = pipe.read(request["bytes"]) if request["do"] == "open" else b""
        if not self._bounded:
            _bound_time(request["seconds"])
        image = plot = None
        try:
            with self._explained(request):
                if request["do"] == "open":
                    self._open(request, data)
                else:
                    image = self._pages[request["page"]]()
                    image, plot = image if isinstance(image, tuple) else (image, None)
        except _Refusal as e:
            self._bounded = False
            yield _said(error=type(e.error).__name__, text=str(e.error), of_memory=e.of_memory)
            return
        self._bounded = image is None  # the first page shares the time of opening
        if image is None:
            yield _said(pages=len(self._pages))
        else:
            yield from _sent(image, plot)

    def _open(self, request: dict[str, Any], data: bytes) -> None:
        from pulse_edge.page import pictures

        self._pages = []
        self._name, self._what = request["name"], request["what"]
        self._limits = pictures.Limits(pixels=request["pixels"], pages=request["pages"])
        self._pages = list(_opener(request["kind"])(data, self._name, self._limits))

    @contextmanager
    def _explained(self, request: dict[str, Any]) -> Iterator[None]:
        """Turns whatever a decoder raises, and its word that data are missing, into one line for people."""
        from pulse_edge.errors import ScanError
        from pulse_edge.page import pictures

        several = request["do"] == "page" and len(self._pages) > 1
        name = (
            pictures.numbered(self._name, request["page"] + 1, 2)
            if several
            else request.get("name", self._name)
        )
        what = request.get("what", self._what)
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            try:
                yield
            except Exception as e:
                raise _Refusal(
                    pictures.reason(e, name, what, self._limits), isinstance(e, MemoryError)
                ) from e
        for warning in heard:
            if _MISSING.search(str(warning.message)):
                why = pictures.short(warning.message)
                raise _Refusal(
                    ScanError(f"{name}: is a {what} that is cut short ({why}). {pictures.AGAIN}")
                )


_MISSING = re.compile(
    r"truncat|cut short|premature|unexpected end|(?:less|fewer|shorter).{0,60}(?:than|expect)",
    re.IGNORECASE,
)
"""What decoders say where data are missing."""


class _Refusal(Exception):
    def __init__(self, error: Exception, of_memory: bool = False) -> None:
        super().__init__(str(error))
        self.error, self.of_memory = error, of_memory


def _opener(kind: str) -> Callable[[bytes, str, Any], Sequence[Callable[[], Any]]]:
    from pulse_edge.page import pictures

    if kind == "PDF":
        from pulse_edge.page import pdf

        return pdf.pages
    if kind == "DICOM":
        from pulse_edge.page import dicom

        return dicom.pages
    openers: dict[str, Callable[[bytes, str, Any], Sequence[Callable[[], Any]]]] = {
        "JPEG": pictures.jpeg,
        "PNG": pictures.png,
        "TIFF": pictures.tiff,
        "BMP": pictures.bmp,
        "WebP": pictures.webp,
        "GIF": pictures.gif,
        "AVIF": pictures.avif,
        "HEIC": pictures.heic,
    }
    return openers[kind]


def _said(**fields: Any) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def _sent(image: Any, plot: Any) -> Iterator[bytes]:
    """A page: its size, what is known of one that was drawn here, and its RGB bytes from top to bottom."""
    yield _said(size=list(image.size), plot=plot and plot.to_json())
    rows = max(1, STRIP // (3 * image.width))
    for top in range(0, image.height, rows):
        yield image.crop((0, top, image.width, min(top + rows, image.height))).tobytes()


if __name__ == "__main__":
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    main(int(sys.argv[1]))
