"""Synthesize a recording from findings and a seed: rhythm, heartbeats, noise, exact measurements.

The rhythm is a list of QRS onsets on the 2 ms grid; each onset receives a beat from `beats`. Noise
and wander are added to the eight independent leads and the sum is rounded to a microvolt, as a
recorder does, before the other four leads are derived: Einthoven's and Goldberger's relations hold
exactly on the page, and small differences between machines' arithmetic disappear.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from calibration.synthetic import beats as b
from calibration.synthetic.beats import BeatShape, Eight
from calibration.synthetic.disturbances import disturbance, fibrillation
from calibration.synthetic.findings import PREVALENCE, check, draw_findings, labels_of
from calibration.synthetic.recording import (
    HZ,
    SAMPLES,
    SECONDS,
    Beat,
    Measurements,
    Recording,
    twelve_leads,
)

Rng = np.random.Generator
BEFORE, AFTER = -1.6, SECONDS + 0.6
"""Seconds between which beats are generated, so that the strip may begin and end within a beat.
"""
EVIDENCE_BY = 4.8
"""Each kind of premature beat occurs before this many seconds: a page of 5 s shows it too."""


@dataclass(frozen=True)
class Heart:
    """Properties that stay the same over the ten seconds; times in seconds, intervals in ms."""

    rr: float  # mean RR interval
    spread: (
        float  # relative variation of RR: breathing in sinus rhythm, random in atrial fibrillation
    )
    breath: float  # breaths per second
    pr: float
    width: float
    qt: float
    shapes: Mapping[str, BeatShape]  # by kind of beat
    sites: tuple[tuple[str, str], ...]


def recording_at(seed: int, index: int, prevalence: Mapping[str, float] = PREVALENCE) -> Recording:
    """Recording number `index` of source `seed`; it depends only on these two."""
    return synthesize(
        np.random.default_rng(np.random.SeedSequence((seed, index))), prevalence=prevalence
    )


def synthesize(
    rng: Rng | int,
    findings: Iterable[str] | None = None,
    prevalence: Mapping[str, float] = PREVALENCE,
    noise: float = 1.0,
) -> Recording:
    """Ten seconds that show exactly `findings` (empty: normal; None: drawn by `prevalence`).

    `noise` scales noise, hum and wander; 0 gives the clean signal. ValueError for findings that
    exclude each other.
    """
    rng = np.random.default_rng(rng)
    chosen = draw_findings(rng, prevalence) if findings is None else check(findings)
    heart = _heart(rng, chosen)
    onsets, kinds = _rhythm(rng, chosen, heart)
    eight = _assemble(rng, heart, onsets, kinds)
    if "AF" in chosen:
        eight += fibrillation(rng)
    disturbed = noise * disturbance(rng, heart.breath) if noise else np.zeros_like(eight)
    shown = [(o, k) for o, k in zip(onsets, kinds, strict=True) if 0 <= o < SAMPLES]
    return Recording(
        signal=_recorded(eight + disturbed),
        clean=_recorded(eight),
        labels=labels_of(chosen),
        measurements=_measure(heart, [o for o, _ in shown]),
        beats=tuple(_beat(heart.shapes[kind], onset, kind) for onset, kind in shown),
        findings=chosen,
        sites=heart.sites,
    )


def _recorded(eight: Eight) -> NDArray[np.float32]:
    """(8, 5000) mV -> (12, 5000) float32 mV with the independent leads in whole microvolts."""
    return twelve_leads(np.round(eight * 1000) / 1000).astype(np.float32)


def _measure(heart: Heart, onsets: list[int]) -> Measurements:
    """Rate from the onsets in the strip, the rest from the dominant beat."""
    shape = heart.shapes["N"]
    rate = 60.0 * HZ * (len(onsets) - 1) / (onsets[-1] - onsets[0])
    return Measurements(rate, shape.pr, shape.width, shape.qt, b.frontal_axis(shape.qrs), shape.st)


def _beat(shape: BeatShape, onset: int, kind: str) -> Beat:
    """The label of a beat of this shape at this place of the signal."""
    at = onset / HZ
    p_onset = None if shape.pr is None else at - shape.pr / 1000
    return Beat(
        kind, p_onset, at, (onset + shape.peak) / HZ, at + shape.width / 1000, at + shape.qt / 1000
    )


# --- the heart --------------------------------------------------------------------------------


def _heart(rng: Rng, findings: frozenset[str]) -> Heart:
    """Rate, intervals and beat shapes for these findings."""
    rr = 60.0 / _rate(rng, findings)
    blocked = bool(findings & {"LBBB", "RBBB"})
    width = _even(rng.uniform(128, 166) if blocked else rng.uniform(80, 106))
    qt = _even(rng.uniform(388, 424) * rr**0.42 + (0.5 * (width - 95) if blocked else 0))
    pr = _even(rng.uniform(216, 320) if "I-AVB" in findings else rng.uniform(126, 188))
    spread = rng.uniform(0.14, 0.28) if "AF" in findings else rng.uniform(0.005, 0.05)
    heart = Heart(rr, spread, rng.uniform(0.18, 0.34), pr, width, qt, {}, _sites(rng, findings))
    return replace(heart, shapes=_shapes(rng, findings, heart))


def _rate(rng: Rng, findings: frozenset[str]) -> float:
    """Beats per minute; premature beats raise the mean, so the margins to 60 and 100 are wider with
    them.
    """
    early = bool(findings & {"PAC", "PVC"})
    if "SB" in findings:
        return float(rng.uniform(40, 49 if early else 57))
    if "ST" in findings:
        return float(rng.uniform(108 if early else 103, 140))
    if "AF" in findings:
        return float(rng.uniform(58, 135))
    return float(rng.uniform(64, 82) if early else rng.uniform(63, 97))


def _sites(rng: Rng, findings: frozenset[str]) -> tuple[tuple[str, str], ...]:
    """The places of the findings that have one; acute and old infarction and T inversion share it."""
    sites: dict[str, str] = {}
    if "MI" in findings:
        sites["MI"] = str(rng.choice(["inferior", "anterior", "lateral"], p=[0.45, 0.4, 0.15]))
    if "STE" in findings:
        sites["STE"] = sites.get("MI") or str(rng.choice(list(b.STE_SITES), p=[0.4, 0.3, 0.2, 0.1]))
    if "STD" in findings:
        sites["STD"] = (
            "lateral"
            if "HYP" in findings
            else str(rng.choice(list(b.STD_SITES), p=[0.35, 0.2, 0.15, 0.3]))
        )
    if "TINV" in findings:
        allowed = ["lateral", "inferior"] if "RBBB" in findings else list(b.TINV_SITES)
        sites["TINV"] = sites.get("MI") or str(rng.choice(allowed))
    if "PVC" in findings:
        sites["PVC"] = str(rng.choice(list(b.PVC_ORIGINS)))
    return tuple(sites.items())


def _shapes(rng: Rng, findings: frozenset[str], heart: Heart) -> dict[str, BeatShape]:
    """The dominant beat, and the premature ones that occur."""
    electrodes = np.concatenate([[1.0, 1.0], rng.lognormal(0, 0.20, 6)])[:, None]
    normal = _conducted(rng, findings, heart, electrodes)
    shapes = {"N": normal}
    if "PAC" in findings:
        shapes["A"] = _premature_atrial(rng, normal, electrodes)
    if "PVC" in findings:
        shapes["V"] = _premature_ventricular(rng, dict(heart.sites)["PVC"], heart, electrodes)
    return shapes


def _conducted(rng: Rng, findings: frozenset[str], heart: Heart, electrodes: Eight) -> BeatShape:
    """P, QRS, ST and T of the dominant beat."""
    sites = dict(heart.sites)
    qrs = b.qrs_complex(_ventricles(rng, findings, sites), heart.width) * electrodes
    qrs, turned = _aligned(rng, qrs, findings, sites)
    qrs = _sized(rng, qrs, findings)
    repolarization = _repolarization(rng, findings, sites, heart) * electrodes
    repolarization = b.rotate(repolarization, 0.3 * turned)
    if "AF" in findings:
        return BeatShape(np.zeros_like(qrs), qrs, repolarization, None, heart.width, heart.qt)
    p = b.p_wave(
        _vary(rng, b.P_RIGHT, 0.15),
        _vary(rng, b.P_LEFT, 0.15),
        heart.pr,
        rng.uniform(15, 19),
        rng.uniform(16, 32),
    )
    p = b.rotate(p, rng.normal(0, 10)) * electrodes * rng.uniform(0.8, 1.6)
    return BeatShape(p, qrs, repolarization, heart.pr, heart.width, heart.qt)


def _ventricles(rng: Rng, findings: frozenset[str], sites: Mapping[str, str]) -> tuple[b.Bump, ...]:
    """The QRS bumps for these findings, each amplitude varied, the chest leads a little displaced."""
    base: tuple[b.Bump, ...] = b.NORMAL_QRS
    if "LBBB" in findings:
        base = b.LBBB_QRS
    elif "RBBB" in findings:
        base = b.RBBB_QRS
    if "MI" in findings:
        base = b.INFARCT_QRS[sites["MI"]]
        if "RBBB" in findings:  # the infarct shows in the first 100 ms, the block after them
            early = (replace(x, centre=0.62 * x.centre, sigma=0.62 * x.sigma) for x in base[:3])
            base = (*early, b.RBBB_QRS[3])
    if "HYP" in findings:  # a small r before a deep S
        base = (replace(base[0], mv=0.5 * base[0].mv), *base[1:])
    shift = rng.uniform(-0.35, 0.35)
    return tuple(replace(x, mv=_vary(rng, _displaced(x.mv, shift), 0.15)) for x in base)


def _displaced(mv: Eight, shift: float) -> Eight:
    """Chest amplitudes as if every electrode sat `shift` of the way to the next one."""
    place = np.arange(6)
    return np.concatenate([mv[:2], np.interp(place + shift, place, mv[2:])])


def _vary(rng: Rng, mv: Eight, spread: float) -> Eight:
    """Each amplitude varied on its own; signs are kept."""
    return mv * rng.lognormal(0, spread, mv.shape)


def _aligned(
    rng: Rng, qrs: Eight, findings: frozenset[str], sites: Mapping[str, str]
) -> tuple[Eight, float]:
    """The QRS turned to its frontal axis, and by how many degrees.

    An infarct's axis follows from its Q waves.
    """
    now = b.frontal_axis(qrs)
    if "LAFB" in findings:
        turn = rng.uniform(-75, -48) - now
    elif "MI" in findings:
        turn = rng.uniform(-6, 6)
    elif findings & {"LBBB", "HYP"}:
        turn = rng.uniform(-25, 55) - now
    else:
        turn = np.clip(rng.normal(45, 30), -26, 86) - now
    return b.rotate(qrs, turn), float(turn)


def _sized(rng: Rng, qrs: Eight, findings: frozenset[str]) -> Eight:
    """Voltage: hypertrophy well above Sokolow-Lyon's 3.5 mV, all else but left bundle branch block
    below 3.2 mV.
    """
    if "HYP" in findings:
        high = rng.uniform(3.9, 5.4) / b.sokolow(qrs)
        leads = np.array([0.75, 0.75, 1, 1, 1, min(1.0, 3.2 / (high * float(qrs[5].max()))), 1, 1])
        grown: Eight = qrs * (high * leads)[:, None]
        return grown
    if "LBBB" in findings:
        return qrs * rng.uniform(0.8, 1.25)
    gain = rng.uniform(0.65, 1.3)
    return qrs * min(gain, 3.15 / b.sokolow(qrs))


def _repolarization(
    rng: Rng, findings: frozenset[str], sites: Mapping[str, str], heart: Heart
) -> Eight:
    """ST and T: (8, n) mV."""
    width, qt = heart.width, heart.qt
    skew = rng.uniform(1.7, 2.2)
    if (
        "LBBB" not in findings
    ):  # T has hardly begun where the ST level is read, however fast the heart
        room = b.t_top(qt) - width - b.ST_AFTER_J_MS
        skew = min(0.78 * skew, room / 2.4 / b.t_sigma(qt))
    t, st = NORMAL_REPOLARIZATION.get(
        next(iter(findings & {"LBBB", "RBBB"}), ""), (b.NORMAL_T, np.zeros(8))
    )
    t = _vary(rng, t, 0.2) * rng.uniform(0.6, 1.4)
    st, slope = st * rng.uniform(0.7, 1.2), 0.0
    if "TINV" in findings:
        t = _vary(rng, b.TINV_SITES[sites["TINV"]], 0.1) * rng.uniform(0.8, 1.5)
    if "STE" in findings:
        site = _vary(rng, b.STE_SITES[sites["STE"]], 0.1) * rng.uniform(0.20, 0.42)
        st, t, slope = st + site, t + rng.uniform(0.3, 1.1) * site, rng.uniform(-0.1, 0.5)
    if "STD" in findings:
        site = _vary(rng, b.STD_SITES[sites["STD"]], 0.1) * rng.uniform(0.16, 0.32)
        st, t, slope = st + site, 0.6 * t + rng.uniform(0.0, 1.2) * site, rng.uniform(-0.1, 0.7)
    return b.st_segment(st, width, qt, slope) + b.t_wave(t, qt, skew)


NORMAL_REPOLARIZATION = {"LBBB": (b.LBBB_T, b.LBBB_ST), "RBBB": (b.RBBB_T, np.zeros(8))}


def _premature_atrial(rng: Rng, normal: BeatShape, electrodes: Eight) -> BeatShape:
    """The same ventricles after a P wave from elsewhere."""
    pr = _even(max(112.0, (normal.pr or 160.0) - rng.uniform(4, 36)))
    right, left = ((-0.9, -0.7), (0.4, -0.8), (1.5, 0.3), (-0.3, 1.2))[rng.integers(4)]
    p = b.p_wave(right * b.P_RIGHT, left * b.P_LEFT, pr, rng.uniform(11, 15), rng.uniform(22, 34))
    return replace(normal, p=p * electrodes * rng.uniform(0.9, 1.6), pr=pr)


def _premature_ventricular(rng: Rng, origin: str, heart: Heart, electrodes: Eight) -> BeatShape:
    """Broad, without P, T against QRS."""
    width = _even(rng.uniform(136, 176))
    qt = _even(heart.qt + 0.6 * (width - 95))
    size = rng.uniform(0.85, 1.4)
    first, second = (_vary(rng, mv, 0.12) * size for mv in b.PVC_ORIGINS[origin])
    qrs = b.qrs_complex((b.Bump(0.36, 0.144, first), b.Bump(0.64, 0.144, second)), width)
    against = -rng.uniform(0.3, 0.5) * (first + second) / 2
    repolarization = b.st_segment(0.25 * against, width, qt) + b.t_wave(against, qt)
    return BeatShape(
        np.zeros_like(qrs), qrs * electrodes, repolarization * electrodes, None, width, qt
    )


def _even(ms: float) -> float:
    """To the 2 ms of a sample."""
    return round(ms / b.STEP_MS) * b.STEP_MS


# --- the rhythm -------------------------------------------------------------------------------


def _rhythm(rng: Rng, findings: frozenset[str], heart: Heart) -> tuple[list[int], list[str]]:
    """QRS onsets in samples, and the kind of each beat; drawn again until every premature kind
    shows early enough.
    """
    premature_kinds = [kind for kind, name in (("A", "PAC"), ("V", "PVC")) if name in findings]
    for _ in range(100):
        onsets, kinds = _walk(rng, heart, "AF" in findings, _plan(rng, premature_kinds, heart.rr))
        inside = [(t, kind) for t, kind in zip(onsets, kinds, strict=True) if 0.4 < t < EVIDENCE_BY]
        if all(any(kind == k for _, k in inside) for kind in premature_kinds):
            break
    else:
        raise RuntimeError("no rhythm with the premature beats that were asked for in 100 attempts")
    return [round(t * HZ) for t in onsets], kinds


def _plan(rng: Rng, premature_kinds: list[str], rr: float) -> list[tuple[float, str]]:
    """Times of the premature beats:

    (seconds, kind); mostly one to four, at times every second or third beat.
    """
    if not premature_kinds:
        return []
    if len(premature_kinds) == 1 and rng.random() < 0.12:
        step = rr * rng.choice([2.2, 3.2])
        return [(t, premature_kinds[0]) for t in np.arange(rng.uniform(0.5, 1.5), SECONDS, step)]
    order = [premature_kinds[i] for i in rng.permutation(len(premature_kinds))]
    first = [(rng.uniform(0.8, 1.6 if len(order) == 2 else 4.0), order[0])]
    second = [(rng.uniform(2.8, 4.2), order[1])] if len(order) == 2 else []
    more = [
        (rng.uniform(4.5, 9.3), str(rng.choice(premature_kinds))) for _ in range(rng.integers(0, 4))
    ]
    return sorted(first + second + more)


def _walk(
    rng: Rng, heart: Heart, fibrillating: bool, plan: list[tuple[float, str]]
) -> tuple[list[float], list[str]]:
    """One pass through the strip, premature beats when their time has come:

    QRS onsets in seconds, and kinds.
    """
    t, phase = BEFORE - rng.random() * heart.rr, rng.uniform(0, 2 * np.pi)
    onsets, kinds, waiting = [t], ["N"], list(plan)
    while t < AFTER:
        interval = _interval(rng, heart, fibrillating, t, phase)
        if waiting and t + interval > waiting[0][0]:
            _, kind = waiting.pop(0)
            t, interval = _premature(rng, heart, kind, t, fibrillating)
            onsets.append(t)
            kinds.append(kind)
        t += interval
        onsets.append(t)
        kinds.append("N")
    return onsets, kinds


def _interval(rng: Rng, heart: Heart, fibrillating: bool, t: float, phase: float) -> float:
    """The next RR interval in seconds: breathing in sinus rhythm, anything in atrial fibrillation."""
    if fibrillating:
        return max(float(heart.rr * (1 + heart.spread * rng.normal())), 0.36, 0.6 * heart.rr)
    breathing = heart.spread * np.sin(2 * np.pi * heart.breath * t + phase)
    return float(heart.rr * (1 + breathing + 0.006 * rng.normal()))


def _premature(
    rng: Rng, heart: Heart, kind: str, t: float, fibrillating: bool
) -> tuple[float, float]:
    """When a premature beat after `t` comes, and how long until the next normal one, seconds.

    An atrial one resets the sinus node; a ventricular one does not, so the pause is compensatory.
    """
    if kind == "A":
        coupling = max(rng.uniform(0.56, 0.72), (heart.qt / 1000 + 0.06) / heart.rr)
        return t + min(coupling, 0.76) * heart.rr, heart.rr * rng.uniform(1.0, 1.1)
    coupling = min(max(rng.uniform(0.52, 0.70), (heart.qt / 1000 + 0.03) / heart.rr), 0.80)
    pause = rng.uniform(1.1, 1.4) if fibrillating else 2 - coupling
    return t + coupling * heart.rr, pause * heart.rr


# --- the sum ----------------------------------------------------------------------------------


def _assemble(rng: Rng, heart: Heart, onsets: list[int], kinds: list[str]) -> Eight:
    """Every beat put at its onset, breathing changing its height by a few per cent:

    (8, 5000) mV.
    """
    margin = 1000
    strip = np.zeros((8, SAMPLES + 2 * margin))
    depth, phase = rng.uniform(0.0, 0.06), rng.uniform(0, 2 * np.pi)
    for onset, kind in zip(onsets, kinds, strict=True):
        shape = heart.shapes[kind]
        height = (
            1 + depth * np.sin(2 * np.pi * heart.breath * onset / HZ + phase) + 0.012 * rng.normal()
        )
        start = margin + onset - b.ONSET
        begin, end = max(start, 0), min(start + b.GRID_MS.size, strip.shape[1])
        if begin < end:
            beat = shape.p + height * (shape.qrs + shape.repolarization)
            strip[:, begin:end] += beat[:, begin - start : end - start]
    return strip[:, margin:-margin]
