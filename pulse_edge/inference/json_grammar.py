"""Translate a JSON Schema into a grammar of llama.cpp (GBNF) that allows only JSON of that schema.

The translation is our own because llama.cpp's converter ignores some keywords that it cannot
express, so that an answer may not validate. Here a keyword that a grammar cannot express exactly is
refused, and every whole answer validates. Understood are `object` (its `properties` all come, in
their order), `array` (`items`, `minItems`, `maxItems`), `string` (`minLength`, `maxLength`),
`integer` and `number` (`minimum`, `maximum`), `boolean`, `null`, `enum`, `const`, `anyOf`.
Everything has an end: a string is ASCII, without `maxLength` of at most LONGEST characters, an
array without `maxItems` at most MOST items.

Each value is a rule with a name, and equal values share one. llama.cpp multiplies a group in
brackets by the repetitions around it and takes at most TOP in all; a name counts as one, so arrays
of arrays and of objects stay small.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from pulse_edge.errors import UsageError

LONGEST, MOST = 200, 16
TOP = 2000
"""Repetitions that llama.cpp takes (MAX_REPETITION_THRESHOLD of its llama-grammar.cpp)."""
DEEPEST = 100
"""Deepest nesting of values; Python's own recursion limit is about three times as deep."""
LARGEST = 100_000
"""Elements of the largest grammar: a character of a text, or half a repetition. llama.cpp reads
that many in 0.1 s; a token takes 0.2 s where thousands of texts are possible."""
SHORTEST = 65_536
"""Characters of the shortest answer: 4,096 tokens, a context of this family of models, of 16
characters each."""
CHARACTERS = 4
"""Average characters of a token, rounded up: English text in Llama's vocabulary has three to four.
"""
MOST_BYTES = 1 << 20
"""Largest file of a schema."""
DIGITS = 9
BIGGEST = 2**53
"""Whole numbers up to here are the same in every program that reads JSON (RFC 8259, section 6)."""
_CHARACTER = r"[ !#-\[\]-~]"
"""Printable ASCII but for quote and backslash: llama.cpp lets broken UTF-8 through for other
characters."""
_ABOUT = frozenset({"$schema", "$id", "$comment", "title", "description", "examples", "default"})
"""Keywords that do not change what is valid."""
_KEYWORDS: Mapping[str, frozenset[str]] = {
    "object": frozenset({"properties", "required", "additionalProperties"}),
    "array": frozenset({"items", "minItems", "maxItems"}),
    "string": frozenset({"minLength", "maxLength"}),
    "integer": frozenset({"minimum", "maximum"}),
    "number": frozenset({"minimum", "maximum"}),
    "boolean": frozenset(),
    "null": frozenset(),
}


@dataclass(frozen=True)
class Grammar:
    """The grammar of one schema, and the sizes of the answers that it allows."""

    text: str
    """GBNF with the rule `root`."""
    shortest: str
    """The shortest JSON that it allows; no answer has fewer characters."""
    longest: int
    """Characters of the longest JSON that it allows."""
    shorten: str
    """Advice on the part of the schema to lower where the shortest answer is too long."""
    limit: str
    """Advice for the longest answer."""
    source_sha256: str = ""
    """SHA-256 of the schema's file; empty if there is none."""

    def require(self, tokens: int) -> None:
        """Raise UsageError if an answer could be cut off: the longest one does not fit into
        `tokens`."""
        if self.longest > CHARACTERS * tokens:
            raise UsageError(
                f"the JSON schema allows answers of {self.longest:,} characters, and {tokens:,} "
                "tokens hold about "
                f"{CHARACTERS * tokens:,}, so an answer could be cut off. Raise --max-tokens, or "
                f"{self.limit}."
            )


def load(path: Path) -> Grammar:
    """Compile a schema's file. Raises UsageError where it cannot be read, or has keywords that a
    grammar cannot express."""
    try:
        raw = _read(path)
        schema = json.loads(raw.decode("utf-8"), parse_constant=_no_number, parse_float=_finite)
    except (OSError, ValueError) as e:
        raise UsageError(f"{path}: is no JSON Schema that can be read ({e}). Correct it.") from None
    except RecursionError:
        raise UsageError(
            f"{path}: nests values more than {DEEPEST} deep. Make the schema flatter."
        ) from None
    try:
        return replace(compiled(schema), source_sha256=hashlib.sha256(raw).hexdigest())
    except ValueError as e:
        raise UsageError(f"{path}: {e}. See the README for what a schema may hold.") from None


def _read(path: Path) -> bytes:
    """Read the file's bytes once: a pipe is empty the second time. Raises ValueError for an endless
    one."""
    with open(path, "rb") as file:
        raw = file.read(MOST_BYTES + 1)
    if len(raw) > MOST_BYTES:
        raise ValueError(f"has more than {MOST_BYTES >> 20} MiB")
    return raw


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number of JSON")


def _finite(text: str) -> float:
    if math.isinf(value := float(text)):
        raise ValueError(f"the number {text} is too large")
    return value


def grammar(schema: Any) -> str:
    """Return GBNF with the rule `root`. ValueError says which part of the schema is not understood,
    or has to be lowered."""
    return compiled(schema).text


def compiled(schema: Any) -> Grammar:
    """Return the grammar of a schema. ValueError says which part of it is not understood, or has to
    be lowered."""
    rules = _Rules()
    root = rules.value(schema, "the schema", 0)
    if root.length > SHORTEST:
        raise ValueError(
            f"its shortest answer has {root.length:,} characters, and no more than {SHORTEST:,} "
            f"fit; {_most(rules.low)}"
        )
    lines = [f"{name} ::= {expression}" for expression, name in rules.names.items()]
    # SentencePiece begins an answer with a space.
    text = "\n".join([f'root ::= " "? {root.rule}', *lines, ""])
    return Grammar(
        text, root.text(), root.longest, shorten=_most(rules.low), limit=_most(rules.high)
    )


@dataclass(frozen=True)
class _Value:
    """One value of the schema: its rule, and its shortest JSON."""

    rule: str
    length: int
    """Characters of the shortest JSON. `text` makes it, which is only done where it is short."""
    text: Callable[[], str]
    longest: int
    """Characters of the longest JSON."""


class _Rules:
    """The named rules of a grammar while it is built."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        """Expression -> name, in the order of creation."""
        self._elements = 0
        self._costs: list[tuple[int, str]] = []
        """Elements of a part, and advice that lowers them."""
        self.low: list[tuple[int, str]] = []
        """Repetitions that a part requires, and advice that lowers them."""
        self.high: list[tuple[int, str]] = []
        """Most characters of a part, and advice that lowers them."""

    def _rule(self, expression: str, elements: int, advice: str) -> str:
        """The name of an expression, which is added if it is new. ValueError where the grammar
        becomes too large."""
        if expression not in self.names:
            self.names[expression] = f"r{len(self.names)}"
            self._elements += elements
            self._costs.append((elements, advice))
            if self._elements > LARGEST:
                raise ValueError(
                    f"its grammar has more than {LARGEST:,} elements; {_most(self._costs)}"
                )
        return self.names[expression]

    def value(self, schema: Any, where: str, depth: int) -> _Value:
        """Add the rules of a value and all inside it. `where` is its name in messages, `depth` the
        number of values around it."""
        where = where if len(where) <= 80 else f"{where[:40]}...{where[-30:]}"
        if depth > DEEPEST:
            raise ValueError(
                f"{where} nests values more than {DEEPEST} deep; make the schema flatter"
            )
        if not isinstance(schema, dict):
            raise ValueError(f"{where} is not an object")
        parts = {key: value for key, value in schema.items() if key not in _ABOUT}
        for key in ("anyOf", "enum", "const"):
            if key in parts:
                options = [parts[key]] if key == "const" else parts[key]
                if len(parts) > 1 or not isinstance(options, list) or not options:
                    raise ValueError(f"{where} needs {key} alone, with something in it")
                return (
                    self._any_of(options, where, depth)
                    if key == "anyOf"
                    else self._texts(options, where)
                )
        kind = parts.pop("type", None)
        if not isinstance(kind, str) or kind not in _KEYWORDS:
            stated = f"the type {kind!r}" if kind is not None else "no type"
            raise ValueError(f"{where} has {stated}; known are {', '.join(_KEYWORDS)}")
        if unknown := sorted(parts.keys() - _KEYWORDS[kind]):
            raise ValueError(
                f"{where} has {', '.join(unknown)}, which is not understood for the type {kind}"
            )
        if kind == "object":
            return self._object(parts, where, depth)
        if kind == "array":
            return self._array(parts, where, depth)
        if kind == "string":
            return self._string(parts, where)
        if kind in ("integer", "number"):
            return self._number(parts, kind, where)
        return self._texts([True, False] if kind == "boolean" else [None], where)

    def _any_of(self, options: Sequence[Any], where: str, depth: int) -> _Value:
        values = [
            self.value(one, f"{where}.anyOf[{n}]", depth + 1) for n, one in enumerate(options)
        ]
        names = dict.fromkeys(value.rule for value in values)
        advice = f"give {where} fewer values in anyOf"
        shortest = min(values, key=lambda value: value.length)
        rule, longest = (
            self._rule(" | ".join(names), len(names), advice),
            max(value.longest for value in values),
        )
        return _Value(rule, shortest.length, shortest.text, longest)

    def _texts(self, options: Sequence[Any], where: str) -> _Value:
        """A value out of a list that stands in the schema."""
        try:
            texts = dict.fromkeys(json.dumps(one, allow_nan=False) for one in options)
        except (TypeError, ValueError):
            raise ValueError(f"{where} has a value that JSON cannot hold") from None
        rule = self._rule(
            " | ".join(map(_literal, texts)),
            sum(map(len, texts)),
            f"give {where} fewer or shorter values",
        )
        shortest = min(texts, key=len)
        return _Value(rule, len(shortest), lambda: shortest, max(map(len, texts)))

    def _object(self, parts: Mapping[str, Any], where: str, depth: int) -> _Value:
        properties, required = parts.get("properties", {}), parts.get("required", [])
        valid = isinstance(properties, dict) and isinstance(required, list)
        if not valid or not {*map(str, required)} <= {*properties}:
            raise ValueError(f"{where} requires what is not among its properties")
        if not isinstance(parts.get("additionalProperties", False), bool):
            raise ValueError(
                f"{where} has additionalProperties with a schema; only the listed ones are written"
            )
        names = [f"{json.dumps(name)}: " for name in properties]
        values = [self.value(one, f"{where}.{name}", depth + 1) for name, one in properties.items()]
        pairs = [
            f"{_literal(name)} {value.rule}" for name, value in zip(names, values, strict=True)
        ]
        between = 2 * max(len(names) - 1, 0)
        size = 2 + sum(map(len, names)) + between
        rule = self._rule(
            " ".join(['"{"', ' ", " '.join(pairs), '"}"']), size, f"give {where} fewer properties"
        )

        def text() -> str:
            return (
                "{"
                + ", ".join(name + value.text() for name, value in zip(names, values, strict=True))
                + "}"
            )

        length, longest = (
            size + sum(getattr(value, name) for value in values) for name in ("length", "longest")
        )
        return _Value(rule, length, text, longest)

    def _array(self, parts: Mapping[str, Any], where: str, depth: int) -> _Value:
        low, high = _bounds(parts, "Items", MOST, where)
        item = self.value(parts.get("items"), f"{where}.items", depth + 1)
        if not high:
            return _Value(self._rule('"[]"', 2, ""), 2, lambda: "[]", 2)
        if low:
            self.low.append((low, f"lower minItems of {where}, {low:,}"))
        next_item = self._rule(f'", " {item.rule}', 3, "")
        items = f"{item.rule} {next_item}{{{max(0, low - 1)},{high - 1}}}"
        expression = f'"[" {items} "]"' if low else f'"[" ({items})? "]"'
        advice = f"lower maxItems of {where}, {high:,}"
        rule = self._rule(expression, 4 + 2 * high, advice)
        length, longest = 2 + low * item.length + 2 * max(low - 1, 0), high * (2 + item.longest)
        if high > 1:
            self.high.append((longest, advice))
        return _Value(rule, length, lambda: "[" + ", ".join([item.text()] * low) + "]", longest)

    def _string(self, parts: Mapping[str, Any], where: str) -> _Value:
        low, high = _bounds(parts, "Length", LONGEST, where)
        if low:
            self.low.append((low, f"lower minLength of {where}, {low:,}"))
        expression = rf'"\"" {_CHARACTER}{{{low},{high}}} "\""'
        advice = f"lower maxLength of {where}, {high:,}"
        self.high.append((high, advice))
        return _Value(
            self._rule(expression, 2 + 2 * high, advice),
            low + 2,
            lambda: '"' + "a" * low + '"',
            high + 2,
        )

    def _number(self, parts: Mapping[str, Any], kind: str, where: str) -> _Value:
        low, high = (_bound(parts, key, where) for key in ("minimum", "maximum"))
        least, most = (-_ENDLESS if low is None else low), (_ENDLESS if high is None else high)
        if least > most:
            missing = "; give both" if None in (low, high) else ""
            raise ValueError(f"{where} has the minimum {least} above the maximum {most}{missing}")
        options = []
        if least < 0:
            options.append(f'"-" {_magnitude(max(0, -most), -least, kind, open_end=low is None)}')
        if most >= 0:
            options.append(_magnitude(max(0, least), most, kind, open_end=high is None))
        text = str(min((least, 0, most), key=lambda n: (not least <= n <= most, len(str(n)))))
        longest = max(len(str(least)), len(str(most))) + 7 * (kind == "number")
        return _Value(
            self._rule(" | ".join(options), sum(map(len, options)), ""),
            len(text),
            lambda: text,
            longest,
        )


def _most(parts: Sequence[tuple[int, str]]) -> str:
    """The advice for the largest part."""
    return max(parts, default=(0, "ask for fewer properties and shorter texts"))[1]


_ENDLESS = 10**DIGITS - 1


def _bound(parts: Mapping[str, Any], key: str, where: str) -> int | None:
    """`minimum` or `maximum` as a whole number; None if it is absent."""
    if key not in parts:
        return None
    value = parts[key]
    if type(value) not in (int, float) or not abs(value) <= BIGGEST or value != int(value):
        raise ValueError(
            f"{where} has the {key} {value!r}; a grammar holds whole numbers up to {BIGGEST:,}"
        )
    return int(value)


def _magnitude(least: int, most: int, kind: str, *, open_end: bool) -> str:
    """Unsigned numbers from `least` to `most`; a `number` has up to six decimals (beyond `most` if
    `open_end`)."""
    if kind == "integer":
        return _group(_whole(least, most))
    decimals = '("." [0-9]{1,6})?'
    if open_end:
        return _group(f"{_group(_whole(least, most))} {decimals}")
    last = f'"{most}" ("." "0"{{1,6}})?'
    return _group(
        last if least == most else f"{_group(_whole(least, most - 1))} {decimals} | {last}"
    )


def _whole(least: int, most: int) -> str:
    """The whole numbers from `least` (0 or more) to `most`, without leading zeros."""
    options, full = ['"0"'] if least == 0 else [], list[int]()
    for digits in range(len(str(max(least, 1))), len(str(most)) + 1):
        first, last = max(least, 10 ** (digits - 1)), min(most, 10**digits - 1)
        if (first, last) == (10 ** (digits - 1), 10**digits - 1):
            full.append(digits)  # they follow one another
        elif first <= last:
            options.append(_between(str(first), str(last)))
    if full:
        options.append(f"[1-9] [0-9]{{{full[0] - 1},{full[-1] - 1}}}")
    return " | ".join(options)


def _between(first: str, last: str) -> str:
    """The numbers between two with as many digits."""
    more = len(first) - 1
    if first[1:] == "0" * more and last[1:] == "9" * more:
        return f"[{first[0]}-{last[0]}] [0-9]{{{more}}}" if more else f"[{first[0]}-{last[0]}]"
    if first[0] == last[0]:
        return f'"{first[0]}" {_group(_between(first[1:], last[1:]))}'
    low, high = int(first[0]), int(last[0])
    options = []
    if first[1:] != "0" * more:
        options.append(_between(first, first[0] + "9" * more))
        low += 1
    if last[1:] != "9" * more:
        high -= 1
    if low <= high:
        options.append(_between(f"{low}{'0' * more}", f"{high}{'9' * more}"))
    if last[1:] != "9" * more:
        options.append(_between(last[0] + "0" * more, last))
    return " | ".join(options)


def _bounds(parts: Mapping[str, Any], what: str, most: int, where: str) -> tuple[int, int]:
    low = parts.get(f"min{what}", 0)
    high = parts.get(f"max{what}", low if type(low) is int and low > most else most)
    if not all(type(n) is int for n in (low, high)) or not 0 <= low <= high <= TOP:
        raise ValueError(
            f"{where} has min{what} {low!r} and max{what} {high!r}; expected whole numbers up to "
            f"{TOP}, the first not above "
            "the second"
        )
    return low, high


def _literal(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _group(expression: str) -> str:
    return f"({expression})"
