"""The options of a run: checked when they are made, and logged without texts and names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pulse_edge.errors import UsageError
from pulse_edge.inference.json_grammar import Grammar
from pulse_edge.inference.request import (
    AnswerOptions,
    ModelOptions,
    OutputOptions,
    PageOptions,
    Request,
)
from pulse_edge.report.fhir import Patient


def test_settings_hold_no_texts_names_and_paths() -> None:
    request = Request(
        ModelOptions(kit=Path("/kits/Erika")),
        PageOptions(image_tokens="no-padding"),
        AnswerOptions(questions=("Is Erika well?",), grammar=Grammar("Erika", "", 1, "", "", "ab")),
        OutputOptions(("fhir",), Path("/out/Erika"), patient=Patient("Erika")),
    )
    settings = request.settings()
    assert "Erika" not in json.dumps(settings)
    assert settings == {
        "model": {"device": "auto", "threads": None, "force_kit": False},
        "page": {"rectify": True, "force": False, "image_tokens": "no-padding"},
        "measurement": {"enabled": True, "age_given": False, "sex_given": False},
        "answer": {"max_tokens": None, "findings": None, "json_schema_sha256": "ab"},
    }


def test_batch_may_continue_on_another_device_but_with_the_same_questions() -> None:
    def settings(device: str, question: str) -> dict[str, object]:
        request = Request(ModelOptions(device=device), answer=AnswerOptions((question,)))
        return request.batch_settings("0" * 64)

    assert settings("cpu", "Why?") == settings("cuda", "Why?")
    assert settings("cpu", "Why?") != settings("cpu", "How?")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ModelOptions(device="tpu"), "expected auto, cpu or cuda"),
        (lambda: AnswerOptions(("",)), "the question is empty"),
        (lambda: OutputOptions(("pdf",)), "needs a folder"),
        (lambda: OutputOptions(("text", "json")), "needs a folder"),
        (lambda: OutputOptions(patient=Patient("42")), "are for --format fhir"),
    ],
)
def test_wrong_options_are_refused(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match=message):
        make()
