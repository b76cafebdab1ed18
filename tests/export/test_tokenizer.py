"""The vocabulary of llm.gguf: the right tokens, types and ids for every form in which a
checkpoint carries its tokenizer."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import tiny
from gguf import TokenType
from tokenizer_folders import (
    BASE,
    CONTROL,
    PIECES,
    SIZE,
    USER,
    converted_by_llama_cpp,
    entry,
    lay,
    read,
    written,
)

from pulse_edge.errors import CheckpointError
from pulse_edge.inference.decoding import generate
from pulse_edge.inference.language_model import LanguageModel, Settings

DECODER = {str(i): entry(text) for i, text in enumerate(BASE)}
REPEATED = {i: (text, CONTROL) for i, text in enumerate(BASE)}

# Case -> (changes of each file; None: no such file, what differs from the plain vocabulary).
CASES: dict[str, tuple[dict[str, dict[str, Any] | None], dict[str, Any]]] = {
    "plain": ({}, {}),
    "added tokens repeat base tokens": (
        {"tokenizer_config.json": {"added_tokens_decoder": DECODER}},
        {"tokens": REPEATED},
    ),
    "added_tokens.json of base tokens": (
        {"added_tokens.json": {"</s>": 2, "<s>": 1, "<unk>": 0}},
        {"tokens": {i: (text, USER) for i, text in enumerate(BASE)}},
    ),
    "image and padding tokens in a padded vocabulary": (
        {
            "added_tokens.json": {"<image>": 400, "<pad>": 401},
            "tokenizer_config.json": {
                "added_tokens_decoder": DECODER | {"400": entry("<image>"), "401": entry("<pad>")},
                "pad_token": "<pad>",
            },
            "config.json": {"pad_token_id": 401},
        },
        {"tokens": REPEATED | {400: ("<image>", CONTROL), 401: ("<pad>", CONTROL)}, "pad": 401},
    ),
    "image token in added_tokens.json alone": (
        {
            "added_tokens.json": {"<image>": 400},
            "special_tokens_map.json": {"additional_special_tokens": ["<image>"]},
        },
        {"tokens": {400: ("<image>", USER)}},
    ),
    "words that are not special, and words that look it": (
        {
            "tokenizer_config.json": {
                "added_tokens_decoder": {
                    "400": entry("\u2581lead", special=False),
                    "401": entry("<|lead|>", special=False),
                    "999": entry("<beyond>"),
                }
            }
        },
        {"tokens": {400: (" lead", USER), 401: ("<|lead|>", CONTROL)}},
    ),
    "extra_special_tokens as a list": (
        {
            "tokenizer_config.json": {
                "extra_special_tokens": ["<s>", "</s>"],
                "add_prefix_space": None,
            }
        },
        {},
    ),
    "extra_special_tokens as an object": (
        {"tokenizer_config.json": {"extra_special_tokens": {"image_token": "<image>"}}},
        {},
    ),
    "special tokens as objects": (
        {
            "tokenizer_config.json": {
                "bos_token": entry("<s>"),
                "eos_token": entry("</s>"),
                "pad_token": None,
            },
            "special_tokens_map.json": {
                "bos_token": entry("<s>"),
                "eos_token": entry("</s>"),
                "pad_token": entry("<unk>"),
            },
        },
        {},
    ),
    "no tokenizer_config.json, no special_tokens_map.json": (
        {"tokenizer_config.json": None, "special_tokens_map.json": None},
        {},
    ),
    "legacy": ({"tokenizer_config.json": {"legacy": True}}, {}),
    "add_prefix_space is null": ({"tokenizer_config.json": {"add_prefix_space": None}}, {}),
    "add_prefix_space is true": ({"tokenizer_config.json": {"add_prefix_space": True}}, {}),
    "add_prefix_space is false": (
        {"tokenizer_config.json": {"add_prefix_space": False}},
        {"add_prefix": False},
    ),
    "add_bos_token is false": (
        {"tokenizer_config.json": {"add_bos_token": False}},
        {"add_bos": False},
    ),
    "several ends in config.json": (
        {"config.json": {"eos_token_id": [2, 117]}},
        {"ends": (2, 117)},
    ),
    "several ends in generation_config.json": (
        {"generation_config.json": {"eos_token_id": [117, 2, 301]}},
        {"ends": (2, 117, 301)},
    ),
    "bos and eos are null": (
        {
            "config.json": {"bos_token_id": None, "eos_token_id": None},
            "generation_config.json": None,
        },
        {},
    ),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    pieces = tiny.tokenizer(folder / "pieces.model")
    return tiny.checkpoint(folder / "checkpoint", "--vocabulary", str(SIZE), pieces=pieces)


@pytest.fixture(scope="module")
def folders(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("cases")
    return {
        name: lay(source, root / str(i), changes)
        for i, (name, (changes, _)) in enumerate(CASES.items())
    }


@pytest.mark.parametrize("case", CASES)
def test_a_tokenizer_becomes_its_vocabulary(case: str, folders: dict[str, Path]) -> None:
    vocabulary, plain = read(folders[case]), read(folders["plain"])
    expected = {
        "bos": 1,
        "ends": (2,),
        "unk": 0,
        "pad": 0,
        "add_prefix": True,
        "add_bos": True,
    } | CASES[case][1]
    tokens = expected.pop("tokens", {})
    assert {key: getattr(vocabulary, key) for key in expected} == expected
    assert len(vocabulary.tokens) == len(vocabulary.scores) == len(vocabulary.types) == SIZE
    assert (vocabulary.tokens[3], vocabulary.types[3], vocabulary.scores[3]) == (
        b"<0x00>",
        int(TokenType.BYTE),
        0.0,
    )
    for i in range(SIZE):
        text, kind = tokens.get(i, (None, None))
        if text is not None:
            assert (vocabulary.tokens[i].decode(), vocabulary.types[i], vocabulary.scores[i]) == (
                text,
                kind,
                -1000.0,
            )
        elif i >= PIECES:
            assert (vocabulary.tokens[i], vocabulary.types[i]) == (
                f"[PAD{i}]".encode(),
                int(TokenType.UNUSED),
            )
        else:
            assert (vocabulary.tokens[i], vocabulary.types[i], vocabulary.scores[i]) == (
                plain.tokens[i],
                plain.types[i],
                plain.scores[i],
            )


def test_vocabularies_are_those_of_llama_cpps_converter(folders: dict[str, Path]) -> None:
    converted_by_llama_cpp(list(folders.values()))
    for case, folder in folders.items():
        ours = read(folder)
        fields = gguf.GGUFReader(folder / "plain" / "theirs.gguf").fields
        theirs = {
            name.removeprefix("tokenizer.ggml."): field.contents() for name, field in fields.items()
        }
        assert [t.decode() for t in ours.tokens] == theirs["tokens"], case
        assert ours.types == theirs["token_type"], case
        assert np.array_equal(np.float32(ours.scores), np.float32(theirs["scores"])), case
        # It writes no id that is a list or null in config.json; llama.cpp then takes 1 and 2.
        assert ours.bos == theirs.get("bos_token_id", 1), case
        assert ours.ends[0] == theirs.get("eos_token_id", 2), case
        assert ours.pad == theirs.get("padding_token_id"), case
        assert ours.add_prefix == theirs.get("add_space_prefix", True), case
        assert ours.add_bos == theirs.get("add_bos_token", True), case


def test_an_answer_ends_on_any_of_several_ends(source: Path, tmp_path: Path) -> None:
    folder = lay(
        source, tmp_path / "case", {"generation_config.json": {"eos_token_id": [117, 301]}}
    )
    with closing(LanguageModel(written(source, folder), Settings(context=256, threads=1))) as model:

        def answer(token: int) -> list[int]:
            logits = np.full(SIZE, -9, np.float32)
            logits[token] = 9
            return [piece.token for piece in generate(model, logits, 1)]

        assert model.end == 2
        assert [answer(t) for t in (2, 117, 301)] == [[], [], []]
        assert answer(118) == [118]


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tokenizer.model": None}, r"tokenizer\.model: missing, and so is tokenizer\.json"),
        (
            {
                "config.json": {"bos_token_id": None},
                "tokenizer_config.json": {"bos_token": None},
                "special_tokens_map.json": None,
            },
            "bos_token_id is null, and the tokenizer names no bos_token",
        ),
        (
            {
                "config.json": {"eos_token_id": None},
                "tokenizer_config.json": {"eos_token": None},
                "special_tokens_map.json": None,
                "generation_config.json": None,
            },
            "eos_token_id is null, and the tokenizer names no eos_token",
        ),
        (
            {"config.json": {"eos_token_id": [2, 464]}},
            "eos_token_id 464 is beyond the vocabulary of 464",
        ),
        ({"config.json": {"eos_token_id": [2, 3, 4, 5]}}, "eos_token_id lists 4 ids .* room for 3"),
        (
            {"generation_config.json": {"eos_token_id": "2"}},
            "generation_config.json: eos_token_id is '2', expected a token id",
        ),
        ({"generation_config.json": {"repetition_penalty": 1.2}}, r"repetition_penalty is 1\.2"),
        ({"tokenizer_config.json": {"add_eos_token": True}}, "add_eos_token is True"),
        (
            {"tokenizer_config.json": {"add_bos_token": "yes"}},
            "add_bos_token is 'yes', expected true or false",
        ),
        (
            {"tokenizer_config.json": {"tokenizer_class": "GemmaTokenizer"}},
            "tokenizer_class is 'GemmaTokenizer'",
        ),
        (
            {"tokenizer_config.json": {"sp_model_kwargs": {"enable_sampling": True}}},
            "sp_model_kwargs",
        ),
        (
            {"special_tokens_map.json": {"eos_token": "<end>"}},
            "eos_token is '<end>', which is not in the vocabulary",
        ),
        (
            {"tokenizer_config.json": {"added_tokens_decoder": {"x": entry("a")}}},
            "the id of .* is 'x', expected a whole number",
        ),
        (
            {"tokenizer_config.json": {"added_tokens_decoder": {"3": "a"}}},
            "added token 'a' has no content",
        ),
        (
            {"tokenizer_config.json": {"added_tokens_decoder": {"3": {"content": "\ud800"}}}},
            "is no Unicode text",
        ),
        ({"added_tokens.json": {"<image>": -1}}, "the id of '<image>' is -1"),
        ({"added_tokens.json": {"<s>": 400}}, "doubled tokens: 1 and 400 are both '<s>'"),
        (
            {"tokenizer_config.json": {"legacy": True, "add_prefix_space": False}},
            "add_prefix_space is False, which transformers' two Llama tokenizers take differently",
        ),
    ],
)
def test_an_impossible_vocabulary_is_refused_by_name(
    changes: dict[str, dict[str, Any] | None], words: str, source: Path, tmp_path: Path
) -> None:
    folder = lay(source, tmp_path / "case", changes)
    with pytest.raises(CheckpointError, match=words):
        read(folder)
