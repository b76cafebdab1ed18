"""Measure all pages of all sets, each set in a process of its own, and write the report."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import click
import cv2

from calibration.files import fresh_folder
from calibration.measurements import report
from calibration.measurements.figures import (
    MeasurementFigures,
    RunFigures,
    SetFigures,
    set_figures,
)
from calibration.measurements.results import Memory, PageResult, measured
from calibration.measurements.sets import DESCRIPTIONS, Plan, pages
from pulse_edge.common.worker_pool import Workers
from pulse_edge.errors import UsageError
from pulse_edge.machine import cpu

PROGRAMS = ("pulse-edge", "numpy", "opencv-python-headless", "pillow")
PROGRESS = 20
"""Pages after which the process of a set says how far it is."""
LIMITS = (
    "Truth is named in each table. Marks of cardiologists were set on the recordings. The printed "
    "signal is measured by the same program, so that an error of delineation that is the same on "
    "paper and on the recording does not show.",
    "Synthetic pages have perfect print; distortions and simulated scans are simpler than cameras "
    "and fax machines.",
    "The real scans have no published signal: their truth is the trace of the clean picture.",
    "A lead may be shifted by up to 0.2 s and has an offset of its own in SNR and correlation.",
    "Pages whose unusual speed or gain is not printed are left out of SNR, leads and values.",
)


def measurements(
    target: Path, plan: Plan, force: bool, say: Callable[[str], None]
) -> MeasurementFigures:
    """Write the report of a plan to the folder `target`.

    Raises UsageError for an unknown set, BenchError where data are absent or wrong; nothing is
    written then.
    """
    check(plan)
    with (
        fresh_folder(target, force=force, ours=report.is_report) as work,
        tempfile.TemporaryDirectory() as scratch,
    ):
        results, overlays = {}, {}
        for name in plan.sets:
            results[name], overlays[name] = measured_set(plan, name, Path(scratch))
            say(f"{DESCRIPTIONS[name].title}: {len(results[name])} pages")
        figures = collect(plan, results)
        report.write(work, figures, results, _pictures(figures.sets, overlays))
    return figures


def check(plan: Plan) -> None:
    """UsageError for a set that does not exist, or a folder that is none."""
    if unknown := sorted({*plan.sets} - DESCRIPTIONS.keys()):
        raise UsageError(
            f"--sets: no set {', '.join(unknown)}; the sets are {', '.join(DESCRIPTIONS)}"
        )
    if not plan.data.is_dir():
        raise UsageError(f"{plan.data}: is no folder; give the folder with the recordings")


def collect(plan: Plan, results: Mapping[str, Sequence[PageResult]]) -> MeasurementFigures:
    """All figures of the report."""
    versions = {name: version(name) for name in PROGRAMS}
    run = RunFigures(
        data=plan.data.name,
        recordings=plan.recordings,
        pages=plan.pages,
        seed=plan.seed,
        machine=cpu.name(),
        versions={**versions, "python": platform.python_version()},
        threads=cv2.getNumThreads(),
    )
    sets = tuple(set_figures(name, pages) for name, pages in results.items())
    return MeasurementFigures(run=run, sets=sets, limits=LIMITS)


def measured_set(
    plan: Plan, name: str, scratch: Path | None = None
) -> tuple[list[PageResult], dict[str, Path]]:
    """Measure a set in a process of its own, so that its memory is its own.

    Returns the pages' results and, with `scratch`, a picture of each page below it by name. Raises
    EngineError where the process dies.
    """
    folder = None if scratch is None else scratch / name
    if folder is not None:
        folder.mkdir()
    with Workers(1) as workers:
        return workers.call(_measured_pages, plan, name, folder)


def _measured_pages(
    plan: Plan, name: str, folder: Path | None
) -> tuple[list[PageResult], dict[str, Path]]:
    memory = Memory.begin()
    results, pictures = [], {}
    for number, page in enumerate(pages(plan, name)):
        picture = None if folder is None or page.picture is None else folder / f"{number}.jpg"
        results.append(measured(page, memory, picture))
        if number % PROGRESS == PROGRESS - 1:
            click.echo(f"{name}: {number + 1} pages measured", err=True)
        if picture is not None:
            pictures[page.name] = picture
    return results, pictures


def _pictures(
    sets: Sequence[SetFigures], overlays: Mapping[str, Mapping[str, Path]]
) -> dict[tuple[str, str], bytes]:
    """The pictures of the worst pages."""
    chosen = ((one.name, page.name) for one in sets for page in one.worst)
    return {
        (name, page): overlays[name][page].read_bytes()
        for name, page in chosen
        if page in overlays[name]
    }
