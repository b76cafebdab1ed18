"""What a kit's language model and encoder saw on calibration pages: sums, ranges and probes, in one GGUF file.

The file is an importance matrix as llama.cpp's tool writes it (tools/imatrix/imatrix.cpp: `NAME.in_sum2`, `NAME.counts`,
`imatrix.*`), so that `llama-quantize --imatrix` takes it too. llama.cpp passes over everything else:

    INPUT.image_sum2, INPUT.text_sum2 (n,) float64, INPUT.rows (2,) int64: squares summed per column, and rows of each kind
    probe.N.rows (T, d) float16, probe.N.before, probe.N.after (t,) int32, probe.N.picture (bytes,) int8: a few samples' image
        rows, token ids on either side, and picture file, on which quantized halves are compared with the base
    pulse_edge.stats: JSON, whose stats these are; pulse_edge.inference.vision_encoder.*: smallest and largest value of encoder tensors

A page's sums are rounded to float32 and added in float64, which is exact as long as a column's sums differ by less than
2^19 from page to page: the same pages give the same bytes in any order, in one run or merged from several, on processors
with the same instruction sets (others take other kernels, whose sums differ in the last bits).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from pulse_edge.errors import BenchError

Float = npt.NDArray[np.float32]
Double = npt.NDArray[np.float64]
VERSION = 1
BATCH = 256
"""`imatrix.chunk_size`; llama.cpp only shows it."""
INPUTS: Mapping[str, tuple[str, ...]] = {
    "attn_norm": ("attn_q", "attn_k", "attn_v"),
    "kqv_out": ("attn_output",),
    "ffn_norm": ("ffn_gate", "ffn_up"),
    "ffn_swiglu": ("ffn_down",),
}
"""Node of llama.cpp's graph -> the matrices of its layer that read it (src/models/llama.cpp)."""
OUTPUT = "result_norm"
"""What the output matrix reads."""


@dataclass
class Sum:
    """Squares of one input, summed over rows: `image` and `text` (n,), and how many rows each has."""

    image: Double
    text: Double
    rows: list[int]

    @classmethod
    def zero(cls, width: int) -> Sum:
        """Nothing seen yet."""
        return cls(np.zeros(width), np.zeros(width), [0, 0])

    def add(self, other: Sum) -> None:
        """Take another sum in."""
        self.image += other.image
        self.text += other.text
        self.rows = [a + b for a, b in zip(self.rows, other.rows, strict=True)]

    def rounded(self) -> Sum:
        """In float32's precision; see above."""
        image, text = (
            part.astype(np.float32).astype(np.float64) for part in (self.image, self.text)
        )
        return Sum(image, text, list(self.rows))


@dataclass(frozen=True)
class Probe:
    """One sample's input, to measure divergences with: its picture, and the image tokens (T, d) between token ids."""

    task: str
    id: str
    rows: npt.NDArray[np.float16]
    before: list[int]
    after: list[int]
    picture: bytes


@dataclass
class Stats:
    """Everything that was collected, and from what."""

    header: dict[str, Any]
    """What must agree for two to be merged: the base kit's hashes, the data, the settings."""
    weights: Mapping[str, str]
    """Matrix -> the input that it reads."""
    sums: dict[str, Sum]
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    probes: list[Probe] = field(default_factory=list)
    done: list[tuple[str, str, str]] = field(default_factory=list)
    """(task, id, sha256 of the picture)"""
    left_out: list[tuple[str, str, str]] = field(default_factory=list)
    """(task, id, why)"""

    @property
    def content(self) -> str:
        """sha256 over ids and pictures, in whatever order they came."""
        return hashlib.sha256(json.dumps(sorted(self.done)).encode()).hexdigest()

    def importance(self, weight: str) -> tuple[Double, int]:
        """What a matrix's columns weigh: sums of squares (n,) over all rows, and how many rows."""
        one = self.sums[self.weights[weight]]
        return one.image + one.text, sum(one.rows)


def merge(parts: Iterable[tuple[Path, Stats]]) -> Stats:
    """One of several. BenchError where they are not of the same run's settings, or share a sample."""
    (first_path, whole), *others = parts
    for path, part in others:
        if part.header != whole.header or part.weights != whole.weights:
            raise BenchError(
                f"{path}: was not collected with the same kit, data and settings as {first_path}"
            )
        if both := {one[:2] for one in whole.done} & {one[:2] for one in part.done}:
            raise BenchError(
                f"{path}: has {len(both)} samples in common with others, {min(both)} first; leave one out"
            )
        for name, one in part.sums.items():
            whole.sums[name].add(one)
        for name, (low, high) in part.ranges.items():
            known = whole.ranges.get(name, (low, high))
            whole.ranges[name] = min(low, known[0]), max(high, known[1])
        whole.probes += part.probes
        whole.done += part.done
        whole.left_out += part.left_out
    return whole


# --- the file ---------------------------------------------------------------------------------------------------------


def save(stats: Stats, path: Path) -> None:
    """Write the file, all of it or nothing. BenchError where it cannot be written."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(stats, beside)
        os.replace(beside, path)
    except OSError as error:
        raise BenchError(
            f"{path}: cannot be written ({error.strerror}); choose another place"
        ) from error
    finally:
        beside.unlink(missing_ok=True)


def _write(stats: Stats, path: Path) -> None:
    writer = gguf.GGUFWriter(path, "imatrix")
    writer.add_type("imatrix")
    rows = max((sum(one.rows) for one in stats.sums.values()), default=0)
    writer.add_array("imatrix.datasets", [stats.header["data"]])
    writer.add_uint32("imatrix.chunk_count", max(1, rows // BATCH))
    writer.add_uint32("imatrix.chunk_size", BATCH)
    header = {
        "version": VERSION,
        "header": stats.header,
        "weights": stats.weights,
        "content": stats.content,
    }
    listed = {name: sorted(getattr(stats, name)) for name in ("done", "left_out")}
    probes = sorted(stats.probes, key=lambda p: (p.task, p.id))
    named = {"probes": [(p.task, p.id) for p in probes]}
    writer.add_string("pulse_edge.stats", json.dumps(header | listed | named))
    if stats.ranges:
        names = sorted(stats.ranges)
        writer.add_array("pulse_edge.inference.vision_encoder.names", names)
        writer.add_array(
            "pulse_edge.inference.vision_encoder.lowest", [float(stats.ranges[n][0]) for n in names]
        )
        writer.add_array(
            "pulse_edge.inference.vision_encoder.highest",
            [float(stats.ranges[n][1]) for n in names],
        )
    for name in sorted(stats.weights):
        sums, count = stats.importance(name)
        writer.add_tensor(f"{name}.in_sum2", sums.astype(np.float32)[None])
        writer.add_tensor(f"{name}.counts", np.full((1, 1), count, np.float32))
    for name, one in sorted(stats.sums.items()):
        writer.add_tensor(f"{name}.image_sum2", one.image)
        writer.add_tensor(f"{name}.text_sum2", one.text)
        writer.add_tensor(f"{name}.rows", np.asarray(one.rows, np.int64))
    for i, probe in enumerate(probes):
        writer.add_tensor(f"probe.{i}.rows", probe.rows)
        for side in ("before", "after"):
            writer.add_tensor(f"probe.{i}.{side}", np.asarray(getattr(probe, side), np.int32))
        writer.add_tensor(f"probe.{i}.picture", np.frombuffer(probe.picture, np.int8))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def load(path: Path) -> Stats:
    """Read a file of `save`. BenchError where it is none."""
    try:
        reader = gguf.GGUFReader(path)
        told = json.loads(reader.fields["pulse_edge.stats"].contents())
        if told["version"] != VERSION:
            raise ValueError(f"version {told['version']}")
        data = {t.name: np.array(t.data) for t in reader.tensors}
        names = set(told["weights"].values())
        sums = {
            n: Sum(data[f"{n}.image_sum2"], data[f"{n}.text_sum2"], data[f"{n}.rows"].tolist())
            for n in names
        }
        probes = [_probe(data, i, *name) for i, name in enumerate(told["probes"])]
        listed = [
            [(str(a), str(b), str(c)) for a, b, c in told[key]] for key in ("done", "left_out")
        ]
        return Stats(told["header"], told["weights"], sums, _ranges(reader), probes, *listed)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise BenchError(
            f"{path}: is not a file of `calibration collect` ({error}); collect anew"
        ) from error


def _probe(data: Mapping[str, npt.NDArray[Any]], i: int, task: str, name: str) -> Probe:
    rows, before, after, picture = (
        data[f"probe.{i}.{part}"] for part in ("rows", "before", "after", "picture")
    )
    return Probe(task, name, rows, before.tolist(), after.tolist(), picture.tobytes())


def _ranges(reader: Any) -> dict[str, tuple[float, float]]:
    if "pulse_edge.inference.vision_encoder.names" not in reader.fields:
        return {}
    columns = [
        reader.fields[f"pulse_edge.inference.vision_encoder.{key}"].contents()
        for key in ("names", "lowest", "highest")
    ]
    return {name: (low, high) for name, low, high in zip(*columns, strict=True)}
