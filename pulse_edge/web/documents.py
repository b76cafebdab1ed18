"""The pictures of a page, and its report as a file."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from pulse_edge.errors import PulseEdgeError
from pulse_edge.web.options import ServeOptions
from pulse_edge.web.responses import problem, program_error
from pulse_edge.web.service import Service

MEDIA = {
    "pdf": "application/pdf",
    "html": "text/html; charset=utf-8",
    "json": "application/json",
    "fhir.json": "application/fhir+json",
}
STYLED = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; sandbox"
)
"""Content-Security-Policy of the HTML report, which holds its style itself and no script."""


def routes(service: Service, options: ServeOptions) -> list[Route]:
    """Return the routes of this module."""

    async def picture(request: Request) -> Response:
        try:
            path = await service.picture(request.path_params["id"], request.path_params["kind"])
            return FileResponse(path, stat_result=path.stat())
        except (KeyError, FileNotFoundError):  # the page may have been removed just now
            return problem(request, 404, "There is no such picture.", "not_found")

    async def report(request: Request) -> Response:
        ending = request.path_params["ending"]
        try:
            media, form = MEDIA[ending], ending.partition(".")[0]
            content = await service.document(request.path_params["id"], form)
        except KeyError:
            return problem(request, 404, "There is no such report.", "not_found")
        except PulseEdgeError as e:
            return program_error(request, e)
        headers = {"content-security-policy": STYLED} if form == "html" else {}
        return Response(content, headers=headers, media_type=media)

    return [
        Route("/r/{id}/picture/{kind}", picture),
        Route("/r/{id}/report.{ending}", report),
    ]
