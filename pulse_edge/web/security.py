"""What every request passes before a route sees it, and what every response carries.

The order: Host, then who asks, then where a changing request comes from, then its CSRF token. The
page is served to this machine, so the attackers are other users of it, and web sites that the
user's browser shows at the same time (DNS rebinding, forged forms).
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol
from urllib.parse import parse_qs, urlsplit

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pulse_edge.web.access import Identity, csrf_token
from pulse_edge.web.responses import problem

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
CSRF_FIELD, CSRF_HEADER = "csrf", "x-csrf-token"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # with no-referrer browsers send forms with `Origin: null`
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
}
OPENED = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>pulse-edge</title>'
    '<meta http-equiv="refresh" content="0; url=/"><p><a href="/">pulse-edge</a></p></html>\n'
)
"""Answer to the link that opens a session. It comes from a file or another program, and after a
redirect browsers count that as another site, to which they send no strict cookie."""


def allowed_hosts(names: Sequence[str], port: int) -> frozenset[str]:
    """Return the values of the Host header that name this server."""
    return frozenset(f"{name}:{port}" for name in names) | (
        frozenset(names) if port in (80, 443) else frozenset()
    )


class Gate(Protocol):
    """Who may use one port: the user at the laptop, or paired phones."""

    @property
    def cookie(self) -> str:
        """Name of the session's cookie."""

    @property
    def open_paths(self) -> tuple[str, ...]:
        """Beginnings of the paths that need no session."""

    @property
    def file_paths(self) -> tuple[str, ...]:
        """Paths that take files in a form, and check its first field while it streams in."""

    @property
    def stranger(self) -> str:
        """What a client without a session reads."""

    def of_cookie(self, cookie: str, /) -> Identity | None:
        """Return the identity of a cookie; None for an unknown one."""

    def of_bearer(self, authorization: str, /) -> Identity | None:
        """Return the identity of an `Authorization` header; None for a wrong one."""

    def open_session(self, token: str, /) -> str | None:
        """Return a new cookie for the token of a link; None for a wrong one."""


class Guard:
    """ASGI middleware: lets a request through, or answers it itself."""

    def __init__(
        self,
        app: ASGIApp,
        access: Gate,
        hosts: frozenset[str],
        form_bytes: int,
        remember: Callable[[str], Awaitable[None]],
    ) -> None:
        """`form_bytes`: longest form without files; `remember` stores the cookie of a new session."""
        self._app, self._access, self._hosts = app, access, hosts
        self._form_bytes, self._remember = form_bytes, remember

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        sender = _with_headers(send, scope["path"])
        refusal = self._refusal(request)
        if refusal is None and self._opens_session(request):
            refusal = await self._open_session(request)
        if (
            refusal is None
            and getattr(request.state, "csrf_due", False)
            and not self._has_files(request)
        ):
            body = await _body(request, self._form_bytes)
            if body is None:
                refusal = problem(request, 413, "The form is too long. Shorten it.", "too_large")
            elif not valid_csrf(_field(body), request.state.identity):
                refusal = csrf_problem(request)
            else:
                receive = _again(body, receive)
        if refusal is not None:
            await refusal(scope, receive, sender)
            return
        await self._app(scope, receive, sender)

    def _refusal(self, request: Request) -> Response | None:
        """Return the answer to a request that is not let through; None: it may pass."""
        if request.headers.get("host", "").lower() not in self._hosts:
            return problem(request, 421, "This name does not belong to pulse-edge.", "host")
        if request.method not in SAFE and not self._same_origin(request):
            return problem(request, 403, "The request comes from another site.", "origin")
        path = request.url.path
        if path.startswith(self._access.open_paths):
            return None
        if self._opens_session(request):
            return None
        identity = self._identity(request)
        if identity is None:
            return problem(request, 401, self._access.stranger, "unauthorized")
        request.state.identity = identity
        if request.method not in SAFE and identity.kind != "api":
            return self._csrf_refusal(request, identity)
        return None

    def _identity(self, request: Request) -> Identity | None:
        if authorization := request.headers.get("authorization"):
            return self._access.of_bearer(authorization)
        return self._access.of_cookie(request.cookies.get(self._access.cookie, ""))

    def _same_origin(self, request: Request) -> bool:
        """Whether a changing request comes from our own page, or from a program without a page."""
        site = request.headers.get("sec-fetch-site")
        if site is not None and site not in ("same-origin", "none"):
            return False
        origin = request.headers.get("origin") or request.headers.get("referer")
        if origin is not None:
            parts = urlsplit(origin)
            return (
                parts.scheme in ("http", "https")
                and parts.netloc.lower() == request.headers["host"].lower()
            )
        return True

    def _csrf_refusal(self, request: Request, identity: Identity) -> Response | None:
        """Check the token of a session's request: in a header, or later in its form."""
        if (given := request.headers.get(CSRF_HEADER)) is not None:
            return None if valid_csrf(given, identity) else csrf_problem(request)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/x-www-form-urlencoded" and not self._has_files(request):
            return csrf_problem(request)
        request.state.csrf_due = True
        return None

    def _opens_session(self, request: Request) -> bool:
        path, method = request.url.path, request.method
        return path == "/" and method == "GET" and "token" in request.query_params

    async def _open_session(self, request: Request) -> Response:
        cookie = self._access.open_session(request.query_params["token"])
        if cookie is None:
            why = (
                "This link was used already, or comes from an earlier start. Run `pulse-edge serve "
                "--open` again: it opens a new one."
            )
            return problem(request, 403, why, "link")
        response = HTMLResponse(OPENED)
        secure = request.url.scheme == "https"
        name = self._access.cookie
        response.set_cookie(name, cookie, httponly=True, samesite="strict", secure=secure)
        await self._remember(cookie)
        return response

    def _has_files(self, request: Request) -> bool:
        """Whether the request is a form with files; its route checks the token in the first
        field."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        return kind == "multipart/form-data" and request.url.path in self._access.file_paths


async def _body(request: Request, limit: int) -> bytes | None:
    """Return a body of at most `limit` bytes; None for a longer one."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > limit:
            return None
    return bytes(body)


def _field(body: bytes) -> str:
    """Return the CSRF token of a form."""
    try:
        fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=100)
    except ValueError:
        return ""
    return fields.get(CSRF_FIELD, [""])[0]


def _again(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives the body once more."""
    pending = [body]

    async def receiver() -> Message:
        if pending:
            return {"type": "http.request", "body": pending.pop(), "more_body": False}
        return await receive()

    return receiver


def valid_csrf(given: str, identity: Identity) -> bool:
    """Whether a form's token belongs to the session."""
    expected = csrf_token(identity.session)
    return len(given) == len(expected) and hmac.compare_digest(given.encode(), expected.encode())


def csrf_problem(request: Request) -> Response:
    """Return the answer to a form without the session's token."""
    return problem(request, 403, "The form is out of date. Load the page again.", "csrf")


def _with_headers(send: Send, path: str) -> Send:
    """Add the headers of every response to those that the route sends."""

    async def sender(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = list(message.get("headers", ()))
            names = {name.lower() for name, _value in given}
            more = dict(HEADERS)
            if not path.startswith("/static/"):
                more["cache-control"] = "no-store"
            given += [(k.encode(), v.encode()) for k, v in more.items() if k.encode() not in names]
            message = {**message, "headers": given}
        await send(message)

    return sender
