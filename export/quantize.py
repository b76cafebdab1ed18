"""f16 kit -> smaller kit, in order: refuse, encoder, language model, prove against the f16 kit, name.

The same base, settings and stats give the same bytes on processors with the same instruction sets: nothing depends on the
clock, the machine's name or the threads. Other processors add in another order, which shows in the proof's figures.
"""

from __future__ import annotations

import importlib.metadata
import io
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType as Type
from PIL import Image

from pulse_edge.errors import CheckpointError, KitError, ParityError, UsageError
from pulse_edge.inference import tiling
from pulse_edge.inference.device import default_threads
from pulse_edge.inference.language_model import LanguageModel, Settings
from pulse_edge.inference.vision_encoder import VisionEncoder, installed_runtime
from pulse_edge.kit import prompt
from pulse_edge.kit.kit import Kit, base_of, open_kit
from pulse_edge.kit.manifest import KeyCacheType, Quantization
from pulse_edge.kit.verify import verify
from pulse_edge.kit.write import listing, refuse_target, write_manifest, writing
from pulse_edge.page import reader

from . import choose, ggml, golden, parity, vision
from .choose import Matrix
from .models import Recipe
from .parity import Float
from .stats import Stats
from .stats import read as read_stats

Say = Callable[[str], None]
Progress = Callable[[int, int], None]
GATES = ((7.5, 0.004), (6.0, 0.02), (5.0, 0.06), (4.0, 0.15), (3.0, 0.6), (0.0, 5.0))
"""(bits per weight, largest mean KLD in nats) where no recipe sets a gate: ten times what Llama-2-7B loses at Q8_0 (4e-4), Q6_K
(2e-3), Q5_K_M and Q4_K_M (1.3e-2), which is more than other models of the kind were seen to lose (docs/proof.md)."""
LENGTH = 0.01
"""Share by which image tokens may be longer or shorter than the base's on the whole; cosines do not see it."""
ROWS = 64
"""Of each matrix are compared with the base's, quantized once more on their own."""
_OF_THE_TYPE = ("general.file_type", "general.quantization_version", "quantize.imatrix.")
"""Keys that llama.cpp's quantizer writes itself."""
ROUNDING = golden.PERTURBED
"""Share by which pixels are moved to see what another processor's rounding does: eight times float32's own. The miniature's
int8 image tokens then have a mean cosine of 0.9999 to themselves, and between processors 0.9999 to 1 (docs/benchmarks.md)."""
SAME = 0.999
"""Least mean cosine between an encoder's image tokens and those after moving the pixels: ten times the distance of the miniature's
int8 encoder. Other types have 1.000000."""
MANIFEST_BYTES = 1 << 16
"""Set aside of --size for manifest.json."""


@dataclass(frozen=True)
class Options:
    """What a quantization is asked for: at most one of `llm`, `size` and `bpw`; Q4_K_M where none is."""

    llm: str | None = None
    """A type of llama.cpp for the whole language model."""
    size: int | None = None
    """Bytes of the whole kit; the type of each matrix is chosen."""
    bpw: float | None = None
    """Bits per weight of the language model; the type of each matrix is chosen."""
    vision: str | None = None
    """A key of vision.KINDS; None: as the base has it."""
    key_cache_type: KeyCacheType | None = None
    """Type of the key cache; None: f16."""
    stats: Path | None = None
    sensitivity: bool | None = None
    """Weigh each matrix's error by what it does to answers, where types are chosen. None: yes, of a model of up to
    parity.WINDOW_BYTES; of a larger one it takes days, so that one of both has to be said."""
    recipe: Recipe | None = None
    threads: int | None = None
    force: bool = False
    golden: tuple[Path, ...] = ()
    """Pages of golden cases; none: the program's example page."""


@dataclass(frozen=True)
class Input:
    """One answer's input: image tokens (T, d) float32 between token ids."""

    rows: Float
    before: list[int]
    after: list[int]


def quantize(
    base: Path,
    target: Path,
    options: Options,
    say: Say = lambda _text: None,
    progress: Progress = lambda _done, _of: None,
) -> None:
    """Make a kit of another. `say` gets the name of each step, `progress` matrices or bytes done and of how many.

    Raises UsageError, KitError, CheckpointError (stats), EngineError, ParityError; then nothing is left behind.
    """
    options = _resolved(options)
    installed_runtime()
    golden.require(options.golden)
    refuse_target(target, force=options.force)
    opened = open_kit(base)
    kind = opened.manifest.language.type
    if kind not in ("f16", "bf16", "f32"):
        raise KitError(
            f"{base}: its language model is {kind}, quantized already. Name the f16 kit that it comes from."
        )
    stats = read_stats(options.stats, opened) if options.stats else None
    options = replace(options, sensitivity=_measures(options, stats, opened))
    say(f"verifying {base}")
    verify(opened, remembered=True)
    _check_room(opened, target)
    with writing(target, force=options.force) as work:
        _build(
            _Job(opened, work, options, stats, options.threads or default_threads(), say, progress)
        )
        golden.add(work, options.golden or (golden.PAGE,), say, progress)


def _resolved(options: Options) -> Options:
    """With what the recipe says where the command says nothing. UsageError for a contradiction."""
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


def _measures(options: Options, stats: Stats | None, base: Kit) -> bool:
    """Whether sensitivity is measured. UsageError where it should be and cannot, or nobody would expect what it takes.

    Errors alone never choose unasked: at equal size they lost 1.34 times as much as Q4_K_M on the miniature.
    """
    if options.llm or options.sensitivity is False:
        return False
    other = "Or choose by rounding errors alone with --no-sensitivity, which can be worse than --llm of the same size."
    if not (stats and stats.probes):
        raise UsageError(
            "--size and --bpw choose types by what they do to answers, measured on pages: give --stats with a file of "
            f"`calibration collect`. {other}"
        )
    path = base.file(base.manifest.language.file)
    if options.sensitivity is None and path.stat().st_size > parity.WINDOW_BYTES:
        runs = sum(len(t.shape) > 1 for t in gguf.GGUFReader(path).tensors)
        raise UsageError(
            f"{path}: what types do to answers takes {runs} runs of this model over {len(stats.probes)} pages each, days "
            f"on a CPU. If that may be, say --sensitivity. {other}"
        )
    return True


def _check_room(base: Kit, target: Path) -> None:
    folder = next(p for p in target.absolute().parents if p.is_dir())
    needed, free = (
        sum(f.bytes for f in base.manifest.files.values()),
        shutil.disk_usage(folder).free,
    )
    if needed > free:
        raise CheckpointError(
            f"{target}: may need {needed / 1e9:.1f} GB of disk, and {free / 1e9:.1f} GB are free. Choose another disk."
        )


@dataclass(frozen=True)
class _Job:
    """One quantization under way."""

    base: Kit
    work: Path
    options: Options
    stats: Stats | None
    threads: int
    say: Say
    progress: Progress

    @property
    def key_cache_type(self) -> KeyCacheType:
        return self.options.key_cache_type or "f16"

    @property
    def source(self) -> Path:
        return self.base.file(self.base.manifest.language.file)

    @property
    def target(self) -> Path:
        return self.work / self.base.manifest.language.file

    @property
    def importance(self) -> Mapping[str, Float]:
        return self.stats.importance if self.stats else {}


def _build(job: _Job) -> None:
    m, options, notes = job.base.manifest, job.options, list[str]()
    for name in filter(None, (m.packing.newline_file, m.draft_table_file)):
        shutil.copyfile(job.base.file(name), job.work / name)
    kind, seen = _encoder(job, notes)
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
        _write_chosen(job)
    bits = bits_per_weight(job.target)
    name = options.llm or f"{bits:.2f} bpw"
    job.say("proving it against the base")
    _same_files(job)
    same = _same_model(job)
    figures = {"vision": seen, "language": same | _prove(job, bits), "base": m.parity}
    settings = {
        k: v
        for k, v in asdict(options).items()
        if k in ("llm", "size", "bpw", "vision", "key_cache_type", "sensitivity")
    }
    manifest = replace(
        m,
        id=f"{m.id.split(' (')[0]} ({name}, {kind}{'' if job.key_cache_type == 'f16' else f', {job.key_cache_type} keys'})",
        files=listing(job.work),
        language=replace(m.language, type=name, key_cache_type=job.key_cache_type),
        vision=replace(m.vision, type=kind),
        parity=figures,
        accuracy=None,
        findings=None,
        versions=m.versions
        | {
            p: importlib.metadata.version(p) for p in ("llama-cpp-python", "onnxruntime", "optimum")
        },
        quantization=Quantization(
            base=base_of(m),
            settings=settings | {"recipe": options.recipe.name if options.recipe else None},
            tensors=ggml.tensor_types(job.target),
            notes=tuple(notes),
            statistics_sha256=job.stats.sha256 if job.stats else None,
            calibration=dict(job.stats.ids) if job.stats else {},
            calibration_sha256=job.stats.content if job.stats else None,
        ),
    )
    write_manifest(job.work, manifest)


def bits_per_weight(path: Path) -> float:
    """Of a GGUF's matrices."""
    matrices = [t for t in gguf.GGUFReader(path).tensors if len(t.shape) > 1]
    return float(
        8 * sum(int(t.n_bytes) for t in matrices) / sum(int(t.n_elements) for t in matrices)
    )


# --- the encoder ------------------------------------------------------------------------------------------------------


def _encoder(job: _Job, notes: list[str]) -> tuple[str, dict[str, Any]]:
    """Write the encoder as asked, or as the base has it where that is not as good; its type and figures."""
    spec, asked = job.base.manifest.vision, job.options.vision
    if asked in (None, spec.type):
        return _keep(job)
    job.say(f"writing the encoder as {asked}")
    ranges = job.stats.ranges if job.stats else {}
    if asked == "int8-static" and not ranges:
        raise UsageError("--vision int8-static needs the ranges of collected --stats.")
    vision.requantize(job.base.file(spec.file), job.work / spec.file, asked, ranges)
    figures = _compare_encoders(job, asked)
    mean, required = figures["cosine_mean"], figures["cosine_required"]
    same, alike = figures["rounding_cosine_mean"], figures["rounding_cosine_required"]
    if mean >= required and same >= alike:
        return asked, figures
    why = f"encoder as {asked}: mean row cosine {mean}, required {required}"
    why += f"; {same} between processors, required {alike}; kept as {spec.type}"
    job.say(why)
    notes.append(why)
    for file in job.work.glob(f"{spec.file}*"):
        file.unlink()
    return _keep(job)


def _keep(job: _Job) -> tuple[str, dict[str, Any]]:
    spec = job.base.manifest.vision
    for name in job.base.manifest.files:
        if name.startswith(spec.file):
            shutil.copyfile(job.base.file(name), job.work / name)
    return spec.type, {"compared": "the base's own encoder"}


def _compare_encoders(job: _Job, kind: str) -> dict[str, Any]:
    """Row cosines on the example page and the calibration sample, of the worst processor.

    Integer sums are the same on all (see `saturates` in pulse_edge/inference/vision_encoder.py), but other processors add
    float32 values in another order, and a value that then rounds to the other side moves all that follow. Pixels that are
    moved by as little do the same.
    """
    recipe, spec = job.options.recipe, job.base.manifest.vision
    required = recipe.cosine if recipe and recipe.cosine is not None else parity.COSINE[kind]
    found, elsewhere, between = (list[npt.NDArray[np.float64]]() for _ in range(3))
    lengths = []
    with (
        closing(
            VisionEncoder(job.base.file(spec.file), device="cpu", threads=job.threads)
        ) as original,
        closing(VisionEncoder(job.work / spec.file, device="cpu", threads=job.threads)) as made,
    ):
        for pixels in _pages(job):
            right, here = original.encode(pixels), made.encode(pixels)
            moved = pixels * (
                1 + ROUNDING * np.random.default_rng(0).standard_normal(pixels.shape, np.float32)
            )
            there = made.encode(moved)
            for figures, pair in (
                (found, (here, right)),
                (elsewhere, (there, right)),
                (between, (there, here)),
            ):
                figures.append(parity.cosine(*pair).ravel())
            lengths.append(
                np.linalg.norm(here, axis=-1).sum() / np.linalg.norm(right, axis=-1).sum()
            )
    cosines, same = (
        min(map(np.concatenate, (found, elsewhere)), key=np.mean),
        np.concatenate(between),
    )
    length = float(np.mean(lengths))
    if not abs(length - 1) <= LENGTH:
        raise ParityError(
            f"{spec.file}: as {kind} its image tokens are {length:.3f} times as long as the base's. No kit was written; "
            "report it."
        )
    return {
        "pages": len(found),
        "rows": int(cosines.size),
        "cosine_mean": round(float(cosines.mean()), 6),
        "cosine_min": round(float(cosines.min()), 6),
        "cosine_required": required,
        "rounding_cosine_mean": round(float(same.mean()), 6),
        "rounding_cosine_min": round(float(same.min()), 6),
        "rounding_cosine_required": SAME,
        "length": round(length, 6),
        "against": f"{spec.type} of the base",
    }


def _pages(job: _Job) -> Iterator[Float]:
    """Pixels (n, 3, S, S) of the example page and of the calibration sample."""
    m = job.base.manifest
    pages: list[Path | Image.Image] = [parity.PAGE]
    pages += [Image.open(io.BytesIO(p.picture)) for p in (job.stats.probes if job.stats else ())]
    for source in pages:
        yield tiling.cut(
            reader.read(source).image,
            size=m.vision.image_size,
            aspect_ratio=m.packing.aspect_ratio,
            pinpoints=m.packing.grid_pinpoints,
            mean=m.vision.mean,
            std=m.vision.std,
        )


# --- the language model -----------------------------------------------------------------------------------------------


def _write_chosen(job: _Job) -> None:
    """The type of each matrix by its measured harm, under the budget."""
    job.say("measuring every matrix at every type")
    matrices = choose.measure(job.source, job.importance, job.progress)
    budget = _budget(job, matrices)
    if job.options.sensitivity:
        matrices = choose.weighted(matrices, _sensitivity(job, matrices, budget))
    types = choose.choose(matrices, budget)
    job.say("writing the language model")
    write_types(job.source, job.target, types, job.importance, job.threads, job.progress)


def write_types(
    source: Path,
    target: Path,
    types: Mapping[str, Type],
    importance: Mapping[str, Float],
    threads: int,
    progress: Progress = lambda _done, _of: None,
) -> None:
    """A GGUF with each matrix as `types` says. `general.file_type`, which only names a file, says Q4_K_M."""
    ggml.quantize(
        source,
        target,
        "Q4_K_M",
        importance=importance,
        types=types,
        threads=threads,
        progress=progress,
    )


def _budget(job: _Job, matrices: Sequence[Matrix]) -> int:
    """Bytes for the matrices."""
    tensors = [t for t in gguf.GGUFReader(job.source).tensors if len(t.shape) > 1]
    if job.options.bpw is not None:
        return int(job.options.bpw * sum(int(t.n_elements) for t in tensors) / 8)
    rest = job.source.stat().st_size - sum(int(t.n_bytes) for t in tensors)
    others = sum(p.stat().st_size for p in job.work.rglob("*") if p.is_file())
    aside = MANIFEST_BYTES + golden.room(job.base.manifest.language.vocabulary) * max(
        1, len(job.options.golden)
    )
    aside += sum(page.stat().st_size for page in job.options.golden)
    budget = (job.options.size or 0) - others - rest - aside
    if budget < sum(min(m.bytes.values()) for m in matrices):
        least = (job.options.size or 0) - budget + sum(min(m.bytes.values()) for m in matrices)
        raise UsageError(
            f"--size {job.options.size:,}: the smallest kit of this model takes {least:,} bytes."
        )
    return budget


def _sensitivity(job: _Job, matrices: list[Matrix], budget: int) -> dict[str, float]:
    """Divergence on the calibration sample for each unit of a matrix's error: it alone is made smaller, and measured."""
    job.say("measuring what each matrix does to the answers")
    assert job.stats is not None
    sequences = [
        Input(p.image_tokens.astype(np.float32), p.before, p.after) for p in job.stats.probes
    ]
    original = answers(job.source, sequences, job.threads)
    whole = {t.name: t.tensor_type for t in gguf.GGUFReader(job.source).tensors if len(t.shape) > 1}
    share = budget / sum(max(m.bytes.values()) for m in matrices)
    found = {}
    with tempfile.TemporaryDirectory(prefix="pulse-edge-", dir=job.work) as folder:
        path = Path(folder) / "one.gguf"
        for i, m in enumerate(matrices):
            smaller = {
                k: size for k, size in m.bytes.items() if size < share * max(m.bytes.values())
            }
            kind = (
                max(smaller, key=lambda k: m.bytes[k])
                if smaller
                else min(m.bytes, key=lambda k: m.bytes[k])
            )
            write_types(job.source, path, whole | {m.name: kind}, job.importance, job.threads)
            made = answers(path, sequences, job.threads)
            divergence = np.concatenate(
                [parity.divergence(a, b) for a, b in zip(original, made, strict=True)]
            ).mean()
            found[m.name] = float(divergence) / max(m.harm[kind], 1e-30)
            job.progress(i + 1, len(matrices))
    return found


def answers(path: Path, sequences: Sequence[Input], threads: int) -> list[Float]:
    """A GGUF's logits (len(after), vocabulary) behind each token after the image."""
    context = max(parity._context(s.rows, s.before, s.after) for s in sequences)
    out = []
    with closing(LanguageModel(path, Settings(context=context, threads=threads))) as model:
        for s in sequences:
            model.clear()
            model.feed_tokens(s.before)
            model.feed_embeddings(s.rows)
            out.append(model.feed_tokens(s.after, every=True))
    return out


def _same_files(job: _Job) -> None:
    """Raise ParityError where a file that is the base's own is not, byte for byte."""
    made, base = listing(job.work), job.base.manifest
    wrong = [
        n
        for n in (base.packing.newline_file, base.draft_table_file)
        if n and made.get(n) != base.files[n]
    ]
    if wrong:
        raise ParityError(
            f"{', '.join(wrong)}: not as in {job.base.path}. No kit was written; try again."
        )


def _same_model(job: _Job) -> dict[str, Any]:
    """The GGUF says what the base's says, and rows of every tensor are the base's, quantized on their own. ParityError."""
    base, made = (gguf.GGUFReader(p) for p in (job.source, job.target))
    said = [
        {n: f.contents() for n, f in r.fields.items() if not n.startswith(("GGUF.", *_OF_THE_TYPE))}
        for r in (base, made)
    ]
    names = sorted(n for n in said[0].keys() | said[1].keys() if said[0].get(n) != said[1].get(n))
    kind = made.fields["general.file_type"].contents()
    if job.options.llm and kind != ggml.file_type(job.options.llm):
        raise ParityError(
            f"{job.target.name}: is of type {kind}, asked was {job.options.llm}. No kit was written."
        )
    wrong = [
        f"{n} is {str(said[1].get(n))[:60]}, the base has {str(said[0].get(n))[:60]}" for n in names
    ]
    theirs, rows = {t.name: t for t in base.tensors}, 0
    wrong += [
        f"{n} is in one of both only"
        for n in sorted(theirs.keys() ^ {t.name for t in made.tensors})
    ]
    for t in made.tensors:
        if t.name in theirs:
            picked = (
                np.linspace(0, len(t.data) - 1, min(len(t.data), ROWS)).astype(int)
                if t.data.ndim > 1
                else slice(None)
            )
            wrong += _other_rows(t, theirs[t.name], picked, job.importance.get(t.name))
            rows += len(np.atleast_2d(t.data[picked]))
    if wrong:
        more = f"; and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise ParityError(
            f"{job.target.name}: not what the base becomes: {'; '.join(wrong[:5])}{more}. No kit was written."
        )
    return {"tensors": len(made.tensors), "weight_rows_compared": rows, "weights_equal": True}


def _other_rows(made: Any, base: Any, picked: Any, importance: Float | None) -> list[str]:
    """A line where rows of a tensor are not those of the base's in the type that it has."""
    there = np.atleast_2d(np.ascontiguousarray(made.data[picked]))
    source = np.atleast_2d(np.ascontiguousarray(base.data[picked]))
    if made.tensor_type == base.tensor_type:
        wanted = source.view(np.uint8)
    else:
        matrix = gguf.quants.dequantize(source, base.tensor_type).astype(np.float32)
        wanted = ggml.packed(matrix, made.tensor_type, importance)
    same = np.array_equal(there.view(np.uint8), wanted)
    return [] if same else [f"{made.name} ({made.tensor_type.name}) has other weights"]


def _prove(job: _Job, bits: float) -> dict[str, Any]:
    """Logits against the base's, on its own image tokens: the example page and, of small models, the sample. ParityError."""
    recipe = job.options.recipe
    allowed = (
        recipe.kld
        if recipe and recipe.kld is not None
        else next(k for least, k in GATES if bits >= least)
    )
    layers, small = (
        job.base.manifest.language.layers,
        job.source.stat().st_size <= parity.WINDOW_BYTES,
    )
    sequences = [_example(job, whole=small)]
    if small:
        probes = job.stats.probes if job.stats else ()
        sequences += [Input(p.image_tokens.astype(np.float32), p.before, p.after) for p in probes]
    found, same = [], []
    for s in sequences:
        arguments = (layers, s.rows, s.before, s.after, job.threads, job.work)
        original, how = parity.logits(job.source, *arguments)
        made, _ = parity.logits(job.target, *arguments, key_cache_type=job.key_cache_type)
        found.append(parity.divergence(original, made))
        same.append(original.argmax(-1) == made.argmax(-1))
    divergence = np.concatenate(found)
    figures = {
        "pages": len(sequences),
        "positions": int(divergence.size),
        "bits_per_weight": round(bits, 3),
        "mean_kld": float(f"{divergence.mean():.3g}"),
        "kld_99_percent": float(f"{np.quantile(divergence, 0.99):.3g}"),
        "kld_required": allowed,
        "same_top_token": round(float(np.concatenate(same).mean()), 4),
        "against": f"{job.base.manifest.language.type} of the base",
        "compared": how,
    }
    if not divergence.mean() <= allowed:
        raise ParityError(
            f"{job.target.name}: mean KLD against the base {divergence.mean():.3g}, allowed {allowed}. No kit was written; "
            "take more bits, or --stats."
        )
    return figures


def _example(job: _Job, *, whole: bool) -> Input:
    """The example page and the report question; of a large model the overview tile alone, as when converting."""
    m = job.base.manifest
    pixels = next(_pages(job))
    with closing(
        VisionEncoder(job.base.file(m.vision.file), device="cpu", threads=job.threads)
    ) as encoder:
        features = encoder.encode(pixels if whole else pixels[:1])
    newline = None
    if m.packing.newline_file:
        newline = np.fromfile(job.base.file(m.packing.newline_file), "<f4")
    rows = parity.pack(features, m, newline) if whole else features[0]
    with tempfile.TemporaryDirectory(prefix="pulse-edge-", dir=job.work) as folder:
        small = Path(folder) / "tokenizer.gguf"
        parity._layers(job.source, range(1), small)
        with closing(LanguageModel(small, Settings(context=256, threads=job.threads))) as model:
            before = model.tokenize(m.prompt.before, first=True)
            after = model.tokenize(prompt.fill(m.prompt.after, prompt.REPORT_QUESTION), first=False)
    return Input(rows, before, after)
