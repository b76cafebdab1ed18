"""Find numbers with their subject and unit in a sentence: rates, intervals, axes, pauses.

A range ("50-60 bpm") has a low and a high end, a bound ("above 120 ms") one end, a single number
two equal ends. Seconds are turned into milliseconds. Normal ranges that a report quotes ("normal:
60-100 bpm") are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Quantity:
    """One number or range of a sentence."""

    topic: str
    start: int
    """Offset in the sentence."""
    end: int
    low: float | None
    high: float | None
    unit: str
    rough: bool = False
    """"about", "approximately"."""


_ABOVE = r">=|≥|>|above|over|greater than|more than|exceed(?:s|ing)|at least"
_BELOW = r"<=|≤|<|below|under|less than|fewer than|at most|up to"
_ABOUT = r"approximately|approx\.?|about|around|roughly|nearly|near|~|≈|circa|estimated(?: (?:at|to be))?"
_NUMBER = r"[-+−]?\d+(?:\.\d+)?"
_BPM = r"bpm|beats? ?(?:per|/|a) ?min(?:ute)?|/ ?min(?:ute)?|per minute"
_MS = r"ms(?:ec)?\b|milliseconds?|s(?:ec(?:onds?)?)?\b"
_DEGREES = r"degrees?|deg\b|°"
_UNITS = {"bpm": _BPM, "ms": _MS, "degrees": _DEGREES}
_OTHER_UNIT = re.compile(
    r"\s*(?:mV|mm|cm|%|bpm|beats|/ ?min|ms\b|msec|millisec|s\b|sec|degrees?|deg\b|°|leads?\b|years?|of \d)",
    re.I,
)


def _value(unit: str) -> str:
    """A pattern of one number or range with its unit; named groups."""
    units = _UNITS[unit]
    return (
        rf"(?:(?P<above>{_ABOVE})|(?P<below>{_BELOW}))?\s*(?:(?P<about>{_ABOUT})\s*)?(?:between\s+|from\s+)?"
        rf"(?P<one>{_NUMBER})\s*(?P<unit1>{units})?"
        rf"(?:\s*(?:-|–|—|to|and)\s*(?P<two>{_NUMBER}))?\s*(?P<unit2>{units})?"
    )


@dataclass(frozen=True)
class _Subject:
    topic: str
    words: str
    unit: str
    least: float
    most: float
    """What a number without a unit may be, in the unit."""


_NOT = r"(?:PR|P-R|QRS|QTc?|axis|axes|interval|wave|RR|R-R|voltage)"
_GAP = rf"(?:(?!\b{_NOT}\b)[^.;\d<>≥≤+\-−–]|\.(?=\S)){{0,45}}?"

_SUBJECTS = (
    _Subject("atrial rate", r"(?:atrial|P[- ]wave|flutter) rate|flutter waves", "bpm", 40, 400),
    _Subject(
        "rate",
        r"(?<!atrial )(?:(?:heart|ventricular|vent\.|pulse)[- ])?rate\b|HR\b|VR\b",
        "bpm",
        15,
        350,
    ),
    _Subject(
        "PR interval",
        r"(?<![QR]/)(?:PR|P-R|PQ)(?:[- ]interval)?(?: duration)?\b(?!/)",
        "ms",
        60,
        600,
    ),
    _Subject(
        "QRS duration",
        r"QRS(?:[- ](?:complex(?:es)?|duration|interval|width))*\b(?! axis| volt| ampl|/)",
        "ms",
        40,
        300,
    ),
    _Subject(
        "QTc interval",
        r"(?:QTc[BF]?|corrected QT)(?:[- ]interval)?(?: duration)?(?: ?\([\w' ]+\))?\b",
        "ms",
        250,
        800,
    ),
    _Subject(
        "QT interval",
        r"(?<!corrected )QT(?:[- ]interval)?(?: duration)?\b(?! axis|/)",
        "ms",
        200,
        800,
    ),
    _Subject("RR interval", r"(?:RR|R-R)(?:[- ]intervals?)?\b", "ms", 200, 4000),
    _Subject("axis", r"(?<!\bP )(?<!\bT )(?<!wave )\baxis\b", "degrees", -180, 180),
    _Subject("pause", r"pauses?\b", "ms", 1000, 15000),
)
_WITH_SUBJECT = tuple(
    (s, re.compile(rf"\b(?P<subject>{s.words})(?P<gap>{_GAP}){_value(s.unit)}", re.I))
    for s in _SUBJECTS
)
_BARE = re.compile(
    rf"(?:(?P<above>{_ABOVE})|(?P<below>{_BELOW}))?\s*(?:(?P<about>{_ABOUT})\s*)?(?<![\d.])(?P<one>\d+(?:\.\d+)?)\s*"
    rf"(?P<unit1>{_BPM})?(?:\s*(?:-|–|—|to|and)\s*(?P<two>\d+(?:\.\d+)?))?\s*(?P<unit2>(?:{_BPM}))",
    re.I,
)
_LISTED = re.compile(
    r"\b(?P<names>(?:PR|QRSD?|QTc?[BF]?|P|R|T)(?:\s?[/-]\s?(?:PR|QRSD?|QTc?[BF]?|P|R|T))+)\b(?P<gap>[^.;\d]{0,25}?)"
    r"(?P<values>-?\d+(?:(?:\s?/\s?|\s+)-?\d+)+)",
    re.I,
)
"""`QT/QTc 380/410 ms`, `PR/QRS/QT: 160/90/380`, `P-R-T axes 50 60 45`."""
_LISTED_TOPICS = {
    "PR": "PR interval",
    "QRS": "QRS duration",
    "QRSD": "QRS duration",
    "QT": "QT interval",
}
_LISTED_TOPICS |= dict.fromkeys(("QTC", "QTCB", "QTCF"), "QTc interval")
_QUOTED = re.compile(
    r"(?:normal(?:ly)?|reference|expected)[^.;,\d]{0,40}$|range[^.;,\d]{0,12}$|limits?[^.;,\d]{0,20}$",
    re.I,
)
"""Before a number: it belongs to a normal range that the text quotes."""
_ELSEWHERE = re.compile(
    r"\b(?:runs?|episodes?|paroxysms?|bursts?|salvos?|maximum|minimum|maximal|minimal|previous|formerly|was|prior)\b"
    r"[^.;,\d]{0,40}$",
    re.I,
)
"""Before a number: it belongs to a run of beats, or to an earlier ECG."""
_NORMAL_OWN = re.compile(r"\b(?:is|are|at|of|with)\b[^\d]{0,12}$", re.I)


def quantities(sentence: str) -> Iterator[Quantity]:
    """Numbers of a sentence, by subject, then rates that have only their unit; no number twice."""
    taken: list[tuple[int, int]] = []
    for quantity in (*_listed(sentence), *_with_subject(sentence), *_bare(sentence)):
        if not any(quantity.start < end and start < quantity.end for start, end in taken):
            taken.append((quantity.start, quantity.end))
            yield quantity


def _listed(sentence: str) -> Iterator[Quantity]:
    for match in _LISTED.finditer(sentence):
        names = [n.upper() for n in re.split(r"\s?[/-]\s?", match["names"])]
        values = [float(v) for v in re.findall(r"-?\d+", match["values"])]
        if len(names) != len(values):
            continue
        if names == ["P", "R", "T"]:
            if re.search(r"\bax[ei]s", sentence[match.end("names") : match.end() + 12], re.I):
                yield Quantity("axis", match.start(), match.end(), values[1], values[1], "degrees")
            continue
        for name, value in zip(names, values, strict=True):
            if topic := _LISTED_TOPICS.get(name):
                yield Quantity(topic, *_part(match, value), value, value, "ms")


def _part(match: re.Match[str], value: float) -> tuple[int, int]:
    """Offsets of one value of a list; the words of the list would be those of each."""
    at = match.start("values") + match["values"].index(f"{value:.0f}")
    return at, at + len(f"{value:.0f}")


def _with_subject(sentence: str) -> Iterator[Quantity]:
    for subject, pattern in _WITH_SUBJECT:
        for match in pattern.finditer(sentence):
            if quantity := _quantity(subject, match, sentence):
                yield quantity


def _quantity(subject: _Subject, match: re.Match[str], sentence: str) -> Quantity | None:
    unit = (match["unit1"] or match["unit2"] or "").lower()
    if (not unit and _OTHER_UNIT.match(sentence, match.end())) or re.match(
        r"\s*[/÷x*]\s*\d", sentence[match.end() :]
    ):
        return None  # another quantity, or a calculation such as 300/4
    if quoted(sentence[: match.start("one")], match):
        return None
    ends = [float(match[name].replace("−", "-")) for name in ("one", "two") if match[name]]
    if subject.unit == "ms" and _in_seconds(unit, ends, subject):
        ends = [1000 * v for v in ends]
    if subject.unit != "degrees":
        ends = [abs(v) for v in ends]
    if not all(subject.least <= v <= subject.most for v in ends) and not unit:
        return None
    end = match.end() if match["two"] or match["unit1"] or match["unit2"] else match.end("one")
    low, high = _bounds(match, ends)
    return Quantity(
        subject.topic, match.start(), end, low, high, subject.unit, bool(match["about"])
    )


def _in_seconds(unit: str, ends: list[float], subject: _Subject) -> bool:
    """Whether an interval is given in seconds: by its unit, or as too small a number of
    milliseconds."""
    return unit.startswith("s") or (
        not unit and all(1000 * v <= subject.most and v < 5 for v in ends)
    )


def quoted(before: str, match: re.Match[str]) -> bool:
    """Whether the number is no value of this ECG, by the words before it: a normal range, a run,
    another ECG.

    `The PR interval is normal at 160 ms` states a number all the same.
    """
    if match["about"]:
        return False
    if _ELSEWHERE.search(before):
        return True
    head = before[: len(before) - len(match["above"] or match["below"] or "")].rstrip(" (:")
    return bool(_QUOTED.search(head)) and not _NORMAL_OWN.search(
        before[-20:] if "range" not in before[-25:] else ""
    )


def _bare(sentence: str) -> Iterator[Quantity]:
    """Rates without the word: `sinus rhythm, 72 bpm`."""
    for match in _BARE.finditer(sentence):
        before = sentence[: match.start("one")]
        if quoted(before, match):
            continue
        ends = [float(match[name]) for name in ("one", "two") if match[name]]
        atrial = re.search(
            r"(?:flutter|fibrillatory|P)[- ]waves?[^.;,]{0,20}$|atri\w+[^.;,]{0,15}$", before, re.I
        )
        atrial = (
            atrial
            if atrial and "fibrillation" not in atrial.group() and "tachy" not in atrial.group()
            else None
        )
        low, high = _bounds(match, ends)
        topic = "atrial rate" if atrial else "rate"
        yield Quantity(topic, match.start(), match.end(), low, high, "bpm", bool(match["about"]))


def _bounds(match: re.Match[str], ends: list[float]) -> tuple[float | None, float | None]:
    if len(ends) == 2:
        return min(ends), max(ends)
    if match["above"]:
        return ends[0], None
    return (None, ends[0]) if match["below"] else (ends[0], ends[0])
