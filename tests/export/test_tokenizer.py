"""The vocabulary of llm.gguf: the right tokens, types and ids for every form in which a checkpoint carries its tokenizer."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import tiny
from gguf import TokenType
from llama_cpp_tools import llama_cpp_converter
from transformers import LlamaTokenizerFast

from export import llm, tokenizer
from export.checkpoint import Checkpoint
from export.config import read_config
from pulse_edge.errors import CheckpointError
from pulse_edge.inference.decoding import generate
from pulse_edge.inference.language_model import LanguageModel, Settings

PIECES, SIZE = 400, 464
"""Of the small model, and of the vocabulary that is padded beyond them."""
BASE = ["<unk>", "<s>", "</s>"]
TEXTS = (
    "A chat between a curious human and an artificial intelligence assistant. USER: ",
    "\nIs the rhythm regular?   No, \u00e9\u4e2d\U0001f600 it is\tnot.\n\n  - two  spaces "
    "ASSISTANT:",
)


def entry(text: str, *, special: bool = True) -> dict[str, Any]:
    return {
        "content": text,
        "lstrip": False,
        "normalized": False,
        "rstrip": False,
        "special": special,
    }


DECODER = {str(i): entry(text) for i, text in enumerate(BASE)}
CONTROL, USER = int(TokenType.CONTROL), int(TokenType.USER_DEFINED)
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


def lay(source: Path, out: Path, changes: dict[str, dict[str, Any] | None]) -> Path:
    """A copy of a checkpoint without its weights, with other values in its JSON files."""
    shutil.copytree(source, out, ignore=shutil.ignore_patterns("*.safetensors", "*.index.json"))
    for name, change in changes.items():
        if change is None:
            (out / name).unlink()
        else:
            raw = json.loads((out / name).read_text()) if (out / name).exists() else {}
            (out / name).write_text(json.dumps(raw | change))
    return out


def read(folder: Path) -> tokenizer.Tokenizer:
    return tokenizer.read(folder, read_config(folder / "config.json", tower_dir=None))


def written(source: Path, folder: Path) -> Path:
    """llm.gguf of the weights of `source` with the tokenizer of `folder`."""
    config = read_config(folder / "config.json", tower_dir=None)
    checkpoint = Checkpoint(source, config, tower_dir=None)
    llm.write(
        checkpoint,
        folder / "llm.gguf",
        "f16",
        llm.About("tiny", "", "", ""),
        vocabulary=read(folder),
    )
    return folder / "llm.gguf"


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
    found, plain = read(folders[case]), read(folders["plain"])
    expected = {
        "bos": 1,
        "ends": (2,),
        "unk": 0,
        "pad": 0,
        "add_prefix": True,
        "add_bos": True,
    } | CASES[case][1]
    tokens = expected.pop("tokens", {})
    assert {key: getattr(found, key) for key in expected} == expected
    assert len(found.tokens) == len(found.scores) == len(found.types) == SIZE
    assert (found.tokens[3], found.types[3], found.scores[3]) == (
        b"<0x00>",
        int(TokenType.BYTE),
        0.0,
    )
    for i in range(SIZE):
        text, kind = tokens.get(i, (None, None))
        if text is not None:
            assert (found.tokens[i].decode(), found.types[i], found.scores[i]) == (
                text,
                kind,
                -1000.0,
            )
        elif i >= PIECES:
            assert (found.tokens[i], found.types[i]) == (
                f"[PAD{i}]".encode(),
                int(TokenType.UNUSED),
            )
        else:
            assert (found.tokens[i], found.types[i], found.scores[i]) == (
                plain.tokens[i],
                plain.types[i],
                plain.scores[i],
            )


MANY = """
import runpy, sys
converter, pairs = sys.argv[1], sys.argv[2:]
sys.path.insert(0, converter.rsplit("/", 1)[0])
for folder in pairs:
    sys.argv = [converter, folder, "--vocab-only", "--outfile", folder + "/theirs.gguf"]
    runpy.run_path(converter, run_name="__main__")
"""


def converted_by_llama_cpp(folders: list[Path]) -> None:
    """theirs.gguf in each folder, as llama.cpp's own converter writes a plain Llama's vocabulary."""
    try:
        converter = llama_cpp_converter()
    except subprocess.CalledProcessError as e:
        pytest.skip(f"the source distribution cannot be had: {e.stderr[-200:]}")
    places = []
    for folder in folders:
        plain = Path(
            shutil.copytree(
                folder, folder / "plain", ignore=shutil.ignore_patterns("plain", "*.gguf")
            )
        )
        config = json.loads((plain / "config.json").read_text())
        config = {k: v for k, v in config.items() if not k.startswith(("mm_", "image_"))}
        (plain / "config.json").write_text(
            json.dumps(config | {"architectures": ["LlamaForCausalLM"], "model_type": "llama"})
        )
        places.append(str(plain))
    subprocess.run(
        [sys.executable, "-c", MANY, str(converter), *places], check=True, capture_output=True
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


# --- tokenizer.json -------------------------------------------------------------------------------


def listed(folder: Path, **settings: Any) -> Path:
    """Put a tokenizer.json beside the tokenizer.model, as transformers 4 saves one."""
    raw = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(raw | settings))
    LlamaTokenizerFast.from_pretrained(folder).save_pretrained(folder)
    return folder


def as_transformers_5(folder: Path) -> Path:
    """Rewrite tokenizer.json and tokenizer_config.json as transformers 5 does, which knows no other form."""
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
    """Ids by Hugging Face's tokenizers, which read tokenizer.json; text that looks like a special token stays text."""
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
    found = read(folder)
    assert (found.bos, found.ends, found.add_bos) == (1, (2,), True)
    assert found.add_prefix == (form != "transformers 4, no space in front")
    assert found.types[:3] == [CONTROL] * 3
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
    found = read(folder)
    assert (found.tokens[PIECES], found.types[PIECES]) == (b"<image>", CONTROL)
    assert found.types[:3] == [
        int(TokenType.UNKNOWN),
        CONTROL,
        CONTROL,
    ]  # as llama.cpp's converter leaves them


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
def test_what_cannot_be_a_vocabulary_is_refused_by_name(
    changes: dict[str, dict[str, Any] | None], words: str, source: Path, tmp_path: Path
) -> None:
    folder = lay(source, tmp_path / "case", changes)
    with pytest.raises(CheckpointError, match=words):
        read(folder)
