"""Measure a traced signal: rate, regularity, waves, intervals, axes, levels, amplitudes and
criteria.

Keys of the measurements (`LEAD` is each of the twelve leads; yes is 1.0, no is 0.0). Every key is
always there, with a value or with the reason why there is none.

| key | unit | meaning |
|---|---|---|
| `asystole` | yes/no | the trace is readable and shows no ventricular activity, or the electrodes are off |
| `beats` | count | QRS complexes on the page |
| `rate` | bpm | ventricular rate, from the mean RR interval |
| `rate_median` | bpm | ventricular rate, from the median RR interval |
| `rr_mean`, `rr_median` | ms | RR intervals |
| `rr_shortest`, `rr_longest` | ms | RR intervals |
| `rr_sd`, `rmssd` | ms | standard deviation of RR, root mean square of successive differences, ectopic beats left out |
| `rr_variation` | share | standard deviation of RR divided by mean RR, ectopic beats left out |
| `regular` | yes/no | RR intervals vary little, or a lot, ectopic beats left out; not measurable between |
| `pauses` | count | RR intervals of 2 s and more |
| `ectopic`, `ventricular_ectopic`, `supraventricular_ectopic` | count | premature beats: all, of another shape, of the same |
| `paced` | yes/no | spikes of a pacemaker stand before the beats; without them a pacemaker is not excluded |
| `p_present` | yes/no | a P wave precedes the QRS at a constant distance |
| `atrial_rate` | bpm | where a P wave precedes every QRS, the ventricular rate |
| `atrial_fibrillation` | yes/no | irregular RR intervals without P waves |
| `p_duration`, `pr`, `qrs`, `qt` | ms | of the median beat |
| `qtc_bazett`, `qtc_fridericia` | ms | QT divided by the square root, cube root, of mean RR in s |
| `p_axis`, `qrs_axis`, `t_axis` | degrees | frontal plane, from net areas in I and aVF |
| `st_j.LEAD`, `st_j60.LEAD` | mV | level at the J point and 60 ms later, against the level before the QRS |
| `p.LEAD`, `q.LEAD`, `r.LEAD`, `s.LEAD`, `t.LEAD` | mV | amplitudes, signed (Q and S negative), 0 for a wave that is not there |
| `q_duration.LEAD` | ms | of an initial negative deflection; 0 without one |
| `flat.LEAD` | yes/no | the lead is traced and shows nothing, while others show beats |
| `sokolow_lyon` | mV | S in V1 plus the taller R of V5 and V6 |
| `cornell` | mV | R in aVL plus S in V3 |
| `cornell_product` | mV ms | Cornell voltage times QRS duration |
| `peguero` | mV | deepest S plus S in V4 |
| `limb_voltage`, `chest_voltage` | mV | highest QRS, peak to peak, of the limb leads, of the chest leads |
| `einthoven`, `goldberger` | mV | root mean square of I + III - II, of aVR + aVL + aVF, where simultaneous |
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pulse_edge.measurement.alignment import Alignment, aligned_beats
from pulse_edge.measurement.beats import Channel, Index, channels_of, detect
from pulse_edge.measurement.filters import Samples, samples
from pulse_edge.measurement.measurements import Measurement
from pulse_edge.measurement.rhythm import (
    MIN_DOMINANT,
    NORMAL,
    OTHER,
    Rhythm,
    paced_beats,
    rhythm_of,
)
from pulse_edge.measurement.sheet import Sheet, fill_beats, fill_rhythm, fill_signal, fill_waves
from pulse_edge.measurement.signal import LEADS, SAMPLES_PER_SECOND, TracedSignal
from pulse_edge.measurement.waves import (
    BEFORE,
    MedianBeat,
    Waves,
    delineate,
    median_beat,
    p_consistency,
    qrs_bounds,
)

P_CERTAIN, P_ABSENT = 0.17, 0.10
"""Share of the signal before the QRS that recurs from beat to beat: at least 0.17 shows P waves, at
most 0.10 shows that there are none. Sinus rhythm has 0.18 to 0.98, atrial fibrillation -0.1 to 0.08
(163 development recordings of LUDB and PTB-XL)."""
ASTRAY = 1 / 3
"""Share of the traced leads that contradict the others' beats, from which on the tracing as a whole
has failed."""
P_IRREGULAR = 0.65
"""The same share for clearly irregular RR intervals: atrial flutter with varying conduction reaches
0.6."""
MIN_PAIRS = 3
"""Pairs of beats that must show the time before the QRS before a P wave can be called present or
absent."""
MIN_SIGNAL_TO_NOISE = 5.0
"""Height of the QRS over the noise of the median beat in at least one lead, below which waves are
not delineated."""


@dataclass(frozen=True)
class Beat:
    """One QRS complex."""

    seconds: float
    """Its centre on the signal's time axis."""
    kind: str
    """`normal`, `ventricular`, `supraventricular`, `other shape`, or `unknown` at the end of a
    trace."""


@dataclass(frozen=True)
class LeadBeat:
    """The median beat of one lead with its wave points, in ms from the centre of the QRS; None for
    a wave that is not there."""

    lead: str
    millivolts: tuple[float, ...]
    """500 samples a second, the first one 500 ms before the centre; NaN where nothing was traced."""
    beats: int
    p_onset: float | None
    p_peak: float | None
    p_end: float | None
    qrs_onset: float
    qrs_end: float
    t_peak: float | None
    t_end: float | None


@dataclass(frozen=True)
class SignalMeasurements:
    """Everything that was measured on one traced signal."""

    measurements: tuple[Measurement, ...]
    beats: tuple[Beat, ...]
    leads: tuple[LeadBeat, ...]
    """Leads that have a beat of the dominant shape; empty if no waves could be delineated."""
    age_years: float | None = None
    """As given, for limits that depend on it."""

    def __getitem__(self, key: str) -> Measurement:
        """Return the measurement of this key; KeyError for a key that does not exist."""
        for measurement in self.measurements:
            if measurement.key == key:
                return measurement
        raise KeyError(key)


@dataclass(frozen=True)
class _Shape:
    """The dominant beat, delineated."""

    beats: Index
    """All beats, on one time frame."""
    median: MedianBeat
    waves: Waves
    p_present: bool | str
    """Whether a P wave precedes the QRS, or why this cannot be told."""


def measure_signal(signal: TracedSignal, age_years: float | None = None) -> SignalMeasurements:
    """Measure a traced signal; what cannot be measured says why. `age_years` is passed on for
    limits that depend on it.

    An assumed paper speed or gain stands as a doubt in every value that rests on it.
    """
    channels = channels_of(signal)
    detection = detect(channels, signal.millivolts.shape[1])
    sheet = Sheet(signal, channels, detection.astray)
    channels = detection.channels
    fill_signal(sheet, detection)
    if detection.reason:
        sheet.refuse_rest(detection.reason)
        return SignalMeasurements(sheet.measurements(), (), (), age_years)
    alignment = aligned_beats(channels, detection.samples)
    beats = _one_frame(channels, alignment)
    rhythm = rhythm_of(detection, alignment, beats)
    reason = _not_beats(alignment) or _not_traced(sheet)
    if reason:
        sheet.refuse(("asystole",), sheet.leads, reason)
        sheet.refuse_rest(reason)
        return SignalMeasurements(sheet.measurements(), (), (), age_years)
    shape = _shape(channels, alignment, beats, rhythm)
    if isinstance(shape, str):
        fill_rhythm(sheet, rhythm, None, None)
        sheet.refuse_rest(shape)
    else:
        paced = paced_beats(channels, beats[alignment.whole], shape.waves.qrs_onset - BEFORE)
        fill_rhythm(sheet, rhythm, shape.p_present, paced)
        fill_waves(sheet, shape.waves, shape.median, rhythm)
        fill_beats(sheet, shape.waves, shape.median)
    sheet.refuse_rest("not measurable on this trace")
    listed = tuple(
        Beat(float(b) / SAMPLES_PER_SECOND, kind)
        for b, kind in zip(beats, rhythm.kinds, strict=True)
    )
    return SignalMeasurements(
        sheet.measurements(),
        listed,
        () if isinstance(shape, str) else _lead_beats(shape),
        age_years,
    )


def _not_beats(alignment: Alignment) -> str:
    """Say why the deflections are no beats; empty if they are."""
    whole = alignment.whole
    if whole.sum() >= 4 and alignment.dominant[whole].mean() < MIN_DOMINANT:
        return "the deflections do not repeat: noise, or ventricular fibrillation"
    return ""


def _not_traced(sheet: Sheet) -> str:
    """Say that too many traces contradict the others for any of them to be trusted; empty if few
    do."""
    active = [lead for lead in sheet.astray if not sheet.filled[f"flat.{lead}"].value]
    traced = len(sheet.leads) + len(sheet.astray)
    if len(active) < ASTRAY * traced:
        return ""
    return f"{', '.join(active)} of {traced} leads do not show the beats of the others: the traces did not follow the ink"


def _one_frame(channels: tuple[Channel, ...], alignment: Alignment) -> Index:
    """Centre the beats of columns that share no channel on the same distance from their QRS onset:
    (beats,)."""
    beats = alignment.beats
    numbers = np.unique(alignment.group)
    if numbers.size < 2:
        return beats
    shift = np.zeros(len(beats), np.intp)
    onsets: dict[int, int] = {}
    for number in numbers:
        members = alignment.dominant & (alignment.group == number)
        beat = median_beat(channels, beats, members, -samples(60))
        if beat.present.any():
            onsets[int(number)] = qrs_bounds(beat)[0] - BEFORE
    usual = float(np.median(list(onsets.values()))) if onsets else 0.0
    for number, onset in onsets.items():
        shift[alignment.group == number] = round(
            float(np.clip(onset - usual, -samples(40), samples(40)))
        )
    return beats + shift


def _shape(
    channels: tuple[Channel, ...], alignment: Alignment, beats: Index, rhythm: Rhythm
) -> _Shape | str:
    """Delineate the dominant beat, or say why it cannot be done."""
    members = alignment.dominant & np.array([kind in (NORMAL, OTHER) for kind in rhythm.kinds])
    if members.sum() < 3:
        members = alignment.dominant
    if members.sum() < 2 or rhythm.valid.size < 1:
        return "fewer than two beats of the same shape"
    beat = median_beat(channels, beats, members, -samples(60))
    if not beat.present.any():
        return "no lead shows a whole beat"
    for _ in range(2):
        onset, end = qrs_bounds(beat)
        beat = median_beat(channels, beats, members, onset - BEFORE)
    height = np.ptp(np.nan_to_num(beat.millivolts[:, onset:end]), axis=1)
    if not np.any(height > MIN_SIGNAL_TO_NOISE * np.nan_to_num(beat.noise, nan=0.05)):
        return "the QRS does not stand out from the noise"
    rr = float(np.median(rhythm.valid)) * SAMPLES_PER_SECOND / 1000
    onset, _ = qrs_bounds(beat)
    first = delineate(beat, rr, False)
    t_before = (
        -samples(240) + onset - BEFORE if first.t_end is None else int(first.t_end - BEFORE - rr)
    )
    share, pairs = p_consistency(channels, beats[members], onset - BEFORE, t_before)
    present = _p_present(share, pairs, rhythm)
    if present is True:
        return _Shape(beats, beat, delineate(beat, rr, True), True)
    return _Shape(
        beats,
        beat,
        replace(first, p_reason=present) if isinstance(present, str) else first,
        present,
    )


def _p_present(share: float, pairs: int, rhythm: Rhythm) -> bool | str:
    """Whether a P wave precedes the QRS, or why this cannot be told; arguments as `p_consistency`
    gives them."""
    if pairs < MIN_PAIRS:
        return "too few beats show the time before the QRS"
    if share <= P_ABSENT:
        return False
    if share < P_CERTAIN:
        return "what precedes the QRS recurs too little for a P wave and too much for none"
    if rhythm.regular is False and share < P_IRREGULAR:
        return "in this irregular rhythm P waves and flutter waves cannot be told apart"
    return True


def _lead_beats(shape: _Shape) -> tuple[LeadBeat, ...]:
    """Median beats with their wave points; peaks of P and T are those of the lead itself."""
    waves = shape.waves

    def ms(sample: int | None) -> float | None:
        return None if sample is None else (sample - BEFORE) * 1000 / SAMPLES_PER_SECOND

    leads = []
    for n in np.flatnonzero(shape.median.present):
        values = shape.median.millivolts[n]
        p_peak = _extreme(values, waves.p_onset, waves.p_end)
        t_peak = waves.t_peak
        if waves.t_peak is not None and waves.t_end is not None:
            t_peak = _extreme(values, 2 * waves.t_peak - waves.t_end, waves.t_end)
        leads.append(
            LeadBeat(
                lead=LEADS[n],
                millivolts=tuple(float(v) for v in values),
                beats=int(shape.median.counts[n]),
                p_onset=ms(waves.p_onset),
                p_peak=ms(p_peak),
                p_end=ms(waves.p_end),
                qrs_onset=float(ms(waves.qrs_onset) or 0.0),
                qrs_end=float(ms(waves.qrs_end) or 0.0),
                t_peak=ms(t_peak),
                t_end=ms(waves.t_end),
            )
        )
    return tuple(leads)


def _extreme(values: Samples, first: int | None, last: int | None) -> int | None:
    """Sample of the largest distance from the line between two samples; None without them."""
    if first is None or last is None or last - first < 2:
        return None
    part = values[first : last + 1]
    distance = np.abs(part - np.linspace(part[0], part[-1], part.size))
    return None if not np.isfinite(distance).any() else first + int(np.nanargmax(distance))
