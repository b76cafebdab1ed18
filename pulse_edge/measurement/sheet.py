"""The list of measurements while it is filled in: names, units, uncertainties, doubts, and reasons
for what is missing."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from pulse_edge.measurement.amplitudes import (
    QrsShape,
    frontal_axis,
    law_residual,
    level_at,
    levelled,
    qrs_shape,
    wave_height,
)
from pulse_edge.measurement.beats import Channel, Detection
from pulse_edge.measurement.filters import Samples, samples
from pulse_edge.measurement.measurements import Measurement
from pulse_edge.measurement.rhythm import (
    FEWEST_INTERVALS,
    PAUSE_MS,
    SUPRAVENTRICULAR,
    UNKNOWN,
    VENTRICULAR,
    Rhythm,
)
from pulse_edge.measurement.signal import LEADS, SAMPLES_PER_SECOND, TracedSignal
from pulse_edge.measurement.uncertainty import Extent, uncertainty_of
from pulse_edge.measurement.waves import MedianBeat, Waves

NAMES: dict[str, tuple[str, str]] = {
    # key: (name, unit)
    "asystole": ("no ventricular activity, or electrodes off", ""),
    "beats": ("number of QRS complexes", ""),
    "rate": ("ventricular rate from the mean RR interval", "bpm"),
    "rate_median": ("ventricular rate from the median RR interval", "bpm"),
    "rr_mean": ("mean RR interval", "ms"),
    "rr_median": ("median RR interval", "ms"),
    "rr_shortest": ("shortest RR interval", "ms"),
    "rr_longest": ("longest RR interval", "ms"),
    "rr_sd": ("standard deviation of normal RR intervals", "ms"),
    "rmssd": ("root mean square of successive differences of normal RR intervals", "ms"),
    "rr_variation": ("standard deviation of normal RR intervals as a share of their mean", ""),
    "regular": ("regular RR intervals", ""),
    "pauses": ("RR intervals of 2 s and more", ""),
    "ectopic": ("premature beats", ""),
    "ventricular_ectopic": ("premature beats of another shape than the dominant one", ""),
    "supraventricular_ectopic": ("premature beats of the dominant shape", ""),
    "paced": ("pacemaker spikes before the beats", ""),
    "p_present": ("P wave at a constant distance before the QRS", ""),
    "atrial_rate": ("atrial rate", "bpm"),
    "atrial_fibrillation": ("irregular RR intervals without P waves", ""),
    "p_duration": ("P duration", "ms"),
    "pr": ("PR interval", "ms"),
    "qrs": ("QRS duration", "ms"),
    "qt": ("QT interval", "ms"),
    "qtc_bazett": ("QT corrected for the mean RR interval by Bazett", "ms"),
    "qtc_fridericia": ("QT corrected for the mean RR interval by Fridericia", "ms"),
    "p_axis": ("P axis", "degrees"),
    "qrs_axis": ("QRS axis", "degrees"),
    "t_axis": ("T axis", "degrees"),
    "sokolow_lyon": ("S in V1 plus the taller R of V5 and V6 (Sokolow-Lyon)", "mV"),
    "cornell": ("R in aVL plus S in V3 (Cornell)", "mV"),
    "cornell_product": ("Cornell voltage times QRS duration", "mV ms"),
    "peguero": ("deepest S of any lead plus S in V4 (Peguero-Lo Presti)", "mV"),
    "limb_voltage": ("highest QRS of the limb leads, peak to peak", "mV"),
    "chest_voltage": ("highest QRS of the chest leads, peak to peak", "mV"),
    "einthoven": ("residual of I + III - II", "mV"),
    "goldberger": ("residual of aVR + aVL + aVF", "mV"),
}
PER_LEAD: dict[str, tuple[str, str]] = {
    "st_j": ("level at the J point in {lead}", "mV"),
    "st_j60": ("level 60 ms after the J point in {lead}", "mV"),
    "p": ("P amplitude in {lead}", "mV"),
    "q": ("Q amplitude in {lead}", "mV"),
    "r": ("R amplitude in {lead}", "mV"),
    "s": ("S amplitude in {lead}", "mV"),
    "t": ("T amplitude in {lead}", "mV"),
    "q_duration": ("Q duration in {lead}", "ms"),
    "flat": ("flat trace in {lead}", ""),
}
NAMES |= {
    f"{key}.{lead}": (name.format(lead=lead), unit)
    for key, (name, unit) in PER_LEAD.items()
    for lead in LEADS
}
"""All keys in the order of the list."""

RR_KEYS: tuple[str, ...] = (
    "rate",
    "rate_median",
    "rr_mean",
    "rr_median",
    "rr_shortest",
    "rr_longest",
    "rr_sd",
    "rmssd",
    "rr_variation",
)
RR_KEYS += ("regular", "pauses", "ectopic", "ventricular_ectopic", "supraventricular_ectopic")
"""What needs RR intervals."""

MOST_BEATS = 0.5
"""Share of the beats that spikes of a pacemaker precede at least."""
FLAT_MV = 0.05
"""A lead that stays within this, peak to peak, shows no electrical activity of the heart."""
AXIS_DOUBT = 30.0
"""Uncertainty in degrees from which on an axis is indeterminate: the vector is tiny, or the limb
leads contradict one another."""
T_SPREAD_MS = 90.0
"""Interquartile range of the end of T over the leads, above which the leads disagree about it."""
LONG_SECONDS = 7.0
"""Leads that are traced for less are columns of a page."""


@dataclass
class Sheet:
    """Measurements of one signal by their keys."""

    signal: TracedSignal
    channels: tuple[Channel, ...]
    astray: tuple[str, ...] = ()
    """Leads whose trace does not show the beats of the others."""
    filled: dict[str, Measurement] = field(default_factory=dict)

    @cached_property
    def leads(self) -> tuple[str, ...]:
        """The leads that are traced and show the same beats."""
        return tuple(
            lead for lead in dict.fromkeys(c.lead for c in self.channels) if lead not in self.astray
        )

    def absence(self, lead: str) -> str:
        """Say why a lead has no beat."""
        if lead in self.astray:
            return f"the trace of {lead} does not show the beats of the other leads"
        return f"{lead} is not traced over a whole beat"

    @cached_property
    def extent(self) -> Extent:
        """For how long the leads are traced."""
        seconds = [c.valid.sum() / SAMPLES_PER_SECOND for c in self.channels if not c.strip]
        if seconds and float(np.median(seconds)) >= LONG_SECONDS:
            return Extent.LONG
        return Extent.COLUMNS_AND_STRIP if any(c.strip for c in self.channels) else Extent.COLUMNS

    def add(
        self,
        key: str,
        value: float | None,
        leads: tuple[str, ...],
        reason: str = "",
        spread: float = 0.0,
    ) -> None:
        """Note a value, or a reason; `spread` is an uncertainty found on this signal, which counts
        if it is the larger."""
        name, unit = NAMES[key]
        if value is None:
            self.filled[key] = Measurement(key, name, None, unit, None, leads, reason)
            return
        uncertainty = max(uncertainty_of(key, self.extent) or 0.0, spread) or None
        self.filled[key] = Measurement(
            key, name, float(value), unit, uncertainty, leads, doubt=self._doubt(unit)
        )

    def refuse(self, keys: tuple[str, ...], leads: tuple[str, ...], reason: str) -> None:
        """Note one reason for several keys."""
        for key in keys:
            self.add(key, None, leads, reason)

    def refuse_rest(self, reason: str) -> None:
        """Note a reason for every key without a value or a reason."""
        self.refuse(tuple(key for key in NAMES if key not in self.filled), (), reason)

    def measurements(self) -> tuple[Measurement, ...]:
        """All measurements in the order of their names."""
        return tuple(self.filled[key] for key in NAMES if key in self.filled)

    def _doubt(self, unit: str) -> str:
        doubts = []
        if unit in ("bpm", "ms", "mV ms") and not self.signal.speed_certain:
            doubts.append(
                f"the paper speed of {self.signal.millimetres_per_second:g} mm/s is assumed"
            )
        if unit in ("mV", "mV ms") and not self.signal.gain_certain:
            doubts.append(f"the gain of {self.signal.millimetres_per_millivolt:g} mm/mV is assumed")
        return "; ".join(doubts)


def fill_signal(sheet: Sheet, detection: Detection) -> None:
    """Measure what needs no beats: asystole, flat leads, and the laws that the limb leads obey."""
    if detection.asystole or not detection.reason:
        sheet.add("asystole", float(detection.asystole), sheet.leads)
    else:
        sheet.add("asystole", None, sheet.leads, detection.reason)
    traced = {channel.lead: channel.millivolts for channel in sheet.channels}
    for lead in LEADS:
        if lead in traced:
            low, high = np.nanquantile(traced[lead], [0.005, 0.995])
            sheet.add(f"flat.{lead}", float(high - low < FLAT_MV), (lead,))
        else:
            sheet.add(f"flat.{lead}", None, (), f"{lead} is not traced")
    for key, leads, signs in (
        ("einthoven", ("I", "II", "III"), (1, -1, 1)),
        ("goldberger", ("aVR", "aVL", "aVF"), (1, 1, 1)),
    ):
        residual = law_residual(sheet.channels, leads, signs)
        sheet.add(key, residual, leads, "the three leads are not traced at the same time")


def fill_rhythm(
    sheet: Sheet, rhythm: Rhythm, p_present: bool | str | None, paced: float | None
) -> None:
    """Measure rate, regularity, ectopic beats, pauses, pacing and what the atria do."""
    leads, valid = sheet.leads, rhythm.valid
    sheet.add("beats", float(len(rhythm.kinds)), leads)
    if valid.size < FEWEST_INTERVALS:
        reason = f"{valid.size} RR intervals are too few, {FEWEST_INTERVALS} are needed"
        sheet.refuse(RR_KEYS, leads, reason)
    else:
        _fill_intervals(sheet, rhythm)
    if paced is not None and p_present is not None:
        sheet.add("paced", float(paced >= MOST_BEATS), leads)
        _fill_atria(sheet, rhythm, p_present)


def _fill_intervals(sheet: Sheet, rhythm: Rhythm) -> None:
    leads, valid = sheet.leads, rhythm.valid
    for key, function in (("rr_mean", np.mean), ("rr_median", np.median)):
        interval = float(function(valid))
        sheet.add(key, interval, leads)
        sheet.add("rate" if key == "rr_mean" else "rate_median", 60000 / interval, leads)
    sheet.add("rr_shortest", float(valid.min()), leads)
    sheet.add("rr_longest", float(valid.max()), leads)
    sheet.add("pauses", float((valid >= PAUSE_MS).sum()), leads)
    rmssd = rhythm.rmssd
    if rmssd is None:
        few = "too few normal beats follow one another"
        sheet.refuse(("rr_sd", "rmssd", "rr_variation", "regular"), leads, few)
        return
    spread = float(rhythm.normal.std(ddof=1))
    sheet.add("rr_sd", spread, leads)
    sheet.add("rmssd", rmssd, leads)
    sheet.add("rr_variation", spread / float(rhythm.normal.mean()), leads)
    regular = rhythm.regular
    between = f"RR intervals differ by {float(np.ptp(rhythm.normal)):.0f} ms: between regular and irregular"
    sheet.add("regular", None if regular is None else float(regular), leads, between)


def _fill_atria(sheet: Sheet, rhythm: Rhythm, p_present: bool | str) -> None:
    leads = sheet.leads
    unsure = p_present if isinstance(p_present, str) else ""
    sheet.add("p_present", None if unsure else float(bool(p_present)), leads, unsure)
    fibrillation = not unsure and not p_present and rhythm.regular is False
    if unsure:
        sheet.refuse(("atrial_fibrillation", "atrial_rate"), leads, unsure)
    elif p_present:
        sheet.add("atrial_fibrillation", 0.0, leads)
        rate = sheet.filled["rate"]
        sheet.add("atrial_rate", rate.value, leads, rate.reason)
    else:
        absent = "RR intervals without P waves are not clearly irregular"
        sheet.add("atrial_fibrillation", 1.0 if fibrillation else None, leads, absent)
        sheet.add("atrial_rate", None, leads, "no P wave precedes the QRS at a constant distance")
    whole = [kind for kind in rhythm.kinds if kind != UNKNOWN]
    if rhythm.valid.size < FEWEST_INTERVALS:
        return
    ventricular = float(whole.count(VENTRICULAR))
    sheet.add("ventricular_ectopic", ventricular, leads)
    if fibrillation:
        reason = "in irregular rhythm without P waves an early beat is not premature"
        sheet.refuse(("ectopic", "supraventricular_ectopic"), leads, reason)
        return
    early = float(whole.count(SUPRAVENTRICULAR))
    sheet.add("supraventricular_ectopic", early, leads)
    sheet.add("ectopic", ventricular + early, leads)


def fill_waves(sheet: Sheet, waves: Waves, beat: MedianBeat, rhythm: Rhythm) -> None:
    """Measure the intervals of the median beat and its axes."""
    leads = tuple(lead for lead, present in zip(LEADS, beat.present, strict=True) if present)
    step = 1000 / SAMPLES_PER_SECOND
    sheet.add("qrs", (waves.qrs_end - waves.qrs_onset) * step, leads)
    if waves.p_onset is None or waves.p_end is None:
        sheet.refuse(("pr", "p_duration"), leads, waves.p_reason)
    else:
        sheet.add("pr", (waves.qrs_onset - waves.p_onset) * step, leads)
        sheet.add("p_duration", (waves.p_end - waves.p_onset) * step, leads)
    reason = waves.t_reason
    if waves.t_spread > T_SPREAD_MS:
        reason = f"the leads disagree about the end of T by {waves.t_spread:.0f} ms"
    if waves.t_end is None or reason:
        sheet.refuse(("qt", "qtc_bazett", "qtc_fridericia"), leads, reason)
    else:
        interval, cycle = (waves.t_end - waves.qrs_onset) * step, float(rhythm.valid.mean()) / 1000
        sheet.add("qt", interval, leads, spread=0.5 * waves.t_spread)
        spread = sheet.filled["qt"].uncertainty or 0.0
        for key, power in (("qtc_bazett", 1 / 2), ("qtc_fridericia", 1 / 3)):
            sheet.add(key, interval / cycle**power, leads, spread=spread / cycle**power)
    values = levelled(beat, waves)
    _fill_axis(sheet, "qrs_axis", values, (waves.qrs_onset, waves.qrs_end), False)
    _fill_axis(sheet, "p_axis", values, (waves.p_onset, waves.p_end), True)
    t_start = None
    if waves.t_peak is not None and waves.t_end is not None:
        t_start = max(2 * waves.t_peak - waves.t_end, waves.qrs_end)
    _fill_axis(sheet, "t_axis", values, (t_start, waves.t_end), False)


def _fill_axis(
    sheet: Sheet, key: str, values: Samples, bounds: tuple[int | None, int | None], straight: bool
) -> None:
    first, last = bounds
    if first is None or last is None:
        sheet.add(key, None, (), "the wave is not delineated")
        return
    axis = frontal_axis(values, first, last, straight)
    if axis is None:
        sheet.add(key, None, (), "the limb leads that are traced do not span the frontal plane")
    elif axis[1] > AXIS_DOUBT:
        sheet.add(
            key,
            None,
            axis[2],
            "indeterminate: the frontal vector is small, or the limb leads contradict one another",
        )
    else:
        sheet.add(key, axis[0], axis[2], spread=axis[1])


def fill_beats(sheet: Sheet, waves: Waves, beat: MedianBeat) -> None:
    """Measure levels and amplitudes of each lead, and the voltage criteria."""
    values = levelled(beat, waves)
    shapes: dict[str, QrsShape] = {}
    for n, lead in enumerate(LEADS):
        if not beat.present[n]:
            sheet.refuse(
                tuple(f"{key}.{lead}" for key in PER_LEAD if key != "flat"), (), sheet.absence(lead)
            )
            continue
        _fill_lead(sheet, lead, values[n], waves, float(beat.noise[n]))
        shape = qrs_shape(values[n], waves)
        if shape is not None:
            shapes[lead] = shape
            for key in ("q", "r", "s", "q_duration"):
                sheet.add(f"{key}.{lead}", getattr(shape, key), (lead,))
    _fill_voltages(sheet, shapes)


def _fill_lead(sheet: Sheet, lead: str, values: Samples, waves: Waves, noise: float) -> None:
    cut = f"{lead} ends within the beat"
    spread = 0.0 if np.isnan(noise) else 2 * noise
    for key, delay in (("st_j", 0.0), ("st_j60", 60.0)):
        sheet.add(
            f"{key}.{lead}", level_at(values, waves.qrs_end + samples(delay)), (lead,), cut, spread
        )
    if waves.p_onset is not None and waves.p_end is not None:
        sheet.add(f"p.{lead}", wave_height(values, waves.p_onset, waves.p_end), (lead,), cut)
    else:
        sheet.add(f"p.{lead}", None, (lead,), waves.p_reason)
    if waves.t_peak is not None and waves.t_end is not None:
        first = max(2 * waves.t_peak - waves.t_end, waves.qrs_end + samples(60))
        sheet.add(f"t.{lead}", wave_height(values, first, waves.t_end), (lead,), cut)
    else:
        sheet.add(f"t.{lead}", None, (lead,), waves.t_reason)


def _fill_voltages(sheet: Sheet, shapes: dict[str, QrsShape]) -> None:
    """Add up the published criteria; a QS complex counts as S."""
    depth = {lead: -min(shape.s, shape.q if not shape.r else 0.0) for lead, shape in shapes.items()}
    height = {lead: shape.r for lead, shape in shapes.items()}
    size = {lead: shape.r - min(shape.q, shape.s) for lead, shape in shapes.items()}

    def total(key: str, leads: tuple[str, ...], value: float | None) -> None:
        missing = [lead for lead in leads if lead not in shapes]
        sheet.add(
            key,
            None if missing else value,
            leads,
            "; ".join(sheet.absence(lead) for lead in missing),
        )

    def lookup(table: dict[str, float], lead: str) -> float:
        return table.get(lead, 0.0)

    cornell = lookup(height, "aVL") + lookup(depth, "V3")
    tallest = max(lookup(height, "V5"), lookup(height, "V6"))
    total("sokolow_lyon", ("V1", "V5", "V6"), lookup(depth, "V1") + tallest)
    total("cornell", ("aVL", "V3"), cornell)
    qrs = sheet.filled["qrs"].value
    total("cornell_product", ("aVL", "V3"), None if qrs is None else cornell * qrs)
    total("peguero", LEADS, max(depth.values(), default=0.0) + lookup(depth, "V4"))
    total("limb_voltage", LEADS[:6], max((lookup(size, lead) for lead in LEADS[:6]), default=0.0))
    total("chest_voltage", LEADS[6:], max((lookup(size, lead) for lead in LEADS[6:]), default=0.0))
