"""Compare what a kit states: keys, tokens, manifest, newline and the token ids of prompts."""

from __future__ import annotations

import tempfile
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from export.llm_logits import write_layers
from export.parity.gates import refuse
from export.reference import Reference, expect, words
from pulse_edge.errors import ParityError
from pulse_edge.inference.language_model import LanguageModel, Settings
from pulse_edge.kit import prompt
from pulse_edge.kit.manifest import Manifest

ROPE = "rope_freqs.weight"
_DISAGREES = "does not say what the source files say"


def compare(reference: Reference, kit: Path, manifest: Manifest) -> dict[str, Any]:
    """Compare the GGUF's keys and tokens, the manifest and the newline with the source files."""
    path = kit / manifest.language.file
    reader = gguf.GGUFReader(path)
    fields = reader.fields
    wrong, texts = _compare_keys(reference, manifest, fields)
    factors = next((np.array(t.data) for t in reader.tensors if t.name == ROPE), None)
    wrong += expect.rope(
        reference, {n: fields[n].contents() for n in expect.SCALED if n in fields}, factors
    )
    del reader
    scores, types = (fields[f"tokenizer.ggml.{x}"].contents() for x in ("scores", "token_type"))
    wrong += expect.tokens(reference, texts, scores, types)
    wrong += expect.chat(str(fields["tokenizer.chat_template"].contents()), "<s>")
    refuse(manifest.language.file, wrong, _DISAGREES)
    expected = expect.manifest(reference, manifest.language.type)
    refuse("manifest.json", _differences(expected, manifest), _DISAGREES)
    _compare_newline(reference, kit, manifest)
    return {
        "keys": len(fields),
        "tokens": len(texts),
        "manifest_fields": len(expected),
        "equal": True,
    }


def _compare_keys(
    reference: Reference, manifest: Manifest, fields: Any
) -> tuple[list[str], list[bytes]]:
    """Return the mistakes in the GGUF's keys, and its list of tokens."""
    expected = expect.fields(reference, manifest.language.type)
    of_source = {
        "name": "name",
        "license": "licence",
        "source.url": "path",
        "source.revision": "revision",
    }
    # gguf reads an empty text as None.
    expected |= {
        f"general.{theirs}": (manifest.source[ours] or None,) for theirs, ours in of_source.items()
    }
    elsewhere = {f"tokenizer.ggml.{x}" for x in ("tokens", "scores", "token_type")} | {
        "tokenizer.chat_template"
    }
    compared_elsewhere = elsewhere | set(expect.SCALED)
    values = {
        n: f.contents()
        for n, f in fields.items()
        if not n.startswith("GGUF.") and n not in compared_elsewhere
    }
    wrong = [f"{n} is absent" for n in sorted(elsewhere - fields.keys())]
    wrong += [f"{n} is {v!r}, expected no such key" for n, v in values.items() if n not in expected]
    for name, allowed in expected.items():
        value = values.get(name)
        if not any(_equal(value, a) for a in allowed):
            wrong.append(
                f"{name} is {value!r}, expected {' or '.join(map(repr, allowed)) or 'no such key'}"
            )
    refuse(manifest.language.file, wrong, _DISAGREES)
    tokens = fields["tokenizer.ggml.tokens"]
    return wrong, [bytes(tokens.parts[i]) for i in tokens.data]


def _equal(value: Any, allowed: Any) -> bool:
    """Whether a GGUF's value is the allowed one; its floats have 32 bits."""
    if isinstance(allowed, float) and isinstance(value, float):
        return bool(np.float32(value) == np.float32(allowed))
    return type(value) is type(allowed) and bool(value == allowed)


def _differences(expected: dict[str, Any], manifest: Manifest) -> list[str]:
    """Return the fields of the manifest, by path, that differ from the expected ones."""
    wrong, stated = [], asdict(manifest)
    for path, value in expected.items():
        part, name = path.split(".")
        if stated[part][name] != value:
            wrong.append(f"{path} is {stated[part][name]!r}, expected {value!r}")
    return wrong


def _compare_newline(reference: Reference, kit: Path, manifest: Manifest) -> None:
    name, newline = manifest.packing.newline_file, reference.newline
    if (name is None) != (newline is None):
        raise ParityError(
            f"manifest.json: newline_file is {name!r}, which the packing contradicts. "
            "No kit was written."
        )
    if (
        name is not None
        and newline is not None
        and (kit / name).read_bytes() != newline.astype("<f4").tobytes()
    ):
        raise ParityError(f"{name}: is not the source's image_newline. No kit was written.")


def compare_prompts(
    reference: Reference, kit: Path, manifest: Manifest, threads: int
) -> tuple[dict[str, Any], list[int], list[int]]:
    """Compare llama.cpp's token ids with the original tokenizer's: the prompt and difficult texts.

    Returns the figures, and the prompt's ids before and after the image. Raises ParityError.
    """
    bos = expect.bos(reference) if reference.words.begins else None
    expected = [
        *reference.words.prompt(words.QUESTION, bos),
        *map(reference.words.encode, words.PROBES),
    ]
    after = prompt.fill(manifest.prompt.after, prompt.REPORT_QUESTION)
    with tempfile.TemporaryDirectory(prefix="pulse-edge-", dir=kit) as folder:
        small = Path(folder) / "tokenizer.gguf"
        write_layers(kit / manifest.language.file, range(1), small)
        with closing(LanguageModel(small, Settings(context=256, threads=threads))) as model:
            ids = [
                model.tokenize(manifest.prompt.before, first=True),
                model.tokenize(after, first=False),
            ]
            ids += [model.tokenize(text, first=False) for text in words.PROBES]
    texts = ("the prompt", "the prompt", *map(repr, words.PROBES))
    wrong = [
        f"{text}: {ours} instead of {theirs}"
        for text, ours, theirs in zip(texts, ids, expected, strict=True)
        if ours != theirs
    ]
    refuse(manifest.language.file, wrong, "token ids differ from the original tokenizer's")
    counts = {"before": len(ids[0]), "after": len(ids[1]), "texts": len(words.PROBES)}
    return {"question": prompt.REPORT_QUESTION, "equal": True, **counts}, ids[0], ids[1]
