"""Tiny kits answer a small bench: the same results however often it is interrupted, and refusals
that say why.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from waiting import wait_until

from calibration import ecgbench, splits
from calibration import evaluate as evaluating
from calibration.answering import compare, log_softmax, word_ends
from calibration.evaluate import Plan, evaluate
from calibration.results import Results, calibrated_on, identity
from calibration.score import score
from calibration.synthesize import Plan as Pages
from calibration.synthesize import synthesize
from pulse_edge import PulseModel
from pulse_edge.errors import BenchError, KitError, UsageError
from pulse_edge.kit.kit import open_kit
from pulse_edge.kit.write import write_manifest

TASKS = ("arena", "cpsc-test", "ptb-test-report")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench") / "bench"
    synthesize(folder, Pages(4, 5, layouts=("3x4+1",)))
    return folder


@pytest.fixture(scope="module")
def other_kit(tiny_kit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import tiny

    return tiny.quantized(tiny_kit, tmp_path_factory.mktemp("kits") / "q4", "Q4_0")


@pytest.fixture(scope="module")
def plan(bench: Path, tiny_kit: Path, other_kit: Path) -> Plan:
    return Plan((tiny_kit, other_kit), bench, TASKS, max_tokens=6, device="cpu", threads=1)


@pytest.fixture(scope="module")
def results(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("results") / "results"
    evaluate(target, plan)
    return target


def answers(folder: Path) -> dict[str, bytes]:
    """All that has to be the same in every run."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.name == "step-final.jsonl" or path.suffix == ".npy"
    }


def test_every_kit_answers_every_question_once(results: Path, plan: Plan) -> None:
    read = Results(results)
    assert read.kits == ["tiny", "q4"]
    for name in read.kits:
        assert read.tasks(name) == list(TASKS)
        for task in TASKS:
            ids = [line.question_id for line in read.answers(name, task)]
            assert ids == [
                s.id
                for s in ecgbench.open_bench(plan.bench).samples(
                    task, lambda _: None, pictures=False
                )
            ]


def test_an_answer_is_what_the_kit_itself_says(results: Path, plan: Plan) -> None:
    line = Results(results).answers("q4", "ptb-test-report")[1]
    with PulseModel.load(plan.kits[1], device="cpu", threads=1) as model:
        scan = model.encode(plan.bench / "images" / line.image)
        assert model.ask(scan, str(line.prompt), 6).answer().text == line.text


def test_the_arenas_later_turns_hear_the_kits_own_answers(results: Path, plan: Plan) -> None:
    line = Results(results).answers("q4", "arena")[0]
    questions, texts = line.prompt, line.text
    with PulseModel.load(plan.kits[1], device="cpu", threads=1) as model:
        scan = model.encode(plan.bench / "images" / line.image)
        history = list(zip(questions, texts, strict=True))
        for turn, question in enumerate(questions):
            assert model.ask(scan, question, 6, history[:turn]).answer().text == texts[turn]


def test_divergence_is_that_of_the_two_kits_distributions_on_the_references_answer(
    results: Path, plan: Plan
) -> None:
    reference, line = (Results(results).answers(name, "cpsc-test")[2] for name in ("tiny", "q4"))
    assert reference.turns[0].kld == ()
    ids, rows = reference.turns[0].tokens, []
    for kit in plan.kits:
        with PulseModel.load(kit, device="cpu", threads=1) as model:
            scan = model.encode(plan.bench / "images" / line.image)
            rows.append(log_softmax(next(model.score(scan, str(line.prompt), [ids]))))
    kld = (np.exp(rows[0]) * (rows[0] - rows[1])).sum(1)
    assert len(line.turns[0].kld) == len(ids)
    np.testing.assert_allclose(line.turns[0].kld, kld, rtol=0.05, atol=2e-7)
    assert line.turns[0].same == tuple((rows[0].argmax(1) == rows[1].argmax(1)).astype(int))


def test_the_right_answers_probability_includes_its_end(results: Path, plan: Plan) -> None:
    line = Results(results).answers("tiny", "cpsc-test")[0]
    with PulseModel.load(plan.kits[0], device="cpu", threads=1) as model:
        scan = model.encode(plan.bench / "images" / line.image)
        ids = [*model.language.tokenize(line.gold[0], first=False), model.language.end]
        ahead = log_softmax(next(model.score(scan, str(line.prompt), [ids])))
    assert line.turns[0].gold_tokens == len(ids)
    assert line.turns[0].gold_logprob == pytest.approx(ahead[range(len(ids)), ids].sum(), rel=1e-4)


def test_a_labels_chance_is_the_product_of_its_tokens(results: Path, plan: Plan) -> None:
    line = Results(results).answers("tiny", "cpsc-test")[0]
    assert line.text != "AF"
    with PulseModel.load(plan.kits[0], device="cpu", threads=1) as model:
        scan = model.encode(plan.bench / "images" / line.image)
        ids = model.language.tokenize("AF", first=False)
        ahead = np.exp(
            log_softmax(next(model.score(scan, str(line.prompt), [[*ids, model.language.end]])))
        )
        ends = ahead[-1][word_ends(model)].sum()
    assert line.labels is not None
    assert line.labels["AF"] == pytest.approx(ahead[range(len(ids)), ids].prod() * ends, rel=1e-4)


def test_identical_distributions_do_not_diverge() -> None:
    rows = log_softmax(np.random.default_rng(1).normal(0, 3, (4, 50)).astype(np.float32))
    assert compare(rows, rows) == ((0.0,) * 4, (1,) * 4)


def test_kits_of_one_encoder_share_the_encoded_pages(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded, real = [0], PulseModel.encode

    def counted(self: PulseModel, page: Any, **how: Any) -> Any:
        encoded[0] += 1
        return real(self, page, **how)

    monkeypatch.setattr(PulseModel, "encode", counted)
    monkeypatch.setattr(evaluating, "peak_bytes", lambda *_: None)
    evaluate(tmp_path / "results", replace(plan, tasks=("cpsc-test", "ptb-test-report")))
    assert encoded == [4]


def test_a_folder_cut_anywhere_goes_on_to_the_same_results(
    results: Path, plan: Plan, tmp_path: Path
) -> None:
    rng = np.random.default_rng(4)
    for round_ in range(2):
        cut = Path(shutil.copytree(results, tmp_path / str(round_)))
        for path in sorted(cut.glob("*/*/*.jsonl")):
            os.truncate(path, int(rng.integers(path.stat().st_size)))
        evaluate(cut, plan)
        assert answers(cut) == answers(results)


def test_a_killed_run_goes_on_to_the_same_results(
    results: Path, plan: Plan, tmp_path: Path
) -> None:
    command = [
        sys.executable,
        "-m",
        "calibration",
        "evaluate",
        *map(str, plan.kits),
        "-o",
        str(tmp_path / "r"),
    ]
    command += [
        "--bench",
        str(plan.bench),
        "--tasks",
        ",".join(TASKS),
        "--max-tokens",
        "6",
        "--device",
        "cpu",
    ]
    process = subprocess.Popen(
        [*command, "--threads", "1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_until(lambda: list((tmp_path / "r").glob("tiny/arena/step-final.jsonl")), process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    evaluate(tmp_path / "r", plan)
    assert answers(tmp_path / "r") == answers(results)


def test_a_finished_run_is_not_run_again(
    results: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PulseModel, "load", lambda *_, **__: pytest.fail("a kit was loaded"))
    before = answers(results)
    evaluate(results, plan)
    assert answers(results) == before


def test_our_answers_are_scored_like_anybodys(results: Path, plan: Plan) -> None:
    scores = score(ecgbench.open_bench(plan.bench), results / "tiny")
    assert set(scores["tasks"]) == set(TASKS)
    assert scores["tasks"]["cpsc-test"]["missing"] == 0


def test_progress_tells_the_time_left(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluating, "peak_bytes", lambda *_: None)
    notes: list[str] = []
    evaluate(
        tmp_path / "results",
        replace(plan, kits=plan.kits[:1], tasks=("cpsc-test",), limit=2),
        notes.append,
    )
    assert notes[-1].startswith("2 of 2 answers, ")
    assert notes[-1].endswith("00:00:00 left")


def test_peak_memory_is_that_of_a_process_of_its_own(results: Path) -> None:
    peak = Results(results).kit("tiny").peak_bytes
    assert peak is not None
    assert 50 << 20 < peak < 1 << 30


# --- refusals ---------------------------------------------------------------------------------


def test_a_broken_picture_is_told_and_its_other_questions_too(plan: Plan, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(plan.bench, tmp_path / "bench"))
    next(broken.glob("images/*/*.png")).write_bytes(b"no picture")
    notes: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluating, "peak_bytes", lambda *_: None)
        evaluate(
            tmp_path / "r",
            replace(plan, kits=plan.kits[:1], bench=broken, tasks=TASKS[1:]),
            notes.append,
        )
    assert sum(line.startswith("left out: ") for line in notes) == 2
    assert len(json.loads((tmp_path / "r" / "left_out.json").read_text())) == 2
    assert len(Results(tmp_path / "r").answers("tiny", "cpsc-test")) == 3


def test_questions_that_calibrated_a_kit_are_refused(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = {
        s.id: s.picture
        for s in ecgbench.open_bench(plan.bench).samples("cpsc-test", lambda _: None)
    }
    name = "cpsc-test-000002"
    entries = [("cpsc-test", name, hashlib.sha256(pictures[name] or b"").hexdigest())]
    content = hashlib.sha256(json.dumps(entries).encode()).hexdigest()
    monkeypatch.setattr(
        evaluating, "calibrated_on", lambda _: ({"cpsc-test": frozenset({name})}, content)
    )
    with pytest.raises(
        BenchError, match=f"1 of these questions calibrated it, cpsc-test {name} first"
    ):
        evaluate(tmp_path / "r", plan)
    assert not (tmp_path / "r").exists()


def test_the_same_ids_with_other_pictures_are_no_calibration(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = ({"cpsc-test": frozenset({"cpsc-test-000002"})}, "0" * 64)
    monkeypatch.setattr(evaluating, "calibrated_on", lambda _: used)
    bench = ecgbench.open_bench(plan.bench)
    samples = list(bench.samples("cpsc-test", lambda _: None, pictures=False))
    evaluating.refuse_calibration_ids(bench, {"kit": open_kit(plan.kits[0])}, samples)


def test_a_kit_tells_what_calibrated_it() -> None:
    @dataclass
    class Made:
        quantization: dict[str, Any]

    result = Made({"calibration": {"arena": ["1", "2"]}, "content": "c"})
    assert calibrated_on(cast(Any, result)) == ({"arena": frozenset({"1", "2"})}, "c")


def test_only_the_test_ids_of_a_split_are_asked(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluating, "peak_bytes", lambda *_: None)
    bench = ecgbench.open_bench(plan.bench)
    split = splits.split(
        (s for task in bench.tasks for s in bench.samples(task, lambda _: None)), "k", 0.5
    )
    splits.save(split, tmp_path / "split.json")
    chosen = replace(plan, kits=plan.kits[:1], tasks=("cpsc-test",), split=tmp_path / "split.json")
    evaluate(tmp_path / "r", chosen)
    lines = Results(tmp_path / "r").answers("tiny", "cpsc-test")
    assert [line.question_id for line in lines] == list(split.test["cpsc-test"])


def test_answers_of_another_kit_are_refused(results: Path, plan: Plan, tmp_path: Path) -> None:
    other = Path(shutil.copytree(plan.kits[1], tmp_path / "tiny"))
    with pytest.raises(BenchError, match="holds answers of another kit"):
        evaluate(results, replace(plan, kits=(other,)))


def test_answers_to_another_question_are_refused(results: Path, plan: Plan, tmp_path: Path) -> None:
    bench = tmp_path / "bench"
    synthesize(bench, Pages(4, 6, layouts=("3x4+1",)))
    copied = Path(shutil.copytree(results, tmp_path / "r"))
    settings = json.loads((copied / "run.json").read_text())
    (copied / "run.json").write_text(json.dumps(settings | {"bench": str(bench.resolve())}))
    with pytest.raises(BenchError, match="belongs to another question"):
        evaluate(copied, replace(plan, bench=bench))


def test_other_settings_ask_for_another_folder(results: Path, plan: Plan) -> None:
    with pytest.raises(BenchError, match="was run with max_tokens 6, not 7"):
        evaluate(results, replace(plan, max_tokens=7))


def test_a_bench_without_pictures_leaves_nothing_to_answer(plan: Plan, tmp_path: Path) -> None:
    bare = Path(
        shutil.copytree(plan.bench, tmp_path / "bench", ignore=shutil.ignore_patterns("images"))
    )
    with pytest.raises(BenchError, match="none of its pictures can be read"):
        evaluate(tmp_path / "r", replace(plan, bench=bare))


def test_kits_with_another_prompt_are_not_compared(plan: Plan, tmp_path: Path) -> None:
    kit = Path(shutil.copytree(plan.kits[1], tmp_path / "kit"))
    manifest = open_kit(kit).manifest
    write_manifest(kit, replace(manifest, prompt=replace(manifest.prompt, before="USER: ")))
    with pytest.raises(KitError, match="has another prompt"):
        evaluate(tmp_path / "r", replace(plan, kits=(plan.kits[0], kit)))


def test_two_kits_of_one_name_are_refused(plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be called tiny here"):
        evaluate(tmp_path / "r", replace(plan, kits=(plan.kits[0], plan.kits[0])))


def test_two_processes_do_not_write_into_one_folder(results: Path, plan: Plan) -> None:
    from calibration.results import writing

    with writing(results), pytest.raises(BenchError, match="another process"):
        evaluate(results, plan)


def test_a_folder_of_something_else_is_not_written_to(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(BenchError, match="holds something else"):
        evaluate(tmp_path, plan)


def test_a_report_inside_the_kit_does_not_make_it_another(plan: Plan, tmp_path: Path) -> None:
    manifest = open_kit(plan.kits[0]).manifest
    assert identity(replace(manifest, accuracy={"verdict": "fine"})) == identity(manifest)
    assert identity(open_kit(plan.kits[1]).manifest) != identity(manifest)


def test_a_cluster_without_ray_says_what_to_install(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match="needs Ray"):
        evaluate(tmp_path / "r", replace(plan, cluster="local"))
