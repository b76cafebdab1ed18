"""The endpoint that programs for OpenAI's API can use."""

from __future__ import annotations

from starlette.routing import Route

from pulse_edge.web.options import ServeOptions
from pulse_edge.web.service import Service


def routes(service: Service, options: ServeOptions) -> list[Route]:
    """Return the routes of this module."""
    return []
