"""A service of the local page without workers, in each of its states, and what serves it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from checkout import ROOT
from starlette.testclient import TestClient

from pulse_edge.errors import UsageError
from pulse_edge.web.access import COOKIE, Access, csrf_token
from pulse_edge.web.app import create_app
from pulse_edge.web.options import ServeOptions
from pulse_edge.web.readings import Progress, Reading, Turn
from pulse_edge.web.service import Service

EXAMPLE = ROOT / "pulse_edge" / "assets" / "example_page.png"
MINIATURE = ROOT / "pulse_edge" / "assets" / "kits" / "miniature"


@lru_cache
def _printed(*arguments: str) -> str:
    command = [sys.executable, "-m", "pulse_edge", *arguments, EXAMPLE.name]
    done = subprocess.run(
        command, capture_output=True, check=True, encoding="utf-8", cwd=EXAMPLE.parent
    )
    return done.stdout.splitlines()[0]


def report() -> dict[str, Any]:
    """Return what the miniature kit says about the example page."""
    line = _printed("interpret", "--findings", "--json", "--kit", str(MINIATURE))
    return dict(json.loads(line))


def measurements() -> dict[str, Any]:
    """Return what is measured on the example page."""
    return dict(json.loads(_printed("measure", "--json")))


def calibrated(report: dict[str, Any]) -> dict[str, Any]:
    """Return the report as a calibrated kit would have written it."""
    probabilities = {"STE": 0.91, "LBBB": 0.97, "AFIB": 0.48, "SR": 0.93}
    for finding in report["findings"]:
        probability = probabilities.get(finding["statement"], 0.03)
        verdict = (
            "uncertain" if probability == 0.48 else "present" if probability > 0.5 else "absent"
        )
        reason = "this kit is often wrong at this probability" if verdict == "uncertain" else ""
        finding |= {
            "probability": probability,
            "calibrated": True,
            "verdict": verdict,
            "reason": reason,
        }
    return report


REFUSED = {
    "check": "sharpness",
    "value": 1.4,
    "unit": "mm",
    "threshold": 1.1,
    "advice": "The picture is blurred: the edge of the trace is 1.4 mm wide, and 1.1 mm is the "
    "limit. Hold still, tap on the trace to focus, and take it again.",
}
WARNING = {
    "check": "glare",
    "value": 0.04,
    "unit": "of the page",
    "threshold": 0.01,
    "advice": "Light is reflected by 4% of the page. Turn the lamp or the sheet, and take it again "
    "without flash.",
}
CONFIRMATION = {
    "reader": "Dr Amina Diallo",
    "overall": "changed",
    "findings": [
        {"statement": "STE", "decision": "rejected", "verdict": "absent", "comment": ""},
        {"statement": "LBBB", "decision": "agreed", "verdict": "present", "comment": ""},
    ],
    "added": [{"name": "lead reversal", "statement": None, "verdict": "present", "comment": ""}],
    "texts": [{"answer": 0, "decision": "changed", "text": "Sinus rhythm with LBBB."}],
    "conclusion": "LBBB, known since 2019.",
    "comment": "",
    "time": "2026-11-28T03:20:00Z",
    "local_time": "2026-11-28T03:20:00+00:00",
    "number": 1,
    "corrects": None,
}


def admission(verdict: str = "good", *reasons: dict[str, Any]) -> dict[str, Any]:
    """Return what `check --json` says about the example page, with other faults."""
    return {**report()["quality"], "verdict": verdict, "reasons": list(reasons)}


def readings(created: str = "2026-11-28T03:12:00Z") -> dict[str, Reading]:
    """Return a reading in each state, by the state's name."""
    base = Reading("id", "ward 3, bed 12.jpg", created, "local", "checking")
    checked = replace(
        base,
        admission=admission(),
        measurements=measurements(),
        pictures=("page", "overlay", "trace", "thumb"),
    )
    done = replace(checked, state="done", report=calibrated(report()), source="phone")
    return {
        name: replace(reading, id=name)
        for name, reading in {
            "checking": base,
            "refused": replace(
                checked,
                state="refused",
                admission=admission("refused", REFUSED, WARNING),
                measurements=None,
                error=f"ward 3, bed 12.jpg: {REFUSED['advice']}",
                exit_code=3,
            ),
            "waiting": replace(
                checked, state="waiting", place=3, progress=Progress("wait", 0, 3, 412.0)
            ),
            "reading": replace(
                checked,
                state="reading",
                progress=Progress("answer", 12, 45, 41.0),
                text="Ventricular rate 81 bpm. Sinus rhythm. PR inter",
            ),
            "usable": replace(
                done,
                admission=admission("usable", WARNING),
                report=report(),
                turns=(
                    Turn(1, "Is the ST segment elevated?", "Yes, in V2.", True, "done"),
                    Turn(2, "Is it acute?", "This could", False, "running"),
                ),
            ),
            "done": done,
            "confirmed": replace(done, confirmation=CONFIRMATION),
            "failed": replace(
                base,
                state="failed",
                error="ward 3, bed 12.jpg: is no picture, PDF or DICOM file. Choose another file.",
                exit_code=1,
            ),
        }.items()
    }


class FakeService:
    """Holds readings in memory; tests change them, and what follows them sees it."""

    def __init__(self, readings: dict[str, Reading] | None = None) -> None:
        self.stored = dict(readings or {})
        self.calls: list[tuple[str, ...]] = []
        self.facts: dict[str, Any] = {
            "version": "0.2.0",
            "model": {"state": "ready", "reason": "", "progress": None},
            "kit": {
                "kit": "miniature (Q8_0, fp16)",
                "demonstration": True,
                "proven": False,
                "refused": None,
                "fallback": None,
                "device": "cpu",
            },
            "log_error": None,
            "retain_days": 30,
        }
        self._changed: set[asyncio.Event] = set()
        self.work = SimpleNamespace(stored=None)
        self.store = SimpleNamespace(add_session=None)

    def change(self, reading: Reading) -> None:
        """Store a reading and tell those who follow it."""
        self.stored[reading.id] = reading
        for event in self._changed:
            event.set()

    def about(self) -> dict[str, Any]:
        return self.facts

    async def reading(self, id: str) -> Reading:
        return self.stored[id]

    async def readings(
        self, *, day: str | None, text: str | None, limit: int, before: str | None
    ) -> list[Reading]:
        newest = [*reversed(self.stored.values())]
        if before is not None:
            newest = newest[[r.id for r in newest].index(before) + 1 :]
        return [
            r
            for r in newest
            if (not day or r.created.startswith(day)) and (not text or text in r.name)
        ][:limit]

    async def ask(self, id: str, question: str) -> int:
        if not question.strip():
            raise UsageError("the question is empty. Type a question about the page.")
        self.calls.append(("ask", id, question))
        reading = self.stored[id]
        turn = Turn(len(reading.turns) + 1, question, "", False, "waiting")
        self.change(replace(reading, turns=(*reading.turns, turn)))
        return turn.number

    async def stop(self, id: str) -> None:
        self.calls.append(("stop", id))

    async def force(self, id: str) -> None:
        self.calls.append(("force", id))

    async def retry(self, id: str) -> None:
        self.calls.append(("retry", id))

    async def remove(self, id: str) -> None:
        self.calls.append(("remove", id))
        del self.stored[id]

    async def confirm(self, id: str, confirmation: dict[str, Any], *, corrects: int = 0) -> None:
        if not confirmation["reader"]:
            raise UsageError("confirmation: the reader's name is empty. Give the name to print.")
        self.calls.append(("confirm", id, json.dumps(confirmation)))
        complete = {**CONFIRMATION, **confirmation, "number": 1}
        self.change(replace(self.stored[id], confirmation=complete))

    async def picture(self, id: str, kind: str) -> Path:
        return EXAMPLE

    async def document(self, id: str, form: str) -> bytes:
        return b"%PDF-1.7 of a test" if form == "pdf" else b"{}"

    async def events(self, id: str | None) -> AsyncIterator[Reading]:
        changed = asyncio.Event()
        self._changed.add(changed)
        try:
            while True:
                for reading in [self.stored[id]] if id else [*self.stored.values()][-1:]:
                    yield reading
                await changed.wait()
                changed.clear()
        finally:
            self._changed.discard(changed)


@contextlib.contextmanager
def serving(app: Any) -> Iterator[tuple[str, asyncio.AbstractEventLoop]]:
    """Serve an app on a free port from a thread; yield its address and its event loop."""
    import threading

    import uvicorn

    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        await server.serve()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            raise RuntimeError("the server of the test did not start")
        threading.Event().wait(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}", loops[0]
    finally:
        server.force_exit = server.should_exit = True
        thread.join(10)


def app_and_cookie(service: FakeService, folder: Path, hosts: set[str]) -> tuple[Any, str]:
    """Return the real application around a fake service, and the cookie of a session.

    `hosts`: values of the Host header that are let through; more may be added later.
    """
    folder.mkdir(parents=True, exist_ok=True)
    access = Access(folder, [])
    cookie = access.open_session(access.new_link("http://test").partition("token=")[2])
    assert cookie is not None
    options = ServeOptions(folder=folder)
    return create_app(cast(Service, service), options, access, cast(frozenset[str], hosts)), cookie


def client(service: FakeService, folder: Path) -> TestClient:
    """Return a client with a session, which follows no redirect."""
    app, cookie = app_and_cookie(service, folder, {"testserver"})
    return TestClient(app, cookies={COOKIE: cookie}, follow_redirects=False)


def token(client: TestClient) -> str:
    """Return the token of the session's forms."""
    return csrf_token(str(client.cookies[COOKIE]))
