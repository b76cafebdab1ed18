"""Which statements of `pulse_edge.report.findings` are true of ECGBench's pages.

Only certain truths count: a statement that no label decides is left out, page by page. Synthetic
pages are known completely (`pages.jsonl`). Pages that readers confirmed have the readers' verdicts.
For others the labels of CODE-15, CPSC and PTB-XL count, and the right option of CSN and G12EC.
Supraventricular tachycardia, for instance, occurs only in the options of CSN and G12EC, so a page
without it cannot be recognised as such.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from calibration.ecgbench import LABELS, LETTERS, Bench, Note, Sample, labels_in
from calibration.synthetic.findings import CODE15, CPSC, Labels
from calibration.synthetic.questions import AXIS_MARGIN
from calibration.synthetic.sentences import UNTOLD, UNTOLD_BY_SUPERCLASS
from pulse_edge.report.findings import BY_KEY, HARMLESS, NOT_TOGETHER, STATEMENTS

Truths = dict[str, bool]
Vote = tuple[str, bool]
KEYS: Mapping[str, str] = {
    "AF": "AFIB", "I-AVB": "1AVB", "1dAVb": "1AVB", "LBBB": "LBBB", "RBBB": "RBBB", "LAFB": "LAFB", "PAC": "PAC",
    "PVC": "PVC", "STD": "STD", "STE": "STE", "MI": "OLDMI", "HYP": "LVH", "TINV": "INVT", "SB": "SBRAD", "ST": "STACH",
}  # fmt: skip
"""The statement of each label of CPSC and CODE-15, and of each finding of a synthetic page."""
ONLY_WITH: Mapping[str, tuple[str, ...]] = {
    "MI": ("OLDMI",),
    "CD": ("1AVB", "2AVB", "3AVB", "LBBB", "RBBB", "LAFB", "LPFB", "WPW"),
    "HYP": ("LVH", "RVH"),
    "STTC": ("LNGQT",),
}
"""PTB-XL's superclass -> its statements (scp_statements.csv), which are absent without it.
"""
NOT_NORMAL = frozenset({
    "AFIB", "AFLT", "SVTAC", "VTAC", "2AVB", "3AVB", "LBBB", "RBBB", "LAFB", "LPFB", "WPW", "LVH", "RVH", "ISC", "MI", "OLDMI",
    "PACE",
})  # fmt: skip
"""Statements that are never true of a normal ECG."""


@dataclass(frozen=True)
class Known:
    """A page, the questions about it, and the statements whose truth is known."""

    image: str
    samples: tuple[Sample, ...]
    truths: Truths

    @property
    def patient(self) -> str | None:
        """The patient, where the data know it."""
        return self.samples[0].patient


def known_pages(bench: Bench, note: Note) -> Iterator[Known]:
    """Every page on which some truth is known, in the order of the tasks; pictures are not read."""
    by_image: dict[str, list[Sample]] = defaultdict(list)
    for task in bench.tasks:
        for sample in bench.samples(task, note, pictures=False):
            by_image[sample.image].append(sample)
    for image, samples in by_image.items():
        if truths_ := truths(bench.facts.get(image), samples):
            yield Known(image, tuple(samples), truths_)


def truths(facts: Mapping[str, Any] | None, samples: Sequence[Sample]) -> Truths:
    """Truth of a page by statement, from `pages.jsonl` or else from the right answers."""
    if facts is not None and "truths" in facts:  # readers' own verdicts, as they gave them
        return {s.key: facts["truths"][s.key] for s in STATEMENTS if s.key in facts["truths"]}
    if facts is None:
        return _agreed([vote for sample in samples for vote in _of_answer(sample)])
    labels = Labels(
        **{name: None if some is None else tuple(some) for name, some in facts["labels"].items()}
    )
    if facts["findings"] is None:
        return _agreed(of_labels(labels))
    axis = (facts.get("measurements") or {}).get("axis")
    return _agreed([*of_labels(labels, drawn=True), *_of_drawn(frozenset(facts["findings"]), axis)])


# --- votes ------------------------------------------------------------------------------------


def of_labels(labels: Labels, drawn: bool = False) -> list[Vote]:
    """Truths that the label sets decide.

    Secondary changes that a reader could see without a label stay open. A synthetic page's
    superclasses hide nothing: each of its findings is known.
    """
    votes: list[Vote] = []
    for names, some in ((CPSC, labels.cpsc), (CODE15, labels.code15)):
        votes += (
            [(KEYS[name], name in some) for name in names if name in KEYS]
            if some is not None
            else []
        )
    if (classes := labels.ptbxl) is not None:
        votes.append(("MI", "MI" in classes))
        votes += [
            (key, False) for name, keys in ONLY_WITH.items() if name not in classes for key in keys
        ]
    votes += _normal(labels)
    labels_there = {*(labels.cpsc or ()), *(labels.code15 or ())}
    hidden = [UNTOLD[name] for name in labels_there if name in UNTOLD]
    hidden += (
        []
        if drawn
        else [UNTOLD_BY_SUPERCLASS[name] for name in classes or () if name in UNTOLD_BY_SUPERCLASS]
    )
    return _without({KEYS[name] for some in hidden for name in some}, votes)


def _normal(labels: Labels) -> list[Vote]:
    """NORM alone is normal; with a slow or fast sinus rate it stays open."""
    sets = [{*some} for some in (labels.cpsc, labels.code15, labels.ptbxl) if some]
    if not sets or all(some <= {"SB", "ST"} for some in sets):
        return []
    return [
        (
            "NORM",
            any("NORM" in some for some in sets)
            and all(some <= {"NORM", "SB", "ST"} for some in sets),
        )
    ]


def _of_drawn(findings: frozenset[str], axis: float | None) -> list[Vote]:
    """Truths of a synthetic page beyond its labels; its rhythm is sinus unless the atria
    fibrillate.
    """
    votes = [(KEYS[name], name in findings) for name in ("LAFB", "MI", "HYP", "TINV")]
    votes = _without({KEYS[name] for one in findings for name in UNTOLD.get(one, ())}, votes)
    if not findings & {"SB", "ST"}:
        votes.append(("SR", "AF" not in findings))
    if axis is not None and min(abs(axis + 30), abs(axis - 90)) >= AXIS_MARGIN:
        votes += [("LAD", axis < -30), ("RAD", axis > 90)]
    return votes


def _of_answer(sample: Sample) -> list[Vote]:
    """Truths that the right answer to a question of ECGBench decides."""
    answer = sample.turns[0][1]
    if sample.task in LABELS:
        named = labels_in(answer, LABELS[sample.task])
        which = {"cpsc-test": "cpsc", "code15-test": "code15", "ptb-test": "ptbxl"}[sample.task]
        return of_labels(Labels(**{"cpsc": None, "code15": None, "ptbxl": None, which: named}))
    if sample.task in LETTERS and sample.task != "mmmu-ecg":
        option = re.sub(r"^[A-H]\W+", "", answer).strip(" .")
        return [
            (s.key, True)
            for s in STATEMENTS
            if re.fullmatch(f"{re.escape(s.name)}|{s.synonyms or s.name}", option, re.I)
        ]
    return []


# --- what follows -----------------------------------------------------------------------------


def _agreed(votes: Iterable[Vote]) -> Truths:
    """Votes without contradictions, and absences that follow from a present statement."""
    by_key: dict[str, set[bool]] = defaultdict(set)
    for key, there in votes:
        by_key[key].add(there)
    truths_ = {key: some.pop() for key, some in by_key.items() if len(some) == 1}
    for key in [key for key, there in truths_.items() if there]:
        for other in excluded_by(key) - by_key.keys():
            truths_[other] = False
    return {s.key: truths_[s.key] for s in STATEMENTS if s.key in truths_}


def excluded_by(key: str) -> frozenset[str]:
    """Statements that cannot be true together with this one, by definition."""
    if key == "NORM":
        return NOT_NORMAL
    out = {other for ones, others in NOT_TOGETHER if key in ones for other in others}
    out |= {one for ones, others in NOT_TOGETHER if key in others for one in ones}
    return (
        frozenset(out if key in HARMLESS or key not in NOT_NORMAL else {*out, "NORM"})
        & BY_KEY.keys()
    )


def _without(keys: set[str], votes: Iterable[Vote]) -> list[Vote]:
    """The votes without those for the absence of `keys`."""
    return [(key, there) for key, there in votes if there or key not in keys]
