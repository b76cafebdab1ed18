"""ECGBench in both layouts: the same samples, nothing skipped in silence, nothing on both sides of
a split.
"""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from calibration import splits
from calibration.__main__ import cli
from calibration.ecgbench import (
    COUNTS,
    Problem,
    Sample,
    labels_in,
    open_bench,
)
from calibration.splits import Split, split
from calibration.synthesize import Plan, synthesize
from pulse_edge.errors import BenchError, UsageError


def png(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (8, 8), shade).save(file, "PNG")
    return file.getvalue()


def refuse(problem: Problem) -> None:
    raise AssertionError(str(problem))


def unpacked(
    folder: Path, task: str, rows: list[dict[str, Any]], pictures: dict[str, bytes]
) -> Path:
    (folder / f"{task}.json").write_text(json.dumps(rows))
    for name, data in pictures.items():
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def row(
    name: str, answer: Any = "AF", image: str = "cpsc/a.png", question: Any = "<image>\nWhich?"
) -> dict[str, Any]:
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": name, "image": image, "conversations": turns}


def left_out(folder: Path, task: str) -> tuple[list[str], dict[str, str]]:
    problems: list[Problem] = []
    ids = [sample.id for sample in open_bench(folder).samples(task, problems.append)]
    return ids, {problem.id: problem.what for problem in problems}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("bench")
    synthesize(folder / "unpacked", Plan(30, 3))
    synthesize(folder / "parquet", Plan(30, 3, parquet=True))
    return folder / "unpacked", folder / "parquet"


def test_both_layouts_give_the_same_samples(both: tuple[Path, Path]) -> None:
    first, second = (open_bench(folder) for folder in both)
    assert first.tasks == second.tasks == tuple(sorted(COUNTS))
    for task in COUNTS:
        ones, others = (list(bench.samples(task, refuse)) for bench in (first, second))
        assert ones == others
        assert ones
        assert all(sample.picture for sample in ones)


def test_the_published_counts_are_known() -> None:
    assert sum(COUNTS.values()) == 11247
    assert COUNTS["g12-test-no-cot"] == 2026


def test_parquet_is_read_row_group_by_row_group(
    both: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow.parquet as pq

    real, read = pq.ParquetFile.read_row_group, []

    def count(self: Any, group: int, *rest: Any) -> Any:
        read.append(group)
        return real(self, group, *rest)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", count)
    samples = open_bench(both[1]).samples("ptb-test", refuse)
    next(samples)
    assert read == [0]
    assert len(list(samples)) == 29
    assert read == [0, 1]


def test_without_pictures_none_is_needed(tmp_path: Path) -> None:
    unpacked(tmp_path, "cpsc-test", [row("1")], {})
    (sample,) = open_bench(tmp_path).samples("cpsc-test", refuse, pictures=False)
    assert sample == Sample("cpsc-test", "1", "cpsc/a.png", (("Which?", "AF"),))


def test_missing_broken_and_doubled_samples_are_told(tmp_path: Path) -> None:
    rows = [
        row("1"),
        row("2", image="cpsc/none.png"),
        row("3", image="cpsc/cut.png"),
        row("1"),
        row("5", image="x.jpg"),
    ]
    pictures = {"cpsc/a.png": png(1), "cpsc/cut.png": png(2)[:-20], "x.jpg": b"no picture"}
    ids, problems = left_out(unpacked(tmp_path, "cpsc-test", rows, pictures), "cpsc-test")
    assert ids == ["1"]
    assert problems["2"] == "its picture cpsc/none.png is missing"
    assert "cpsc/cut.png is broken" in problems["3"]
    assert problems["1"] == "its id occurs twice"
    assert "x.jpg is broken" in problems["5"]


@pytest.mark.parametrize(
    ("task", "good", "bad"),
    [
        ("cpsc-test", ["AF, RBBB", "AF(atrial fibrillation)", "none"], ["atrial flutter", ""]),
        ("code15-test", ["ABNORMAL", "NORM", "1dAVb(1st degree av block)"], ["LVH"]),
        ("csn-test-no-cot", ["E. sinus rhythm", "H"], ["I. other", "sinus rhythm", "Each"]),
        ("mmmu-ecg", ["D"], ["E"]),
    ],
)
def test_an_unknown_answer_is_told(
    tmp_path: Path, task: str, good: list[str], bad: list[str]
) -> None:
    rows = [
        row(f"{kind} {i}", answer)
        for kind, some in (("good", good), ("bad", bad))
        for i, answer in enumerate(some)
    ]
    ids, problems = left_out(unpacked(tmp_path, task, rows, {"cpsc/a.png": png(1)}), task)
    assert ids == [f"good {i}" for i in range(len(good))]
    assert sorted(problems) == [f"bad {i}" for i in range(len(bad))]


def test_ecgqas_lists_are_read_and_checked_against_the_options(tmp_path: Path) -> None:
    ask = [
        "Which? Options: AF, none Only answer based on the given Options without any explanation."
    ]
    rows = [
        row("1", ["af"], question=ask),
        row("2", ["PVC"], question=ask),
        row("3", [], question=ask),
    ]
    folder = unpacked(tmp_path, "ecgqa-test", rows, {"cpsc/a.png": png(1)})
    problems: list[Problem] = []
    (sample,) = open_bench(folder).samples("ecgqa-test", problems.append)
    assert (sample.options, sample.chosen) == (("AF", "none"), ("af",))
    assert [problem.id for problem in problems] == ["2", "3"]


def test_a_refused_translation_is_no_report(tmp_path: Path) -> None:
    rows = [
        row("1", "Sinus rhythm."),
        row("2", "Sure, please provide the ECG report you would like translated."),
    ]
    ids, problems = left_out(
        unpacked(tmp_path, "ptb-test-report", rows, {"cpsc/a.png": png(1)}), "ptb-test-report"
    )
    assert ids == ["1"]
    assert problems["2"] == "its report is a refused translation"


def test_a_malformed_sample_is_told(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"id": "1", "image": "a.png"},
        {"id": "2", "image": "a.png", "conversations": [3]},
        {},
    ]
    ids, problems = left_out(unpacked(tmp_path, "arena", rows, {}), "arena")
    assert ids == []
    assert len(problems) == 3


def test_labels_are_read_as_words() -> None:
    assert labels_in("ABNORMAL, ST-T and I-AVB", ("NORM", "ST", "AVB", "I-AVB")) == ("I-AVB",)
    assert labels_in("rbbb(right block); AF.", ("AF", "RBBB"), ignore_case=True) == ("AF", "RBBB")


def test_a_folder_without_tasks_and_damaged_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="no task of ECGBench"):
        open_bench(tmp_path)
    (tmp_path / "arena.json").write_text("[{")
    with pytest.raises(BenchError, match=r"arena\.json: cannot be read"):
        list(open_bench(tmp_path).samples("arena", refuse))
    (tmp_path / "ptb-test").mkdir()
    (tmp_path / "ptb-test" / "test-00000-of-00001.parquet").write_bytes(b"PAR1 but cut")
    with pytest.raises(BenchError, match=r"test-00000-of-00001\.parquet: cannot be read"):
        list(open_bench(tmp_path).samples("ptb-test", refuse))
    with pytest.raises(UsageError, match="has no task mmmu-ecg"):
        list(open_bench(tmp_path).samples("mmmu-ecg", refuse))


# --- the split --------------------------------------------------------------------------------


def many(task: str, n: int, **fields: Any) -> Iterator[Sample]:
    for i in range(n):
        turn = (("Which?", "AF"),)
        yield replace(
            Sample(task, f"{task}-{i}", f"mmmu-ecg/{task}{i}.png", turn, (), f"{task}{i}".encode()),
            **fields,
        )


def side(result: Split, task: str, name: str) -> str:
    return "calibration" if name in result.calibration[task] else "test"


def test_every_sample_is_on_one_side_and_every_task_gives_its_share() -> None:
    samples = [*many("arena", 50), *many("ptb-test", 200)]
    result = split(samples, "k", 0.1)
    assert {task: len(ids) for task, ids in result.calibration.items()} == {
        "arena": 5,
        "ptb-test": 20,
    }
    for sample in samples:
        assert (sample.id in result.calibration[sample.task]) != (
            sample.id in result.test[sample.task]
        )


def test_the_order_of_the_samples_does_not_matter_and_the_key_does() -> None:
    samples = [*many("arena", 50), *many("ptb-test", 200)]
    shuffled = random.Random(1).sample(samples, len(samples))
    assert split(samples, "k", 0.2) == split(shuffled, "k", 0.2)
    assert split(samples, "k", 0.2).calibration != split(samples, "l", 0.2).calibration


def test_what_shares_a_picture_a_recording_or_a_patient_stays_together() -> None:
    pairs: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"picture": b"same"}, {"picture": b"same"}),
        ({"image": "ptb-xl/00123_hr-0.png"}, {"image": "ptb-xl/00123_hr-1.png"}),
        ({"patient": "7"}, {"patient": "7"}),
    ]
    rest = [*many("arena", 20), *many("ptb-test", 20)]
    for one, other in pairs:
        a = replace(rest[0], **one)
        b = replace(rest[20], **other)
        for key in "abcdefgh":
            result = split([a, b, *rest[1:20], *rest[21:]], key, 0.5)
            assert side(result, "arena", a.id) == side(result, "ptb-test", b.id)


def test_figures_of_a_quiz_are_not_taken_for_one_recording() -> None:
    samples = [
        replace(sample, image=f"mmmu-ecg/figure-{i}.png")
        for i, sample in enumerate(many("mmmu-ecg", 40))
    ]
    assert len(split(samples, "k", 0.25).calibration["mmmu-ecg"]) == 10


def test_a_split_is_recorded_and_comes_back(tmp_path: Path) -> None:
    result = split(many("arena", 10), "k", 0.3)
    splits.save(result, tmp_path / "split.json", [Problem("arena", "x", "its picture is missing")])
    assert splits.load(tmp_path / "split.json") == result
    assert json.loads((tmp_path / "split.json").read_text())["left_out"][0]["id"] == "x"


def test_a_recorded_split_with_an_id_on_both_sides_is_refused(tmp_path: Path) -> None:
    result = split(many("arena", 10), "k", 0.3)
    splits.save(replace(result, test=result.calibration), tmp_path / "split.json")
    with pytest.raises(BenchError, match="3 ids are for calibration and for test"):
        splits.load(tmp_path / "split.json")


def test_a_split_needs_a_share_between_0_and_1_and_samples_with_pictures() -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        split(many("arena", 3), "k", 1.0)
    with pytest.raises(UsageError, match="pictures"):
        split(many("arena", 3, picture=None), "k", 0.5)
    with pytest.raises(BenchError, match="no usable sample"):
        split([], "k", 0.5)


def test_the_command_records_the_split_and_says_what_it_left_out(tmp_path: Path) -> None:
    from click.testing import CliRunner

    rows = [row(str(i), image=f"cpsc/{i}.png") for i in range(10)]
    unpacked(tmp_path, "cpsc-test", rows, {f"cpsc/{i}.png": png(i) for i in range(9)})
    out = tmp_path / "split.json"
    done = CliRunner().invoke(
        cli, ["split", "--bench", str(tmp_path), "-o", str(out), "--share", "0.34"]
    )
    assert done.exit_code == 0, done.output
    assert "left out: cpsc-test 9: its picture cpsc/9.png is missing" in done.stderr
    assert "cpsc-test: 3 for calibration, 6 for test" in done.stderr
    assert len(splits.load(out).test["cpsc-test"]) == 6


def test_the_made_up_golds_are_all_understood(shared: Path) -> None:
    bench = open_bench(shared / "scorer" / "ECGBench")
    assert {
        task: len(list(bench.samples(task, refuse, pictures=False))) for task in bench.tasks
    } == {
        "code15-test": 300,
        "cpsc-test": 300,
        "csn-test-no-cot": 1611,
        "ecgqa-test": 300,
        "g12-test-no-cot": 2026,
        "mmmu-ecg": 200,
        "ptb-test": 300,
    }
