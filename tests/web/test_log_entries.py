"""Each answer and confirmation comes into the audit log once, across crashes."""

from __future__ import annotations

import asyncio
import datetime
from pathlib import Path

import pytest
from web_workers import AGREED, logged, run, serving, settled, until

from pulse_edge.audit_log.log import AuditLog
from pulse_edge.errors import AuditLogError, UsageError
from pulse_edge.inference.request import OutputOptions
from pulse_edge.web import log_entries, store, work


@pytest.mark.parametrize("in_log", [True, False], ids=["appended", "not appended"])
def test_an_answer_whose_logging_a_crash_interrupted_is_logged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_log: bool
) -> None:
    append = log_entries.append

    def interrupted(log: AuditLog, entry: store.Entry, pictures: Path) -> None:
        if in_log:
            append(log, entry, pictures)
        raise RuntimeError("the process ends here")

    async def first() -> str:
        async with serving(tmp_path) as (service, _pages, _model):
            monkeypatch.setattr(log_entries, "append", interrupted)
            (id,) = await service.submit(b"1", "page", source="local")
            log = await until(
                service, id, lambda r: r.progress is not None and r.progress.stage == "log"
            )
            assert (log.state, log.report) == ("reading", None)
            return id

    async def second() -> None:
        async with serving(tmp_path) as (service, _pages, model):
            assert (await settled(service, id)).text == "Answer 1."
            assert model.jobs == []

    id = run(first)
    monkeypatch.setattr(log_entries, "append", append)
    run(second)
    assert logged(tmp_path) == [(f"{id}/0/0", "whole")]


def test_an_answer_that_cannot_be_logged_is_not_shown_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, full = log_entries.append, [True]

    def refused(log: AuditLog, entry: store.Entry, pictures: Path) -> None:
        if full[0]:
            raise AuditLogError("entries.log: cannot be written.")
        append(log, entry, pictures)

    async def test() -> None:
        async with serving(tmp_path) as (service, _pages, _model):
            (id,) = await service.submit(b"1", "page", source="local")
            while service.about()["log_error"] is None:
                await asyncio.sleep(0.01)
            spoken = await service.reading(id)
            assert (spoken.state, spoken.report) == ("reading", None)
            assert spoken.text == "Answer 1."  # it was seen as it came, and does not vanish
            full[0] = False
            assert (await settled(service, id)).text == "Answer 1."
            assert service.about()["log_error"] is None

    monkeypatch.setattr(log_entries, "append", refused)
    monkeypatch.setattr(work, "LOG_PAUSE", 0.05)
    run(test)
    assert len(logged(tmp_path)) == 1


def test_while_nothing_can_be_logged_a_reader_hears_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, full = log_entries.append, [False]

    def refused(log: AuditLog, entry: store.Entry, pictures: Path) -> None:
        if full[0]:
            raise AuditLogError("entries.log: cannot be written.")
        append(log, entry, pictures)

    async def test() -> None:
        async with serving(tmp_path) as (service, _pages, _model):
            (first,) = await service.submit(b"1", "page", source="local")
            await settled(service, first)
            full[0] = True
            (second,) = await service.submit(b"2", "page", source="local")
            while service.about()["log_error"] is None:
                await asyncio.sleep(0.01)
            for change in (service.confirm(first, AGREED), service.remove(second)):
                with pytest.raises(AuditLogError, match="cannot be written"):
                    await asyncio.wait_for(change, 30)
            assert (await service.reading(first)).confirmation is None
            full[0] = False
            await settled(service, second)
            await service.confirm(first, AGREED)

    monkeypatch.setattr(log_entries, "append", refused)
    monkeypatch.setattr(work, "LOG_PAUSE", 0.05)
    run(test)


REJECTED = {"reader": "Dr Ben Okri", "overall": "rejected"}


def test_a_confirmation_is_in_the_report_and_in_the_log(tmp_path: Path) -> None:
    async def test() -> str:
        async with serving(tmp_path) as (service, _pages, _model):
            (id,) = await service.submit(b"1", "page", source="local")
            with pytest.raises(UsageError, match="no answer"):
                await service.confirm(id, AGREED)
            await settled(service, id)
            await service.confirm(id, AGREED)
            reading = await service.reading(id)
            assert reading.confirmation is not None
            assert reading.confirmation["number"] == 1
            assert reading.report is not None
            assert reading.report["confirmation"] == reading.confirmation
            assert reading.report["overread"].startswith("Confirmed without change by Dr Amina")
            assert reading.kept_until == datetime.date.today().isoformat()
            return id

    id = run(test)
    log = AuditLog(tmp_path / "audit-log")
    answer, confirmation = log.entries()
    assert confirmation.fields["id"] == f"{id}/confirmation/1"
    assert confirmation.fields["refers_to"] == [answer.hash]
    assert (confirmation.fields["reader"], confirmation.fields["overall"]) == (
        "Dr Amina Diallo", "agreed"
    )  # fmt: skip


def test_a_later_confirmation_corrects_the_first(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path) as (service, _pages, _model):
            (id,) = await service.submit(b"1", "page", source="local")
            await settled(service, id)
            await asyncio.gather(
                service.confirm(id, AGREED), service.confirm(id, REJECTED, corrects=1)
            )
            reading = await service.reading(id)
            assert reading.confirmation is not None
            assert reading.confirmation["number"] == 2
            assert reading.confirmation["corrects"]["reader"] == "Dr Amina Diallo"

    run(test)
    _answer, first, second = AuditLog(tmp_path / "audit-log").entries()
    assert second.fields["corrects"] == first.hash


def test_a_confirmation_that_the_reader_has_not_seen_is_not_replaced(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path) as (service, _pages, _model):
            (id,) = await service.submit(b"1", "page", source="local")
            await settled(service, id)
            await service.confirm(id, AGREED)
            for corrects in (0, 2):
                with pytest.raises(UsageError, match="confirmed meanwhile, by Dr Amina"):
                    await service.confirm(id, REJECTED, corrects=corrects)
            reading = await service.reading(id)
            assert reading.confirmation is not None
            assert reading.confirmation["overall"] == "agreed"

    run(test)
    assert len(list(AuditLog(tmp_path / "audit-log").entries())) == 2


def test_what_is_no_confirmation_changes_nothing(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path) as (service, _pages, _model):
            (id,) = await service.submit(b"1", "page", source="local")
            await settled(service, id)
            for given in ({"reader": " "}, {"reader": "R"}, {"reader": "R", "time": 1}):
                with pytest.raises(UsageError):
                    await service.confirm(id, given)
            assert (await service.reading(id)).confirmation is None

    run(test)
    assert len(logged(tmp_path)) == 1


def test_retained_texts_are_stored_with_the_entry(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path, output=OutputOptions(retain_days=3)) as (service, _, _model):
            (id,) = await service.submit(b"1", "page", source="local")
            await settled(service, id)

    run(test)
    log = AuditLog(tmp_path / "audit-log")
    (entry,) = log.entries()
    assert "Answer 1." in log.retained(entry)["texts"].read_text()
