"""The API of a real server with the demo kit: the commands' JSON, and OpenAI's own client."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import jsonschema
import pydantic
import pytest
from checkout import ROOT
from PIL import Image
from web_server import DEADLINE, KIT, PAGE, WebServer, wait_for

from pulse_edge.web import marks, openapi

openai = pytest.importorskip("openai", reason="needs OpenAI's client")
TIMES = {"seconds", "created", "created_local"}
"""Fields that differ from run to run."""
QUESTION = "What is the ventricular rate?"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    with WebServer(tmp_path_factory.mktemp("serve")) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: WebServer) -> Iterator[Any]:
    with openai.OpenAI(
        base_url=f"{server.address}/v1", api_key=server.token(), timeout=DEADLINE, max_retries=0
    ) as opened:
        yield opened


@pytest.fixture(scope="module")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page that is refused."""
    path = tmp_path_factory.mktemp("blank") / "blank.png"
    Image.new("RGB", (900, 700), "white").save(path)
    return path


class _Short(pydantic.BaseModel):
    """A page in short, as a program of a clinic may declare it."""

    rhythm: Literal["sinus rhythm", "other"]
    rate: int | None


def message(path: Path = PAGE, question: str = QUESTION) -> dict[str, Any]:
    """A question about a page."""
    url = f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
    parts = [{"type": "text", "text": question}, {"type": "image_url", "image_url": {"url": url}}]
    return {"role": "user", "content": parts}


def validate(name: str, value: Any) -> None:
    """Fail where a value is not as the OpenAPI document describes the component."""
    components = openapi.document()["components"]
    schema = {"$ref": f"#/components/schemas/{name}", "components": components}
    jsonschema.Draft202012Validator(schema).validate(value)


def without_times(value: Any) -> Any:
    """JSON without the fields that differ from run to run."""
    if isinstance(value, dict):
        return {name: without_times(v) for name, v in value.items() if name not in TIMES}
    return [without_times(v) for v in value] if isinstance(value, list) else value


def printed(server: WebServer, command: str, *words: str, page: Path = PAGE) -> list[Any]:
    """What a command prints about a page with `--json`."""
    done = subprocess.run(
        [sys.executable, "-m", "pulse_edge", command, page.name, "--json", *words],
        cwd=page.parent,
        env={**server.environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("command", "words", "schema"),
    [
        ("check", {}, "Admission"),
        ("check", {"no-rectify": True}, "Admission"),
        ("measure", {"age": "54", "sex": "female"}, "PageMeasurement"),
        ("interpret", {"question": QUESTION, "max-tokens": "9"}, "Report"),
    ],
)
def test_the_json_is_the_commands(
    server: WebServer, command: str, words: dict[str, Any], schema: str
) -> None:
    options = [part for name, v in words.items() for part in (f"--{name}", v) if part is not True]
    kit = ["--kit", str(KIT)] if command == "interpret" else []
    (expected,) = printed(server, command, *options, *kit)
    fields = {name: "true" if v is True else v for name, v in words.items()}
    with server.program() as program:
        response = program.post(
            f"/api/{command}", files={"file": (PAGE.name, PAGE.read_bytes())}, data=fields
        )
    assert response.status_code == 200
    assert without_times(response.json()) == without_times(expected)
    assert list(response.json()) == list(expected)
    validate(schema, response.json())


def test_a_refused_page_has_the_commands_message_and_exit_code(
    server: WebServer, blank: Path
) -> None:
    (expected,) = printed(server, "interpret", "--kit", str(KIT), page=blank)
    with server.program() as program:
        response = program.post("/api/interpret", files={"file": (blank.name, blank.read_bytes())})
        checked = program.post("/api/check", files={"file": (blank.name, blank.read_bytes())})
    assert response.status_code == 422
    error = response.json()["error"]
    assert error == {
        "message": expected["error"], "type": "page_refused", "exit_code": expected["exit_code"],
    }  # fmt: skip
    assert (checked.status_code, checked.json()["verdict"]) == (200, "refused")
    validate("Admission", checked.json())


def test_a_queued_page_is_read_and_logged(server: WebServer) -> None:
    with server.program() as program:
        accepted = program.post(
            "/api/interpret?wait=false", files={"file": (PAGE.name, PAGE.read_bytes())}
        )
        assert accepted.status_code == 202
        place = accepted.headers["location"]
        wait_for(lambda: program.get(place).json()["state"] == "done")
        reading = program.get(place).json()
    validate("Reading", reading)
    assert f"{reading['id']}/0/0" in [entry.fields.get("id") for entry in server.entries()]


def test_openais_client_gets_the_answer_with_its_marks(server: WebServer, client: Any) -> None:
    (kit,) = client.models.list().data
    assert client.models.retrieve(kit.id) == kit
    completion = client.chat.completions.create(model=kit.id, messages=[message()])
    text = completion.choices[0].message.content
    field = completion.model_extra["pulse_edge"]
    first = text.partition("\n")[0]
    assert first.startswith(f"[{marks.UNCONFIRMED}. DEMONSTRATION KIT - NOT FOR PATIENTS. ")
    with server.program() as program:
        reading = program.get(f"/api/readings/{field['reading']}").json()
    assert text == marks.before_text(reading["report"]) + reading["report"]["answers"][0]["text"]
    assert field["measurements"] == reading["report"]["measurements"]
    assert completion.usage.completion_tokens == reading["report"]["answers"][0]["tokens"]
    assert 0 < completion.usage.prompt_tokens - reading["report"]["image_tokens"] < 200  # the words
    assert f"{field['reading']}/0/0" in [entry.fields.get("id") for entry in server.entries()]


def test_openais_client_streams(client: Any) -> None:
    kit = client.models.list().data[0].id
    whole = client.chat.completions.create(model=kit, messages=[message()])
    stream = client.chat.completions.create(
        model=kit, messages=[message()], stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].usage == whole.usage
    unchecked = client.chat.completions.create(
        model=kit,
        messages=[message()],
        stream=True,
        extra_body={"pulse_edge": {"stream_unchecked": True}},
    )
    early = "".join(c.choices[0].delta.content or "" for c in unchecked)
    assert "DEMONSTRATION" in early.partition("\n")[0]
    if marks.UNCHECKED not in early.partition("\n")[0]:
        assert early == text  # the model was faster than the first look at its text
    assert marks.without_marks(early) == marks.without_marks(text)


def test_a_conversation_takes_the_turns_before_into_account(server: WebServer, client: Any) -> None:
    kit = client.models.list().data[0].id
    page, follow = message(), {"role": "user", "content": "Is the rhythm regular?"}
    first = client.chat.completions.create(model=kit, messages=[page])
    answer = first.choices[0].message
    second = client.chat.completions.create(model=kit, messages=[page, answer, follow])
    conversation = subprocess.run(
        [sys.executable, "-m", "pulse_edge", "ask", str(PAGE), "--kit", str(KIT)],
        input=f"{QUESTION}\n{follow['content']}\n",
        env={**server.environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=DEADLINE,
    )
    text = marks.without_marks(second.choices[0].message.content)
    assert text
    assert f"\n{text}\n" in conversation.stdout


def test_a_conversation_that_is_too_long_is_the_requests_fault(client: Any) -> None:
    kit = client.models.list().data[0].id
    long = {"role": "assistant", "content": "Sinus rhythm. " * 4000}
    with pytest.raises(openai.BadRequestError, match="context"):
        client.chat.completions.create(
            model=kit, messages=[message(), long, {"role": "user", "content": "Sure?"}]
        )


def test_json_of_a_schema_for_openais_client(client: Any) -> None:
    kit = client.models.list().data[0].id
    schema = {
        "type": "object",
        "properties": {"normal": {"type": "boolean"}},
        "required": ["normal"],
        "additionalProperties": False,
    }
    completion = client.chat.completions.create(
        model=kit,
        messages=[message()],
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
    )
    jsonschema.validate(json.loads(completion.choices[0].message.content), schema)
    parsed = client.chat.completions.parse(
        model=kit, messages=[message()], response_format=_Short, max_completion_tokens=200
    )
    assert isinstance(parsed.choices[0].message.parsed, _Short)
    long = {"type": "array", "items": {"type": "string", "maxLength": 1000}, "maxItems": 100}
    with pytest.raises(openai.BadRequestError, match="maxItems"):
        client.chat.completions.create(
            model=kit,
            messages=[message()],
            response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": long}},
        )


def test_errors_are_those_of_openais_client(server: WebServer, client: Any, blank: Path) -> None:
    kit = client.models.list().data[0].id
    with pytest.raises(openai.BadRequestError) as hot:
        client.chat.completions.create(model=kit, messages=[message()], temperature=0.7)
    assert (hot.value.param, hot.value.code) == ("temperature", "unsupported_value")
    with pytest.raises(openai.NotFoundError) as other:
        client.chat.completions.create(model="gpt-5", messages=[message()])
    assert other.value.code == "model_not_found"
    for stream in (False, True):
        with pytest.raises(openai.UnprocessableEntityError) as refused:
            client.chat.completions.create(model=kit, messages=[message(blank)], stream=stream)
        assert refused.value.code == "page_refused"
    with pytest.raises(openai.AuthenticationError) as stranger:
        client.with_options(api_key="wrong").models.list()
    assert stranger.value.code == "unauthorized"
    forced = client.chat.completions.create(
        model=kit, messages=[message(blank)], extra_body={"pulse_edge": {"force": True}}
    )
    assert "THE PAGE WAS REFUSED" in forced.choices[0].message.content.partition("\n")[0]


def test_a_body_that_is_too_long_is_an_error_of_the_client(client: Any) -> None:
    kit = client.models.list().data[0].id
    with pytest.raises(openai.APIStatusError) as long:
        client.chat.completions.create(
            model=kit, messages=[{"role": "user", "content": "x" * (65 << 20)}]
        )
    assert (long.value.status_code, long.value.code) == (413, "too_large")


def test_the_examples_of_the_document_run(
    tmp_path: Path,
    server: WebServer,
    blank: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The shell's examples as one script, and Python's one after the other."""
    text = (ROOT / "docs" / "api.md").read_text("utf-8")
    text = text.replace("http://127.0.0.1:8412", server.address)
    token = tmp_path / ".local" / "state" / "pulse-edge" / "web" / "token"
    token.parent.mkdir(parents=True)
    token.write_text(server.token())
    (tmp_path / "scan.png").write_bytes(PAGE.read_bytes())
    (tmp_path / "blank.png").write_bytes(blank.read_bytes())
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    script = "\n".join(re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S))
    done = subprocess.run(
        ["bash", "-euc", script.replace("curl -s", "curl -sS --fail-with-body")],
        capture_output=True, text=True, check=False, timeout=5 * DEADLINE,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for word in (
        '"object":"list"',
        '"verdict": "good"',
        '"lead_scores"',
        '"notice"',
        '"source":"api"',
    ):
        assert word in done.stdout
    names: dict[str, Any] = {}
    outputs = []
    for example in re.findall(r"^```python\n(.*?)^```", text, re.M | re.S):
        exec(example, names)
        outputs.append(capsys.readouterr().out)
    report, fields, conversation, answer, refusal = outputs
    shown = re.findall(r"^```text\n(.*?)^```", text, re.M | re.S)[0].splitlines()
    assert report.splitlines()[: len(shown) - 1] == shown[:-1]
    assert report.splitlines()[len(shown) - 1].startswith(shown[-1].removesuffix(" ..."))
    assert fields.startswith("True ['DEMONSTRATION")
    assert conversation.startswith(f"[{marks.UNCONFIRMED}")
    assert json.loads(answer) in ({"normal": True}, {"normal": False})
    assert refusal.startswith("page_refused ")
