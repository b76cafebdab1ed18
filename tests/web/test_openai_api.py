"""Chat completions: whole and streamed, with marks, and errors in OpenAI's form."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_clients import HOST, client, events, guarded, running
from chat_requests import body, user
from fake_service import KIT, REFUSAL, TEXT, FakeService
from web_server import wait_for

from pulse_edge.web import following, marks

CHAT = "/v1/chat/completions"
SCHEMA = {
    "type": "json_schema",
    "json_schema": {"name": "x", "schema": {"type": "object", "properties": {}}},
}


def stream(service: FakeService, **parameters: Any) -> list[Any]:
    """The events of a streamed completion."""
    response = client(service).post(CHAT, json=body(stream=True, **parameters))
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    return events(response.text)


def deltas(chunks: list[Any]) -> list[str]:
    """The pieces of text in a stream."""
    choices = [choice for chunk in chunks if chunk != "[DONE]" for choice in chunk["choices"]]
    return [c["delta"]["content"] for c in choices if c["delta"].get("content")]


def test_an_answer_has_its_marks_in_the_field_and_above_the_text() -> None:
    service = FakeService()
    response = client(service).post(CHAT, json=body())
    assert response.status_code == 200
    completion = response.json()
    (choice,) = completion["choices"]
    assert choice["message"]["content"] == marks.before_text(service.report) + TEXT
    assert choice["finish_reason"] == "stop"
    assert completion["model"] == KIT
    assert completion["pulse_edge"] == marks.field("id-0", service.report)
    assert completion["usage"]["completion_tokens"] == service.report["answers"][0]["tokens"]
    assert service.submitted == [
        (b"a page", "page.png", "api", {"questions": ["What is the rhythm?"]})
    ]
    assert service.stopped == []


def test_an_answer_that_was_cut_off_says_length() -> None:
    service = FakeService()
    service.report["answers"][0]["complete"] = False
    choice = client(service).post(CHAT, json=body()).json()["choices"][0]
    assert choice["finish_reason"] == "length"
    finish = [c["choices"][0]["finish_reason"] for c in stream(service)[:-1]]
    assert finish[-1] == "length"


def test_a_stream_holds_its_text_back_until_it_is_checked() -> None:
    service = FakeService()
    first, *rest, end = stream(service)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert deltas(rest) == [marks.before_text(service.report), TEXT]
    assert rest[0]["pulse_edge"] == marks.field("id-0", service.report)
    assert rest[-1]["choices"][0] == {
        "index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop",
    }  # fmt: skip
    assert end == "[DONE]"
    assert {chunk["id"] for chunk in (first, *rest)} == {"chatcmpl-id-0"}


def test_an_unchecked_stream_gives_the_text_as_it_comes_and_says_so_first() -> None:
    service = FakeService()
    pieces = deltas(stream(service, pulse_edge={"stream_unchecked": True}))
    before = marks.before_unchecked_text(["NOT FOR PATIENTS"])
    below = marks.after_unchecked_text(service.report)
    assert pieces == [before + TEXT[:5], TEXT[5:], below]
    assert marks.CONTRADICTION in below


def test_a_text_that_is_checked_already_goes_out_with_its_marks_first() -> None:
    service = FakeService()
    service.at_once = True
    pieces = deltas(stream(service, pulse_edge={"stream_unchecked": True}))
    assert pieces == [marks.before_text(service.report), TEXT]


def test_token_counts_come_last_on_request() -> None:
    *_, counts, end = stream(FakeService(), stream_options={"include_usage": True})
    assert counts["choices"] == []
    assert counts["usage"] == {
        "prompt_tokens": 95,
        "completion_tokens": 3,
        "total_tokens": 98,
        "prompt_tokens_details": {"image_tokens": 80},
    }
    assert end == "[DONE]"


def test_json_of_a_schema_has_no_marks_in_its_text() -> None:
    service = FakeService(text='{"normal": true}')
    answer = client(service).post(CHAT, json=body(response_format=SCHEMA)).json()
    assert answer["choices"][0]["message"]["content"] == '{"normal": true}'
    assert answer["pulse_edge"]["contradictions"]
    assert deltas(stream(service, response_format=SCHEMA)) == ['{"normal": true}']


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("page", "status", "code"),
    [
        (b"refused", 422, "page_refused"),
        (b"unreadable", 422, "page_unreadable"),
        (b"two", 400, "usage_error"),
    ],
)
def test_a_page_that_is_not_read_is_an_error_before_any_text(
    page: bytes, status: int, code: str, streamed: bool
) -> None:
    service = FakeService()
    response = client(service).post(CHAT, json=body(user(page=page), stream=streamed))
    assert response.status_code == status
    error = response.json()["error"]
    assert error["code"] == code
    assert error["type"] == "invalid_request_error"
    if page == b"refused":
        assert error["message"] == REFUSAL
    if page == b"two":
        assert service.removed == ["id-0", "id-1"]


def test_a_refused_page_is_read_only_by_force() -> None:
    service = FakeService()
    client(service).post(CHAT, json=body(pulse_edge={"force": True}))
    assert service.submitted[0][3]["force"] is True


def test_a_failure_is_not_worth_a_second_try() -> None:
    response = client(FakeService()).post(CHAT, json=body(user(page=b"crashed")))
    assert response.status_code == 500
    assert response.headers["x-should-retry"] == "false"
    assert response.json()["error"]["type"] == "server_error"


def test_a_server_that_stops_leaves_the_page_on_its_list() -> None:
    service = FakeService()
    service.stopping = True
    response = client(service).post(CHAT, json=body(user(page=b"endless")))
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "busy"
    assert service.stopped == []


def test_a_page_that_was_removed_meanwhile() -> None:
    response = client(FakeService()).post(CHAT, json=body(user(page=b"removed")))
    assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")


def test_a_failure_in_the_middle_of_a_stream_is_an_event() -> None:
    request = body(user(page=b"crashed"), stream=True)
    *_, last = events(client(FakeService()).post(CHAT, json=request).text)
    assert last["error"]["code"] == "reading_failed"


def test_a_model_that_cannot_be_loaded_answers_503() -> None:
    service = FakeService()
    service.model = {"state": "failed", "reason": "too little memory"}
    response = client(service).post(CHAT, json=body())
    assert response.status_code == 503
    assert "too little memory" in response.json()["error"]["message"]
    assert service.submitted == []


def test_a_model_that_fails_while_a_client_waits_ends_the_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(following, "LOOK_SECONDS", 0.01)
    service = FakeService()
    looks = iter([{"state": "loading"}] * 2)
    service.about = lambda: {  # type: ignore[method-assign]
        "kit_id": KIT, "model": next(looks, {"state": "failed", "reason": "gone"}),
    }  # fmt: skip
    response = client(service).post(CHAT, json=body(user(page=b"endless")))
    assert response.status_code == 503
    assert service.stopped == ["id-0"]


def test_a_long_wait_keeps_the_connection_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(following, "QUIET_SECONDS", 0.02)
    service = FakeService()
    looks = iter([{"state": "ready"}] * 20)
    service.about = lambda: {  # type: ignore[method-assign]
        "kit_id": KIT, "model": next(looks, {"state": "failed", "reason": "gone"}),
    }  # fmt: skip
    text = client(service).post(CHAT, json=body(user(page=b"endless"), stream=True)).text
    assert ": waiting\n\n" in text
    assert events(text)[-1]["error"]["code"] == "model_not_ready"


class _Gone:
    """A connection that closes after some looks."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    async def is_disconnected(self) -> bool:
        self.looks -= 1
        return self.looks < 0


def test_a_client_that_has_gone_stops_its_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "LOOK_SECONDS", 0.01)
    service = FakeService()

    async def wait() -> None:
        (one,) = await service.submit(b"endless", "page", source="api")
        states = following.follow(service, one, _Gone(4))  # type: ignore[arg-type]
        with pytest.raises(following.ClientGone):
            await following.last(states, await following.judged(states))
        await asyncio.sleep(0)

    asyncio.run(wait())
    assert service.stopped == ["id-0"]


def test_a_cancelled_wait_stops_its_reading() -> None:
    service = FakeService()

    async def wait() -> None:
        (one,) = await service.submit(b"endless", "page", source="api")
        states = following.follow(service, one, _Gone(99))  # type: ignore[arg-type]
        reading = await following.judged(states)
        task = asyncio.create_task(following.last(states, reading))
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(0)

    asyncio.run(wait())
    assert service.stopped == ["id-0"]


@pytest.mark.parametrize(
    ("content", "media", "status"),
    [
        (b"{", "application/json", 400),
        (b"\xff", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b"model=x", "application/x-www-form-urlencoded", 415),
    ],
)
def test_a_body_that_is_no_json(content: bytes, media: str, status: int) -> None:
    response = client(FakeService()).post(CHAT, content=content, headers={"content-type": media})
    assert response.status_code == status
    assert response.json()["error"]["message"]


def test_the_kit_is_the_only_model() -> None:
    browser = client(FakeService())
    listed = browser.get("/v1/models").json()
    assert listed["data"] == [
        {"id": KIT, "object": "model", "created": 1767323045, "owned_by": "pulse-edge"}
    ]
    one = browser.get("/v1/models/kit%20%28Q8_0%2C%20fp16%29")
    assert one.json() == listed["data"][0]
    missing = browser.get("/v1/models/gpt-5")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


def test_without_a_kit_there_is_no_model() -> None:
    service = FakeService()
    service.about = lambda: {  # type: ignore[method-assign]
        "kit_id": None, "model": {"state": "failed", "reason": "no kit is installed"},
    }  # fmt: skip
    for response in (
        client(service).get("/v1/models"),
        client(service).post(CHAT, json=body()),
    ):
        assert response.status_code == 503
        assert "no kit is installed" in response.json()["error"]["message"]


@pytest.mark.parametrize("streamed", [False, True])
def test_a_connection_that_closes_stops_its_reading(tmp_path: Path, streamed: bool) -> None:
    service = FakeService()
    app, headers = guarded(service, tmp_path)
    with running(app) as port:
        headers = {"Authorization": headers["Authorization"], "Host": HOST}
        request = body(user(page=b"endless"), stream=streamed)
        address = f"http://127.0.0.1:{port}{CHAT}"
        with (
            httpx.Client(timeout=httpx.Timeout(60.0, read=3.0)) as http,
            contextlib.suppress(httpx.ReadTimeout),
            http.stream("POST", address, json=request, headers=headers) as response,
        ):
            assert streamed
            assert response.status_code == 200
            next(response.iter_lines())  # the role; then the connection is closed
        wait_for(lambda: service.stopped == ["id-0"])
