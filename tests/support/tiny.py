"""Small checkpoints for the tests and the demonstration: random weights, own SentencePiece
vocabulary.

python tests/support/tiny.py OUT
"""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SENTENCES = (
    "Please write a clinical report based on this ECG image.",
    "Sinus rhythm with left bundle branch block, no acute ischaemia.",
    "Atrial fibrillation with a rapid ventricular response at 130 beats per minute.",
    "A chat between a curious human and an artificial intelligence assistant.",
    "The assistant gives helpful, detailed, and polite answers to the human's questions.",
    "USER: Is the rhythm regular? ASSISTANT: The rhythm is irregular.",
)


def tokenizer(path: Path) -> Path:
    """A BPE model like Llama's (byte fallback, identity normalisation), of 400 pieces."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES),
        model_writer=model,
        model_type="bpe",
        vocab_size=400,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        minloglevel=2,
    )
    path.write_bytes(model.getvalue())
    return path


def checkpoint(out: Path, *arguments: str, pieces: Path | None = None) -> Path:
    """A random micro checkpoint in the original LLaVA layout (see random_llava.py for arguments)."""
    out.parent.mkdir(parents=True, exist_ok=True)
    if pieces is None:
        pieces = tokenizer(out.parent / "tokenizer.model")
        arguments += ("--vocabulary", "400")
    command = [
        sys.executable,
        str(HERE / "random_llava.py"),
        str(out),
        "--tokenizer",
        str(pieces),
        *arguments,
    ]
    subprocess.run(command, check=True, capture_output=True)
    return out


def quantized(kit: Path, target: Path, kind: str) -> Path:
    """A copy of an f16 kit whose language half llama.cpp has quantized to `kind`, e.g. Q4_0; its
    encoder is the same.
    """
    import ctypes
    import dataclasses
    import shutil

    from llama_cpp import llama_cpp as lib

    from pulse_edge.kit.kit import open_kit
    from pulse_edge.kit.write import listing, write_manifest, writing

    opened = open_kit(kit)
    params = lib.llama_model_quantize_default_params()
    params.ftype, params.nthread = getattr(lib, f"LLAMA_FTYPE_MOSTLY_{kind}"), 1
    with writing(target) as work:
        for name in opened.manifest.files:
            shutil.copy(opened.file(name), work / name)
        source, out = (str(folder / "llm.gguf").encode() for folder in (opened.path, work))
        assert lib.llama_model_quantize(source, out, ctypes.byref(params)) == 0
        language = dataclasses.replace(opened.manifest.language, type=kind)
        manifest = dataclasses.replace(opened.manifest, id=f"tiny ({kind})", language=language)
        write_manifest(work, dataclasses.replace(manifest, files=listing(work)))
    return target


if __name__ == "__main__":
    checkpoint(Path(sys.argv[1]))
