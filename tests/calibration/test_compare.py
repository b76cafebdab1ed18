"""Figures of given answers that a person can check."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from given_results import CHOICE_TASK, answer, choices, results, two_kits

from calibration import compare
from calibration.bootstrap import Estimate, draws, mcnemar, rank_auc
from calibration.ecgbench import open_bench
from calibration.judging import judge, scores, stated_rate
from calibration.published import Answer
from calibration.report.write import report
from calibration.results import Results
from calibration.score import score_task
from pulse_edge.errors import BenchError


def test_flips_are_counted_both_ways_with_mcnemars_p(tmp_path: Path) -> None:
    figures = compare.compare(Results(two_kits(tmp_path, "AAAABBBB", "ABBBABBB")))
    task = figures.kits["q4"].tasks[CHOICE_TASK]
    assert task.lost == tuple(f"{CHOICE_TASK} {n}" for n in (1, 2, 3))
    assert task.gained == (f"{CHOICE_TASK} 4",)
    assert task.changes is not None
    assert task.changes.mcnemar_p == pytest.approx(2 * (1 + 4) / 16)
    assert task.scores["accuracy"].value == 0.25
    assert task.scores["accuracy"].difference is not None
    assert task.scores["accuracy"].difference.value == -0.25


@pytest.mark.parametrize(
    ("lost", "gained", "p"), [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 2 / 32), (10, 1, 24 / 2048)]
)
def test_mcnemars_p_by_hand(lost: int, gained: int, p: float) -> None:
    assert mcnemar(lost, gained) == mcnemar(gained, lost) == pytest.approx(p)


def test_a_bootstrap_interval_is_that_of_the_binomial() -> None:
    judged = judge(
        CHOICE_TASK,
        [answer(CHOICE_TASK, n, line) for n, line in enumerate(choices("A" * 300 + "B" * 100))],
    )
    drawn = scores(judged, draws([str(n) for n in range(400)]))["accuracy"]
    assert drawn[0] == 0.75
    assert np.std(drawn[1:]) == pytest.approx(math.sqrt(0.75 * 0.25 / 400), rel=0.1)


def test_equal_answers_have_no_difference_in_any_draw(tmp_path: Path) -> None:
    figures = compare.compare(Results(two_kits(tmp_path, "AABB", "AABB")))
    difference = figures.kits["q4"].tasks[CHOICE_TASK].scores["accuracy"].difference
    assert difference == Estimate(0.0, (0.0, 0.0))


def test_a_patients_pages_are_drawn_together() -> None:
    w = draws(["patient 1", "patient 2", "patient 1"])
    assert (w[0] == 1).all()
    assert (w[:, 0] == w[:, 2]).all()
    assert (w[1:, 0] + w[1:, 1] == 2).all()


def test_auc_of_probabilities_by_hand() -> None:
    chance = np.array([0.9, 0.4, 0.4, 0.1])
    gold = np.array([True, True, False, False])
    assert rank_auc(chance, gold, np.ones((1, 4)))[0] == pytest.approx((2 + 1.5) / 4)
    assert rank_auc(chance, gold, np.array([[1.0, 2, 1, 1]]))[0] == pytest.approx((2 + 3) / 6)
    assert np.isnan(rank_auc(chance, gold, np.array([[1.0, 1, 0, 0]]))[0])


@pytest.mark.parametrize("task", ["cpsc-test", "ptb-test-report", "mmmu-ecg", "ecgqa-test"])
def test_scores_are_those_of_the_score_command(
    task: str, synthetic_bench: Path, tmp_path: Path
) -> None:
    samples = list(open_bench(synthetic_bench).samples(task, lambda _: None, pictures=False))
    texts = [samples[(n + n % 3) % len(samples)].turns[0][1] for n in range(len(samples))]
    lines = [
        answer(
            task,
            n,
            {
                "gold": s.turns[0][1],
                "text": text,
                "prompt": s.turns[0][0],
                "chosen": list(s.chosen),
            },
        )
        for n, (s, text) in enumerate(zip(samples, texts, strict=True))
    ]
    ours = scores(judge(task, lines), np.ones((1, len(lines))))
    answers = [Answer(s.id, "", text) for s, text in zip(samples, texts, strict=True)]
    theirs = score_task(task, tmp_path, samples, answers, [])
    assert isinstance(theirs, dict)
    shared = ours.keys() & theirs.keys()
    assert shared
    for name in shared:
        assert ours[name][0] == pytest.approx(theirs[name]), name


def test_sensitivity_and_specificity_change_where_a_kit_misses_a_diagnosis(tmp_path: Path) -> None:
    gold = [{"gold": label} for label in ("AF", "AF", "PVC", "none")]
    right = [line | {"text": line["gold"]} for line in gold]
    wrong = [*right[:1], gold[1] | {"text": "PVC"}, *right[2:]]
    folder = results(tmp_path / "r", {"f16": {"cpsc-test": right}, "q4": {"cpsc-test": wrong}})
    diagnoses = compare.compare(Results(folder)).kits["q4"].tasks["cpsc-test"].diagnoses
    sensitivity, specificity = diagnoses["AF"].sensitivity, diagnoses["AF"].specificity
    assert sensitivity.difference is not None
    assert sensitivity.difference.value == -0.5
    assert specificity.difference is not None
    assert specificity.difference.value == 0
    assert diagnoses["PVC"].specificity.value == pytest.approx(2 / 3)
    assert "STE" not in diagnoses


def test_divergence_and_perplexity_over_all_tokens(tmp_path: Path) -> None:
    folder = two_kits(tmp_path, "AB", "AB", kld=[0.1, 0.3], same=[1, 0])
    kit = compare.compare(Results(folder)).kits["q4"]
    assert kit.kld is not None
    assert kit.kld.tokens == 4
    assert kit.kld.mean.value == pytest.approx(0.2)
    assert kit.kld.quantiles["1.0"] == pytest.approx(0.3)
    assert kit.same_top is not None
    assert kit.same_top.value == 0.5
    assert kit.gold_perplexity.value == pytest.approx(math.exp(0.5))


def test_the_rate_and_cpscs_labels_are_read_from_reports(tmp_path: Path) -> None:
    facts = {"cpsc": ["AF"], "rate": 72.4}
    texts = (
        "Ventricular rate 70 bpm. Atrial fibrillation.",
        "Ventricular rate 90 bpm. Normal ECG.",
    )
    lines = [{"gold": texts[0], "text": text, "facts": facts} for text in texts]
    folder = results(tmp_path / "r", {"f16": {"ptb-test-report": lines}})
    of_task = compare.compare(Results(folder)).kits["f16"].tasks["ptb-test-report"].scores
    assert of_task["rate_within_5"].value == 0.5
    assert of_task["cpsc_f1"].value == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("text", "rate"),
    [("Rate 72 bpm.", 72), ("a rate of 101 beats per minute", 101), ("QRS 90 ms", None)],
)
def test_a_rate_is_read_with_its_unit(text: str, rate: int | None) -> None:
    assert stated_rate(text) == rate


def test_questions_that_not_all_kits_have_answered_are_left_out_and_reported(
    tmp_path: Path,
) -> None:
    lines = choices("AAB")
    folder = results(tmp_path / "r", {"f16": {CHOICE_TASK: lines}, "q4": {CHOICE_TASK: lines[:2]}})
    figures = compare.compare(Results(folder))
    assert figures.kits["f16"].tasks[CHOICE_TASK].questions == 2
    assert figures.incomplete == (
        f"{CHOICE_TASK}: 1 questions are left out, not answered yet by q4.",
    )


def test_results_without_answers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="has no answers"):
        compare.compare(Results(results(tmp_path / "r", {"f16": {}})))
    with pytest.raises(BenchError, match=r"run\.json: cannot be read"):
        compare.compare(Results(tmp_path))


@pytest.mark.parametrize("what", ["folders", "records", "answers"])
def test_results_that_have_changed_places_are_noticed(what: str, tmp_path: Path) -> None:
    folder = two_kits(tmp_path, "AAAA", "ABBB")
    part = {"folders": "", "records": "kit.json", "answers": CHOICE_TASK}[what]
    (folder / "f16" / part).rename(tmp_path / "away")
    (folder / "q4" / part).rename(folder / "f16" / part)
    (tmp_path / "away").rename(folder / "q4" / part)
    with pytest.raises(BenchError, match=r"rename the folder back|given by another kit"):
        report(folder, tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_answers_that_name_no_kit_are_reported(tmp_path: Path) -> None:
    folder = two_kits(tmp_path, "AAAA", "ABBB")
    answers = folder / "q4" / CHOICE_TASK / "step-final.jsonl"
    lines = [json.loads(line) for line in answers.read_text().splitlines()]
    answers.write_text(
        "".join(json.dumps({k: v for k, v in line.items() if k != "kit"}) + "\n" for line in lines)
    )
    figures = report(folder, tmp_path / "report")
    assert any(text.startswith("q4: 4 answers do not say which kit") for text in figures.limits)
