"""Receive files: a form streams to the disk piece by piece, and a half one leaves no file."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from pulse_edge.errors import PulseEdgeError, UsageError
from pulse_edge.web.options import PhoneOptions, ServeOptions
from pulse_edge.web.responses import problem, program_error, wants_json
from pulse_edge.web.security import CSRF_FIELD, csrf_problem, valid_csrf
from pulse_edge.web.service import Service
from pulse_edge.web.templating import url

FILE_FIELD = "file"
MAX_FILES, MAX_FIELDS, MAX_FIELD_BYTES = 100, 100, 16 << 10
SPARE_BYTES = 256 << 20
"""Free space on the disk below which nothing is received: database and audit log need some."""


class FormError(Exception):
    """The form is broken, or holds more than it may; the message says what."""


class WrongToken(Exception):
    """The form does not begin with the session's token."""


@dataclass
class Form:
    """A received form: its plain fields, and its files on the disk."""

    fields: dict[str, list[str]] = field(default_factory=dict)
    files: list[tuple[Path, str]] = field(default_factory=list)
    """Path and the client's name of each file."""

    def discard(self) -> None:
        """Remove the files that were not handed on."""
        for path, _name in self.files:
            path.unlink(missing_ok=True)

    def options(self) -> dict[str, Any]:
        """Return what the form asks about its pages."""
        options: dict[str, Any] = {
            name: values[0]
            for name, values in self.fields.items()
            if name in ("age_years", "sex", "findings", "max_tokens")
        }
        if questions := [q for q in self.fields.get("question", []) if q.strip()]:
            options["questions"] = questions
        return options


async def receive(
    request: Request,
    new_path: Callable[[], Path],
    first_field: Callable[[str, str], None] = lambda _name, _value: None,
) -> Form:
    """Receive a multipart form, with its files at paths of `new_path`.

    `first_field` gets name and value of the first field before anything is written, and may raise.
    Raises FormError, OSError, and what the limits of bodies raise; then no file stays.
    """
    kind, parameters = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data" or b"boundary" not in parameters:
        raise FormError("The request is no form with files.")
    form = Form()
    parts = _Parts(form, new_path, first_field)
    try:
        parser = MultipartParser(parameters[b"boundary"], parts.callbacks())
        async for piece in request.stream():
            parser.write(piece)
        parser.finalize()
        if not parts.ended:
            raise FormError("The form ended too early. Send it again.")
    except MultipartParseError:
        parts.close()
        form.discard()
        raise FormError("The form is broken. Send it again.") from None
    except BaseException:
        parts.close()
        form.discard()
        raise
    return form


async def receive_body(request: Request, new_path: Callable[[], Path], name: str) -> Form:
    """Receive a body that is a file itself, at a path of `new_path`.

    Raises OSError, and what the limits of bodies raise; then no file stays.
    """
    form = Form(files=[(new_path(), name)])
    try:
        with _new_file(form.files[0][0]) as file:
            async for piece in request.stream():
                file.write(piece)
    except BaseException:
        form.discard()
        raise
    return form


def _new_file(path: Path) -> IO[bytes]:
    """Open a new file for its owner alone."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    return os.fdopen(handle, "wb")


class _Parts:
    """The callbacks of the parser: one part after the other."""

    def __init__(
        self, form: Form, new_path: Callable[[], Path], first_field: Callable[[str, str], None]
    ) -> None:
        self._form, self._new_path, self._first_field = form, new_path, first_field
        self._header, self._value = bytearray(), bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._name = ""
        self._file: IO[bytes] | None = None
        self._text = bytearray()
        self._parts = 0
        self.ended = False

    def callbacks(self) -> Any:
        """Return the parser's callbacks by name."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._last,
        }

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_FILES + MAX_FIELDS:
            raise FormError("The form has too many parts.")
        self._headers = {}
        self._text = bytearray()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        if len(self._value) + len(self._header) > MAX_FIELD_BYTES:
            raise FormError("The form has a header that is too long.")

    def _header_end(self) -> None:
        self._headers[bytes(self._header).lower()] = bytes(self._value)
        self._header, self._value = bytearray(), bytearray()

    def _headers_finished(self) -> None:
        disposition = self._headers.get(b"content-disposition")
        _kind, about = parse_options_header(disposition)
        self._name = about.get(b"name", b"").decode("utf-8", "replace")
        if b"filename" not in about:
            return
        if self._parts == 1:
            self._first_field("", "")
        if len(self._form.files) >= MAX_FILES:
            raise FormError(f"The form has more than {MAX_FILES} files.")
        path = self._new_path()
        self._file = _new_file(path)
        self._form.files.append((path, about[b"filename"].decode("utf-8", "replace")))

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.write(data[start:end])
            return
        self._text += data[start:end]
        if len(self._text) > MAX_FIELD_BYTES:
            raise FormError("The form has a field that is too long.")

    def _end(self) -> None:
        if self._file is not None:
            self.close()  # `submit` waits for the disk, in a thread
            path, name = self._form.files[-1]
            if not name and path.stat().st_size == 0:  # a file field in which nothing was chosen
                self._form.files.pop()
                path.unlink()
            return
        value = self._text.decode("utf-8", "replace")
        if self._parts == 1:
            self._first_field(self._name, value)
        self._form.fields.setdefault(self._name, []).append(value)

    def _last(self) -> None:
        self.ended = True

    def close(self) -> None:
        """Close the file that is being written."""
        if self._file is not None:
            self._file.close()
            self._file = None


def token_checker(request: Request) -> Callable[[str, str], None]:
    """Return the check of a form's first field, where the guard left it to the route."""

    def check(name: str, value: str) -> None:
        if not getattr(request.state, "csrf_due", False):
            return
        if name != CSRF_FIELD or not valid_csrf(value, request.state.identity):
            raise WrongToken

    return check


class Receiver:
    """Receives forms, as many at a time as the limits allow."""

    def __init__(self, service: Service, options: ServeOptions | PhoneOptions) -> None:
        self._service, self._limit, self._open = service, options.limits.uploads, 0

    async def form(self, request: Request) -> Form | Response:
        """Return a received form, or the answer to one that cannot be received."""
        return await self._received(
            request, receive(request, self._service.new_upload, token_checker(request))
        )

    async def body(self, request: Request, name: str) -> Form | Response:
        """Return a form with a body that is a file itself, under a name; else as `form`."""
        return await self._received(request, receive_body(request, self._service.new_upload, name))

    async def _received(
        self, request: Request, receiving: Coroutine[Any, Any, Form]
    ) -> Form | Response:
        if self._open >= self._limit:
            receiving.close()
            return problem(request, 503, "Too many uploads at once. Wait a moment.", "busy")
        if self._service.store.free_bytes() < SPARE_BYTES:
            receiving.close()
            return problem(request, 507, "The disk is full. Free space, then upload again.", "disk")
        self._open += 1
        try:
            return await receiving
        except WrongToken:
            return csrf_problem(request)
        except FormError as e:
            return problem(request, 400, str(e), "usage_error")
        except OSError as e:
            text = f"The upload cannot be written ({e.strerror}). Free space on the disk."
            return problem(request, 507, text, "disk")
        finally:
            self._open -= 1


async def submit(
    service: Service, form: Form, about: Mapping[str, Any], options: dict[str, Any]
) -> list[str]:
    """Put every file of a form on the list; return the ids of their pages. Raises UsageError."""
    if not form.files:
        raise UsageError("No file was chosen. Choose a picture, a PDF or a DICOM file.")
    # Together, because each waits for the page that the page worker is busy with.
    submits = (service.submit(path, name, options=options, **about) for path, name in form.files)
    results = await asyncio.gather(*submits, return_exceptions=True)
    ids: list[str] = []
    for result in results:
        if isinstance(result, BaseException):
            raise result
        ids += result
    return ids


def routes(service: Service, options: ServeOptions) -> list[Route]:
    """Return the routes of this module."""
    receiver = Receiver(service, options)

    async def upload(request: Request) -> Response:
        form = await receiver.form(request)
        if isinstance(form, Response):
            return form
        try:
            ids = await submit(service, form, {"source": "local"}, form.options())
        except PulseEdgeError as e:
            return program_error(request, e)
        finally:
            form.discard()  # those that were handed on have another name now
        if wants_json(request):
            return JSONResponse({"ids": ids}, 201)
        return RedirectResponse(url(request, f"/r/{ids[0]}" if len(ids) == 1 else "/"), 303)

    return [Route("/upload", upload, methods=["POST"])]
