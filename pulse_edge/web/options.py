"""How the local page is served: address, folder, limits, and the request that every page is read
with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pulse_edge.common import paths
from pulse_edge.inference.request import Request

PORT = 8412
"""Port of the local page unless another is named; no well-known program listens there."""


def default_folder() -> Path:
    """Return the folder in this user's state directory."""
    return paths.user_state() / "web"


@dataclass(frozen=True)
class Limits:
    """What one client may take of the server."""

    upload_bytes: int = 64 << 20
    """Bytes of one request's body with files."""
    form_bytes: int = 1 << 20
    """Bytes of any other request's body: a reader's form holds several texts of 20,000 characters,
    and a letter outside ASCII takes nine bytes."""
    uploads: int = 64
    """Requests with files that are received at the same time; each takes disk and no memory."""
    streams: int = 64
    """Event streams at the same time."""
    connections: int = 256
    """Open connections."""
    header_seconds: float = 10.0
    """Until a connection has sent the whole head of a request."""
    idle_seconds: float = 20.0
    """Without a byte of a request's body."""
    body_bytes_per_second: int = 2048
    """Slowest upload that is accepted, on average after the first `idle_seconds`."""


PHONE_PORT = PORT + 1
"""Port of the phones' page unless another is named."""


@dataclass(frozen=True)
class PhoneOptions:
    """How phones in the same network reach this laptop."""

    address: str | None = None
    """This laptop's address in that network; None: the one that its routing table gives."""
    port: int = PHONE_PORT
    """Port to listen on; 0: a free one."""
    encrypted: bool = True
    """TLS with a certificate made here; False: plain HTTP, which others in the network can read."""
    limits: Limits = field(
        default_factory=lambda: Limits(
            upload_bytes=32 << 20, form_bytes=64 << 10, uploads=8, streams=0, connections=64
        )
    )
    """What phones may take of the server, all together."""


@dataclass(frozen=True)
class ServeOptions:
    """Everything that `pulse-edge serve` is asked to do."""

    request: Request = field(default_factory=Request)
    """Kit, page, answer and measurement options of every page; `retain_days` of its output."""
    folder: Path = field(default_factory=default_folder)
    """Folder of uploads, pictures, the database and the tokens."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = PORT
    """Port to listen on; 0: a free one."""
    phone: PhoneOptions | None = None
    """None: the server cannot be reached from any other machine."""
    open_browser: bool = False
    """Open the page in the browser when the server listens."""
    limits: Limits = field(default_factory=Limits)
