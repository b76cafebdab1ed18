"""Real connections: slow heads, half uploads, slow readers, many connections, the end."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from web_client import Listening, Site
from web_server import wait_for

from pulse_edge.web.options import Limits

LIMITS = Limits(header_seconds=0.3, connections=12, streams=3)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path, LIMITS) as opened:
        yield opened


@pytest.fixture
def listening(site: Site) -> Iterator[Listening]:
    with Listening(site) as running:
        yield running


def closed(connection: socket.socket) -> bool:
    """Whether the other side closes the connection without an answer."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def answer(listening: Listening, path: str = "/nowhere") -> int:
    """The status of another client's request."""
    connection = listening.connect()
    with connection:
        connection.sendall(listening.head("GET", path, "Connection: close"))
        return int(connection.makefile("rb").readline().split()[1])


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: 127"])
def test_a_head_that_does_not_come_is_not_waited_for(listening: Listening, sent: bytes) -> None:
    with listening.connect() as connection:
        connection.sendall(sent)
        assert closed(connection)


def test_a_head_that_trickles_is_not_waited_for(listening: Listening) -> None:
    def trickle(connection: socket.socket) -> None:
        for byte in listening.head("GET", "/nowhere") * 100:
            connection.sendall(bytes([byte]))
            time.sleep(0.02)

    with listening.connect() as connection, pytest.raises(ConnectionError):
        trickle(connection)


def test_the_second_head_of_a_connection_is_bounded_too(listening: Listening) -> None:
    with listening.connect() as connection:
        connection.sendall(listening.head("GET", "/nowhere"))
        assert connection.recv(100).startswith(b"HTTP/1.1 404")
        while b"</html>" not in connection.recv(10_000):
            pass
        connection.sendall(b"GET / HT")
        assert closed(connection)


def test_a_long_head_is_refused(listening: Listening) -> None:
    with listening.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 12_000)
        assert connection.recv(100).startswith(b"HTTP/1.1 400")


def test_a_length_beyond_the_limit_is_refused_before_the_body_comes(listening: Listening) -> None:
    with listening.connect() as connection:
        kind = "Content-Type: multipart/form-data; boundary=x"
        connection.sendall(listening.head("POST", "/upload", kind, f"Content-Length: {1 << 40}"))
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


def test_strangers_write_nothing_on_the_terminal(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    upgrade = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
    with Listening(site) as listening:
        for sent in (b"\x16\x03\x01 no HTTP\r\n\r\n", listening.head("GET", "/", *upgrade)):
            with listening.connect() as connection:
                connection.sendall(sent)
                assert connection.recv(100).startswith(b"HTTP/1.1 ")
    assert capsys.readouterr().err == ""


def test_a_half_upload_leaves_no_file(site: Site, listening: Listening) -> None:
    folder = site.service.options.folder / "uploads"
    with listening.connect() as connection:
        kind = "Content-Type: multipart/form-data; boundary=x"
        connection.sendall(listening.head("POST", "/upload", kind, "Content-Length: 9999"))
        part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nhalf'
        connection.sendall(part)
        wait_for(lambda: list(folder.iterdir()))
    wait_for(lambda: not list(folder.iterdir()))


def test_beyond_the_limit_connections_are_closed_and_those_before_go_on(tmp_path: Path) -> None:
    limits = Limits(connections=12, header_seconds=60.0)
    with Site(tmp_path, limits) as site, Listening(site) as listening:
        with httpx.Client(base_url=listening.address) as first:
            assert first.get("/").status_code == 401
            more = [listening.connect() for _ in range(limits.connections + 3)]
            more[-1].settimeout(10)
            assert closed(more[-1])
            assert first.get("/").status_code == 401
            for connection in more:
                connection.close()
        wait_for(lambda: _serves(listening))


def _serves(listening: Listening) -> bool:
    try:
        return answer(listening) == 404
    except (OSError, IndexError):
        return False


def watch(listening: Listening, id: str) -> socket.socket:
    """A stream of events that is not read."""
    connection = listening.connect()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    connection.sendall(listening.head("GET", f"/r/{id}/events"))
    return connection


def test_a_watcher_that_does_not_read_blocks_nobody(site: Site, listening: Listening) -> None:
    id = site.finished(text="long " * 50_000)
    with watch(listening, id):
        for _ in range(20):
            listening.call(site.service.work.watchers.changed, id)
            assert answer(listening) == 404


def test_more_streams_than_allowed_are_refused_and_closed_ones_make_room(
    site: Site, listening: Listening
) -> None:
    id = site.finished()
    streams = [watch(listening, id) for _ in range(LIMITS.streams)]
    wait_for(lambda: len(site.service.work.watchers) == LIMITS.streams)
    assert answer(listening, f"/r/{id}/events") == 503
    streams[0].close()
    wait_for(lambda: len(site.service.work.watchers) == LIMITS.streams - 1)
    with watch(listening, id) as again:
        assert again.recv(100).startswith(b"HTTP/1.1 200")
    for stream in streams[1:]:
        stream.close()


def test_streams_end_when_the_server_stops(site: Site, listening: Listening) -> None:
    id = site.finished()
    with watch(listening, id) as stream:
        wait_for(lambda: len(site.service.work.watchers) == 1)
        listening.stop()
        stream.settimeout(10)
        while stream.recv(100_000):
            pass


def test_a_browser_that_comes_back_gets_the_current_state_first(
    site: Site, listening: Listening
) -> None:
    id = site.finished(text="Sinus rhythm.")
    for _ in range(2):
        with watch(listening, id) as stream:
            text = b""
            while b"\n\n" not in text.partition(b"data: ")[2]:
                text += stream.recv(100_000)
        assert b'"text": "Sinus rhythm."' in text
