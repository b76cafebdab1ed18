"""Write the JSON Schemas of the manifest and of a report, from their dataclasses.

python -m export.schema manifest > docs/manifest.schema.json
python -m export.schema report > docs/report.schema.json
"""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pulse_edge.kit.manifest import MANIFEST_VERSION, Manifest
from pulse_edge.measurement.checks import Check
from pulse_edge.measurement.measurements import Measurement
from pulse_edge.report.report import NoAnswer, Report

_UNIMPORTED = {"Check": Check, "Measurement": Measurement}
"""Types that the report module names without importing them, for a fast `--help`."""
_PLAIN = {int: "integer", float: "number", str: "string", bool: "boolean"}


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of manifest.json."""
    top = _schema(Manifest)
    top["properties"]["manifest_version"] = {"const": MANIFEST_VERSION}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "pulse-edge kit manifest",
    } | top


def report_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a line of `interpret --json`.

    Such a line is a report, or says why there is none; every field is there.
    """
    kinds = [_schema(Report), _schema(NoAnswer)]
    for kind in kinds:
        kind["required"] = list(kind["properties"])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "pulse-edge report, or why a page has none",
        "anyOf": kinds,
    }


def _schema(kind: Any) -> dict[str, Any]:
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any:
        return {}
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        fields, hints = dataclasses.fields(kind), get_type_hints(kind, localns=_UNIMPORTED)
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
    print(json.dumps(report_schema() if sys.argv[1:] == ["report"] else schema(), indent=1))
