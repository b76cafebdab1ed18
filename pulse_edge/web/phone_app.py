"""What phones reach: pair, photograph, upload, and see the results of their own pages.

This application listens on a port of its own, so that nothing else can be reached from the network.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from pulse_edge.errors import PulseEdgeError
from pulse_edge.web import overview, templating, view
from pulse_edge.web.app import EXCEPTION_HANDLERS
from pulse_edge.web.bodies import BodyLimits
from pulse_edge.web.options import PhoneOptions
from pulse_edge.web.pages import STATIC
from pulse_edge.web.phone import PhonePort
from pulse_edge.web.phones import Phone, RateLimit
from pulse_edge.web.readings import Reading
from pulse_edge.web.responses import problem, program_error
from pulse_edge.web.security import Guard
from pulse_edge.web.uploads import Receiver, submit

PAGES_PER_HOUR = 60
"""Pages of one phone; a ward round has fewer."""
UPLOADS_AT_ONCE = 2
"""Uploads of one phone at the same time, of the eight that are received for all of them."""
WRONG_CODES_PER_MINUTE = 10
"""Wrong pairing codes from one address."""
PICTURES = ("overlay", "trace", "thumb")
SHOWN = 20
"""Newest pages of a phone that it lists."""


def create_phone_app(port: PhonePort, phone: PhoneOptions, hosts: frozenset[str]) -> Starlette:
    """Return the application of the phones' port. `hosts`: values of the Host header that name
    it."""

    async def remember(_cookie: str) -> None:
        """Do nothing: no link opens a session here."""

    limits = phone.limits
    return Starlette(
        routes=_PhonePages(port, phone).routes(),
        middleware=[
            Middleware(BodyLimits, limits=limits, long_paths=port.phones.file_paths),
            Middleware(
                Guard,
                access=port.phones,
                hosts=hosts,
                form_bytes=limits.form_bytes,
                remember=remember,
            ),
        ],
        exception_handlers=EXCEPTION_HANDLERS,
    )


class _PhonePages:
    """The routes of the phones' port."""

    def __init__(self, port: PhonePort, options: PhoneOptions) -> None:
        self._port, self._service, self._phones = port, port.service, port.phones
        self._receiver = Receiver(port.service, options)
        self._uploads = RateLimit(PAGES_PER_HOUR, 3600)
        self._receiving: Counter[str] = Counter()
        self._codes = RateLimit(WRONG_CODES_PER_MINUTE, 60)

    def routes(self) -> list[BaseRoute]:
        """Return the routes."""
        return [
            Route("/p/pair", self.ask_to_pair, methods=["GET"]),
            Route("/p/pair", self.pair, methods=["POST"]),
            Route("/p/", self.home),
            Route("/p/upload", self.upload, methods=["POST"]),
            Route("/p/leave", self.leave, methods=["POST"]),
            Route("/p/r/{id}", self.result),
            Route("/p/r/{id}/state", self.state),
            Route("/p/r/{id}/picture/{kind}", self.picture),
            Mount("/static", StaticFiles(directory=STATIC)),
        ]

    # --- pairing ----------------------------------------------------------------------------------

    async def ask_to_pair(self, request: Request) -> Response:
        """Show a button: a program that only previews links uses no code up."""
        code = request.query_params.get("code", "")
        if not self._phones.valid_code(code):
            return self._wrong_code(request)
        return self._page(request, "phone_pair.html", {"code": code})

    async def pair(self, request: Request) -> Response:
        """Connect the phone."""
        form = await request.form(max_files=0, max_fields=5)
        agent = request.headers.get("user-agent", "")
        cookie = self._phones.pair(str(form.get("code", "")), agent)
        if cookie is None:
            return self._wrong_code(request)
        response = RedirectResponse(templating.url(request, "/p/"), 303)
        secure = self._port.fingerprint is not None
        response.set_cookie(
            self._phones.cookie, cookie, httponly=True, samesite="strict", secure=secure
        )
        return response

    def _wrong_code(self, request: Request) -> Response:
        address = request.client.host if request.client else ""
        if not self._codes.allows(address):
            return problem(request, 429, "Too many wrong codes. Wait a minute.", "rate")
        why = (
            "This code was used, or its time is over. Show a new one on the laptop's page, and "
            "scan that."
        )
        return problem(request, 403, why, "code")

    async def leave(self, request: Request) -> Response:
        """Disconnect this phone."""
        self._phones.revoke(self._phone(request).id)
        return self._page(request, "phone_left.html", {})

    # --- pages ------------------------------------------------------------------------------------

    async def home(self, request: Request) -> Response:
        """Show the camera's button, and this phone's pages."""
        phone = self._phone(request)
        readings = await self._service.readings(owner=phone.id, limit=SHOWN)
        values = {"entries": [entry for day in overview.days(readings) for entry in day.entries]}
        return self._page(request, "phone_home.html", values)

    async def upload(self, request: Request) -> Response:
        """Take pictures."""
        phone = self._phone(request)
        if not self._uploads.allows(phone.id):
            return self._too_many(request)
        if self._receiving[phone.id] >= UPLOADS_AT_ONCE:
            why = "This phone sends other pages already. Wait a moment."
            return problem(request, 429, why, "busy")
        self._receiving[phone.id] += 1
        try:
            form = await self._receiver.form(_OfPhone(request, self._phone))
        finally:
            self._receiving[phone.id] -= 1
        if isinstance(form, Response):
            return form
        try:
            self._phone(request)  # it may have been disconnected meanwhile
            if not all(self._uploads.allows(phone.id) for _file in form.files[1:]):
                return self._too_many(request)
            about = {"source": "phone", "owner": phone.id}
            ids = await submit(self._service, form, about, {})
            for _page in ids[len(form.files) :]:  # of documents with several
                self._uploads.allows(phone.id)
        except PulseEdgeError as e:
            return program_error(request, e)
        finally:
            form.discard()
        return RedirectResponse(
            templating.url(request, f"/p/r/{ids[0]}" if len(ids) == 1 else "/p/"), 303
        )

    @staticmethod
    def _too_many(request: Request) -> Response:
        why = f"This phone sent {PAGES_PER_HOUR} pages within an hour. Wait, then go on."
        return problem(request, 429, why, "rate")

    async def result(self, request: Request) -> Response:
        """Show one of this phone's pages as far as it was read."""
        reading = await self._own(request)
        return self._page(request, "phone_reading.html", {"view": view.reading_view(reading)})

    async def state(self, request: Request) -> Response:
        """Return a text that changes when the result's page looks different."""
        return JSONResponse({"version": version(await self._own(request))})

    async def picture(self, request: Request) -> Response:
        """Return a picture of one of this phone's pages."""
        reading, kind = await self._own(request), request.path_params["kind"]
        if kind not in PICTURES or kind not in reading.pictures:
            raise HTTPException(404)
        try:
            path = await self._service.picture(reading.id, kind)
            return FileResponse(path, stat_result=path.stat())
        except (KeyError, FileNotFoundError):  # the laptop may have removed the page just now
            raise HTTPException(404) from None

    # --- helpers ----------------------------------------------------------------------------------

    def _phone(self, request: Request) -> Phone:
        phone = self._phones.of(request.state.identity)
        if phone is None:
            raise HTTPException(401, self._phones.stranger)
        return phone

    async def _own(self, request: Request) -> Reading:
        phone = self._phone(request)
        try:
            reading = await self._service.reading(request.path_params["id"])
        except KeyError:
            raise HTTPException(404) from None
        if reading.owner != phone.id:  # as if it did not exist
            raise HTTPException(404)
        return reading

    def _page(self, request: Request, name: str, values: Mapping[str, Any]) -> Response:
        about = overview.about(self._service.about())
        encrypted = self._port.fingerprint is not None
        shared = {"about": about, "encrypted": encrypted, "version": version}
        return templating.page(request, name, {**shared, **values})


class _OfPhone(Request):
    """A request whose body ends with an error when its phone is disconnected.

    A phone that was disconnected would else hold a place for uploads as long as its body trickles.
    """

    def __init__(self, request: Request, phone: Callable[[Request], Phone]) -> None:
        """`phone` returns the phone of a request, or raises HTTPException."""
        super().__init__(request.scope, request.receive)
        self._phone = phone

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Yield the pieces of the body. Raises HTTPException."""
        async for piece in super().stream():
            self._phone(self)
            yield piece


def version(reading: Reading) -> str:
    """Return a text that changes when the page of a reading looks different."""
    progress = reading.progress
    percent = round(20 * progress.done / progress.total) if progress and progress.total else 0
    parts = (
        reading.state,
        reading.place,
        reading.admission is not None,
        reading.measurements is not None,
        reading.report is not None,
        (reading.confirmation or {}).get("number"),
        progress and progress.stage,
        percent,
    )
    return "-".join(map(str, parts))
