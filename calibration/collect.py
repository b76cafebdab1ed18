"""A kit run over calibration pages -> what its matrices and its encoder saw, for `python -m export quantize --stats`.

Every sample goes the way of an answer: prompt, image tokens, question, and then the right answer instead of the kit's own.
What the language model's matrices read is summed on llama.cpp's own graph, image tokens and text rows apart; the encoder's
ranges are taken by ONNX Runtime from its graph with ReduceMin and ReduceMax behind every tensor that a product touches.

TARGET.partial is a complete file too: killed at any moment, the next call goes on from it, and ends with the same bytes
on a processor with the same instruction sets.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from PIL import Image

from pulse_edge.common.files import file_sha256
from pulse_edge.errors import (
    BenchError,
    ContextError,
    EngineError,
    PageRefused,
    ScanError,
    UsageError,
)
from pulse_edge.inference import tiling
from pulse_edge.inference.device import default_threads
from pulse_edge.inference.model import PulseModel
from pulse_edge.inference.vision_encoder import INPUT
from pulse_edge.kit import kit as kits
from pulse_edge.kit import prompt
from pulse_edge.kit.kit import Kit
from pulse_edge.page import reader as scan

from . import ecgbench, stats
from .ecgbench import Bench, Problem, Sample
from .files import refuse_existing
from .stats import Float, Probe, Stats, Sum

SAVE_SECONDS = 20
"""At most this much is done again after a kill."""
PROBES = 8
Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What to collect on."""

    bench: Path | None = None
    """None: synthetic pages, drawn for the purpose."""
    split: Path | None = None
    """A recorded split, whose calibration ids are taken; None: any."""
    samples: int = 128
    part: tuple[int, int] = (1, 1)
    """(i, n): every n-th sample from the i-th on; `calibration merge` puts the parts together."""
    threads: int | None = None


def collect(
    kit: Path, target: Path, plan: Plan, force: bool = False, say: Say = lambda _: None
) -> None:
    """Write the stats of a kit. BenchError where there is nothing to collect on or `target` cannot be written."""
    if not force:
        refuse_existing(target)
    opened = kits.open_kit(kit)
    with ExitStack() as stack:
        bench = ecgbench.open_bench(plan.bench or _synthetic(stack, plan, say))
        chosen, probes = choose(bench, plan)
        partial = target.with_name(target.name + ".partial")
        made = _begun(partial, _empty(opened, bench, plan))
        model = stack.enter_context(_Loaded(opened, made, plan.threads or default_threads()))
        wanted = {
            one for i, one in enumerate(sorted(chosen)) if i % plan.part[1] == plan.part[0] - 1
        }
        _run(model, made, _samples(bench, wanted, made, say), len(wanted), probes, partial, say)
    if not made.done:
        raise BenchError(f"{bench.path}: no sample could be used; see what was left out, and why")
    stats.save(made, target)
    partial.unlink(missing_ok=True)


def choose(bench: Bench, plan: Plan) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """(task, id) of the samples to take, every task in turn, and of those among them that become probes.

    A sample's place among its task's depends on its name alone.
    """
    if plan.samples < 1 or not 1 <= plan.part[0] <= plan.part[1]:
        raise UsageError(
            f"{plan.samples} samples, part {plan.part[0]} of {plan.part[1]}: expected at least one sample"
        )
    allowed = ecgbench.load_split(plan.split).calibration if plan.split else None
    queues = []
    for task in bench.tasks:
        ids = [one.id for one in bench.samples(task, lambda _: None, pictures=False)]
        if allowed is not None:
            ids = sorted(set(ids) & set(allowed.get(task, ())))
        queues.append([(task, name) for name in sorted(ids, key=lambda name: _place(task, name))])
    order = [queue[i] for i in range(max(map(len, queues))) for queue in queues if i < len(queue)]
    if not order:
        raise BenchError(
            f"{bench.path}: has none of the split's calibration ids; give the data that was divided"
        )
    return set(order[: plan.samples]), set(order[: min(PROBES, plan.samples)])


def _place(task: str, name: str) -> bytes:
    return hashlib.sha256(f"{task}\n{name}".encode()).digest()


def _synthetic(stack: ExitStack, plan: Plan, say: Say) -> Path:
    """As many pages as samples, drawn into a folder of its own."""
    from .synthesize import Plan as Pages
    from .synthesize import synthesize

    say("no --bench: drawing synthetic pages")
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pulse-edge-")))
    synthesize(folder / "synthetic", Pages(pages=plan.samples, seed=0))
    return folder / "synthetic"


# --- one run ----------------------------------------------------------------------------------------------------------


def _empty(kit: Kit, bench: Bench, plan: Plan) -> Stats:
    """Stats of nothing yet, for this kit and plan."""
    reader = gguf.GGUFReader(kit.file(kit.manifest.language.file))
    shapes = {t.name: [int(n) for n in t.shape] for t in reader.tensors}
    weights = {}
    for node, matrices in stats.INPUTS.items():
        for i in range(kit.manifest.language.layers):
            weights.update({f"blk.{i}.{m}.weight": f"{node}-{i}" for m in matrices})
    if "output.weight" in shapes:
        weights["output.weight"] = stats.OUTPUT
    sums = {node: Sum.zero(shapes[weight][0]) for weight, node in weights.items()}
    header = {
        "base": kits.base_of(kit.manifest),
        "kit": kit.manifest.id,
        "context": kit.manifest.language.context_length,
        "data": "synthetic" if plan.bench is None else bench.path.resolve().name,
        "samples": plan.samples,
        "split": None if plan.split is None else file_sha256(plan.split),
    }
    return Stats(header, weights, sums)


def _begun(partial: Path, empty: Stats) -> Stats:
    """What an interrupted run left, or nothing yet."""
    if not partial.is_file():
        return empty
    made = stats.load(partial)
    if made.header != empty.header or made.weights != empty.weights:
        raise BenchError(
            f"{partial}: is what another run left (other kit, data or settings); remove it to begin anew"
        )
    return made


def _samples(bench: Bench, wanted: set[tuple[str, str]], made: Stats, say: Say) -> Iterator[Sample]:
    """The wanted samples that are not done, in the order of the files; what is wrong goes to `made`."""
    wanted = wanted - {(task, name) for task, name, _ in made.done + made.left_out}

    def note(problem: Problem) -> None:
        say(f"left out: {problem}")
        made.left_out.append((problem.task, problem.id, problem.what))

    for task in bench.tasks:
        ids = {name for t, name in wanted if t == task}
        if ids:
            yield from bench.samples(task, note, only=ids)


def _run(
    model: _Loaded,
    made: Stats,
    samples: Iterator[Sample],
    total: int,
    probes: set[tuple[str, str]],
    partial: Path,
    say: Say,
) -> None:
    """Take in one sample after another, and keep what is done."""
    begun, before = time.monotonic(), len(made.done) + len(made.left_out)
    saved = shown = begun
    for sample in samples:
        try:
            model.take(sample, made, (sample.task, sample.id) in probes)
        except (ScanError, PageRefused, ContextError) as error:
            say(f"left out: {sample.task} {sample.id}: {error}")
            made.left_out.append((sample.task, sample.id, str(error)))
        now, count = time.monotonic(), len(made.done) + len(made.left_out)
        if now - saved > SAVE_SECONDS:
            stats.save(made, partial)
            saved = time.monotonic()
        if now - shown > 5:
            shown, left = now, (now - begun) / max(1, count - before) * (total - count)
            say(f"{count} of {total} samples, about {left / 60:.0f} min left")


class _Loaded:
    """A kit with both observers."""

    def __init__(self, kit: Kit, made: Stats, threads: int) -> None:
        widths = {name: len(one.image) for name, one in made.sums.items()}
        self._seen = _Rows(widths)
        self._model = PulseModel.load(kit, device="cpu", threads=threads, observer=self._seen)
        self._ranges = _Ranges(kit, threads)

    def __enter__(self) -> _Loaded:
        return self

    def __exit__(self, *_: object) -> None:
        self._model.close()
        self._ranges.close()

    def take(self, sample: Sample, made: Stats, probe: bool) -> None:
        """Run a sample and take it into `made`; nothing is taken of one that fails."""
        assert sample.picture is not None
        self._seen.forget()
        page = scan.read(Image.open(io.BytesIO(sample.picture)))
        rows = self._model.encode(page, admit=False).image_tokens
        sums, seen = {name: Sum.zero(len(one.image)) for name, one in made.sums.items()}, []
        for question, answer in sample.turns:
            seen.append(self._answer(rows, question, answer))
            for name, one in self._seen.taken().items():
                sums[name].add(one)
        for name, one in sums.items():
            made.sums[name].add(one.rounded())
        for name, (low, high) in self._ranges.of(self._pixels(page)).items():
            known = made.ranges.get(name, (low, high))
            made.ranges[name] = min(low, known[0]), max(high, known[1])
        if probe:
            made.probes.append(
                Probe(sample.task, sample.id, rows.astype(np.float16), *seen[0], sample.picture)
            )
        made.done.append((sample.task, sample.id, hashlib.sha256(sample.picture).hexdigest()))

    def _answer(self, rows: Float, question: str, answer: str) -> tuple[list[int], list[int]]:
        """One question with its right answer; the token ids on either side of the image."""
        spec, language = self._model.kit.manifest.prompt, self._model.language
        language.clear()
        self._seen.image = False
        # The first thing that `progress` hears is that no image token is done: the prompt is.
        language.prefill(None, spec.before, rows, lambda _done, _of: self._seen.start_image())
        self._seen.image = False
        before = language.tokenize(spec.before, first=True)
        after = language.tokenize(prompt.fill(spec.after, question), first=False)
        after += language.tokenize(answer, first=False)
        after = after[: language.context - language.position]
        language.feed_tokens(after, every=True)
        return before, after

    def _pixels(self, page: scan.Page) -> Float:
        m = self._model.kit.manifest
        return tiling.cut(
            page.image,
            size=m.vision.image_size,
            aspect_ratio=m.packing.aspect_ratio,
            pinpoints=m.packing.grid_pinpoints,
            mean=m.vision.mean,
            std=m.vision.std,
        )


class _Rows:
    """Sums what llama.cpp's matrices read (an Observer of pulse_edge.inference.language_model)."""

    def __init__(self, widths: dict[str, int]) -> None:
        self._widths = widths
        self._sums: dict[str, Sum] = {}
        self.image = False

    def wants(self, name: str) -> bool:
        return name in self._widths

    def see(self, name: str, values: Float) -> None:
        rows = values.reshape(-1, self._widths[name]).astype(np.float64)
        one = self._sums.setdefault(name, Sum.zero(rows.shape[1]))
        part = one.image if self.image else one.text
        part += np.square(rows).sum(0)
        one.rows[not self.image] += len(rows)

    def start_image(self) -> None:
        self.image = True

    def forget(self) -> None:
        """Whatever a sample left that failed half-way."""
        self._sums = {}

    def taken(self) -> dict[str, Sum]:
        """The sums since the last call. EngineError where one is missing or no number."""
        taken, self._sums = self._sums, {}
        if absent := sorted(self._widths.keys() - taken.keys()):
            raise EngineError(
                f"llama.cpp's graph has no node {absent[0]}: this version is not the one expected."
            )
        if wrong := [n for n, one in taken.items() if not np.isfinite(one.image + one.text).all()]:
            raise EngineError(
                f"{wrong[0]}: the model gave values that are not numbers. Verify the kit."
            )
        return taken


class _Ranges:
    """Smallest and largest value of every tensor that goes into or comes out of a product of the encoder."""

    def __init__(self, kit: Kit, threads: int) -> None:
        import onnx
        import onnxruntime as ort

        source = kit.file(kit.manifest.vision.file)
        model = onnx.load(source, load_external_data=False)
        self._names = _watched(model)
        for name in self._names:
            for kind in ("Min", "Max"):
                node = onnx.helper.make_node(
                    f"Reduce{kind}", [name], [f"{name}/{kind}"], keepdims=0
                )
                model.graph.node.append(node)
                model.graph.output.append(
                    onnx.helper.make_tensor_value_info(f"{name}/{kind}", 1, [])
                )
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads
        with tempfile.TemporaryDirectory(prefix="pulse-edge-") as folder:
            for name in kits.encoder_files(kit.manifest):
                if name != source.name:
                    (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
                    _beside(kit.file(name), Path(folder) / name)
            onnx.save_model(model, Path(folder) / source.name)
            providers = ["CPUExecutionProvider"]
            self._session: Any = ort.InferenceSession(
                str(Path(folder) / source.name), options, providers=providers
            )

    def of(self, pixels: Float) -> dict[str, tuple[float, float]]:
        """name -> (lowest, highest) over tiles (n, 3, S, S)."""
        outputs = [f"{name}/{kind}" for name in self._names for kind in ("Min", "Max")]
        found = np.array(
            [self._session.run(outputs, {INPUT: pixels[i : i + 1]}) for i in range(len(pixels))]
        )
        lowest, highest = found[:, ::2].min(0), found[:, 1::2].max(0)
        return {
            n: (float(a), float(b)) for n, a, b in zip(self._names, lowest, highest, strict=True)
        }

    def close(self) -> None:
        self._session = None


def _watched(model: Any) -> list[str]:
    """Names of what products read and write, weights left out, in the graph's order."""
    fixed = {tensor.name for tensor in model.graph.initializer}
    fixed |= {
        n.output[0]
        for n in model.graph.node
        if n.op_type in ("Cast", "Constant") and set(n.input) <= fixed
    }
    touched = [n for n in model.graph.node if n.op_type in ("MatMul", "Gemm", "Conv")]
    return list(
        dict.fromkeys(
            name for n in touched for name in (*n.input, *n.output) if name and name not in fixed
        )
    )


def _beside(file: Path, other: Path) -> None:
    """The same file under another name, without a copy where the disk allows it."""
    try:
        os.link(file, other)
    except OSError:
        shutil.copyfile(file, other)
