"""Rewrite a JSON Schema as clients generate it into the form that a grammar is made of.

Pydantic and similar generators put nested objects below `$defs`, and name the type of an `enum` or
`const` once more. Both are rewritten without changing what is valid; any other keyword stays as it
is, and `json_grammar` judges it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pulse_edge.errors import UsageError
from pulse_edge.inference.json_grammar import DEEPEST

MOST_SCHEMAS = 10_000
"""Schemas after references were replaced: definitions that refer to one another can double at each
step."""
_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def plain(schema: Any) -> Any:
    """Return a schema without `$defs`, `$ref`, and types of listed values.

    Raises UsageError for a reference that leads nowhere, or in a circle.
    """
    if not isinstance(schema, dict):
        return schema
    definitions = schema.get("$defs", {})
    if not isinstance(definitions, dict):
        raise UsageError("json-schema: its $defs are no object.")
    top = {key: value for key, value in schema.items() if key != "$defs"}
    return _Plain(definitions).of(top, 0)


class _Plain:
    def __init__(self, definitions: Mapping[str, Any]) -> None:
        self._definitions = definitions
        self._schemas = 0

    def of(self, schema: Any, depth: int) -> Any:
        """Return one schema in its plain form."""
        self._schemas += 1
        if depth > DEEPEST or self._schemas > MOST_SCHEMAS:
            raise UsageError(
                "json-schema: its references go in a circle, or nest too deeply. A grammar has an "
                "end: write the levels out."
            )
        if not isinstance(schema, dict):
            return schema
        if "$ref" in schema:
            return self.of(self._referred(schema), depth + 1)
        parts = dict(schema)
        if isinstance(parts.get("properties"), dict):
            names = parts["properties"].items()
            parts["properties"] = {name: self.of(one, depth + 1) for name, one in names}
        if "items" in parts:
            parts["items"] = self.of(parts["items"], depth + 1)
        if isinstance(parts.get("anyOf"), list):
            parts["anyOf"] = [self.of(one, depth + 1) for one in parts["anyOf"]]
        return _without_type(parts)

    def _referred(self, schema: dict[str, Any]) -> Any:
        """Return what a reference stands for; words about it are of no effect."""
        reference = schema["$ref"]
        name = str(reference).removeprefix("#/$defs/")
        others = schema.keys() - {"$ref", "description", "title", "default", "examples"}
        if others or name not in self._definitions or not str(reference).startswith("#/$defs/"):
            raise UsageError(
                f"json-schema: {str(reference)[:80]!r} has to stand alone and refer to its $defs."
            )
        return self._definitions[name]


def _without_type(parts: dict[str, Any]) -> dict[str, Any]:
    """Leave out the type of listed values where all of them have it."""
    listed = [parts["const"]] if "const" in parts else parts.get("enum")
    types = _TYPES.get(parts["type"]) if isinstance(parts.get("type"), str) else None
    if isinstance(listed, list) and types is not None and all(_is(v, types) for v in listed):
        del parts["type"]
    return parts


def _is(value: Any, types: tuple[type, ...]) -> bool:
    return isinstance(value, types) and (bool in types or not isinstance(value, bool))
