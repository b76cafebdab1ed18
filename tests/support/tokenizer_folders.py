"""Copies of a small checkpoint with other tokenizer files, and llama.cpp's own vocabulary of
them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from gguf import TokenType
from llama_cpp_tools import llama_cpp_converter

from export import llm, tokenizer
from export.checkpoint import Checkpoint
from export.config import read_config

PIECES, SIZE = 400, 464
"""Of the small model, and of the vocabulary that is padded beyond them."""
BASE = ["<unk>", "<s>", "</s>"]


def entry(text: str, *, special: bool = True) -> dict[str, Any]:
    return {
        "content": text,
        "lstrip": False,
        "normalized": False,
        "rstrip": False,
        "special": special,
    }


CONTROL, USER = int(TokenType.CONTROL), int(TokenType.USER_DEFINED)


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


MANY = """
import runpy, sys
converter, pairs = sys.argv[1], sys.argv[2:]
sys.path.insert(0, converter.rsplit("/", 1)[0])
for folder in pairs:
    sys.argv = [converter, folder, "--vocab-only", "--outfile", folder + "/theirs.gguf"]
    runpy.run_path(converter, run_name="__main__")
"""


def converted_by_llama_cpp(folders: list[Path]) -> None:
    """theirs.gguf in each folder, as llama.cpp's own converter writes a plain Llama's
    vocabulary."""
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


TEXTS = (
    "A chat between a curious human and an artificial intelligence assistant. USER: ",
    "\nIs the rhythm regular?   No, \u00e9\u4e2d\U0001f600 it is\tnot.\n\n  - two  spaces "
    "ASSISTANT:",
)
