"""Limits of bodies: length, pauses, pace, number; a half upload leaves no file."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from web_client import Site, csrf_of

from pulse_edge.web.bodies import BodyLimits, BodyTooSlow
from pulse_edge.web.options import Limits

SMALL = Limits(upload_bytes=20_000, form_bytes=1000, idle_seconds=0.05, uploads=1)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path, SMALL) as opened:
        yield opened


def uploads(site: Site) -> list[Path]:
    return list((site.service.options.folder / "uploads").iterdir())


def chunks(size: int) -> Iterator[bytes]:
    """A form whose length is not declared."""
    yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
    for _ in range(size // 1000):
        yield b"p" * 1000
    yield b"\r\n--x--\r\n"


@pytest.mark.parametrize("declared", [True, False])
def test_a_long_upload_is_refused_and_leaves_no_file(site: Site, declared: bool) -> None:
    client = site.program()
    if declared:
        answer = client.post("/upload", files={"file": ("a.png", b"p" * 30_000)})
    else:
        kind = {"content-type": "multipart/form-data; boundary=x"}
        answer = client.post("/upload", content=chunks(30_000), headers=kind)
    assert answer.status_code == 413
    assert uploads(site) == []


def test_a_long_form_is_refused(site: Site) -> None:
    client = site.browser()
    form = {"csrf": csrf_of(client), "question": "q" * 2000}
    assert client.post("/r/x/ask", data=form).status_code == 413


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"", "too early"),
        (
            b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nhalf',
            "too early",
        ),
        (b"no form at all", "broken"),
        (b"--x\r\n" + b"A: b\r\n" * 5000 + b"\r\n", "413"),
    ],
)
def test_a_broken_form_leaves_no_file(site: Site, body: bytes, word: str) -> None:
    kind = {"content-type": "multipart/form-data; boundary=x"}
    answer = site.program().post("/upload", content=body, headers=kind)
    assert answer.status_code == (413 if word == "413" else 400)
    assert word == "413" or word in answer.text
    assert uploads(site) == []


def test_another_kind_of_body_is_no_upload(site: Site) -> None:
    answer = site.program().post("/upload", content=b"{}", headers={"content-type": "text/plain"})
    assert answer.status_code == 400


def test_a_form_without_a_file_says_so(site: Site) -> None:
    answer = site.program().post("/upload", data={"sex": "male"}, files={"file": ("", b"")})
    assert answer.status_code == 400
    assert "No file was chosen" in answer.text
    assert uploads(site) == []


def test_every_file_of_a_form_is_a_page_in_the_order_of_the_form(site: Site) -> None:
    names = [f"{n}.png" for n in range(5)]
    files = [("file", (name, b"page")) for name in names]
    accepts = {"accept": "application/json"}
    answer = site.program().post("/upload", files=files, headers=accepts)
    assert answer.status_code == 201
    stored = [site.service.store.get(id) for id in answer.json()["ids"]]
    assert [page.reading.name for page in stored] == names
    numbers = [page.number for page in stored]
    assert numbers == sorted(numbers)


def test_many_parts_are_refused(site: Site) -> None:
    kind = {"content-type": "multipart/form-data; boundary=x"}
    part = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n'
    answer = site.program().post("/upload", content=part * 250, headers=kind)
    assert answer.status_code == 400
    assert "too many parts" in answer.text


def bounded(messages: list[Any], limits: Limits, clock: list[float]) -> Any:
    """What the limits make of a body that comes as `messages`; a number is a pause in seconds."""
    pending = list(messages)

    async def receive() -> Any:
        if isinstance(pending[0], float):
            await asyncio.sleep(pending.pop(0))
        return {"type": "http.request", "body": pending.pop(0), "more_body": bool(pending)}

    times = iter(clock)
    limiter = BodyLimits(lambda *_: None, limits, (), clock=lambda: next(times))  # type: ignore[arg-type,return-value]
    return limiter._bounded(receive, 1 << 20)


def test_a_body_that_stops_is_given_up() -> None:
    async def run() -> None:
        receive = bounded([b"a", 5.0, b"b"], Limits(idle_seconds=0.02), [0.0, 0.0])
        await receive()
        await receive()

    with pytest.raises(BodyTooSlow):
        asyncio.run(run())


@pytest.mark.parametrize(("size", "slow"), [(1000, True), (200_000, False)])
def test_a_body_that_trickles_is_given_up(size: int, slow: bool) -> None:
    """60 s after its beginning, 40 s beyond the first 20, 80 kB must have come."""

    async def run() -> None:
        await bounded([b"a" * size, b"b"], Limits(), [0.0, 60.0])()

    if slow:
        with pytest.raises(BodyTooSlow):
            asyncio.run(run())
    else:
        asyncio.run(run())
