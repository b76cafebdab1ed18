"""JSON from files that somebody else may have written: read in bounds, and only what JSON itself allows. Standard library only."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

MAX_BYTES = 64 << 20
"""Of a file: the manifest of a kit calibrated on whole data sets has 2 MB."""
MAX_DIGITS = 300
"""Of a whole number: as many as the largest double has."""


def read(path: Path) -> bytes:
    """The bytes of a file. Raises OSError, and ValueError for a pipe or a device, or more than MAX_BYTES."""
    about = os.stat(path)
    if not stat.S_ISREG(
        about.st_mode
    ):  # opening a pipe would wait for ever, and a device may have no end
        raise ValueError("is no regular file")
    if about.st_size > MAX_BYTES:
        raise ValueError(f"has {about.st_size >> 20} MiB, and {MAX_BYTES >> 20} are the limit")
    with open(path, "rb") as file:
        return file.read(MAX_BYTES + 1)


def parse(text: str | bytes) -> Any:
    """The value. Raises ValueError also for NaN, Infinity, a key that stands twice, and what is nested too deeply."""
    try:
        return json.loads(
            text, parse_constant=_no_number, parse_int=_whole, object_pairs_hook=_once
        )
    except RecursionError:
        raise ValueError("is nested too deeply") from None


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no number")


def _whole(digits: str) -> int:
    """Python's own refusal of thousands of digits names a setting of the interpreter, which helps no reader."""
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
