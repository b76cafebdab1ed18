"""Figures of made-up answers that a person can check, the report that is made of them, and the report in the kit."""

from __future__ import annotations

import json
import math
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from made_up import results, whole

from calibration import compare, into_kit
from calibration.__main__ import cli
from calibration.compare import draws, judge, mcnemar, rank_auc, said_rate, scores
from calibration.ecgbench import open_bench
from calibration.published import Answer
from calibration.report import load_gates, report
from calibration.report_html import Point, draw, frontier
from calibration.results import Results, identity
from calibration.score import score_task
from pulse_edge.errors import BenchError, KitError, UsageError
from pulse_edge.kit.kit import open_kit
from pulse_edge.kit.verify import verify

TASK = "csn-test-no-cot"


def choices(text: str) -> list[dict[str, Any]]:
    """Answers to questions whose right answer is A."""
    return [{"gold": "A. one", "text": letter} for letter in text]


def two(folder: Path, reference: str, other: str, **turn: Any) -> Path:
    lines = [line | {"turn": turn} for line in choices(other)]
    return results(folder / "results", {"f16": {TASK: choices(reference)}, "q4": {TASK: lines}})


@pytest.mark.parametrize("what", ["folders", "records", "answers"])
def test_results_that_have_changed_places_are_noticed(what: str, tmp_path: Path) -> None:
    folder = two(tmp_path, "AAAA", "ABBB")
    part = {"folders": "", "records": "kit.json", "answers": TASK}[what]
    (folder / "f16" / part).rename(tmp_path / "away")
    (folder / "q4" / part).rename(folder / "f16" / part)
    (tmp_path / "away").rename(folder / "q4" / part)
    with pytest.raises(BenchError, match=r"rename the folder back|given by another kit"):
        report(folder, tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_answers_that_name_no_kit_are_said_to_be_unbound(tmp_path: Path) -> None:
    folder = two(tmp_path, "AAAA", "ABBB")
    answers = folder / "q4" / TASK / "step-final.jsonl"
    lines = [json.loads(line) for line in answers.read_text().splitlines()]
    answers.write_text(
        "".join(json.dumps({k: v for k, v in line.items() if k != "kit"}) + "\n" for line in lines)
    )
    figures = report(folder, tmp_path / "report")
    assert any(
        text.startswith("q4: 4 answers do not say which kit") for text in figures["not_known"]
    )


# --- figures ----------------------------------------------------------------------------------------------------------


def test_flips_are_counted_both_ways_with_mcnemars_p(tmp_path: Path) -> None:
    figures = compare.compare(Results(two(tmp_path, "AAAABBBB", "ABBBABBB")))
    task = figures["kits"]["q4"]["tasks"][TASK]
    assert task["lost"] == [f"{TASK} {n}" for n in (1, 2, 3)]
    assert task["gained"] == [f"{TASK} 4"]
    assert task["mcnemar_p"] == pytest.approx(2 * (1 + 4) / 16)
    assert task["scores"]["accuracy"]["value"] == 0.25
    assert task["scores"]["accuracy"]["difference"]["value"] == -0.25


@pytest.mark.parametrize(
    ("lost", "gained", "p"), [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 2 / 32), (10, 1, 24 / 2048)]
)
def test_mcnemars_p_by_hand(lost: int, gained: int, p: float) -> None:
    assert mcnemar(lost, gained) == mcnemar(gained, lost) == pytest.approx(p)


def test_a_bootstrap_interval_is_that_of_the_binomial() -> None:
    judged = judge(
        TASK, [whole(TASK, n, line) for n, line in enumerate(choices("A" * 300 + "B" * 100))]
    )
    drawn = scores(judged, draws([str(n) for n in range(400)]))["accuracy"]
    assert drawn[0] == 0.75
    assert np.std(drawn[1:]) == pytest.approx(math.sqrt(0.75 * 0.25 / 400), rel=0.1)


def test_equal_answers_have_no_difference_in_any_draw(tmp_path: Path) -> None:
    figures = compare.compare(Results(two(tmp_path, "AABB", "AABB")))
    difference = figures["kits"]["q4"]["tasks"][TASK]["scores"]["accuracy"]["difference"]
    assert difference == {"value": 0.0, "interval": [0.0, 0.0]}


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


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from calibration.synthesize import Plan, synthesize

    folder = tmp_path_factory.mktemp("bench") / "bench"
    synthesize(folder, Plan(12, 3))
    return folder


@pytest.mark.parametrize("task", ["cpsc-test", "ptb-test-report", "mmmu-ecg", "ecgqa-test"])
def test_scores_are_those_of_the_score_command(task: str, bench: Path, tmp_path: Path) -> None:
    samples = list(open_bench(bench).samples(task, lambda _: None, pictures=False))
    said = [samples[(n + n % 3) % len(samples)].turns[0][1] for n in range(len(samples))]
    lines = [
        whole(
            task,
            n,
            {
                "gold": s.turns[0][1],
                "text": text,
                "prompt": s.turns[0][0],
                "chosen": list(s.chosen),
            },
        )
        for n, (s, text) in enumerate(zip(samples, said, strict=True))
    ]
    ours = scores(judge(task, lines), np.ones((1, len(lines))))
    answers = [Answer(s.id, "", text) for s, text in zip(samples, said, strict=True)]
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
    found = compare.compare(Results(folder))["kits"]["q4"]["tasks"]["cpsc-test"]["diagnoses"]
    assert found["AF"]["sensitivity"]["difference"]["value"] == -0.5
    assert found["AF"]["specificity"]["difference"]["value"] == 0
    assert found["PVC"]["specificity"]["value"] == pytest.approx(2 / 3)
    assert "STE" not in found


def test_divergence_and_perplexity_over_all_tokens(tmp_path: Path) -> None:
    folder = two(tmp_path, "AB", "AB", kld=[0.1, 0.3], same=[1, 0])
    kit = compare.compare(Results(folder))["kits"]["q4"]
    assert kit["kld"]["tokens"] == 4
    assert kit["kld"]["mean"]["value"] == pytest.approx(0.2)
    assert kit["kld"]["quantiles"]["1.0"] == pytest.approx(0.3)
    assert kit["same_top"]["value"] == 0.5
    assert kit["gold_perplexity"]["value"] == pytest.approx(math.exp(0.5))


def test_the_rate_and_cpscs_labels_are_read_from_reports(tmp_path: Path) -> None:
    facts = {"cpsc": ["AF"], "rate": 72.4}
    texts = (
        "Ventricular rate 70 bpm. Atrial fibrillation.",
        "Ventricular rate 90 bpm. Normal ECG.",
    )
    lines = [{"gold": texts[0], "text": text, "facts": facts} for text in texts]
    folder = results(tmp_path / "r", {"f16": {"ptb-test-report": lines}})
    found = compare.compare(Results(folder))["kits"]["f16"]["tasks"]["ptb-test-report"]["scores"]
    assert found["rate_within_5"]["value"] == 0.5
    assert found["cpsc_f1"]["value"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("text", "rate"),
    [("Rate 72 bpm.", 72), ("a rate of 101 beats per minute", 101), ("QRS 90 ms", None)],
)
def test_a_rate_is_read_with_its_unit(text: str, rate: int | None) -> None:
    assert said_rate(text) == rate


def test_questions_that_not_all_kits_have_answered_are_left_out_and_said(tmp_path: Path) -> None:
    lines = choices("AAB")
    folder = results(tmp_path / "r", {"f16": {TASK: lines}, "q4": {TASK: lines[:2]}})
    figures = compare.compare(Results(folder))
    assert figures["kits"]["f16"]["tasks"][TASK]["questions"] == 2
    assert figures["incomplete"] == [f"{TASK}: 1 questions are left out, not answered yet by q4."]


def test_results_without_answers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="has no answers"):
        compare.compare(Results(results(tmp_path / "r", {"f16": {}})))
    with pytest.raises(BenchError, match=r"run\.json: cannot be read"):
        compare.compare(Results(tmp_path))


# --- the report -------------------------------------------------------------------------------------------------------


class Reader(HTMLParser):
    """Counts tags, and notes what a file would have to load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.counts: dict[str, int] = {}
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.loaded += [
            v for k, v in attrs if k in ("src", "href") and v and not v.startswith("data:")
        ]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read(path: Path) -> Reader:
    reader = Reader()
    reader.feed(path.read_text())
    assert reader.open == []
    return reader


def test_the_html_is_one_file_with_drawings_and_pages_inside(bench: Path, tmp_path: Path) -> None:
    samples = list(open_bench(bench).samples(TASK, lambda _: None, pictures=False))[:3]
    folder = tmp_path / "results"
    lines = [
        {"gold": s.turns[0][1], "text": s.turns[0][1], "image": s.image, "question_id": s.id}
        for s in samples
    ]
    wrong = [line | {"text": "<none>", "turn": {"kld": [0.01], "same": [1]}} for line in lines]
    results(folder, {"f16": {TASK: lines}, "q4": {TASK: wrong}})
    report(folder, tmp_path / "report", bench=bench)
    reader = read(tmp_path / "report" / "report.html")
    assert reader.loaded == []
    assert reader.counts["svg"] == 2
    assert reader.counts["img"] == len(samples)
    assert "&lt;none&gt;" in (tmp_path / "report" / "report.html").read_text()

    report(folder, tmp_path / "hidden", bench=bench, hidden=(TASK,))
    assert "img" not in read(tmp_path / "hidden" / "report.html").counts
    assert "The page is not shown." in (tmp_path / "hidden" / "report.html").read_text()
    with pytest.raises(UsageError, match="no task ptb"):
        report(folder, tmp_path / "hidden", bench=bench, hidden=("ptb",))


def test_force_replaces_a_report_and_nothing_else(tmp_path: Path) -> None:
    source, target = two(tmp_path, "AA", "BB"), tmp_path / "report"
    report(source, target)
    report(source, target, force=True)
    (target / "letter.txt").write_text("mine")
    with pytest.raises(BenchError, match="holds something else"):
        report(source, target, force=True)
    assert (target / "letter.txt").read_text() == "mine"
    other = tmp_path / "other"
    other.mkdir()
    (other / "report.html").write_text("another program's")
    for force in (False, True):
        with pytest.raises(BenchError, match=r"exists already|holds something else"):
            report(source, other, force=force)
    assert (other / "report.html").read_text() == "another program's"


def test_pages_that_are_gone_are_said_to_be_gone(tmp_path: Path) -> None:
    report(two(tmp_path, "AA", "BB"), tmp_path / "report")
    reader = read(tmp_path / "report" / "report.html")
    assert "img" not in reader.counts
    assert "The page is not shown." in (tmp_path / "report" / "report.html").read_text()


def test_the_reference_comes_first_and_every_kit_has_a_verdict(tmp_path: Path) -> None:
    report(two(tmp_path, "A" * 40, "A" * 20 + "B" * 20), tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()
    assert text.index("**f16**: The reference") < text.index(
        f"**q4**: 9.0 MB. Worse by more than chance in {TASK}."
    )
    figures = json.loads((tmp_path / "report" / "report.json").read_text())
    assert list(figures["kits"]) == ["f16", "q4"]
    assert len(figures["flips"]) == 20


def test_a_small_number_of_questions_is_said_in_words(tmp_path: Path) -> None:
    figures = report(two(tmp_path, "A" * 200, "A" * 200), tmp_path / "report")
    assert f"{TASK}: 200 questions carry ±7 points at worst." in figures["not_known"]


def test_a_report_replaces_an_older_one_and_nothing_else(tmp_path: Path) -> None:
    folder = two(tmp_path, "AA", "AB")
    report(folder, tmp_path / "report")
    report(folder, tmp_path / "report")
    (tmp_path / "report" / "notes.txt").write_text("mine")
    with pytest.raises(BenchError, match="exists already"):
        report(folder, tmp_path / "report")


def test_the_front_holds_what_no_smaller_kit_equals() -> None:
    points = [
        Point(name, x, y, y, y)
        for name, x, y in (("a", 1, 5), ("b", 2, 6), ("c", 3, 2), ("d", 3, 4))
    ]
    assert [p.name for p in frontier(points, -1)] == ["a", "c"]
    assert [p.name for p in frontier(points, 1)] == ["a", "b"]


@pytest.mark.parametrize("values", [(0.0,), (0.0, 0.0), (1e-5, 0.3), (50.0, 50.0)])
def test_a_drawing_of_any_values_stays_inside_its_frame(values: tuple[float, ...]) -> None:
    points = [Point(f"k{n}", 1.0 + n, y, y, y) for n, y in enumerate(values)]
    for log in (True, False):
        reader = Reader()
        reader.feed(drawn := draw("t", points, "y", log, 1))
        assert "nan" not in drawn
        assert drawn.count("<circle") == len(values)


# --- gates ------------------------------------------------------------------------------------------------------------

RECIPES = "recipes:\n  q4:\n    gates: {same_top: 0.9, lost_answers: 0.1}\n  odd:\n    gates: {beauty: 1}\n  bare: {}\n  kld: {kld: 0.1}\n"


@pytest.fixture
def recipes(tmp_path: Path) -> Path:
    (tmp_path / "recipes.yaml").write_text(RECIPES)
    return tmp_path / "recipes.yaml"


def run(folder: Path, recipes: Path, *more: str) -> Any:
    arguments = [
        "report",
        str(folder),
        "-o",
        str(folder.parent / "report"),
        "--gates",
        "q4",
        "--recipes",
        str(recipes),
    ]
    return CliRunner().invoke(cli, [*arguments, *more])


@pytest.mark.parametrize(
    ("answers", "code"), [("A" * 10, 0), ("A" * 9 + "B", 0), ("A" * 8 + "BB", 1)]
)
def test_the_exit_code_is_1_when_a_gate_does_not_pass(
    tmp_path: Path, recipes: Path, answers: str, code: int
) -> None:
    done = run(two(tmp_path, "A" * 10, answers, kld=[0.1], same=[1]), recipes)
    assert done.exit_code == code, done.output
    assert ("not passed: q4: lost_answers" in done.stderr) == bool(code)
    assert (tmp_path / "report" / "report.html").exists()


def test_a_gate_that_was_not_measured_does_not_pass(tmp_path: Path, recipes: Path) -> None:
    done = run(two(tmp_path, "AA", "AA"), recipes)
    assert done.exit_code == 1
    assert "not passed: q4: same_top" in done.stderr


@pytest.mark.parametrize(
    ("recipe", "why"),
    [("odd", "unknown gates beauty"), ("bare", "has no gates"), ("none", "has no recipe none")],
)
def test_gates_that_are_not_known_are_refused(recipes: Path, recipe: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        load_gates(recipes, recipe)


def test_a_recipes_kld_is_a_gate_for_the_mean(recipes: Path) -> None:
    assert load_gates(recipes, "kld") == {"mean_kld": 0.1}


# --- in the kit -------------------------------------------------------------------------------------------------------


@pytest.fixture
def measured(tiny_kit: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A kit, and results that hold its answers."""
    kit = Path(shutil.copytree(tiny_kit, tmp_path / "kit"))
    folder = two(tmp_path, "AAB", "AAA")
    for file in (folder / "q4" / "kit.json", folder / "q4" / TASK / "step-final.jsonl"):
        own = identity(open_kit(kit).manifest)
        text = file.read_text().replace('"identity": "q4"', f'"identity": "{own}"')
        file.write_text(text.replace('"kit": "q4"', f'"kit": "{own}"'))
    return kit, folder


def test_a_kit_carries_its_report_and_is_still_whole(
    measured: tuple[Path, Path], tmp_path: Path
) -> None:
    kit, folder = measured
    for _ in range(2):
        report(folder, tmp_path / "report", attach=kit)
        opened = open_kit(kit)
        verify(opened)
        assert opened.manifest.accuracy is not None
        assert opened.manifest.accuracy["table"][0]["this"] == "100.0 [100.0, 100.0]"
        assert (kit / opened.manifest.accuracy["report"]).read_bytes() == (
            tmp_path / "report" / "report.html"
        ).read_bytes()


def test_kit_info_shows_verdict_and_table(measured: tuple[Path, Path], tmp_path: Path) -> None:
    from pulse_edge.cli.main import cli as pulse_edge

    kit, folder = measured
    report(folder, tmp_path / "report", attach=kit)
    done = CliRunner().invoke(pulse_edge, ["kit", "info", str(kit)])
    assert done.exit_code == 0, done.output
    assert "No task is worse by more than chance" in done.stdout
    assert f"{TASK}: accuracy 100.0 [100.0, 100.0], reference 66.7" in done.stdout
    assert "accuracy/report.html" in done.stdout


def test_an_interrupted_attaching_leaves_the_old_kit(
    measured: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit, folder = measured
    before = (kit / "manifest.json").read_bytes()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(into_kit, "write_manifest", interrupt)
    with pytest.raises(KeyboardInterrupt):
        report(folder, tmp_path / "report", attach=kit)
    assert (kit / "manifest.json").read_bytes() == before
    assert [p.name for p in kit.parent.iterdir() if "unfinished" in p.name] == []
    verify(open_kit(kit))


def test_a_report_of_other_kits_is_not_attached(tiny_kit: Path, tmp_path: Path) -> None:
    folder = two(tmp_path, "A", "A")
    with pytest.raises(KitError, match="has no answers of this kit"):
        report(folder, tmp_path / "report", attach=tiny_kit)
    assert not (tmp_path / "report").exists()
