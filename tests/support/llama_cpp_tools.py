"""llama.cpp's own converter, and a plain Llama checkpoint for it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

from checkout import ROOT
from safetensors.torch import load_file, save_file

CACHE = ROOT / ".cache" / "llama.cpp"


TOKENIZER = ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json")


def llama_cpp_converter() -> Path:
    """Its convert_hf_to_gguf.py, brought once. Raises CalledProcessError."""
    pinned = version("llama-cpp-python")
    folder = CACHE / f"llama_cpp_python-{pinned}" / "vendor" / "llama.cpp"
    if not folder.is_dir():
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "--no-build-isolation",
            "-d",
            str(CACHE),
        ]
        command += ["--no-binary", "llama-cpp-python", f"llama-cpp-python=={pinned}"]
        subprocess.run(command, capture_output=True, text=True, check=True)
        archive = next(CACHE.glob("*.tar.gz"))
        with tarfile.open(archive) as tar:
            expected = [
                m
                for m in tar.getmembers()
                if m.name.endswith(".py") and "/vendor/llama.cpp/" in m.name
            ]
            tar.extractall(CACHE, expected)
        archive.unlink()
    return folder / "convert_hf_to_gguf.py"


def plain_llama(source: Path, out: Path) -> Path:
    """The language tensors of a LLaVA checkpoint as a Llama folder."""
    out.mkdir()
    tensors = load_file(source / "model-00001-of-00001.safetensors")
    parts = ("model.layers", "model.embed", "model.norm", "lm_head")
    save_file(
        {n: t for n, t in tensors.items() if n.startswith(parts)},
        out / "model.safetensors",
        {"format": "pt"},
    )
    config = json.loads((source / "config.json").read_text())
    config = {k: v for k, v in config.items() if not k.startswith(("mm_", "image_"))}
    config |= {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    (out / "config.json").write_text(json.dumps(config))
    for name in TOKENIZER:
        shutil.copy(source / name, out)
    return out
