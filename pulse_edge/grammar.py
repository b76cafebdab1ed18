"""A JSON Schema -> a grammar of llama.cpp (GBNF) that lets nothing through but JSON of that schema.

Only what a grammar can hold to the letter is understood; anything else is refused, so that every whole answer validates:
`object` (its `properties` all come, in their order), `array` (`items`, `minItems`, `maxItems`), `string` (`minLength`,
`maxLength`), `integer` and `number` (`minimum` 0), `boolean`, `null`, `enum`, `const`, `anyOf`. Everything has an end: a
string is ASCII, without `maxLength` of at most LONGEST characters, an array without `maxItems` at most MOST items.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import UsageError

LONGEST, MOST = 400, 16
TOP = 2000
"""What llama.cpp takes as a number of repetitions."""
DIGITS = 9
_CHARACTER = r"[ !#-\[\]-~]"
"""Printable ASCII but for quote and backslash: llama.cpp lets broken UTF-8 through for other characters."""
_ABOUT = frozenset({"$schema", "$id", "$comment", "title", "description", "examples", "default"})
"""Keywords that say nothing of what is valid."""
_KEYWORDS: Mapping[str, frozenset[str]] = {
    "object": frozenset({"properties", "required", "additionalProperties"}),
    "array": frozenset({"items", "minItems", "maxItems"}),
    "string": frozenset({"minLength", "maxLength"}),
    "integer": frozenset({"minimum"}),
    "number": frozenset({"minimum"}),
    "boolean": frozenset(),
    "null": frozenset(),
}


def load(path: Path) -> str:
    """The grammar of a schema's file. Raises UsageError where it cannot be read, or asks for what is not understood."""
    try:
        schema = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as e:
        raise UsageError(f"{path}: is no JSON Schema that can be read ({e}). Correct it.") from None
    try:
        return grammar(schema)
    except ValueError as e:
        raise UsageError(f"{path}: {e}. See the README for what a schema may hold.") from None


def grammar(schema: Any) -> str:
    """GBNF with the rule `root`. ValueError says which part of the schema is not understood."""
    return f'root ::= " "? {_value(schema, "the schema")}\n'  # SentencePiece begins an answer with a space


def _value(schema: Any, where: str) -> str:
    if not isinstance(schema, dict):
        raise ValueError(f"{where} is not an object")
    told = {key: value for key, value in schema.items() if key not in _ABOUT}
    for key in ("anyOf", "enum", "const"):
        if key in told:
            options = [told[key]] if key == "const" else told[key]
            if len(told) > 1 or not isinstance(options, list) or not options:
                raise ValueError(f"{where} needs {key} alone, with something in it")
            if key == "anyOf":
                return _group(" | ".join(_value(one, f"{where}.anyOf[{n}]") for n, one in enumerate(options)))
            return _group(" | ".join(_literal(json.dumps(one)) for one in options))
    kind = told.pop("type", None)
    if not isinstance(kind, str) or kind not in _KEYWORDS:
        raise ValueError(f"{where} has the type {kind!r}; known are {', '.join(_KEYWORDS)}")
    if unknown := sorted(told.keys() - _KEYWORDS[kind]):
        raise ValueError(f"{where} has {', '.join(unknown)}, which is not understood for a {kind}")
    if kind == "object":
        return _object(told, where)
    if kind == "array":
        return _array(told, where)
    if kind == "string":
        low, high = _bounds(told, "Length", LONGEST, where)
        return rf'("\"" {_CHARACTER}{{{low},{high}}} "\"")'
    if kind in ("integer", "number"):
        return _number(told, kind, where)
    return '("true" | "false")' if kind == "boolean" else '"null"'


def _object(told: Mapping[str, Any], where: str) -> str:
    properties, required = told.get("properties", {}), told.get("required", [])
    if not isinstance(properties, dict) or not isinstance(required, list) or not {*map(str, required)} <= {*properties}:
        raise ValueError(f"{where} requires what is not among its properties")
    if not isinstance(told.get("additionalProperties", False), bool):
        raise ValueError(f"{where} has additionalProperties with a schema; only the listed ones are written")
    parts = [
        _literal(f"{json.dumps(name)}: ") + " " + _value(one, f"{where}.{name}") for name, one in properties.items()
    ]
    return _group(" ".join(['"{"', ' ", " '.join(parts), '"}"']))


def _array(told: Mapping[str, Any], where: str) -> str:
    low, high = _bounds(told, "Items", MOST, where)
    item = _value(told.get("items"), f"{where}.items")
    some = f'{item} (", " {item}){{{max(0, low - 1)},{high - 1}}}'
    if not high:
        return '"[]"'
    return _group(f'"[" {some} "]"' if low else f'"[" ({some})? "]"')


def _number(told: Mapping[str, Any], kind: str, where: str) -> str:
    if told.get("minimum", 0) != 0:
        raise ValueError(f"{where} has the minimum {told['minimum']!r}; a grammar only knows 0")
    sign = "" if "minimum" in told else '"-"? '
    whole = f'{sign}("0" | [1-9] [0-9]{{0,{DIGITS - 1}}})'
    return _group(whole if kind == "integer" else f'{whole} ("." [0-9]{{1,6}})?')


def _bounds(told: Mapping[str, Any], what: str, most: int, where: str) -> tuple[int, int]:
    low = told.get(f"min{what}", 0)
    high = told.get(f"max{what}", low if type(low) is int and low > most else most)
    if not all(type(n) is int for n in (low, high)) or not 0 <= low <= high <= TOP:
        raise ValueError(f"{where} has min{what} {low!r} and max{what} {high!r}; expected whole numbers up to {TOP}")
    return low, high


def _literal(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _group(expression: str) -> str:
    return f"({expression})"
