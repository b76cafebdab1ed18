"""Find the diagnoses that a report affirms: words in its text that are not negated.

Negation follows the idea of NegEx (Chapman et al. 2001): a cue before the words negates up to the
end of its clause or a comma, a few cues behind them negate backwards, and some phrases only look
like negation. "Possible" counts as affirmed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping


def _block(side: str, short: str) -> str:
    return rf"(?<!incomplete )\b{side} bundle[- ]branch block|(?<!incomplete )\b{short}\b"


DIAGNOSES: Mapping[str, re.Pattern[str]] = {
    name: re.compile(pattern, re.I)
    for name, pattern in {
        "normal ECG": r"\bnormal (?:12[- ]lead )?(?:ecg|ekg|electrocardiogram)\b|\b(?:ecg|ekg)(?: is)? (?:with)?in normal limits",
        "sinus rhythm": r"\bsinus rhythm\b",
        "sinus bradycardia": r"\bsinus bradycardia\b",
        "sinus tachycardia": r"\bsinus tachycardia\b",
        "atrial fibrillation": r"\batrial fibrillation\b|\bafib\b|(?-i:\bAF\b)",
        "atrial flutter": r"\batrial flutter\b",
        "paced rhythm": r"\b(?:electronically |ventricular |atrial )?pace(?:d|maker)\b|\bpacing\b",
        "first-degree AV block": r"\b(?:first|1st)[- ]degree (?:av|a-v|atrioventricular)[- ]block|\bav[- ]block (?:i|1|first|grade 1)\b"
        r"|\bprolonged pr\b|\bpr(?: interval)?(?: is)? prolonged",
        "left bundle branch block": _block("left", "lbbb"),
        "right bundle branch block": _block("right", "rbbb"),
        "incomplete right bundle branch block": r"\bincomplete (?:right bundle[- ]branch block|rbbb)|\birbbb\b",
        "left anterior fascicular block": r"\bleft anterior (?:fascicular |hemi-?)block|\blafb\b",
        "premature atrial contractions": r"\b(?:premature (?:atrial|supraventricular)|(?:atrial|supraventricular) premature)\b"
        r"|\b(?:atrial|supraventricular) (?:extrasystol|ectop)\w+|\bpacs?\b",
        "premature ventricular contractions": r"\b(?:premature ventricular|ventricular premature)\b"
        r"|\bventricular (?:extrasystol|ectop)\w+|\bpvcs?\b",
        "left ventricular hypertrophy": r"\bleft ventricular hypertrophy\b|\blvh\b",
        "infarction": r"\binfarct(?:ion|ions|s)?\b",
        "ST elevation": r"\bst[- ](?:segment )?elevat\w+|\bst[- ]segments?(?: \w+){0,2} elevated|\belevated st\b",
        "ST depression": r"\bst[- ](?:segment )?depress\w+|\bst[- ]segments?(?: \w+){0,2} depressed|\bdepressed st\b",
        "T-wave inversion": r"\bt[- ]waves? inver\w+|\b(?:inverted|negative) t\b|\bt[- ]waves?(?: \w+){0,2} (?:inverted|negative)\b",
        "left axis deviation": r"\bleft(?:ward)? axis\b|\bleft axis deviation\b",
        "right axis deviation": r"\bright(?:ward)? axis\b|\bright axis deviation\b",
        "long QT": r"\b(?:prolonged|long) qtc?\b|\bqtc?(?: interval)?(?: is)? prolonged",
    }.items()
}
"""Each diagnosis and the words that name it in English reports."""

CLAUSE = re.compile(r"[.;:!?](?=\s|$)|\n|\b(?:but|however|although|though|except)\b", re.I)
SEEMING = re.compile(
    r"\b(?:cannot|can not|could not|not) (?:be )?(?:excluded?|ruled?)(?: out)?|\bnot only\b"
    r"|\bno (?:significant |relevant )?(?:change|difference)s?\b|\bno longer than\b",
    re.I,
)
BEFORE = re.compile(
    r"\b(?:no|not|without|nor|never|absence of|free of|negative for|rules? out|ruled out|excludes?|denies)\b",
    re.I,
)
AFTER = re.compile(
    r"\s*(?:\w+\s){0,2}?(?:is|are|was|were)?\s*\b(?:not|absent|excluded|ruled out|unlikely)\b", re.I
)


def diagnoses_in(text: str) -> frozenset[str]:
    """The names of DIAGNOSES that some clause of the text affirms."""
    clauses = [SEEMING.sub(lambda m: "_" * len(m[0]), clause) for clause in CLAUSE.split(text)]
    return frozenset(
        name
        for name, pattern in DIAGNOSES.items()
        if any(
            not negated(clause, *m.span()) for clause in clauses for m in pattern.finditer(clause)
        )
    )


def negated(clause: str, start: int, end: int) -> bool:
    """Whether a cue in the clause negates the words from `start` to `end`.

    A comma ends a cue's reach, but not in a list with `or`: "no A, B or C".
    """
    cues = list(BEFORE.finditer(clause[:start]))
    if cues:
        behind = clause[cues[-1].end() :]
        if "," not in clause[cues[-1].end() : start] or re.search(r"\b(?:or|nor)\b", behind):
            return True
    return AFTER.match(clause[end:].split(",")[0]) is not None
