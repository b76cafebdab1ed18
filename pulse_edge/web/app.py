"""The ASGI application: the routes of every module behind the guard and the limits of bodies."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response

from pulse_edge.errors import PulseEdgeError
from pulse_edge.web import (
    api,
    controls,
    documents,
    events,
    openai_api,
    openapi,
    pages,
    phone,
    uploads,
)
from pulse_edge.web.access import Access
from pulse_edge.web.bodies import BodyLimits
from pulse_edge.web.options import ServeOptions
from pulse_edge.web.phone import PhonePort
from pulse_edge.web.responses import problem, program_error
from pulse_edge.web.security import Guard
from pulse_edge.web.service import Service

FILE_PATHS = ("/upload", "/api/", "/v1/")
"""Beginnings of the paths whose bodies may hold files."""


def create_app(
    service: Service,
    options: ServeOptions,
    access: Access,
    hosts: frozenset[str],
    port: PhonePort | None = None,
) -> Starlette:
    """Return the application. `hosts`: values of the Host header that name this server; `port`: the
    port for phones, if there is one."""

    async def remember(cookie: str) -> None:
        await service.work.stored(service.store.add_session, cookie)

    modules = (uploads, events, documents, controls, api, openai_api, openapi, pages)
    pairing = [] if port is None else phone.routes(port)
    limits = options.limits
    return Starlette(
        routes=[
            *pairing,
            *(route for module in modules for route in module.routes(service, options)),
        ],
        middleware=[
            Middleware(BodyLimits, limits=limits, long_paths=FILE_PATHS),
            Middleware(
                Guard,
                access=access,
                hosts=hosts,
                form_bytes=limits.form_bytes,
                remember=remember,
            ),
        ],
        exception_handlers=EXCEPTION_HANDLERS,
    )


async def _program_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, PulseEdgeError)
    return program_error(request, error)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = {404: "There is no such page.", 405: "This address takes another method."}
    kinds = {404: "not_found", 405: "method_not_allowed"}
    shown = text.get(error.status_code, error.detail)
    response = problem(request, error.status_code, shown, kinds.get(error.status_code, "error"))
    response.headers.update(error.headers or {})
    return response


EXCEPTION_HANDLERS = {PulseEdgeError: _program_error, HTTPException: _http_error}
"""Answers to what the routes of any port raise."""
