"""Make a smaller kit of an f16 kit: refuse, write encoder and language model, prove, name.

The same base, settings and statistics give the same bytes on processors with the same instruction
sets: nothing depends on the clock, the machine's name or the threads. Other processors add values
in another order, which shows in the proof's figures.
"""

from __future__ import annotations

import importlib.metadata
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

import gguf

from export import ggml, golden, llm_logits, vision
from export.quantize.encoder import write_encoder
from export.quantize.job import Job, Options, Progress, Say
from export.quantize.language_model import write_mixed
from export.quantize.proof import (
    bits_per_weight,
    compare_logits,
    require_same_files,
    require_same_model,
)
from export.stats import Stats
from export.stats import read as read_stats
from pulse_edge.common import paths
from pulse_edge.errors import CheckpointError, KitError, UsageError
from pulse_edge.inference.device import default_threads
from pulse_edge.inference.vision_encoder import installed_runtime
from pulse_edge.kit.kit import Kit, base_of, open_kit
from pulse_edge.kit.manifest import KeyCacheType, Manifest, Quantization
from pulse_edge.kit.verify import verify
from pulse_edge.kit.write import listing, refuse_target, write_manifest, writing

__all__ = ["Options", "quantize"]


def quantize(
    base: Path,
    target: Path,
    options: Options,
    say: Say = lambda _text: None,
    progress: Progress = lambda _done, _of: None,
) -> None:
    """Make the kit `target` from the f16 kit `base`.

    `say` gets the name of each step; `progress` gets the matrices or bytes done, and their total.

    Raises UsageError, KitError, CheckpointError (statistics), EngineError or ParityError, and then
    leaves nothing behind.
    """
    options = _resolve(options)
    installed_runtime()
    golden.require(options.golden)
    refuse_target(target, force=options.force)
    opened = open_kit(base)
    kind = opened.manifest.language.type
    if kind not in ("f16", "bf16", "f32"):
        raise KitError(
            f"{base}: its language model is {kind}, quantized already. Name the f16 kit that it "
            "comes from."
        )
    stats = read_stats(options.stats, opened) if options.stats else None
    options = replace(options, sensitivity=_measures_sensitivity(options, stats, opened))
    say(f"verifying {base}")
    verify(opened, remembered=True)
    _refuse_full_disk(opened, target)
    with writing(target, force=options.force) as work:
        _build(
            Job(opened, work, options, stats, options.threads or default_threads(), say, progress)
        )
        golden.add(work, options.golden or (paths.EXAMPLE_PAGE,), say, progress)


def _resolve(options: Options) -> Options:
    """Fill in the recipe's settings where the command gives none.

    Raises UsageError for a contradiction and for an unknown type.
    """
    recipe = options.recipe
    sizes = {"llm": options.llm, "size": options.size, "bpw": options.bpw}
    if recipe and not any(v is not None for v in sizes.values()):
        sizes = {"llm": recipe.llm, "size": recipe.size, "bpw": recipe.bpw}
    given = [name for name, value in sizes.items() if value is not None]
    if len(given) > 1:
        raise UsageError(f"--{' and --'.join(given)} contradict one another: give one of them.")
    if not given:
        sizes["llm"] = "Q4_K_M"
    if sizes["llm"] is not None:
        ggml.file_type(str(sizes["llm"]))
        if options.sensitivity:
            raise UsageError("--sensitivity chooses types: give --size or --bpw instead of --llm.")
    kind = options.vision or (recipe.vision if recipe else None)
    if kind is not None and kind not in vision.KINDS:
        raise UsageError(f"--vision {kind}: expected one of {', '.join(vision.KINDS)}.")
    cache_type = options.key_cache_type or (recipe.key_cache_type if recipe else None)
    if cache_type is not None and cache_type not in get_args(KeyCacheType):
        raise UsageError(
            f"--key-cache-type {cache_type}: expected one of {', '.join(get_args(KeyCacheType))}."
        )
    return replace(options, vision=kind, key_cache_type=cache_type, **sizes)  # type: ignore[arg-type]


def _measures_sensitivity(options: Options, stats: Stats | None, base: Kit) -> bool:
    """Return whether sensitivity is measured.

    Raises UsageError where it should be and cannot, and where it takes longer than a user expects.
    Rounding errors alone choose types only on request: at equal size they lost 1.34 times as much
    as Q4_K_M on the miniature.
    """
    if options.llm or options.sensitivity is False:
        return False
    other = (
        "Or choose by rounding errors alone with --no-sensitivity, which can be worse than --llm "
        "of the same size."
    )
    if not (stats and stats.probes):
        raise UsageError(
            "--size and --bpw choose types by what they do to answers, measured on pages: give "
            f"--stats with a file of `calibration collect`. {other}"
        )
    path = base.file(base.manifest.language.file)
    if options.sensitivity is None and path.stat().st_size > llm_logits.WINDOW_BYTES:
        runs = sum(len(t.shape) > 1 for t in gguf.GGUFReader(path).tensors)
        raise UsageError(
            f"{path}: measuring what types do to answers takes {runs} runs of this model over "
            f"{len(stats.probes)} pages each, days on a CPU. To do so, give --sensitivity. {other}"
        )
    return True


def _refuse_full_disk(base: Kit, target: Path) -> None:
    folder = next(p for p in target.absolute().parents if p.is_dir())
    needed, free = (
        sum(f.bytes for f in base.manifest.files.values()),
        shutil.disk_usage(folder).free,
    )
    if needed > free:
        raise CheckpointError(
            f"{target}: may need {needed / 1e9:.1f} GB of disk, and {free / 1e9:.1f} GB are free. "
            "Choose another disk."
        )


def _build(job: Job) -> None:
    base, options, notes = job.base.manifest, job.options, list[str]()
    for name in filter(None, (base.packing.newline_file, base.draft_table_file)):
        shutil.copyfile(job.base.file(name), job.work / name)
    vision_type, vision_figures = write_encoder(job, notes)
    job.say("writing the language model")
    if options.llm:
        ggml.quantize(
            job.source,
            job.target,
            options.llm,
            importance=job.importance,
            threads=job.threads,
            progress=job.progress,
        )
    else:
        write_mixed(job)
    bits = bits_per_weight(job.target)
    job.say("proving it against the base")
    require_same_files(job)
    weights = require_same_model(job)
    figures = {
        "vision": vision_figures,
        "language": weights | compare_logits(job, bits),
        "base": base.parity,
    }
    write_manifest(job.work, _manifest(job, bits, vision_type, figures, notes))


def _manifest(
    job: Job, bits: float, vision_type: str, figures: dict[str, Any], notes: list[str]
) -> Manifest:
    base, options = job.base.manifest, job.options
    settings = {
        k: v
        for k, v in asdict(options).items()
        if k in ("llm", "size", "bpw", "vision", "key_cache_type", "sensitivity")
    }
    name = options.llm or f"{bits:.2f} bpw"
    keys = "" if job.key_cache_type == "f16" else f", {job.key_cache_type} keys"
    programs = ("llama-cpp-python", "onnxruntime", "optimum")
    return replace(
        base,
        id=f"{base.id.split(' (')[0]} ({name}, {vision_type}{keys})",
        files=listing(job.work),
        language=replace(base.language, type=name, key_cache_type=job.key_cache_type),
        vision=replace(base.vision, type=vision_type),
        parity=figures,
        accuracy=None,
        findings=None,
        versions=base.versions | {p: importlib.metadata.version(p) for p in programs},
        quantization=Quantization(
            base=base_of(base),
            settings=settings | {"recipe": options.recipe.name if options.recipe else None},
            tensors=ggml.tensor_types(job.target),
            notes=tuple(notes),
            statistics_sha256=job.stats.sha256 if job.stats else None,
            calibration=dict(job.stats.ids) if job.stats else {},
            calibration_sha256=job.stats.content if job.stats else None,
        ),
    )
