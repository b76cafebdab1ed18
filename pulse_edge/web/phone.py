"""The laptop's page about phones: show a code, list phones, disconnect them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import segno
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from pulse_edge.web import overview, templating
from pulse_edge.web.phones import CODE_SECONDS, PHONE_SECONDS, Phones
from pulse_edge.web.service import Service


@dataclass(frozen=True)
class PhonePort:
    """The second port, which phones in the same network reach."""

    service: Service
    phones: Phones
    address: str
    """Beginning of its addresses, such as `https://192.168.1.20:8413`."""
    fingerprint: str | None
    """SHA-256 of its certificate; None: plain HTTP."""

    @property
    def link(self) -> str:
        """The address in the code that pairs a phone; empty where no code waits."""
        code = self.phones.code
        return f"{self.address}/p/pair?code={code}" if code else ""


def routes(port: PhonePort) -> list[Route]:
    """Return the routes of the laptop's page about phones."""

    async def show(request: Request) -> Response:
        values: Mapping[str, Any] = {
            "about": overview.about(port.service.about()),
            "link": port.link,
            "phones": port.phones.paired(),
            "fingerprint": port.fingerprint,
            "code_minutes": round(CODE_SECONDS / 60),
            "phone_hours": round(PHONE_SECONDS / 3600),
        }
        return templating.page(request, "phone.html", values)

    async def code(request: Request) -> Response:
        if not port.link:
            return Response(status_code=404)
        picture = io.BytesIO()
        segno.make(port.link, error="m").save(
            picture, kind="svg", scale=6, border=4, dark="#000", light="#fff"
        )
        return Response(picture.getvalue(), media_type="image/svg+xml")

    async def new(request: Request) -> Response:
        port.phones.new_code()
        return RedirectResponse(templating.url(request, "/phone"), 303)

    async def revoke(request: Request) -> Response:
        port.phones.revoke(request.path_params["id"])
        return RedirectResponse(templating.url(request, "/phone"), 303)

    return [
        Route("/phone", show),
        Route("/phone/code.svg", code),
        Route("/phone/new", new, methods=["POST"]),
        Route("/phone/{id}/revoke", revoke, methods=["POST"]),
    ]
