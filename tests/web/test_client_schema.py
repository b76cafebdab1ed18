"""Schemas as OpenAI's client makes them of a person's classes."""

from __future__ import annotations

from enum import Enum
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from pulse_edge.errors import UsageError
from pulse_edge.inference import json_grammar
from pulse_edge.web.client_schema import plain


class _Axis(Enum):
    NORMAL = "normal axis"
    LEFT = "left axis deviation"


class _Lead(BaseModel):
    name: Literal["I", "II"]
    elevated: bool


class _Page(BaseModel):
    """An ECG page in short."""

    rate: int | None
    axis: _Axis
    leads: list[_Lead]
    kind: Literal["page"] = "page"


def test_nested_classes_become_a_schema_that_a_grammar_can_express() -> None:
    schema = plain(_Page.model_json_schema())
    lead = schema["properties"]["leads"]["items"]["properties"]
    assert lead["name"]["enum"] == ["I", "II"]
    assert "type" not in lead["name"]
    assert schema["properties"]["axis"]["enum"] == ["normal axis", "left axis deviation"]
    shortest = json_grammar.compiled(schema).shortest
    assert _Page.model_validate_json(shortest)


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/$defs/a"},
        {"$ref": "https://example.org/a"},
        {"$ref": "#/$defs/a", "type": "string", "$defs": {"a": {"type": "string"}}},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}},
        {"$ref": "#/$defs/a", "$defs": []},
        {
            "$ref": "#/$defs/n0",
            "$defs": {
                f"n{n}": {"anyOf": [{"$ref": f"#/$defs/n{n + 1}"}, {"$ref": f"#/$defs/n{n + 1}"}]}
                for n in range(40)
            }
            | {"n40": {"type": "null"}},
        },
    ],
    ids=["nowhere", "elsewhere", "not alone", "circle", "no definitions", "doubling"],
)  # fmt: skip
def test_references_that_have_no_end(schema: Any) -> None:
    with pytest.raises(UsageError, match="json-schema"):
        plain(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"enum": ["a", 1], "type": "string"},
        {"enum": [True], "type": "integer"},
        {"const": "a", "type": ["string", "null"]},
        {"type": "string", "format": "date"},
        [],
        None,
    ],
)
def test_what_would_change_the_meaning_stays(schema: Any) -> None:
    assert plain(schema) == schema
