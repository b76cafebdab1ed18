"""Reads what `python -m calibration collect` wrote (its format: calibration/stats.py). What quantization needs of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from pulse_edge.common.files import file_sha256
from pulse_edge.errors import CheckpointError
from pulse_edge.kit import kit as kits
from pulse_edge.kit.kit import Kit

Float = npt.NDArray[np.float32]
VERSION = 1


@dataclass(frozen=True)
class Probe:
    """One calibration sample: its picture file, and the base kit's image tokens (T, d) float16 between token ids."""

    rows: npt.NDArray[np.float16]
    before: list[int]
    after: list[int]
    picture: bytes


@dataclass(frozen=True)
class Stats:
    """Importance by matrix, ranges of encoder tensors, probes, and which samples it all comes from."""

    importance: Mapping[str, Float]
    """Matrix -> mean square of each input column, float32 (n,): what llama.cpp makes of `in_sum2` and `counts`."""
    ranges: Mapping[str, tuple[float, float]]
    probes: tuple[Probe, ...]
    ids: Mapping[str, tuple[str, ...]]
    content: str
    sha256: str


def read(path: Path, kit: Kit) -> Stats:
    """Stats for this kit. CheckpointError where the file is none, or was collected with another model."""
    try:
        reader = gguf.GGUFReader(path)
        told = json.loads(reader.fields["pulse_edge.stats"].contents())
        if told["version"] != VERSION:
            raise ValueError(f"version {told['version']}")
        data = {t.name: t.data for t in reader.tensors}
        importance = {
            name: np.asarray(data[f"{name}.in_sum2"][0] / data[f"{name}.counts"][0, 0])
            for name in told["weights"]
        }
        probes = tuple(_probe(data, i) for i in range(len(told["probes"])))
        ids: dict[str, list[str]] = {}
        for task, name, _ in told["done"]:
            ids.setdefault(task, []).append(name)
        base, content = told["header"]["base"], str(told["content"])
        ranges = _ranges(reader)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as e:
        raise CheckpointError(
            f"{path}: no file of `calibration collect` ({e}). Collect anew."
        ) from e
    if base != kits.base_of(kit.manifest):
        raise CheckpointError(
            f"{path}: was collected with another model than {kit.path}. Collect with that kit."
        )
    listed = {task: tuple(sorted(names)) for task, names in sorted(ids.items())}
    return Stats(importance, ranges, probes, listed, content, file_sha256(path))


def _probe(data: Mapping[str, Any], i: int) -> Probe:
    rows, before, after, picture = (
        np.array(data[f"probe.{i}.{x}"]) for x in ("rows", "before", "after", "picture")
    )
    return Probe(rows, before.tolist(), after.tolist(), picture.tobytes())


def _ranges(reader: Any) -> dict[str, tuple[float, float]]:
    if "pulse_edge.inference.vision_encoder.names" not in reader.fields:
        return {}
    columns = [
        reader.fields[f"pulse_edge.inference.vision_encoder.{key}"].contents()
        for key in ("names", "lowest", "highest")
    ]
    return {name: (low, high) for name, low, high in zip(*columns, strict=True)}
