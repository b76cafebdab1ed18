"""The OpenAPI document is valid, true for what the API gives, and kept by the API whatever comes."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from api_clients import client, guarded
from chat_requests import body
from checkout import ROOT
from fake_service import FakeService
from hypothesis import HealthCheck, settings

from pulse_edge.web import openapi, openapi_schemas
from pulse_edge.web.readings import Progress, Reading, Turn

schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis")
checks = pytest.importorskip("schemathesis.specs.openapi.checks", reason="needs schemathesis")
schemathesis.serializer.alias(["application/pdf", "application/dicom"], "application/octet-stream")
FOLDER = tempfile.TemporaryDirectory()
APP, PROGRAM = guarded(FakeService(), Path(FOLDER.name))
API = schemathesis.openapi.from_asgi("/openapi.json", APP, headers=PROGRAM)


def validator(name: str) -> Any:
    """Return what checks a value against a component."""
    components = {"components": openapi.document()["components"]}
    schema = {"$ref": f"#/components/schemas/{name}"} | components
    return jsonschema.Draft202012Validator(schema)


def expressible(case: Any) -> bool:
    """Whether OpenAPI can say exactly what is accepted: neither that turns alternate, nor what a
    grammar can express."""
    return case.path != "/v1/chat/completions" and "json-schema" not in (case.query or {})


@API.parametrize()
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[*HealthCheck])
def test_the_api_keeps_what_its_document_says(case: Any) -> None:
    excluded = [] if expressible(case) else [checks.positive_data_acceptance]
    case.call_and_validate(headers=PROGRAM, excluded_checks=excluded)


def test_the_document_is_openapi() -> None:
    validation = pytest.importorskip("openapi_spec_validator", reason="needs its validator")
    validation.validate(openapi.document())
    assert client(FakeService()).get("/openapi.json").json() == openapi.document()


def test_the_reports_schema_is_the_one_of_the_documents() -> None:
    docs = ROOT / "docs" / "report.schema.json"
    assert openapi_schemas.REPORT_SCHEMA.read_text("utf-8") == docs.read_text("utf-8")


@pytest.mark.parametrize(
    ("name", "kind"), [("Reading", Reading), ("Turn", Turn), ("Progress", Progress)]
)
def test_schemas_have_the_fields_of_the_program(name: str, kind: Any) -> None:
    schema = openapi.document()["components"]["schemas"][name]
    fields = {field.name for field in dataclasses.fields(kind)}
    assert {*schema["properties"]} - ({"checks"} if name == "Reading" else set()) == fields


def test_a_chat_completion_has_its_schema() -> None:
    completion = client(FakeService()).post("/v1/chat/completions", json=body()).json()
    validator("ChatCompletion").validate(completion)
    with pytest.raises(jsonschema.ValidationError):
        validator("ChatCompletion").validate(completion | {"pulse_edge": {}})


def test_every_operation_has_an_id_of_its_own() -> None:
    operations = [
        operation["operationId"]
        for path in openapi.document()["paths"].values()
        for operation in path.values()
    ]
    assert len(operations) == len({*operations}) == 9
    assert json.dumps(openapi.document())
