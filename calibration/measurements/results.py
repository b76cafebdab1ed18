"""One page, read, traced and measured as on a laptop, and compared with what it shows."""

from __future__ import annotations

import io
import resource
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from calibration.measurements.pages import PrintedSignal, TruthPage
from calibration.measurements.tracing import LeadTrace, lead_traces
from pulse_edge.errors import PulseEdgeError
from pulse_edge.measurement import admission, overlay
from pulse_edge.measurement.measure import SignalMeasurements, measure_signal
from pulse_edge.measurement.page import PageMeasurement, measure_page
from pulse_edge.measurement.signal import LEADS, TracedSignal
from pulse_edge.page import reader

PICTURE_SIDE, PICTURE_QUALITY = 1200, 70
"""Largest side of an overlay in pixels, and JPEG quality."""
MARKS: Mapping[str, str] = {
    "rate_median": "rate_bpm",
    "pr": "pr_trimmed_ms",
    "qrs": "qrs_trimmed_ms",
    "qt": "qt_trimmed_ms",
    "p_duration": "p_duration_ms",
    "p_present": "p_present",
}
"""Measurement -> the reference value of cardiologists' marks that it is held against."""
LEVELS = ("st_j", "st_j60")
KEYS = ("rate", *MARKS, "qrs_axis", *(f"{key}.{lead}" for key in LEVELS for lead in LEADS))


@dataclass(frozen=True)
class Comparison:
    """One measurement of a page against the truth, in the unit of `Measurement`."""

    key: str
    value: float | None
    uncertainty: float | None
    reason: str
    """Why it is not measurable; else empty."""
    printed: float | None
    """The same program's value of the printed signal; None where it measures nothing."""
    marked: float | None
    """By cardiologists' marks; None without marks."""


@dataclass(frozen=True)
class PageResult:
    """Everything that one page gave."""

    name: str
    group: str
    refused: str
    """Why the page was refused or could not be read; else empty."""
    scale_printed: bool
    layout: str
    """As the tracing reads it."""
    leads: tuple[LeadTrace, ...]
    """Empty where the signal itself was measured, or no truth could be had."""
    comparisons: tuple[Comparison, ...]
    seconds: float
    """From the file's bytes to the measurements, by the clock."""
    processor_seconds: float
    """The same in time of processors: what it takes on a machine without other work, on one core."""
    peak_bytes: int | None
    """Resident memory at its highest while the page was measured, less that of the program before
    the first page; None where the system does not tell."""
    pixels: int
    """Of the page as admission passes it."""
    kind: str = ""
    """As `TruthPage.kind`."""


class Clock:
    """Seconds by the clock, and of processors in this process, since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        """Seconds by the clock, and of processors."""
        return time.perf_counter() - self._start[0], time.process_time() - self._start[1]


@dataclass(frozen=True)
class Memory:
    """Resident memory of this process, by Linux's /proc."""

    start: int
    """Bytes before the first page, with all libraries loaded."""

    @staticmethod
    def begin() -> Memory:
        """Take the present memory as that of the program itself."""
        return Memory(
            _resident("VmRSS") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        )

    def reset(self) -> bool:
        """Forget the highest value so far; False where the system does not allow it."""
        try:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        except OSError:
            return False
        return True

    def peak(self) -> int | None:
        """Bytes above `start` since the last reset."""
        highest = _resident("VmHWM")
        return None if highest is None else max(0, highest - self.start)


def _resident(name: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((1024 * int(s.split()[1]) for s in lines if s.startswith(f"{name}:")), None)


def measured(page: TruthPage, memory: Memory, picture: Path | None = None) -> PageResult:
    """Measure a page and compare it; `picture` is where its overlay is written."""
    if page.picture is None:
        assert page.printed is not None
        return of_signal(page, page.printed.as_traced())
    printed, truth = _truth(page)
    resettable = memory.reset()
    clock = Clock()
    outcome: PageMeasurement | None = None
    refused, pixels = "", 0
    try:
        traced = admission.admit(reader.read(page.picture), straighten=True, force=False)
        flat = traced.checked.flat
        pixels = flat.image.width * flat.image.height
        outcome = measure_page(traced)
    except PulseEdgeError as error:
        refused = str(error)
    seconds, processor_seconds = clock.read()
    peak = memory.peak() if resettable else None
    empty = PageResult(
        name=page.name,
        group=page.group,
        refused=refused,
        scale_printed=page.scale_printed,
        layout="",
        leads=(),
        comparisons=(),
        seconds=seconds,
        processor_seconds=processor_seconds,
        peak_bytes=peak,
        pixels=pixels,
        kind=page.kind,
    )
    if picture is not None:
        picture.write_bytes(
            _jpeg(page.picture if outcome is None else overlay.draw(flat.image, outcome))
        )
    if outcome is None:
        missing = PrintedSignal(np.full((12, 0), np.nan, np.float32))
        traces = lead_traces(printed, missing.as_traced()) if printed else ()
        return replace(empty, leads=traces, comparisons=_comparisons(None, truth, page, refused))
    return replace(
        empty,
        layout=outcome.signal.layout,
        leads=lead_traces(printed, outcome.signal) if printed else (),
        comparisons=_comparisons(outcome.result, truth, page),
    )


def of_signal(page: TruthPage, signal: TracedSignal) -> PageResult:
    """Measure a signal of a page's recording; there is no other truth than the marks."""
    clock = Clock()
    result = measure_signal(signal)
    seconds, processor_seconds = clock.read()
    return PageResult(
        name=page.name,
        group=page.group,
        refused="",
        scale_printed=True,
        layout=signal.layout,
        leads=(),
        comparisons=_comparisons(result, None, page),
        seconds=seconds,
        processor_seconds=processor_seconds,
        peak_bytes=None,
        pixels=0,
    )


def _truth(page: TruthPage) -> tuple[PrintedSignal | None, SignalMeasurements | None]:
    """The printed signal and its measurements; those of the clean picture where none was
    published."""
    if page.printed is not None:
        return page.printed, measure_signal(page.printed.as_traced())
    assert page.clean is not None
    clean = measure_page(admission.admit(reader.read(page.clean), straighten=True, force=False))
    signal = clean.signal
    return PrintedSignal(signal.millivolts, signal.strips, signal.layout), clean.result


def _comparisons(
    result: SignalMeasurements | None,
    truth: SignalMeasurements | None,
    page: TruthPage,
    refused: str = "",
) -> tuple[Comparison, ...]:
    rows = []
    for key in KEYS:
        mark = marked(key, page)
        printed = None if truth is None else truth[key].value
        if result is None:
            reason = "the page was refused" if refused else "not measured"
            rows.append(Comparison(key, None, None, reason, printed, mark))
            continue
        output = result[key]
        rows.append(Comparison(key, output.value, output.uncertainty, output.reason, printed, mark))
    return tuple(rows)


def marked(key: str, page: TruthPage) -> float | None:
    """The reference value of the marks in the unit of the measurement; None without one."""
    marks: Mapping[str, Any] = page.marks
    name, _, lead = key.partition(".")
    if not marks or (key == "p_present" and page.paced):
        return None
    if lead:
        levels = marks.get(f"{name}_uv")
        level = None if levels is None else levels[LEADS.index(lead)]
        return None if level is None else level / 1000
    if key == "qrs_axis":
        return float(marks["qrs_axis_deg"]) if marks.get("qrs_axis_certain") else None
    value = marks.get(MARKS.get(key, ""))
    return None if value is None else float(value)


def _jpeg(page: bytes | Image.Image) -> bytes:
    """A small picture for the report."""
    image = page if isinstance(page, Image.Image) else Image.open(io.BytesIO(page)).convert("RGB")
    image.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=PICTURE_QUALITY)
    return file.getvalue()
