"""Make a kit of a checkpoint: refuse, read, write to a work folder, prove, name.

The manifest is written last.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from export import golden, hub, llm, llm_logits, parity, sources, tokenizer, vision
from export.adapter import Adapter
from export.checkpoint import NEWLINE, Checkpoint, expected, needs_newline
from export.config import Config, read_config
from export.models import ModelSpec, find, load_models
from export.reference import Reference
from export.tokenizer import Tokenizer
from pulse_edge.common.files import file_sha256
from pulse_edge.errors import CheckpointError
from pulse_edge.inference.device import default_threads
from pulse_edge.inference.vision_encoder import installed_runtime
from pulse_edge.kit import prompt
from pulse_edge.kit.manifest import (
    MANIFEST_VERSION,
    Language,
    Manifest,
    Merge,
    Packing,
    Prompt,
    Vision,
)
from pulse_edge.kit.write import listing, refuse_target, write_manifest, writing

Progress = Callable[[int, int], None]
MAX_TOKENS = 1024
"""Longest answer in tokens: PULSE's evaluation allows as many."""


@dataclass(frozen=True)
class Options:
    """The settings of a conversion."""

    language: str = "f16"
    """Type of the language model: f16, bf16 or f32."""
    vision: str = "fp16"
    """Type of the vision encoder: fp16 or fp32."""
    lora: Path | None = None
    """Folder of an adapter to merge in."""
    vision_tower: Path | None = None
    """Folder of a vision tower, for a checkpoint that carries none."""
    merge: Merge | None = None
    """Packing that replaces the one of config.json."""
    demonstration: bool = False
    force: bool = False
    golden: tuple[Path, ...] = ()
    """Pages of golden cases."""


def resolve(source: str, say: Callable[[str], None]) -> tuple[Path, ModelSpec | None]:
    """Return the checkpoint's directory that `source` names; fetch a model of models.yaml into it.

    The second value is the model's entry in models.yaml, if there is one.
    """
    if Path(source).exists() or "/" in source:
        return Path(source), None
    spec = find(source, load_models())
    return hub.fetch(spec, note=say), spec


def convert(
    source: Path,
    target: Path,
    options: Options,
    say: Callable[[str], None] = lambda _text: None,
    spec: ModelSpec | None = None,
    progress: Progress = lambda _done, _of: None,
) -> None:
    """Make the kit `target` of the checkpoint in `source`.

    `say` gets the name of each step; `progress` gets a step's bytes done and their total, where the
    step counts them. Raises CheckpointError, KitError, ParityError or EngineError, and then leaves
    nothing behind.
    """
    installed_runtime()
    golden.require(options.golden)
    refuse_target(target, force=options.force)
    sources.refuse_mistaken(source)
    if options.vision_tower is not None:
        sources.refuse_no_tower(options.vision_tower)
    folder = options.lora if options.lora and (options.lora / "config.json").is_file() else source
    config = read_config(
        folder / "config.json", tower_dir=options.vision_tower, merge=options.merge
    )
    adapter = Adapter(options.lora) if options.lora else None
    if spec is not None and config.architecture != spec.architecture:
        raise CheckpointError(
            f"{source}: architecture {config.architecture}, models.yaml says {spec.architecture}."
        )
    checkpoint = Checkpoint(source, config, tower_dir=options.vision_tower, adapter=adapter)
    vocabulary = tokenizer.read(source, config)
    _check_room(checkpoint, target, options)
    say(f"{source}: {config.architecture}, packing {config.merge} ({config.merge_from})")
    for note in checkpoint.notes:
        say(f"warning: {note}")
    with writing(target, force=options.force) as work:
        _build(checkpoint, vocabulary, work, target.name, options, spec, say, progress)
        golden.add(work, options.golden, say, progress)


def _build(
    checkpoint: Checkpoint,
    vocabulary: Tokenizer,
    work: Path,
    name: str,
    options: Options,
    spec: ModelSpec | None,
    say: Callable[[str], None],
    progress: Progress,
) -> None:
    config, threads = checkpoint.config, default_threads()
    say("reading the source files")
    source = _source(checkpoint, vocabulary, options, spec, progress)
    manifest = _manifest(config, name, options, source)
    say("writing the language model")
    about = llm.About(source["name"], source["licence"], source["path"], source["revision"])
    llm.write(checkpoint, work / "llm.gguf", options.language, about, progress, vocabulary)
    if needs_newline(config):
        newline = checkpoint.tensor(NEWLINE).float().numpy()
        newline.astype("<f4").tofile(work / "image_newline.f32")
    say("writing the vision encoder")
    encoder = vision.Encoder(checkpoint)
    vision.write(encoder, work / "vision.onnx", options.vision, manifest.vision.image_size)
    del encoder
    say("proving both against the original")
    original = Reference(
        checkpoint.path, lora=options.lora, tower=options.vision_tower, merge=options.merge
    )
    figures = parity.prove(original, work, manifest, threads)
    write_manifest(work, replace(manifest, parity=figures, files=listing(work)))


def _manifest(config: Config, name: str, options: Options, source: dict[str, Any]) -> Manifest:
    text = config.text
    before, after = prompt.TEMPLATES["llava_v1"]
    newline = "image_newline.f32" if needs_newline(config) else None
    programs = ("torch", "transformers", "onnx", "onnxscript", "gguf", "numpy", "llama-cpp-python")
    return Manifest(
        manifest_version=MANIFEST_VERSION,
        id=f"{name} ({options.language}, {options.vision})",
        demonstration=options.demonstration,
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        files={},
        language=Language(
            file="llm.gguf",
            type=options.language,
            context_length=min(4096, int(text.max_position_embeddings)),
            embedding_length=text.hidden_size,
            layers=text.num_hidden_layers,
            key_value_length=text.num_key_value_heads * config.head_dim,
            vocabulary=text.vocab_size,
        ),
        vision=Vision(
            file="vision.onnx",
            type=options.vision,
            image_size=int(config.vision.image_size),
            patches_per_side=config.patches_per_side,
            mean=config.mean,
            std=config.std,
        ),
        packing=Packing(config.aspect_ratio, config.merge, config.pinpoints, newline),
        prompt=Prompt("llava_v1", before, after, MAX_TOKENS),
        source=source,
        parity={},
        versions={p: importlib.metadata.version(p) for p in programs},
    )


def _source(
    checkpoint: Checkpoint,
    vocabulary: Tokenizer,
    options: Options,
    spec: ModelSpec | None,
    progress: Progress,
) -> dict[str, Any]:
    """Return the provenance: every file that was read, with its sha256."""
    path = checkpoint.path
    files = [*checkpoint.config.files, *vocabulary.files, *checkpoint.files]
    if checkpoint.adapter:
        files += checkpoint.adapter.files
    files = list(dict.fromkeys(files))
    done, total = 0, sum(p.stat().st_size for p in files)

    def step(piece: int) -> None:
        nonlocal done
        done += piece
        progress(done, total)

    return {
        "name": spec.name if spec else path.resolve().name,
        "path": spec.hub if spec else path.resolve().name,
        "revision": spec.revision if spec else "",
        "licence": spec.licence if spec else llm.describe(path),
        "architecture": checkpoint.config.architecture,
        "layout": checkpoint.config.layout,
        "packing_from": checkpoint.config.merge_from,
        "lora": options.lora.name if options.lora else None,
        "notes": list(checkpoint.notes),
        "files": {
            _inside(p, path): {"bytes": p.stat().st_size, "sha256": file_sha256(p, step)}
            for p in files
        },
    }


def _inside(file: Path, checkpoint: Path) -> str:
    """Return a file's name for the manifest: two folders may each have a model.safetensors."""
    return file.name if file.parent == checkpoint else f"{file.parent.name}/{file.name}"


def _check_room(checkpoint: Checkpoint, target: Path, options: Options) -> None:
    """Raise CheckpointError before any work if the disk has too little room for the kit."""
    width = {"f32": 4, "f16": 2, "bf16": 2}[options.language]
    needed, _ = expected(checkpoint.config)
    size = sum(int(np.prod(s)) * (width if llm.gguf_name(n) else 4) for n, s in needed.items())
    size += min(size, llm_logits.WINDOW_BYTES) + (64 << 20)
    folder = next(p for p in target.absolute().parents if p.is_dir())
    free = shutil.disk_usage(folder).free
    if size > free:
        raise CheckpointError(
            f"{target}: needs {size / 1e9:.1f} GB of disk, and {free / 1e9:.1f} GB are free. "
            "Choose another disk."
        )
