"""Answers that are JSON of a schema: whatever the model would like to say, the whole answer
validates."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from checkout import ROOT

import pulse_edge
from pulse_edge import PulseModel
from pulse_edge.errors import UsageError
from pulse_edge.inference.decoding import token_choice
from pulse_edge.inference.json_grammar import compiled, grammar, load
from pulse_edge.inference.llama_cpp import count_tokens

PAGE = Path(pulse_edge.__file__).parent / "assets" / "example_page.png"
PUBLISHED = ROOT / "docs" / "answer.schema.json"
SCHEMAS: tuple[dict[str, Any], ...] = (
    {
        "type": "object",
        "properties": {'a "quoted\\" näme': {"type": "boolean"}, "b": {"type": "null"}},
    },
    {"type": "object"},
    {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 2, "maxItems": 3},
    {"type": "array", "items": {"type": "number"}, "maxItems": 1},
    {"type": "array", "items": {"type": "null"}, "maxItems": 0},
    {"type": "string", "minLength": 3, "maxLength": 5, "description": "short"},
    {"enum": ["yes", "no", 'a "b" \\ c', 3, None, {"x": [1]}]},
    {"const": "atrial fibrillation – ja"},
    {
        "type": "array",
        "items": {"type": "integer", "minimum": -7, "maximum": 1203},
        "minItems": 9,
        "maxItems": 9,
    },
    {"type": "array", "items": {"type": "integer", "maximum": -95}, "minItems": 9, "maxItems": 9},
    {
        "type": "array",
        "items": {"type": "number", "minimum": 3, "maximum": 12},
        "minItems": 9,
        "maxItems": 9,
    },
    {
        "type": "array",
        "items": {"type": "number", "minimum": -1, "maximum": 0},
        "minItems": 9,
        "maxItems": 9,
    },
    {"anyOf": [{"type": "integer"}, {"type": "array", "items": {"enum": [1, 2]}}]},
    json.loads(PUBLISHED.read_text()),
)


def nested(depth: int, bounds: dict[str, int]) -> dict[str, Any]:
    """Arrays in arrays, with integers innermost."""
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema, **bounds}
    return schema


LARGE: tuple[dict[str, Any], ...] = (
    nested(4, {"maxItems": 2}),
    nested(18, {"maxItems": 2}),
    nested(100, {"maxItems": 3}),
    {"type": "array", "items": {"type": "string", "maxLength": 2000}, "maxItems": 2000},
    {
        "type": "array",
        "items": {"type": "object", "properties": {f"f{n}": {"type": "string"} for n in range(10)}},
    },
    {"type": "array", "items": {"type": "integer"}, "minItems": 2000, "maxItems": 2000},
    {
        "type": "object",
        "properties": {f"f{n}": {"type": "string", "maxLength": 1000 + n} for n in range(40)},
    },
    {"enum": [f"finding number {n}" for n in range(4000)]},
)
"""What a grammar can hold, but none that writes out each value where it stands."""


@pytest.fixture(scope="module")
def model(tiny_kit: Path) -> Iterator[PulseModel]:
    with PulseModel.load(tiny_kit, device="cpu", threads=1) as loaded:
        yield loaded


def spoken(model: PulseModel, text: str, logits: Callable[[], Any]) -> str:
    """What comes of logits under a grammar, without a page."""
    language, output = model.language, b""
    with token_choice(language, text) as best:
        while (token := best(logits())) != language.end:
            output += language.piece(token)
    return output.decode()


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda s: next(iter(s)))
def test_json_validates_whatever_the_logits_are(schema: dict[str, Any], model: PulseModel) -> None:
    rng = np.random.default_rng(7)
    jsonschema.Draft202012Validator.check_schema(schema)
    for _ in range(5):
        text = spoken(
            model,
            grammar(schema),
            lambda: rng.normal(0, 3, model.language.vocabulary).astype(np.float32),
        )
        jsonschema.validate(json.loads(text), schema)


@pytest.mark.parametrize("schema", LARGE, ids=lambda s: next(iter(s)))
def test_llama_cpp_takes_every_builtthat_is_not_refused(
    schema: dict[str, Any], model: PulseModel
) -> None:
    built = compiled(schema)
    assert len(built.text) < 200 + 3 * len(
        json.dumps(schema)
    )  # nothing doubles from level to level
    jsonschema.validate(json.loads(built.shortest), schema)
    assert (
        count_tokens(model.kit.file(model.kit.manifest.language.file), built.text, built.shortest)
        > 0
    )


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (0, 0),
        (20, 300),
        (9, 10),
        (100, 999),
        (101, 1000),
        (98, 9999),
        (-12, 7),
        (-300, -20),
        (0, 12345),
    ],
)
def test_integers_lie_between_minimum_and_maximum(low: int, high: int) -> None:
    expression = (
        grammar({"type": "integer", "minimum": low, "maximum": high}).split("r0 ::= ")[1].strip()
    )
    pattern = re.compile(
        re.sub(r'"([^"]*)"', r"\1", expression).replace(" ", "")
    )  # GBNF without names is a regular expression
    matched = {n for n in range(-13000, 13000) if pattern.fullmatch(str(n))}
    assert matched == set(range(low, high + 1))
    assert not any(pattern.fullmatch(text) for text in ("00", "007", "-00", "020", ""))


def test_the_shortest_answer_validates() -> None:
    for schema in SCHEMAS:
        jsonschema.validate(json.loads(compiled(schema).shortest), schema)


def test_the_most_likely_allowed_token_is_taken(model: PulseModel) -> None:
    language = model.language
    with token_choice(language, grammar({"enum": ["yes", "no"]})) as best:
        first = best(np.arange(language.vocabulary, dtype=np.float32))
    allowed = [
        t
        for t in range(language.vocabulary)
        if (p := language.piece(t)) and b' "yes"'.startswith(p)
    ]
    allowed += [
        t
        for t in range(language.vocabulary)
        if (p := language.piece(t).strip()) and b'"no"'.startswith(p)
    ]
    assert first == max(allowed)


def test_an_answer_is_greedy_where_the_builtallows_it(model: PulseModel) -> None:
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
        ({}, "has no type"),
        ([], "is not an object"),
        (
            {"type": "string", "pattern": "a+"},
            "has pattern, which is not understood for the type string",
        ),
        ({"type": "integer", "minimum": 0.5}, "has the minimum 0.5; a grammar holds whole numbers"),
        ({"type": "integer", "minimum": False}, "has the minimum False"),
        (
            {"type": "integer", "minimum": 30, "maximum": 20},
            "has the minimum 30 above the maximum 20",
        ),
        ({"type": "integer", "minimum": 10**10}, "give both"),
        ({"type": "number", "maximum": 2**54}, "has the maximum 18014398509481984"),
        ({"const": float("nan")}, "NaN is not a number of JSON"),
        ({"enum": [1, -float("inf")]}, "-Infinity is not a number of JSON"),
        (
            {"enum": [f"finding number {n}" for n in range(9000)]},
            "give the schema fewer or shorter values",
        ),
        (
            nested(70, {"maxItems": 2000}),
            "more than 100,000 elements; lower maxItems of the schema.items",
        ),
        (nested(40, {"minItems": 2}), "lower minItems of the schema.items.items"),
        (nested(101, {}), "nests values more than 100 deep"),
        ({"type": "array"}, "items is not an object"),
        ({"type": "array", "items": {"type": "null"}, "uniqueItems": True}, "has uniqueItems"),
        ({"type": "string", "maxLength": 5000}, "expected whole numbers up to 2000"),
        ({"type": "string", "minLength": "3"}, "expected whole numbers"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "the first not above the second"),
        ({"type": "object", "required": ["a"]}, "requires what is not among its properties"),
        ({"type": "string", "enum": ["a"]}, "needs enum alone"),
        ({"enum": []}, "needs enum alone, with something in it"),
        ({"$ref": "#/x"}, "has no type"),
        (
            {"type": "object", "properties": {"a": {"type": "any"}}},
            "the schema.a has the type 'any'",
        ),
    ],
)
def test_keywords_that_a_builtcannot_express_are_refused(
    schema: Any, why: str, tmp_path: Path
) -> None:
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(schema))
    with pytest.raises(UsageError, match=r"schema\.json: ") as error:
        load(file)
    assert why in str(error.value)


def interpret(kit: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "pulse_edge",
        "interpret",
        str(PAGE),
        "--kit",
        str(kit),
        "--threads",
        "1",
        *more,
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_interpret_gives_json_of_the_published_schema(tiny_kit: Path, tmp_path: Path) -> None:
    done = interpret(tiny_kit, "--json", "--json-schema", str(PUBLISHED))
    assert done.returncode == 0, done.stderr
    (answer,) = json.loads(done.stdout)["answers"]
    assert answer["complete"]
    jsonschema.validate(json.loads(answer["text"]), json.loads(PUBLISHED.read_text()))


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        (
            {"type": "array", "items": {"type": "string", "maxLength": 80}, "maxItems": 100},
            "maxItems of the schema, 100.",
        ),
        ({"type": "object", "properties": {"a": LARGE[4]}}, "lower maxItems of the schema.a, 16."),
        (
            {"type": "object", "properties": {"a": {"type": "null"}, "b": LARGE[5]}},
            "maxItems of the schema.b, 2,000.",
        ),
        (
            {"type": "array", "items": {"const": 1}, "minItems": 1100, "maxItems": 1100},
            "an answer may have 1,024. Raise --max-tokens, or lower minItems of the schema, 1,100.",
        ),
    ],
)
def test_a_schema_with_too_long_answers_is_refused_before_the_page_is_read(
    schema: Any, why: str, tiny_kit: Path, tmp_path: Path
) -> None:
    file = tmp_path / "s.json"
    file.write_text(json.dumps(schema))
    page = tmp_path / "page.png"
    page.write_text("no picture, which would be an error of its own")
    done = interpret(tiny_kit, str(page), "--json-schema", str(file))
    assert done.returncode == 2
    assert why in done.stderr
    assert "page.png" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    "text", ['{"const": 1e400}', '{"enum": [Infinity]}', "[" * 3000, '{"const": 1e999}']
)
def test_numbers_and_nesting_beyond_json_are_wrong_usage(text: str, tmp_path: Path) -> None:
    file = tmp_path / "s.json"
    file.write_text(text)
    with pytest.raises(
        UsageError, match=r"s\.json: (is no JSON Schema|nests values more than 100 deep)"
    ):
        load(file)


def test_a_builtthat_llama_cpp_refuses_is_wrong_usage(model: PulseModel) -> None:
    encoded = model.encode(PAGE)
    with pytest.raises(UsageError, match=r"llama\.cpp does not take the schema's grammar"):
        model.ask(encoded, "What?", 6, grammar='root ::= "a"{3000}\n').answer()


def test_a_broken_schema_is_wrong_usage(tiny_kit: Path, tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text("{")
    for name in ("s.json", "absent.json"):
        done = interpret(tiny_kit, "--json-schema", str(tmp_path / name))
        assert done.returncode == 2
        assert "no JSON Schema that can be read" in done.stderr


def test_json_that_is_cut_off_is_an_error(model: PulseModel) -> None:
    answering = model.ask(model.encode(PAGE), "What?", 2, grammar=load(PUBLISHED).text)
    with pytest.raises(UsageError, match=r"not at its end after 2 tokens\. Raise --max-tokens"):
        answering.answer()


def test_few_tokens_are_refused_for_json_that_needs_more(tiny_kit: Path) -> None:
    done = interpret(tiny_kit, "--json-schema", str(PUBLISHED), "--max-tokens", "100")
    assert done.returncode == 2
    assert (
        "100 tokens hold about 400, so an answer could be cut off. Raise --max-tokens, or lower "
        "maxItems" in done.stderr
    )


@pytest.mark.skipif(os.name != "posix", reason="pipes have no names on Windows")
def test_a_schema_can_come_from_a_pipe(tmp_path: Path) -> None:
    text = b'{"type": "boolean"}'
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(text,), daemon=True)
    writer.start()
    assert load(pipe).source_sha256 == hashlib.sha256(text).hexdigest()
    writer.join(10)


def test_a_schema_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "endless.json").write_bytes(b" " * (1 << 20) + b"{}")
    with pytest.raises(UsageError, match=r"endless\.json: .*more than 1 MiB"):
        load(tmp_path / "endless.json")
