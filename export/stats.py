"""Read a statistics file of `calibration collect` for the quantization of a kit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from calibration import statistics_file
from calibration.statistics_file import Float, Probe
from pulse_edge.common.files import file_sha256
from pulse_edge.errors import BenchError, CheckpointError
from pulse_edge.kit.kit import Kit, base_of


@dataclass(frozen=True)
class Stats:
    """Importance by matrix, ranges of encoder tensors, probes, and the samples they came from."""

    importance: Mapping[str, Float]
    """Matrix -> mean square of each input column, float32 (n,)."""
    ranges: Mapping[str, tuple[float, float]]
    """Tensor of the encoder -> lowest and highest value."""
    probes: tuple[Probe, ...]
    """Samples on which divergences are measured."""
    ids: Mapping[str, tuple[str, ...]]
    """Task -> ids of the samples."""
    content: str
    sha256: str


def read(path: Path, kit: Kit) -> Stats:
    """Read the statistics for a kit.

    Raises CheckpointError where the file is something else, or was collected with another model.
    """
    try:
        statistics = statistics_file.load(path)
    except BenchError as error:
        raise CheckpointError(str(error)) from error
    if statistics.source.base != base_of(kit.manifest):
        raise CheckpointError(
            f"{path}: was collected with another model than {kit.path}. Collect with that kit."
        )
    importance = {name: statistics.mean_squares(name) for name in statistics.weights}
    return Stats(
        importance,
        statistics.ranges,
        tuple(statistics.probes),
        statistics.ids,
        statistics.content,
        file_sha256(path),
    )
