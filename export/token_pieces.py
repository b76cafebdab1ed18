"""Read a tokenizer's pieces, without added tokens, from tokenizer.model or tokenizer.json."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import TokenType
from sentencepiece import sentencepiece_model_pb2

from export.keys import read_json, shown
from pulse_edge.errors import CheckpointError

_LAST = -1e9
"""Score of runs of spaces in Llama's tokenizer.model: they are merged when nothing else can be."""
SPACE = "\u2581"
_BYTE = re.compile("<0x[0-9A-F]{2}>")


@dataclass(frozen=True)
class Pieces:
    """A vocabulary without its added tokens, with ids from 0."""

    texts: list[str]
    scores: list[float]
    types: list[int]
    prefix: bool
    """Whether a text begins with a space that it does not have."""
    unk: int | None


def read_pieces(folder: Path, files: dict[str, Path]) -> tuple[Pieces, dict[str, Any] | None]:
    """Return the vocabulary, and the content of tokenizer.json if it exists."""
    listed = read_json(files["tokenizer.json"]) if "tokenizer.json" in files else None
    if "tokenizer.model" in files:
        pieces = _sentencepiece(files["tokenizer.model"])
        if listed is not None:
            _refuse_other(files["tokenizer.json"], listed, pieces)
        return pieces, listed
    if listed is None:
        raise CheckpointError(
            f"{folder / 'tokenizer.model'}: missing, and so is tokenizer.json. Fetch one of them "
            "from the base model."
        )
    try:
        return _listed_pieces(listed), listed
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        reason = str(e) if isinstance(e, ValueError) else f"its {e} cannot be read"
        raise CheckpointError(
            f"{files['tokenizer.json']}: not a Llama tokenizer of SentencePiece's kind ({reason}). "
            "Give the tokenizer.model of the base model; others cannot be converted."
        ) from None


def _sentencepiece(path: Path) -> Pieces:
    model = sentencepiece_model_pb2.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except OSError as e:
        raise CheckpointError(f"{path}: cannot be read ({e.strerror}).") from None
    except Exception as e:  # protobuf's DecodeError has no public base besides Exception
        raise CheckpointError(f"{path}: no SentencePiece model ({e}). Fetch it again.") from None
    if not model.pieces or model.trainer_spec.model_type != model.trainer_spec.BPE:
        raise CheckpointError(f"{path}: not a BPE model, which llama.cpp's llama tokenizer needs.")
    types = [int(p.type) for p in model.pieces]  # SentencePiece's numbers are GGUF's
    spec = model.normalizer_spec
    for fault, what in (
        (int(TokenType.UNKNOWN) not in types, "has no token for unknown text"),
        (types.count(int(TokenType.BYTE)) != 256, "has no tokens for single bytes"),
        (spec.remove_extra_whitespaces, "removes spaces from a text, which llama.cpp does not"),
        (
            bool(spec.precompiled_charsmap),
            f"normalises a text ({spec.name}), which llama.cpp does not",
        ),
    ):
        if fault:
            raise CheckpointError(f"{path}: {what}. It is not a Llama tokenizer.")
    texts, scores = [p.piece for p in model.pieces], [float(p.score) for p in model.pieces]
    unk = types.index(int(TokenType.UNKNOWN))
    return Pieces(texts, scores, types, bool(spec.add_dummy_prefix), unk)


def _refuse_other(path: Path, listed: dict[str, Any], pieces: Pieces) -> None:
    """Raise CheckpointError for a tokenizer.json with another vocabulary than tokenizer.model.

    Loaders take one or the other.
    """
    model, reason = listed.get("model"), ""
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if vocabulary != {text: i for i, text in enumerate(pieces.texts)}:
        reason = "its vocabulary is another one"
    else:
        try:
            _listed_prefix(listed)
        except (KeyError, TypeError, ValueError, AttributeError) as e:
            reason = str(e)
    if reason:
        raise CheckpointError(
            f"{path}: does not say what tokenizer.model says ({reason}). Remove the file that does "
            "not belong to the checkpoint."
        )


def _listed_pieces(raw: dict[str, Any]) -> Pieces:
    """Return the pieces of a tokenizer.json.

    Raises ValueError with the reason where it is no Llama tokenizer.
    """
    model = raw["model"]
    if model.get("type", "BPE") != "BPE" or not isinstance(model["vocab"], dict):
        raise ValueError(f"its model is {shown(model.get('type'))}, not BPE")
    if not model.get("byte_fallback"):
        raise ValueError("it has no tokens for single bytes")
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges"):
        if model.get(key):
            raise ValueError(f"{key} is {shown(model[key])}")
    texts = sorted(model["vocab"], key=model["vocab"].__getitem__)
    if [model["vocab"][t] for t in texts] != list(range(len(texts))):
        raise ValueError("its ids are not 0, 1, 2 and so on")
    types = [int(TokenType.BYTE if _BYTE.fullmatch(t) else TokenType.NORMAL) for t in texts]
    if types.count(int(TokenType.BYTE)) != 256:
        raise ValueError("it has no tokens for single bytes")
    special = {e["content"] for e in raw.get("added_tokens") or []}
    scores = _scores(model["merges"], texts, special)
    return Pieces(texts, scores, types, _listed_prefix(raw), None)


def _scores(merges: list[Any], texts: list[str], special: set[str]) -> list[float]:
    """Return scores by which llama.cpp merges in the order of `merges`.

    Where that is the order of ids, as in a SentencePiece model, they are its scores: minus the
    number of pieces before, behind the control and byte tokens; runs of spaces last where they come
    last.
    """
    ids = {text: i for i, text in enumerate(texts)}
    first, last, pairs = dict[str, int](), dict[str, int](), set[tuple[str, str]]()
    for rank, merge in enumerate(merges):
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        if left + right not in ids or left not in ids or right not in ids:
            raise ValueError(
                f"it merges {shown(left)} and {shown(right)}, which are not in its vocabulary"
            )
        first.setdefault(left + right, rank)
        last[left + right] = rank
        pairs.add((left, right))
    _refuse_unmergeable(ids, pairs, special)
    order = _order(first, last)
    runs = [t for t in first if set(t) == {SPACE}]
    behind = len(order)
    while behind and set(order[behind - 1][0]) == {SPACE}:
        behind -= 1
    # transformers 4 lists runs of spaces last, interleaved; transformers 5 by their ids.
    last_runs = any(len(group) > 1 for group in order) and sum(map(len, order[behind:])) == len(
        runs
    )
    single = order[:behind] if last_runs else order
    by_id = [ids[group[0]] for group in single]
    if any(len(group) > 1 for group in single) or by_id != sorted(by_id):
        ranks = {t: -float(n) for n, group in enumerate(order) for t in group}
        return [ranks.get(t, 0.0) for t in texts]
    lowest = next(
        (i for i, t in enumerate(texts) if t not in special and not _BYTE.fullmatch(t)), 0
    )
    return [
        0.0 if i < lowest else _LAST if last_runs and set(t) == {SPACE} else -float(i - lowest)
        for i, t in enumerate(texts)
    ]


def _refuse_unmergeable(
    ids: dict[str, int], pairs: set[tuple[str, str]], special: set[str]
) -> None:
    """Raise ValueError for a vocabulary with a pair that only llama.cpp would merge.

    llama.cpp looks at the result of a merge alone.
    """
    for text in ids:
        if text in special:
            continue
        for at in range(1, len(text)):
            left, right = text[:at], text[at:]
            mergeable = left in ids and right in ids and not {left, right} & special
            if mergeable and (left, right) not in pairs:
                raise ValueError(
                    f"it does not merge {shown(left)} and {shown(right)}, and has {shown(text)}"
                )


def _order(first: dict[str, int], last: dict[str, int]) -> list[list[str]]:
    """Return the pieces in the order in which they are merged.

    Pieces whose merges interleave share one group, if they are spaces.
    """
    groups, end = list[list[str]](), -1
    for text in sorted(first, key=first.__getitem__):
        if first[text] > end:
            groups.append([])
        groups[-1].append(text)
        end = max(end, last[text])
    for group in groups:
        if len(group) > 1 and set("".join(group)) != {SPACE}:
            raise ValueError(
                f"its merges of {shown(group[0])} and {shown(group[1])} have no order of pieces"
            )
    return groups


def _steps(part: Any, key: str) -> Iterator[dict[str, Any]]:
    """Yield the steps of a normalizer or pre-tokenizer, if there is one."""
    if part is not None:
        yield from part[key] if part["type"] == "Sequence" else [part]


def _listed_prefix(raw: dict[str, Any]) -> bool:
    """Return whether a space is put in front of a text.

    Raises ValueError for steps that SentencePiece does not have.
    """
    prefix, spaces = False, False
    for step in _steps(raw.get("normalizer"), "normalizers"):
        if step["type"] == "Prepend" and step["prepend"] == SPACE and not spaces:
            prefix = True
        elif (
            step["type"] == "Replace"
            and step["pattern"] == {"String": " "}
            and step["content"] == SPACE
        ):
            spaces = True
        else:
            raise ValueError(f"its normalizer is {shown(step)}")
    for step in _steps(raw.get("pre_tokenizer"), "pretokenizers"):
        if (
            step["type"] != "Metaspace"
            or step["replacement"] != SPACE
            or step.get("split", True)
            or spaces
        ):
            raise ValueError(f"its pre_tokenizer is {shown(step)}")
        prefix, spaces = step.get("prepend_scheme", "always") != "never", True
    if not spaces:
        raise ValueError("it has no step that makes spaces into pieces")
    return prefix
