"""What is removed of a page, when, and what stays."""

from __future__ import annotations

import asyncio
import datetime
from pathlib import Path

import pytest
from web_workers import logged, run, serving, settled, until

from pulse_edge.inference.request import OutputOptions
from pulse_edge.web import retention, work


def test_removal_leaves_the_entry_alone(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path) as (service, pages, model):
            pages.pages = 2
            model.answers += ["Secret answer.", ["Half a secret"]]
            first, second = await service.submit(b"secret page", "secret.png", source="local")
            await until(service, second, lambda r: r.text != "")
            for id in (first, second):
                await service.remove(id)
                with pytest.raises(KeyError):
                    await service.reading(id)

    run(test)
    assert [end for _id, end in logged(tmp_path)] == ["whole", "broken off"]
    web = tmp_path / "web"
    files = [p for p in web.rglob("*") if p.is_file()]
    assert b"ecret" not in b"".join(path.read_bytes() for path in files)
    assert {p.name for p in files} <= {
        "web.sqlite",
        "web.sqlite-wal",
        "web.sqlite-shm",
        "lock",
        "pulse-edge-folder.json",
    }


def test_a_page_that_is_removed_while_it_is_checked_leaves_no_picture(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path) as (service, pages, _model):
            pages.gate.clear()
            pages.picture = b"a patient"
            (id,) = await service.submit(b"1", "page", source="local")
            while not any(job["do"] == "prepare" for job in pages.jobs):
                await asyncio.sleep(0.01)
            await service.remove(id)
            pages.gate.set()
            (other,) = await service.submit(b"2", "page", source="local")
            await settled(service, other)
            assert {p.name[:22] for p in (tmp_path / "web" / "pictures").iterdir()} == {other}

    run(test)


def test_a_new_day_is_noticed_however_the_night_was_spent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        async with serving(tmp_path) as (service, _pages, _model):
            (id,) = await service.submit(b"1", "page", source="local")
            await settled(service, id)
            await service.confirm(id, AGREED)
            day = (datetime.date.today() + datetime.timedelta(1)).isoformat()
            monkeypatch.setattr(retention, "today", lambda: day)
            while await service.readings():
                await asyncio.sleep(0.01)

    monkeypatch.setattr(work, "DAY_PAUSE", 0.01)
    run(test)


def test_who_watches_a_page_hears_of_its_removal(tmp_path: Path) -> None:
    async def test() -> list[str]:
        async with serving(tmp_path) as (service, _pages, _model):
            (id,) = await service.submit(b"1", "page", source="local")
            await settled(service, id)
            states = []
            async for reading in service.events(id):
                states.append(reading.state)
                if len(states) == 1:
                    await service.remove(id)
            return states

    assert run(test) == ["done", "removed"]


AGREED = {"reader": "R", "texts": [{"answer": 0, "decision": "agreed"}]}


@pytest.mark.parametrize(
    ("retain", "days", "stays"), [(None, 0, True), (None, 1, False), (3, 3, True), (3, 4, False)]
)
def test_a_confirmed_page_is_removed_after_its_last_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, retain: int | None, days: int, stays: bool
) -> None:
    async def first() -> None:
        async with serving(tmp_path) as (service, _pages, _model):
            for name in ("confirmed", "open"):
                (id,) = await service.submit(b"1", name, source="local")
                await settled(service, id)
                if name == "confirmed":
                    await service.confirm(id, AGREED)

    async def later() -> set[str]:
        output = OutputOptions(retain_days=retain)
        async with serving(tmp_path, output=output) as (service, _pages, _model):
            return {reading.name for reading in await service.readings()}

    run(first)
    day = (datetime.date.today() + datetime.timedelta(days)).isoformat()
    monkeypatch.setattr(retention, "today", lambda: day)
    assert run(later) == ({"confirmed", "open"} if stays else {"open"})


def test_files_of_uploads_that_were_never_committed_are_removed(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path):
            pass

    run(test)
    for name in ("uploads/x", "uploads/.unfinished-y", "pictures/z-page.png"):
        (tmp_path / "web" / name).write_bytes(b"stray")
    run(test)
    for folder in ("uploads", "pictures"):
        assert list((tmp_path / "web" / folder).iterdir()) == []
