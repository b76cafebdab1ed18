"""Serve the application on one socket until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import webbrowser
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from pulse_edge.common.database import is_locked
from pulse_edge.common.files import write_text
from pulse_edge.web.access import Access, read_link
from pulse_edge.web.app import create_app
from pulse_edge.web.certificate import Certificate, certificate_for
from pulse_edge.web.listener import BoundedListener, bind
from pulse_edge.web.local_network import own_address
from pulse_edge.web.options import PhoneOptions, ServeOptions
from pulse_edge.web.phone import PhonePort
from pulse_edge.web.phone_app import create_phone_app
from pulse_edge.web.phones import Phones
from pulse_edge.web.security import allowed_hosts
from pulse_edge.web.service import Service

END_SECONDS = 2
"""Until requests that still run are ended when the server stops."""
KEEP_ALIVE_SECONDS = 5
"""Until a connection without a request is closed."""
MAX_HEAD = 8 << 10
"""Bytes of a request's head."""
OPEN_FILE = "open.html"
LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]")


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 in which the head of a request must come in time, for a bounded number of
    connections."""

    header_seconds = 10.0
    max_connections = 256
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Take a connection, or close it where there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            transport.abort()
            return
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Take bytes; a request whose head is whole has all the time that its route gives it."""
        super().data_received(data)
        if self._is_serving():
            self._end_timer()
        else:
            self._await_head()

    def on_response_complete(self) -> None:
        """Wait for the next head, which `timeout_keep_alive` bounds until its first byte."""
        super().on_response_complete()
        if self._is_serving():
            self._end_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._end_timer()
        super().connection_lost(exc)

    def _is_serving(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _await_head(self) -> None:
        if self._head_timer is None and not self.transport.is_closing():
            self._head_timer = self.loop.call_later(self.header_seconds, self._too_slow)

    def _end_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _too_slow(self) -> None:
        self._head_timer = None
        if not self._is_serving():
            self.transport.abort()


class Server(uvicorn.Server):
    """Tells the streams of events when it stops, so that they end at once."""

    def __init__(self, config: uvicorn.Config, stopping: Callable[[], None]) -> None:
        super().__init__(config)
        self._stopping = stopping

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End every connection."""
        self._stopping()
        await super().shutdown(sockets)


class PhoneServer:
    """The second server, whose only pages are those of paired phones."""

    def __init__(self, service: Service, options: ServeOptions, listener: BoundedListener) -> None:
        """Make its certificate. Raises ServeError."""
        phone = options.phone
        assert phone is not None  # there is a listener
        listener.connections = phone.limits.connections
        listener.of_one_address = phone.limits.connections // 4
        address, port = listener.getsockname()[:2]
        certificate = certificate_for(address, options.folder) if phone.encrypted else None
        host = f"[{address}]" if ":" in address else address
        self.port = PhonePort(
            service,
            Phones(options.folder),
            f"http{'s' if phone.encrypted else ''}://{host}:{port}",
            None if certificate is None else certificate.fingerprint,
        )
        app = create_phone_app(self.port, phone, allowed_hosts([host], port))
        self._listener = listener
        self._server = _SecondServer(config(phone, app, certificate))

    async def serve(self) -> None:
        """Serve until `stop`."""
        await self._server.serve([self._listener])

    def stop(self) -> None:
        """End it after the requests that run."""
        self._server.should_exit = True


class _SecondServer(uvicorn.Server):
    """Leaves the process's signals to the first server."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Change no signal handler."""
        yield


def run(options: ServeOptions, note: Callable[[str], None]) -> None:
    """Serve until Ctrl-C; what was not finished stays on the list for the next start.

    Raises ServeError, FolderError, AuditLogError where serving cannot begin. `note` gets lines for
    the terminal.
    """
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(bind(options.host, options.port))
        phones = None
        if options.phone is not None:
            address = own_address(options.phone.address)
            phones = sockets.enter_context(bind(address, options.phone.port, "--phone-port"))
        asyncio.run(_serve(options, listener, phones, note))


async def _serve(
    options: ServeOptions,
    listener: socket.socket,
    phones: BoundedListener | None,
    note: Callable[[str], None],
) -> None:
    service = Service(options)
    try:
        access = Access(options.folder, service.store.sessions())
        port = listener.getsockname()[1]
        hosts = allowed_hosts(LOCAL_NAMES, port)
        second = None if phones is None else PhoneServer(service, options, phones)
        app = create_app(service, options, access, hosts, None if second is None else second.port)
        async with service:
            address = f"http://{options.host}:{port}"
            link = access.new_link(address)
            note(f"The page is at {address}. This link opens it once: {link}")
            note("Ctrl-C ends the server; pages that wait are read after the next start.")
            if options.open_browser:
                # A browser in the terminal would hold the server back.
                opening = threading.Thread(
                    target=open_link, args=(options.folder, link), daemon=True
                )
                opening.start()
            if second is not None:
                note(f"Phones reach it at {second.port.address} with a code from its page /phone.")
            try:
                await _listen(options, app, listener, service, second)
            finally:
                await service.work.stored(service.store.forget_sessions)
    finally:
        with contextlib.suppress(UnboundLocalError):
            access.close()
        (options.folder / OPEN_FILE).unlink(missing_ok=True)
        service.store.close()


async def _listen(
    options: ServeOptions,
    app: Any,
    listener: socket.socket,
    service: Service,
    second: PhoneServer | None,
) -> None:
    """Serve the local page, and phones where there is a `second` server, until the end."""

    def stopping() -> None:
        service.work.watchers.close()
        if second is not None:
            second.stop()

    phones = None if second is None else asyncio.create_task(second.serve())
    try:
        await Server(config(options, app), stopping).serve([listener])
    finally:
        if second is not None and phones is not None:
            second.stop()
            await phones


def config(
    options: ServeOptions | PhoneOptions, app: Any, certificate: Certificate | None = None
) -> uvicorn.Config:
    """Return how the application is served: HTTP/1.1 alone, bounded, without a log of requests."""
    limits = {
        "header_seconds": options.limits.header_seconds,
        "max_connections": options.limits.connections,
    }
    return uvicorn.Config(
        app,
        ssl_keyfile=None if certificate is None else certificate.key,
        ssl_certfile=None if certificate is None else certificate.certificate,
        http=type("Protocol", (BoundedProtocol,), limits),
        ws="none",
        lifespan="off",
        log_level="error",  # warnings are about strangers' requests, which anyone can send
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=END_SECONDS,
        h11_max_incomplete_event_size=MAX_HEAD,
    )


def open_link(folder: Path, link: str) -> None:
    """Open a link in the browser by way of a file that only this user can read.

    On a command line, other users of the machine could read the link.
    """
    page = folder / OPEN_FILE
    write_text(
        page,
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>pulse-edge</title>'
        f'<meta http-equiv="refresh" content="0; url={link}">'
        f'<p><a href="{link}">Open the page of pulse-edge</a></p></html>\n',
    )
    webbrowser.open(page.resolve().as_uri())


def open_running(folder: Path) -> bool:
    """Open the page of a server that already runs; return whether there is one.

    A link that a killed server has left leads to whoever listens on its port now.
    """
    link = read_link(folder) if is_locked(folder) else None
    if link is not None:
        open_link(folder, link)
    return link is not None
