"""Score each traced lead by how well it agrees with itself and with the rest of the page.

In: twelve leads and the rhythm strips in millivolts. Out: a score from 0 to 1 for each lead, and
why a lead is not reported.

A path that leaves the ink does so in some beats and in others it does not. So the beats of a lead,
at the times at which all leads and strips together show beats, are compared with one another; limb
leads are also compared by Einthoven's and Goldberger's laws.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt

from pulse_edge.measurement.beats import channels_of, detect
from pulse_edge.measurement.consistency import triples
from pulse_edge.measurement.filters import samples, velocity
from pulse_edge.measurement.signal import LEADS, TracedSignal

Values = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]

BEFORE_MS, AFTER_MS = 120.0, 280.0
"""Part of a beat, from the R peak, that is compared with other beats."""
QRS_MS = 60.0
"""Half the time round an R peak in which the height of the QRS is measured."""
PRESENT = 0.75
"""Share of a beat's samples that must be traced for it to be compared."""
JUMP_MS = (6.0, 80.0)
"""Length of a gap in the ink over which a step counts as a jump."""
SHORTEST_MS = 500.0
"""A lead that is traced for less is not judged."""
REPORTED = 0.97
"""Score below which a lead is not reported. In the photographs 21 of 336 leads are wrong, 2 of the
239 with at least this score."""
ALIKE = 0.6
"""Agreement of its beats below which a lead is not reported: what follows the ink in no two beats
alike is no trace."""
HIDDEN = 0.6
"""Share of the time round the R peaks that must be traced: without its QRS complexes a lead is of
no use."""
FEWEST = 4
"""Where fewer leads than that agree with themselves the traces have left the ink, and the rest is
right by chance."""
STILL_MV = 0.15
"""Range of a lead that is flat: it has no beats that could agree. It is reported if COMPLETE of it
is traced."""
COMPLETE = 0.9
WRONG_NAMES = 0.5
"""Agreement of both triples of limb leads below which the leads of the page are named wrongly, or
none was followed."""


@dataclass(frozen=True)
class Evidence:
    """What speaks for and against the trace of one lead."""

    coverage: float
    """Share of the lead's time that is traced."""
    agreement: float
    """Mean over the beats of the correlation with the most similar other beat of the lead."""
    height: float
    """Least height of a QRS, divided by that of the most similar other beat."""
    whole: float
    """Share of the time round the R peaks that is traced."""
    single: float
    """1 where fewer than two whole beats are traced, so `agreement` and `height` are unknown."""
    laws: float
    """Correlation of the limb leads of one column with what their laws demand."""
    limb: float
    """1 for a lead that `laws` is known of."""
    lift: float
    """Share of the squared slope that lies near the beats of the page, less the share of time that
    does."""
    jumps: float
    """Sum of the steps over short gaps in the ink, divided by the range of the lead."""


UNKNOWN = {"agreement": 0.7, "height": 0.6, "laws": 0.8}
"""Stands for evidence that a lead does not give."""
WEIGHTS = Evidence(
    coverage=2.4,
    agreement=1.5,
    height=2.4,
    whole=0.0,
    single=1.0,
    laws=3.9,
    limb=-0.2,
    lift=0.1,
    jumps=-0.7,
)
"""Weights of a logistic regression of `the correlation with what was printed is at least 0.8`, from
28 photographs and 88 clean pages: 1377 leads, 64 of them wrong. Fitted on half of the pages, it
holds on the other half."""
OFFSET = -5.2
BEST = Evidence(
    coverage=1.0,
    agreement=1.0,
    height=1.0,
    whole=1.0,
    single=0.0,
    laws=1.0,
    limb=0.0,
    lift=0.7,
    jumps=0.0,
)
"""Evidence of a lead about which there is no doubt."""
WORDS = {
    "coverage": "too little of it was traced",
    "agreement": "its beats do not agree with one another",
    "height": "its QRS complexes differ in height",
    "whole": "its QRS complexes are hidden by other traces or by the grid",
    "laws": "it contradicts the other limb leads",
    "lift": "it is steep where the other leads show no beats",
    "jumps": "its ink is broken",
}
"""What is said against a lead."""


def evidence_of(signal: TracedSignal) -> dict[str, Evidence]:
    """Collect the evidence for every lead that is traced; empty for a page without beats, as in
    asystole."""
    detection = detect(channels_of(signal), signal.millivolts.shape[1])
    if detection.reason:
        return {}
    laws = {lead: value for value, leads in triples(signal.millivolts) for lead in leads}
    columns = max(1, int(signal.layout.split("x")[1][0])) if "x" in signal.layout else 1
    whole = signal.millivolts.shape[1] / columns
    out = {}
    for lead, row in zip(LEADS, signal.millivolts, strict=True):
        values = row.astype(np.float64)
        there = np.flatnonzero(np.isfinite(values))
        if there.size >= samples(SHORTEST_MS) and _extent(values) > STILL_MV:
            beats = detection.samples
            inside = beats[(beats >= there[0] + 20) & (beats < there[-1] - 20)]
            out[lead] = _evidence(values, there, inside, laws.get(lead, np.nan), whole)
    return out


def _evidence(values: Values, there: Index, beats: Index, laws: float, whole: float) -> Evidence:
    agreement, height = _beats_alike(values, beats)
    gaps = np.diff(there)
    steps = np.abs(np.diff(values[there]))
    short = (gaps > samples(JUMP_MS[0]) - 1) & (gaps < samples(JUMP_MS[1]))
    return Evidence(
        coverage=min(1.0, there.size / whole),
        agreement=UNKNOWN["agreement"] if np.isnan(agreement) else agreement,
        height=UNKNOWN["height"] if np.isnan(height) else height,
        whole=_traced_at(values, beats),
        single=float(np.isnan(agreement)),
        laws=UNKNOWN["laws"] if np.isnan(laws) else max(laws, 0.0),
        limb=float(not np.isnan(laws)),
        lift=_lift(values, beats),
        jumps=min(2.0, float(steps[short].sum()) / max(_extent(values), 0.1)),
    )


def _beats_alike(values: Values, beats: Index) -> tuple[float, float]:
    """Mean agreement and least height of the beats, as in `Evidence`; NaN with fewer than two whole
    beats."""
    before, after = samples(BEFORE_MS), samples(AFTER_MS)
    padded = np.pad(values, after, constant_values=np.nan)
    cut = padded[beats[:, None] + np.arange(-before, after) + after]
    cut = cut[np.isfinite(cut).mean(axis=1) >= PRESENT]
    if len(cut) < 2:
        return np.nan, np.nan
    middle = cut[:, before - samples(QRS_MS) : before + samples(QRS_MS)]
    middle = np.where(np.isfinite(middle), middle, np.nanmedian(cut, axis=1)[:, None])
    heights = np.maximum(np.ptp(middle, axis=1), 1e-3)
    shape = np.nan_to_num(cut - np.nanmean(cut, axis=1, keepdims=True))
    shape /= np.maximum(np.linalg.norm(shape, axis=1, keepdims=True), 1e-6)
    alike = np.max([np.roll(shape, s, axis=1) @ shape.T for s in range(-8, 9, 2)], axis=0)
    ratio = np.minimum(heights / heights[:, None], heights[:, None] / heights)
    np.fill_diagonal(alike, -1.0)
    np.fill_diagonal(ratio, 0.0)
    return float(alike.max(axis=1).mean()), float(ratio.max(axis=1).min())


def _traced_at(values: Values, beats: Index) -> float:
    """Share of the samples within QRS_MS of a beat that are traced; 0 without beats."""
    reach = samples(QRS_MS)
    around = np.clip(beats[:, None] + np.arange(-reach, reach), 0, len(values) - 1)
    return float(np.isfinite(values[around]).mean()) if beats.size else 0.0


def _extent(values: Values) -> float:
    """Range that holds 99 % of the samples."""
    return float(np.subtract(*np.nanquantile(values, [0.995, 0.005])))


def _lift(values: Values, beats: Index) -> float:
    slope = np.square(velocity(values, 8))
    exists = np.isfinite(slope)
    total = float(slope[exists].sum())
    if not beats.size or total <= 0:
        return 0.0
    near = np.zeros(slope.size, bool)
    for beat in beats:
        near[max(int(beat) - samples(100), 0) : int(beat) + samples(100)] = True
    return float(slope[exists & near].sum()) / total - float((exists & near).sum() / exists.sum())


def scored(evidence: Evidence) -> float:
    """Probability that a lead has a correlation of at least 0.8 with what is printed."""
    total = OFFSET + sum(
        getattr(WEIGHTS, f.name) * getattr(evidence, f.name) for f in fields(Evidence)
    )
    return float(1 / (1 + np.exp(-total)))


def reported(signal: TracedSignal, *, layout_sure: bool = True) -> TracedSignal:
    """Score the leads of a signal and take out those that are probably wrong, with a reason for
    each.

    A page without beats is returned as it is. Where the layout is not sure, one triple of limb
    leads that contradict each other is enough to show that a row was missed.
    """
    evidence = evidence_of(signal)
    if not evidence:
        return signal
    if _named_wrongly(signal, layout_sure=layout_sure):
        reason = (
            "The limb leads contradict Einthoven's and Goldberger's laws: the leads of this page were not recognised, "
            "or their traces were not followed."
        )
        return _without(signal, dict.fromkeys(LEADS, 0.0), (reason,))
    scores = dict(zip(LEADS, signal.scores, strict=True))
    reasons = []
    for lead, value in scores.items():
        if lead in evidence:
            scores[lead] = scored(evidence[lead])
            good = scores[lead] >= REPORTED and _judged(evidence[lead])
        else:
            good = value >= COMPLETE
        if not good and np.isfinite(signal.millivolts[LEADS.index(lead)]).any():
            scores[lead] = 0.0
            reasons.append(f"{lead} is left out: {_objection(evidence.get(lead))}.")
    if 0 < sum(score > 0 for score in scores.values()) < FEWEST and len(reasons) >= FEWEST:
        scores = dict.fromkeys(LEADS, 0.0)
        reasons.append(
            "The other leads are left out as well, because so few traces followed the ink."
        )
    return _without(signal, scores, tuple(reasons))


def _judged(evidence: Evidence) -> bool:
    """Whether a lead shows its QRS complexes, and they are alike."""
    return evidence.whole >= HIDDEN and evidence.agreement >= ALIKE


def _named_wrongly(signal: TracedSignal, *, layout_sure: bool) -> bool:
    laws = [value for value, _ in triples(signal.millivolts) if not np.isnan(value)]
    if layout_sure:
        return len(laws) == 2 and max(laws) < WRONG_NAMES
    return bool(laws) and min(laws) < WRONG_NAMES


def _objection(evidence: Evidence | None) -> str:
    """Say what speaks most against a lead."""
    if evidence is None:
        return "too little of it was traced"
    if evidence.whole < HIDDEN:
        return WORDS["whole"]
    if evidence.agreement < ALIKE:
        return WORDS["agreement"]
    costs = {
        name: (getattr(BEST, name) - getattr(evidence, name)) * getattr(WEIGHTS, name)
        for name in WORDS
        if name != "laws" or evidence.limb
    }
    return WORDS[max(costs, key=lambda name: costs[name])]


def _without(
    signal: TracedSignal, scores: dict[str, float], reasons: tuple[str, ...]
) -> TracedSignal:
    """The signal with new scores, without the leads whose score is 0."""
    values = signal.millivolts.copy()
    for n, lead in enumerate(LEADS):
        if scores[lead] == 0:
            values[n] = np.nan
    return replace(
        signal,
        millivolts=values,
        scores=tuple(scores[lead] for lead in LEADS),
        reasons=(*signal.reasons, *reasons),
        paths=tuple(p for p in signal.paths if p.strip or scores[p.lead] > 0),
    )
