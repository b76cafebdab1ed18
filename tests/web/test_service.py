"""The service with workers that do what a test tells them: order, crashes, stops, the audit log."""

from __future__ import annotations

import asyncio
import datetime
from pathlib import Path
from typing import Any

import pytest
from web_workers import logged, run, serving, settled, until

from pulse_edge.audit_log.log import AuditLog
from pulse_edge.errors import AuditLogError, KitError, PageFailed, ScanError, ServeError, UsageError
from pulse_edge.inference.request import OutputOptions
from pulse_edge.web import log_entries, store, work
from pulse_edge.web.child import WorkerCrashed
from pulse_edge.web.options import ServeOptions
from pulse_edge.web.service import Service

# --- uploads and the queue ------------------------------------------------------------------------


def test_every_page_of_a_document_is_a_reading_of_its_own(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path) as (service, pages, _model):
            pages.pages = 3
            ids = await service.submit(b"scan", "../../Ward 7\\scan.pdf", source="local")
            names = [(await settled(service, id)).name for id in ids]
            assert names == ["scan.pdf#1", "scan.pdf#2", "scan.pdf#3"]
            assert [r.id for r in await service.readings()] == ids[::-1]

    run(test)
    assert len(logged(tmp_path)) == len(set(logged(tmp_path))) == 3


def test_a_search_finds_words_of_a_page_in_any_alphabet(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path) as (service, _pages, model):
            model.answers = ["Sinus rhythm.", "Atrial flutter.", "No."]
            first, second = [
                (await service.submit(b"1", name, source="local"))[0]
                for name in ("\u00c9CG 100%.png", "b_c.png")
            ]
            await settled(service, first)
            await settled(service, second)
            await service.confirm(first, {**AGREED, "conclusion": "\u0939\u0943\u0926\u092f"})
            await service.ask(second, "Is it \u00dcbel?")
            await settled(service, second)

            async def matches(text: str) -> list[str]:
                return [r.id for r in await service.readings(text=text)]

            for words in ("\u00e9cg", "SINUS", "\u0939\u0943\u0926", "0%"):
                assert await matches(words) == [first], words
            for words in ("flutter", "\u00fcbel", "b_c", "no."):
                assert await matches(words) == [second], words
            for words in ("page_sha256", "verdict", "answers", "' OR 1=1", "\\u0939"):
                assert await matches(words) == [], words

    run(test)


def test_a_question_about_the_page_in_the_kv_cache_comes_first(tmp_path: Path) -> None:
    async def test() -> list[str]:
        async with serving(tmp_path) as (service, _pages, model):
            (first,) = await service.submit(b"1", "first", source="local")
            await settled(service, first)
            model.gate.clear()
            others = [(await service.submit(b"2", f"{n}", source="local"))[0] for n in range(2)]
            await until(service, others[1], lambda r: r.state == "waiting")
            await service.ask(first, "Why?")
            model.gate.set()
            for id in (first, *others):
                await settled(service, id)
            return [job["name"] for job in model.jobs]

    # The page that was begun before the question goes on; its cache is the newest then.
    assert run(test) == ["first", "0", "1", "first"]


def test_places_and_time_left_of_pages_that_wait(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path) as (service, _pages, model):
            model.gate.clear()
            service.work.page_seconds = 60.0
            ids = [(await service.submit(b"1", f"{n}", source="local"))[0] for n in range(3)]
            await until(service, ids[0], lambda r: r.state == "reading")
            last = await until(service, ids[2], lambda r: r.state == "waiting" and r.place == 2)
            assert last.progress is not None
            assert (last.progress.stage, last.progress.total) == ("wait", 2)
            left = {"stage": "prefill", "done": 1, "total": 2, "seconds_left": 30.0}
            service.work._event({"event": "progress", **left})
            last = await service.reading(ids[2])
            assert last.progress is not None
            assert last.progress.seconds_left == 30.0 + 2 * 60.0
            model.gate.set()

    run(test)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"age_years": "-1"}, "age_years"),
        ({"age_years": "nan"}, "age_years"),
        ({"sex": "x"}, "sex"),
        ({"printer": True}, "no such option"),
        ({"questions": [" "]}, "empty"),
        ({"questions": ["x" * 5000]}, "limit"),
        ({"max_tokens": "1e9"}, "max_tokens"),
    ],
)
def test_options_that_do_not_exist_are_refused_and_store_nothing(
    tmp_path: Path, options: dict[str, Any], word: str
) -> None:
    async def test() -> None:
        async with serving(tmp_path) as (service, _pages, _model):
            with pytest.raises(UsageError, match=word):
                await service.submit(b"1", "page", source="local", options=options)
            assert await service.readings() == []

    run(test)
    assert list((tmp_path / "web" / "uploads").iterdir()) == []


def test_two_servers_do_not_share_a_folder(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path):
            with pytest.raises(ServeError, match=r"another pulse-edge works on it.*--folder"):
                Service(ServeOptions(folder=tmp_path / "web"), AuditLog(tmp_path / "audit-log"))

    run(test)


# --- pages that fail ------------------------------------------------------------------------------


def test_a_refused_page_is_read_when_a_person_says_so(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path) as (service, pages, model):
            pages.refusal = "page: too dark. Take the photo again."
            (id,) = await service.submit(b"1", "page", source="local")
            refused = await settled(service, id)
            assert (refused.state, refused.exit_code, refused.error) == (
                "refused",
                3,
                pages.refusal,
            )
            assert model.jobs == []
            await service.force(id)
            assert (await until(service, id, lambda r: r.state == "done")).error is None
            assert model.jobs[0]["request"]["page"]["force"] is True
            with pytest.raises(UsageError, match="is done"):
                await service.force(id)

    run(test)
    entries = AuditLog(tmp_path / "audit-log").entries()
    assert [e.fields["settings"]["page"]["force"] for e in entries] == [True]


@pytest.mark.parametrize("worker", ["count", "prepare", "model"])
@pytest.mark.parametrize("crashes", [1, 2])
def test_a_page_that_ends_a_worker_twice_fails_and_the_others_go_on(
    tmp_path: Path, worker: str, crashes: int
) -> None:
    ends = [WorkerCrashed("SIGSEGV")] * crashes

    async def test() -> None:
        async with serving(tmp_path) as (service, pages, model):
            if worker == "model":
                model.answers += ends
            else:
                pages.errors[f"{worker} bad"] = list(ends)
            (bad,) = await service.submit(b"1", "bad", source="local")
            (good,) = await service.submit(b"1", "good", source="local")
            assert (await settled(service, good)).state == "done"
            reading = await settled(service, bad)
            assert reading.state == ("failed" if crashes == 2 else "done")
            if crashes == 2:
                assert "bad: ended the program 2 times (SIGSEGV)" in str(reading.error)

    run(test)


def test_an_unreadable_upload_fails_and_can_be_read_again(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path) as (service, pages, model):
            pages.errors["prepare page"] = [ScanError("page: is damaged.")]
            model.answers.append(PageFailed("page: no memory."))
            (id,) = await service.submit(b"1", "page", source="local")
            assert (await settled(service, id)).error == "page: is damaged."
            await service.retry(id)
            assert (await until(service, id, lambda r: r.error == "page: no memory.")).settled
            await service.retry(id)
            assert (await until(service, id, lambda r: r.state == "done")).text == "Answer 2."

    run(test)


def test_a_kit_that_cannot_be_used_leaves_the_queue_and_says_why(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path) as (service, _pages, model):
            model.error = KitError("kit: refused by doctor.")
            await service.submit(b"1", "first", source="local")
            (second,) = await service.submit(b"1", "second", source="local")
            waiting = await until(service, second, lambda r: r.state == "waiting")
            assert waiting.place == 2
            while service.about()["model"]["state"] != "failed":
                await asyncio.sleep(0.01)
            assert service.about()["model"]["reason"] == "kit: refused by doctor."
            model.error = None
            service.load_model()
            assert (await settled(service, second)).state == "done"

    run(test)


# --- conversation and stops -----------------------------------------------------------------------


def test_a_question_takes_the_earlier_ones_of_its_conversation_along(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path) as (service, _pages, model):
            model.answers += ["Report.", "One.", "", "Three.", "Four."]
            (id,) = await service.submit(b"1", "page", source="local")
            await settled(service, id)
            for number, question in enumerate("abcd", 1):
                assert await service.ask(id, question, fresh=question == "c") == number
                await until(service, id, lambda r, n=number: r.turns[n - 1].state == "done")  # type: ignore[misc]
            histories = [job.get("history") for job in model.jobs]
            assert histories == [
                (),
                [("What?", "Report.")],
                [("What?", "Report."), ("a", "One.")],
                [],
                [("c", "Three.")],
            ]

    run(test)
    assert len(logged(tmp_path)) == 5


def test_a_page_without_an_answer_cannot_be_asked_about(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path) as (service, _pages, model):
            model.gate.clear()
            (id,) = await service.submit(b"1", "page", source="local")
            with pytest.raises(UsageError, match="no answer yet"):
                await service.ask(id, "Why?")
            with pytest.raises(KeyError):
                await service.ask("x", "Why?")

    run(test)


def test_a_stopped_answer_stays_and_is_logged_as_broken_off(tmp_path: Path) -> None:
    async def test() -> str:
        async with serving(tmp_path) as (service, _pages, model):
            model.answers.append(["Half an ans"])
            (id,) = await service.submit(b"1", "page", source="local")
            partial = await until(service, id, lambda r: r.text != "")
            assert (partial.state, partial.text) == ("reading", "Half an ans")
            await service.stop(id)
            assert (await settled(service, id)).text == "Half an ans"
            return id

    id = run(test)
    assert logged(tmp_path) == [(f"{id}/0/0", "broken off")]


def test_a_stop_before_the_first_word_logs_nothing(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path) as (service, _pages, model):
            model.answers.append([""])
            first, second = [
                (await service.submit(b"1", name, source="local"))[0] for name in ("a", "b")
            ]
            await until(service, second, lambda r: r.state == "waiting")
            await until(service, first, lambda r: r.state == "reading")
            for id in (second, first):  # one waits, the other runs
                await service.stop(id)
                reading = await settled(service, id)
                assert reading.state == "failed"
                assert "stopped" in str(reading.error)

    run(test)
    assert logged(tmp_path) == []


# --- the audit log --------------------------------------------------------------------------------


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


AGREED = {"reader": "Dr Amina Diallo", "texts": [{"answer": 0, "decision": "agreed"}]}
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
