"""Answers that several modules give: errors as JSON, in OpenAI's form, and as a plain page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from pulse_edge.errors import (
    DeviceError,
    EngineError,
    KitError,
    MemoryShortage,
    PageRefused,
    PulseEdgeError,
    ScanError,
    UsageError,
)
from pulse_edge.web.error_page import error_page

JSON_PATHS = ("/api/", "/v1/", "/openapi.json")
OPENAI_PATHS = "/v1/"
STATUS = {
    "usage_error": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "csrf": 403,
    "origin": 403,
    "link": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "timeout": 408,
    "too_large": 413,
    "unsupported_media_type": 415,
    "host": 421,
    "page_refused": 422,
    "page_unreadable": 422,
    "too_many_requests": 429,
    "reading_failed": 500,
    "busy": 503,
    "model_not_ready": 503,
    "disk": 507,
}
"""Type of an error -> HTTP status."""
_KINDS: tuple[tuple[type[PulseEdgeError], str], ...] = (
    (UsageError, "usage_error"),
    (PageRefused, "page_refused"),
    (ScanError, "page_unreadable"),
    (KitError, "model_not_ready"),
    (DeviceError, "model_not_ready"),
    (MemoryShortage, "model_not_ready"),
    (EngineError, "model_not_ready"),
)


def wants_json(request: Request) -> bool:
    """Whether the client reads JSON rather than a page."""
    accepts = request.headers.get("accept", "")
    return request.url.path.startswith(JSON_PATHS) or "application/json" in accepts


def error_json(message: str, kind: str, exit_code: int) -> dict[str, Mapping[str, Any]]:
    """Return the JSON object of an error."""
    return {"error": {"message": message, "type": kind, "exit_code": exit_code}}


def openai_error_json(
    message: str, status: int, code: str, parameter: str | None = None
) -> dict[str, Mapping[str, Any]]:
    """Return the JSON object of an error in OpenAI's form."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": parameter, "code": code}}


def problem(request: Request, status: int, message: str, kind: str = "error") -> Response:
    """Return an error as the client reads it."""
    if request.url.path.startswith(OPENAI_PATHS):
        return JSONResponse(openai_error_json(message, status, kind), status)
    if wants_json(request):
        usage = UsageError.exit_code if status == 400 else PulseEdgeError.exit_code
        return JSONResponse(error_json(message, kind, usage), status)
    return error_page(request, status, message)


def kind_of(error: PulseEdgeError) -> str:
    """Return the type of one of the program's errors, of STATUS."""
    return next((kind for cls, kind in _KINDS if isinstance(error, cls)), "reading_failed")


def program_error(request: Request, error: PulseEdgeError) -> Response:
    """Return one of the program's errors as the client reads it."""
    kind = kind_of(error)
    path = request.url.path
    if wants_json(request) and not path.startswith(OPENAI_PATHS):
        return JSONResponse(error_json(str(error), kind, error.exit_code), STATUS[kind])
    return problem(request, STATUS[kind], str(error), kind)
