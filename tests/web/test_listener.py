"""Listening sockets that close connections beyond a number when they come."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from pulse_edge.errors import ServeError
from pulse_edge.web.listener import BoundedListener, bind


@pytest.fixture
def listener() -> Iterator[BoundedListener]:
    with bind("127.0.0.1", 0) as opened:
        yield opened


def connect(listener: BoundedListener) -> socket.socket:
    return socket.create_connection(listener.getsockname(), timeout=30)


def test_connections_beyond_the_limit_are_closed(listener: BoundedListener) -> None:
    listener.connections = 2
    clients = [connect(listener) for _ in range(3)]
    accepted = [listener.accept()[0] for _ in range(2)]
    with pytest.raises(ConnectionAbortedError):
        listener.accept()
    assert clients[2].recv(1) == b""
    for connection in (*clients, *accepted):
        connection.close()


def test_a_closed_connection_makes_room(listener: BoundedListener) -> None:
    listener.of_one_address = 1
    with connect(listener), connect(listener):
        listener.accept()[0].close()
        second, _address = listener.accept()
        second.close()


def test_one_address_does_not_take_every_connection(listener: BoundedListener) -> None:
    listener.connections, listener.of_one_address = 10, 1
    with connect(listener), connect(listener):
        first, _address = listener.accept()
        with first, pytest.raises(ConnectionAbortedError):
            listener.accept()


def test_a_port_in_use_is_named(listener: BoundedListener) -> None:
    port = listener.getsockname()[1]
    with pytest.raises(ServeError, match=f"127.0.0.1:{port}.*--phone-port"):
        bind("127.0.0.1", port, "--phone-port")
