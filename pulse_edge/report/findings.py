"""A fixed list of statements about an ECG, what they are called elsewhere, and where they contradict one another or a text.

In: the log odds of yes against no for each statement, as the language model has them; texts. Out: `Finding`s and `Mark`s.

SCP-ECG acronyms are those of PTB-XL's scp_statements.csv (Wagner et al. 2020), SNOMED CT codes those of the tables
dx_mapping_scored.csv and dx_mapping_unscored.csv of the PhysioNet/CinC Challenge 2021, normal ECG that of DICOM CID 3230.
A statement that a table does not have has no code. Standard library only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from pulse_edge.report.report import UNCALIBRATED, Contradiction, Finding


@dataclass(frozen=True)
class Statement:
    """One thing that an ECG can show."""

    key: str
    name: str
    """In the words of the question."""
    group: str
    urgency: int
    """1: act now, 2: soon, 3: note it, 4: nothing to do. A convention of this program, to sort by."""
    scp: str | None
    snomed: str | None
    also: str = ""
    """Regular expression for other words that a report has for it."""

    @property
    def codes(self) -> dict[str, str]:
        """Its codes, by `scp` and `snomed`."""
        return {kind: code for kind, code in (("scp", self.scp), ("snomed", self.snomed)) if code}

    @property
    def plain(self) -> str:
        """The question as people ask it."""
        return "Is this a normal ECG?" if self.key == "NORM" else f"Does this ECG show {self.name}?"

    @property
    def question(self) -> str:
        """The question in the form of ECGBench's ecgqa-test, to be answered with one word."""
        return f"{self.plain} Options: yes, no Only answer based on the given Options without any explanation."


YES, NO = ("yes", "Yes"), ("no", "No")
"""How the answer begins."""

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
"""What a normal ECG may show: PTB-XL states slow and fast sinus rates beside NORM."""
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
"""Each of the first excludes each of the second by definition: one rhythm at a time, an AV interval needs one P wave for
each QRS, a fascicular block sets the axis (AHA/ACC/HRS 2009, parts II and III)."""


class Calibrated(Protocol):
    """How a kit turns log odds into a probability (kit.Calibration)."""

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
    """Findings in the order of STATEMENTS, for those with log odds. A statement without calibration gets no verdict.

    Platt scaling (Platt 1999): the probability is the logistic function of scale * log odds + offset.
    """
    asked = [s for s in STATEMENTS if s.key in log_odds]
    ranks = {s.key: n for n, s in enumerate(sorted(asked, key=lambda s: -log_odds[s.key]), 1)}
    return tuple(
        _judge(s, log_odds[s.key], ranks[s.key], (calibration or {}).get(s.key)) for s in asked
    )


def _judge(statement: Statement, log_odds: float, rank: int, how: Calibrated | None) -> Finding:
    probability, verdict, reason = None, None, UNCALIBRATED
    if how is not None and how.reason:
        reason = how.reason
    elif how is not None:
        probability = logistic(rescaled(log_odds, how))
        verdict, reason = _verdict(probability, how.uncertain_from, how.uncertain_to)
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
    """Verdict and, where it is uncertain, the reason; the kit abstains from `low` up to and including `high`."""
    if probability < low:
        return "absent", ""
    if probability > high:
        return "present", ""
    return "uncertain", "this kit is often wrong at this probability"


def rescaled(log_odds: float, how: Calibrated | None) -> float:
    """The log odds as the kit is calibrated; as they are where it is not."""
    return log_odds if how is None else how.scale * log_odds + how.offset


def logistic(x: float) -> float:
    """1 / (1 + exp(-x)), without overflow."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


# --- contradictions ---------------------------------------------------------------------------------------------------


def contradictions(
    findings: Sequence[Finding], texts: Sequence[str], second: Mapping[str, float] | None = None
) -> tuple[Contradiction, ...]:
    """Compare all statements: within the texts, texts with findings, findings with one another and with another wording.

    `second` holds the log odds of the plain questions. The most urgent statement comes first.
    """
    text = "\n".join(texts)
    all_of_them = (
        *_within(text),
        *_text_against(findings, text),
        *_one_another(findings),
        *_two_wordings(findings, second or {}),
    )
    return tuple(
        sorted(all_of_them, key=lambda c: min(BY_KEY[key].urgency for key in c.statements))
    )


_DOUBT = re.compile(
    r"\b(possibl[ey]|probabl[ey]|likely|suspected|questionable|cannot|may|might)\b", re.I
)
_DOUBT_BEFORE = re.compile(
    rf"{_DOUBT.pattern}|\b(otherwise|borderline|consider|rule out|suspicious|suggest\w*|old)\b",
    re.I,
)
_DENIAL = re.compile(r"\b(no|not|without|absence|absent|never|neither|excludes?|ruled)\b", re.I)
_DENIAL_AFTER = re.compile(r"\s+(is|are|was|were)?\s*(not|absent|excluded|ruled out)\b", re.I)


def says(text: str, statement: Statement) -> bool | None:
    """Whether a text states it (True) or denies it (False), by its words alone; None: neither, both, or with a doubt."""
    words = re.compile(
        rf"\b(?:{re.escape(statement.name)}{'|' + statement.also if statement.also else ''})\b",
        re.I,
    )
    told = set()
    for clause in re.split(r"[.;:,\n]|\bbut\b", text):
        if found := words.search(clause):
            before, after = clause[: found.start()], clause[found.end() :]
            if _DOUBT_BEFORE.search(before) or _DOUBT.search(after):
                return None
            told.add(not (_DENIAL.search(before) or _DENIAL_AFTER.match(after)))
    return told.pop() if len(told) == 1 else None


def _within(text: str) -> Iterator[Contradiction]:
    """Two statements of one text that exclude one another."""
    stated = [s for s in STATEMENTS if says(text, s) is True]
    yield from (
        Contradiction(
            "text",
            (one.key, other.key),
            f"The text says both {one.name} and {other.name}, which exclude one another.",
        )
        for one, other in _excluding(stated)
    )
    abnormal = [s for s in stated if s.key not in HARMLESS]
    if abnormal and says(text, BY_KEY["NORM"]) is True:
        names = ", ".join(s.name for s in abnormal)
        yield Contradiction(
            "text",
            ("NORM", *(s.key for s in abnormal)),
            f"The text says normal ECG, and also: {names}.",
        )


def _excluding(statements: Sequence[Statement]) -> Iterator[tuple[Statement, Statement]]:
    """Pairs of which only one can be true, by NOT_TOGETHER."""
    by_key = {s.key: s for s in statements}
    pairs = {frozenset((a, b)) for ones, others in NOT_TOGETHER for a in ones for b in others}
    for n, one in enumerate(statements):
        yield from (
            (one, by_key[s.key])
            for s in statements[n + 1 :]
            if frozenset((one.key, s.key)) in pairs
        )


def _text_against(findings: Sequence[Finding], text: str) -> Iterator[Contradiction]:
    stated = {f.statement: says(text, BY_KEY[f.statement]) for f in findings}
    for f in findings:
        if stated[f.statement] is True and f.answer is False:
            yield Contradiction(
                "text", (f.statement,), f"The text says {f.name}; asked for it, the model says no."
            )
        if stated[f.statement] is False and f.answer is True:
            yield Contradiction(
                "text",
                (f.statement,),
                f"The text says that there is no {f.name}; asked for it, the model says yes.",
            )
    abnormal = [f for f in findings if f.answer is True and f.statement not in HARMLESS]
    if abnormal and says(text, BY_KEY["NORM"]) is True:
        names = ", ".join(f.name for f in abnormal)
        keys = tuple(f.statement for f in abnormal)
        yield Contradiction(
            "text",
            keys,
            f"The text says normal ECG; asked one by one, the model says yes to: {names}.",
        )


def _one_another(findings: Sequence[Finding]) -> Iterator[Contradiction]:
    present = [BY_KEY[f.statement] for f in findings if f.answer is True]
    abnormal = [s for s in present if s.key not in HARMLESS]
    if BY_KEY["NORM"] in present and abnormal:
        names = ", ".join(s.name for s in abnormal)
        keys = ("NORM", *(s.key for s in abnormal))
        yield Contradiction(
            "findings", keys, f"Asked one by one, the model says yes to normal ECG and to {names}."
        )
    absent = {f.statement for f in findings if f.answer is False}
    if absent >= BY_KEY.keys() - {"SR", "SBRAD", "STACH"}:
        yield Contradiction(
            "findings",
            ("NORM",),
            "The model says no to normal ECG and to everything abnormal on the list.",
        )
    for one, other in _excluding(present):
        text = f"The model says yes to both {one.name} and {other.name}, which exclude one another."
        yield Contradiction("findings", (one.key, other.key), text)


def _two_wordings(
    findings: Sequence[Finding], second: Mapping[str, float]
) -> Iterator[Contradiction]:
    for f in findings:
        if f.answer is True and second.get(f.statement, 0.0) < 0:
            yield Contradiction(
                "wording",
                (f.statement,),
                f"Asked in other words, the model says that there is no {f.name}.",
            )
