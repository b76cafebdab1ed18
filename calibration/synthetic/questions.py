"""Ask questions about a recording, with answers, in the forms of ECGBench's nine tasks and short
ones.

The forms follow PULSE's paper (Liu et al. 2024, arXiv:2410.19008: figures 3 and A1 to A4) and its
published scorer: bare labels, bare letters where the data set has them, options after `Options:`.
Questions come in several wordings; an answer has one wording only. A real recording gets only the
questions that its labels answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from calibration.ecgbench import COUNTS, ONLY_OPTIONS
from calibration.synthetic import sentences as say
from calibration.synthetic.findings import CODE15, CPSC, PTBXL
from calibration.synthetic.question import LETTERS, Question, lettered, pick, shuffled
from calibration.synthetic.recording import Recording
from calibration.synthetic.sentences import NAMES, SUPERCLASS, Known, known
from calibration.synthetic.signals import recording_at
from pulse_edge.kit.prompt import REPORT_QUESTION

Rng = np.random.Generator
BENCH = tuple(COUNTS)
"""The nine configurations of ECGBench."""
CHAT = "chat"
"""Not of ECGBench: one short question, one sentence."""
TASKS = (*BENCH, CHAT)
NONE = "none"
NORMAL = SUPERCLASS["NORM"]
SINUS = "sinus rhythm"
AXIS_MARGIN = 8
"""Degrees on either side of -30 and 90 within which an axis is not called one or the other."""


def questions(recording: Recording, rng: Rng, tasks: Iterable[str] = TASKS) -> list[Question]:
    """One question of each ECGBench task that the recording can answer, and several of `chat`, by
    TASKS' order.

    A task's question does not depend on which others are asked for. ValueError names an unknown
    task.
    """
    chosen_tasks = set(tasks)
    if unknown := sorted(chosen_tasks - set(TASKS)):
        raise ValueError(f"unknown tasks {', '.join(unknown)}; known are {', '.join(TASKS)}")
    seeds = rng.integers(2**63, size=len(TASKS))
    subject: list[Question] = []
    for task, seed in zip(TASKS, seeds, strict=True):
        if task in chosen_tasks:
            subject += _ASK[task](recording, np.random.default_rng(seed))
    return subject


def vocabulary_corpus(n: int, seed: int) -> Iterator[str]:
    """`n` lines, questions and answers of synthetic recordings in turn, to train a tokenizer on."""
    index = 0
    while n > 0:
        rng = np.random.default_rng((seed, index, 1))
        lines = [
            line
            for q in questions(recording_at(seed, index), rng)
            for turn in q.turns
            for line in turn
        ]
        yield from lines[:n]
        n, index = n - len(lines), index + 1


# --- labels: PTB-XL, CPSC, CODE-15 ------------------------------------------------------------

LABEL_WORDS: Mapping[str, Mapping[str, str]] = {
    "ptb-test": SUPERCLASS,
    "cpsc-test": {"NORM": NORMAL, **{name: NAMES[name] for name in CPSC[1:]}},
    "code15-test": {
        **{name: NAMES["I-AVB" if name == "1dAVb" else name] for name in CODE15},
        "NORM": NORMAL,
        "ABNORMAL": "another abnormality",
    },
}
"""What each label means.

CODE-15's NORM and ABNORMAL stand where none of its six applies, as in ECGBench.
"""
LABEL_ASKS = (
    "Which of these labels apply to this ECG?",
    "Name every label that applies to this ECG image.",
    "Examine the ECG and identify all fitting labels from the list.",
    "Please determine the appropriate diagnosis for this ECG image from the options.",
)


def _label_question(task: str, labels: Sequence[str], rng: Rng) -> list[Question]:
    """The list with its meanings; the answer is labels alone, `none` where the list has nothing
    that applies.
    """
    words = LABEL_WORDS[task]
    listed = ", ".join(f"{label} ({meaning})" for label, meaning in words.items())
    text = f"{pick(rng, LABEL_ASKS)} {listed}. Only answer based on the given options without any explanation."
    return [Question(task, ((text, ", ".join(labels) or NONE),), tuple(labels), tuple(words))]


def _ptb(recording: Recording, rng: Rng) -> list[Question]:
    labels = recording.labels.ptbxl
    return (
        []
        if labels is None
        else _label_question("ptb-test", [x for x in PTBXL if x in labels], rng)
    )


def _cpsc(recording: Recording, rng: Rng) -> list[Question]:
    labels = recording.labels.cpsc
    return (
        []
        if labels is None
        else _label_question("cpsc-test", [x for x in CPSC if x in labels], rng)
    )


def _code15(recording: Recording, rng: Rng) -> list[Question]:
    labels, normal = recording.labels.code15, known(recording).normal
    if labels is None or (not labels and normal is None):
        return []
    return _label_question("code15-test", labels or (("NORM",) if normal else ("ABNORMAL",)), rng)


# --- one of several: CSN, G12EC, MMMU-ECG -----------------------------------------------------

CHOICE_ASKS = (
    "Which of the following diagnoses fits this ECG?",
    "What is the most likely diagnosis based on this ECG image?",
    "Which option does this ECG show?",
)
RHYTHM_WORDS = {
    "AF": NAMES["AF"],
    "SB": NAMES["SB"],
    "ST": NAMES["ST"],
    "SR": "normal sinus rhythm",
}


def _eight(task: str) -> Callable[[Recording, Rng], list[Question]]:
    """CSN and G12EC: one diagnosis that is there among seven that are not; the answer is letter and
    words.
    """

    def ask(recording: Recording, rng: Rng) -> list[Question]:
        certain = known(recording)
        right = [NAMES[name] for name in certain.present] or ([NORMAL] if certain.normal else [])
        wrong = [NAMES[name] for name in certain.absent] + (
            [NORMAL] if certain.normal is False else []
        )
        if not right or len(wrong) < 7:
            return []
        options = shuffled(rng, [pick(rng, right), *shuffled(rng, wrong)[:7]])
        at = next(i for i, option in enumerate(options) if option in right)
        text = (
            f"{pick(rng, CHOICE_ASKS)}\n{lettered(options)}\nAnswer with the letter and the option."
        )
        letter = LETTERS[at]
        return [Question(task, ((text, f"{letter}. {options[at]}"),), (letter,), tuple(options))]

    return ask


def _mmmu(recording: Recording, rng: Rng) -> list[Question]:
    """Four options about rhythm, rate, axis, conduction or territory; the answer is the letter
    alone.
    """
    able = [
        candidates
        for make in (_rhythm4, _rate4, _axis4, _conduction4, _place4)
        if (candidates := make(recording, rng))
    ]
    if not able:
        return []
    text, right, wrong = able[rng.integers(len(able))]
    options = shuffled(rng, [right, *wrong[:3]])
    letter = LETTERS[options.index(right)]
    subject = f"{text}\n{lettered(options)}\nAnswer with the option's letter."
    return [Question("mmmu-ecg", ((subject, letter),), (letter,), tuple(options))]


Four = tuple[str, str, list[str]]


def _rhythm4(recording: Recording, rng: Rng) -> Four | None:
    certain = known(recording)
    here = [name for name in ("AF", "SB", "ST") if name in certain.present]
    if (
        not here and recording.findings is None and not certain.normal
    ):  # flutter or a pacemaker have no label here
        return None
    right = here[0] if here else "SR"
    return (
        "What is the rhythm shown in this ECG?",
        RHYTHM_WORDS[right],
        _others(RHYTHM_WORDS, right),
    )


def _rate4(recording: Recording, rng: Rng) -> Four | None:
    value = recording.measurements.rate
    if value is None:
        return None
    step, below = rng.uniform(1.35, 1.5), rng.integers(4)
    steps = [round(value * step ** float(k - below)) for k in range(4)]
    words = [f"{bpm} bpm" for bpm in steps]
    return "What is the heart rate in this ECG?", words.pop(below), words


def _axis4(recording: Recording, rng: Rng) -> Four | None:
    value = recording.measurements.axis
    if value is None or min(abs(value + 30), abs(value - 90)) < AXIS_MARGIN:
        return None
    words = [
        "normal axis",
        "left axis deviation",
        "right axis deviation",
        "the axis cannot be told",
    ]
    right = say.axis_name(value)
    return "What is the axis in this ECG?", right, [w for w in words if w != right]


def _conduction4(recording: Recording, rng: Rng) -> Four | None:
    certain = known(recording)
    kinds = {name: NAMES[name] for name in ("LBBB", "RBBB", "LAFB", "I-AVB")}
    here = [name for name in kinds if name in certain.present]
    wrong = [kinds[name] for name in kinds if name in certain.absent] + ["normal conduction"]
    if len(here) != 1 or len(wrong) < 3:
        return None
    return "Which conduction disturbance does this ECG show?", kinds[here[0]], wrong


def _place4(recording: Recording, rng: Rng) -> Four | None:
    site = dict(recording.sites).get("STE")
    if site is None:
        return None
    words = ["inferior", "anterior", "lateral", "anterolateral"]
    return (
        "Where does this ECG show ST elevation?",
        f"{site} leads",
        [f"{w} leads" for w in words if w != site],
    )


def _others(words: Mapping[str, str], right: str) -> list[str]:
    return [text for name, text in words.items() if name != right]


# --- ECG-QA -----------------------------------------------------------------------------------

GROUPS: Mapping[str, tuple[str, ...]] = {
    "Which conduction disturbance does this ECG show?": ("I-AVB", "LBBB", "RBBB", "LAFB"),
    "Which premature beats does this ECG show?": ("PAC", "PVC"),
    "Which rhythm does this ECG show?": ("AF", "SB", "ST"),
    "Which ST or T changes does this ECG show?": ("STD", "STE", "TINV"),
    "Which of these diagnoses does this ECG show?": ("MI", "HYP", "AF", "LBBB", "RBBB"),
}


def _ecgqa(recording: Recording, rng: Rng) -> list[Question]:
    """Verify (yes or no), choose (which of two, both or none), query (all of a group)."""
    certain = known(recording)
    makers = [
        make for make in (_verify, _choose, _query) if make(certain, np.random.default_rng(0))
    ]
    if not makers:
        return []
    candidates = makers[rng.integers(len(makers))](certain, rng)
    assert candidates is not None
    text, options, right = candidates
    subject = f"{text} Options: {', '.join(options)} {ONLY_OPTIONS}"
    return [Question("ecgqa-test", ((subject, ", ".join(right)),), tuple(right), tuple(options))]


Choice = tuple[str, list[str], list[str]]


def _verify(certain: Known, rng: Rng) -> Choice | None:
    """Ask about one finding that is there or, as often, is not, where the recording allows it."""
    pools = [pool for pool in (_there(certain), _not_there(certain)) if pool]
    if not pools:
        return None
    at = int(rng.integers(len(pools)))
    here = pools[at] == _there(certain)
    return _whether(pick(rng, pools[at])), ["yes", "no"], ["yes" if here else "no"]


def _choose(certain: Known, rng: Rng) -> Choice | None:
    """Ask which of two findings is there: one, both or none."""
    if len(certain.absent) < 2:
        return None
    here = list(certain.present)
    count = min(len(here), int(rng.choice([0, 1, 2], p=[0.25, 0.55, 0.2])))
    pair = shuffled(
        rng, [*shuffled(rng, here)[:count], *shuffled(rng, list(certain.absent))[: 2 - count]]
    )
    right = [NAMES[name] for name in pair if name in here]
    first, second = (NAMES[name] for name in pair)
    return f"Which does this ECG show, {first} or {second}?", [first, second, NONE], right or [NONE]


def _query(certain: Known, rng: Rng) -> Choice | None:
    """Ask for all findings of a group; only groups whose findings are all known, preferably with
    some present.
    """
    able = [
        ask for ask, names in GROUPS.items() if set(names) <= {*certain.present, *certain.absent}
    ]
    if not able:
        return None
    full = [ask for ask in able if set(GROUPS[ask]) & set(certain.present)]
    ask = pick(rng, full if full and rng.random() < 0.7 else able)
    right = [NAMES[name] for name in GROUPS[ask] if name in certain.present]
    return ask, [*(NAMES[name] for name in GROUPS[ask]), NONE], right or [NONE]


def _there(certain: Known) -> list[str]:
    """Findings to ask about whose answer is yes; a recording without findings offers its normality."""
    return [NAMES[name] for name in certain.present] or ([NORMAL] if certain.normal else [])


def _not_there(certain: Known) -> list[str]:
    """Findings to ask about whose answer is no."""
    return [NAMES[name] for name in certain.absent] + ([NORMAL] if certain.normal is False else [])


# --- prose ------------------------------------------------------------------------------------

DESCRIBE_ASKS = (
    "Describe the rate and the rhythm of this ECG.",
    "What are the rate and the rhythm?",
)
INTERVAL_ASKS = (
    "Now describe the intervals and the axis.",
    "What are the intervals and the axis?",
)
DIAGNOSIS_ASKS = (
    "Given these findings, what is the diagnosis?",
    "What is the diagnosis?",
)


def _arena(recording: Recording, rng: Rng) -> list[Question]:
    """Two or three turns from the observations to the diagnosis."""
    observations = " ".join(filter(None, [say.rate(recording), say.rhythm(recording)]))
    turns = [(pick(rng, DESCRIBE_ASKS), observations)]
    if rng.random() < 0.5 and recording.measurements.qrs is not None:
        turns.append((pick(rng, INTERVAL_ASKS), say.conduction(recording)))
    turns.append((pick(rng, DIAGNOSIS_ASKS), say.diagnosis(recording)))
    return [Question("arena", tuple(turns))] if all(answer for _, answer in turns) else []


def _report(recording: Recording, rng: Rng) -> list[Question]:
    text = say.report(recording)
    return [Question("ptb-test-report", ((REPORT_QUESTION, text),))] if text else []


def _chat(recording: Recording, rng: Rng) -> list[Question]:
    """Two findings that are there and two that are not, as far as the recording has them, rhythm or
    axis, two measurements.
    """
    certain, pairs = known(recording), []
    for pool, yes in ((_there(certain), True), (_not_there(certain), False)):
        pairs += [(_whether(name), _plainly(name, yes)) for name in shuffled(rng, pool)[:2]]
    pairs += [
        (_whether(name), _plainly(name, yes)) for name, yes in _rhythm_or_axis(recording, rng)
    ]
    measured = _measured(recording)
    pairs += measured[:1] + shuffled(rng, measured[1:])[:1]
    order = rng.permutation(len(pairs))
    return [Question(CHAT, (pairs[i],)) for i in order]


def _rhythm_or_axis(recording: Recording, rng: Rng) -> list[tuple[str, bool]]:
    """A question about rhythm or axis.

    That fibrillation is not sinus rhythm is always asked, because few pages can show it.
    """
    if recording.findings is None:
        return []
    if "AF" in recording.findings:
        return [(SINUS, False)]
    certain = [] if recording.findings & {"SB", "ST"} else [(SINUS, True)]
    axis = recording.measurements.axis
    if axis is not None and min(abs(axis + 30), abs(axis - 90)) >= AXIS_MARGIN:
        certain += [("left axis deviation", axis < -30), ("right axis deviation", axis > 90)]
    return shuffled(rng, certain)[:1]


def _whether(name: str) -> str:
    return "Is this a normal ECG?" if name == NORMAL else f"Does this ECG show {name}?"


def _plainly(name: str, yes: bool) -> str:
    """Yes or no, and what it means."""
    if name == NORMAL:
        return "Yes, this is a normal ECG." if yes else "No, this is not a normal ECG."
    return f"Yes, this ECG shows {name}." if yes else f"No, this ECG does not show {name}."


def _measured(recording: Recording) -> list[tuple[str, str]]:
    """Rate first, then rhythm, PR, QRS, QT and axis, as far as they are known."""
    m, pairs = recording.measurements, []
    if m.rate is not None:
        pairs.append(("What is the heart rate?", f"The heart rate is {round(m.rate)} bpm."))
    if words := _rhythm4(recording, np.random.default_rng(0)):
        pairs.append(("What is the rhythm?", f"The rhythm is {words[1]}."))
    for name, value in (("PR interval", m.pr), ("QRS duration", m.qrs), ("QT interval", m.qt)):
        if value is not None:
            pairs.append((f"What is the {name}?", f"The {name} is {say.ten(value)} ms."))
    if m.pr is None and "AF" in (recording.findings or ()):
        pairs.append(
            ("What is the PR interval?", "There is no PR interval in atrial fibrillation.")
        )
    if m.axis is not None:
        pairs.append(
            (
                "What is the axis?",
                f"The axis is {say.ten(m.axis)} degrees, {say.axis_name(m.axis)}.",
            )
        )
    return pairs


_ASK: Mapping[str, Callable[[Recording, Rng], list[Question]]] = {
    "arena": _arena,
    "code15-test": _code15,
    "cpsc-test": _cpsc,
    "csn-test-no-cot": _eight("csn-test-no-cot"),
    "ecgqa-test": _ecgqa,
    "g12-test-no-cot": _eight("g12-test-no-cot"),
    "mmmu-ecg": _mmmu,
    "ptb-test": _ptb,
    "ptb-test-report": _report,
    CHAT: _chat,
}
