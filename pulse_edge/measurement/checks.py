"""Compare what a text or a finding states with what was measured on the trace.

In: claims of a text, findings, measurements, age and sex where they are known. Out: a `Check` for
each statement that the rules know: supported, contradicted, or not measurable. A statement within
the uncertainty of a limit is supported: a false contradiction of a right text does more harm than a
missed one. The words are never changed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from pulse_edge.measurement.bounds import bounds_of
from pulse_edge.measurement.claims import Claim, claims_in
from pulse_edge.measurement.conditions import Person, Trace, Truth, judge, truth_of_all
from pulse_edge.measurement.criteria import ADULT
from pulse_edge.measurement.measurements import Measurement
from pulse_edge.measurement.number_rules import NUMBERS, ROUGH
from pulse_edge.measurement.rule import DERIVED, NumberRule, Rule
from pulse_edge.measurement.rules import RULES


class AskedFinding(Protocol):
    """A finding of the fixed list, as far as it is compared with the trace."""

    @property
    def statement(self) -> str:
        """Key of the statement, such as `AFIB`."""

    @property
    def name(self) -> str:
        """Name of the statement."""

    @property
    def answer(self) -> bool | None:
        """What the model answers: yes, no, or neither."""


Verdict = Literal["supported", "contradicted", "not measurable"]
ORDER: tuple[Verdict, ...] = ("contradicted", "supported", "not measurable")


@dataclass(frozen=True)
class Check:
    """One statement, and what the trace says about it."""

    topic: str
    text: str
    """The words, as the model wrote them; of a finding its name."""
    start: int | None
    """Offset of the words in the answer; None for a finding."""
    end: int | None
    verdict: Verdict
    sentence: str
    """For people: `The text says 42 bpm; the trace shows a ventricular rate of 74 bpm (± 2).`"""
    used: tuple[Measurement, ...]
    """The measurements that decided."""
    source: str
    """Of the limit."""
    finding: str = ""
    """Key of the finding, such as `AFIB`; empty for words of a text."""
    answer: int = 0
    """Which of the answers the words stand in, from 0."""


TOPICS: Mapping[str, str] = {
    "NORM": "normal ECG",
    "SR": "sinus rhythm",
    "AFIB": "atrial fibrillation",
    "AFLT": "atrial flutter",
    "SVTAC": "supraventricular tachycardia",
    "VTAC": "ventricular tachycardia",
    "SBRAD": "sinus bradycardia",
    "STACH": "sinus tachycardia",
    "1AVB": "first-degree AV block",
    "LBBB": "left bundle branch block",
    "RBBB": "right bundle branch block",
    "LAFB": "left anterior fascicular block",
    "LPFB": "left posterior fascicular block",
    "WPW": "Wolff-Parkinson-White pattern",
    "LNGQT": "long QT",
    "LAD": "left axis deviation",
    "RAD": "right axis deviation",
    "LVH": "left ventricular hypertrophy",
    "STE": "ST elevation",
    "STD": "ST depression",
    "INVT": "T-wave inversion",
    "PAC": "atrial ectopic beats",
    "PVC": "ventricular ectopic beats",
    "PACE": "paced rhythm",
}
"""Statement of the fixed list -> topic of the rules. Infarction, ischaemia and higher AV blocks are
not measured."""

_RULES = {rule.topic: rule for rule in RULES}
_NUMBERS = {rule.topic: rule for rule in NUMBERS}


def check_answers(
    answers: Sequence[tuple[str, str]],
    measurements: Iterable[Measurement],
    person: Person | None = None,
) -> tuple[Check, ...]:
    """Check the (question, text) of each answer; in the order of the text."""
    trace, who = Trace(measurements), person or Person()
    return tuple(
        replace(check, answer=n)
        for n, (question, text) in enumerate(answers)
        for claim in claims_in(text, question)
        if (check := check_claim(claim, trace, who)) is not None
    )


def check_findings(
    findings: Iterable[AskedFinding],
    measurements: Iterable[Measurement],
    person: Person | None = None,
) -> tuple[Check, ...]:
    """Check each finding that the model answers with yes or no (`Finding.answer`) and that a rule
    knows."""
    trace, who = Trace(measurements), person or Person()
    return tuple(_check_findings(findings, trace, who))


def _check_findings(
    findings: Iterable[AskedFinding], trace: Trace, person: Person
) -> Iterator[Check]:
    for finding in findings:
        topic, present = TOPICS.get(finding.statement), finding.answer
        if topic is None or present is None:
            continue
        claim = Claim(topic, finding.name, 0, 0, present)
        check = check_claim(
            claim,
            trace,
            person,
            says="Asked for it, the model says yes to",
            denies="Asked for it, the model says no to",
        )
        if check is not None:
            yield replace(check, start=None, end=None, finding=finding.statement)


def check_claim(
    claim: Claim,
    trace: Trace,
    person: Person,
    says: str = "The text says",
    denies: str = "The text denies",
) -> Check | None:
    """One statement against the trace; None for a topic without a rule."""
    intro = f"{says if claim.present else denies} {_quoted(claim)}"
    if claim.low is not None or claim.high is not None:
        number = _NUMBERS.get(claim.topic)
        return None if number is None else _number(claim, number, trace, intro)
    rule = _RULES.get(claim.topic)
    return None if rule is None else _words(claim, rule, trace, person, intro)


def _quoted(claim: Claim) -> str:
    """The words in quotation marks; of a denial the topic, as its words may lie scattered over the
    sentence."""
    words = f'"{" ".join(claim.text.split())}"' if claim.present and claim.end else claim.topic
    return f"{words} ({claim.place})" if claim.place and claim.place not in claim.text else words


# --- numbers ----------------------------------------------------------------------------------------------------------


def _number(claim: Claim, rule: NumberRule, trace: Trace, intro: str) -> Check:
    flat = trace["asystole"]
    if flat is not None and flat.value == 1:
        return _check(claim, "contradicted", f"{intro}; {_shows((flat,))}.", (flat,), rule.source)
    measured = [m for key in rule.keys if (m := trace[key]) is not None]
    usable = [m for m in measured if m.value is not None]
    if not usable:
        return _check(
            claim,
            "not measurable",
            f"{intro}; {_missing(measured, rule.keys[0])}.",
            tuple(measured),
            rule.source,
        )
    nearest = min(usable, key=lambda m: distance(claim, m))
    size = max(abs(v) for v in (claim.low, claim.high) if v is not None)
    wide = claim.rough or (rule.topic == "rate" and trace.irregular)
    clinical = max(rule.tolerance, rule.share * size) * (ROUGH if wide else 1.0)
    allowed = math.hypot(nearest.uncertainty or 0.0, clinical)
    verdict: Verdict = "supported" if distance(claim, nearest) <= allowed else "contradicted"
    return _check(claim, verdict, f"{intro}; {_shows((nearest,))}.", (nearest,), rule.source)


def distance(claim: Claim, measured: Measurement) -> float:
    """How far a measurement lies outside what the text states, in its unit; angles go round the
    circle."""
    assert measured.value is not None
    low = claim.low if claim.low is not None else float("-inf")
    high = claim.high if claim.high is not None else float("inf")
    turns = (-360.0, 0.0, 360.0) if measured.unit == "degrees" else (0.0,)
    return min(
        max(low - measured.value - turn, measured.value + turn - high, 0.0) for turn in turns
    )


# --- words ------------------------------------------------------------------------------------------------------------


def _words(claim: Claim, rule: Rule, trace: Trace, person: Person, intro: str) -> Check:
    child = person.age is not None and person.age < ADULT
    if rule.adults and child:
        why = f"{intro}; the limits for it hold for adults alone."
        return _check(claim, "not measurable", why, (), rule.source)
    conditions = rule.needs if claim.present else rule.proves
    results = [judge(condition, trace, person, claim.leads) for condition in conditions]
    whole = truth_of_all(results)
    note = " Adult limits." if person.age is None and _depends_on_age(rule) else ""
    more = truth_of_all(
        [judge(condition, trace, person, claim.leads) for condition in rule.supports]
    )
    verdict = (
        _asserted(whole.truth, more.truth, rule) if claim.present else _denied(whole.truth, rule)
    )
    open_point = (
        claim.present and whole.truth in ("true", "near") and more.truth not in ("true", "near")
    )
    telling = more if open_point or not results else whole
    because = _because(verdict, telling.truth, rule, telling.used)
    return _check(claim, verdict, f"{intro}; {because}.{note}", telling.used, rule.source)


def _asserted(truth: Truth, more: Truth, rule: Rule) -> Verdict:
    if truth == "false":
        return "contradicted"
    return (
        "supported"
        if rule.decides and truth != "unknown" and more in ("true", "near")
        else "not measurable"
    )


def _denied(truth: Truth, rule: Rule) -> Verdict:
    if truth == "true" and rule.proves:
        return "contradicted"
    return "not measurable" if truth == "unknown" or not rule.proves else "supported"


def _because(verdict: Verdict, truth: Truth, rule: Rule, used: tuple[Measurement, ...]) -> str:
    if verdict != "not measurable":
        return _shows(used)
    if truth == "unknown":
        return _missing([m for m in used if m.value is None], rule.topic)
    if not used:
        return "measurements cannot decide it"
    return f"{_shows(used)}, which {'' if truth == 'false' else 'fits and '}does not decide it"


def _depends_on_age(rule: Rule) -> bool:
    scaled = (
        bound.scale for condition in (*rule.needs, *rule.proves) for bound in bounds_of(condition)
    )
    return rule.adults or any(scaled)


# --- sentences --------------------------------------------------------------------------------------------------------

_YES_NO: Mapping[str, tuple[str, str]] = {
    "asystole": ("beats", "a flat line without beats: asystole, or electrodes off"),
    "p_present": ("no P waves before the QRS", "P waves before the QRS"),
    "paced": ("no pacing spikes", "pacing spikes"),
    "regular": ("irregular RR intervals", "regular RR intervals"),
    "atrial_fibrillation": (
        "no pattern of atrial fibrillation",
        "irregular RR intervals without P waves",
    ),
    "atrial_flutter": ("no flutter waves", "flutter waves"),
}
_COUNTS: Mapping[str, str] = {
    "ectopic": "premature beats",
    "ventricular_ectopic": "broad premature beats",
    "supraventricular_ectopic": "narrow premature beats",
}
_MOST_SHOWN = 4
"""Measurements in a sentence."""


def described(measured: Measurement) -> str:
    """A measurement in words: `QRS duration 92 ms (± 8)`, `no P waves before the QRS`."""
    assert measured.value is not None
    if measured.key in _YES_NO:
        return _YES_NO[measured.key][int(measured.value >= 0.5)]
    if measured.key in _COUNTS:
        words = _COUNTS[measured.key]
        return f"{measured.value:.0f} {words.removesuffix('s') if measured.value == 1 else words}"
    if measured.key == "rr_variation":
        return f"RR intervals that vary by {100 * measured.value:.0f} %"
    digits = 2 if measured.unit.startswith("mV") and abs(measured.value) < 10 else 0
    around = "" if not measured.uncertainty else f" (± {measured.uncertainty:.{digits}f})"
    return f"{measured.name} {measured.value:.{digits}f} {measured.unit}".rstrip() + around


def _shows(used: tuple[Measurement, ...]) -> str:
    values = [m for m in used if m.value is not None]
    telling = [
        m for m in values if m.key != "asystole" or m.value == 1
    ] or values  # that there are beats goes without saying
    if any(m.key == "rate" for m in telling):
        telling = [m for m in telling if m.key != "rate_median"]
    words = list(dict.fromkeys(map(described, telling)))[:_MOST_SHOWN]
    return f"the trace shows {', '.join(words)}" if words else "the trace shows nothing against it"


def _missing(measured: Sequence[Measurement], fallback: str) -> str:
    if not measured:
        return f"{fallback} was not measured"
    reason = measured[0].reason.rstrip(".") or "no reason is given"
    return f"{measured[0].name} is not measurable ({reason})"


def _check(
    claim: Claim, verdict: Verdict, sentence: str, used: tuple[Measurement, ...], source: str
) -> Check:
    unique = tuple({m.key: m for m in used}.values())
    parts = [m for m in unique if m.key not in DERIVED]
    doubts = dict.fromkeys(m.doubt for m in unique if m.doubt and m.value is not None)
    note = f" {'; '.join(doubts).capitalize()}." if doubts and verdict != "not measurable" else ""
    return Check(
        claim.topic,
        claim.text,
        claim.start,
        claim.end,
        verdict,
        sentence + note,
        tuple(parts),
        source,
    )


def check_lines(checks: Iterable[Check]) -> list[str]:
    """A line for each check: contradicted ones first, then supported ones, then the rest; the same
    sentence once."""
    ordered = sorted(checks, key=lambda check: ORDER.index(check.verdict))
    lines = (
        f"{c.verdict.upper() if c.verdict == 'contradicted' else c.verdict}: {c.sentence}"
        for c in ordered
    )
    return list(dict.fromkeys(lines))


def spans(checks: Iterable[Check], answer: int = 0) -> tuple[tuple[int, int, Verdict], ...]:
    """Stretches of one answer's text with their verdict, without overlap, for a page that colours
    them.

    Where two statements share words, the verdict that stands first in `ORDER` wins.
    """
    expected = [
        c for c in checks if c.answer == answer and c.start is not None and c.end is not None
    ]
    marks: list[tuple[int, int, Verdict]] = []
    for check in sorted(expected, key=lambda c: ORDER.index(c.verdict)):
        assert check.start is not None
        assert check.end is not None
        if all(check.end <= start or end <= check.start for start, end, _ in marks):
            marks.append((check.start, check.end, check.verdict))
    return tuple(sorted(marks))
