"""Everybody who watches a page sees the same, and the current state first."""

from __future__ import annotations

import asyncio
from pathlib import Path

from web_workers import run, serving, until

from pulse_edge.web.readings import Reading
from pulse_edge.web.service import Service


def test_two_watchers_see_the_same_and_one_that_comes_late_the_current_state(
    tmp_path: Path,
) -> None:
    async def watch(service: Service, id: str) -> list[Reading]:
        readings = []
        async for reading in service.events(id):
            readings.append(reading)
            if reading.settled:
                break
        return readings

    async def test() -> None:
        async with serving(tmp_path) as (service, _pages, model):
            model.answers.append(["Half"])
            (id,) = await service.submit(b"1", "page", source="local")
            early = [asyncio.create_task(watch(service, id)) for _ in range(2)]
            await until(service, id, lambda r: r.text == "Half")
            late = asyncio.create_task(watch(service, id))
            await asyncio.sleep(0.3)
            await service.stop(id)
            one, two, three = await asyncio.gather(*early, late)
            assert one[-1] == two[-1] == three[-1]
            assert three[0].text == "Half"

    run(test)


def test_many_changes_reach_a_watcher_ten_times_a_second(tmp_path: Path) -> None:
    async def test() -> int:
        async with serving(tmp_path) as (service, _pages, model):
            model.gate.clear()
            (id,) = await service.submit(b"1", "page", source="local")
            await until(service, id, lambda r: r.state == "reading")
            readings: list[str] = []

            async def watch() -> None:
                async for reading in service.events(id):
                    readings.append(reading.text)

            task = asyncio.create_task(watch())
            for _ in range(300):
                service.work._event({"event": "text", "text": "a"})
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.3)
            task.cancel()
            assert readings[-1] == "a" * 300
            model.gate.set()
            return len(readings)

    assert run(test) < 50
