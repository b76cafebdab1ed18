"""Confirmations of the local page: in the database, in the audit log, and in documents."""

from __future__ import annotations

import asyncio
import datetime
import json
from pathlib import Path
from typing import Any

import pytest
from fake_pages import report
from web_server import WebServer
from web_workers import run, serving, settled

from pulse_edge.audit_log.confirmations import is_confirmation
from pulse_edge.audit_log.log import AuditLog
from pulse_edge.errors import UsageError
from pulse_edge.report.confirmation import UNCONFIRMED
from pulse_edge.web import page_worker

AGREED: dict[str, Any] = {
    "reader": "Dr Amina Diallo",
    "texts": [{"answer": 0, "decision": "agreed"}],
}


def confirmations(folder: Path) -> list[dict[str, Any]]:
    log = AuditLog(folder / "audit-log")
    return [dict(entry.fields) for entry in log.entries() if is_confirmation(entry)]


def test_a_confirmation_is_in_the_audit_log_and_stays(tmp_path: Path) -> None:
    async def first() -> str:
        async with serving(tmp_path) as (service, _pages, _model):
            (id,) = await service.submit(b"1", "page", source="local")
            await settled(service, id)
            await service.confirm(id, {"reader": "Dr Diallo"})
            return id

    async def later(id: str) -> Any:
        async with serving(tmp_path) as (service, _pages, _model):
            return await service.reading(id)

    id = run(first)
    assert [entry["reader"] for entry in confirmations(tmp_path)] == ["Dr Diallo"]
    reading = run(lambda: later(id))
    assert reading.confirmation["reader"] == "Dr Diallo"
    assert reading.kept_until == datetime.date.today().isoformat()


def test_an_unread_page_cannot_be_confirmed(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path) as (service, _pages, model):
            model.gate.clear()
            (id,) = await service.submit(b"1", "page", source="local")
            with pytest.raises(UsageError, match="no report yet"):
                await service.confirm(id, {"reader": "Dr Diallo"})
            model.gate.set()

    run(test)
    assert confirmations(tmp_path) == []


def test_two_readers_at_once_cannot_both_be_the_first(tmp_path: Path) -> None:
    async def test() -> list[Any]:
        async with serving(tmp_path) as (service, _pages, _model):
            (id,) = await service.submit(b"1", "page", source="local")
            await settled(service, id)
            return await asyncio.gather(
                *(service.confirm(id, {"reader": name}) for name in ("A", "B")),
                return_exceptions=True,
            )

    first, second = run(test)
    assert first is None
    assert isinstance(second, UsageError)  # the test's page worker names no earlier confirmation
    assert [entry["reader"] for entry in confirmations(tmp_path)] == ["A"]


def worker(confirmation: dict[str, Any], of: dict[str, Any] | None = None) -> dict[str, Any]:
    said = {**(of or report()), "findings": [], "contradictions": [], "checks": []}
    said.pop("overread", None)
    result = page_worker._JOBS["confirm"]({"report": said, "confirmation": confirmation})
    return dict(result)


def test_the_page_worker_completes_a_confirmation() -> None:
    confirmed = worker(AGREED)["confirmation"]
    assert (confirmed["overall"], confirmed["number"]) == ("agreed", 1)
    assert confirmed["time"]


def test_the_page_worker_refuses_a_confirmation_without_each_decision() -> None:
    with pytest.raises(UsageError, match="no decision about the text"):
        worker({"reader": "Dr Amina Diallo"})


def test_a_correction_names_the_confirmation_that_it_replaces() -> None:
    first = worker(AGREED)
    second = worker({**AGREED, "reader": "Dr B"}, first)["confirmation"]
    assert second["number"] == 2
    assert second["corrects"]["reader"] == "Dr Amina Diallo"


def test_documents_of_a_served_page_say_who_confirmed_it(tmp_path: Path) -> None:
    with WebServer(tmp_path) as server:
        id = server.upload()
        server.wait(id, "done")
        with server.program() as client:
            line = json.loads(client.get(f"/r/{id}/report.json").text)["overread"]
            assert line == UNCONFIRMED
        with server.browser() as browser:
            page = browser.get(f"/r/{id}").text
            csrf = page.partition('name="csrf" value="')[2].partition('"')[0]
            form = {"csrf": csrf, "reader": "Dr Diallo", "text-0": "agreed", "final": "yes"}
            for name in ("Dr Diallo", "Dr B"):
                answer = browser.post(f"/r/{id}/confirm", data={**form, "reader": name})
                assert answer.status_code == 303, answer.text
        with server.program() as client:
            said = json.loads(client.get(f"/r/{id}/report.json").text)
            assert said["overread"].startswith("Confirmed without change by Dr B")
            assert "replaces what Dr Diallo confirmed" in said["overread"]
            fhir = client.get(f"/r/{id}/report.fhir.json").text
            assert '"amended"' in fhir
            assert client.get(f"/r/{id}/report.pdf").content.startswith(b"%PDF-")
        readers = [e.fields["reader"] for e in server.entries() if is_confirmation(e)]
        assert readers == ["Dr Diallo", "Dr B"]
