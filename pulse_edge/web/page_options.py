"""The server's request, narrowed to one page: what is logged, and what the workers get.

In: `Request`, `PageRequest`. Out: JSON objects. Imports no engine.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pulse_edge.errors import UsageError
from pulse_edge.inference import json_grammar
from pulse_edge.inference.json_grammar import Grammar
from pulse_edge.inference.request import (
    AnswerOptions,
    MeasurementOptions,
    ModelOptions,
    PageOptions,
    Request,
)
from pulse_edge.web.readings import PageRequest


def for_page(request: Request, page: PageRequest, *, force: bool) -> Request:
    """Return the request for a page: what its upload asked for comes before the server's options.

    `force`: answer about it though it was refused.
    """
    answer, measured = request.answer, request.measurement
    return dataclasses.replace(
        request,
        page=dataclasses.replace(
            request.page,
            rectify=request.page.rectify and not page.no_rectify,
            force=force or page.force or request.page.force,
            image_tokens=page.image_tokens or request.page.image_tokens,
        ),
        answer=dataclasses.replace(
            answer,
            questions=page.questions or answer.questions,
            findings=answer.findings if page.findings is None else page.findings,
            max_tokens=page.max_tokens or answer.max_tokens,
            grammar=None if page.json_schema is None else grammar_of(page.json_schema),
        ),
        measurement=dataclasses.replace(
            measured,
            enabled=measured.enabled and not page.no_measure,
            age_years=measured.age_years if page.age_years is None else page.age_years,
            sex=page.sex or measured.sex,
        ),
    )


def grammar_of(schema: Any) -> Grammar:
    """Return the grammar of a JSON Schema; its SHA-256 is of the schema as this program writes it.

    Raises UsageError for a schema that a grammar cannot express.
    """
    try:
        grammar = json_grammar.compiled(schema)
    except (ValueError, RecursionError) as e:
        raise UsageError(f"json-schema: {e}. See docs/api.md for what a schema may hold.") from None
    text = json.dumps(schema, sort_keys=True, separators=(",", ":"))
    return dataclasses.replace(grammar, source_sha256=hashlib.sha256(text.encode()).hexdigest())


def to_json(request: Request) -> dict[str, Any]:
    """Return the options that the model worker needs."""
    answer = dataclasses.asdict(request.answer)
    model = dataclasses.asdict(request.model)
    kit = request.model.kit
    return {
        "model": model | {"kit": None if kit is None else str(kit)},
        "page": dataclasses.asdict(request.page),
        "answer": answer,
        "measurement": dataclasses.asdict(request.measurement),
    }


def from_json(options: Mapping[str, Any]) -> Request:
    """Return the request of `to_json`."""
    model, answer = options["model"], options["answer"]
    kit = None if model["kit"] is None else Path(model["kit"])
    return Request(
        model=ModelOptions(**model | {"kit": kit}),
        page=PageOptions(**options["page"]),
        answer=AnswerOptions(
            **answer
            | {
                "questions": tuple(answer["questions"]),
                "grammar": answer["grammar"] and Grammar(**answer["grammar"]),
            }
        ),
        measurement=MeasurementOptions(**options["measurement"]),
    )
