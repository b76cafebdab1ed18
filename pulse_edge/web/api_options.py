"""The options of `/api/*`: the commands' own, as fields of a query or a form.

In: (name, text) pairs as they came. Out: the option's values by the names that
`cli.options.request` uses, as JSON values. Each list says which options of a command make sense for
one request; what belongs to the server (kit, device, threads, folders) is chosen when it starts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pulse_edge.common.text import one_line
from pulse_edge.errors import UsageError
from pulse_edge.inference import json_grammar
from pulse_edge.kit import prompt
from pulse_edge.web import page_options
from pulse_edge.web.readings import MAX_QUESTION, check_question

IMAGE_TOKENS = r"all|no-padding|(0*[1-9][0-9]{3,8}|0*1[6-9][0-9]|0*[2-9][0-9]{2})(:similarity)?"
"""What `--image-tokens` takes: a number is at least 160 (token_pruning.LEAST)."""
OLDEST = 130
"""Years of age at most, as `--age` takes."""
MOST_TOKENS = 1_000_000
"""Tokens of an answer at most: far above the context of any kit, which the worker checks."""


@dataclass(frozen=True)
class Option:
    """An option of a command, as a field of a request."""

    name: str
    """The command's name for it, without the dashes in front."""
    key: str
    """Its name among the values of a request."""
    kind: Literal["flag", "choice", "text", "whole", "years", "schema"]
    """`flag` and `choice` are true or false; a `choice` has no default."""
    help: str
    """One sentence for the API's description."""
    schema: Mapping[str, Any]
    """JSON Schema of one value."""
    several: bool = False
    """The field may be repeated."""


BOOLEAN = {"type": "boolean"}
QUESTION = Option(
    "question",
    "questions",
    "text",
    "Question about each page; may be repeated. Default: a clinical report.",
    {"type": "string", "pattern": r"\S", "maxLength": MAX_QUESTION},
    several=True,
)
FINDINGS = Option(
    "findings",
    "findings",
    "choice",
    "Judge the fixed list of findings too. Default: if the kit is calibrated for it.",
    BOOLEAN,
)
MAX_TOKENS = Option(
    "max-tokens",
    "max_tokens",
    "whole",
    "Longest answer, in tokens. Default: the kit's limit.",
    {"type": "integer", "minimum": 1, "maximum": MOST_TOKENS},
)
JSON_SCHEMA = Option(
    "json-schema",
    "json_schema",
    "schema",
    "JSON Schema, as text, that each answer satisfies.",
    {"type": "string"},
)
NO_RECTIFY = Option(
    "no-rectify",
    "no_rectify",
    "flag",
    "Leave the page's pixels as they are: no straightening, no cropping.",
    BOOLEAN,
)
FORCE = Option(
    "force", "force", "flag", "Read a refused page all the same; the result says so.", BOOLEAN
)
IMAGE_TOKENS_READ = Option(
    "image-tokens",
    "image_tokens",
    "text",
    "Image tokens to read: all, no-padding, N or N:similarity. Fewer than all can change an "
    "answer.",
    {"type": "string", "pattern": f"^({IMAGE_TOKENS})$"},
)
NO_MEASURE = Option(
    "no-measure",
    "no_measure",
    "flag",
    "Give the model's words alone: measure no trace, check no statement.",
    BOOLEAN,
)
AGE = Option(
    "age",
    "age_years",
    "years",
    "Patient's age in years, for the limits of children. Default: adult limits.",
    {"type": "number", "minimum": 0, "maximum": OLDEST},
)
SEX = Option(
    "sex",
    "sex",
    "text",
    "Patient's sex, for limits that depend on it.",
    {"enum": ["male", "female"]},
)

INTERPRET = (
    QUESTION,
    FINDINGS,
    MAX_TOKENS,
    JSON_SCHEMA,
    NO_RECTIFY,
    FORCE,
    IMAGE_TOKENS_READ,
    NO_MEASURE,
    AGE,
    SEX,
)
MEASURE = (AGE, SEX, FORCE)
CHECK = (NO_RECTIFY,)


def parse(options: Iterable[Option], fields: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Return the values of a request's fields by key; an absent option is absent.

    Raises UsageError for an unknown or repeated option, and for a value that it does not take.
    """
    by_name = {option.name: option for option in options}
    values: dict[str, Any] = {}
    for name, text in fields:
        option = by_name.get(name)
        if option is None:
            raise UsageError(
                f"{one_line(name)[:80]}: no such option. Known are {', '.join(by_name)}."
            )
        value = _value(option, text)
        if option.several:
            values.setdefault(option.key, []).append(value)
        elif option.key in values:
            raise UsageError(f"{name}: is there twice. Give it once.")
        else:
            values[option.key] = value
    return values


def _value(option: Option, text: str) -> Any:
    if option.kind in ("flag", "choice"):
        if text not in ("true", "false"):
            raise _wrong(option, text, "true or false")
        return text == "true"
    if option.kind == "whole":
        if not re.fullmatch(r"[0-9]{1,9}", text):
            raise _wrong(option, text, "a whole number")
        return checked(option, int(text))
    if option.kind == "years":
        try:
            return checked(option, float(text))
        except ValueError:
            raise _wrong(option, text, f"a number of years up to {OLDEST}") from None
    return checked(option, json_schema(text) if option.kind == "schema" else text)


def checked(option: Option, value: Any) -> Any:
    """Return a value of an option if it takes it. Raises UsageError."""
    if option is QUESTION:
        check_question(value)
        prompt.fill("{question}", value)
    elif option is MAX_TOKENS and not 1 <= value <= MOST_TOKENS:
        raise _wrong(option, value, f"a whole number from 1 to {MOST_TOKENS:,}")
    elif option is AGE and not 0 <= value <= OLDEST:
        raise _wrong(option, value, f"a number of years up to {OLDEST}")
    elif option is SEX and value not in ("male", "female"):
        raise _wrong(option, value, "male or female")
    elif option is IMAGE_TOKENS_READ and not re.fullmatch(IMAGE_TOKENS, value, re.ASCII):
        raise _wrong(option, value, "all, no-padding, or N or N:similarity with N from 160")
    elif option is JSON_SCHEMA:
        page_options.grammar_of(value)
    return value


def json_schema(text: str) -> Any:
    """Return the JSON Schema of a text. Raises UsageError."""
    if len(text) > json_grammar.MOST_BYTES:
        raise UsageError(f"json-schema: has more than {json_grammar.MOST_BYTES >> 20} MiB.")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as e:
        raise UsageError(f"json-schema: is no JSON that can be read ({e}). Correct it.") from None


def _wrong(option: Option, value: object, expected: str) -> UsageError:
    return UsageError(f"{option.name} {one_line(str(value))[:80]}: expected {expected}.")
