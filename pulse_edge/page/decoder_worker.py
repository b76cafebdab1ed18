"""Decode foreign files in a separate process, so that no decoder runs in the program's own.

`python -m pulse_edge.page.decoder_worker` is started by decoder_client.py. A file is sent once and
its pages are requested one by one. Each page has a limit of processor time, the process a limit of
memory. A file that exceeds a limit, or breaks a decoder, ends this process alone.

Protocol: a request on standard input is a line of JSON, for `open` followed by the file's bytes. A
reply on standard output is a line of JSON, for a page followed by its RGB bytes. The process ends
after IDLE seconds without a request, and when the program has ended.
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
"""Seconds without a request after which the process ends."""
STRIP = 4 << 20
"""Bytes of a page that are sent at a time: a second copy of it would exceed the memory limit."""


def main(memory: int) -> None:
    """Answer requests until the program ends. `memory`: bytes of address space; 0 is no limit."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C is for the program, which then ends this process
    _limit_memory(memory)
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(
        sys.stderr.fileno(), sys.stdout.fileno()
    )  # text that a library prints must not mix with the replies
    server = _Server()
    while line := _next_request(sys.stdin.buffer):
        for reply in server.answer(json.loads(line), sys.stdin.buffer):
            out.write(reply)
        out.flush()


def _next_request(pipe: IO[bytes]) -> bytes:
    """Return the next request; empty bytes when no more can come."""
    with contextlib.suppress(
        OSError
    ):  # Windows cannot wait for a pipe: the process ends with the program
        if not select.select([pipe], [], [], IDLE)[0]:
            return b""
    return pipe.readline()


def _limit_memory(memory: int) -> None:
    """Limit memory, and forbid writing to any disk. Windows has no such limits."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        if memory:
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def _limit_time(seconds: float) -> None:
    """End this process after so many seconds of processor time. Windows has no such limit."""
    with contextlib.suppress(ImportError, ValueError, OSError, AttributeError):
        import resource

        signal.setitimer(
            signal.ITIMER_PROF, seconds
        )  # counts milliseconds of the whole process; ends it by SIGPROF
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        resource.setrlimit(
            resource.RLIMIT_CPU, (math.ceil(time.process_time() + seconds) + 1, hard)
        )


class _Server:
    """The file that is open, and its pages."""

    def __init__(self) -> None:
        from pulse_edge.page import file_errors

        self._limits = file_errors.Limits()
        self._pages: list[Callable[[], Any]] = []
        self._name, self._kind_name = "", ""
        self._time_limited = False

    def answer(self, request: dict[str, Any], pipe: IO[bytes]) -> Iterator[bytes]:
        """Return the reply to a request, in pieces."""
        if request["do"] == "close":
            self._pages = []
            yield _reply_line(closed=True)
            return
        data = pipe.read(request["bytes"]) if request["do"] == "open" else b""
        if not self._time_limited:
            _limit_time(request["seconds"])
        image = plot = None
        try:
            with self._readable_errors(request):
                if request["do"] == "open":
                    self._open(request, data)
                else:
                    image = self._pages[request["page"]]()
                    image, plot = image if isinstance(image, tuple) else (image, None)
        except _Refusal as e:
            self._time_limited = False
            yield _reply_line(
                error=type(e.error).__name__, text=str(e.error), of_memory=e.of_memory
            )
            return
        self._time_limited = image is None  # opening and the first page share one limit of time
        if image is None:
            yield _reply_line(pages=len(self._pages))
        else:
            yield from _page_reply(image, plot)

    def _open(self, request: dict[str, Any], data: bytes) -> None:
        """Open the file of a request."""
        from pulse_edge.page import file_errors

        self._pages = []
        self._name, self._kind_name = request["name"], request["kind_name"]
        self._limits = file_errors.Limits(pixels=request["pixels"], pages=request["pages"])
        self._pages = list(_opener(request["kind"])(data, self._name, self._limits))

    @contextmanager
    def _readable_errors(self, request: dict[str, Any]) -> Iterator[None]:
        """Turn whatever a decoder raises, and warnings that data are missing, into one line for
        people."""
        from pulse_edge.errors import ScanError
        from pulse_edge.page import file_errors

        several = request["do"] == "page" and len(self._pages) > 1
        name = (
            file_errors.page_name(self._name, request["page"] + 1, 2)
            if several
            else request.get("name", self._name)
        )
        kind_name = request.get("kind_name", self._kind_name)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                yield
            except Exception as e:
                raise _Refusal(
                    file_errors.readable_error(e, name, kind_name, self._limits),
                    isinstance(e, MemoryError),
                ) from e
        for warning in caught:
            if _TRUNCATION_WARNING.search(str(warning.message)):
                why = file_errors.shortened(warning.message)
                raise _Refusal(
                    ScanError(
                        f"{name}: is a {kind_name} that is cut short ({why}). {file_errors.AGAIN}"
                    )
                )


_TRUNCATION_WARNING = re.compile(
    r"truncat|cut short|premature|unexpected end|(?:less|fewer|shorter).{0,60}(?:than|expect)",
    re.IGNORECASE,
)
"""Texts of decoders' warnings that data are missing."""


class _Refusal(Exception):
    """A request that fails, with the project's `error` for it."""

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


def _reply_line(**fields: Any) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def _page_reply(image: Any, plot: Any) -> Iterator[bytes]:
    """Send a page: its size, the facts of one that was plotted, and its RGB bytes from top to
    bottom."""
    yield _reply_line(size=list(image.size), plot=plot and plot.to_json())
    rows = max(1, STRIP // (3 * image.width))
    for top in range(0, image.height, rows):
        yield image.crop((0, top, image.width, min(top + rows, image.height))).tobytes()


if __name__ == "__main__":
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    main(int(sys.argv[1]))
