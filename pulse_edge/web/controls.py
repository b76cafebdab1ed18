"""Actions that belong to no page."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from pulse_edge.web.options import ServeOptions
from pulse_edge.web.responses import wants_json
from pulse_edge.web.service import Service


def routes(service: Service, options: ServeOptions) -> list[Route]:
    """Return the routes of this module."""

    async def load_model(request: Request) -> Response:
        service.load_model()
        return JSONResponse({}) if wants_json(request) else RedirectResponse("/", 303)

    return [Route("/model/load", load_model, methods=["POST"])]
