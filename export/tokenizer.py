"""Read the tokenizer's files into a GGUF vocabulary of llama.cpp's `llama` type.

It has tokens, scores, types and special ids. The pieces come from tokenizer.model, or from a
tokenizer.json that holds the same model in the form of Hugging Face's tokenizers (transformers 5
writes nothing else). llama.cpp merges by score, tokenizers by a list of merges: a list that no
scores can express is refused.

Source of types and scores: llama.cpp's conversion/base.py (`_create_vocab_sentencepiece`) and
gguf/vocab.py; a test compares with it. Source of special ids and flags: transformers'
LlamaTokenizer, with which LLaVA's loader makes the prompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import TokenType

from export.config import Config, token_ids
from export.keys import check, read_json, shown
from export.token_pieces import SPACE, Pieces, read_pieces
from pulse_edge.errors import CheckpointError

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
"""LlamaTokenizer's own special tokens."""
_ENDS = 3
"""Number of ids that end an answer and for which GGUF has a key: eos, eot, eom."""
_ADDED = -1000.0
_PADDING = -10000.0


@dataclass(frozen=True)
class Tokenizer:
    """What llm.gguf states of its vocabulary."""

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
    """The files that were read."""


def read(folder: Path, config: Config) -> Tokenizer:
    """Read the tokenizer of a checkpoint's folder.

    Raises CheckpointError that names what cannot be converted.
    """
    files = {name: folder / name for name in _FILES if (folder / name).is_file()}
    settings, wrong = _settings(files), list[str]()
    generation = (
        read_json(files["generation_config.json"]) if "generation_config.json" in files else {}
    )
    check(generation, ("generation", "any"), wrong, where="generation_config.json: ")
    if wrong:
        raise CheckpointError(f"{folder}: cannot be converted: {'; '.join(wrong)}.")
    pieces, listed = read_pieces(folder, files)
    size = config.text.vocab_size
    if len(pieces.texts) > size:
        raise CheckpointError(
            f"{folder}: its tokenizer has {len(pieces.texts)} pieces, the model's vocabulary only "
            f"{size}."
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


# --- settings and special tokens ------------------------------------------------------------------


def _settings(files: dict[str, Path]) -> dict[str, Any]:
    """Return tokenizer_config.json joined with special_tokens_map.json.

    Both are joined as by transformers 4.57.
    """
    joined: dict[str, Any] = {}
    wrong: list[str] = []
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if name not in files:
            continue
        raw = read_json(files[name])
        check(raw, ("tokenizer",), wrong, where=f"{name}: ", unknown=True)
        if name == "tokenizer_config.json":
            joined = raw
        elif "added_tokens_decoder" in joined:  # Written since 4.34, and then the map is not read.
            joined = {k: v for k, v in raw.items() if k in _DEFAULTS} | joined
        else:
            joined = joined | {k: v for k, v in raw.items() if k in _DEFAULTS and v is not None}
    kind = joined.get("tokenizer_class")
    if not wrong and kind not in (None, *_CLASSES, *_GENERIC):
        wrong.append(
            f"tokenizer_config.json: tokenizer_class is {shown(kind)} (known: "
            f"{', '.join(_CLASSES + _GENERIC)})"
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
    """Return whether BOS comes first where add_bos_token does not say.

    LlamaTokenizer puts it there, whatever tokenizer.json says.
    """
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
    """Return the id of the token that the settings call `key`; None where they name none."""
    value = settings.get(key, _DEFAULTS[key])
    text = value["content"] if isinstance(value, dict) else value
    token = None if text is None else ids.get(text.encode())
    # A padding token that the vocabulary lacks was needed by training only.
    if token is None and text is not None and settings.get(key) is not None and key != "pad_token":
        raise CheckpointError(
            f"{folder}: {key} is {shown(text)}, which is not in the vocabulary. Give the tokenizer "
            "that the checkpoint was trained with."
        )
    return token


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
            f"eos_token_id lists {len(ends)} ids ({shown(list(ends))}), and a kit has room for "
            f"{_ENDS}"
        )
    for key, values in (
        ("bos_token_id", [bos] if bos is not None else []),
        ("eos_token_id", list(ends)),
    ):
        wrong += [f"{key} {i} is beyond the vocabulary of {size}" for i in values if i >= size]
    if wrong:
        raise CheckpointError(f"{folder}: cannot be converted: {'; '.join(wrong)}.")


def _prefix(folder: Path, settings: dict[str, Any], pieces: Pieces, has_model: bool) -> bool:
    """Return whether a space is put in front of a text.

    null says nothing: then the file of the pieces decides.
    """
    prefix = _flag(settings, "add_prefix_space", pieces.prefix)
    reason = ""
    if prefix != pieces.prefix and not has_model:
        reason = "and tokenizer.json says otherwise; correct the one that is wrong"
    elif prefix != pieces.prefix and settings.get("legacy") is not False:
        reason = (
            "which transformers' two Llama tokenizers take differently unless legacy is false; "
            "set legacy to false"
        )
    if reason:
        raise CheckpointError(
            f"{folder}: tokenizer_config.json: add_prefix_space is {prefix}, {reason}."
        )
    return prefix


# --- added tokens ---------------------------------------------------------------------------------


def _added(
    files: dict[str, Path], settings: dict[str, Any], listed: dict[str, Any] | None, base: int
) -> dict[int, tuple[str, bool]]:
    """Return the added tokens, id -> (text, whether it is special). Later files win.

    If tokenizer.model exists too, tokenizer.json counts only for tokens that no other file
    describes, as in llama.cpp.
    """
    tokens: dict[int, tuple[str, bool]] = {}
    if "added_tokens.json" in files:
        for text, i in read_json(files["added_tokens.json"]).items():
            tokens[_token(files["added_tokens.json"], text, i)] = (
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
            if "tokenizer.model" not in files or (i >= base and i not in tokens):
                tokens[i] = _entry(path, entry)
    return tokens | decoder


def _token(path: Path, of: Any, value: Any) -> int:
    """Read a token id: a number, or a number as text if it is a key."""
    if isinstance(value, str) and value.isdecimal() and len(value) < 10:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise CheckpointError(
            f"{path}: the id of {shown(of)} is {shown(value)}, expected a whole number. Fetch it "
            "again."
        )
    return value


def _entry(path: Path, entry: Any) -> tuple[str, bool]:
    if not isinstance(entry, dict) or not isinstance(entry.get("content"), str):
        raise CheckpointError(f"{path}: added token {shown(entry)} has no content. Fetch it again.")
    text = _unicode(path, entry["content"])
    special = bool(entry.get("special")) or _looks_special(text)
    return (text if special else text.replace(SPACE, " ")), special


def _unicode(path: Path, text: str) -> str:
    """Return the text of a token.

    Raises CheckpointError for half a surrogate pair, which JSON can hold and UTF-8 cannot.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise CheckpointError(
            f"{path}: added token {shown(text)} is no Unicode text. Fetch it again."
        ) from None
    return text


def _looks_special(text: str) -> bool:
    """Whether llama.cpp's converter takes a text for special: <|...|> and a few fixed words."""
    fixed = {"<pad>", "<mask>", "<2mass>", "[@BOS@]"}
    fenced = (text.startswith("<|") and text.endswith("|>")) or (
        text.startswith("<\uff5c") and text.endswith("\uff5c>")
    )
    return text in fixed or fenced or (text.startswith("<unused") and text.endswith(">"))


def _extended(
    pieces: Pieces, size: int, added: dict[int, tuple[str, bool]]
) -> tuple[list[bytes], list[float], list[int]]:
    """Return tokens, scores and types of the model's whole vocabulary.

    Added tokens beyond it have no weights and are dropped.
    """
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
    """Raise CheckpointError for two tokens with one text.

    llama.cpp stops the whole program at such a vocabulary.
    """
    if len(set(tokens)) == len(tokens):
        return
    first: dict[bytes, int] = {}
    wrong = [
        f"{first[t]} and {i} are both {shown(t.decode())}"
        for i, t in enumerate(tokens)
        if first.setdefault(t, i) != i
    ]
    raise CheckpointError(
        f"{folder}: its tokenizer has doubled tokens: {'; '.join(wrong[:5])}. Correct its added "
        "tokens."
    )
