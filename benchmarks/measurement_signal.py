"""How far beats, intervals, axes and levels measured on a signal are from the cardiologists' marks.

    python benchmarks/measurement_signal.py SHARED/ecg [--layout 12x1 --layout 3x4+1] [--noise 18]

Truth: the 100 development recordings of LUDB (every P, QRS and T marked in each lead), scored
against the third earliest onset and the third latest end over the leads. Each recording is cut into
a printed layout, NaN elsewhere, with noise as it remains after tracing pixels of 5 ms and a level
of its own for each lead. PTB-XL cases: whether atrial fibrillation, pacing and premature
ventricular beats are seen. The last table is what `pulse_edge/measurement/uncertainty.py` states.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

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
INTERVALS = (
    ("pr", "pr_trimmed_ms"),
    ("qrs", "qrs_trimmed_ms"),
    ("qt", "qt_trimmed_ms"),
    ("p_duration", "p_duration_ms"),
)
IEC = {"pr": (10, 10), "qrs": (10, 10), "qt": (25, 30)}
"""IEC 60601-2-25:2011, limits of mean and standard deviation in ms on biological recordings, the
largest deviations taken out. P duration has no limit here: its truth is the widest over all leads,
not the third widest as that of the others."""
OUTLIERS = 4
"""Deviations per 100 recordings that the standard takes out."""


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


KEYS = ("rate_median", "rr_median", *(key for key, _ in INTERVALS), "qrs_axis", "st_j", "st_j60")
HEIGHTS = ("p", "q", "r", "s", "t")
UNITS = {"rate_median": "bpm", "qrs_axis": "degrees", "st_j": "uV", "st_j60": "uV"}


@dataclass
class Errors:
    """Differences from the truth of one measurement, with the recordings they belong to."""

    truths: int = 0
    values: list[float] = field(default_factory=list)
    records: list[int] = field(default_factory=list)

    def add(self, value: float | None, truth: float | None, record: int) -> None:
        """Note a difference; None as a value is a refusal, as a truth none to compare with."""
        if truth is None:
            return
        self.truths += 1
        if value is not None:
            self.values.append(value - truth)
            self.records.append(record)

    def row(self, unit: str, limits: tuple[int, int] | None = None) -> str:
        """Median error with its 95 % interval, mean and deviation, without outliers, and the worst
        recordings."""
        errors = np.array(self.values)
        if not errors.size:
            return f"{self.truths} | none measured"
        low, high = _interval(np.abs(errors), np.median)
        order = np.argsort(np.abs(errors - np.median(errors)))
        trimmed = errors[order[: errors.size - round(OUTLIERS * errors.size / 100)]]
        verdict = ""
        if limits is not None:
            inside = abs(trimmed.mean()) <= limits[0] and trimmed.std(ddof=1) <= limits[1]
            verdict = f" ({'inside' if inside else 'OUTSIDE'} {limits[0]}/{limits[1]})"
        worst = ", ".join(
            f"{self.records[n]}: {errors[n]:+.0f}" for n in np.argsort(-np.abs(errors))[:4]
        )
        return (
            f"{errors.size}/{self.truths} | {np.median(np.abs(errors)):.1f} [{low:.1f}, {high:.1f}] {unit} "
            f"| {errors.mean():+.1f} / {errors.std(ddof=1):.1f} | {trimmed.mean():+.1f} / {trimmed.std(ddof=1):.1f}{verdict} "
            f"| {np.quantile(np.abs(errors), 0.95):.1f} | {worst}"
        )


def _interval(
    values: Array, statistic: Callable[[Array], Any], rounds: int = 1000
) -> tuple[float, float]:
    """95 % interval of a statistic by bootstrap."""
    rng = np.random.default_rng(0)
    drawn = [
        float(statistic(values[rng.integers(0, values.size, values.size)])) for _ in range(rounds)
    ]
    return float(np.quantile(drawn, 0.025)), float(np.quantile(drawn, 0.975))


def share(right: Sequence[bool]) -> str:
    """A percentage with Wilson's 95 % interval."""
    n = len(right)
    if not n:
        return "-"
    p, z = sum(right) / n, 1.96
    centre, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)
    return f"{p:.1%} [{low:.1%}, {high:.1%}] of {n}"


def load(folder: Path, name: str) -> tuple[Array, list[dict[str, Any]]]:
    """Signals in millivolts (n, 12, samples) and one row of facts per recording."""
    with np.load(folder / f"{name}.npz") as arrays:
        signals = arrays["signal_uV"].astype(np.float64) / 1000
    return signals, json.loads((folder / f"{name}.json").read_text())["records"]


@dataclass
class Scores:
    """Everything that one layout's recordings gave."""

    errors: dict[str, Errors] = field(default_factory=lambda: {key: Errors() for key in KEYS})
    heights: dict[str, list[float]] = field(default_factory=lambda: {key: [] for key in HEIGHTS})
    missed: list[bool] = field(default_factory=list)
    false: list[bool] = field(default_factory=list)
    unsure: int = 0
    seconds: list[float] = field(default_factory=list)


def score(folder: Path, layout: str, decibels: float | None) -> Scores:
    """Measure the development recordings of LUDB in one layout and compare with their marks."""
    scores = Scores()
    for n, (signal, row) in enumerate(zip(*load(folder, "ludb_dev"), strict=True)):
        page, truth = printed(signal, layout, decibels, n), row["reference"]
        start = time.perf_counter()
        sheet = measure_signal(page)
        scores.seconds.append(time.perf_counter() - start)
        scores.errors["rate_median"].add(sheet["rate_median"].value, truth["rate_bpm"], row["id"])
        scores.errors["rr_median"].add(sheet["rr_median"].value, truth["rr_ms"], row["id"])
        for key, name in INTERVALS:
            scores.errors[key].add(sheet[key].value, truth[name], row["id"])
        _axis_and_levels(scores.errors, sheet, truth, row["id"])
        if decibels is not None:
            recorded = measure_signal(printed(signal, "12x1", None, n))
            for key, differences in scores.heights.items():
                pairs = [
                    (sheet[f"{key}.{lead}"].value, recorded[f"{key}.{lead}"].value)
                    for lead in LEADS
                ]
                differences += [a - b for a, b in pairs if a is not None and b is not None]
        present = sheet["p_present"].value
        if row["pacing"]:
            continue
        if present is None:
            scores.unsure += 1
        elif truth["p_present"]:
            scores.missed.append(not present)
        else:
            scores.false.append(bool(present))
    return scores


def table(scores: Scores, layout: str, decibels: float | None) -> None:
    """Print the table of one layout."""
    click.echo(
        f"\nLUDB, {layout}, "
        + ("as recorded" if decibels is None else f"noise {decibels:g} dB below")
    )
    click.echo(
        "| | measured | median error | mean / SD | without outliers (limits) | 95 % within | worst |"
    )
    click.echo("|---|---|---|---|---|---|---|")
    for key in KEYS:
        click.echo(f"| {key} | {scores.errors[key].row(UNITS.get(key, 'ms'), IEC.get(key))} |")
    for key, differences in scores.heights.items():
        size = np.abs(differences)
        if size.size:
            name = f"{key} amplitude against the recording's own"
            click.echo(
                f"| {name} | {size.size} | {np.median(size):.3f} mV | | | {np.quantile(size, 0.95):.3f} | |"
            )
    within = [abs(e) <= 5 for e in scores.errors["rate_median"].values]
    click.echo(f"rate within 5 bpm {share(within)}; {np.median(scores.seconds):.2f} s a page")
    click.echo(
        f"P missed {share(scores.missed)}, false {share(scores.false)}, not told {scores.unsure}"
    )


def _axis_and_levels(
    errors: dict[str, Errors], sheet: SignalMeasurements, truth: dict[str, Any], record: int
) -> None:
    axis = sheet["qrs_axis"].value
    if truth["qrs_axis_certain"]:
        turn = None if axis is None else (axis - truth["qrs_axis_deg"] + 180) % 360 - 180
        errors["qrs_axis"].add(turn, 0.0, record)
    for key in ("st_j", "st_j60"):
        for n, lead in enumerate(LEADS):
            level = sheet[f"{key}.{lead}"].value
            errors[key].add(None if level is None else 1000 * level, truth[f"{key}_uv"][n], record)


def cases(folder: Path, layout: str, decibels: float | None) -> None:
    """Print what is seen of the PTB-XL cases."""
    signals, rows = load(folder, "ptbxl_cases_dev")
    fibrillation: dict[bool, list[bool]] = {True: [], False: []}
    refused = 0
    lines = []
    for n, (signal, row) in enumerate(zip(signals, rows, strict=True)):
        sheet = measure_signal(printed(signal, layout, decibels, n))
        codes = set(row["scp_codes"] or ()) | {row["group"]}
        output = sheet["atrial_fibrillation"].value
        if row["scp_codes"] or row["group"] == "AFIB":
            if output is None:
                refused += 1
            else:
                fibrillation["AFIB" in codes].append(bool(output))
        if row["group"] in ("PACE", "PVC", "CLBBB", "CRBBB", "1AVB", "LNGQT", "LVOLT"):
            keys = (
                "rate",
                "pr",
                "qrs",
                "qt",
                "qtc_fridericia",
                "paced",
                "ventricular_ectopic",
                "limb_voltage",
            )
            lines.append(
                f"{row['group']} {row['ecg_id']}: "
                + ", ".join(f"{key} {_short(sheet, key)}" for key in keys)
            )
    click.echo(f"\nPTB-XL cases, {layout}: atrial fibrillation seen {share(fibrillation[True])}")
    click.echo(f"false {share(fibrillation[False])}, not told {refused}")
    click.echo("\n".join(lines))


def _short(sheet: SignalMeasurements, key: str) -> str:
    value = sheet[key].value
    return "-" if value is None else f"{value:.3g}"


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
        table(score(folder, layout, decibels), layout, decibels)
    if with_cases:
        for layout, decibels in (("12x1", None), ("3x4+1", noise)):
            cases(folder, layout, decibels)


if __name__ == "__main__":
    main()
