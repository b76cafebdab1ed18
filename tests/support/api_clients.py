"""Clients of the API over a service that a script stands in for."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.testclient import TestClient

from pulse_edge.web import api, openai_api, openapi
from pulse_edge.web.access import Access
from pulse_edge.web.app import create_app
from pulse_edge.web.options import ServeOptions

HOST = "127.0.0.1:8412"


def app(service: Any) -> Starlette:
    """The API's routes alone."""
    modules = (api, openai_api, openapi)
    return Starlette(
        routes=[r for module in modules for r in module.routes(service, ServeOptions())]
    )


def guarded(service: Any, folder: Path) -> tuple[Starlette, dict[str, str]]:
    """The whole application, and the headers of a program that has the token."""
    access = Access(folder, [])
    app = create_app(service, ServeOptions(folder=folder), access, frozenset({HOST}))
    return app, {"Authorization": f"Bearer {access.token}", "Host": HOST}


def client(service: Any) -> TestClient:
    """A client that shows errors of the server as it would send them."""
    return TestClient(app(service), raise_server_exceptions=False)


def events(text: str) -> list[Any]:
    """The data of server-sent events, without comments."""
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line.startswith("data")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


@contextlib.contextmanager
def running(app: Starlette) -> Iterator[int]:
    """Serve the application in a thread; yield its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
