"""The application of the local page in this process, without its workers, and a client for it."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient
from web_workers import Pages

from pulse_edge.audit_log.log import AuditLog
from pulse_edge.web.access import Access
from pulse_edge.web.app import create_app
from pulse_edge.web.options import Limits, ServeOptions
from pulse_edge.web.security import allowed_hosts
from pulse_edge.web.service import Service

HOST = "127.0.0.1:8412"
ADDRESS = f"http://{HOST}"


class Site:
    """An application whose workers were not started. Use it as a context manager."""

    def __init__(self, folder: Path, limits: Limits | None = None) -> None:
        options = ServeOptions(folder=folder / "web", limits=limits or Limits())
        self.service = Service(options, AuditLog(folder / "audit-log"))
        self.service.work.pages = Pages()  # type: ignore[assignment]
        self.access = Access(options.folder, [])
        self.link = self.access.new_link(ADDRESS)
        hosts = allowed_hosts(("127.0.0.1", "localhost", "[::1]"), 8412)
        self.app = create_app(self.service, options, self.access, hosts)

    def stranger(self, address: str = ADDRESS) -> TestClient:
        """A client without a session."""
        return TestClient(
            self.app, base_url=address, follow_redirects=False, raise_server_exceptions=False
        )

    def browser(self) -> TestClient:
        """A client with a session; its token for forms is `csrf_of` it."""
        client = self.stranger()
        assert client.get(self.access.new_link(ADDRESS)).status_code == 200
        return client

    def program(self) -> TestClient:
        """A client with the token of the folder."""
        client = self.stranger()
        client.headers["authorization"] = f"Bearer {self.access.token}"
        return client

    def finished(self, name: str = "page.png", text: str = "Sinus rhythm.") -> str:
        """Store a page as if both workers were done with it; return its id."""
        import dataclasses

        from reports import report

        from pulse_edge.web.readings import PageRequest

        store = self.service.store
        upload = f"upload-{len(list((store.folder / 'uploads').iterdir()))}"
        store.upload_path(upload).write_bytes(b"page")
        id = store.add(upload, name, "local", None, PageRequest())
        store.opened(upload, 1)
        names = {"page": "page.png", "thumb": "thumb.jpg"}
        for file in names.values():
            store.picture_path(id, file).write_bytes(b"\x89PNG picture")
        store.checked(id, {"admission": {}, "measurements": None, "pictures": names}, None)
        job = store.next_job(None)
        assert job is not None
        whole: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(report(text))))
        store.answered(job, whole, "whole", [])
        store.finish()
        return id

    def close(self) -> None:
        self.service.store.close()

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def csrf_of(client: TestClient) -> str:
    """The token that the session's forms carry, as the first page shows it."""
    return client.get("/").text.partition('name="csrf" value="')[2].partition('"')[0]


class Listening:
    """The application of a `Site` on a real port, served by a thread. Use it as a context
    manager."""

    def __init__(self, site: Site) -> None:
        from pulse_edge.web.listener import bind

        self._site = site
        self._listener = bind("127.0.0.1", 0)
        self.port = self._listener.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: Any = None

    def _run(self) -> None:
        from pulse_edge.web import server

        async def serve() -> None:
            self._loop = asyncio.get_running_loop()
            site = self._site
            options = site.service.options
            hosts = allowed_hosts(("127.0.0.1",), self.port)
            app = create_app(site.service, options, site.access, hosts)
            config = server.config(options, app)
            self._server = server.Server(config, site.service.work.watchers.close)
            await self._server.serve([self._listener])

        asyncio.run(serve())

    def call(self, function: Any, *arguments: Any) -> None:
        """Call a function in the server's thread."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(function, *arguments)

    def connect(self) -> socket.socket:
        """A bare connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def head(self, method: str, path: str, *more: str) -> bytes:
        """The head of a request with the token of programs."""
        lines = [
            f"{method} {path} HTTP/1.1",
            f"Host: 127.0.0.1:{self.port}",
            f"Authorization: Bearer {self._site.access.token}",
            *more,
        ]
        return "\r\n".join([*lines, "", ""]).encode()

    def stop(self) -> None:
        """Stop as Ctrl-C does."""
        self._server.should_exit = True
        self._thread.join(30)
        assert not self._thread.is_alive()

    def __enter__(self) -> Listening:
        self._thread.start()
        while self._server is None or not self._server.started:
            time.sleep(0.01)
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()
        self._listener.close()
