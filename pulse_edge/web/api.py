"""`/api`: interpret, measure and check, with the JSON that the commands print.

In: a page as a multipart form or as the raw body, and the commands' options as fields of the query
or the form. Out: a line of JSON for each page of the file: one page is one JSON object
(application/json), several are JSON Lines (application/jsonl). A page without a result is an error
with a status where it is the only one, else a line with its reason.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pulse_edge.common.text import json_text, one_line
from pulse_edge.errors import PulseEdgeError, UsageError
from pulse_edge.report.report import NoAnswer
from pulse_edge.web import api_errors, api_options, following, uploads
from pulse_edge.web.api_errors import RequestError, usage
from pulse_edge.web.api_options import Option
from pulse_edge.web.options import ServeOptions

if TYPE_CHECKING:
    from pulse_edge.web.service import Reading, Service

MULTIPART = "multipart/form-data"
RAW = ("application/octet-stream", "application/pdf", "application/dicom")
"""Media types of a raw body, and any picture; the file itself says what it is."""
FILE = "file"
"""Field of a form that holds the page."""
NAME = "name"
"""Field of a query that names a raw body."""
WAIT = "wait"
UNNAMED = "page"
Endpoint = Callable[[Request], Awaitable[Response]]


@dataclasses.dataclass(frozen=True)
class _Upload:
    """A page's file with the options of its request."""

    path: Path
    name: str
    options: dict[str, Any]
    wait: bool


def routes(service: Service, options: ServeOptions) -> list[Route]:
    """Return the routes below `/api`."""

    requests = _Requests(service, options)

    async def interpret(request: Request) -> Response:
        async with requests.upload(request, api_options.INTERPRET, waiting=True) as upload:
            if failure := api_errors.not_ready(service.about()):
                raise failure
            ids = await service.submit(
                upload.path, upload.name, source="api", options=upload.options
            )
        if not upload.wait:
            readings = [reading_json(await service.reading(one)) for one in ids]
            location = {"Location": f"/api/readings/{ids[0]}"}
            return JSONResponse({"readings": readings}, 202, location)
        return await _results(service, ids, request)

    async def measure(request: Request) -> Response:
        async with requests.upload(request, api_options.MEASURE) as upload:
            return _lines(await service.measure(upload.path, upload.name, upload.options))

    async def check(request: Request) -> Response:
        async with requests.upload(request, api_options.CHECK) as upload:
            return _lines(await service.check(upload.path, upload.name, upload.options))

    async def reading(request: Request) -> Response:
        reading_id = request.path_params["id"]
        try:
            if request.method == "DELETE":
                await service.remove(reading_id)
                return Response(status_code=204)
            return JSONResponse(reading_json(await service.reading(reading_id)))
        except KeyError:
            message = "There is no such reading. It was removed, or the id is wrong."
            raise RequestError("not_found", message) from None

    return [
        Route("/api/interpret", _answered(interpret), methods=["POST"]),
        Route("/api/measure", _answered(measure), methods=["POST"]),
        Route("/api/check", _answered(check), methods=["POST"]),
        Route("/api/readings/{id}", _answered(reading), methods=["GET", "DELETE"]),
    ]


class _Answered(Exception):
    """The request was answered while it was received."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.response = response


def _answered(endpoint: Endpoint) -> Endpoint:
    """Return the endpoint with its errors as JSON."""

    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except RequestError as e:
            return error_response(e)
        except _Answered as e:
            return e.response
        except ClientDisconnect:
            return Response(status_code=499)  # no one reads it
        except PulseEdgeError as e:
            return error_response(api_errors.of_error(e))

    return answer


def error_response(error: RequestError) -> Response:
    """Return an error in the form of `/api`."""
    return JSONResponse(error.to_json(), error.status)


def reading_json(reading: Reading) -> dict[str, Any]:
    """Return the state of a reading as JSON."""
    return reading.to_json()


async def _results(service: Service, ids: Sequence[str], request: Request) -> Response:
    """Wait for every page of a file; return their reports as the command prints them.

    Raises RequestError where the only page has none.
    """
    lines: list[dict[str, Any]] = []
    for one in ids:
        states = following.follow(service, one, request)
        try:
            reading = await following.last(states, await following.judged(states))
        finally:
            await states.aclose()
        if reading.state == "done" and reading.report is not None:
            lines.append(reading.report)
            continue
        error = api_errors.of_reading(reading)
        if len(ids) == 1:
            raise error
        name = one_line(reading.name)
        lines.append(dataclasses.asdict(NoAnswer(name, error.message, error.exit_code)))
    return _lines(lines)


def _lines(pages: Sequence[dict[str, Any]]) -> Response:
    """Return JSON as the commands print it, a line for each page.

    Raises RequestError where the only page has an error instead of a result.
    """
    lines = []
    for page in pages:
        if "error" not in page:
            first = {name: page[name] for name in ("notice", "overread") if name in page}
            lines.append(first | page)
            continue
        if len(pages) == 1:
            raise api_errors.of_event(page)
        message = one_line(page["error"])
        lines.append(dataclasses.asdict(NoAnswer(page["file"], message, page["exit_code"])))
    media = "application/json" if len(lines) == 1 else "application/jsonl"
    return Response("".join(f"{json_text(line)}\n" for line in lines), media_type=media)


# --- the request ----------------------------------------------------------------------------------


class _Requests:
    """Receives requests with a page: the file goes to the disk while it streams in."""

    def __init__(self, service: Service, options: ServeOptions) -> None:
        self._receiver = uploads.Receiver(service, options)

    @contextlib.asynccontextmanager
    async def upload(
        self, request: Request, options: Sequence[Option], *, waiting: bool = False
    ) -> AsyncIterator[_Upload]:
        """Receive a page with its options; a file that was not handed on is removed at the end.

        Raises RequestError.
        """
        fields = list(request.query_params.multi_items())
        media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media == MULTIPART:
            form = await self._receiver.form(request)
        elif media in RAW or media.startswith("image/"):
            form = await self._receiver.body(request, UNNAMED)
        else:
            raise RequestError(
                "unsupported_media_type",
                f"Content-Type {media or 'missing'}: expected {MULTIPART}, or the page itself as a "
                f"picture or {', '.join(RAW)}.",
                2,
            )
        if isinstance(form, Response):
            raise _Answered(form)
        try:
            fields += [(name, text) for name, texts in form.fields.items() for text in texts]
            yield _checked(form, fields, options, waiting=waiting)
        finally:
            form.discard()


def _checked(
    form: uploads.Form,
    fields: Sequence[tuple[str, str]],
    options: Sequence[Option],
    *,
    waiting: bool,
) -> _Upload:
    """Return the one file of a form with its options. Raises RequestError."""
    names = [text for field, text in fields if field == NAME]
    waits = [text for field, text in fields if field == WAIT] if waiting else []
    if len(names) > 1 or len(waits) > 1 or not {*waits} <= {"true", "false"}:
        raise usage("wait: expected true or false, and wait and name once each.")
    own = {NAME, WAIT} if waiting else {NAME}
    try:
        values = api_options.parse(options, (f for f in fields if f[0] not in own))
    except UsageError as e:
        raise usage(str(e)) from None
    if len(form.files) != 1 or form.files[0][0].stat().st_size == 0:
        raise usage(f"Expected one page. Send its file in the field {FILE!r} of a form.")
    path, name = form.files[0]
    return _Upload(path, names[0] if names else name or UNNAMED, values, waits != ["false"])
