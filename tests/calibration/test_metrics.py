"""Scores on cases that a person can check, and the published scorer's numbers on made-up answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from calibration import metrics, published
from calibration.__main__ import cli
from calibration.diagnoses import diagnoses_in
from calibration.ecgbench import open_bench
from calibration.published import Answer
from calibration.score import ANSWERS, read_answers, score
from calibration.splits import Split
from pulse_edge.errors import BenchError

LETTERS = "ABCDEFGH"


# --- the published scorer ---------------------------------------------------------------------


def test_the_published_scorers_numbers_come_out_to_twelve_digits(shared: Path) -> None:
    folder = shared / "scorer"
    expected = json.loads((folder / "expected.json").read_text())
    scored = score(open_bench(folder / "ECGBench"), folder / "predictions", "published")["tasks"]
    assert scored.keys() == expected.keys()
    for task, numbers in expected.items():
        assert scored[task].keys() == numbers.keys()
        for name, value in numbers.items():
            assert scored[task][name] == pytest.approx(value, abs=1e-12), (task, name)


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("C", "C"),
        ("It is F. Not B.", "B"),
        ("The correct option is D", "D"),
        ("The correct option is not listed", None),
        ("Answer: option (H)", "H"),
        ("Answer: FAB", "A"),
        ("best described by option G", None),
    ],
)
def test_the_published_scorer_reads_letters_its_own_way(text: str, letter: str | None) -> None:
    assert published.letter(text) == letter


def test_the_published_scorer_finds_labels_inside_words() -> None:
    answers = [Answer("1", "", "ABNORMAL"), Answer("2", "", "MI")]
    result = published.score("ptb-test", {"1": "NORM", "2": "MI"}, answers)
    assert result == {"f1": 1.0, "auc": 1.0, "hamming_loss": 0.0}


def test_an_auc_that_the_published_scorer_cannot_tell_is_null() -> None:
    answers = [Answer("1", "", "MI"), Answer("2", "", "MI")]
    assert published.score("ptb-test", {"1": "MI", "2": "MI"}, answers) == {
        "f1": 1.0,
        "auc": None,
        "hamming_loss": 0.0,
    }


def test_the_published_scorer_accepts_only_complete_files() -> None:
    result = published.score("mmmu-ecg", {"1": "A"}, [Answer("1", "", "A")])
    assert result == "has 1 answers; the published scorer accepts exactly 200"


# --- reading answers --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("The labels are: AF, PVC.", ("AF", "PVC")),
        ("af; rbbb(right bundle branch block)", ("AF", "RBBB")),
        ("ABNORMAL", None),
        ("STANDARD lead placement", None),
        ("Reasoning: no RBBB here.\nAnswer: AF", ("AF",)),
        ("none", ()),
        ("", None),
    ],
)
def test_labels_are_read_as_words_in_any_case(text: str, labels: tuple[str, ...] | None) -> None:
    assert metrics.read_labels(text, ("NORM", "AF", "RBBB", "PVC", "STD")) == labels


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("E", "E"),
        ("e.", "E"),
        ("(C)", "C"),
        ("B. right bundle branch block", "B"),
        ("b) sinus rhythm", "B"),
        ("Answer: option (E)", "E"),
        ("answer: d", "D"),
        ("The correct option is G.", "G"),
        ("The finding is best described by option H.", "H"),
        ("It is F. Not B.", "F"),
        ("The correct option is not listed", None),
        ("A normal ECG", None),
        ("Either B or C", None),
        ("sinus rhythm with no option chosen", None),
        ("", None),
    ],
)
def test_a_letter_is_read_only_where_one_is_chosen(text: str, letter: str | None) -> None:
    assert metrics.read_letter(text, LETTERS) == letter


def test_a_letter_beyond_the_options_is_none() -> None:
    assert metrics.read_letter("F", "ABCD") is None


def test_options_are_read_as_whole_phrases_and_not_inside_one_another() -> None:
    offered = ("infarction", "old Infarction", "no", "none")
    assert metrics.read_options("Old infarction.", offered) == {"old infarction"}
    assert metrics.read_options("None of these", offered) == {"none"}
    assert metrics.read_options("not sure", offered) is None


# --- numbers ----------------------------------------------------------------------------------


def test_label_scores_of_four_answers_by_hand() -> None:
    gold = [("AF",), ("AF", "PVC"), ("PVC",), ()]
    answer_ = [("AF",), ("AF",), ("AF", "PVC"), ()]
    result = metrics.label_scores(gold, answer_, ("AF", "PVC", "STD"))
    assert result["f1"] == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert result["auc"] == pytest.approx(((1 + 1 / 2) / 2 + (1 / 2 + 1) / 2) / 2)
    assert result["hamming_loss"] == pytest.approx(2 / 12)
    assert result["exact"] == 0.5
    assert result["labels_without_samples"] == ["STD"]


def test_an_unreadable_answer_is_wrong_in_every_label() -> None:
    result = metrics.label_scores([("AF",), ("PVC",)], [None, ("PVC",)], ("AF", "PVC"))
    assert result["hamming_loss"] == 0.5
    assert result["f1"] == pytest.approx((0 + 2 / 3) / 2)


def test_rouge_l_by_hand() -> None:
    assert metrics.rouge_l("Sinus rhythm. Normal ECG.", "sinus rhythm normal ecg") == 1.0
    assert metrics.rouge_l("a b c d", "a c e") == pytest.approx(2 * 2 / 7)
    assert metrics.rouge_l("a b", "") == 0.0


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Sinus rhythm. Normal ECG.", {"sinus rhythm", "normal ECG"}),
        ("Abnormal ECG.", set()),
        ("No atrial fibrillation, ST elevation or old infarction.", set()),
        ("No acute changes, left bundle branch block.", {"left bundle branch block"}),
        (
            "Sinus rhythm without ST depression but with PVCs.",
            {"sinus rhythm", "premature ventricular contractions"},
        ),
        ("Infarction cannot be excluded.", {"infarction"}),
        ("Atrial fibrillation is not seen.", set()),
        ("No change in the LBBB.", {"left bundle branch block"}),
        ("Incomplete right bundle branch block.", {"incomplete right bundle branch block"}),
        ("Supraventricular extrasystoles.", {"premature atrial contractions"}),
        (
            "ST segments are depressed in V5 and V6; the PR interval is prolonged.",
            {"ST depression", "first-degree AV block"},
        ),
        (
            "Possible LVH with left axis deviation.",
            {"left ventricular hypertrophy", "left axis deviation"},
        ),
    ],
)
def test_a_report_affirms_what_it_does_not_negate(text: str, names: set[str]) -> None:
    assert diagnoses_in(text) == names


def test_the_synthetic_reports_affirm_what_they_show() -> None:
    from calibration.synthetic import recording_at
    from calibration.synthetic.sentences import NAMES, report

    words = {
        **{name: NAMES[name] for name in NAMES},
        "HYP": "left ventricular hypertrophy",
        "MI": "infarction",
    }
    for index in range(60):
        recording = recording_at(2, index)
        assert {words[name] for name in recording.findings or ()} <= diagnoses_in(report(recording))


def test_prose_scores_of_two_reports_by_hand() -> None:
    result = metrics.prose_scores(
        ["Sinus rhythm. LVH.", "Atrial fibrillation."], ["Sinus rhythm.", "No atrial fibrillation."]
    )
    assert result["diagnosis_f1"] == pytest.approx((1 + 0 + 0) / 3)
    assert result["diagnosis_micro_f1"] == pytest.approx(2 * 1 / (3 + 1))
    assert result["rouge_l"] == pytest.approx((4 / 5 + 4 / 5) / 2)


# --- a run ------------------------------------------------------------------------------------


def bench(
    folder: Path, task: str, golds: dict[str, Any], question: Any = "<image>\nWhich?"
) -> Path:
    rows = [
        {"id": name, "image": "a.png", "conversations": [{"value": question}, {"value": gold}]}
        for name, gold in golds.items()
    ]
    (folder / f"{task}.json").write_text(json.dumps(rows))
    return folder


def answer(folder: Path, task: str, lines: list[dict[str, Any]]) -> Path:
    path = folder / "run" / task / ANSWERS
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "run"


def test_missing_unreadable_and_foreign_answers_are_counted_and_wrong(tmp_path: Path) -> None:
    bench(
        tmp_path, "csn-test-no-cot", {"1": "A. one", "2": "B. two", "3": "C. three", "4": "D. four"}
    )
    lines = [
        {"question_id": "1", "text": "B"},
        {"question_id": "1", "text": "A"},
        {"id": "2", "response": "unclear"},
        {"question_id": "3", "text": "c. three"},
        {"question_id": "9", "text": "A"},
    ]
    scored = score(open_bench(tmp_path), answer(tmp_path, "csn-test-no-cot", lines))
    assert scored["tasks"]["csn-test-no-cot"] == {
        "accuracy": 0.5,
        "unparsable": 1,
        "samples": 4,
        "missing": 1,
        "repeated": 1,
        "outside": 1,
    }


def test_golds_that_cannot_be_used_are_left_out_and_said(tmp_path: Path) -> None:
    golds = {"1": "Sinus rhythm.", "2": "Sure, please provide the ECG report you want translated."}
    bench(tmp_path, "ptb-test-report", golds)
    lines = [{"question_id": name, "text": "Sinus rhythm."} for name in golds]
    scored = score(open_bench(tmp_path), answer(tmp_path, "ptb-test-report", lines))
    assert scored["tasks"]["ptb-test-report"]["samples"] == 1
    assert scored["tasks"]["ptb-test-report"]["rouge_l"] == 1.0
    assert scored["left_out"] == ["ptb-test-report 2: its report is a refused translation"]


def test_only_the_test_ids_of_a_split_count(tmp_path: Path) -> None:
    bench(tmp_path, "mmmu-ecg", {"1": "A", "2": "B"})
    run = answer(
        tmp_path, "mmmu-ecg", [{"question_id": "1", "text": "A"}, {"question_id": "2", "text": "C"}]
    )
    only = Split("k", 0.5, {"mmmu-ecg": ("2",)}, {"mmmu-ecg": ("1",)}, "")
    assert score(open_bench(tmp_path), run, only=only)["tasks"]["mmmu-ecg"]["accuracy"] == 1.0


def test_the_arenas_answers_are_a_list_of_turns(tmp_path: Path) -> None:
    turns = [
        {"question": "Rhythm?", "answer": "Sinus rhythm."},
        {"question": "Diagnosis?", "answer": "LVH."},
    ]
    (tmp_path / "arena.json").write_text(
        json.dumps([{"id": "1", "image": "a.png", "conversations": turns}])
    )
    run = answer(tmp_path, "arena", [{"question_id": "1", "text": ["Sinus rhythm.", "LVH."]}])
    assert score(open_bench(tmp_path), run)["tasks"]["arena"]["diagnosis_f1"] == 1.0


@pytest.mark.parametrize(
    "line",
    ['{"question_id": "2", "te', '{"text": "A"}', '{"question_id": "2", "text": null}', "[]"],
)
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / ANSWERS
    path.write_text('{"question_id": "1", "text": "A"}\n' + line)
    with pytest.raises(BenchError, match="line 2 is no answer"):
        read_answers(path)


def test_answers_to_other_questions_are_refused(tmp_path: Path) -> None:
    bench(tmp_path, "mmmu-ecg", {"1": "A"})
    run = answer(tmp_path, "mmmu-ecg", [{"question_id": "x", "text": "A"}])
    with pytest.raises(BenchError, match="no answer belongs to a question of mmmu-ecg"):
        score(open_bench(tmp_path), run)


def test_the_command_writes_the_scores_and_tells_what_it_did_not_score(tmp_path: Path) -> None:
    bench(tmp_path, "mmmu-ecg", {"1": "A"})
    bench(tmp_path, "cpsc-test", {"1": "AF"})
    run, out = (
        answer(tmp_path, "mmmu-ecg", [{"question_id": "1", "text": "A"}]),
        tmp_path / "scores.json",
    )
    arguments = ["score", "--bench", str(tmp_path), "--predictions", str(run), "-o", str(out)]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    assert "mmmu-ecg: accuracy 1" in done.stderr
    assert "cpsc-test: not scored" in done.stderr
    assert json.loads(out.read_text())["tasks"]["mmmu-ecg"]["accuracy"] == 1.0


def test_perfect_answers_to_a_synthetic_bench_score_perfectly(tmp_path: Path) -> None:
    from calibration.synthesize import Plan, synthesize

    synthesize(tmp_path / "bench", Plan(40, 11))
    opened, problems = open_bench(tmp_path / "bench"), list[Any]()
    for task in opened.tasks:
        lines = [
            {
                "question_id": s.id,
                "prompt": s.turns[0][0],
                "text": [a for _, a in s.turns] if task == "arena" else s.turns[0][1],
            }
            for s in opened.samples(task, problems.append, pictures=False)
        ]
        answer(tmp_path, task, lines)
    scored = score(opened, tmp_path / "run")
    assert problems == []
    assert scored["not_scored"] == {}
    for task, result in scored["tasks"].items():
        assert result.get("accuracy", result.get("exact", result.get("rouge_l"))) == 1.0, task
        assert result.get("unparsable", 0) == result["missing"] == 0
    published_scores = score(opened, tmp_path / "run", "published")["tasks"]
    assert published_scores["ecgqa-test"] == {"accuracy": 1.0}
    assert published_scores["ptb-test"]["f1"] == published_scores["code15-test"]["f1"] == 1.0
