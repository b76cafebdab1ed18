"""The strings that stand as values in a JSON answer, with where each character stands in it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.S)
_CHARACTER = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[0-9a-fA-F]{4}|\\u[0-9a-fA-F]{4}|\\.|.", re.S
)
_KEY = re.compile(r"\s*:")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


@dataclass(frozen=True)
class JsonString:
    """One value."""

    key: str
    """The nearest key before it, in words: `atrial fibrillation` of `atrial_fibrillation` or
    `atrialFibrillation`; empty without one."""
    text: str
    offsets: tuple[int, ...]
    """Where each character of `text` begins in the answer, and where the last one ends."""


def strings_in(answer: str) -> Iterator[JsonString]:
    """Yield each string value of a JSON answer in its order; keys are no values.

    Raises ValueError where a string is no JSON.
    """
    key = ""
    for match in _STRING.finditer(answer):
        if _KEY.match(answer, match.end()):
            key = " ".join(_WORD.findall(json.loads(match.group())))
        else:
            yield _value(key, match)


def _value(key: str, match: re.Match[str]) -> JsonString:
    text, offsets = "", []
    for part in _CHARACTER.finditer(match.group()[1:-1]):
        character = json.loads(f'"{part.group()}"', strict=False)
        offsets += [match.start() + 1 + part.start()] * len(character)
        text += character
    return JsonString(key, text, (*offsets, match.end() - 1))
