"""The tokenizer's files -> a GGUF vocabulary of llama.cpp's `llama` type: tokens, scores, types, special ids.

The pieces come from tokenizer.model, or from a tokenizer.json that holds the same model in the form of Hugging Face's
tokenizers (transformers 5 writes nothing else). llama.cpp merges by score, tokenizers by a list of merges: a list that no
scores can stand for is refused.

Source of types and scores: llama.cpp's conversion/base.py (`_create_vocab_sentencepiece`) and gguf/vocab.py; a test compares
with it. Source of special ids and flags: transformers' LlamaTokenizer, of which LLaVA's loader makes the prompt.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import TokenType
from sentencepiece import sentencepiece_model_pb2

from pulse_edge.errors import CheckpointError

from .config import Config, token_ids
from .keys import check, read_json, shown

_FILES = (
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
)
_CLASSES = ("LlamaTokenizer", "LlamaTokenizerFast")
_GENERIC = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""Classes that take everything from tokenizer.json, its post-processor too."""
_DEFAULTS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": None}
"""LlamaTokenizer's own."""
_ENDS = 3
"""Ids that end an answer and that GGUF has a place for: eos, eot, eom."""
_ADDED = -1000.0
_PADDING = -10000.0
_LAST = -1e9
"""Score of runs of spaces in Llama's tokenizer.model: they are merged when nothing else can be."""
_SPACE = "\u2581"
_BYTE = re.compile("<0x[0-9A-F]{2}>")


@dataclass(frozen=True)
class Tokenizer:
    """What llm.gguf says of its vocabulary."""

    tokens: list[bytes]
    scores: list[float]
    types: list[int]
    add_prefix: bool
    """Whether a text begins with a space that it does not have."""
    add_bos: bool
    bos: int | None
    ends: tuple[int, ...]
    """Ids that end an answer, one to three; the tokenizer's own end of text first."""
    unk: int | None
    pad: int | None
    files: tuple[Path, ...]
    """What this was read from."""


@dataclass(frozen=True)
class _Pieces:
    """A vocabulary without its added tokens, ids from 0 on."""

    texts: list[str]
    scores: list[float]
    types: list[int]
    prefix: bool
    unk: int | None


def read(folder: Path, config: Config) -> Tokenizer:
    """The tokenizer of a checkpoint's folder. Raises CheckpointError for what cannot be converted, by name."""
    files = {name: folder / name for name in _FILES if (folder / name).is_file()}
    settings, wrong = _settings(files), list[str]()
    generation = (
        read_json(files["generation_config.json"]) if "generation_config.json" in files else {}
    )
    check(generation, ("generation", "any"), wrong, where="generation_config.json: ")
    if wrong:
        raise CheckpointError(f"{folder}: cannot be converted: {'; '.join(wrong)}.")
    pieces, listed = _pieces(folder, files)
    size = config.text.vocab_size
    if len(pieces.texts) > size:
        raise CheckpointError(
            f"{folder}: its tokenizer has {len(pieces.texts)} pieces, the model's vocabulary only {size}."
        )
    tokens, scores, types = _extended(
        pieces, size, _added(files, settings, listed, len(pieces.texts))
    )
    _refuse_doubled(folder, tokens)
    ids = {text: i for i, text in enumerate(tokens)}
    named = {key: _named(folder, key, settings, ids) for key in _DEFAULTS}
    add_bos = _flag(settings, "add_bos_token", _begins(settings, listed))
    bos = named["bos_token"] if named["bos_token"] is not None else config.bos
    stated = [*config.eos, *token_ids(generation.get("eos_token_id"))]
    ends = tuple(dict.fromkeys(i for i in (named["eos_token"], *stated) if i is not None))
    _refuse_ids(folder, size, bos if add_bos else None, ends, add_bos=add_bos)
    pads = (config.pad, named["pad_token"])
    return Tokenizer(
        tokens=tokens,
        scores=scores,
        types=types,
        add_prefix=_prefix(folder, settings, pieces, "tokenizer.model" in files),
        add_bos=add_bos,
        bos=bos,
        ends=ends,
        unk=pieces.unk if pieces.unk is not None else named["unk_token"],
        # The order is llama.cpp's.
        pad=next(
            (i for i in (pads[::-1] if listed else pads) if i is not None and 0 <= i < size), None
        ),
        files=tuple(files.values()),
    )


# --- settings and special tokens ------------------------------------------------------------------------------------


def _settings(files: dict[str, Path]) -> dict[str, Any]:
    """tokenizer_config.json with special_tokens_map.json in it, as transformers 4.57 joins them."""
    joined: dict[str, Any] = {}
    wrong: list[str] = []
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if name not in files:
            continue
        raw = read_json(files[name])
        check(raw, ("tokenizer",), wrong, where=f"{name}: ", unknown=True)
        if name == "tokenizer_config.json":
            joined = raw
        elif "added_tokens_decoder" in joined:  # written since 4.34, and then the map is not read
            joined = {k: v for k, v in raw.items() if k in _DEFAULTS} | joined
        else:
            joined = joined | {k: v for k, v in raw.items() if k in _DEFAULTS and v is not None}
    kind = joined.get("tokenizer_class")
    if not wrong and kind not in (None, *_CLASSES, *_GENERIC):
        wrong.append(
            f"tokenizer_config.json: tokenizer_class is {shown(kind)} (known: {', '.join(_CLASSES + _GENERIC)})"
        )
    if wrong:
        raise CheckpointError(
            f"{next(iter(files.values())).parent}: cannot be converted: {'; '.join(wrong)}."
        )
    return joined


def _flag(settings: dict[str, Any], key: str, default: bool) -> bool:
    value = settings.get(key)
    return default if value is None else bool(value)


def _begins(settings: dict[str, Any], listed: dict[str, Any] | None) -> bool:
    """Whether BOS comes first where add_bos_token does not say: LlamaTokenizer puts it there, whatever tokenizer.json says."""
    if listed is None or settings.get("tokenizer_class") not in _GENERIC:
        return True
    processor = listed.get("post_processor")
    steps = processor.get("processors", [processor]) if isinstance(processor, dict) else []
    templates = [
        s.get("single")
        for s in steps
        if isinstance(s, dict) and s.get("type") == "TemplateProcessing"
    ]
    return any(isinstance(t, list) and bool(t) and "SpecialToken" in t[0] for t in templates)


def _named(folder: Path, key: str, settings: dict[str, Any], ids: dict[bytes, int]) -> int | None:
    """The id of the token that the settings call `key`; None where they name none."""
    value = settings.get(key, _DEFAULTS[key])
    text = value["content"] if isinstance(value, dict) else value
    found = None if text is None else ids.get(text.encode())
    # A padding token that the vocabulary lacks is one that only training needed.
    if found is None and text is not None and settings.get(key) is not None and key != "pad_token":
        raise CheckpointError(
            f"{folder}: {key} is {shown(text)}, which is not in the vocabulary. Give the tokenizer that the checkpoint was "
            "trained with."
        )
    return found


def _refuse_ids(
    folder: Path, size: int, bos: int | None, ends: tuple[int, ...], *, add_bos: bool
) -> None:
    wrong = []
    if add_bos and bos is None:
        wrong.append("bos_token_id is null, and the tokenizer names no bos_token")
    if not ends:
        wrong.append("eos_token_id is null, and the tokenizer names no eos_token")
    if len(ends) > _ENDS:
        wrong.append(
            f"eos_token_id lists {len(ends)} ids ({shown(list(ends))}), and a kit has room for {_ENDS}"
        )
    for key, values in (
        ("bos_token_id", [bos] if bos is not None else []),
        ("eos_token_id", list(ends)),
    ):
        wrong += [f"{key} {i} is beyond the vocabulary of {size}" for i in values if i >= size]
    if wrong:
        raise CheckpointError(f"{folder}: cannot be converted: {'; '.join(wrong)}.")


def _prefix(folder: Path, settings: dict[str, Any], pieces: _Pieces, has_model: bool) -> bool:
    """Whether a text gets a space in front. null says nothing: then the pieces' own file decides."""
    wanted = _flag(settings, "add_prefix_space", pieces.prefix)
    reason = ""
    if wanted != pieces.prefix and not has_model:
        reason = "and tokenizer.json says otherwise; correct the one that is wrong"
    elif wanted != pieces.prefix and settings.get("legacy") is not False:
        reason = "which transformers' two Llama tokenizers take differently unless legacy is false; set legacy to false"
    if reason:
        raise CheckpointError(
            f"{folder}: tokenizer_config.json: add_prefix_space is {wanted}, {reason}."
        )
    return wanted


# --- added tokens ----------------------------------------------------------------------------------------------------


def _added(
    files: dict[str, Path], settings: dict[str, Any], listed: dict[str, Any] | None, base: int
) -> dict[int, tuple[str, bool]]:
    """Id -> (text, whether it is special). Later files win; tokenizer.json counts only for what no other one describes
    where tokenizer.model is there too, as in llama.cpp."""
    found: dict[int, tuple[str, bool]] = {}
    if "added_tokens.json" in files:
        for text, i in read_json(files["added_tokens.json"]).items():
            found[_token(files["added_tokens.json"], text, i)] = (
                _unicode(files["added_tokens.json"], text),
                False,
            )
    decoder = {}
    for i, entry in (settings.get("added_tokens_decoder") or {}).items():
        path = files["tokenizer_config.json"]
        decoder[_token(path, entry, i)] = _entry(path, entry)
    if listed is not None:
        path = files["tokenizer.json"]
        entries = listed.get("added_tokens") or []
        if not isinstance(entries, list):
            raise CheckpointError(
                f"{path}: added_tokens is {shown(entries)}, expected a list. Fetch it again."
            )
        for entry in entries:
            i = _token(path, entry, entry.get("id") if isinstance(entry, dict) else None)
            if "tokenizer.model" not in files or (i >= base and i not in found):
                found[i] = _entry(path, entry)
    return found | decoder


def _token(path: Path, of: Any, value: Any) -> int:
    """A token id, which is a number, or a number as text where it is a key."""
    if isinstance(value, str) and value.isdecimal() and len(value) < 10:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise CheckpointError(
            f"{path}: the id of {shown(of)} is {shown(value)}, expected a whole number. Fetch it again."
        )
    return value


def _entry(path: Path, entry: Any) -> tuple[str, bool]:
    if not isinstance(entry, dict) or not isinstance(entry.get("content"), str):
        raise CheckpointError(f"{path}: added token {shown(entry)} has no content. Fetch it again.")
    text = _unicode(path, entry["content"])
    special = bool(entry.get("special")) or _looks_special(text)
    return (text if special else text.replace(_SPACE, " ")), special


def _unicode(path: Path, text: str) -> str:
    """The text of a token. Raises CheckpointError for half a surrogate pair, which JSON can hold and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise CheckpointError(
            f"{path}: added token {shown(text)} is no Unicode text. Fetch it again."
        ) from None
    return text


def _looks_special(text: str) -> bool:
    """As llama.cpp's converter judges: forms like <|...|> and a few fixed words."""
    fixed = {"<pad>", "<mask>", "<2mass>", "[@BOS@]"}
    fenced = (text.startswith("<|") and text.endswith("|>")) or (
        text.startswith("<\uff5c") and text.endswith("\uff5c>")
    )
    return text in fixed or fenced or (text.startswith("<unused") and text.endswith(">"))


def _extended(
    pieces: _Pieces, size: int, added: dict[int, tuple[str, bool]]
) -> tuple[list[bytes], list[float], list[int]]:
    """Tokens, scores and types of the model's whole vocabulary. Added tokens beyond it have no weights: they are left out."""
    padding = range(len(pieces.texts), size)
    tokens = [text.encode() for text in pieces.texts] + [f"[PAD{i}]".encode() for i in padding]
    scores = pieces.scores + [_PADDING for _ in padding]
    types = pieces.types + [int(TokenType.UNUSED) for _ in padding]
    for i, (text, special) in added.items():
        if i < size:
            tokens[i], scores[i] = text.encode(), _ADDED
            types[i] = int(TokenType.CONTROL if special else TokenType.USER_DEFINED)
    return tokens, scores, types


def _refuse_doubled(folder: Path, tokens: list[bytes]) -> None:
    """llama.cpp stops the whole program at a vocabulary in which two tokens have one text."""
    if len(set(tokens)) == len(tokens):
        return
    first: dict[bytes, int] = {}
    wrong = [
        f"{first[t]} and {i} are both {shown(t.decode())}"
        for i, t in enumerate(tokens)
        if first.setdefault(t, i) != i
    ]
    raise CheckpointError(
        f"{folder}: its tokenizer has doubled tokens: {'; '.join(wrong[:5])}. Correct its added tokens."
    )


# --- pieces ----------------------------------------------------------------------------------------------------------


def _pieces(folder: Path, files: dict[str, Path]) -> tuple[_Pieces, dict[str, Any] | None]:
    """The vocabulary, and tokenizer.json's content where it is there."""
    listed = read_json(files["tokenizer.json"]) if "tokenizer.json" in files else None
    if "tokenizer.model" in files:
        pieces = _sentencepiece(files["tokenizer.model"])
        if listed is not None:
            _refuse_other(files["tokenizer.json"], listed, pieces)
        return pieces, listed
    if listed is None:
        raise CheckpointError(
            f"{folder / 'tokenizer.model'}: missing, and so is tokenizer.json. Fetch one of them from the base model."
        )
    try:
        return _listed_pieces(listed), listed
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        reason = str(e) if isinstance(e, ValueError) else f"its {e} cannot be read"
        raise CheckpointError(
            f"{files['tokenizer.json']}: not a Llama tokenizer of SentencePiece's kind ({reason}). Give the tokenizer.model "
            "of the base model; others cannot be converted."
        ) from None


def _sentencepiece(path: Path) -> _Pieces:
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
    return _Pieces(texts, scores, types, bool(spec.add_dummy_prefix), unk)


def _refuse_other(path: Path, listed: dict[str, Any], pieces: _Pieces) -> None:
    """Refuse a tokenizer.json that is not the tokenizer.model in another form: loaders take one or the other."""
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
            f"{path}: does not say what tokenizer.model says ({reason}). Remove the file that does not belong to the "
            "checkpoint."
        )


def _listed_pieces(raw: dict[str, Any]) -> _Pieces:
    """The pieces of a tokenizer.json. Raises ValueError with the reason where it is no Llama tokenizer."""
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
    return _Pieces(texts, scores, types, _listed_prefix(raw), None)


def _scores(merges: list[Any], texts: list[str], special: set[str]) -> list[float]:
    """Scores by which llama.cpp merges in the order of `merges`.

    Where that is the order of ids, as in a SentencePiece model, they are its scores: minus the number of pieces before,
    behind the control and byte tokens; runs of spaces last where they come last.
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
    runs = [t for t in first if set(t) == {_SPACE}]
    behind = len(order)
    while behind and set(order[behind - 1][0]) == {_SPACE}:
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
        0.0 if i < lowest else _LAST if last_runs and set(t) == {_SPACE} else -float(i - lowest)
        for i, t in enumerate(texts)
    ]


def _refuse_unmergeable(
    ids: dict[str, int], pairs: set[tuple[str, str]], special: set[str]
) -> None:
    """Refuse a vocabulary in which llama.cpp would merge two pieces that the list does not: it looks at the result alone."""
    for text in ids:
        if text in special:
            continue
        for at in range(1, len(text)):
            left, right = text[:at], text[at:]
            known = left in ids and right in ids and not {left, right} & special
            if known and (left, right) not in pairs:
                raise ValueError(
                    f"it does not merge {shown(left)} and {shown(right)}, and has {shown(text)}"
                )


def _order(first: dict[str, int], last: dict[str, int]) -> list[list[str]]:
    """Pieces in the order in which they are merged; those whose merges interleave have one place, if they are spaces."""
    groups, end = list[list[str]](), -1
    for text in sorted(first, key=first.__getitem__):
        if first[text] > end:
            groups.append([])
        groups[-1].append(text)
        end = max(end, last[text])
    for group in groups:
        if len(group) > 1 and set("".join(group)) != {_SPACE}:
            raise ValueError(
                f"its merges of {shown(group[0])} and {shown(group[1])} have no order of pieces"
            )
    return groups


def _steps(part: Any, key: str) -> Iterator[dict[str, Any]]:
    """A normalizer's or pre-tokenizer's steps; none where there is none."""
    if part is not None:
        yield from part[key] if part["type"] == "Sequence" else [part]


def _listed_prefix(raw: dict[str, Any]) -> bool:
    """Whether a space is put in front of a text; ValueError for what SentencePiece does not do."""
    prefix, spaces = False, False
    for step in _steps(raw.get("normalizer"), "normalizers"):
        if step["type"] == "Prepend" and step["prepend"] == _SPACE and not spaces:
            prefix = True
        elif (
            step["type"] == "Replace"
            and step["pattern"] == {"String": " "}
            and step["content"] == _SPACE
        ):
            spaces = True
        else:
            raise ValueError(f"its normalizer is {shown(step)}")
    for step in _steps(raw.get("pre_tokenizer"), "pretokenizers"):
        if (
            step["type"] != "Metaspace"
            or step["replacement"] != _SPACE
            or step.get("split", True)
            or spaces
        ):
            raise ValueError(f"its pre_tokenizer is {shown(step)}")
        prefix, spaces = step.get("prepend_scheme", "always") != "never", True
    if not spaces:
        raise ValueError("it has no step that makes spaces into pieces")
    return prefix
