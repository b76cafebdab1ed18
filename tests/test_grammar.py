"""Answers that are JSON of a schema: whatever the model would like to say, the whole answer validates."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from conftest import ROOT

import pulse_edge
from pulse_edge import PulseModel
from pulse_edge.errors import UsageError
from pulse_edge.grammar import grammar, load

PAGE = Path(pulse_edge.__file__).parent / "example_page.png"
PUBLISHED = ROOT / "docs" / "answer.schema.json"
SCHEMAS: tuple[dict[str, Any], ...] = (
    {"type": "object", "properties": {'a "quoted\\" näme': {"type": "boolean"}, "b": {"type": "null"}}},
    {"type": "object"},
    {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 2, "maxItems": 3},
    {"type": "array", "items": {"type": "number"}, "maxItems": 1},
    {"type": "array", "items": {"type": "null"}, "maxItems": 0},
    {"type": "string", "minLength": 3, "maxLength": 5, "description": "short"},
    {"enum": ["yes", "no", 'a "b" \\ c', 3, None, {"x": [1]}]},
    {"const": "atrial fibrillation – ja"},
    {"anyOf": [{"type": "integer"}, {"type": "array", "items": {"enum": [1, 2]}}]},
    json.loads(PUBLISHED.read_text()),
)


@pytest.fixture(scope="module")
def model(tiny_kit: Path) -> Iterator[PulseModel]:
    with PulseModel.load(tiny_kit, device="cpu", threads=1) as loaded:
        yield loaded


def spoken(model: PulseModel, text: str, logits: Callable[[], Any]) -> str:
    """What comes of logits under a grammar, without a page."""
    language, said = model.language, b""
    with language._choice(text) as best:
        while (token := best(logits())) != language.end:
            said += language.piece(token)
    return said.decode()


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda s: next(iter(s)))
def test_whatever_is_likely_the_json_validates(schema: dict[str, Any], model: PulseModel) -> None:
    rng = np.random.default_rng(7)
    jsonschema.Draft202012Validator.check_schema(schema)
    for _ in range(5):
        text = spoken(model, grammar(schema), lambda: rng.normal(0, 3, model.language.vocabulary).astype(np.float32))
        jsonschema.validate(json.loads(text), schema)


def test_of_what_is_allowed_the_most_likely_is_taken(model: PulseModel) -> None:
    language = model.language
    with language._choice(grammar({"enum": ["yes", "no"]})) as best:
        first = best(np.arange(language.vocabulary, dtype=np.float32))
    allowed = [t for t in range(language.vocabulary) if (p := language.piece(t)) and b' "yes"'.startswith(p)]
    allowed += [t for t in range(language.vocabulary) if (p := language.piece(t).strip()) and b'"no"'.startswith(p)]
    assert first == max(allowed)


def test_the_question_s_answer_is_greedy_where_the_grammar_allows_it(model: PulseModel) -> None:
    encoded = model.encode(PAGE)
    plain = model.ask(encoded, "What?", 6)
    plain.answer()
    anything = "root ::= [^\\x00]*\n"
    bound = model.ask(encoded, "What?", 6, grammar=anything)
    with pytest.raises(UsageError, match="not at its end after"):
        bound.answer()
    assert bound.ids == plain.ids


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({}, "has the type None"),
        ([], "is not an object"),
        ({"type": "string", "pattern": "a+"}, "has pattern, which is not understood for a string"),
        ({"type": "integer", "minimum": 20}, "has the minimum 20"),
        ({"type": "array"}, "items is not an object"),
        ({"type": "array", "items": {"type": "null"}, "uniqueItems": True}, "has uniqueItems"),
        ({"type": "string", "maxLength": 5000}, "expected whole numbers up to 2000"),
        ({"type": "string", "minLength": "3"}, "expected whole numbers"),
        ({"type": "object", "required": ["a"]}, "requires what is not among its properties"),
        ({"type": "string", "enum": ["a"]}, "needs enum alone"),
        ({"enum": []}, "needs enum alone, with something in it"),
        ({"$ref": "#/x"}, "has the type None"),
        ({"type": "object", "properties": {"a": {"type": "any"}}}, "the schema.a has the type 'any'"),
    ],
)
def test_what_a_grammar_cannot_hold_is_refused(schema: Any, why: str, tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(schema))
    with pytest.raises(UsageError, match=r"schema\.json: ") as error:
        load(file)
    assert why in str(error.value)


def interpret(kit: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pulse_edge", "interpret", str(PAGE), "--kit", str(kit), "--threads", "1", *more]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_interpret_gives_json_of_the_published_schema(tiny_kit: Path, tmp_path: Path) -> None:
    done = interpret(tiny_kit, "--json", "--json-schema", str(PUBLISHED))
    assert done.returncode == 0, done.stderr
    (answer,) = json.loads(done.stdout)["answers"]
    assert answer["complete"]
    jsonschema.validate(json.loads(answer["text"]), json.loads(PUBLISHED.read_text()))


def test_a_schema_that_is_none_is_wrong_usage(tiny_kit: Path, tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text("{")
    for name in ("s.json", "absent.json"):
        done = interpret(tiny_kit, "--json-schema", str(tmp_path / name))
        assert done.returncode == 2
        assert "no JSON Schema that can be read" in done.stderr


def test_json_that_is_cut_off_is_an_error(tiny_kit: Path) -> None:
    done = interpret(tiny_kit, "--json-schema", str(PUBLISHED), "--max-tokens", "2")
    assert done.returncode == 2
    assert "not at its end after 2 tokens" in done.stderr
