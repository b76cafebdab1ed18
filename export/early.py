"""Refuse what can be refused before torch and transformers are imported.

Their import takes a quarter of a minute. The same checks are repeated where the work is done, for
callers from Python; no right result depends on this module.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pulse_edge.errors import CheckpointError, KitError, UsageError
from pulse_edge.kit.kit import open_kit
from pulse_edge.kit.manifest import KeyCacheType
from pulse_edge.kit.write import refuse_target

VISION = ("fp32", "fp16", "w8", "int8", "int8-static")
"""The keys of `vision.KINDS`, which cannot be read here because that module imports torch."""
STAGES = ("tower", "language", "real", "words")
"""The stages of the miniature's training, as in its plan."""


def check_convert(source: str, target: Path, options: Mapping[str, Any]) -> None:
    """Raise the error that `convert` would raise for its arguments.

    It is a UsageError, CheckpointError, KitError, ScanError or PageRefused.
    """
    refuse_target(target, force=options["force"])
    if not Path(source).exists() and "/" not in source:
        from export.models import find, load_models

        find(source, load_models())
    elif not Path(source).is_dir():
        raise CheckpointError(f"{source}: no such directory. Name a checkpoint directory.")
    for option in ("lora", "vision_tower"):
        _check_folder(f"--{option.replace('_', '-')}", options[option])
    _check_golden(options["golden"])


def check_quantize(base: Path, target: Path, options: Mapping[str, Any]) -> None:
    """Raise the error that `quantize` would raise for its arguments.

    It is a UsageError, KitError, ScanError or PageRefused.
    """
    given = [name for name in ("llm", "size", "bpw") if options[name] is not None]
    if len(given) > 1:
        raise UsageError(f"--{' and --'.join(given)} contradict one another: give one of them.")
    if options["llm"] is not None:
        from export import ggml

        ggml.file_type(options["llm"])
    for option, choices in (("vision", VISION), ("key_cache_type", get_args(KeyCacheType))):
        if options[option] not in (None, *choices):
            name = option.replace("_", "-")
            raise UsageError(f"--{name} {options[option]}: expected one of {', '.join(choices)}.")
    refuse_target(target, force=options["force"])
    kind = open_kit(base).manifest.language.type
    if kind not in ("f16", "bf16", "f32"):
        raise KitError(
            f"{base}: its language model is {kind}, quantized already. Name the f16 kit that it "
            "comes from."
        )
    if options["stats"] is not None and not options["stats"].is_file():
        raise UsageError(
            f"--stats {options['stats']}: no such file. Name what `calibration collect` wrote."
        )
    _check_golden(options["golden"])


def check_train(out: Path, options: Mapping[str, Any]) -> None:
    """Raise the UsageError that `train-miniature` would raise for its arguments."""
    for wish in options["steps"]:
        name, _, length = wish.partition("=")
        if name not in STAGES or not length.isdecimal():
            stages = ", ".join(STAGES)
            raise UsageError(
                f"--steps {wish}: give STAGE=N with a stage of {stages}, and 0 to leave it out."
            )
    if options["resume"] and options["start"] is not None:
        raise UsageError(
            "--start begins a new plan; --resume goes on with the existing one. Give one of them."
        )
    if options["resume"] and not out.is_dir():
        raise UsageError(f"{out}: no training to resume. Start one without --resume.")
    _check_folder("--start", options["start"])
    if options["signals"] is not None and not options["signals"].is_file():
        raise UsageError(
            f"--signals {options['signals']}: no such file. Name packed recordings (.npz)."
        )


def _check_folder(option: str, folder: Path | None) -> None:
    if folder is not None and not folder.is_dir():
        raise UsageError(f"{option} {folder}: no such folder. Check the name.")


def _check_golden(pages: Sequence[Path]) -> None:
    if pages:
        from export import golden

        golden.require(pages)
