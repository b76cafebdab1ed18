"""The statistics file: what a kit's two models computed on calibration pages, in one GGUF file.

`calibration collect` writes it and `export quantize` reads it. It is an importance matrix as
llama.cpp's own tool writes one (tools/imatrix/imatrix.cpp: `NAME.in_sum2`, `NAME.counts`,
`imatrix.*`), so `llama-quantize --imatrix` accepts it too. llama.cpp ignores the other entries:

    INPUT.image_sum2, INPUT.text_sum2   (n,) float64: squares summed over each column, for image
                                        tokens and for text tokens
    INPUT.tokens                        (2,) int64: number of image tokens and of text tokens
    probe.N.image_tokens                (T, d) float16
    probe.N.before, probe.N.after       (t,) int32: token ids on either side of the image tokens
    probe.N.picture                     (bytes,) int8: the picture file
    pulse_edge.statistics               JSON: the kit, the data and the settings
    pulse_edge.ranges.*                 smallest and largest value of each encoder tensor

The probes are a few samples on which a quantized model is compared with its base.

A page's sums are rounded to float32 and added in float64. That is exact while a column's sums
differ by less than 2^19 from page to page, so the same pages give the same bytes in any order, in
one run or merged from several, on processors with the same instruction sets. Other processors run
other kernels, whose sums differ in the last bits.

Imports neither torch nor an inference engine.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from pulse_edge.errors import BenchError

Float = npt.NDArray[np.float32]
Double = npt.NDArray[np.float64]
VERSION = 1
HEADER, RANGES = "pulse_edge.statistics", "pulse_edge.ranges"
BATCH = 256
"""`imatrix.chunk_size`; llama.cpp only displays it."""
INPUTS: Mapping[str, tuple[str, ...]] = {
    "attn_norm": ("attn_q", "attn_k", "attn_v"),
    "kqv_out": ("attn_output",),
    "ffn_norm": ("ffn_gate", "ffn_up"),
    "ffn_swiglu": ("ffn_down",),
}
"""Node of llama.cpp's graph -> the matrices of its layer that read it (src/models/llama.cpp)."""
OUTPUT = "result_norm"
"""The node that the output matrix reads."""


@dataclass
class InputSums:
    """Squares of one input, summed over tokens: `image` and `text` (n,) and both token counts."""

    image: Double
    text: Double
    tokens: list[int]

    @classmethod
    def zero(cls, width: int) -> InputSums:
        """Sums over no token."""
        return cls(np.zeros(width), np.zeros(width), [0, 0])

    def add(self, other: InputSums) -> None:
        """Add another sum to this one, in place."""
        self.image += other.image
        self.text += other.text
        self.tokens = [a + b for a, b in zip(self.tokens, other.tokens, strict=True)]

    def rounded(self) -> InputSums:
        """A copy in the precision of float32; the module's docstring says why."""
        image, text = (
            part.astype(np.float32).astype(np.float64) for part in (self.image, self.text)
        )
        return InputSums(image, text, list(self.tokens))


@dataclass(frozen=True)
class Probe:
    """One sample on which divergences are measured: the base kit's image tokens (T, d) between
    token ids.
    """

    task: str
    id: str
    image_tokens: npt.NDArray[np.float16]
    before: list[int]
    after: list[int]
    picture: bytes


@dataclass(frozen=True)
class Source:
    """What statistics were collected with; files are merged only where it is the same."""

    base: Mapping[str, str]
    """sha256 of the unquantized language model and encoder (`kit.base_of`)."""
    kit: str
    context: int
    data: str
    samples: int
    split: str | None
    """sha256 of the split file."""


@dataclass
class Statistics:
    """The whole content of a statistics file."""

    source: Source
    weights: Mapping[str, str]
    """Matrix -> the input that it reads."""
    sums: dict[str, InputSums]
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    probes: list[Probe] = field(default_factory=list)
    done: list[tuple[str, str, str]] = field(default_factory=list)
    """(task, id, sha256 of the picture) of each sample that was used."""
    left_out: list[tuple[str, str, str]] = field(default_factory=list)
    """(task, id, reason) of each sample that could not be used."""

    @property
    def content(self) -> str:
        """sha256 over ids and pictures; the order of collection does not matter."""
        return hashlib.sha256(json.dumps(sorted(self.done)).encode()).hexdigest()

    @property
    def ids(self) -> dict[str, tuple[str, ...]]:
        """Ids of the samples that were used, in alphabetical order, by task."""
        by_task: dict[str, list[str]] = {}
        for task, name, _ in sorted(self.done):
            by_task.setdefault(task, []).append(name)
        return {task: tuple(names) for task, names in by_task.items()}

    def importance(self, weight: str) -> tuple[Double, int]:
        """Sums of squares (n,) of a matrix's input columns over all tokens, and the token count."""
        one = self.sums[self.weights[weight]]
        return one.image + one.text, sum(one.tokens)

    def mean_squares(self, weight: str) -> Float:
        """Mean square of each input column (n,) float32, as llama.cpp divides `in_sum2` by
        `counts`.
        """
        sums, count = self.importance(weight)
        return np.asarray(sums.astype(np.float32) / np.float32(count))


def merge(parts: Iterable[tuple[Path, Statistics]]) -> Statistics:
    """Merge statistics of several runs.

    BenchError where settings differ or a sample occurs twice.
    """
    (first_path, whole), *others = parts
    for path, part in others:
        if part.source != whole.source or part.weights != whole.weights:
            raise BenchError(
                f"{path}: was not collected with the same kit, data and settings as {first_path}; "
                "collect it with the same ones"
            )
        if shared := {one[:2] for one in whole.done} & {one[:2] for one in part.done}:
            raise BenchError(
                f"{path}: has {len(shared)} samples in common with others, {min(shared)} first; "
                "leave one out"
            )
        for name, one in part.sums.items():
            whole.sums[name].add(one)
        for name, limits in part.ranges.items():
            widen(whole.ranges, name, limits)
        whole.probes += part.probes
        whole.done += part.done
        whole.left_out += part.left_out
    return whole


def widen(ranges: dict[str, tuple[float, float]], name: str, limits: tuple[float, float]) -> None:
    """Widen a tensor's range in `ranges` so that it holds `limits`."""
    low, high = ranges.get(name, limits)
    ranges[name] = min(low, limits[0]), max(high, limits[1])


# --- the file ---------------------------------------------------------------------------------


def save(statistics: Statistics, path: Path) -> None:
    """Write the file atomically. BenchError where it cannot be written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(statistics, temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise BenchError(
            f"{path}: cannot be written ({error.strerror}); choose another place"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _write(statistics: Statistics, path: Path) -> None:
    writer = gguf.GGUFWriter(path, "imatrix")
    writer.add_type("imatrix")
    tokens = max((sum(one.tokens) for one in statistics.sums.values()), default=0)
    writer.add_array("imatrix.datasets", [statistics.source.data])
    writer.add_uint32("imatrix.chunk_count", max(1, tokens // BATCH))
    writer.add_uint32("imatrix.chunk_size", BATCH)
    probes = sorted(statistics.probes, key=lambda p: (p.task, p.id))
    header = {
        "version": VERSION,
        "source": asdict(statistics.source),
        "weights": statistics.weights,
        "content": statistics.content,
        "done": sorted(statistics.done),
        "left_out": sorted(statistics.left_out),
        "probes": [(p.task, p.id) for p in probes],
    }
    writer.add_string(HEADER, json.dumps(header))
    if statistics.ranges:
        names = sorted(statistics.ranges)
        writer.add_array(f"{RANGES}.names", names)
        for k, key in enumerate(("lowest", "highest")):
            writer.add_array(f"{RANGES}.{key}", [float(statistics.ranges[n][k]) for n in names])
    _add_tensors(writer, statistics, probes)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tensors(writer: Any, statistics: Statistics, probes: Iterable[Probe]) -> None:
    for name in sorted(statistics.weights):
        sums, count = statistics.importance(name)
        writer.add_tensor(f"{name}.in_sum2", sums.astype(np.float32)[None])
        writer.add_tensor(f"{name}.counts", np.full((1, 1), count, np.float32))
    for name, one in sorted(statistics.sums.items()):
        writer.add_tensor(f"{name}.image_sum2", one.image)
        writer.add_tensor(f"{name}.text_sum2", one.text)
        writer.add_tensor(f"{name}.tokens", np.asarray(one.tokens, np.int64))
    for i, probe in enumerate(probes):
        writer.add_tensor(f"probe.{i}.image_tokens", probe.image_tokens)
        for side in ("before", "after"):
            writer.add_tensor(f"probe.{i}.{side}", np.asarray(getattr(probe, side), np.int32))
        writer.add_tensor(f"probe.{i}.picture", np.frombuffer(probe.picture, np.int8))


def load(path: Path) -> Statistics:
    """Read a statistics file. BenchError where `path` is something else or damaged."""
    try:
        reader = gguf.GGUFReader(path)
        header = json.loads(reader.fields[HEADER].contents())
        if header["version"] != VERSION:
            raise ValueError(f"version {header['version']}")
        data = {t.name: np.array(t.data) for t in reader.tensors}
        sums = {
            n: InputSums(
                data[f"{n}.image_sum2"], data[f"{n}.text_sum2"], data[f"{n}.tokens"].tolist()
            )
            for n in set(header["weights"].values())
        }
        probes = [_probe(data, i, *name) for i, name in enumerate(header["probes"])]
        listed = [
            [(str(a), str(b), str(c)) for a, b, c in header[key]] for key in ("done", "left_out")
        ]
        source = Source(**header["source"])
        return Statistics(source, header["weights"], sums, _ranges(reader), probes, *listed)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise BenchError(
            f"{path}: is not a file of `calibration collect` ({error}); collect again"
        ) from error


def _probe(data: Mapping[str, npt.NDArray[Any]], i: int, task: str, name: str) -> Probe:
    image_tokens, before, after, picture = (
        data[f"probe.{i}.{part}"] for part in ("image_tokens", "before", "after", "picture")
    )
    return Probe(task, name, image_tokens, before.tolist(), after.tolist(), picture.tobytes())


def _ranges(reader: Any) -> dict[str, tuple[float, float]]:
    if f"{RANGES}.names" not in reader.fields:
        return {}
    columns = [
        reader.fields[f"{RANGES}.{key}"].contents() for key in ("names", "lowest", "highest")
    ]
    return {name: (low, high) for name, low, high in zip(*columns, strict=True)}
