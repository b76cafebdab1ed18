"""The pages that clinicians see, and the forms on them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from pulse_edge.errors import PulseEdgeError
from pulse_edge.web import overread_form, overview, templating, view
from pulse_edge.web.options import ServeOptions
from pulse_edge.web.readings import Reading
from pulse_edge.web.service import Service

STATIC = Path(__file__).parent / "static"
"""Style, scripts and icon of the pages."""
TODAY = 100
"""Readings of today that the first page lists."""
AT_ONCE = 50
"""Readings on one page of the history."""


class Pages:
    """Answers requests for pages; all it knows comes from the service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    # --- pages ------------------------------------------------------------------------------------

    async def home(self, request: Request) -> Response:
        """Show the form for a new page, and the readings of today."""
        today = datetime.now().astimezone().strftime("%Y-%m-%d")
        readings = await self._service.readings(day=today, text=None, limit=TODAY, before=None)
        days = overview.days(readings)
        day = next((d for d in days if d.date == today), None)
        listed = "".join(
            f"{r.id}{r.state}{r.place}{r.admission is None}{(r.confirmation or {}).get('number')}"
            for r in readings
        )
        return self._page(request, "home.html", {"day": day, "version": listed})

    async def reading(self, request: Request) -> Response:
        """Show one reading as far as it has come."""
        return self._reading(request, await self._find(request))

    async def history(self, request: Request) -> Response:
        """List readings by day, those that hold some text or came on one day."""
        query = request.query_params.get("q", "").strip()[:200]
        day, before = _date(request.query_params.get("day", "")), request.query_params.get("before")
        readings = await self._service.readings(
            day=day or None, text=query or None, limit=AT_ONCE + 1, before=before
        )
        older = ""
        if len(readings) > AT_ONCE:
            readings = readings[:AT_ONCE]
            shared = {"q": query, "day": day, "lang": request.query_params.get("lang", "")}
            fields = {name: value for name, value in shared.items() if value}
            older = f"/history?{urlencode(fields | {'before': readings[-1].id})}"
        values = {"days": overview.days(readings), "query": query, "day": day, "older": older}
        return self._page(request, "history.html", values)

    async def about(self, request: Request) -> Response:
        """Show which kit answers, and what it does not know."""
        return self._page(request, "about.html", {})

    # --- forms ------------------------------------------------------------------------------------

    async def ask(self, request: Request) -> Response:
        """Queue a question about a page."""
        reading = await self._find(request)
        await self._service.ask(reading.id, (await _fields(request)).get("question", ""))
        return self._back(request, reading, "#conversation")

    async def stop(self, request: Request) -> Response:
        """Stop the answer that is being written."""
        reading = await self._find(request)
        await self._service.stop(reading.id)
        return self._back(request, reading, "#conversation")

    async def force(self, request: Request) -> Response:
        """Read a refused page all the same."""
        reading = await self._find(request)
        await self._service.force(reading.id)
        return self._back(request, reading)

    async def retry(self, request: Request) -> Response:
        """Read a page again that could not be read."""
        reading = await self._find(request)
        await self._service.retry(reading.id)
        return self._back(request, reading)

    async def remove(self, request: Request) -> Response:
        """Remove a page and its reading."""
        reading = await self._find(request)
        await self._service.remove(reading.id)
        return RedirectResponse(templating.url(request, "/"), 303)

    async def confirm(self, request: Request) -> Response:
        """Store what the reader decided; a form that is not complete comes back as it was."""
        reading = await self._find(request)
        fields = await _fields(request)
        if reading.report is None:
            raise HTTPException(409, f"{reading.name}: has no reading to confirm yet.")
        try:
            decided = overread_form.confirmation(fields, reading.report)
            overread_form.check_read(fields)
            corrects = overread_form.corrected(fields)
            await self._service.confirm(reading.id, decided, corrects=corrects)
        except PulseEdgeError as e:
            present = await self._find(request)
            return self._reading(request, present, fields, problem=str(e))
        return self._back(request, reading, "#confirm")

    # --- helpers ----------------------------------------------------------------------------------

    async def _find(self, request: Request) -> Reading:
        try:
            return await self._service.reading(request.path_params["id"])
        except KeyError:
            raise HTTPException(
                404, "It was removed, or its address is wrong. Look in the history."
            ) from None

    def _reading(
        self,
        request: Request,
        reading: Reading,
        fields: Mapping[str, str] | None = None,
        problem: str = "",
    ) -> HTMLResponse:
        values = {
            "view": view.reading_view(reading),
            "problem": problem,
            "filled": lambda name, default: (fields or {}).get(name, default),
        }
        return self._page(request, "reading.html", values, status=422 if problem else 200)

    def _page(
        self, request: Request, name: str, values: Mapping[str, Any], *, status: int = 200
    ) -> HTMLResponse:
        about = overview.about(self._service.about())
        return templating.page(request, name, {"about": about, **values}, status=status)

    @staticmethod
    def _back(request: Request, reading: Reading, place: str = "") -> RedirectResponse:
        return RedirectResponse(templating.url(request, f"/r/{reading.id}") + place, 303)


def _date(text: str) -> str:
    """Return a date as it came where it is one (ISO 8601), else empty."""
    try:
        return datetime.strptime(text, "%Y-%m-%d").strftime("%Y-%m-%d")
    except ValueError:
        return ""


async def _fields(request: Request) -> dict[str, str]:
    """Return the texts of a form; a field that comes twice counts once."""
    form = await request.form(max_files=0, max_fields=200)
    return {name: value for name, value in form.items() if isinstance(value, str)}


def routes(service: Service, options: ServeOptions) -> list[BaseRoute]:
    """Return the routes of the pages, their forms and their files."""
    pages = Pages(service)
    return [
        Route("/", pages.home),
        Route("/history", pages.history),
        Route("/about", pages.about),
        Route("/r/{id}", pages.reading),
        Route("/r/{id}/ask", pages.ask, methods=["POST"]),
        Route("/r/{id}/stop", pages.stop, methods=["POST"]),
        Route("/r/{id}/force", pages.force, methods=["POST"]),
        Route("/r/{id}/retry", pages.retry, methods=["POST"]),
        Route("/r/{id}/remove", pages.remove, methods=["POST"]),
        Route("/r/{id}/confirm", pages.confirm, methods=["POST"]),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
