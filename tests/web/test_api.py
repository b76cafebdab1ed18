"""`/api`: uploads as a form and as a raw body, options by the commands' names, errors with a
status."""

from __future__ import annotations

import json
from typing import Any

import click
import pytest
from api_clients import client
from fake_service import ADMISSION, MEASURED, REFUSAL, FakeService

from pulse_edge.cli.main import cli
from pulse_edge.web import api_options

PNG = {"content-type": "image/png"}


def form(data: bytes = b"a page", name: str = "ecg.png") -> dict[str, Any]:
    """The files of a multipart form."""
    return {"file": (name, data, "image/png")}


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("interpret", api_options.INTERPRET),
        ("measure", api_options.MEASURE),
        ("check", api_options.CHECK),
    ],
)
def test_options_are_those_of_the_command(
    command: str, options: tuple[api_options.Option, ...]
) -> None:
    parameters: dict[str, click.Parameter] = {
        word.lstrip("-"): parameter
        for parameter in cli.commands[command].params
        for word in parameter.opts
    }
    assert {o.name: o.key for o in options}.items() <= {
        word: parameter.name for word, parameter in parameters.items()
    }.items()


def test_the_report_is_the_body() -> None:
    service = FakeService()
    response = client(service).post("/api/interpret", files=form())
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.json() == service.report
    assert response.text.endswith("}\n")
    assert service.submitted == [(b"a page", "ecg.png", "api", {})]
    assert service.files() == []


def test_a_raw_body_is_named_by_the_query() -> None:
    service = FakeService()
    url = "/api/interpret?name=ecg.png&question=One%3F&question=Two%3F&max-tokens=9&age=54"
    assert client(service).post(url, content=b"a page", headers=PNG).status_code == 200
    options = {"questions": ["One?", "Two?"], "max_tokens": 9, "age_years": 54.0}
    assert service.submitted == [(b"a page", "ecg.png", "api", options)]


def test_options_are_fields_of_the_form_too() -> None:
    service = FakeService()
    fields = {
        "findings": "false",
        "no-rectify": "true",
        "image-tokens": "320:similarity",
        "sex": "female",
        "json-schema": '{"type": "boolean"}',
    }
    response = client(service).post("/api/interpret?force=true", files=form(), data=fields)
    assert response.status_code == 200
    assert service.submitted[0][3] == {
        "force": True,
        "findings": False,
        "no_rectify": True,
        "image_tokens": "320:similarity",
        "sex": "female",
        "json_schema": {"type": "boolean"},
    }


def test_a_file_of_several_pages_gives_a_line_for_each() -> None:
    service = FakeService()
    response = client(service).post("/api/interpret", files=form(b"two"))
    assert response.headers["content-type"] == "application/jsonl"
    assert [json.loads(line) for line in response.text.splitlines()] == [service.report] * 2


@pytest.mark.parametrize(
    ("page", "status", "kind", "exit_code"),
    [
        (b"refused", 422, "page_refused", 3),
        (b"unreadable", 422, "page_unreadable", 1),
        (b"crashed", 500, "reading_failed", 1),
        (b"", 400, "usage_error", 2),
    ],
)
def test_a_page_without_a_report(page: bytes, status: int, kind: str, exit_code: int) -> None:
    response = client(FakeService()).post("/api/interpret", content=page, headers=PNG)
    assert response.status_code == status
    error = response.json()["error"]
    assert (error["type"], error["exit_code"]) == (kind, exit_code)
    if kind == "page_refused":
        assert error["message"] == REFUSAL


def test_a_client_that_does_not_wait_gets_the_readings_ids() -> None:
    service = FakeService()
    browser = client(service)
    response = browser.post("/api/interpret?wait=false", files=form(b"two"))
    assert response.status_code == 202
    readings = response.json()["readings"]
    assert [one["id"] for one in readings] == ["id-0", "id-1"]
    state = browser.get(response.headers["location"])
    assert state.json()["report"] == service.report
    assert service.stopped == []


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_an_unknown_reading(method: str) -> None:
    response = client(FakeService()).request(method, "/api/readings/nothing")
    assert (response.status_code, response.json()["error"]["type"]) == (404, "not_found")


def test_a_program_removes_what_it_sent() -> None:
    service = FakeService()
    browser = client(service)
    place = browser.post("/api/interpret?wait=false", files=form()).headers["location"]
    removed = browser.delete(place)
    assert (removed.status_code, removed.content) == (204, b"")
    assert service.removed == ["id-0"]
    assert browser.get(place).status_code == 404


@pytest.mark.parametrize(
    "query",
    [
        "kit=x",
        "format=pdf",
        "force=yes",
        "force=true&force=true",
        "age=-1",
        "age=nan",
        "age=old",
        "sex=x",
        "max-tokens=0",
        "max-tokens=many",
        "question=%20",
        "question=%3Cimage%3E",
        "image-tokens=12",
        "json-schema={",
        'json-schema={"type":"date"}',
        "wait=maybe",
        "wait=true&wait=true",
        "name=a&name=b",
    ],
)
def test_an_option_that_the_command_does_not_take(query: str) -> None:
    service = FakeService()
    response = client(service).post(f"/api/interpret?{query}", content=b"a page", headers=PNG)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["exit_code"] == 2
    assert service.submitted == []


@pytest.mark.parametrize(
    "media", ["", "application/json", "text/plain", "application/x-www-form-urlencoded"]
)
def test_another_media_type(media: str) -> None:
    headers = {"content-type": media} if media else {}
    response = client(FakeService()).post("/api/check", content=b"a page", headers=headers)
    assert response.status_code == 415
    assert "multipart/form-data" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("files", "content_type"),
    [
        ({"file": ("a.png", b"")}, None),
        ([("file", ("a.png", b"x")), ("file", ("b.png", b"x"))], None),
        (None, "multipart/form-data"),
        (None, "multipart/form-data; boundary=x"),
    ],
)
def test_a_form_that_does_not_hold_one_page(files: Any, content_type: str | None) -> None:
    headers = {"content-type": content_type} if content_type else {}
    content = b"no form" if content_type else None
    response = client(FakeService()).post(
        "/api/check", files=files, content=content, headers=headers
    )
    assert (response.status_code, response.json()["error"]["type"]) == (400, "usage_error")


def test_check_and_measure_give_what_the_service_says() -> None:
    service = FakeService()
    browser = client(service)
    checked = browser.post("/api/check?no-rectify=true", files=form())
    measured = browser.post("/api/measure?age=4&sex=male&force=true", files=form())
    assert checked.json() == ADMISSION | {"file": "ecg.png"}
    assert measured.json() == MEASURED | {"file": "ecg.png"}
    assert service.one_shots == [
        ("check", "ecg.png", {"no_rectify": True}),
        ("measure", "ecg.png", {"age_years": 4.0, "sex": "male", "force": True}),
    ]


def test_a_damaged_page_among_others_has_a_line_with_its_reason() -> None:
    response = client(FakeService()).post("/api/check", files=form(b"two"))
    assert response.headers["content-type"] == "application/jsonl"
    first, second = map(json.loads, response.text.splitlines())
    assert first["verdict"] == "good"
    assert second == {
        "file": "ecg.png#2", "error": "ecg.png: is no picture. Save it as PNG.", "exit_code": 1,
    }  # fmt: skip


@pytest.mark.parametrize("page", [b"unreadable", b"one damaged"])
@pytest.mark.parametrize("command", ["check", "measure"])
def test_a_file_that_is_no_page(command: str, page: bytes) -> None:
    response = client(FakeService()).post(f"/api/{command}", files=form(page))
    assert response.status_code == 422
    assert response.json()["error"]["type"] == "page_unreadable"


def test_a_model_that_cannot_be_loaded() -> None:
    service = FakeService()
    service.model = {"state": "failed", "reason": "no kit"}
    browser = client(service)
    assert browser.post("/api/interpret", files=form()).status_code == 503
    assert browser.post("/api/check", files=form()).status_code == 200
