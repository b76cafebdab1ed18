"""The pages that people see, as HTML that works without a script."""

from __future__ import annotations

import html
import json

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from pulse_edge.errors import PulseEdgeError
from pulse_edge.web.options import ServeOptions
from pulse_edge.web.readings import Reading
from pulse_edge.web.responses import problem, program_error
from pulse_edge.web.service import Service


def _page(title: str, body: str) -> HTMLResponse:
    return HTMLResponse(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}'
        '</title><meta name="viewport" content="width=device-width"></head>'
        f"<body><main>{body}</main></body></html>"
    )


def _form(action: str, csrf: str, inside: str, kind: str = "") -> str:
    return (
        f'<form method="post" action="{action}"{kind}>'
        f'<input type="hidden" name="csrf" value="{csrf}">{inside}</form>'
    )


def routes(service: Service, options: ServeOptions) -> list[Route]:
    """Return the routes of this module."""

    async def home(request: Request) -> Response:
        csrf = request.state.identity.csrf
        field = '<input type="file" name="file" multiple required><button>Upload</button>'
        items = "".join(
            f'<li><a href="/r/{r.id}">{html.escape(r.name)}</a> {r.state}</li>'
            for r in await service.readings()
        )
        upload = _form("/upload", csrf, field, ' enctype="multipart/form-data"')
        return _page("pulse-edge", f"<h1>pulse-edge</h1>{upload}<ul>{items}</ul>")

    async def result(request: Request) -> Response:
        try:
            reading = await service.reading(request.path_params["id"])
        except KeyError:
            return problem(request, 404, "There is no such page.", "not_found")
        return _page(reading.name, _result(reading, request.state.identity.csrf))

    async def act(request: Request) -> Response:
        id, action = request.path_params["id"], request.path_params["action"]
        form = await request.form()
        try:
            if action == "ask":
                await service.ask(id, str(form.get("question", "")))
            elif action == "stop":
                await service.stop(id)
            elif action == "force":
                await service.force(id)
            elif action == "retry":
                await service.retry(id)
            elif action == "remove":
                await service.remove(id)
                return RedirectResponse("/", 303)
            else:
                raise KeyError(action)
        except KeyError:
            return problem(request, 404, "There is no such page.", "not_found")
        except PulseEdgeError as e:
            return program_error(request, e)
        return RedirectResponse(f"/r/{id}", 303)

    return [
        Route("/", home),
        Route("/r/{id}", result),
        Route("/r/{id}/{action}", act, methods=["POST"]),
    ]


def _result(reading: Reading, csrf: str) -> str:
    shown = json.dumps(reading.to_json(), indent=1, ensure_ascii=False)
    ask = '<input name="question" required><button>Ask</button>'
    buttons = "".join(
        _form(f"/r/{reading.id}/{action}", csrf, f"<button>{action}</button>")
        for action in ("stop", "force", "retry", "remove")
    )
    return (
        f"<h1>{html.escape(reading.name)}</h1><p>{reading.state}</p>"
        f'<img src="/r/{reading.id}/picture/trace" alt="The traced page" width="600">'
        f"<pre>{html.escape(reading.text)}</pre>"
        f"{_form(f'/r/{reading.id}/ask', csrf, ask)}{buttons}<pre>{html.escape(shown)}</pre>"
    )
