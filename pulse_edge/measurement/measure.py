"""Measure a traced signal: rate, regularity, waves, intervals, axes, levels, amplitudes and criteria.

Keys of the measurements (`LEAD` is each of the twelve leads; yes is 1.0, no is 0.0). Every key is always there, with a
value or with the reason why there is none.

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
| `regular` | yes/no | RR intervals vary little, ectopic beats left out |
| `pauses` | count | RR intervals of 2 s and more |
| `ectopic`, `ventricular_ectopic`, `supraventricular_ectopic` | count | premature beats: all, broad, narrow |
| `paced` | yes/no | spikes of a pacemaker stand before the beats |
| `p_present` | yes/no | a P wave precedes the QRS at a constant distance |
| `atrial_rate` | bpm | from P waves, or from flutter waves |
| `atrial_fibrillation` | yes/no | irregular RR intervals without P waves |
| `atrial_flutter` | yes/no | regular atrial waves of 200 to 350 a minute without P waves |
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

from dataclasses import dataclass

import numpy as np

from pulse_edge.measurement.beats import Detection, channels_of, detect
from pulse_edge.measurement.measurements import Measurement
from pulse_edge.measurement.signal import SAMPLES_PER_SECOND, TracedSignal


@dataclass(frozen=True)
class SignalMeasurements:
    """Everything measured on one traced signal."""

    measurements: tuple[Measurement, ...]
    beats: tuple[float, ...]
    """R peaks in seconds on the signal's time axis."""

    def __getitem__(self, key: str) -> Measurement:
        """Return the measurement of this key; KeyError where there is none."""
        return next((m for m in self.measurements if m.key == key), None) or _missing(key)


def _missing(key: str) -> Measurement:
    raise KeyError(key)


def measure_signal(signal: TracedSignal, age_years: float | None = None) -> SignalMeasurements:
    """Measure a traced signal. `age_years` is for limits that depend on age; None where it is not known."""
    detection = detect(channels_of(signal), signal.millivolts.shape[1])
    seconds = detection.samples / SAMPLES_PER_SECOND
    return SignalMeasurements(tuple(_rates(detection)), tuple(float(s) for s in seconds))


def _rates(detection: Detection) -> list[Measurement]:
    leads = tuple(dict.fromkeys(c.lead for c in detection.channels))
    intervals = np.diff(detection.samples) * 1000 / SAMPLES_PER_SECOND
    reason = detection.reason or ("" if intervals.size >= 2 else "fewer than two RR intervals")
    rows = []
    for key, name, function in (
        ("rate", "ventricular rate, mean RR", np.mean),
        ("rate_median", "ventricular rate, median RR", np.median),
    ):
        value = None if reason else 60000 / float(function(intervals))
        rows.append(Measurement(key, name, value, "bpm", None if reason else 1.0, leads, reason))
    return rows
