"""Frozen dataclasses as JSON and back.

A field that holds its default is left out of the JSON: a figure that was not measured has no key.
Fields without a default are always written, None as null.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import lru_cache
from typing import Any, TypeVar, Union

T = TypeVar("T")


def as_json(value: Any) -> Any:
    """A dataclass, or mappings and sequences of them, as what `json.dumps` takes."""
    if is_dataclass(value):
        pairs = ((field, getattr(value, field.name)) for field in fields(value))
        return {field.name: as_json(v) for field, v in pairs if not _is_default(field, v)}
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    return value


def _is_default(field: Field[Any], value: Any) -> bool:
    if field.default is not MISSING:
        return bool(type(value) is type(field.default) and value == field.default)
    return field.default_factory is not MISSING and bool(value == field.default_factory())


def from_json(cls: type[T], raw: Any) -> T:
    """Read a dataclass from JSON; keys without a field are ignored.

    Raises ValueError, KeyError or TypeError where a field is missing or has another type.
    """
    if not isinstance(raw, dict):
        raise TypeError(f"expected an object for {cls.__name__}")
    hints = _hints(typing.cast("Any", cls))
    names = [field.name for field in fields(cls) if field.name in raw]  # type: ignore[arg-type]
    return cls(**{name: _typed(hints[name], raw[name]) for name in names})


@lru_cache(maxsize=64)
def _hints(cls: type[Any]) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _typed(hint: Any, raw: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if is_dataclass(hint):
        return from_json(typing.cast("type[Any]", hint), raw)
    if origin in (Union, types.UnionType):
        return _of_union(arguments, raw)
    if origin is tuple:
        if not isinstance(raw, list):
            raise TypeError(f"expected a list, not {raw!r}")
        if arguments[-1] is ...:
            return tuple(_typed(arguments[0], item) for item in raw)
        return tuple(_typed(a, item) for a, item in zip(arguments, raw, strict=True))
    if origin in (list, dict, Mapping) or (origin is not None and issubclass(origin, Mapping)):
        if origin is list:
            return [_typed(arguments[0], item) for item in raw]
        return {key: _typed(arguments[1], item) for key, item in raw.items()}
    if hint is float and isinstance(raw, int) and not isinstance(raw, bool):
        return float(raw)
    if hint is not Any and not isinstance(raw, hint):
        raise TypeError(f"expected {hint.__name__}, not {raw!r}")
    return raw


def _of_union(arguments: tuple[Any, ...], raw: Any) -> Any:
    for hint in arguments:
        try:
            return _typed(hint, raw)
        except TypeError:
            continue
    raise TypeError(f"{raw!r} is none of the types expected")
