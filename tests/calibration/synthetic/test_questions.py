"""Questions about synthetic and recorded ECGs: right, seeded, parsable, and no more than is known."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from calibration.ecgbench import ONLY_OPTIONS
from calibration.synthetic import Labels, Recording, recording_at
from calibration.synthetic.findings import CODE15, CPSC, PTBXL
from calibration.synthetic.question import Question
from calibration.synthetic.questions import (
    BENCH,
    TASKS,
    questions,
    vocabulary_corpus,
)
from calibration.synthetic.recording import UNKNOWN
from calibration.synthetic.sentences import NAMES, axis_name, known

RECORDINGS = [recording_at(8, i) for i in range(150)]


def ask(recording: Recording, *tasks: str, seed: int = 0) -> list[Question]:
    return questions(recording, np.random.default_rng(seed), tasks or TASKS)


def real(
    cpsc: tuple[str, ...] | None, code15: tuple[str, ...] | None, ptbxl: tuple[str, ...] | None
) -> Recording:
    labels = Labels(cpsc, code15, ptbxl)
    return replace(
        RECORDINGS[0], findings=None, sites=(), beats=(), measurements=UNKNOWN, labels=labels
    )


def test_the_same_seed_gives_the_same_questions_whatever_else_is_asked() -> None:
    for recording in RECORDINGS[:20]:
        everything = ask(recording, seed=3)
        assert everything == ask(recording, seed=3)
        assert ask(recording, "mmmu-ecg", seed=3) == [q for q in everything if q.task == "mmmu-ecg"]


def test_every_task_is_asked_and_label_tasks_of_every_record() -> None:
    counts = Counter(q.task for recording in RECORDINGS for q in ask(recording))
    assert set(counts) == set(TASKS)
    for task in ("ptb-test", "cpsc-test", "code15-test", "ptb-test-report", "arena", "ecgqa-test"):
        assert counts[task] == len(RECORDINGS)


@pytest.mark.parametrize(
    ("task", "space"), [("ptb-test", PTBXL), ("cpsc-test", CPSC), ("code15-test", CODE15)]
)
def test_label_answers_are_the_labels_in_the_order_of_their_list(
    task: str, space: tuple[str, ...]
) -> None:
    for recording in RECORDINGS:
        (question,) = ask(recording, task)
        words = question.turns[0][1].split(", ")
        assert words == (list(question.labels or ()) or ["none"])
        assert words == sorted(words, key=[*space, "NORM", "ABNORMAL", "none"].index)
        assert all(f"{label} (" in question.turns[0][0] for label in space)


@pytest.mark.parametrize("task", ["csn-test-no-cot", "g12-test-no-cot"])
def test_exactly_one_of_eight_options_is_right(task: str) -> None:
    for seed, recording in enumerate(RECORDINGS):
        for question in ask(recording, task, seed=seed):
            text, answer = question.turns[0]
            shown = {NAMES[name] for name in recording.findings or ()} or {"normal ECG"}
            assert len(set(question.options)) == 8
            assert [option for option in question.options if option in shown] == [answer[3:]]
            assert answer in text.split("\n")
            assert question.labels == (answer[0],)


def test_multiple_choice_of_four_is_answered_by_a_letter_and_rates_by_the_right_one() -> None:
    letters: Counter[str] = Counter()
    for seed, recording in enumerate(RECORDINGS):
        for question in ask(recording, "mmmu-ecg", seed=seed):
            text, letter = question.turns[0]
            letters[letter] += 1
            chosen = question.options["ABCD".index(letter)]
            assert f"{letter}. {chosen}" in text.split("\n")
            if "rate" in text:
                assert chosen == f"{round(recording.measurements.rate or 0)} bpm"
    assert min(letters[letter] for letter in "ABCD") > 0.15 * sum(letters.values())


def test_ecgqa_answers_are_among_the_options_as_the_published_scorer_reads_them() -> None:
    for seed, recording in enumerate(RECORDINGS):
        (question,) = ask(recording, "ecgqa-test", seed=seed)
        read = question.turns[0][0].split("Options:")[1].replace(ONLY_OPTIONS, "").split(",")
        assert tuple(option.strip() for option in read) == question.options
        assert question.labels
        assert set(question.labels) <= set(question.options)


def test_yes_and_no_are_right_and_balanced() -> None:
    counts: Counter[bool] = Counter()
    for seed, recording in enumerate(RECORDINGS):
        shown = {NAMES[name] for name in recording.findings or ()} or {"normal ECG"}
        shown |= set() if "AF" in (recording.findings or ()) else {"sinus rhythm"}
        shown |= (
            set()
            if recording.measurements.axis is None
            else {axis_name(recording.measurements.axis)}
        )
        for question in ask(recording, "chat", seed=seed):
            if options_ := re.fullmatch(
                r"(?:Does this ECG show|Is this a) (.+)\?", question.turns[0][0]
            ):
                yes = question.turns[0][1].startswith("Yes, ")
                assert yes == (options_[1] in shown)
                counts[yes] += 1
    assert 0.4 < counts[True] / counts.total() < 0.6


def test_what_a_reader_could_see_without_a_label_is_never_denied() -> None:
    for recording in RECORDINGS:
        if "LBBB" in (recording.findings or ()):
            assert not {"STE", "STD", "TINV", "MI", "HYP"} & {
                *known(recording).present,
                *known(recording).absent,
            }


def test_a_report_begins_with_the_rate_and_ends_with_the_verdict() -> None:
    for recording in RECORDINGS:
        (question,) = ask(recording, "ptb-test-report")
        text, normal = question.turns[0][1], not recording.findings
        assert text.startswith(f"Ventricular rate {round(recording.measurements.rate or 0)} bpm. ")
        assert text.endswith(" Normal ECG.") == normal
        assert text.endswith("Abnormal ECG.") == (not (recording.findings or set()) <= {"SB", "ST"})
        for name in {"AF", "I-AVB", "LBBB", "RBBB", "LAFB", "PAC", "PVC", "SB", "ST"} & (
            recording.findings or set()
        ):
            assert NAMES[name].lower() in text.lower()


def test_arena_ends_with_the_diagnosis_after_one_or_two_turns() -> None:
    for recording in RECORDINGS:
        (question,) = ask(recording, "arena")
        assert len(question.turns) in (2, 3)
        assert all(a and q for q, a in question.turns)
        assert "diagnosis" in question.turns[-1][0]


def test_a_real_record_gets_only_what_its_labels_answer() -> None:
    assert [q.task for q in ask(real(None, None, None))] == []
    assert {q.task for q in ask(real(None, None, ("HYP",)))} == {
        "ptb-test",
        "ptb-test-report",
        "chat",
        "ecgqa-test",
    }
    (report,) = ask(real((), (), ("MI",)), "ptb-test-report")
    assert report.turns[0][1] == "Myocardial infarction. Abnormal ECG."


def test_a_real_record_without_a_rhythm_label_is_not_called_sinus_rhythm() -> None:
    assert not any(
        "normal sinus rhythm" in a for q in ask(real((), (), ("MI",))) for _, a in q.turns
    )


def test_none_of_code15s_six_is_called_normal_or_abnormal_where_that_is_known() -> None:
    def answer(recording: Recording) -> list[str]:
        return [q.turns[0][1] for q in ask(recording, "code15-test")]

    assert answer(real(("NORM",), (), ("NORM",))) == ["NORM"]
    assert answer(real((), (), ("MI",))) == ["ABNORMAL"]
    assert answer(real((), (), ())) == []
    assert answer(real((), ("SB",), ())) == ["SB"]


def test_an_unknown_task_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="cpsc2018"):
        ask(RECORDINGS[0], "cpsc2018")


def test_the_vocabulary_is_small_seeded_and_as_long_as_asked() -> None:
    lines = list(vocabulary_corpus(3000, 1))
    assert len(lines) == 3000
    assert lines[:50] == list(vocabulary_corpus(50, 1))
    words = {word for line in lines for word in re.findall(r"[A-Za-z]+", line)}
    assert len(words) < 300
    assert set(BENCH) < set(TASKS)
