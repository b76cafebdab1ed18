"""The words by which an ECG report states something that can be measured: one row for each topic.

Patterns are matched within one sentence, without regard to case except where a row says so. The
vocabulary is that of the AHA/ACC/HRS statement list (Mason et al. 2007) and of free reports
(PTB-XL, ECGBench, PULSE's training texts).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PLACES: dict[str, tuple[str, ...]] = {
    "inferolateral": ("II", "III", "aVF", "I", "aVL", "V5", "V6"),
    "anterolateral": ("I", "aVL", "V3", "V4", "V5", "V6"),
    "anteroseptal": ("V1", "V2", "V3", "V4"),
    "high lateral": ("I", "aVL"),
    "low lateral": ("V5", "V6"),
    "inferior": ("II", "III", "aVF"),
    "anterior": ("V1", "V2", "V3", "V4"),
    "septal": ("V1", "V2", "V3"),
    "lateral": ("I", "aVL", "V5", "V6"),
    "right precordial": ("V1", "V2", "V3"),
    "left precordial": ("V4", "V5", "V6"),
    "precordial": ("V1", "V2", "V3", "V4", "V5", "V6"),
    "chest": ("V1", "V2", "V3", "V4", "V5", "V6"),
    "limb": ("I", "II", "III", "aVR", "aVL", "aVF"),
}
"""The leads of each territory (AHA/ACC/HRS 2009, part VI; Surawicz). Longer names stand first, as
they are tried in order."""

Kind = Literal["state", "abnormality"]


@dataclass(frozen=True)
class Phrase:
    """The words for one topic."""

    topic: str
    words: str
    """Regular expression."""
    kind: Kind = "abnormality"
    """A denial runs on along a list of abnormalities ("no ST elevation, ST depression or Q waves"),
    never into a state ("no ST elevation, regular rhythm")."""
    exact_case: bool = False
    placed: bool = False
    """Whether leads or a territory belong to it."""


_AV = r"(?:AV|A-V|atrio-?ventricular|heart)"
_BUNDLE = r"bundle[- ]branch[- ](?:block|conduction (?:delay|defect))"
_PREMATURE = r"(?:contractions?|complex(?:es)?|beats?|depolari[sz]ations?)"
_T = r"T[- ]?waves?"
_ST = r"ST(?:[- ]?segments?)?"

PHRASES = (
    # --- rate and rhythm
    Phrase("sinus tachycardia", r"sinus tachycardia"),
    Phrase("sinus tachycardia", r"STACH", exact_case=True),
    Phrase("sinus bradycardia", r"sinus bradycardia"),
    Phrase("sinus bradycardia", r"SBRAD", exact_case=True),
    Phrase("supraventricular tachycardia", r"supraventricular tachycardia|SVTs?|AVNRT|AVRT"),
    Phrase("ventricular tachycardia", r"ventricular tachycardia|wide[- ]complex tachycardia"),
    Phrase("ventricular tachycardia", r"VT", exact_case=True),
    Phrase("unspecified", r"(?:ectopic |multifocal )?atrial tachycardia|junctional tachycardia"),
    Phrase("tachycardia", r"tachycardi[ac]"),
    Phrase("bradycardia", r"bradycardi[ac]"),
    Phrase("normal rate", r"normal (?:heart |ventricular )?rate(?! of)", "state"),
    Phrase(
        "unspecified",
        r"(?:slight|mild|somewhat|most|occasional|larg)(?:ly)? (?:ir)?regular(?:ity)?(?: rhythm)?",
    ),
    Phrase(
        "irregular rhythm",
        r"(?:(?:ir)?regularly )?irregular(?:ity)?(?! (?:baseline|morpholog|P))",
        "state",
    ),
    Phrase("irregular rhythm", r"(?:variable|varying) (?:R-?R|RR) intervals?", "state"),
    Phrase(
        "irregular rhythm",
        r"(?:R-?R|RR) intervals? (?:are |is )?(?:variable|varying|vary|varies)",
        "state",
    ),
    Phrase(
        "regular rhythm",
        r"regular (?:[\w-]+ ){0,3}?(?:rhythm|rate|tachycardia|(?:R-?R|RR) intervals?)",
        "state",
    ),
    Phrase(
        "regular rhythm",
        r"(?:rhythm|rate|(?:R-?R|RR) intervals?)(?::| is| are| appears?| and)(?: \w+)? regular",
        "state",
    ),
    Phrase("regular rhythm", r"(?:constant|consistent|equal) (?:R-?R|RR) intervals?", "state"),
    Phrase("atrial fibrillation", r"atrial fibrillation|a-?fib|AFIB|fibrillatory waves"),
    Phrase("atrial fibrillation", r"AF", exact_case=True),
    Phrase("atrial flutter", r"atrial flutter|flutter waves|AFLT"),
    Phrase("normal sinus rhythm", r"normal sinus rhythm", "state"),
    Phrase("normal sinus rhythm", r"NSR", "state", exact_case=True),
    Phrase("sinus arrhythmia", r"sinus arrhythmia|SARRH"),
    Phrase("sinus rhythm", r"sinus rhythm|sinus mechanism|rhythm is (?:\w+ )?sinus", "state"),
    Phrase("sinus rhythm", r"SR", "state", exact_case=True),
    Phrase(
        "P waves",
        r"P[- ]?waves?(?! (?:axis|duration|amplitude|voltage|morpholog|abnormalit|inver|terminal))",
    ),
    Phrase("asystole", r"asystole|ventricular standstill|flat ?line|cardiac standstill"),
    Phrase("pause", r"(?:sinus |asystolic )?pauses?|sinus arrest"),
    Phrase(
        "paced rhythm",
        r"(?:(?:electronic(?:ally)?|ventricular|atrial|AV|dual[- ]chamber|AV sequential)[- ])?"
        r"(?:paced(?: (?:rhythm|beats|complexes))?|pacemaker (?:rhythm|spikes?)|pacing(?: spikes?)?)",
    ),
    Phrase("paced rhythm", r"PACE", exact_case=True),
    Phrase(
        "ventricular ectopic beats",
        rf"premature ventricular {_PREMATURE}|ventricular premature {_PREMATURE}",
    ),
    Phrase(
        "ventricular ectopic beats",
        r"ventricular (?:ectop\w+(?: beats?)?|extrasystoles?|bigeminy|trigeminy)|PVCs?|VPCs?|VPBs?",
    ),
    Phrase(
        "atrial ectopic beats",
        rf"premature (?:atrial|supraventricular) {_PREMATURE}|atrial premature {_PREMATURE}",
    ),
    Phrase(
        "atrial ectopic beats",
        r"atrial (?:ectop\w+(?: beats?)?|extrasystoles?|bigeminy|trigeminy)|PACs?|APCs?|APBs?",
    ),
    Phrase(
        "ectopic beats",
        rf"ectopic beats?|ectopy|extrasystoles?|premature {_PREMATURE}|(?:bi|tri)geminy",
    ),
    # --- conduction
    Phrase(
        "first-degree AV block",
        rf"(?:first|1st)[- ]degree {_AV}[- ]?(?:block|conduction delay)|AV block,? first[- ]degree",
    ),
    Phrase("first-degree AV block", r"1AVB|I-AVB|1dAVb", exact_case=True),
    Phrase("incomplete LBBB", rf"(?:incomplete|partial) (?:left {_BUNDLE}|LBBB)|ILBBB"),
    Phrase("incomplete RBBB", rf"(?:incomplete|partial) (?:right {_BUNDLE}|RBBB)|IRBBB"),
    Phrase("left bundle branch block", rf"(?:complete )?left {_BUNDLE}|(?:complete )?C?LBBB"),
    Phrase("right bundle branch block", rf"(?:complete )?right {_BUNDLE}|(?:complete )?C?RBBB"),
    Phrase("bundle branch block", _BUNDLE),
    Phrase(
        "conduction delay",
        r"intra-?ventricular (?:conduction )?(?:delay|block|defect|disturbance)|IVCD",
    ),
    Phrase(
        "left anterior fascicular block", r"left anterior (?:fascicular block|hemi-?block)|LAFB"
    ),
    Phrase(
        "left posterior fascicular block", r"left posterior (?:fascicular block|hemi-?block)|LPFB"
    ),
    Phrase(
        "Wolff-Parkinson-White pattern",
        r"Wolff[- ]Parkinson[- ]White|WPW|pre-?excitation|delta waves?",
    ),
    Phrase("wide QRS", r"wide[- ]complex|broad[- ]complex|QRS (?:widening|prolongation)"),
    Phrase("narrow QRS", r"narrow[- ]complex", "state"),
    Phrase(
        "long PR", r"(?:prolongation of (?:the )?PR|PR (?:interval )?prolongation)(?: interval)?"
    ),
    Phrase(
        "long QT",
        r"(?:prolongation of (?:the )?QTc?|QTc? (?:interval )?prolongation)(?: interval)?|LNGQT",
    ),
    # --- axis
    Phrase(
        "left axis deviation",
        r"left(?:ward)? axis deviation|axis (?:is )?deviat\w+ (?:to the )?left|left[- ]deviated axis",
    ),
    Phrase(
        "left axis deviation",
        r"LAD(?! (?:artery|territory|occlusion|lesion|stenosis|infarct))",
        exact_case=True,
    ),
    Phrase(
        "right axis deviation",
        r"right(?:ward)? axis deviation|axis (?:is )?deviat\w+ (?:to the )?right|right[- ]deviated axis",
    ),
    Phrase("right axis deviation", r"RAD", exact_case=True),
    Phrase("extreme axis", r"extreme axis(?: deviation)?|north-?west axis"),
    # --- ST, T, voltage
    Phrase(
        "unspecified",
        r"(?:NSTEMI|non[- ]ST[- ](?:segment[- ])?elevation\w*)(?: myocardial infarction)?",
    ),
    Phrase(
        "ST elevation",
        rf"{_ST}[- ]?elevat(?:ions?|ed)(?: myocardial infarction)?|{_ST} (?:is|are) (?:\w+ )?elevated|elevated {_ST}|STEMI"
        rf"|{_ST} (?:shows?|demonstrates?) (?:no |significant |any ){{0,2}}elevations?",
        placed=True,
    ),
    Phrase("ST elevation", r"STE_?", exact_case=True, placed=True),
    Phrase(
        "ST depression",
        rf"{_ST}[- ]?depress(?:ions?|ed)|{_ST} (?:is|are) (?:\w+ )?depressed|depressed {_ST}|reciprocal depressions?",
        placed=True,
    ),
    Phrase(
        "ST depression",
        r"(?<=elevation )(?:or|and|nor) depressions?|(?<=elevations )(?:or|and|nor) depressions?",
        placed=True,
    ),
    Phrase("ST depression", r"STD_?", exact_case=True, placed=True),
    Phrase("ST elevation", r"(?<=depression )(?:or|and|nor) elevations?", placed=True),
    Phrase(
        "ST deviation",
        r"ST(?:(?:[-/ ]?| or | and )T|[- ]?segments?)?(?:[- ]waves?)?[- ](?:\w+ )?(?:changes?|abnormalit(?:y|ies)|deviations?|shifts?)",
    ),
    Phrase(
        "isoelectric ST",
        rf"{_ST} (?:is |are |remains? )?(?:at (?:the )?baseline|isoelectric)|isoelectric {_ST}",
        "state",
    ),
    Phrase(
        "T-wave inversion",
        rf"{_T} inversions?|inverted {_T}|{_T} (?:is|are) (?:\w+ )?inverted|TWI|INVT",
        placed=True,
    ),
    Phrase(
        "left ventricular hypertrophy by voltage",
        r"(?:left ventricular hypertrophy|LVH) (?:by|on|according to) (?:[\w-]+ )?voltage(?: criteria)?"
        r"|voltage criteria (?:for|of) (?:left ventricular hypertrophy|LVH)|VCLVH",
    ),
    Phrase("left ventricular hypertrophy", r"left ventricular hypertrophy|LVH"),
    Phrase("low voltage", r"low[- ](?:QRS[- ])?voltages?(?: QRS)?|low[- ]amplitude QRS|LVOLT"),
    # --- the whole
    Phrase("unspecified", r"otherwise (?:a )?normal (?:ECG|EKG|electrocardiogram|tracing)"),
    Phrase("normal ECG", r"normal (?:\d+[- ]lead )?(?:ECG|EKG|electrocardiogram|tracing)", "state"),
    Phrase("normal ECG", r"NORM", "state", exact_case=True),
    Phrase(
        "abnormality", r"(?<!other )(?<!further )(?<!additional )(?<!acute )abnormalit(?:y|ies)"
    ),
)
"""`unspecified` rows take words out of the reach of the rows below that would misread them."""

SUBJECTS: dict[str, str] = {
    "PR": r"(?:PR|P-R|PQ)(?:[- ]intervals?| duration)?",
    "QRS": r"QRS(?:[- ]complex(?:es)?)?(?:[- ](?:duration|interval|width)s?)?(?! axis| voltage| amplitude)",
    "QT": r"(?:QTc?(?:/QTc)?|corrected QT)(?: \(QTc\))?(?:[- ](?:intervals?|duration))?",
    "intervals": r"(?:(?:cardiac|conduction) )?intervals",
    "axis": r"(?:(?:QRS|electrical|frontal(?: plane)?|mean|heart|cardiac) ){0,2}axis",
    "rate": r"(?:heart|ventricular) rate",
    "ST": r"ST(?:[- ]?segments?)?(?:[-/ ]T)?(?: and T[- ]?waves?)?(?:[- ]waves?)?",
    "ECG": r"(?:ECG|EKG|electrocardiogram|tracing)",
}
"""What an adjective can be said of; `the PR interval is prolonged`, `normal PR, QRS and QT
intervals`."""

ADJECTIVES: dict[str, str] = {
    "normal": r"within (?:the )?normal (?:limits?|range)s?|normal|unremarkable|WNL",
    "long": r"prolonged|lengthened|long",
    "short": r"shortened|short",
    "wide": r"wide(?:ned)?|broad(?:ened)?",
    "narrow": r"narrow",
}

QUALITIES: dict[tuple[str, str], tuple[tuple[str, bool], ...]] = {
    ("PR", "normal"): (("normal PR", True),),
    ("PR", "long"): (("long PR", True),),
    ("PR", "short"): (("short PR", True),),
    ("QRS", "normal"): (("narrow QRS", True),),
    ("QRS", "narrow"): (("narrow QRS", True),),
    ("QRS", "wide"): (("wide QRS", True),),
    ("QRS", "long"): (("wide QRS", True),),
    ("QT", "normal"): (("normal QT", True),),
    ("QT", "long"): (("long QT", True),),
    ("QT", "short"): (("short QT", True),),
    ("intervals", "normal"): (("normal PR", True), ("narrow QRS", True), ("normal QT", True)),
    ("axis", "normal"): (("normal axis", True),),
    ("rate", "normal"): (("normal rate", True),),
    ("ST", "normal"): (("ST deviation", False),),
    ("ECG", "normal"): (("normal ECG", True),),
}
"""(subject, adjective) -> topics, and whether each is asserted (True) or denied (False)."""

STATES = frozenset({p.topic for p in PHRASES if p.kind == "state"}) | {
    "normal PR",
    "normal QT",
    "normal axis",
}
