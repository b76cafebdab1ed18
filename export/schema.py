"""`python -m export.schema > docs/manifest.schema.json`: the manifest's JSON Schema, made of its dataclasses."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pulse_edge.kit import MANIFEST_VERSION, Manifest

_PLAIN = {int: "integer", float: "number", str: "string", bool: "boolean"}


def schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of manifest.json."""
    top = _schema(Manifest)
    top["properties"]["manifest_version"] = {"const": MANIFEST_VERSION}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "pulse-edge kit manifest"} | top


def _schema(kind: Any) -> dict[str, Any]:
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any:
        return {}
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        fields, hints = dataclasses.fields(kind), get_type_hints(kind)
        return {
            "type": "object",
            "additionalProperties": False,
            "required": [f.name for f in fields if f.default is dataclasses.MISSING],
            "properties": {f.name: _schema(hints[f.name]) for f in fields},
        }
    if origin is Literal:
        return {"enum": list(args)}
    if origin is tuple and args[-1] is Ellipsis:
        return {"type": "array", "items": _schema(args[0])}
    if origin is tuple:
        return {
            "type": "array",
            "prefixItems": [_schema(a) for a in args],
            "minItems": len(args),
            "maxItems": len(args),
        }
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema(args[1])}
    if type(None) in args:
        return {"anyOf": [_schema(args[0]), {"type": "null"}]}
    return {"type": _PLAIN[kind]}


if __name__ == "__main__":
    print(json.dumps(schema(), indent=1))
