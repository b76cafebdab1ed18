"""The page that says why a request failed."""

from __future__ import annotations

from importlib.metadata import version

from starlette.requests import Request
from starlette.responses import HTMLResponse

from pulse_edge.web import overview, templating
from pulse_edge.web.catalogue import N_, catalogue

HEADINGS = {
    400: N_("This request cannot be answered"),
    401: N_("This browser is not connected to pulse-edge"),
    403: N_("This is not allowed"),
    404: N_("This page does not exist"),
    413: N_("The file is too large"),
    429: N_("Too many requests at once"),
    500: N_("Something went wrong"),
    503: N_("The program is busy"),
    507: N_("The disk is full"),
}
"""Status of HTTP -> heading of the page that says so."""


def error_page(request: Request, status: int, message: str) -> HTMLResponse:
    """Return the page that says why a request failed; `message` is English and names what to do."""
    words = catalogue(templating.language_of(request))
    heading = HEADINGS.get(status, HEADINGS[500 if status >= 500 else 400])
    values = {
        "about": overview.about({"version": version("pulse-edge")}),
        "heading": words.gettext(heading),
        "message": message,
    }
    return templating.page(request, "error.html", values, status=status)
