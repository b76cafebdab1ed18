"""Write sentences about a recording, in a small vocabulary and always in the same order.

A synthetic recording is known completely; sentences about a real one go only as far as its labels.
Rates are whole beats per minute, intervals whole tens of milliseconds, axes whole tens of degrees:
as exact as a page can be read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from calibration.synthetic.findings import FINDINGS
from calibration.synthetic.recording import Recording

NAMES: Mapping[str, str] = {
    "AF": "atrial fibrillation",
    "I-AVB": "first-degree AV block",
    "LBBB": "left bundle branch block",
    "RBBB": "right bundle branch block",
    "LAFB": "left anterior fascicular block",
    "PAC": "premature atrial contractions",
    "PVC": "premature ventricular contractions",
    "STD": "ST depression",
    "STE": "ST elevation",
    "MI": "old infarction",
    "HYP": "left ventricular hypertrophy",
    "TINV": "T-wave inversion",
    "SB": "sinus bradycardia",
    "ST": "sinus tachycardia",
}
"""Each finding in the words of questions and answers; no name is part of another."""
SUPERCLASS: Mapping[str, str] = {
    "NORM": "normal ECG",
    "MI": "myocardial infarction",
    "STTC": "ST-T changes",
    "CD": "conduction disturbance",
    "HYP": "hypertrophy",
}
"""PTB-XL's superclasses in words."""
UNTOLD: Mapping[str, frozenset[str]] = {
    "LBBB": frozenset({"STE", "STD", "TINV", "MI", "HYP", "LAFB"}),
    "RBBB": frozenset({"TINV"}),
    "STE": frozenset({"STD", "TINV"}),
    "STD": frozenset({"TINV"}),
    "MI": frozenset({"LAFB"}),
}
"""Finding -> secondary and reciprocal changes that a reader could see without a label.
"""
UNTOLD_BY_SUPERCLASS: Mapping[str, frozenset[str]] = {
    "MI": frozenset({"MI", "STE"}),
    "STTC": frozenset({"STD", "STE", "TINV"}),
    "CD": frozenset({"LAFB"}),
    "HYP": frozenset({"HYP"}),
}
"""Findings that a real recording of a superclass may show without a label of their own."""


@dataclass(frozen=True)
class Known:
    """Findings that a recording shows and those that it does not show, in the order of FINDINGS;
    the others are unknown.
    """

    present: tuple[str, ...]
    absent: tuple[str, ...]
    normal: bool | None  # nothing but perhaps a slow or fast sinus rate; None: not told


def known(recording: Recording) -> Known:
    """The certain findings of a recording; of a real one only those that its labels state."""
    labels = recording.labels
    if recording.findings is not None:
        present, absent = set(recording.findings), FINDINGS.keys() - recording.findings
    else:
        codes = {
            {"1dAVb": "I-AVB"}.get(name, name)
            for name in (*(labels.cpsc or ()), *(labels.code15 or ()))
        }
        present = codes & FINDINGS.keys()
        tellable = (
            {"AF", "I-AVB", "LBBB", "RBBB", "SB", "ST"} if labels.code15 is not None else set()
        )
        tellable |= {"PAC", "PVC", "STD", "STE"} if labels.cpsc is not None else set()
        tellable |= {"MI", "HYP"} if labels.ptbxl is not None else set()
        absent = tellable - present
        absent = absent.difference(
            *(UNTOLD_BY_SUPERCLASS.get(name, ()) for name in labels.ptbxl or ())
        )
    absent = absent.difference(*(UNTOLD.get(name, ()) for name in present))
    return Known(
        tuple(name for name in FINDINGS if name in present),
        tuple(name for name in FINDINGS if name in absent),
        _normal(recording),
    )


def _normal(recording: Recording) -> bool | None:
    """Whether any of the three label sets calls it normal; None where they leave it open."""
    words = {*(recording.labels.ptbxl or ()), *(recording.labels.cpsc or ())}
    if "NORM" in words:
        return words == {"NORM"}
    return (
        False
        if words or recording.findings or set(recording.labels.code15 or ()) - {"SB", "ST"}
        else None
    )


def ten(value: float) -> int:
    """The nearest multiple of ten; halves go up."""
    return int((value + 5) // 10) * 10


def axis_name(degrees: float) -> str:
    """Frontal axis in words: normal from -30 to 90 degrees (AHA/ACCF/HRS 2009)."""
    if degrees < -30:
        return "left axis deviation"
    return "normal axis" if degrees <= 90 else "right axis deviation"


def report(recording: Recording) -> str:
    """The whole report, rate first and verdict last; empty for a recording without any label."""
    parts = [
        rate(recording),
        rhythm(recording),
        conduction(recording),
        repolarization(recording),
        verdict(recording),
    ]
    return " ".join(part for part in parts if part)


def rate(recording: Recording) -> str:
    """`Ventricular rate 72 bpm.`"""
    value = recording.measurements.rate
    return "" if value is None else f"Ventricular rate {round(value)} bpm."


def rhythm(recording: Recording) -> str:
    """The rhythm, and the beats that do not belong to it."""
    present = known(recording).present
    main = [name for name in ("AF", "SB", "ST") if name in present]
    phrases = [NAMES[name] for name in main]
    if not main and recording.findings is not None:
        phrases = ["sinus rhythm"]
    return _sentences(phrases + [NAMES[name] for name in ("PAC", "PVC") if name in present])


def conduction(recording: Recording) -> str:
    """PR, QRS, QT and axis, each with the block that it shows."""
    m, present = recording.measurements, known(recording).present
    phrases = [] if m.pr is None else [f"PR interval {ten(m.pr)} ms"]
    phrases += [NAMES["I-AVB"]] * ("I-AVB" in present)
    phrases += [] if m.qrs is None else [f"QRS duration {ten(m.qrs)} ms"]
    phrases += [NAMES[name] for name in ("LBBB", "RBBB") if name in present]
    phrases += [] if m.qt is None else [f"QT interval {ten(m.qt)} ms"]
    phrases += [] if m.axis is None else [axis_name(m.axis)]
    phrases += [NAMES["LAFB"]] * ("LAFB" in present)
    if not phrases and "CD" in (recording.labels.ptbxl or ()):
        phrases = [SUPERCLASS["CD"]]
    return _sentences(phrases)


def repolarization(recording: Recording) -> str:
    """Hypertrophy, infarction, ST and T, each with its place."""
    certain, classes = known(recording), set(recording.labels.ptbxl or ())
    phrases = [
        _placed(recording, name)
        for name in ("HYP", "MI", "STE", "STD", "TINV")
        if name in certain.present
    ]
    if recording.findings is None:
        shown = {"MI": {"MI", "STE"}, "STTC": {"STD", "TINV"}, "HYP": {"HYP"}}
        phrases += [
            SUPERCLASS[c]
            for c, names in shown.items()
            if c in classes and not names & set(certain.present)
        ]
    elif {"STE", "STD", "TINV"} <= set(certain.absent):
        phrases.append("normal ST segments and T waves")
    return _sentences(phrases)


def verdict(recording: Recording) -> str:
    """`Normal ECG.`, `Otherwise normal ECG.` with a slow or fast sinus rate, or `Abnormal ECG.`"""
    certain = known(recording)
    if certain.normal is None:
        return "Abnormal ECG." if set(certain.present) - {"SB", "ST"} else ""
    if not certain.normal:
        return "Abnormal ECG."
    return "Otherwise normal ECG." if certain.present else "Normal ECG."


def diagnosis(recording: Recording) -> str:
    """The findings alone, and the verdict."""
    return " ".join(
        filter(
            None,
            [
                _sentences([_placed(recording, name) for name in known(recording).present]),
                verdict(recording),
            ],
        )
    )


def _placed(recording: Recording, name: str) -> str:
    """A finding with its place: `ST elevation in the inferior leads`, `old inferior infarction`."""
    site = dict(recording.sites).get(name, "")
    if name == "MI":
        return f"old {site} infarction" if site else NAMES["MI"]
    if name in ("STE", "STD", "TINV") and site:
        words = (
            f"diffuse {NAMES[name]}" if site == "diffuse" else f"{NAMES[name]} in the {site} leads"
        )
        return f"{words}, acute infarction" if name == "STE" else words
    if name == "HYP" and "STD" in (recording.findings or ()):
        return f"{NAMES['HYP']} with strain"
    return NAMES[name]


def _sentences(phrases: list[str]) -> str:
    """Each phrase as a sentence."""
    return " ".join(f"{phrase[0].upper()}{phrase[1:]}." for phrase in phrases)
