"""The listening sockets: bounded where a connection is accepted, so that those whose TLS handshake
never comes count too. Standard library only."""

from __future__ import annotations

import socket
import sys
from typing import Any

from pulse_edge.errors import ServeError


class BoundedListener(socket.socket):
    """A listening socket that closes connections beyond a number, of all clients and of each.

    asyncio hands a connection to the server when its TLS handshake is done, and waits a minute for
    that. Meanwhile each takes one of the process's file descriptors, and the local page needs some
    of them. Windows accepts connections without `accept`, and has no such limit.
    """

    connections = sys.maxsize
    """Open connections at most."""
    of_one_address = sys.maxsize
    """Open connections of one client's address at most."""

    def __init__(self, family: int, kind: int) -> None:
        """Make a socket, which is not bound yet."""
        super().__init__(family, kind)
        self._open: list[tuple[socket.socket, str]] = []

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection. Raises ConnectionAbortedError where there are too many."""
        connection, address = super().accept()
        host = str(address[0])
        self._open = [(other, of) for other, of in self._open if other.fileno() >= 0]
        of_host = sum(of == host for _other, of in self._open)
        if len(self._open) >= self.connections or of_host >= self.of_one_address:
            connection.close()
            raise ConnectionAbortedError
        self._open.append((connection, host))
        return connection, address


def bind(host: str, port: int, option: str = "--port") -> BoundedListener:
    """Return a listening socket. Raises ServeError where the port is in use."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = BoundedListener(family, socket.SOCK_STREAM)
    try:
        if sys.platform == "win32":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except (OSError, OverflowError) as e:
        listener.close()
        why = getattr(e, "strerror", None) or e
        raise ServeError(
            f"{host}:{port}: cannot be listened on ({why}). Another program may use this port: "
            f"choose another with {option}."
        ) from None
    return listener
