"""llm.gguf against llama.cpp's own converter, which lies in llama-cpp-python's source
distribution."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
from llama_cpp_tools import llama_cpp_converter, plain_llama


@pytest.fixture(scope="module")
def converter() -> Path:
    try:
        return llama_cpp_converter()
    except subprocess.CalledProcessError as e:
        pytest.skip(f"the source distribution cannot be had: {e.stderr[-200:]}")


@pytest.mark.parametrize("kind", ["f16", "bf16", "f32"])
def test_tensors_and_vocabulary_are_those_of_llama_cpps_converter(
    kind: str, converter: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    from export import llm
    from export.checkpoint import Checkpoint
    from export.config import read_config

    config = read_config(tiny_checkpoint / "config.json", tower_dir=None)
    checkpoint = Checkpoint(tiny_checkpoint, config, tower_dir=None)
    llm.write(checkpoint, tmp_path / "ours.gguf", kind, llm.About("tiny", "Apache-2.0", "", ""))
    folder = plain_llama(tiny_checkpoint, tmp_path / "plain")
    command = [
        sys.executable,
        str(converter),
        str(folder),
        "--outfile",
        str(tmp_path / "theirs.gguf"),
    ]
    subprocess.run([*command, "--outtype", kind], check=True, capture_output=True)
    ours, theirs = (gguf.GGUFReader(tmp_path / f"{x}.gguf") for x in ("ours", "theirs"))
    a, b = ({t.name: t for t in reader.tensors} for reader in (ours, theirs))
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].tensor_type == b[name].tensor_type
        assert np.array_equal(a[name].data, b[name].data)
    for key in ("tokens", "scores", "token_type", "bos_token_id", "eos_token_id"):
        field = f"tokenizer.ggml.{key}"
        assert ours.fields[field].contents() == theirs.fields[field].contents()
