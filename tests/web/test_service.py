"""The service with workers that do what a test tells them: order, crashes, stops, the audit log."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from web_workers import AGREED, logged, run, serving, settled, until

from pulse_edge.audit_log.log import AuditLog
from pulse_edge.errors import KitError, PageFailed, ScanError, ServeError, UsageError
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


def test_the_time_of_a_page_is_that_of_the_last_one(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path) as (service, _pages, model):
            model.page_seconds = 42.0
            (first,) = await service.submit(b"1", "first", source="local")
            await settled(service, first)
            model.gate.clear()
            (second,) = await service.submit(b"1", "second", source="local")
            begun = await until(service, second, lambda r: r.state == "reading")
            assert begun.progress is not None
            assert begun.progress.seconds_left == 42.0
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
