"""A tokenizer.json alone or next to tokenizer.model: same ids, or refused with the reason."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import gguf
import pytest
import tiny
from gguf import TokenType
from tokenizer_folders import (
    CONTROL,
    PIECES,
    SIZE,
    TEXTS,
    converted_by_llama_cpp,
    entry,
    lay,
    read,
    written,
)
from transformers import LlamaTokenizerFast

from pulse_edge.errors import CheckpointError
from pulse_edge.inference.language_model import LanguageModel, Settings


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    pieces = tiny.tokenizer(folder / "pieces.model")
    return tiny.checkpoint(folder / "checkpoint", "--vocabulary", str(SIZE), pieces=pieces)


def listed(folder: Path, **settings: Any) -> Path:
    """Put a tokenizer.json next to the tokenizer.model, as transformers 4 saves one."""
    raw = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(raw | settings))
    LlamaTokenizerFast.from_pretrained(folder).save_pretrained(folder)
    return folder


def as_transformers_5(folder: Path) -> Path:
    """Rewrite tokenizer.json and tokenizer_config.json as transformers 5 does, which knows no
    other form."""
    raw = json.loads((folder / "tokenizer.json").read_text())
    ids = raw["model"]["vocab"]
    raw["model"]["merges"].sort(key=lambda pair: ids[pair[0] + pair[1]])
    raw["model"]["unk_token"] = None
    raw["normalizer"] = None
    raw["pre_tokenizer"] = {
        "type": "Metaspace",
        "replacement": "\u2581",
        "prepend_scheme": "first",
        "split": False,
    }
    raw["post_processor"]["single"] = raw["post_processor"]["single"][-1:]
    (folder / "tokenizer.json").write_text(json.dumps(raw))
    settings = {
        "backend": "tokenizers",
        "tokenizer_class": "LlamaTokenizer",
        "add_prefix_space": None,
    }
    settings |= {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "extra_special_tokens": ["<s>", "</s>"],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    return folder


FORMS: dict[str, Callable[[Path], Path]] = {
    "transformers 4": lambda folder: listed(folder, legacy=False),
    "transformers 4, legacy": lambda folder: listed(folder, legacy=True),
    "transformers 4, no space in front": lambda folder: listed(
        folder, legacy=False, add_prefix_space=False
    ),
    "transformers 5": lambda folder: as_transformers_5(listed(folder, legacy=False)),
}


def alone(source: Path, out: Path, form: str) -> Path:
    """A folder with tokenizer.json, and without tokenizer.model."""
    folder = FORMS[form](lay(source, out, {}))
    (folder / "tokenizer.model").unlink()
    return folder


def encoded(folder: Path, texts: list[str]) -> list[list[int]]:
    """Ids by Hugging Face's tokenizers, which read tokenizer.json; text that looks like a
    special token stays text."""
    from tokenizers import Tokenizer

    raw = json.loads((folder / "tokenizer.json").read_text()) | {
        "added_tokens": [],
        "post_processor": None,
    }
    model = Tokenizer.from_str(json.dumps(raw))
    return [model.encode(text, add_special_tokens=False).ids for text in texts]


def sample() -> list[str]:
    draw = random.Random(16)
    letters = "  \n\tabcdehiklnorstu.,-\u00e9\u4e2d\U0001f600</s>"
    drawn = ["x" + "".join(draw.choices(letters, k=draw.randint(1, 60))) for _ in range(300)]
    return [*TEXTS, *tiny.SENTENCES, *drawn, *("x" + n * " " + "y" for n in range(1, 40))]


@pytest.mark.parametrize("form", FORMS)
def test_tokenizer_json_alone_gives_the_same_ids_as_hugging_faces_tokenizers(
    form: str, source: Path, tmp_path: Path
) -> None:
    folder = alone(source, tmp_path / "case", form)
    vocabulary = read(folder)
    assert (vocabulary.bos, vocabulary.ends, vocabulary.add_bos) == (1, (2,), True)
    assert vocabulary.add_prefix == (form != "transformers 4, no space in front")
    assert vocabulary.types[:3] == [CONTROL] * 3
    texts = sample()
    with closing(LanguageModel(written(source, folder), Settings(context=256, threads=1))) as model:
        assert [model.tokenize(text, first=False) for text in texts] == encoded(folder, texts)
        assert model.tokenize("x", first=True)[0] == 1


def test_tokenizer_json_alone_has_the_tokens_and_types_of_llama_cpps_converter(
    source: Path, tmp_path: Path
) -> None:
    folders = [
        alone(source, tmp_path / form[-1], form) for form in ("transformers 4", "transformers 5")
    ]
    for folder in folders:
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        settings["extra_special_tokens"] = {}  # the converter's transformers does not read a list
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    converted_by_llama_cpp(folders)
    for folder in folders:
        ours, fields = read(folder), gguf.GGUFReader(folder / "plain" / "theirs.gguf").fields
        assert [t.decode() for t in ours.tokens[:PIECES]] == fields[
            "tokenizer.ggml.tokens"
        ].contents()
        assert (
            ours.types[:PIECES] == fields["tokenizer.ggml.token_type"].contents()
        )  # its scores are all -1000


def test_scores_of_tokenizer_json_are_those_of_the_tokenizer_model(
    shared: Path, tmp_path: Path
) -> None:
    source = tiny.checkpoint(tmp_path / "source", pieces=shared / "tokenizer" / "tokenizer.model")
    first = read(source)
    for form in ("transformers 4", "transformers 5"):
        second = read(alone(source, tmp_path / form, form))
        assert second.tokens == first.tokens
        runs = [i for i, token in enumerate(first.tokens) if set(token.decode()) == {"\u2581"}]
        differ = [
            i for i, (a, b) in enumerate(zip(first.scores, second.scores, strict=True)) if a != b
        ]
        # transformers 5 loses what it means that runs of spaces come last.
        assert differ == ([0, 1, 2] if form == "transformers 4" else [0, 1, 2, *runs])


def edited(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    raw = json.loads((folder / "tokenizer.json").read_text())
    change(raw)
    (folder / "tokenizer.json").write_text(json.dumps(raw))


def _swap(raw: dict[str, Any]) -> None:
    merges = raw["model"]["merges"]
    merges.insert(0, merges.pop(40))
    merges.append(merges.pop(2))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda raw: raw["model"].update(type="Unigram"), "its model is 'Unigram', not BPE"),
        (lambda raw: raw["model"].update(byte_fallback=False), "no tokens for single bytes"),
        (lambda raw: raw["model"].update(ignore_merges=True), "ignore_merges is True"),
        (lambda raw: raw["model"]["vocab"].update({"<0x41>": 9999}), "ids are not 0, 1, 2"),
        (lambda raw: raw["model"]["merges"].pop(20), "does not merge"),
        (lambda raw: raw["model"]["merges"].append(["q", "q"]), "not in its vocabulary"),
        (lambda raw: raw.update(normalizer={"type": "NFKC"}), "its normalizer is {'type': 'NFKC'}"),
        (
            lambda raw: raw.update(pre_tokenizer={"type": "ByteLevel"}),
            "its pre_tokenizer is {'type': 'ByteLevel'}",
        ),
        (lambda raw: raw.update(pre_tokenizer=None), "no step that makes spaces into pieces"),
        (lambda raw: raw.pop("model"), "'model' cannot be read"),
    ],
)
def test_a_tokenizer_json_of_another_kind_is_refused_with_the_reason(
    change: Callable[[dict[str, Any]], Any], words: str, source: Path, tmp_path: Path
) -> None:
    folder = alone(source, tmp_path / "case", "transformers 5")
    edited(folder, change)
    with pytest.raises(
        CheckpointError, match="not a Llama tokenizer of SentencePiece's kind"
    ) as refusal:
        read(folder)
    assert words in str(refusal.value)


def test_merges_in_another_order_than_ids_still_give_hugging_faces_ids(
    source: Path, tmp_path: Path
) -> None:
    folder = alone(source, tmp_path / "case", "transformers 4")

    def reverse(
        raw: dict[str, Any],
    ) -> None:  # pieces of two letters need no others: their merges may come in any order
        merges = raw["model"]["merges"]
        short = [m for m in merges if len(m[0] + m[1]) == 2]
        raw["model"]["merges"] = short[::-1] + [m for m in merges if len(m[0] + m[1]) > 2]

    before = encoded(folder, sample())
    edited(folder, reverse)
    after = encoded(folder, sample())
    assert before != after
    with closing(LanguageModel(written(source, folder), Settings(context=256, threads=1))) as model:
        assert [model.tokenize(text, first=False) for text in sample()] == after


def test_both_files_must_say_the_same(source: Path, tmp_path: Path) -> None:
    folder = listed(lay(source, tmp_path / "case", {}), legacy=False)
    assert {path.name for path in read(folder).files} >= {"tokenizer.model", "tokenizer.json"}
    edited(folder, lambda raw: raw.update(normalizer={"type": "Lowercase"}))
    with pytest.raises(
        CheckpointError, match=r"does not say what tokenizer\.model says \(its normalizer"
    ):
        read(folder)
    edited(folder, lambda raw: raw["model"]["vocab"].pop("<0x41>"))
    with pytest.raises(
        CheckpointError,
        match=r"its vocabulary is another one.*Remove the file that does not belong",
    ):
        read(folder)


def test_tokenizer_json_describes_tokens_behind_the_pieces(source: Path, tmp_path: Path) -> None:
    folder = as_transformers_5(listed(lay(source, tmp_path / "case", {}), legacy=False))
    edited(folder, lambda raw: raw["added_tokens"].append(entry("<image>") | {"id": PIECES}))
    vocabulary = read(folder)
    assert (vocabulary.tokens[PIECES], vocabulary.types[PIECES]) == (b"<image>", CONTROL)
    assert vocabulary.types[:3] == [
        int(TokenType.UNKNOWN),
        CONTROL,
        CONTROL,
    ]  # as llama.cpp's converter leaves them
