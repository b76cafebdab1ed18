"""Make a lesson of a page: the tiles that a model sees, and targets for each of their patches.

Targets per patch make it possible to train a model from random weights on a few cores: which lead
runs through a patch and how high, which heartbeat lies in it and with what intervals. Times are in
seconds, levels in millivolts, places in patches.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from calibration.synthetic.findings import CODE15, CPSC, FINDINGS, LEADS, PTBXL
from calibration.synthetic.pages import Page, Trace
from calibration.synthetic.recording import HZ, Recording
from pulse_edge.inference import tiling

SUBCOLUMNS = 14
"""Trace heights given per patch, evenly spaced across it."""
KINDS = ("", "N", "A", "V")
"""Kinds of beat whose QRS peak lies in a patch; none first."""
BEAT = ("place", "before", "after", "pr", "qrs", "qt")
"""Figures of such a beat: position of the peak in the patch (0 to 1), RR before and after, PR, QRS
and QT, all in seconds.
"""
MEASURES = ("rate", "pr", "qrs", "qt", "axis_cos", "axis_sin")
"""Measurements of the page: rate in beats per second, intervals in seconds."""

Floats = NDArray[np.float32]
Small = NDArray[np.uint8]
UNKNOWN = 255


@dataclass(frozen=True, eq=False)
class Lesson:
    """One page.

    Patches are numbered within the grid tiles: tile (from 0, without the overview), then token in
    it.
    """

    tiles: Small  # (n, S, S, 3) RGB, the overview first
    inner: (
        Small  # (n - 1, side, side) 1 where a patch shows a part of the page and not black padding
    )
    at: NDArray[np.int32]  # (m,) patches through which a row's baseline runs: tile * side^2 + token
    lead: Small  # (m,) index in LEADS of what is drawn there
    kind: Small  # (m,) index in KINDS, UNKNOWN for real recordings
    beat: Floats  # (m, len(BEAT)), NaN where unknown or no beat
    st: Floats  # (m,) mV, the lead's ST level, NaN where unknown
    traced: NDArray[np.int32]  # (k,) patches through which a trace runs, numbered as `at`
    heights: Floats  # (k, SUBCOLUMNS) of the trace in its patch, 0 top to 1 bottom, NaN where it is elsewhere
    findings: Small  # (14,) by FINDINGS, UNKNOWN where not known
    cpsc: Small  # (9,) by CPSC, UNKNOWN where not known
    superclass: Small  # (5,) by PTBXL
    measures: Floats  # (len(MEASURES),)
    levels: Floats  # (12,) mV, ST in each lead
    words: Small  # UTF-8 JSON: [[question, answer], ...]

    def write(self, stream: BinaryIO) -> None:
        """As one frame: length in 8 bytes, little endian, then an uncompressed .npz."""
        buffer = io.BytesIO()
        np.savez(buffer, **{f.name: getattr(self, f.name) for f in fields(self)})
        stream.write(len(buffer.getbuffer()).to_bytes(8, "little"))
        stream.write(buffer.getbuffer())


@dataclass(frozen=True)
class Grid:
    """Where the page lies on the canvas that the grid tiles are cut from; pixels."""

    width: int
    height: int
    scale: tuple[float, float]
    offset: tuple[int, int]
    inner: tuple[int, int]

    @classmethod
    def of(cls, size: tuple[int, int], pinpoints: Sequence[tuple[int, int]]) -> Grid:
        """For a page of `size` (width, height)."""
        width, height = tiling.best_grid(size, pinpoints)
        inner = tiling.inner_size(size, (width, height))
        offset = (width - inner[0]) // 2, (height - inner[1]) // 2
        return cls(width, height, (inner[0] / size[0], inner[1] / size[1]), offset, inner)

    def x(self, page: NDArray[np.float64] | float) -> NDArray[np.float64]:
        """Canvas column of a page column; whole numbers are pixel centres."""
        return np.asarray((np.asarray(page) + 0.5) * self.scale[0] + self.offset[0] - 0.5)

    def y(self, page: NDArray[np.float64] | float) -> NDArray[np.float64]:
        """Canvas row of a page row."""
        return np.asarray((np.asarray(page) + 0.5) * self.scale[1] + self.offset[1] - 0.5)

    def page_x(self, canvas: NDArray[Any]) -> NDArray[np.float64]:
        """Page column of a canvas column."""
        return (canvas + 0.5 - self.offset[0]) / self.scale[0] - 0.5


def lesson(
    page: Page, words: bytes, *, size: int, patch: int, pinpoints: Sequence[tuple[int, int]]
) -> Lesson:
    """The lesson of a page with tiles of `size` and patches of `patch` pixels."""
    grid = Grid.of((page.image.shape[1], page.image.shape[0]), pinpoints)
    pictures = tiling.pictures(
        Image.fromarray(page.image),
        size=size,
        aspect_ratio="anyres",
        pinpoints=pinpoints,
        mean=(0.0, 0.0, 0.0),
    )
    side = size // patch
    numbers = _numbers(grid, size, side)
    at, lead, kind, beat, st = _baselines(page, grid, numbers, patch)
    traced, heights = _heights(page, grid, numbers, patch)
    r = page.recording
    return Lesson(
        tiles=np.stack([np.asarray(p) for p in pictures]),
        inner=_inner(grid, size, patch),
        at=at,
        lead=lead,
        kind=kind,
        beat=beat,
        st=st,
        traced=traced,
        heights=heights,
        findings=_findings(r),
        cpsc=_flags(CPSC, r.labels.cpsc),
        superclass=_flags(PTBXL, r.labels.ptbxl),
        measures=_measures(r),
        levels=np.array(
            r.measurements.st if r.measurements.st is not None else [np.nan] * 12, np.float32
        ),
        words=np.frombuffer(words, np.uint8),
    )


def _numbers(grid: Grid, size: int, side: int) -> NDArray[np.int32]:
    """Patch numbers on the canvas, (rows, columns): tile after tile, each in reading order."""
    down, across = grid.height // size, grid.width // size
    numbers = np.arange(down * across * side * side, dtype=np.int32).reshape(
        down, across, side, side
    )
    return numbers.transpose(0, 2, 1, 3).reshape(down * side, across * side)


def _inner(grid: Grid, size: int, patch: int) -> Small:
    """Which patches show a part of the page."""
    inside = np.zeros((grid.height // patch, grid.width // patch), np.uint8)
    (x, y), (w, h) = grid.offset, grid.inner
    inside[y // patch : -(-(y + h) // patch), x // patch : -(-(x + w) // patch)] = 1
    side = size // patch
    parts = inside.reshape(grid.height // size, side, grid.width // size, side).transpose(
        0, 2, 1, 3
    )
    return np.ascontiguousarray(parts.reshape(-1, side, side))


def _flags(names: Sequence[str], present: frozenset[str] | tuple[str, ...] | None) -> Small:
    """1 for findings that are there, 0 for others, UNKNOWN for all where the labels are unknown."""
    if present is None:
        return np.full(len(names), UNKNOWN, np.uint8)
    return np.array([name in present for name in names], np.uint8)


def _findings(recording: Recording) -> Small:
    """Targets in the order of FINDINGS; of a real recording only what its labels decide."""
    if recording.findings is not None:
        return _flags(tuple(FINDINGS), recording.findings)
    targets = np.full(len(FINDINGS), UNKNOWN, np.uint8)
    alias = {"1dAVb": "I-AVB"}
    for names, present in (
        (CPSC, recording.labels.cpsc),
        (CODE15, recording.labels.code15),
        (PTBXL, recording.labels.ptbxl),
    ):
        for name in (n for n in names if present is not None and alias.get(n, n) in FINDINGS):
            targets[list(FINDINGS).index(alias.get(name, name))] = name in (present or ())
    return targets


def _measures(recording: Recording) -> Floats:
    m = recording.measurements
    seconds = [np.nan if ms is None else ms / 1000 for ms in (m.pr, m.qrs, m.qt)]
    rate = np.nan if m.rate is None else m.rate / 60
    angle = np.nan if m.axis is None else np.radians(m.axis)
    return np.array([rate, *seconds, np.cos(angle), np.sin(angle)], np.float32)


def _heights(
    page: Page, grid: Grid, numbers: NDArray[np.int32], patch: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Patches with a trace in them, and its heights there."""
    step = patch / SUBCOLUMNS
    centres = (np.arange(grid.width // patch * SUBCOLUMNS) + 0.5) * step - 0.5
    table = np.full((numbers.size, SUBCOLUMNS), np.nan, np.float32)
    columns = np.arange(centres.size)
    for trace in page.traces:
        points = trace.points(page.recording)
        x = grid.page_x(centres)
        inside = (x >= points[0, 0]) & (x <= points[-1, 0])
        y = grid.y(np.interp(x[inside], points[:, 0], points[:, 1])) + 0.5
        shown = np.isfinite(y) & (y >= 0) & (y < grid.height)
        c, y = columns[inside][shown], y[shown]
        row = (y // patch).astype(np.int64)
        table[numbers[row, c // SUBCOLUMNS], c % SUBCOLUMNS] = y / patch - row
    traced = np.flatnonzero(np.isfinite(table).any(axis=1)).astype(np.int32)
    return traced, table[traced]


def _baselines(
    page: Page, grid: Grid, numbers: NDArray[np.int32], patch: int
) -> tuple[NDArray[np.int32], Small, Small, Floats, Floats]:
    """Patches along the rows' baselines: number, lead, kind of beat, the beat's figures, ST level."""
    parts = [_baseline(page.recording, trace, grid, numbers, patch) for trace in page.traces]
    at, lead, kind, beat, st = (np.concatenate(column) for column in zip(*parts, strict=True))
    return at, lead, kind, beat, st


def _baseline(
    recording: Recording, trace: Trace, grid: Grid, numbers: NDArray[np.int32], patch: int
) -> tuple[NDArray[np.int32], Small, Small, Floats, Floats]:
    """The same for one stretch; a patch at a join belongs to the stretch that covers its middle."""
    first, last = (
        grid.x(trace.x0),
        grid.x(trace.x0 + (trace.stop - trace.start) * trace.px_per_sample),
    )
    columns = np.arange(numbers.shape[1])
    middles = (columns + 0.5) * patch - 0.5
    columns = columns[(middles >= first) & (middles < last)]
    row = int(np.clip((grid.y(trace.y0) + 0.5) // patch, 0, numbers.shape[0] - 1))
    kind = np.full(columns.size, 0 if recording.beats else UNKNOWN, np.uint8)
    beat = np.full((columns.size, len(BEAT)), np.nan, np.float32)
    for i, b in enumerate(recording.beats):
        if not trace.start <= b.peak * HZ < trace.stop:
            continue
        x = (float(grid.x(trace.x_at(b.peak))) + 0.5) / patch
        here = np.flatnonzero(columns == int(x))
        before = b.onset - recording.beats[i - 1].onset if i else np.nan
        after = recording.beats[i + 1].onset - b.onset if i + 1 < len(recording.beats) else np.nan
        pr = np.nan if b.p_onset is None else b.onset - b.p_onset
        kind[here] = KINDS.index(b.kind)
        beat[here] = (x - int(x), before, after, pr, b.end - b.onset, b.t_end - b.onset)
    lead = LEADS.index(trace.lead)
    level = np.nan if recording.measurements.st is None else recording.measurements.st[lead]
    full = np.full(columns.size, lead, np.uint8), np.full(columns.size, level, np.float32)
    return numbers[row, columns], full[0], kind, beat, full[1]
