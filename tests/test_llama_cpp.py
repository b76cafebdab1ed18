"""llm.gguf against llama.cpp's own converter, which lies in llama-cpp-python's source distribution."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

import gguf
import numpy as np
import pytest
from safetensors.torch import load_file, save_file

CACHE = Path(__file__).parent.parent / ".cache" / "llama.cpp"
TOKENIZER = ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json")


@pytest.fixture(scope="module")
def converter() -> Path:
    try:
        return llama_cpp_converter()
    except subprocess.CalledProcessError as e:
        pytest.skip(f"the source distribution cannot be had: {e.stderr[-200:]}")


def llama_cpp_converter() -> Path:
    """Its convert_hf_to_gguf.py, brought once. Raises CalledProcessError."""
    pinned = version("llama-cpp-python")
    folder = CACHE / f"llama_cpp_python-{pinned}" / "vendor" / "llama.cpp"
    if not folder.is_dir():
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-build-isolation", "-d", str(CACHE)]
        command += ["--no-binary", "llama-cpp-python", f"llama-cpp-python=={pinned}"]
        subprocess.run(command, capture_output=True, text=True, check=True)
        archive = next(CACHE.glob("*.tar.gz"))
        with tarfile.open(archive) as tar:
            wanted = [m for m in tar.getmembers() if m.name.endswith(".py") and "/vendor/llama.cpp/" in m.name]
            tar.extractall(CACHE, wanted)
        archive.unlink()
    return folder / "convert_hf_to_gguf.py"


def plain_llama(source: Path, out: Path) -> Path:
    """The language tensors of a LLaVA checkpoint as a Llama folder."""
    out.mkdir()
    tensors = load_file(source / "model-00001-of-00001.safetensors")
    parts = ("model.layers", "model.embed", "model.norm", "lm_head")
    save_file({n: t for n, t in tensors.items() if n.startswith(parts)}, out / "model.safetensors", {"format": "pt"})
    config = json.loads((source / "config.json").read_text())
    config = {k: v for k, v in config.items() if not k.startswith(("mm_", "image_"))}
    config |= {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    (out / "config.json").write_text(json.dumps(config))
    for name in TOKENIZER:
        shutil.copy(source / name, out)
    return out


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
    command = [sys.executable, str(converter), str(folder), "--outfile", str(tmp_path / "theirs.gguf")]
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
