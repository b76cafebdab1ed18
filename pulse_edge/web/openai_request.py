"""The body of `POST /v1/chat/completions`, checked: one page, its question, and the turns before.

In: JSON as OpenAI's clients send it. Out: `Chat`. The model decodes greedily, with a fixed prompt,
one page a conversation; a parameter that asks for anything else is refused, because an answer that
ignores it would look as if it had been honoured. Source: OpenAI's API reference, "Create chat
completion".
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from pulse_edge.common.text import one_line
from pulse_edge.errors import UsageError
from pulse_edge.kit import prompt
from pulse_edge.web import api_options, client_schema, marks
from pulse_edge.web.api_errors import RequestError, usage

ONLY: dict[str, tuple[Any, ...]] = {
    "temperature": (0,),
    "top_p": (1,),
    "n": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "stop": ([],),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "reasoning_effort": ("none",),
    "verbosity": (),
    "store": (False,),
    "service_tier": ("auto", "default"),
}
"""Parameter that would change the answer -> its values that do not. null is one of them always."""
FREE: dict[str, tuple[type, ...]] = {
    "seed": (int,),
    "user": (str,),
    "metadata": (dict,),
    "safety_identifier": (str,),
    "prompt_cache_key": (str,),
    "parallel_tool_calls": (bool,),
}
"""Parameter without an effect on a greedy answer -> types of its values. They are not stored."""
READ = (
    "model",
    "messages",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "response_format",
    "pulse_edge",
)
"""Parameters that are honoured."""
EXTENSION = {
    option.key.removesuffix("_years"): option
    for option in (
        api_options.FINDINGS,
        api_options.NO_RECTIFY,
        api_options.FORCE,
        api_options.IMAGE_TOKENS_READ,
        api_options.NO_MEASURE,
        api_options.AGE,
        api_options.SEX,
    )
}
"""Fields of `pulse_edge` that are options of `interpret`, under the commands' names with `_`."""
_DATA_URL = re.compile(
    r"data:([\w.+-]{1,99}/[\w.+-]{1,99})?((?:;[\w.+-]{1,99}=[^;,]{0,99}){0,9});base64,", re.ASCII
)
_ENDINGS = {
    "application/dicom": "dcm",
    "application/pdf": "pdf",
    "image/jpeg": "jpg",
    "image/tiff": "tif",
}
_EMPTY: tuple[Any, ...] = (None, [], "")
Json: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Chat:
    """A checked request."""

    upload: bytes
    """The page's file."""
    name: str
    """Its name."""
    options: Json
    """What `Service.submit` takes, with `history`."""
    stream: bool
    include_usage: bool
    """Whether a stream ends with a chunk of token counts."""
    unchecked: bool
    """Whether a stream's text comes before its checks."""


@dataclass(frozen=True)
class _Message:
    """A message without its page."""

    role: str
    text: str
    pages: tuple[tuple[bytes, str], ...]
    """Files of its image parts, each with its name."""
    where: str
    """Its name in error messages."""


def parse(body: Any, kit: str) -> Chat:
    """Return the checked request. Raises RequestError, which names the parameter."""
    if not isinstance(body, dict):
        raise usage("The body is no JSON object. Send one with model and messages.")
    _check_names(body)
    _check_model(body.get("model"), kit)
    page, question, history = _conversation(body.get("messages"))
    options: Json = {"questions": [question]}
    if history:
        # As with `ask`, findings are judged with the first question only, unless asked for.
        options |= {"history": history, "findings": False}
    if (limit := _limit(body)) is not None:
        options["max_tokens"] = limit
    if (schema := _schema(body.get("response_format"))) is not None:
        options["json_schema"] = schema
    extension = _extension(body.get("pulse_edge"))
    unchecked = bool(extension.pop("stream_unchecked", False))
    stream_options = _object(body.get("stream_options"), "stream_options", ("include_usage",))
    return Chat(
        upload=page[0],
        name=page[1],
        options=options | extension,
        stream=_boolean(body, "stream"),
        include_usage=_boolean(stream_options, "include_usage", "stream_options."),
        unchecked=unchecked,
    )


def _check_names(body: Json) -> None:
    """Raise RequestError for a parameter that is unknown, or whose value asks for more."""
    for name, value in body.items():
        if name in READ or (value is None and name in {*ONLY, *FREE}):
            continue
        if name in FREE:
            if not isinstance(value, FREE[name]) or (
                isinstance(value, bool) and bool not in FREE[name]
            ):
                raise usage(f"{name}: has a value of the wrong type.", name, "invalid_type")
        elif name not in ONLY:
            shown = one_line(name)[:80]
            message = f"{shown}: no such parameter. It would have no effect. Leave it out."
            raise usage(message, shown, "unknown_parameter")
        elif not _among(value, ONLY[name]):
            accepted = " or ".join(map(repr, (*ONLY[name], None))).replace("None", "null")
            raise usage(
                f"{name}: the model decodes greedily, one answer in its own words, so only "
                f"{accepted.replace('False', 'false')} is possible. Leave {name} out.",
                name,
                "unsupported_value",
            )


def _among(value: Any, accepted: Sequence[Any]) -> bool:
    """Whether JSON has the value among some others; true is not 1, nor false 0."""
    return any(value == a and isinstance(value, bool) == isinstance(a, bool) for a in accepted)


def _check_model(model: Any, kit: str) -> None:
    if not isinstance(model, str):
        raise usage(f"model: is missing. Send {kit!r}.", "model", "missing_required_parameter")
    if model != kit:
        message = f"model {one_line(model)[:80]}: is not loaded. The kit here is {kit!r}."
        raise RequestError("not_found", message, 2, "model", "model_not_found")


def _boolean(body: Json, name: str, inside: str = "") -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise usage(f"{inside}{name}: expected true or false.", inside + name, "invalid_type")
    return bool(value)


def _object(value: Any, name: str, fields: Sequence[str]) -> Json:
    """Return an object that has no other fields than some; empty for null."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise usage(f"{name}: expected an object.", name, "invalid_type")
    if unknown := [one_line(str(field))[:80] for field in value if field not in fields]:
        raise usage(
            f"{name}.{unknown[0]}: no such field. Known are {', '.join(fields)}.",
            f"{name}.{unknown[0]}",
            "unknown_parameter",
        )
    return value


def _limit(body: Json) -> int | None:
    """Return the longest answer in tokens; both names mean the same here."""
    limits = {}
    for name in ("max_completion_tokens", "max_tokens"):
        value = body.get(name)
        if value is None:
            continue
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise usage(f"{name}: expected a whole number.", name, "invalid_type")
        limits[name] = _option(api_options.MAX_TOKENS, value, name)
    if len(set(limits.values())) > 1:
        raise usage("max_tokens and max_completion_tokens differ. Send one.", "max_tokens")
    return next(iter(limits.values()), None)


def _schema(response_format: Any) -> Any:
    """Return the JSON Schema that the answer satisfies; None for free text."""
    name = "response_format"
    fields = _object(response_format, name, ("type", "json_schema"))
    kind = fields.get("type", "text") if response_format is None else fields.get("type")
    if kind == "text" and fields.get("json_schema") is None:
        return None
    if kind != "json_schema":
        raise usage(
            "response_format: expected text, or json_schema with a schema; without one the model "
            "has no grammar to follow.",
            name,
            "unsupported_value",
        )
    inner = f"{name}.json_schema"
    schema = _object(
        fields.get("json_schema"), inner, ("name", "schema", "strict", "description")
    ).get("schema")
    if schema is None:
        raise usage(f"{inner}.schema: is missing.", inner, "missing_required_parameter")
    try:
        return api_options.checked(api_options.JSON_SCHEMA, client_schema.plain(schema))
    except UsageError as e:
        raise usage(f"{inner}.schema: {e}", f"{inner}.schema", "invalid_json_schema") from None


def _extension(value: Any) -> Json:
    """Return the options of the field `pulse_edge`."""
    given = _object(value, "pulse_edge", (*EXTENSION, "stream_unchecked"))
    options: Json = {}
    for name, setting in given.items():
        if setting is None:
            continue
        where = f"pulse_edge.{name}"
        option = EXTENSION.get(name)
        kind = "flag" if option is None else option.kind
        types: tuple[type, ...] = {"years": (int, float), "text": (str,)}.get(kind, (bool,))
        if not isinstance(setting, types) or isinstance(setting, bool) != (bool in types):
            raise usage(f"{where}: has a value of the wrong type.", where, "invalid_type")
        if option is None:
            options[name] = setting
        else:
            options[option.key] = _option(option, setting, where)
    return options


def _option(option: api_options.Option, value: Any, where: str) -> Any:
    try:
        return api_options.checked(option, value)
    except UsageError as e:
        raise usage(f"{where}: {e}", where, "invalid_value") from None


# --- messages -------------------------------------------------------------------------------------


def _conversation(messages: Any) -> tuple[tuple[bytes, str], str, list[list[str]]]:
    """Return the page, the last question, and the turns before it as (question, answer)."""
    if not isinstance(messages, list) or not messages:
        raise usage(
            "messages: is missing. Send a user message with the page and a question.", "messages"
        )
    parsed = [
        message
        for number, one in enumerate(messages)
        if (message := _message(one, f"messages[{number}]")) is not None
    ]
    for number, message in enumerate(parsed):
        expected = "assistant" if number % 2 else "user"
        if message.role != expected:
            raise usage(
                f"{message.where}: expected a message of the {expected}. Turns alternate, and the "
                "first and last are the user's.",
                "messages",
            )
    if len(parsed) % 2 == 0:
        raise usage("messages: the last one must be a question of the user.", "messages")
    page = _only_page(parsed)
    first, *others = parsed
    if not first.text.strip():
        first = _Message(first.role, prompt.REPORT_QUESTION, first.pages, first.where)
    turns = [_checked(message) for message in (first, *others)]
    history = [list(pair) for pair in zip(turns[:-1:2], turns[1::2], strict=True)]
    return page, turns[-1], history


def _only_page(messages: Sequence[_Message]) -> tuple[bytes, str]:
    """Return the page of the first message. Raises RequestError if there is another one."""
    pages = messages[0].pages
    if not pages:
        raise usage(
            f"{messages[0].where}: has no page. Add an image_url part with a data URL.", "messages"
        )
    for message in messages:
        if any(data != pages[0][0] for data, _name in message.pages) or (
            len(message.pages) > 1 and message is messages[0]
        ):
            raise usage(
                f"{message.where}: holds another page. A conversation is about one page; begin a "
                "new one.",
                "messages",
            )
    return pages[0]


def _checked(message: _Message) -> str:
    """Return a message's text as the model gets it."""
    text = message.text
    try:
        if message.role == "user":
            return prompt.fill("{question}", text)
        text = marks.without_marks(text)
        text.encode()
    except UsageError as e:
        raise usage(f"{message.where}: {e}", "messages") from None
    except UnicodeEncodeError:
        raise usage(f"{message.where}: is not valid Unicode.", "messages") from None
    if not text.strip():
        raise usage(f"{message.where}: is empty. Leave this turn out.", "messages")
    return text


def _message(value: Any, where: str) -> _Message | None:
    """Return a message; None for an empty one of the system."""
    names = ("role", "content", "name", "refusal", "annotations", "audio", "tool_calls")
    fields = _object(value, where, (*names, "function_call"))
    for name in fields.keys() - {"role", "content"}:
        if not _among(fields[name], _EMPTY):
            raise usage(f"{where}.{name}: is not possible here. Leave it out.", "messages")
    role = fields.get("role")
    if role not in ("user", "assistant", "system", "developer"):
        raise usage(f"{where}.role: expected user or assistant.", "messages")
    texts, pages = _parts(fields.get("content"), f"{where}.content")
    text = "\n".join(texts)
    if role in ("system", "developer"):
        if text.strip() or pages:
            raise usage(
                f"{where}: the kit's prompt is fixed and takes no instructions of the system. Put "
                "them into the question.",
                "messages",
                "unsupported_value",
            )
        return None
    if role == "assistant" and pages:
        raise usage(f"{where}: pages come from the user.", "messages")
    return _Message(role, text, tuple(pages), where)


def _parts(content: Any, where: str) -> tuple[list[str], list[tuple[bytes, str]]]:
    """Return the texts and the files of a message's content."""
    if isinstance(content, str):
        return [content], []
    if not isinstance(content, list):
        raise usage(f"{where}: expected a text or a list of parts.", "messages")
    texts: list[str] = []
    pages: list[tuple[bytes, str]] = []
    for number, part in enumerate(content):
        inside = f"{where}[{number}]"
        fields = _object(part, inside, ("type", "text", "image_url", "file"))
        kind = fields.get("type")
        if kind == "text" and isinstance(fields.get("text"), str):
            texts.append(fields["text"])
        elif kind == "image_url":
            pages.append(_image(fields.get("image_url"), f"{inside}.image_url"))
        elif kind == "file":
            pages.append(_file(fields.get("file"), f"{inside}.file"))
        else:
            raise usage(
                f"{inside}: expected a part of the type text, image_url or file.", "messages"
            )
    return texts, pages


def _image(value: Any, where: str) -> tuple[bytes, str]:
    fields: Mapping[str, Any] = _object(value, where, ("url", "detail"))
    if fields.get("detail") not in (None, "auto", "high"):
        raise usage(f"{where}.detail: a page is read in full: auto or high.", "messages")
    return _data(fields.get("url"), f"{where}.url")


def _file(value: Any, where: str) -> tuple[bytes, str]:
    fields = _object(value, where, ("file_data", "filename"))
    data, name = _data(fields.get("file_data"), f"{where}.file_data")
    given = fields.get("filename")
    if given is not None and not isinstance(given, str):
        raise usage(f"{where}.filename: expected a text.", "messages", "invalid_type")
    return data, given or name


def _data(url: Any, where: str) -> tuple[bytes, str]:
    """Return the bytes of a data URL, and a name by its media type."""
    match = _DATA_URL.match(url) if isinstance(url, str) else None
    if match is None:
        raise usage(
            f"{where}: expected data:image/png;base64,... There is no network here, so pages come "
            "as data URLs only.",
            "messages",
            "invalid_image_url",
        )
    try:
        data = base64.b64decode(url[match.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise usage(f"{where}: is no valid base64.", "messages", "invalid_base64") from None
    if not data:
        raise usage(f"{where}: is empty.", "messages", "invalid_image_url")
    media = (match[1] or "").lower()
    ending = _ENDINGS.get(media, media.partition("/")[2] if media.startswith("image/") else "")
    return data, f"page.{ending}" if ending.isalnum() else "page"
