"""`calibration synthesize`: the published layout, the same bytes on any number of processes, all or
nothing.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from calibration import synthesize as module
from calibration.__main__ import cli
from calibration.synthesize import Plan, synthesize
from calibration.synthetic import LEADS, page_at
from calibration.synthetic import synthesize as synthesize_recording
from calibration.synthetic.questions import BENCH
from pulse_edge.errors import BenchError, UsageError


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench") / "made"
    synthesize(folder, Plan(6, 4))
    return folder


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    signal = synthesize_recording(2, (), noise=1.0).signal
    np.savez(
        tmp_path / "real.npz",
        signal_uV=np.round(signal[None].repeat(2, 0)[:, :, ::5] * 1000).astype(np.int16),
        fs=100,
        leads=np.array(LEADS),
    )
    entry = {"ecg_id": 9, "patient_id": 31.0, "scp_codes": {"NORM": 100.0}, "superclass": ["NORM"]}
    (tmp_path / "real.json").write_text(json.dumps([entry, {**entry, "ecg_id": 10}]))
    return tmp_path / "real.npz"


def test_a_folder_holds_one_file_per_task_and_the_pictures(bench: Path) -> None:
    assert {p.stem for p in bench.glob("*.json")} == set(BENCH)
    for path in bench.glob("*.json"):
        samples = json.loads(path.read_text())
        assert samples
        assert len({s["id"] for s in samples}) == len(samples)
        assert all((bench / "images" / s["image"]).is_file() for s in samples)
        assert all(set(s) == {"id", "image", "conversations"} for s in samples)


def test_a_picture_is_the_page_of_its_index(bench: Path) -> None:
    with Image.open(bench / "images" / "synthetic" / "000003.png") as picture:
        assert np.array_equal(np.asarray(picture), page_at(4, 3).image)


def test_conversations_have_the_published_forms(bench: Path) -> None:
    def first(task: str) -> list[dict[str, object]]:
        conversation: list[dict[str, object]] = json.loads((bench / f"{task}.json").read_text())[0][
            "conversations"
        ]
        return conversation

    human, gpt = first("cpsc-test")
    assert str(human["value"]).startswith("<image>\n")
    assert (human["from"], gpt["from"]) == ("human", "gpt")
    human, gpt = first("ecgqa-test")
    assert isinstance(human["value"], list)
    assert isinstance(gpt["value"], list)
    assert all(set(turn) == {"question", "answer"} for turn in first("arena"))


def test_what_no_task_carries_stands_beside(bench: Path) -> None:
    facts = [json.loads(line) for line in (bench / "pages.jsonl").read_text().splitlines()]
    assert [f["image"] for f in facts] == [f"synthetic/{i:06d}.png" for i in range(6)]
    page = page_at(4, 2)
    assert facts[2]["findings"] == sorted(page.recording.findings or ())
    assert facts[2]["measurements"]["rate"] == round(page.recording.measurements.rate or 0, 3)
    assert (facts[2]["layout"], facts[2]["speed"]) == (page.style.layout, page.style.speed)


@pytest.mark.parametrize("parquet", [False, True])
def test_two_processes_write_the_same_bytes_as_one(tmp_path: Path, parquet: bool) -> None:
    plan = Plan(5, 9, tasks=("ptb-test", "arena"), parquet=parquet)
    synthesize(tmp_path / "one", plan, processes=1)
    synthesize(tmp_path / "two", plan, processes=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_recorded_signals_come_in_turn_with_other_looks(tmp_path: Path, npz: Path) -> None:
    synthesize(tmp_path / "made", Plan(4, 1, signals=npz))
    facts = [
        json.loads(line) for line in (tmp_path / "made" / "pages.jsonl").read_text().splitlines()
    ]
    assert [f["source"] for f in facts] == ["real.npz:9", "real.npz:10"] * 2
    assert {f["patient"] for f in facts} == {"31"}
    assert {f["findings"] for f in facts} == {None}
    pictures = list((tmp_path / "made" / "images" / "real").iterdir())
    assert len({p.read_bytes() for p in pictures}) == 4


def test_only_the_layouts_asked_for_are_drawn(tmp_path: Path) -> None:
    synthesize(tmp_path / "made", Plan(6, 1, tasks=("ptb-test",), layouts=("6x2", "12x1")))
    facts = [
        json.loads(line) for line in (tmp_path / "made" / "pages.jsonl").read_text().splitlines()
    ]
    assert {f["layout"] for f in facts} == {"6x2", "12x1"}


def test_an_existing_folder_is_refused_unless_forced(tmp_path: Path) -> None:
    target = tmp_path / "made"
    target.mkdir()
    (target / "mine.txt").write_text("keep")
    with pytest.raises(BenchError, match="--force"):
        synthesize(target, Plan(1, 1))
    with pytest.raises(BenchError, match="holds other files"):
        synthesize(target, Plan(1, 1), force=True)
    assert (target / "mine.txt").read_text() == "keep"
    (target / "mine.txt").unlink()
    for seed in (1, 2):  # an empty folder, then pages
        synthesize(target, Plan(1, seed, tasks=("ptb-test",)), force=True)
    assert sorted(p.name for p in target.iterdir()) == ["images", "pages.jsonl", "ptb-test.json"]


@pytest.mark.parametrize("name", ["notes.txt", "images/synthetic/letter.png", "images/link"])
def test_force_keeps_pages_among_which_something_else_lies(tmp_path: Path, name: str) -> None:
    target = tmp_path / "made"
    synthesize(target, Plan(1, 1, tasks=("ptb-test",)))
    if name.endswith("link"):
        (target / name).symlink_to(tmp_path)
    else:
        (target / name).write_text("mine")
    with pytest.raises(BenchError, match="holds other files"):
        synthesize(target, Plan(1, 1, tasks=("ptb-test",)), force=True)
    assert (target / name).exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_unfinished_work_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException] | OSError
) -> None:
    real, calls = module.make, []

    def fail(plan: Plan, work: Path, index: int) -> module.MadePage:
        calls.append(index)
        if index == 2:
            raise error
        return real(plan, work, index)

    monkeypatch.setattr(module, "make", fail)
    with pytest.raises((KeyboardInterrupt, BenchError)):
        synthesize(tmp_path / "made", Plan(4, 1, tasks=("ptb-test",)))
    assert calls == [0, 1, 2]
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_exist_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="ptbxl"):
        Plan(1, 1, tasks=("ptbxl",))
    with pytest.raises(UsageError, match="4x3"):
        Plan(1, 1, layouts=("4x3",))


def test_the_command_prints_the_folder_and_notes_go_to_stderr(tmp_path: Path) -> None:
    target = tmp_path / "made"
    arguments = [
        "synthesize",
        "-o",
        str(target),
        "--pages",
        "1",
        "--tasks",
        "mmmu-ecg,chat",
        "--processes",
        "1",
    ]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{target}\n"
    assert "1 pages in" in done.stderr
    assert sorted(p.name for p in target.glob("*.json")) == ["chat.json", "mmmu-ecg.json"]
