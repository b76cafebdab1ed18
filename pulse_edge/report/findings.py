"""The fixed list of findings, and how a page is judged by it.

In: the log odds of yes against no for each statement, as the language model gives them. Out:
`Finding`s.

SCP-ECG acronyms are those of PTB-XL's scp_statements.csv (Wagner et al. 2020), SNOMED CT codes
those of the tables dx_mapping_scored.csv and dx_mapping_unscored.csv of the PhysioNet/CinC
Challenge 2021, that of a normal ECG is from DICOM CID 3230. A statement that is missing from a
table has no code. Standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from pulse_edge.report.report import UNCALIBRATED, Finding

OPTIONS = "Options: yes, no Only answer based on the given Options without any explanation."
"""End of a question in ECGBench's ecgqa-test."""


@dataclass(frozen=True)
class Statement:
    """An entry of the list: one thing that an ECG can show."""

    key: str
    """Short name, e.g. `AFIB`."""
    name: str
    """Name in the words of the question."""
    group: str
    """Rhythm, conduction, ..."""
    urgency: int
    """1: act now, 2: soon, 3: note it, 4: nothing to do. A convention of this program, to sort by.
    """
    scp: str | None
    """SCP-ECG acronym."""
    snomed: str | None
    """SNOMED CT code."""
    synonyms: str = ""
    """Regular expression for other words that a report has for it."""

    @property
    def codes(self) -> dict[str, str]:
        """The codes by `scp` and `snomed`."""
        return {kind: code for kind, code in (("scp", self.scp), ("snomed", self.snomed)) if code}

    @property
    def plain(self) -> str:
        """The question as people ask it."""
        return "Is this a normal ECG?" if self.key == "NORM" else f"Does this ECG show {self.name}?"

    @property
    def question(self) -> str:
        """The question in the form of ECGBench's ecgqa-test, to be answered with one word."""
        return f"{self.plain} {OPTIONS}"


YES, NO = ("yes", "Yes"), ("no", "No")
"""Words with which an answer begins."""

STATEMENTS = (
    Statement("NORM", "normal ECG", "normal", 4, "NORM", "164854000"),
    Statement("SR", "sinus rhythm", "rhythm", 4, "SR", "426783006"),
    Statement("AFIB", "atrial fibrillation", "rhythm", 2, "AFIB", "164889003"),
    Statement("AFLT", "atrial flutter", "rhythm", 2, "AFLT", "164890007"),
    Statement("SVTAC", "supraventricular tachycardia", "rhythm", 1, "SVTAC", "426761007"),
    Statement("VTAC", "ventricular tachycardia", "rhythm", 1, None, "164895002"),
    Statement("SBRAD", "sinus bradycardia", "rate", 3, "SBRAD", "426177001"),
    Statement("STACH", "sinus tachycardia", "rate", 3, "STACH", "427084000"),
    Statement(
        "1AVB",
        "first-degree AV block",
        "conduction",
        3,
        "1AVB",
        "270492004",
        r"(first|1st).degree AV block",
    ),
    Statement(
        "2AVB",
        "second-degree AV block",
        "conduction",
        2,
        "2AVB",
        "195042002",
        r"(second|2nd).degree AV block",
    ),
    Statement(
        "3AVB",
        "third-degree AV block",
        "conduction",
        1,
        "3AVB",
        "27885002",
        r"complete (heart|AV) block",
    ),
    Statement("LBBB", "left bundle branch block", "conduction", 2, "CLBBB", "164909002", "LBBB"),
    Statement("RBBB", "right bundle branch block", "conduction", 3, "CRBBB", "59118001", "RBBB"),
    Statement(
        "LAFB", "left anterior fascicular block", "conduction", 3, "LAFB", "445118002", "LAFB"
    ),
    Statement(
        "LPFB", "left posterior fascicular block", "conduction", 3, "LPFB", "445211001", "LPFB"
    ),
    Statement(
        "WPW",
        "Wolff-Parkinson-White pattern",
        "conduction",
        2,
        "WPW",
        "74390002",
        "WPW|pre.?excitation",
    ),
    Statement("LNGQT", "prolonged QT interval", "conduction", 2, "LNGQT", "111975006", "long QT"),
    Statement("LAD", "left axis deviation", "axis", 3, None, "39732003"),
    Statement("RAD", "right axis deviation", "axis", 3, None, "47665007"),
    Statement("LVH", "left ventricular hypertrophy", "hypertrophy", 3, "LVH", "164873001", "LVH"),
    Statement("RVH", "right ventricular hypertrophy", "hypertrophy", 3, "RVH", "89792004", "RVH"),
    Statement(
        "STE",
        "ST elevation",
        "ischaemia and infarction",
        1,
        "STE_",
        "164931005",
        "STEMI|ST.segment elevation",
    ),
    Statement(
        "STD",
        "ST depression",
        "ischaemia and infarction",
        2,
        "STD_",
        "429622005",
        "ST.segment depression",
    ),
    Statement(
        "INVT",
        "T-wave inversion",
        "ischaemia and infarction",
        3,
        "INVT",
        "59931005",
        r"inverted T.waves?",
    ),
    Statement(
        "ISC",
        "myocardial ischaemia",
        "ischaemia and infarction",
        2,
        "ISC_",
        "164861001",
        r"isch(a)?emia",
    ),
    Statement(
        "MI",
        "myocardial infarction",
        "ischaemia and infarction",
        1,
        None,
        "164865005",
        "acute infarction",
    ),
    Statement(
        "OLDMI",
        "old infarction",
        "ischaemia and infarction",
        3,
        None,
        "164867002",
        r"old \w+ infarction",
    ),
    Statement(
        "PAC",
        "premature atrial contractions",
        "ectopy",
        3,
        "PAC",
        "284470004",
        r"atrial premature \w+|PACs?",
    ),
    Statement(
        "PVC",
        "premature ventricular contractions",
        "ectopy",
        3,
        "PVC",
        "427172004",
        r"ventricular premature \w+|PVCs?",
    ),
    Statement(
        "PACE",
        "pacemaker rhythm",
        "pacing",
        3,
        "PACE",
        "10370003",
        r"(electronically )?paced rhythm|pacing",
    ),
)
BY_KEY: Mapping[str, Statement] = {s.key: s for s in STATEMENTS}

HARMLESS = frozenset({"NORM", "SR", "SBRAD", "STACH"})
"""Statements that a normal ECG may show: PTB-XL gives slow and fast sinus rates together with NORM.
"""
NOT_TOGETHER = (
    ({"SR", "SBRAD", "STACH"}, {"AFIB", "AFLT", "SVTAC", "VTAC"}),
    ({"AFIB"}, {"AFLT"}),
    ({"SVTAC"}, {"VTAC"}),
    ({"SBRAD"}, {"STACH"}),
    ({"1AVB"}, {"3AVB", "AFIB", "AFLT"}),
    ({"2AVB"}, {"3AVB", "AFIB"}),
    ({"PAC"}, {"AFIB"}),
    ({"LBBB"}, {"RBBB", "LAFB", "LPFB"}),
    ({"LAFB"}, {"LPFB", "RAD"}),
    ({"LPFB"}, {"LAD"}),
    ({"LAD"}, {"RAD"}),
)
"""Each of the first excludes each of the second by definition: one rhythm at a time, an AV interval
needs one P wave for each QRS, a fascicular block sets the axis (AHA/ACC/HRS 2009, parts II and
III)."""


class Calibrated(Protocol):
    """How a kit turns log odds into a probability (`kit.Calibration`)."""

    @property
    def scale(self) -> float: ...
    @property
    def offset(self) -> float: ...
    @property
    def uncertain_from(self) -> float: ...
    @property
    def uncertain_to(self) -> float: ...
    @property
    def reason(self) -> str: ...


def judge(
    log_odds: Mapping[str, float], calibration: Mapping[str, Calibrated] | None
) -> tuple[Finding, ...]:
    """Return findings in the order of STATEMENTS, for those with log odds.

    Without calibration there is no verdict.

    Platt scaling (Platt 1999): the probability is the logistic function of scale * log odds +
    offset.
    """
    judged = [s for s in STATEMENTS if s.key in log_odds]
    ranks = {s.key: n for n, s in enumerate(sorted(judged, key=lambda s: -log_odds[s.key]), 1)}
    return tuple(
        _judge(s, log_odds[s.key], ranks[s.key], (calibration or {}).get(s.key)) for s in judged
    )


def _judge(
    statement: Statement, log_odds: float, rank: int, calibration: Calibrated | None
) -> Finding:
    probability, verdict, reason = None, None, UNCALIBRATED
    if calibration is not None and calibration.reason:
        reason = calibration.reason
    elif calibration is not None:
        probability = logistic(rescaled(log_odds, calibration))
        verdict, reason = _verdict(
            probability, calibration.uncertain_from, calibration.uncertain_to
        )
    return Finding(
        statement.key,
        statement.name,
        statement.group,
        statement.urgency,
        statement.codes,
        rank,
        round(log_odds, 4),
        None if probability is None else round(probability, 4),
        probability is not None,
        verdict,
        reason,
    )


def _verdict(
    probability: float, low: float, high: float
) -> tuple[Literal["present", "absent", "uncertain"], str]:
    """Return the verdict and, where it is uncertain, the reason.

    The kit abstains from `low` up to and including `high`.
    """
    if probability < low:
        return "absent", ""
    if probability > high:
        return "present", ""
    return "uncertain", "this kit is often wrong at this probability"


def rescaled(log_odds: float, calibration: Calibrated | None) -> float:
    """Return the log odds after Platt scaling; unchanged without calibration."""
    return log_odds if calibration is None else calibration.scale * log_odds + calibration.offset


def logistic(x: float) -> float:
    """Return 1 / (1 + exp(-x)), without overflow."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
