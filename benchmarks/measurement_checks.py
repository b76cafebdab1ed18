"""How often right statements are marked contradicted, and wrong ones are.

    python benchmarks/measurement_checks.py SHARED [--layout columns|full|drawn] [--set NAME ...] [--misses FILE]

SHARED holds `ecg/ludb_dev`, `ecg/ptbxl_cases_dev` and `ecg/records/ptbxl_fold9` (.npz with .json).
For each recording statements are written whose truth is known: rates from LUDB's marks, and for
PTB-XL from `neurokit2` (an oracle, which must be installed); rhythms, blocks, pacing and normality
from the labels of cardiologists; ST levels, PR, QRS, QT and axes from LUDB's reference values. Each
text is checked by `pulse_edge.measurement.checks` against the measurements of the recording:

- `full`: twelve leads of ten seconds;
- `columns`: as a page prints them, 2.5 s a lead in four columns and lead II as a strip (no picture
  is drawn);
- `drawn`: a synthetic page in that layout is drawn and traced.

The target: of right statements at most 2 % are contradicted, of wrong ones at least 90 %. Intervals
are Wilson's, 95 %.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from labelled_recordings import SETS, Recording, Signal, recordings
from measurement_signal import wilson

from calibration.measurements.pages import synthetic
from calibration.measurements.recordings import MarkedRecording
from calibration.synthetic.style import PageStyle
from pulse_edge.measurement.checks import Check, check_answers
from pulse_edge.measurement.conditions import Person
from pulse_edge.measurement.measurements import Measurement
from pulse_edge.measurement.signal import LEADS, SAMPLES_PER_SECOND, TracedSignal

PATH = click.Path(path_type=Path)
COLUMN_SECONDS = 2.5
WRONG_RATES = (11, 15, 20, 30, 45)
"""Beats per minute by which a wrong rate is off, up and down."""
RIGHT_RATES = (-4, -2, 0, 2, 4)


@dataclass(frozen=True)
class Statement:
    """One text about one recording."""

    group: str
    text: str
    right: bool
    recording: str


# --- statements -------------------------------------------------------------------------------------------------------

SINUS = frozenset({"SR", "SBRAD", "STACH", "SARRH", "NORM"})
MISLABELLED = {"ptbxl-287": "CLBBB"}
"""Codes that their own report contradicts: "right bundle branch block", and V1 is upright."""
ECTOPIC = frozenset({"PVC", "PAC", "BIGU", "TRIGU", "ECTOPIC"})
NOT_SINUS = frozenset(
    {"AFIB", "AFLT", "PACE", "SVTAC", "PSVT", "3AVB", "2AVB", "BIGU", "TRIGU", "SVARR"}
)
WIDE = frozenset(
    {"CLBBB", "CRBBB", "IVCD", "PACE", "WPW", "ILBBB", "IRBBB", "ABQRS", "LVH", "VCLVH"}
)
PLACES = {
    "inferior": ("II", "III", "aVF"),
    "anterior": ("V1", "V2", "V3", "V4"),
    "lateral": ("I", "aVL", "V5", "V6"),
}


def statements(recording: Recording) -> Iterator[Statement]:
    """Texts about one recording whose truth is known."""
    for make in (_rates, _rhythms, _blocks, _intervals, _st, _labelled, _normal):
        for group, text, right in make(recording):
            yield Statement(group, text, right, recording.name)


Said = Iterator[tuple[str, str, bool]]


def _rates(r: Recording) -> Said:
    rate = r.reference.get("rate_bpm") or oracle_rate(r.millivolts)
    if rate is None:
        return
    for by in RIGHT_RATES:
        yield "rate", f"The heart rate is {rate + by:.0f} bpm.", True
    for by in (*WRONG_RATES, *(-x for x in WRONG_RATES)):
        if rate + by > 20:
            yield "rate, off by more than 10 bpm", f"The heart rate is {rate + by:.0f} bpm.", False
    if rate < 90:
        yield "rate in words", "Sinus tachycardia.", False
    if rate > 70:
        yield "rate in words", "There is bradycardia.", False
    if rate > 102:
        yield "rate in words", "There is tachycardia.", True
    if rate < 58:
        yield "rate in words", "There is bradycardia.", True


def _rhythms(r: Recording) -> Said:
    sinus = bool(r.labels & SINUS) and not r.labels & NOT_SINUS
    if "AFIB" in r.labels and "PACE" not in r.labels:
        yield "atrial fibrillation", "Atrial fibrillation.", True
        yield "atrial fibrillation denied", "There is no atrial fibrillation.", False
        yield "sinus rhythm", "The ECG shows sinus rhythm.", False
    elif "AFLT" in r.labels:
        yield "atrial flutter", "Atrial flutter.", True
        yield "sinus rhythm (flutter)", "The ECG shows sinus rhythm.", False
    elif sinus and r.complete:
        yield "atrial fibrillation", "Atrial fibrillation.", False
        yield "atrial fibrillation denied", "There is no atrial fibrillation.", True
        yield "sinus rhythm", "The ECG shows sinus rhythm.", True
        yield "atrial flutter", "Atrial flutter.", False
    if r.complete:
        paced = "PACE" in r.labels
        yield "paced", "Ventricular paced rhythm.", paced
        yield "paced denied", "There is no pacing.", not paced
        yield "asystole", "Asystole.", False


def _blocks(r: Recording) -> Said:
    for code, name in (
        ("CLBBB", "left bundle branch block"),
        ("CRBBB", "right bundle branch block"),
    ):
        if MISLABELLED.get(r.name) == code:
            continue
        if code in r.labels:
            yield "bundle branch block", f"There is a {name}.", True
            yield "bundle branch block denied", f"No {name}.", False
        elif r.complete and not r.labels & WIDE:
            yield "bundle branch block", f"There is a {name}.", False
            yield "bundle branch block denied", f"No {name}.", True
    first = bool(r.labels & {"1AVB", "LPR"})
    if first or (r.complete and r.labels & SINUS and not r.labels & NOT_SINUS):
        yield "first-degree AV block", "First-degree AV block.", first
        yield "first-degree AV block denied", "There is no first-degree AV block.", not first


def _intervals(r: Recording) -> Said:
    if not r.reference or "PACE" in r.labels:
        return
    for key, words, by in (
        ("pr", "PR interval", 60),
        ("qrs", "QRS duration", 50),
        ("qt", "QT interval", 80),
    ):
        if value := r.reference.get(f"{key}_trimmed_ms"):
            yield f"{words}, ms", f"The {words} is {value:.0f} ms.", True
            for wrong in (value - by, value + by):
                yield f"{words}, ms", f"The {words} is {wrong:.0f} ms.", False
    if r.reference.get("qrs_axis_certain"):
        axis = r.reference["qrs_axis_deg"]
        yield "axis, degrees", f"The axis is {axis:.0f} degrees.", True
        yield "axis, degrees", f"The axis is {(axis + 80 + 180) % 360 - 180:.0f} degrees.", False
        inside = min((axis + 30) % 360, (90 - axis) % 360)
        if inside > 20 and -30 < axis < 90:
            yield "axis in words", "Normal axis.", True
            yield "axis in words", "Left axis deviation.", False
            yield "axis in words", "Right axis deviation.", False
        elif -90 < axis < -50:
            yield "axis in words", "Left axis deviation.", True
            yield "axis in words", "Normal axis.", False


def _st(r: Recording) -> Said:
    """From LUDB's levels at J and J+60: up or down by 0.1 mV in two leads of a territory, or flat
    in all of them."""
    if not r.reference or r.labels & {"PACE", "CLBBB", "CRBBB", "AFLT"}:
        return
    levels = {
        lead: (j / 1000, j60 / 1000)
        for lead, j, j60 in zip(
            LEADS, r.reference["st_j_uv"], r.reference["st_j60_uv"], strict=True
        )
        if j is not None and j60 is not None
    }
    for place, leads in PLACES.items():
        here = [levels[lead] for lead in leads if lead in levels]
        if sum(min(level) >= 0.12 for level in here) >= 2:
            yield "ST elevation", f"ST elevation in the {place} leads.", True
        elif all(max(level) <= 0.03 for level in here):
            yield "ST elevation", f"ST elevation in the {place} leads.", False
            yield "ST elevation denied", f"No ST elevation in the {place} leads.", True
        if sum(max(level) <= -0.08 for level in here) >= 2:
            yield "ST depression", f"ST depression in the {place} leads.", True
        elif all(min(level) >= 0.0 for level in here):
            yield "ST depression", f"ST depression in the {place} leads.", False
            yield "ST depression denied", f"No ST depression in the {place} leads.", True


def _normal(r: Recording) -> Said:
    if "NORM" in r.labels and not r.labels & (NOT_SINUS | ECTOPIC):
        yield "normal ECG", "Normal ECG.", True
        yield "no ST-T changes", "No ST-T changes.", True
    elif r.labels & {"AFIB", "CLBBB", "CRBBB", "PACE"}:
        yield "normal ECG", "Normal ECG.", False


LABELLED = (
    ("STD_", "ST depression"),
    ("STE_", "ST elevation"),
    ("INVT", "T-wave inversion"),
    ("LVH", "left ventricular hypertrophy"),
    ("LVOLT", "low voltage"),
    ("LNGQT", "a prolonged QT interval"),
    ("PVC", "premature ventricular contractions"),
    ("PAC", "premature atrial contractions"),
)


def _labelled(r: Recording) -> Said:
    """Words without a place or a number: right where the label stands, wrong on normal recordings."""
    for code, words in LABELLED:
        if code in r.labels:
            yield words, f"There is {words}.", True
        elif "NORM" in r.labels and not r.labels & (ECTOPIC | NOT_SINUS):
            yield words, f"There is {words}.", False
            yield f"{words} denied", f"There is no {words.removeprefix('a ')}.", True


def oracle_rate(millivolts: Signal) -> float | None:
    """Rate by neurokit2's R peaks, from the median RR; None where leads II and V5 disagree by more
    than 3 bpm."""
    import neurokit2

    rates = []
    for lead in ("II", "V5"):
        cleaned = neurokit2.ecg_clean(
            millivolts[LEADS.index(lead)], sampling_rate=SAMPLES_PER_SECOND
        )
        _, matches = neurokit2.ecg_peaks(cleaned, sampling_rate=SAMPLES_PER_SECOND)
        intervals = np.diff(matches["ECG_R_Peaks"])
        if intervals.size < 3 or np.ptp(intervals) > 0.35 * np.median(intervals):
            return None  # irregular: mean and median differ, and no single number is right
        rates.append(60 * SAMPLES_PER_SECOND / float(np.median(intervals)))
    return float(np.mean(rates)) if abs(rates[0] - rates[1]) <= 3 else None


# --- measuring --------------------------------------------------------------------------------------------------------


def whole(millivolts: Signal) -> TracedSignal:
    """Twelve leads over the whole time."""
    return _traced(millivolts, ())


def in_columns(millivolts: Signal) -> TracedSignal:
    """The stretches that a page of 3x4 leads and a strip of lead II shows; the rest is NaN."""
    size = round(COLUMN_SECONDS * SAMPLES_PER_SECOND)
    shown = np.full_like(millivolts, np.nan)
    for n in range(len(LEADS)):
        column = n // 3
        shown[n, column * size : (column + 1) * size] = millivolts[
            n, column * size : (column + 1) * size
        ]
    return _traced(shown, (("II", millivolts[LEADS.index("II")]),))


def _traced(millivolts: Signal, strips: tuple[tuple[str, Signal], ...]) -> TracedSignal:
    return TracedSignal(millivolts, (1.0,) * 12, 25.0, 10.0, True, True, "3x4+1", strips)


def drawn(millivolts: Signal) -> TracedSignal:
    """Draw a page in the same layout, in the default style, and trace it."""
    from pulse_edge.measurement.digitise import digitise

    style = PageStyle(layout="3x4+1")
    pixels, _ = synthetic(MarkedRecording("", millivolts), style)
    return digitise(pixels, style.px_per_mm, style.px_per_mm, {style.layout: 1.0}).signal


LAYOUTS: dict[str, Callable[[Signal], TracedSignal]] = {
    "full": whole,
    "columns": in_columns,
    "drawn": drawn,
}


def measured(recording: Recording, layout: str) -> tuple[Measurement, ...]:
    """Measurements of a recording in a layout."""
    from pulse_edge.measurement.measure import measure_signal

    return measure_signal(LAYOUTS[layout](recording.millivolts), recording.age).measurements


# --- table ------------------------------------------------------------------------------------------------------------


@dataclass
class Count:
    """Verdicts on the statements of a group, of one truth."""

    verdicts: dict[str, int] = field(default_factory=dict)

    def add(self, checks: Sequence[Check]) -> str:
        """Count a text by its worst verdict; return it."""
        matches = {check.verdict for check in checks}
        verdict = next(
            (v for v in ("contradicted", "supported", "not measurable") if v in matches),
            "not found",
        )
        self.verdicts[verdict] = self.verdicts.get(verdict, 0) + 1
        return verdict

    @property
    def total(self) -> int:
        return sum(self.verdicts.values())

    def share(self, verdict: str) -> str:
        """`3 of 120, 2.5 % [0.9, 7.1]`."""
        n, k = self.total, self.verdicts.get(verdict, 0)
        if not n:
            return "-"
        low, high = wilson(k, n)
        return f"{k} of {n}, {100 * k / n:.1f} % [{100 * low:.0f}, {100 * high:.0f}]"


@click.command(help=__doc__.partition("\n")[0])
@click.argument("shared", type=PATH)
@click.option("--layout", type=click.Choice(sorted(LAYOUTS)), default="columns", show_default=True)
@click.option(
    "--set",
    "sets",
    multiple=True,
    default=SETS,
    help="Recordings, below SHARED/ecg.  [default: all three]",
)
@click.option("--limit", type=int, default=None, help="Recordings.  [default: all]")
@click.option(
    "--misses", type=PATH, default=None, help="Write each wrong verdict to this file, a line each."
)
@click.option(
    "--unknown-person", is_flag=True, help="Check without age and sex, as where they are not given."
)
def main(
    shared: Path,
    layout: str,
    sets: tuple[str, ...],
    limit: int | None,
    misses: Path | None,
    unknown_person: bool,
) -> None:
    counts: dict[tuple[str, bool], Count] = {}
    lines = []
    for n, recording in enumerate(recordings(shared, sets)):
        if n == limit:
            break
        rows = measured(recording, layout)
        person = Person() if unknown_person else Person(recording.age, recording.sex)
        for statement in statements(recording):
            checks = check_answers([("", statement.text)], rows, person)
            verdict = counts.setdefault((statement.group, statement.right), Count()).add(checks)
            if (verdict == "contradicted") == statement.right:
                output = " | ".join(check.sentence for check in checks)
                lines.append(
                    f"{statement.group}\t{'right' if statement.right else 'wrong'}\t{statement.recording}\t{output}"
                )
    if misses:
        misses.write_text("\n".join(lines) + "\n", encoding="utf-8")
    click.echo(
        f"{'statement':<44}{'right, contradicted':<28}{'wrong, contradicted':<30}{'right, not measurable':<28}"
    )
    for group in dict.fromkeys(group for group, _ in counts):
        right, wrong = counts.get((group, True), Count()), counts.get((group, False), Count())
        cells = (
            right.share("contradicted"),
            wrong.share("contradicted"),
            right.share("not measurable"),
        )
        click.echo(f"{group:<44}{cells[0]:<28}{cells[1]:<30}{cells[2]:<28}")


if __name__ == "__main__":
    main()
