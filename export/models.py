"""Read models.yaml: a `ModelSpec` for each model, and a `Recipe` for each recipe.

A file with mistakes is refused with every mistake and its line. The YAML is read as nodes instead
of values: nodes keep their lines, doubled keys and the text as written. So nothing is lost to YAML
1.1's ideas of `no` (false), `2410.19008` (a number) or `010` (eight).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml

from pulse_edge.errors import CheckpointError, UsageError
from pulse_edge.kit.manifest import KeyCacheType
from pulse_edge.kit.prompt import TEMPLATES

T = TypeVar("T")
RECIPES = "recipes"
"""The one key of the file that is no model."""
MODELS = Path(__file__).resolve().parent.parent / "models.yaml"


@dataclass(frozen=True)
class ModelSpec:
    """One checkpoint that can be fetched and converted."""

    name: str
    """The entry's key: commands take it, and kits are named after it."""
    hub: str
    """Repository on the Hugging Face hub, owner/name."""
    revision: str
    """Commit hash in the repository, 40 lower-case hex digits."""
    licence: str
    """SPDX identifier of the weights' licence."""
    architecture: str
    """Class that the checkpoint's config.json must name under `architectures`."""
    bytes: int
    """Approximate size of the weights."""
    prompt: str
    """Conversation template, a key of pulse_edge.kit.prompt.TEMPLATES."""
    description: str
    """One sentence for people."""
    paper: str | None = None
    """Where the model was published."""
    training_data: str | None = None
    """What the model was trained on, and where that is."""
    benchmark: str | None = None
    """What the model is measured with, and where that is."""


@dataclass(frozen=True)
class Recipe:
    """How `export quantize` makes a kit: one of `llm`, `size` and `bpw`, and the result's gates."""

    name: str
    """The entry's key under `recipes`."""
    description: str
    """One sentence for people."""
    llm: str | None = None
    """Type of the whole language model, one of llama.cpp's."""
    size: int | None = None
    """Bytes of the whole kit."""
    bpw: float | None = None
    """Bits per weight of the language model."""
    vision: str | None = None
    """Type of the encoder."""
    key_cache_type: KeyCacheType | None = None
    """Type of the keys in the KV cache."""
    kld: float | None = None
    """Gate: largest mean KLD against the base, in nats."""
    cosine: float | None = None
    """Gate: least mean cosine of the encoder's image tokens with the base's."""
    gates: Mapping[str, float] | None = None
    """Gates of `calibration report --gates`, which knows their names."""


def load_models(path: Path = MODELS) -> dict[str, ModelSpec]:
    """Return name -> model, in the file's order.

    Raises CheckpointError for a file that cannot be read, and for one with mistakes: all of them,
    each with its line.
    """
    return _load(path, _models)


def load_recipes(path: Path = MODELS) -> dict[str, Recipe]:
    """Return name -> recipe, in the file's order. Raises as `load_models` does."""
    return _load(path, _recipes)


def _load(path: Path, part: Callable[[yaml.Node, list[_Mistake]], dict[str, T]]) -> dict[str, T]:
    mistakes: list[_Mistake] = []
    entries: dict[str, T] = {}
    try:
        entries = part(_compose(path.read_bytes().decode()), mistakes)
    except OSError as e:
        raise CheckpointError(
            f"{path}: {e.strerror or e}. It comes with the source: restore it."
        ) from e
    except UnicodeDecodeError as e:
        mistakes.append(_Mistake(e.object.count(b"\n", 0, e.start) + 1, "not UTF-8 text"))
    except _Mistake as e:
        mistakes.append(e)
    if mistakes:
        listed = "\n".join(f"{path}:{m.line}: {m}" for m in sorted(mistakes, key=lambda m: m.line))
        raise CheckpointError(
            f"{listed}\nCorrect the file; the comment on its top says what each field means."
        )
    return entries


def find(name: str, models: Mapping[str, T], what: str = "model") -> T:
    """Return the model or recipe of a name.

    Raises UsageError, with the names that come close, if there is none.
    """
    if name in models:
        return models[name]
    close = difflib.get_close_matches(name.lower(), models, cutoff=0.5)
    hint = (
        f"Did you mean {' or '.join(close)}?" if close else f"It has: {', '.join(sorted(models))}."
    )
    raise UsageError(f"models.yaml has no {what} {name!r}. {hint}")


# --- reading --------------------------------------------------------------------------------------


class _Mistake(Exception):
    """A mistake in the file, and its line."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line


def _compose(text: str) -> yaml.Node:
    """Return the document's root node.

    Raises _Mistake for anything but YAML, and for an empty file.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.reader.ReaderError as e:
        raise _Mistake(
            text.count("\n", 0, e.position) + 1, f"character {e.character!r} is not allowed"
        ) from None
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        raise _Mistake(
            mark.line + 1 if mark else 1, f"not YAML: {e.problem or e.context}"
        ) from None
    if root is None:
        raise _Mistake(1, "the file is empty, expected a mapping of names to models")
    return root


def _models(root: yaml.Node, mistakes: list[_Mistake]) -> dict[str, ModelSpec]:
    entries = _entries(root, "the file", mistakes)
    entries.pop(RECIPES, None)
    models = _named(entries, "model", _MODEL, lambda n, v: ModelSpec(name=n, **v), mistakes)
    if not models and not mistakes:
        mistakes.append(_Mistake(_line(root), "no model at all, expected at least one"))
    return models


def _recipes(root: yaml.Node, mistakes: list[_Mistake]) -> dict[str, Recipe]:
    entries = _entries(root, "the file", mistakes)
    if RECIPES not in entries:
        return {}
    listed = _entries(entries[RECIPES][1], RECIPES, mistakes)
    recipes = _named(listed, "recipe", _RECIPE, lambda n, v: Recipe(name=n, **v), mistakes)
    for name, recipe in recipes.items():
        if sum(value is not None for value in (recipe.llm, recipe.size, recipe.bpw)) != 1:
            mistakes.append(_Mistake(listed[name][0], f"{name}: expected one of llm, size and bpw"))
    return recipes


def _named(
    entries: Mapping[str, tuple[int, yaml.Node]],
    what: str,
    keys: _Known,
    make: Callable[[str, dict[str, Any]], T],
    mistakes: list[_Mistake],
) -> dict[str, T]:
    """Return a model or recipe for each entry without mistakes."""
    result = {}
    for name, (line, node) in entries.items():
        if not _NAME.fullmatch(name):
            expected = (
                "lower-case letters, digits, '.', '_' and '-', beginning with a letter or digit"
            )
            mistakes.append(_Mistake(line, f"{name!r} cannot name a {what}, expected {expected}"))
        elif (values := _values(name, line, node, keys, mistakes)) is not None:
            result[name] = make(name, values)
    return result


def _values(
    name: str, line: int, node: yaml.Node, keys: _Known, mistakes: list[_Mistake]
) -> dict[str, Any] | None:
    before = len(mistakes)
    entries = _entries(node, name, mistakes)
    values: dict[str, Any] = {}
    for key, (key_line, value) in entries.items():
        if key not in keys.fields:
            mistakes.append(_Mistake(key_line, f"{name}: unknown key {key!r}. {_close(key, keys)}"))
            continue
        try:
            values[key] = _numbers(value) if key == "gates" else keys.fields[key](_scalar(value))
        except ValueError as e:
            mistakes.append(_Mistake(_line(value), f"{name}: {key} {e}"))
    if isinstance(node, yaml.MappingNode) and (
        missing := [key for key in keys.needed if key not in entries]
    ):
        mistakes.append(_Mistake(line, f"{name}: lacks {', '.join(missing)}"))
    return values if len(mistakes) == before else None


def _entries(
    node: yaml.Node, what: str, mistakes: list[_Mistake]
) -> dict[str, tuple[int, yaml.Node]]:
    """Return key -> (its line, its value).

    Reports anything but a mapping, keys that are no words, and doubled keys.
    """
    entries: dict[str, tuple[int, yaml.Node]] = {}
    if not isinstance(node, yaml.MappingNode):
        mistakes.append(
            _Mistake(_line(node), f"{what} is not a mapping, expected lines of 'key: value'")
        )
        return entries
    for key_node, value in node.value:
        line = _line(key_node)
        try:
            key = _text(_scalar(key_node))
        except ValueError as e:
            mistakes.append(_Mistake(line, f"{what}: a key {e}"))
            continue
        if key in entries:
            mistakes.append(
                _Mistake(line, f"{what}: key {key!r} stands twice, first on line {entries[key][0]}")
            )
        else:
            entries[key] = (line, value)
    return entries


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _close(key: str, keys: _Known) -> str:
    close = difflib.get_close_matches(key, keys.fields)
    return f"Did you mean {close[0]}?" if close else f"Expected one of {', '.join(keys.fields)}"


# --- one value; every function raises ValueError saying what it is and what was expected ----------

_STR, _INT, _NULL, _MERGE = (
    f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "null", "merge")
)
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_REVISION = re.compile(r"[0-9a-fA-F]{40}")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HUB_PART = r"[A-Za-z0-9](?:[A-Za-z0-9_]|[.-](?![.-]))*(?<![.-])"
_HUB = re.compile(rf"{_HUB_PART}/{_HUB_PART}")
_DECIMAL = re.compile(r"[1-9][0-9]*")


def _scalar(node: yaml.Node) -> yaml.ScalarNode:
    if not isinstance(node, yaml.ScalarNode):
        raise ValueError("is a list or a mapping, expected a single value")
    return node


def _text(node: yaml.ScalarNode) -> str:
    text = str(node.value).strip()
    if node.tag == _NULL or not text:
        raise ValueError("is empty, expected text")
    if node.tag not in (_STR, _MERGE):  # `<<` is no key here: it is reported as an unknown one
        kind = node.tag.rpartition(":")[2]
        raise ValueError(f"is {text}, which YAML reads as {kind}, expected text: put it in quotes")
    return text


def _bytes(node: yaml.ScalarNode) -> int:
    text = str(node.value)
    # 1_000, 010 and 1:30 are numbers to YAML 1.1, and something else to 1.2 and to people.
    if node.tag != _INT or not _DECIMAL.fullmatch(text):
        raise ValueError(
            f"is {text!r}, expected a number of bytes in plain decimal digits, without quotes"
        )
    return int(text)


def _number(node: yaml.ScalarNode) -> float:
    text = str(node.value)
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) or node.tag == _STR:
        raise ValueError(f"is {text!r}, expected a number in decimal digits, without quotes")
    return float(text)


def _numbers(node: yaml.Node) -> dict[str, float]:
    if not isinstance(node, yaml.MappingNode) or not node.value:
        raise ValueError("is not a mapping, expected names of gates with a number each")
    numbers: dict[str, float] = {}
    for key, value in node.value:
        name = _text(_scalar(key))
        if name in numbers:
            raise ValueError(f"has {name} twice")
        try:
            numbers[name] = _number(_scalar(value))
        except ValueError as e:
            raise ValueError(f"has {name}, which {e}") from None
    return numbers


def _revision(node: yaml.ScalarNode) -> str:
    # A hash of digits alone is an int to YAML, and its text is still the hash.
    text = str(node.value)
    if not _REVISION.fullmatch(text):
        raise ValueError(
            f"is {text!r}, expected a full commit hash of 40 hex digits (branches and tags can "
            "move)"
        )
    return text.lower()


def _like(pattern: re.Pattern[str], expected: str) -> Callable[[yaml.ScalarNode], str]:
    def check(node: yaml.ScalarNode) -> str:
        text = _text(node)
        if not pattern.fullmatch(text):
            raise ValueError(f"is {text!r}, expected {expected}")
        return text

    return check


def _one_of(choices: Iterable[str]) -> Callable[[yaml.ScalarNode], str]:
    listed = sorted(choices)
    return _like(re.compile("|".join(map(re.escape, listed))), " or ".join(listed))


class _Known:
    """The keys of one kind of entry: how each value is read, and which ones are required."""

    def __init__(
        self, kind: type, readers: dict[str, Callable[[yaml.ScalarNode], str | int | float]]
    ) -> None:
        self.fields = readers
        self.needed = [f.name for f in fields(kind) if f.default is MISSING and f.name != "name"]


_MODEL_READERS: dict[str, Callable[[yaml.ScalarNode], str | int | float]] = {
    "hub": _like(_HUB, "a repository on the hub, owner/name"),
    "revision": _revision,
    "licence": _text,
    "architecture": _like(_IDENTIFIER, "the name of a class, such as LlavaLlamaForCausalLM"),
    "bytes": _bytes,
    "prompt": _one_of(TEMPLATES),
    "description": _text,
    "paper": _text,
    "training_data": _text,
    "benchmark": _text,
}
_RECIPE_READERS: dict[str, Callable[[yaml.ScalarNode], str | int | float]] = {
    "description": _text,
    "llm": _text,
    "size": _bytes,
    "bpw": _number,
    "vision": _text,
    "key_cache_type": _one_of(get_args(KeyCacheType)),
    "kld": _number,
    "cosine": _number,
    "gates": _number,  # for each name under it
}
_MODEL, _RECIPE = _Known(ModelSpec, _MODEL_READERS), _Known(Recipe, _RECIPE_READERS)
