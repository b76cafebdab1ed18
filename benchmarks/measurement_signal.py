"""How far beats, intervals, axes and levels measured on a signal are from the cardiologists' marks.

    python benchmarks/measurement_signal.py DATA [--layout 12x1 --layout 3x4+1] [--noise 18]

Truth: the recordings of `ludb_dev` (LUDB, every P, QRS and T marked in each lead), scored against
the third earliest onset and the third latest end over the leads. Each recording is cut into a
printed layout, NaN elsewhere, with noise as it remains after tracing pixels of 5 ms and a level of
its own for each lead. `95 % of errors within` is what `pulse_edge/measurement/uncertainty.py`
states. PTB-XL cases: whether atrial fibrillation, pacing and premature ventricular beats are
recognised.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from calibration.measurements.agreement import MARKS, Presence, agreements, presence
from calibration.measurements.pages import whole
from calibration.measurements.recordings import open_file, recordings
from calibration.measurements.results import PageResult, of_signal
from calibration.measurements.tables import p_waves, quantities, standard
from calibration.report.tables import markdown_tables
from pulse_edge.measurement.measure import SignalMeasurements, measure_signal
from pulse_edge.measurement.signal import LEADS, TracedSignal

Array = npt.NDArray[np.float64]
LAYOUTS: dict[str, tuple[int, int, tuple[str, ...]]] = {
    "12x1": (12, 1, ()),
    "6x2": (6, 2, ()),
    "3x4": (3, 4, ()),
    "3x4+1": (3, 4, ("II",)),
    "3x4+3": (3, 4, ("II", "V1", "V5")),
}
PIXELS_PER_SECOND = 200
"""A trace of 8 pixels a millimetre at 25 mm/s."""


def printed(millivolts: Array, layout: str, decibels: float | None, seed: int) -> TracedSignal:
    """Cut a recording (12, samples) into a layout's columns and strips, with noise and an offset
    for each lead."""
    rng = np.random.default_rng(seed)
    rows, columns, strips = LAYOUTS[layout]
    width = millivolts.shape[1] // columns
    noisy = _noisy(millivolts, decibels, rng)
    page = np.full(millivolts.shape, np.nan, np.float32)
    for n in range(12):
        start = n // rows * width
        page[n, start : start + width] = noisy[n, start : start + width]
    lines = _noisy(millivolts[[LEADS.index(lead) for lead in strips]], decibels, rng)
    traced = tuple(
        (lead, line.astype(np.float32)) for lead, line in zip(strips, lines, strict=True)
    )
    return TracedSignal(page, (1.0,) * 12, 25.0, 10.0, True, True, layout, traced)


def _noisy(millivolts: Array, decibels: float | None, rng: np.random.Generator) -> Array:
    """Add noise that is correlated over a pixel, `decibels` below each lead, and an offset of 0.05
    mV."""
    if decibels is None or not len(millivolts):
        return millivolts
    size = millivolts.shape[1]
    pixels = np.arange(size) * PIXELS_PER_SECOND / 500
    coarse = rng.standard_normal((len(millivolts), int(pixels[-1]) + 2))
    noise = np.stack([np.interp(pixels, np.arange(row.size), row) for row in coarse])
    noise *= (millivolts.std(axis=1) / noise.std(axis=1) / 10 ** (decibels / 20))[:, None]
    return np.asarray(millivolts + noise + rng.normal(0, 0.05, (len(millivolts), 1)))


HEIGHTS = ("p", "q", "r", "s", "t")
PEOPLE = ("PACE", "PVC", "CLBBB", "CRBBB", "1AVB", "LNGQT", "LVOLT")
SHOWN = (
    "rate",
    "pr",
    "qrs",
    "qt",
    "qtc_fridericia",
    "paced",
    "ventricular_ectopic",
    "limb_voltage",
)


def marked_recordings(folder: Path, layout: str, decibels: float | None) -> None:
    """Print the tables of the marked recordings in one layout."""
    results: list[PageResult] = []
    heights: dict[str, list[float]] = {key: [] for key in HEIGHTS}
    for n, recording in enumerate(recordings(folder, ["ludb_dev"])):
        signal = printed(recording.millivolts.astype(float), layout, decibels, n)
        results.append(of_signal(whole(recording), signal))
        if decibels is not None:
            sheet, own = measure_signal(signal), measure_signal(whole_signal(recording.millivolts))
            for key, differences in heights.items():
                differences += _differences(sheet, own, key)
    condition = "as recorded" if decibels is None else f"noise {decibels:g} dB below the signal"
    title = f"{layout}, {condition}"
    waves = presence(results, MARKS)
    rows: Sequence[Presence] = () if waves is None else (waves,)
    every = [
        quantities(f"{title}: against {MARKS}", agreements(results)),
        standard(f"{title}: IEC 60601-2-25", agreements(results)),
        p_waves(f"{title}: P waves", rows),
    ]
    click.echo("\n".join(markdown_tables(every)))
    for key, differences in heights.items():
        if differences:
            size = np.abs(differences)
            click.echo(
                f"{key} amplitude against the recording's own: median error {np.median(size):.3f} "
                f"mV, 95 % within {np.quantile(size, 0.95):.3f} mV, n = {size.size}"
            )
    click.echo(f"{np.median([result.seconds for result in results]):.2f} s a recording")


def whole_signal(millivolts: npt.NDArray[np.float32]) -> TracedSignal:
    """Twelve leads over the whole time, without noise."""
    return printed(millivolts.astype(float), "12x1", None, 0)


def _differences(sheet: SignalMeasurements, own: SignalMeasurements, key: str) -> list[float]:
    pairs = [(sheet[f"{key}.{lead}"].value, own[f"{key}.{lead}"].value) for lead in LEADS]
    return [a - b for a, b in pairs if a is not None and b is not None]


def cases(folder: Path, layout: str, decibels: float | None) -> None:
    """Print what is recognised of the PTB-XL cases."""
    file = open_file(folder / "ptbxl_cases_dev")
    fibrillation: dict[bool, list[bool]] = {True: [], False: []}
    unclear = 0
    lines = []
    for n, row in enumerate(file.rows):
        sheet = measure_signal(printed(file.millivolts(n).astype(float), layout, decibels, n))
        codes = set(row["scp_codes"] or ()) | {row["group"]}
        output = sheet["atrial_fibrillation"].value
        if row["scp_codes"] or row["group"] == "AFIB":
            if output is None:
                unclear += 1
            else:
                fibrillation["AFIB" in codes].append(bool(output))
        if row["group"] in PEOPLE:
            values = ", ".join(f"{key} {_short(sheet, key)}" for key in SHOWN)
            lines.append(f"{row['group']} {row['ecg_id']}: {values}")
    click.echo(
        f"\nPTB-XL cases, {layout}: atrial fibrillation recognised {share(fibrillation[True])}"
    )
    click.echo(f"false {share(fibrillation[False])}, not measurable {unclear}")
    click.echo("\n".join(lines))


def _short(sheet: SignalMeasurements, key: str) -> str:
    value = sheet[key].value
    return "-" if value is None else f"{value:.3g}"


def share(right: Sequence[bool]) -> str:
    """A percentage with Wilson's 95 % interval."""
    if not right:
        return "-"
    low, high = wilson(sum(right), len(right))
    return f"{sum(right) / len(right):.1%} [{low:.1%}, {high:.1%}] of {len(right)}"


def wilson(k: int, n: int) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson 1927)."""
    z, p = 1.96, k / n
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, (middle - half) / (1 + z * z / n)), min(1.0, (middle + half) / (1 + z * z / n))


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--layout",
    "layouts",
    multiple=True,
    type=click.Choice(list(LAYOUTS)),
    help="[default: 12x1, 6x2, 3x4, 3x4+1]",
)
@click.option(
    "--noise",
    type=float,
    default=18.0,
    show_default=True,
    help="Decibels below the signal, on printed layouts.",
)
@click.option(
    "--cases/--no-cases",
    "with_cases",
    default=True,
    show_default=True,
    help="PTB-XL cases as well.",
)
def main(folder: Path, layouts: tuple[str, ...], noise: float, with_cases: bool) -> None:
    """Measure the recordings of FOLDER (ludb_dev, ptbxl_cases_dev) and compare with their truth."""
    runs: list[tuple[str, float | None]] = [("12x1", None)]
    runs += [(layout, noise) for layout in layouts or ("12x1", "6x2", "3x4", "3x4+1")]
    for layout, decibels in runs:
        marked_recordings(folder, layout, decibels)
    if with_cases:
        for layout, decibels in (("12x1", None), ("3x4+1", noise)):
            cases(folder, layout, decibels)


if __name__ == "__main__":
    main()
