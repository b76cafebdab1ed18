"""The JSON Schemas of what the API takes and gives, as the components of its OpenAPI document.

Reports come from assets/report.schema.json, which is written from the report's dataclasses. The
others stand here; tests compare them with what the API really gives.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

from pulse_edge.common.paths import ASSETS
from pulse_edge.web import api_options, marks, openai_request
from pulse_edge.web.responses import STATUS

Schema = dict[str, Any]
REPORT_SCHEMA = ASSETS / "report.schema.json"
TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
WHOLE: Schema = {"type": "integer"}
BOOLEAN: Schema = {"type": "boolean"}
NULL: Schema = {"type": "null"}
_PARTS = {
    "answers": "Answer",
    "findings": "Finding",
    "contradictions": "Contradiction",
    "measurements": "Measurement",
    "checks": "Check",
}
"""Field of a report -> name of the schema of its items."""


def ref(name: str) -> Schema:
    """Return the reference to a component."""
    return {"$ref": f"#/components/schemas/{name}"}


def array(items: Schema) -> Schema:
    """Return the schema of a list."""
    return {"type": "array", "items": items}


def or_null(schema: Schema) -> Schema:
    """Return the schema of a value that may be null."""
    return {"anyOf": [schema, NULL]}


def closed(description: str = "", /, **properties: Schema) -> Schema:
    """Return the schema of an object that has all of some fields, and no other."""
    about = {"description": description} if description else {}
    return about | {
        "type": "object",
        "additionalProperties": False,
        "required": list(properties),
        "properties": properties,
    }


def components() -> dict[str, Schema]:
    """Return the components by name."""
    report = _report_parts()
    return {**report, **_page_results(), **_readings(), **_errors(), **_chat(report["Report"])}


def _report_parts() -> dict[str, Schema]:
    """Return the schemas of a report, of its parts, and of a page without one."""
    report, no_answer = copy.deepcopy(json.loads(REPORT_SCHEMA.read_text("utf-8"))["anyOf"])
    properties = report["properties"]
    parts: dict[str, Schema] = {}
    for field, name in _PARTS.items():
        parts[name] = properties[field]["items"]
        properties[field] = array(ref(name))
    parts["Kit"] = properties["kit"]
    properties["kit"] = ref("Kit")
    parts["Check"]["properties"]["used"] = array(ref("Measurement"))
    properties["quality"] = or_null(ref("Admission"))
    return parts | {"Report": report, "NoAnswer": no_answer}


def _page_results() -> dict[str, Schema]:
    """Return what `check --json` and `measure --json` print about a page."""
    return {"Admission": _admission(), "PageMeasurement": _page_measurement()}


def _admission() -> Schema:
    recording = closed(
        first_second=NUMBER,
        last_second=NUMBER,
        seconds=NUMBER,
        mm_per_mv=NUMBER,
        mm_per_second=NUMBER,
        leads={"type": "object", "additionalProperties": NUMBER},
        computed=array(TEXT),
    )
    sheet = closed(
        corners=or_null(array(array(NUMBER))),
        rotation=WHOLE,
        mirrored=BOOLEAN,
        skew_degrees=or_null(NUMBER),
    )
    scale = or_null(NUMBER)
    return closed(
        "Whether a page is fit to be read, as `pulse-edge check --json` prints it.",
        file=TEXT,
        page=WHOLE,
        verdict={"enum": ["good", "usable", "refused"]},
        forced=BOOLEAN,
        reasons=array(closed(check=TEXT, value=NUMBER, unit=TEXT, threshold=NUMBER, advice=TEXT)),
        sheet=sheet,
        grid=closed(pixels_per_mm=scale, across=scale, down=scale),
        layout=or_null(TEXT),
        leads=WHOLE,
        changed=BOOLEAN,
        recording=or_null(recording),
        facts={"type": "object", "additionalProperties": NUMBER},
        seconds=NUMBER,
    )


def _page_measurement() -> Schema:
    limits = closed(
        low=or_null(NUMBER),
        finding_below=TEXT,
        high=or_null(NUMBER),
        finding_above=TEXT,
        source=TEXT,
    )
    measurement = _report_parts()["Measurement"]
    measurement["properties"]["limits"] = array(limits)
    measurement["required"] = list(measurement["properties"])
    return closed(
        "What was measured on the trace, as `pulse-edge measure --json` prints it.",
        file=TEXT,
        layout=or_null(TEXT),
        millimetres_per_second=NUMBER,
        millimetres_per_millivolt=NUMBER,
        speed_certain=BOOLEAN,
        gain_certain=BOOLEAN,
        lead_scores={"type": "object", "additionalProperties": NUMBER},
        reasons=array(TEXT),
        age_years=or_null(NUMBER),
        sex={"enum": ["male", "female", None]},
        measurements=array(measurement),
        beats=array(closed(seconds=NUMBER, kind=TEXT)),
        seconds=NUMBER,
    )


def _readings() -> dict[str, Schema]:
    turn = closed(
        "A further question about a page, and its answer as far as it has come.",
        number=WHOLE,
        question=TEXT,
        text=TEXT,
        complete=BOOLEAN,
        state={"enum": ["waiting", "running", "done", "stopped", "failed"]},
        checks=array(ref("Check")),
        contradictions=array(ref("Contradiction")),
        error=or_null(TEXT),
        fresh=BOOLEAN,
    )
    progress = closed(
        stage=TEXT, done=WHOLE, total=WHOLE, seconds_left=or_null(NUMBER | {"minimum": 0})
    )
    reading = closed(
        "One page in the queue or in the history.",
        id=TEXT,
        name=TEXT,
        created=TEXT | {"format": "date-time"},
        source={"enum": ["local", "phone", "api"]},
        owner=or_null(TEXT),
        state={"enum": ["checking", "refused", "waiting", "reading", "done", "failed", "removed"]},
        place=or_null(WHOLE | {"minimum": 1}),
        progress=or_null(ref("Progress")),
        text=TEXT,
        notices=array(TEXT),
        admission=or_null(ref("Admission")),
        measurements=or_null(ref("PageMeasurement")),
        checks=array(ref("Check")),
        report=or_null(ref("Report")),
        error=or_null(TEXT),
        exit_code=WHOLE,
        turns=array(ref("Turn")),
        confirmation=or_null({"type": "object"}),
        pictures=array(TEXT),
        kept_until=or_null(TEXT),
    )
    return {
        "Turn": turn,
        "Progress": progress,
        "Reading": reading,
        "Readings": closed(readings=array(ref("Reading")) | {"minItems": 1}),
    }


def _errors() -> dict[str, Schema]:
    error = closed(message=TEXT, type={"enum": [*STATUS, "error"]}, exit_code=WHOLE)
    of_openai = closed(
        message=TEXT,
        type={"enum": ["invalid_request_error", "server_error"]},
        param=or_null(TEXT),
        code=or_null(TEXT),
    )
    return {
        "Error": closed("Why a request has no result.", error=error),
        "OpenAIError": closed("The same in OpenAI's form.", error=of_openai),
    }


# --- OpenAI ---------------------------------------------------------------------------------------


def _chat(report: Schema) -> dict[str, Schema]:
    fields = report["properties"]
    about = {name: fields[name] for name in marks.REPORT_FIELDS}
    message = closed(role={"const": "assistant"}, content=TEXT, refusal=NULL)
    choice = closed(
        index={"const": 0},
        message=message,
        logprobs=NULL,
        finish_reason={"enum": ["stop", "length"]},
    )
    counts = closed(
        prompt_tokens=WHOLE,
        completion_tokens=WHOLE,
        total_tokens=WHOLE,
        prompt_tokens_details=closed(image_tokens=WHOLE),
    )
    model = closed(id=TEXT, object={"const": "model"}, created=WHOLE, owned_by=TEXT)
    return {
        "Marks": closed(
            "What must be read with the answer.",
            reading=TEXT | {"description": "Id of the reading: GET /api/readings/{id}."},
            unconfirmed=BOOLEAN,
            overread=TEXT,
            notices=array(TEXT),
            **about,
        ),
        "ChatRequest": _chat_request(),
        "ChatCompletion": closed(
            id=TEXT,
            object={"const": "chat.completion"},
            created=WHOLE,
            model=TEXT,
            choices=array(choice) | {"minItems": 1, "maxItems": 1},
            usage=counts,
            pulse_edge=ref("Marks"),
        ),
        "Model": model,
        "Models": closed(object={"const": "list"}, data=array(ref("Model"))),
    }


def _chat_request() -> Schema:
    only = {name: {"enum": [*values, None]} for name, values in openai_request.ONLY.items()}
    kinds = {int: "integer", str: "string", dict: "object", bool: "boolean"}
    free = {
        name: {"type": [*(kinds[kind] for kind in types), "null"]}
        for name, types in openai_request.FREE.items()
    }
    limit = _option(api_options.MAX_TOKENS.schema)
    options = {name: _option(o.schema) for name, o in openai_request.EXTENSION.items()}
    properties = {
        "model": TEXT | {"description": "Id of the kit, as GET /v1/models gives it."},
        "messages": {"type": "array", "minItems": 1, "items": _message()},
        "stream": or_null(BOOLEAN),
        "stream_options": or_null(_open(include_usage=or_null(BOOLEAN))),
        "max_tokens": limit,
        "max_completion_tokens": limit,
        "response_format": or_null(_response_format()),
        "pulse_edge": or_null(_open(stream_unchecked=or_null(BOOLEAN), **options)),
        **only,
        **free,
    }
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["model", "messages"],
        "properties": properties,
    }


def _option(schema: Mapping[str, Any]) -> Schema:
    return or_null(dict(schema))


def _open(**properties: Schema) -> Schema:
    """Return the schema of an object whose fields may be absent."""
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _response_format() -> Schema:
    schema = _open(name=TEXT, schema={"type": "object"}, strict=or_null(BOOLEAN), description=TEXT)
    return {
        "anyOf": [
            closed(type={"const": "text"}),
            closed(type={"const": "json_schema"}, json_schema=schema | {"required": ["schema"]}),
        ]
    }


def _message() -> Schema:
    url = TEXT | {"pattern": "^data:", "description": "A data URL; there is no network here."}
    image = _open(url=url, detail={"enum": ["auto", "high", None]}) | {"required": ["url"]}
    file = _open(file_data=url, filename=or_null(TEXT)) | {"required": ["file_data"]}
    part = {
        "anyOf": [
            closed(type={"const": "text"}, text=TEXT),
            closed(type={"const": "image_url"}, image_url=image),
            closed(type={"const": "file"}, file=file),
        ]
    }
    empty: Schema = {"enum": [None, [], ""]}
    names = ("name", "refusal", "annotations", "audio", "tool_calls", "function_call")
    roles = {"enum": ["user", "assistant", "system", "developer"]}
    content = {"anyOf": [TEXT, array(part)]}
    message = _open(role=roles, content=content, **dict.fromkeys(names, empty))
    return message | {"required": ["role", "content"]}
