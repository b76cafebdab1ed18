"""The worker processes and their clients: stops, crashes, what a worker prints."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from web_server import KIT, PAGE

from pulse_edge.common import child_process
from pulse_edge.errors import EngineError, KitError, ScanError
from pulse_edge.inference.request import ModelOptions, Request
from pulse_edge.web import model_client, page_options
from pulse_edge.web.child import Child, WorkerCrashed
from pulse_edge.web.model_client import ModelWorker
from pulse_edge.web.page_client import PageWorker


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_CACHE_HOME", "PULSE_EDGE_CACHE", "PULSE_EDGE_AUDIT_LOG", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))


def worker(kit: Path, changes: list[str] | None = None) -> ModelWorker:
    request = Request(ModelOptions(kit=kit))
    return ModelWorker(page_options.to_json(request), lambda: (changes or []).append("changed"))


def job(number: int, **more: Any) -> dict[str, Any]:
    request = page_options.to_json(Request())
    about = {"do": "read", "job": number, "file": str(PAGE), "page": 1, "name": "page.png"}
    return {**about, "request": request, "history": [], **more}


def test_a_stopped_answer_is_told_as_far_as_it_came_and_the_next_one_is_whole(
    tiny_kit: Path,
) -> None:
    """The tiny kit talks until its limit."""

    async def test() -> None:
        model = worker(tiny_kit)
        try:
            await model.load()
            text: list[str] = []

            def stop_at_the_first_word(event: dict[str, Any]) -> None:
                if event["event"] == "text":
                    text.append(event["text"])
                    if len(text) == 1:
                        stops.append(asyncio.ensure_future(model.stop(1)))

            stops: list[asyncio.Future[None]] = []
            end = await model.run(job(1), stop_at_the_first_word)
            assert (end["event"], end["ended"]) == ("done", "broken off")
            answer = end["report"]["answers"][0]
            assert answer["text"].startswith(text[0])
            assert not answer["complete"]
            whole = await model.run(_short(2), lambda _event: None)
            again = await model.run(_short(3), lambda _event: None)
            assert whole["ended"] == "whole"
            assert whole["report"]["answers"] == again["report"]["answers"]
        finally:
            await model.close()

    asyncio.run(test())


def _short(number: int) -> dict[str, Any]:
    one = job(number)
    one["request"]["answer"]["max_tokens"] = 12
    return one


@pytest.mark.parametrize("stage", ["encode", "prefill"])
def test_a_stop_before_the_first_word_ends_at_once(tiny_kit: Path, stage: str) -> None:
    async def test() -> None:
        model = worker(tiny_kit)
        try:
            await model.load()
            stages: list[str] = []
            tasks: list[asyncio.Future[None]] = []

            def seen(event: dict[str, Any]) -> None:
                if event["event"] == "progress" and event["stage"] == stage and not tasks:
                    tasks.append(asyncio.ensure_future(model.stop(1)))
                stages.append(str(event.get("stage", event["event"])))

            end = await model.run(job(1), seen)
            assert end["event"] == "stopped" or end["ended"] == "broken off"
            assert stages.count("answer") < 1000  # it would have spoken 1,024 tokens
        finally:
            await model.close()

    asyncio.run(test())


def test_a_stop_of_another_job_changes_nothing() -> None:
    async def test() -> None:
        model = worker(KIT)
        try:
            await model.load()
            await model.stop(7)
            end = await model.run(job(1), lambda _event: None)
            assert end["ended"] == "whole"
        finally:
            await model.close()

    asyncio.run(test())


def test_a_kit_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    async def test() -> None:
        model = worker(tmp_path / "none")
        try:
            with pytest.raises(KitError):
                await model.load()
            assert model.state.state == "failed"
            assert str(tmp_path / "none") in str(model.state.reason)
        finally:
            await model.close()

    asyncio.run(test())


def test_a_crash_while_loading_is_repeated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    starts: list[int] = []

    async def crashing(_module: str, _settings: Mapping[str, Any]) -> Child:
        starts.append(1)
        pipe = asyncio.subprocess.PIPE
        words = [sys.executable, "-c", "import os; os.abort()"]
        return Child(await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe))

    async def test() -> None:
        model = worker(KIT)
        with pytest.raises(EngineError, match=r"crashed while it loaded the kit \(SIGABRT\)"):
            await model.load()

    monkeypatch.setattr(model_client.Child, "start", crashing)
    asyncio.run(test())
    assert len(starts) == 2


def test_the_page_worker_is_started_again_after_a_kill(tmp_path: Path) -> None:
    about = {"file": str(PAGE), "name": "page.png"}

    async def test() -> None:
        pages = PageWorker()
        pages.start()
        try:
            assert await pages.call("count", **about) == 1
            first = pages.pid
            assert pages._child is not None
            pages._child.kill()
            with pytest.raises(WorkerCrashed, match="SIGKILL"):
                await pages.call("count", **about)
            assert await pages.call_twice("count", **about) == 1
            assert pages.pid != first
            letter = tmp_path / "letter"
            letter.write_bytes(b"no picture")
            with pytest.raises(ScanError, match="letter: is text or XML"):
                await pages.call("count", file=str(letter), name="letter")
        finally:
            await pages.close()

    asyncio.run(test())


def test_what_a_library_prints_is_no_event() -> None:
    code = """
import os, sys
from pulse_edge.web.worker_pipe import Pipe
pipe = Pipe()
os.write(1, b"noise of a library\\n")
print("more noise")
sys.stdout.flush()
pipe.send({"event": pipe.next()["say"]})
"""

    async def test() -> None:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            code,
            stdin=pipe,
            stdout=pipe,
            stderr=asyncio.subprocess.DEVNULL,
            env=child_process.environment(),
            cwd=Path(__file__).parent.parent.parent,
        )
        child = Child(process)
        await child.send({"say": "hello"})
        assert await child.event() == {"event": "hello"}
        await child.close()

    asyncio.run(test())


def test_a_worker_ends_with_its_server() -> None:
    async def test() -> None:
        child = await Child.start("pulse_edge.web.page_worker", {})
        assert (await child.event())["event"] == "ready"
        assert child._process.stdin is not None
        child._process.stdin.close()
        assert await asyncio.wait_for(child._process.wait(), 30) == 1

    asyncio.run(test())
