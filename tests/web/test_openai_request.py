"""What a chat completion may ask for, and what is refused because it would not be honoured."""

from __future__ import annotations

from typing import Any

import pytest
from chat_requests import assistant, body, data_url, user
from fake_service import KIT, report_json

from pulse_edge.kit import prompt
from pulse_edge.web import marks
from pulse_edge.web.api_errors import RequestError
from pulse_edge.web.openai_request import Chat, parse


def refused(request: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        parse(request, KIT)
    return caught.value


def test_a_question_about_a_page() -> None:
    assert parse(body(), KIT) == Chat(
        upload=b"a page",
        name="page.png",
        options={"questions": ["What is the rhythm?"]},
        stream=False,
        include_usage=False,
        unchecked=False,
    )


def test_a_page_alone_asks_for_a_clinical_report() -> None:
    assert parse(body(user("")), KIT).options["questions"] == [prompt.REPORT_QUESTION]


def test_earlier_turns_are_the_history_and_lose_their_marks() -> None:
    answer = marks.before_text(report_json()) + "Sinus rhythm.\n\nNormal axis."
    chat = parse(body(user("First?"), assistant(answer), user("And the axis?", page=None)), KIT)
    assert chat.options["questions"] == ["And the axis?"]
    assert chat.options["history"] == [["First?", "Sinus rhythm.\n\nNormal axis."]]
    assert chat.options["findings"] is False


def test_the_same_page_may_come_with_each_turn_and_another_may_not() -> None:
    same = body(user("First?"), assistant("Yes."), user("Sure?"))
    assert parse(same, KIT).upload == b"a page"
    other = body(user("First?"), assistant("Yes."), user("Sure?", page=b"other"))
    assert "another page" in refused(other).message
    two = user()
    two["content"].append({"type": "image_url", "image_url": {"url": data_url(b"a page")}})
    assert "another page" in refused(body(two)).message


@pytest.mark.parametrize(
    ("media", "name"),
    [
        ("image/jpeg", "page.jpg"),
        ("application/pdf", "page.pdf"),
        ("image/x-odd", "page"),
        ("", "page"),
    ],
)
def test_the_name_of_a_page_follows_its_media_type(media: str, name: str) -> None:
    message = user(page=None)
    message["content"].append(
        {"type": "image_url", "image_url": {"url": data_url(b"x", media), "detail": "high"}}
    )
    assert parse(body(message), KIT).name == name


def test_a_file_part_has_a_name() -> None:
    file = {"file_data": data_url(b"%PDF", "application/pdf"), "filename": "ecg.pdf"}
    message = {"role": "user", "content": [{"type": "file", "file": file}]}
    chat = parse(body(message), KIT)
    assert (chat.upload, chat.name) == (b"%PDF", "ecg.pdf")


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/page.png",
        "file:///etc/passwd",
        "data:image/png,abc",
        "data:image/png;base64,",
        "data:image/png;base64,ab*d",
        "data:image/png;base64,abc",
        None,
        7,
    ],
)
def test_pages_come_as_data_urls_only(url: Any) -> None:
    message = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}
    error = refused(body(message))
    assert (error.status, error.parameter) == (400, "messages")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 0),
        ("temperature", 0.0),
        ("temperature", None),
        ("top_p", 1),
        ("n", 1),
        ("presence_penalty", 0),
        ("logit_bias", {}),
        ("logprobs", False),
        ("stop", []),
        ("tools", []),
        ("tool_choice", "auto"),
        ("modalities", ["text"]),
        ("store", False),
        ("seed", 7),
        ("user", "ward 3"),
        ("metadata", {"a": "b"}),
        ("parallel_tool_calls", True),
        ("response_format", {"type": "text"}),
        ("stream_options", None),
        ("max_tokens", None),
    ],
)
def test_values_without_an_effect_are_accepted(name: str, value: Any) -> None:
    assert parse(body(**{name: value}), KIT) == parse(body(), KIT)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 0.7),
        ("temperature", 1),
        ("temperature", False),
        ("temperature", "0"),
        ("temperature", float("nan")),
        ("top_p", 0.9),
        ("n", 2),
        ("n", True),
        ("presence_penalty", 0.5),
        ("frequency_penalty", -1),
        ("logit_bias", {"50256": -100}),
        ("logprobs", True),
        ("logprobs", 0),
        ("top_logprobs", 5),
        ("stop", "\n"),
        ("stop", ["END"]),
        ("tools", [{"type": "function", "function": {"name": "f"}}]),
        ("tool_choice", "required"),
        ("functions", [{"name": "f"}]),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "alloy"}),
        ("prediction", {"type": "content", "content": "x"}),
        ("web_search_options", {}),
        ("reasoning_effort", "high"),
        ("verbosity", "low"),
        ("store", True),
        ("service_tier", "flex"),
        ("seed", "seven"),
        ("seed", True),
        ("user", 7),
        ("top_k", 40),
        ("cache_prompt", None),
        ("stream", "yes"),
        ("stream_options", []),
        ("stream_options", {"include_obfuscation": True}),
        ("max_tokens", 0),
        ("max_tokens", 1.5),
        ("max_tokens", float("inf")),
        ("max_tokens", float("nan")),
        ("max_tokens", True),
        ("max_completion_tokens", "many"),
        ("response_format", {"type": "json_object"}),
        ("response_format", {}),
        ("response_format", {"type": "json_schema"}),
        ("response_format", {"type": "json_schema", "json_schema": {"name": "x"}}),
        ("response_format", {"type": "json_schema", "json_schema": {"schema": {"type": "date"}}}),
        ("pulse_edge", {"forced": True}),
        ("pulse_edge", {"force": 1}),
        ("pulse_edge", {"age": -1}),
        ("pulse_edge", {"age": 10**400}),
        ("pulse_edge", {"age": float("nan")}),
        ("pulse_edge", {"age": True}),
        ("pulse_edge", {"sex": "other"}),
        ("pulse_edge", {"image_tokens": "12"}),
        ("pulse_edge", []),
    ],
)  # fmt: skip
def test_what_would_change_the_answer_is_refused_by_name(name: str, value: Any) -> None:
    error = refused(body(**{name: value}))
    assert error.status == 400
    assert (error.parameter or "").split(".")[0] == name
    assert name in error.message
    assert error.to_openai_json()["error"]["type"] == "invalid_request_error"


def test_both_names_of_the_longest_answer_mean_the_same() -> None:
    assert parse(body(max_tokens=9), KIT).options["max_tokens"] == 9
    assert parse(body(max_completion_tokens=9, max_tokens=9), KIT).options["max_tokens"] == 9
    assert "differ" in refused(body(max_completion_tokens=9, max_tokens=8)).message


def test_a_schema_becomes_the_option_of_the_command() -> None:
    schema = {"type": "object", "properties": {"normal": {"type": "boolean"}}}
    answer_format = {
        "type": "json_schema",
        "json_schema": {"name": "x", "schema": schema, "strict": True},
    }
    assert parse(body(response_format=answer_format), KIT).options["json_schema"] == schema


def test_extension_names_the_commands_options() -> None:
    extension = {
        "force": True,
        "stream_unchecked": True,
        "findings": False,
        "age": 54,
        "sex": "female",
        "image_tokens": "no-padding",
        "no_measure": False,
        "no_rectify": None,
    }
    chat = parse(body(pulse_edge=extension, stream=True), KIT)
    assert chat.options == {
        "questions": ["What is the rhythm?"],
        "force": True,
        "findings": False,
        "age_years": 54,
        "sex": "female",
        "image_tokens": "no-padding",
        "no_measure": False,
    }
    assert (chat.stream, chat.unchecked) == (True, True)


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [assistant("Hello.")],
        [user(), user()],
        [user(), assistant("Yes.")],
        [user(), assistant(""), user("More?", page=None)],
        [user(), assistant("Yes."), user(" ", page=None)],
        [user(page=None)],
        [user(page=None), assistant("Yes."), user()],
        [user("What is <image>?")],
        [user("\ud800")],
        [{"role": "system", "content": "Be brief."}, user()],
        [{"role": "tool", "content": "4"}, user()],
        [user() | {"name": "dr"}],
        [user() | {"mood": "good"}],
        [{"role": "user", "content": 7}],
        [{"role": "user", "content": [{"type": "input_audio"}]}],
        [{"role": "user", "content": ["text"]}],
        [{"role": "assistant", "content": user()["content"]}],
        ["Hello."],
    ],
)
def test_messages_that_are_no_conversation_about_a_page(messages: list[Any]) -> None:
    error = refused({"model": KIT, "messages": messages})
    assert error.status == 400
    assert error.message


def test_an_empty_system_message_is_as_good_as_none() -> None:
    assert parse(body({"role": "system", "content": ""}, user()), KIT) == parse(body(), KIT)


def test_an_answer_comes_back_as_the_client_stores_it() -> None:
    stored = {"role": "assistant", "content": "Yes.", "refusal": None, "tool_calls": None}
    chat = parse(body(user(), stored | {"annotations": []}, user("Sure?", page=None)), KIT)
    assert chat.options["history"] == [["What is the rhythm?", "Yes."]]


def test_another_model_is_not_there() -> None:
    error = refused(body() | {"model": "gpt-5"})
    assert (error.status, error.code, error.parameter) == (404, "model_not_found", "model")
    assert KIT in error.message


@pytest.mark.parametrize("request_body", [None, [], "text", {"messages": []}])
def test_a_body_of_another_kind(request_body: Any) -> None:
    assert refused(request_body).status == 400
