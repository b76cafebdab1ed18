"""Answers that several modules give: errors as JSON and as a page."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from pulse_edge.errors import PageRefused, PulseEdgeError, ScanError, UsageError
from pulse_edge.web.error_page import error_page

JSON_PATHS = ("/api/", "/v1/", "/openapi.json")


def wants_json(request: Request) -> bool:
    """Whether the client reads JSON rather than a page."""
    accepts = request.headers.get("accept", "")
    return request.url.path.startswith(JSON_PATHS) or "application/json" in accepts


def error_json(message: str, kind: str, exit_code: int) -> dict[str, Mapping[str, object]]:
    """Return the JSON object of an error."""
    return {"error": {"message": message, "type": kind, "exit_code": exit_code}}


def problem(request: Request, status: int, message: str, kind: str = "error") -> Response:
    """Return an error as the client reads it."""
    if wants_json(request):
        return JSONResponse(error_json(message, kind, 1), status)
    return error_page(request, status, message)


def status_of(error: PulseEdgeError) -> int:
    """Return the HTTP status of one of the program's errors."""
    if isinstance(error, UsageError):
        return 400
    if isinstance(error, ScanError | PageRefused):
        return 422
    return 500


def program_error(request: Request, error: PulseEdgeError) -> Response:
    """Return one of the program's errors as the client reads it."""
    status, kind = status_of(error), type(error).__name__
    if wants_json(request):
        return JSONResponse(error_json(str(error), kind, error.exit_code), status)
    return problem(request, status, str(error))
