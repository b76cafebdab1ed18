"""Read JSON that somebody else may have written: within bounds, strictly as RFC 8259 has it, and
into dataclasses.

Standard library only.
"""

from __future__ import annotations

import dataclasses
import json
import os
import stat
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")

MAX_BYTES = 64 << 20
"""Largest file that is read: the manifest of a kit calibrated on whole data sets has 2 MB."""
MAX_DIGITS = 300
"""Digits of the longest whole number: as many as the largest double has."""


def read(path: Path) -> bytes:
    """Read a file. Raises OSError, and ValueError for a pipe, a device, or more than MAX_BYTES."""
    about = os.stat(path)
    # Opening a pipe would wait for ever, and a device may have no end.
    if not stat.S_ISREG(about.st_mode):
        raise ValueError("is no regular file")
    if about.st_size > MAX_BYTES:
        raise ValueError(f"has {about.st_size >> 20} MiB, and {MAX_BYTES >> 20} are the limit")
    with open(path, "rb") as file:
        return file.read(MAX_BYTES + 1)


def parse(text: str | bytes) -> Any:
    """Parse JSON. Raises ValueError for broken JSON, NaN, Infinity, a repeated key, and values
    nested too deeply."""
    try:
        return json.loads(
            text, parse_constant=_no_number, parse_int=_whole, object_pairs_hook=_once
        )
    except RecursionError:
        raise ValueError("is nested too deeply") from None


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no number")


def _whole(digits: str) -> int:
    """Python's own refusal of thousands of digits names a setting of the interpreter, which helps
    no reader."""
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number has {len(digits):,} digits, and {MAX_DIGITS} are the limit")
    return int(digits)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(
            f"{next(key for key in keys if keys.count(key) > 1)[:40]!r} stands there twice"
        )
    return result


# --- dataclasses ----------------------------------------------------------------------------------


def build(kind: Any, value: Any, where: str) -> Any:
    """Return a parsed JSON value as `kind`: a dataclass, or a type that its fields may have.

    Understood are Literal, tuple, dict, a type or None, Any, and the plain types; a whole number
    may stand for a float. Raises ValueError that names the field, which is called `where`.
    """
    origin, args = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _build_dataclass(kind, value, where)
    if origin is Literal:
        if value not in args:
            raise ValueError(f"{where} is {value!r}, expected one of {', '.join(map(repr, args))}")
        return value
    if origin is tuple:
        return _build_tuple(args, value, where)
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{where} is not an object")
        return {k: build(args[1], v, f"{where}.{k}") for k, v in value.items()}
    if type(None) in args:
        return None if value is None else build(args[0], value, where)
    if kind is Any:
        return value
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"{where} is {value!r}, expected {kind.__name__}")
    return value


def _build_tuple(args: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list) or (args[-1] is not Ellipsis and len(value) != len(args)):
        raise ValueError(f"{where} is not a list of the expected length")
    kinds = [args[0]] * len(value) if args[-1] is Ellipsis else args
    return tuple(
        build(kind, one, f"{where}[{i}]")
        for i, (kind, one) in enumerate(zip(kinds, value, strict=True))
    )


def _build_dataclass(kind: type[T], value: Any, where: str) -> T:
    if not isinstance(value, dict):
        raise ValueError(f"{where} is not an object")
    hints = get_type_hints(kind)
    needed = {f.name for f in dataclasses.fields(kind) if f.default is dataclasses.MISSING}  # type: ignore[arg-type]
    if missing := sorted(needed - value.keys()):
        raise ValueError(f"{where} lacks {', '.join(missing)}")
    if unknown := sorted(value.keys() - hints.keys()):
        raise ValueError(f"{where} has unknown {', '.join(unknown)}")
    return kind(**{k: build(hints[k], v, f"{where}.{k}") for k, v in value.items()})
