"""`GET /openapi.json`: the API described as OpenAPI 3.1, for programs that make clients of it.

Source: OpenAPI Specification 3.1.1.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pulse_edge.common.text import json_text
from pulse_edge.report.report import INTENDED_USE
from pulse_edge.web import api, api_options, openapi_schemas
from pulse_edge.web.api_options import Option
from pulse_edge.web.openapi_schemas import Schema, ref
from pulse_edge.web.options import ServeOptions
from pulse_edge.web.service import Service

STATUS_TEXTS = {
    400: "The request asks for something that does not exist.",
    401: "The token is missing or wrong.",
    403: "The request comes from another place than it may.",
    404: "There is no such thing.",
    413: "The body is too large.",
    415: "The body has a media type that is not read.",
    422: "The page was refused or cannot be read; the message says why.",
    500: "The program failed on this page.",
    503: "The model could not be loaded.",
}
COMMON = (400, 401, 403, 413, 415, 422, 500)
"""Statuses that a request with a page may get."""
OTHER = "Too many requests, too slow, or another method."
PARAMETERS_TOO = "The commands' options are fields of the query or of the form; each may be given in one of them."


def routes(_service: Service, _options: ServeOptions) -> list[Route]:
    """Return the route of the document."""

    async def openapi(_request: Request) -> Response:
        return Response(_document_text(), media_type="application/json")

    return [Route("/openapi.json", openapi, methods=["GET"])]


@functools.cache
def _document_text() -> str:
    return json_text(document())


def document() -> Schema:
    """Return the OpenAPI document."""
    token = {
        "type": "http",
        "scheme": "bearer",
        "description": "The token that pulse-edge serve writes into the file of this user.",
    }
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "pulse-edge on this machine",
            "version": version("pulse-edge"),
            "description": f"Read ECG pages without a network. {INTENDED_USE}",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "paths": _paths(),
        "components": {
            "securitySchemes": {"token": token},
            "schemas": openapi_schemas.components(),
        },
    }


def _paths() -> Schema:
    page = {
        "interpret": ("Answer questions about a page.", api_options.INTERPRET, _interpreted()),
        "measure": (
            "Measure the trace of a page, without the model.",
            api_options.MEASURE,
            {200: _lines("PageMeasurement")},
        ),
        "check": (
            "Judge whether a page is fit to be read. A refused page is a result here.",
            api_options.CHECK,
            {200: _lines("Admission")},
        ),
    }
    paths: Schema = {
        f"/api/{name}": {"post": _page_operation(name, summary, options, results)}
        for name, (summary, options, results) in page.items()
    }
    paths["/api/readings/{id}"] = {
        "get": _operation(
            "reading",
            "State of a page in the queue or in the history.",
            {200: _json("The reading.", "Reading")},
            (401, 403, 404),
            parameters=[_path_parameter("id")],
        ),
        "delete": _operation(
            "remove",
            "Stop a reading, and remove its page and texts. The audit log stays.",
            {204: {"description": "Removed."}},
            (401, 403, 404),
            parameters=[_path_parameter("id")],
        ),
    }
    return paths | _openai_paths() | _own_path()


def _openai_paths() -> Schema:
    events = "Server-sent events, each a chat.completion.chunk of OpenAI's API, then [DONE]."
    answer = _json("The answer, or with stream true its events.", "ChatCompletion")
    answer["content"]["text/event-stream"] = {"schema": {"type": "string", "description": events}}
    body = {"required": True, "content": {"application/json": {"schema": ref("ChatRequest")}}}
    error = "OpenAIError"
    return {
        "/v1/chat/completions": {
            "post": _operation(
                "chatCompletion",
                "Answer a question about the page of a conversation, as OpenAI's API does.",
                {200: answer},
                (*COMMON, 404, 503),
                error=error,
                requestBody=body,
            )
        },
        "/v1/models": {
            "get": _operation(
                "models",
                "The kit.",
                {200: _json("The kit.", "Models")},
                (401, 403, 503),
                error=error,
            )
        },
        "/v1/models/{id}": {
            "get": _operation(
                "model",
                "The kit, by its id.",
                {200: _json("The kit.", "Model")},
                (401, 403, 404, 503),
                error=error,
                parameters=[_path_parameter("id")],
            )
        },
    }


def _own_path() -> Schema:
    content = {"application/json": {"schema": {"type": "object"}}}
    result = {200: {"description": "OpenAPI 3.1.", "content": content}}
    return {"/openapi.json": {"get": _operation("openapi", "This document.", result, (401, 403))}}


def _page_operation(
    name: str, summary: str, options: Iterable[Option], results: dict[int, Schema]
) -> Schema:
    waits = name == "interpret"
    parameters = [_query_parameter(option) for option in options]
    parameters.append(_query(api.NAME, "Name of the page in a raw body.", {"type": "string"}))
    if waits:
        about = "false: answer 202 with the readings' ids at once; the result comes by their ids."
        parameters.append(_query(api.WAIT, about, {"type": "boolean", "default": True}))
    form: Schema = {
        "type": "object",
        "required": [api.FILE],
        "additionalProperties": False,
        "properties": {api.FILE: {"type": "string", "format": "binary", "minLength": 1}},
    }
    binary = {"schema": {"type": "string", "format": "binary", "minLength": 1}}
    content = {api.MULTIPART: {"schema": form}, **dict.fromkeys((*api.RAW, "image/*"), binary)}
    return _operation(
        name,
        summary,
        results,
        (*COMMON, 503) if waits else COMMON,
        description=PARAMETERS_TOO,
        parameters=parameters,
        requestBody={"required": True, "content": content},
    )


def _interpreted() -> dict[int, Schema]:
    accepted = _json("The pages are in the queue.", "Readings")
    location = {"description": "The first page's reading.", "schema": {"type": "string"}}
    accepted["headers"] = {"Location": location}
    return {200: _lines("Report", "NoAnswer"), 202: accepted}


def _lines(one: str, *others: str) -> Schema:
    """Return a result of one page, or of several as JSON Lines."""
    lines = f"A line for each page of a file with several: {' or '.join((one, *others))}."
    result = _json("As the command prints it.", one)
    result["content"]["application/jsonl"] = {"schema": {"type": "string", "description": lines}}
    return result


def _json(description: str, name: str) -> Schema:
    content = {"application/json": {"schema": ref(name)}}
    return {"description": description, "content": content}


def _operation(
    name: str,
    summary: str,
    results: dict[int, Schema],
    failures: Iterable[int],
    *,
    error: str = "Error",
    **more: Any,
) -> Schema:
    responses = {str(status): result for status, result in results.items()}
    for status in sorted(failures):
        responses[str(status)] = _json(STATUS_TEXTS[status], error)
    responses["default"] = _json(OTHER, error)
    return {"operationId": name, "summary": summary, "responses": responses, **more}


def _query_parameter(option: Option) -> Schema:
    schema = dict(option.schema)
    return _query(
        option.name, option.help, {"type": "array", "items": schema} if option.several else schema
    )


def _query(name: str, description: str, schema: Schema) -> Schema:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _path_parameter(name: str) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
