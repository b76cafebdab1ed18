"""The findings of synthetic ECGs: which exclude each other, and how each data set names them.

A recording is planned as a set of findings (empty: normal). Labels are pure functions of that set,
so they cannot contradict one another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
"""Standard order of the twelve leads, everywhere in this package."""

CPSC = ("NORM", "AF", "I-AVB", "LBBB", "RBBB", "PAC", "PVC", "STD", "STE")
"""The nine labels of CPSC 2018."""
CODE15 = ("1dAVb", "RBBB", "LBBB", "SB", "ST", "AF")
"""The six labels of CODE-15 %."""
PTBXL = ("NORM", "MI", "STTC", "CD", "HYP")
"""The five diagnostic superclasses of PTB-XL."""

FINDINGS: Mapping[str, str] = {
    "AF": "atrial fibrillation",
    "I-AVB": "first-degree AV block",
    "LBBB": "complete left bundle branch block",
    "RBBB": "complete right bundle branch block",
    "LAFB": "left anterior fascicular block",
    "PAC": "premature atrial contractions",
    "PVC": "premature ventricular contractions",
    "STD": "ST depression",
    "STE": "ST elevation with reciprocal changes: acute infarction",
    "MI": "pathological Q waves: old infarction",
    "HYP": "left ventricular hypertrophy by voltage; with STD: strain",
    "TINV": "T-wave inversion",
    "SB": "sinus bradycardia",
    "ST": "sinus tachycardia",
}

CONFLICTS: Mapping[str, frozenset[str]] = {
    "AF": frozenset({"I-AVB", "PAC", "SB", "ST"}),
    "I-AVB": frozenset({"ST"}),
    "LBBB": frozenset({"RBBB", "LAFB", "STD", "STE", "MI", "HYP", "TINV"}),
    "RBBB": frozenset({"HYP"}),
    "LAFB": frozenset({"MI"}),
    "PAC": frozenset({"ST"}),
    "STE": frozenset({"STD", "TINV", "HYP"}),
    "STD": frozenset({"TINV"}),
    "MI": frozenset({"HYP"}),
    "HYP": frozenset({"TINV"}),
    "SB": frozenset({"ST"}),
}
"""Pairs that exclude each other by definition, or that a page could not show apart (both ways
round).
"""

PREVALENCE: Mapping[str, float] = {
    "AF": 0.20,
    "I-AVB": 0.20,
    "LBBB": 0.22,
    "RBBB": 0.18,
    "LAFB": 0.06,
    "PAC": 0.22,
    "PVC": 0.20,
    "STD": 0.22,
    "STE": 0.22,
    "MI": 0.16,
    "HYP": 0.18,
    "TINV": 0.12,
    "SB": 0.14,
    "ST": 0.14,
}
"""How often each finding is offered to an abnormal recording: far above nature, because a model
must see each of them often to learn it.
"""
NORMAL_SHARE = 0.15


@dataclass(frozen=True)
class Labels:
    """Labels in each data set's own words and order; None where a real recording has none of that
    set.
    """

    cpsc: tuple[str, ...] | None  # empty: none of the nine applies, e.g. an old infarction alone
    code15: tuple[str, ...] | None  # empty: none of the six applies
    ptbxl: tuple[str, ...] | None  # empty: no diagnostic superclass, e.g. atrial fibrillation alone


def conflict(one: str, other: str) -> bool:
    """Whether two findings exclude each other."""
    return other in CONFLICTS.get(one, ()) or one in CONFLICTS.get(other, ())


def check(findings: Iterable[str]) -> frozenset[str]:
    """The findings as a set; ValueError names unknown and contradictory ones."""
    chosen = frozenset(findings)
    if unknown := sorted(chosen - FINDINGS.keys()):
        raise ValueError(f"unknown findings {', '.join(unknown)}; known are {', '.join(FINDINGS)}")
    ordered = sorted(chosen)
    clashes = [
        f"{a} and {b}" for i, a in enumerate(ordered) for b in ordered[i + 1 :] if conflict(a, b)
    ]
    if clashes:
        raise ValueError(f"findings exclude each other: {'; '.join(clashes)}")
    return chosen


def draw_findings(
    rng: np.random.Generator,
    prevalence: Mapping[str, float] = PREVALENCE,
    normal: float = NORMAL_SHARE,
) -> frozenset[str]:
    """A consistent set: empty with chance `normal`, else each finding offered with its prevalence,
    in random order.
    """
    if rng.random() < normal:
        return frozenset()
    chosen: set[str] = set()
    names = list(FINDINGS)
    for name in (names[i] for i in rng.permutation(len(names))):
        offered = rng.random() < prevalence.get(name, 0.0)
        if offered and not any(conflict(name, other) for other in chosen):
            chosen.add(name)
    return frozenset(chosen)


def labels_of(findings: frozenset[str]) -> Labels:
    """The findings in the words of CPSC, CODE-15 and PTB-XL.

    NORM means: nothing but perhaps a slow or fast sinus rate, for which CPSC has no label and which
    PTB-XL states in addition to NORM (SBRAD, STACH). Bundle branch, fascicular and AV block are CD;
    acute ST elevation counts as MI.
    """
    normal = findings <= {"SB", "ST"}
    cpsc = {"NORM"} if normal else findings & set(CPSC)
    code15 = {"1dAVb" if name == "I-AVB" else name for name in findings} & set(CODE15)
    groups = {
        "NORM": normal,
        "MI": bool(findings & {"MI", "STE"}),
        "STTC": bool(findings & {"STD", "TINV"}),
        "CD": bool(findings & {"LBBB", "RBBB", "LAFB", "I-AVB"}),
        "HYP": "HYP" in findings,
    }
    return Labels(
        cpsc=tuple(name for name in CPSC if name in cpsc),
        code15=tuple(name for name in CODE15 if name in code15),
        ptbxl=tuple(name for name in PTBXL if groups[name]),
    )
