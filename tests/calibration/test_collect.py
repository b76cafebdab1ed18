"""`calibration collect`: what the statistics hold, that any way to them gives the same bytes, and
what is refused.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from click.testing import CliRunner

from calibration import collect as collecting
from calibration import ecgbench, splits, statistics_file
from calibration.__main__ import cli
from calibration.collect import Plan, choose, collect
from calibration.observers import Collector
from calibration.synthesize import Plan as Pages
from calibration.synthesize import synthesize
from pulse_edge import PulseModel
from pulse_edge.errors import BenchError, UsageError
from pulse_edge.inference import tiling
from pulse_edge.kit.kit import base_of, open_kit
from pulse_edge.kit.manifest_reader import parse_manifest
from pulse_edge.page import reader as scan

TASKS = ("ecgqa-test", "ptb-test")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench") / "pages"
    synthesize(folder, Pages(pages=3, seed=3, tasks=TASKS))
    return folder


@pytest.fixture(scope="module")
def plan(bench: Path) -> Plan:
    return Plan(bench=bench, samples=4)


@pytest.fixture(scope="module")
def file(tiny_kit: Path, plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stats") / "stats.gguf"
    collect(tiny_kit, path, plan)
    return path


# --- what it holds ----------------------------------------------------------------------------


def test_the_first_layers_sums_are_those_of_normalised_embeddings(
    tiny_kit: Path, bench: Path, file: Path
) -> None:
    statistics, reader = statistics_file.load(file), gguf.GGUFReader(tiny_kit / "llm.gguf")
    tensors = {t.name: t.data for t in reader.tensors}
    by_id = {
        (s.task, s.id): s
        for task in TASKS
        for s in ecgbench.open_bench(bench).samples(task, lambda _: None)
    }
    image, text = np.zeros(256), np.zeros(256)
    with PulseModel.load(tiny_kit, device="cpu") as model:
        m = model.kit.manifest
        for task, name, _ in statistics.done:
            sample = by_id[task, name]
            rows = model.encode(bench / "images" / sample.image).image_tokens
            ((question, answer),) = sample.turns
            ids = model.language.tokenize(m.prompt.before, first=True)
            ids += model.language.tokenize(
                m.prompt.after.replace("{question}", question), first=False
            )
            ids += model.language.tokenize(answer, first=False)
            for sums, x in ((image, rows), (text, tensors["token_embd.weight"][ids])):
                x = x.astype(np.float64)
                scale = np.sqrt(np.square(x).mean(-1, keepdims=True) + 1e-5)
                sums += np.square(x / scale * tensors["blk.0.attn_norm.weight"]).sum(0)
    assert np.allclose(statistics.sums["attn_norm-0"].image, image, rtol=1e-3)
    assert np.allclose(statistics.sums["attn_norm-0"].text, text, rtol=1e-3)


def test_every_matrix_but_the_embeddings_has_its_sums_and_counts(
    tiny_kit: Path, file: Path
) -> None:
    matrices = {
        t.name: int(t.shape[0])
        for t in gguf.GGUFReader(tiny_kit / "llm.gguf").tensors
        if len(t.shape) > 1
    }
    del matrices["token_embd.weight"]
    tensors = {t.name: t.data for t in gguf.GGUFReader(file).tensors}
    assert {
        n.removesuffix(".in_sum2") for n in tensors if n.endswith(".in_sum2")
    } == matrices.keys()
    for name, columns in matrices.items():
        assert tensors[f"{name}.in_sum2"].shape == (1, columns)
        assert tensors[f"{name}.counts"].shape == (1, 1)
        assert tensors[f"{name}.in_sum2"].min() >= 0
        assert tensors[f"{name}.counts"] > 0


def test_image_tokens_and_text_rows_are_counted_apart(file: Path) -> None:
    statistics = statistics_file.load(file)
    image, text = statistics.sums["attn_norm-0"].tokens
    assert image == sum(
        len(p.image_tokens) for p in statistics.probes
    )  # every sample of so few is a probe
    assert text == sum(len(p.before) + len(p.after) for p in statistics.probes)


def test_it_has_the_keys_of_llama_cpps_importance_matrices(file: Path) -> None:
    fields = gguf.GGUFReader(file).fields
    assert fields["general.type"].contents() == "imatrix"
    assert fields["imatrix.datasets"].contents() == ["pages"]
    assert fields["imatrix.chunk_count"].contents() > 0
    assert fields["imatrix.chunk_size"].contents() == 256


def test_the_encoders_ranges_begin_with_those_of_the_pixels(
    tiny_kit: Path, bench: Path, file: Path
) -> None:
    statistics, m = statistics_file.load(file), open_kit(tiny_kit).manifest
    how: dict[str, Any] = {
        "size": 56,
        "aspect_ratio": m.packing.aspect_ratio,
        "pinpoints": m.packing.grid_pinpoints,
    }
    images = {
        s.id: s.image
        for task in TASKS
        for s in ecgbench.open_bench(bench).samples(task, lambda _: None)
    }
    pages = [scan.read(bench / "images" / images[name]).image for _, name, _ in statistics.done]
    pixels = [tiling.cut(page, mean=m.vision.mean, std=m.vision.std, **how) for page in pages]
    assert statistics.ranges["pixel_values"] == (
        min(p.min() for p in pixels),
        max(p.max() for p in pixels),
    )
    assert len(statistics.ranges) > 20
    assert all(low < high for low, high in statistics.ranges.values())


# --- the same bytes ---------------------------------------------------------------------------


def test_parts_merged_are_the_bytes_of_one_run(
    tiny_kit: Path, plan: Plan, file: Path, tmp_path: Path
) -> None:
    for i in (1, 2):
        collect(
            tiny_kit, tmp_path / f"{i}.gguf", Plan(plan.bench, samples=plan.samples, part=(i, 2))
        )
    names = [str(tmp_path / f"{i}.gguf") for i in (2, 1)]
    done = CliRunner().invoke(cli, ["merge", *names, "-o", str(tmp_path / "all.gguf")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "all.gguf").read_bytes() == file.read_bytes()


def test_an_interrupted_run_goes_on_to_the_same_bytes(
    tiny_kit: Path, plan: Plan, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = Collector.take
    taken: list[object] = []

    def broken(*arguments: object) -> None:
        if len(taken) == 2:
            raise KeyboardInterrupt
        taken.append(arguments)
        take(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(collecting, "SAVE_SECONDS", -1)
    monkeypatch.setattr(Collector, "take", broken)
    with pytest.raises(KeyboardInterrupt):
        collect(tiny_kit, tmp_path / "stats.gguf", plan)
    assert len(statistics_file.load(tmp_path / "stats.gguf.partial").done) == 2
    monkeypatch.setattr(Collector, "take", take)
    collect(tiny_kit, tmp_path / "stats.gguf", plan)
    assert (tmp_path / "stats.gguf").read_bytes() == file.read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["stats.gguf"]


def test_samples_come_from_every_task_in_turn(bench: Path) -> None:
    chosen, probes = choose(ecgbench.open_bench(bench), Plan(bench, samples=4))
    assert sorted(task for task, _ in chosen) == [
        "ecgqa-test",
        "ecgqa-test",
        "ptb-test",
        "ptb-test",
    ]
    assert probes == chosen


def test_only_the_splits_calibration_ids_are_taken(bench: Path, tmp_path: Path) -> None:
    opened = ecgbench.open_bench(bench)
    samples = [s for task in TASKS for s in opened.samples(task, lambda _: None)]
    split = splits.split(samples, "key", 0.4)
    splits.save(split, tmp_path / "split.json")
    chosen, _ = choose(opened, Plan(bench, split=tmp_path / "split.json", samples=100))
    assert chosen == {(task, name) for task, ids in split.calibration.items() for name in ids}


# --- refusals ---------------------------------------------------------------------------------


def test_a_bench_without_pictures_is_refused(tiny_kit: Path, bench: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for task in TASKS:
        shutil.copy(bench / f"{task}.json", bare)
    notes: list[str] = []
    with pytest.raises(BenchError, match="no sample could be used"):
        collect(tiny_kit, tmp_path / "out" / "stats.gguf", Plan(bare, samples=2), say=notes.append)
    assert len([line for line in notes if "is missing" in line]) == 2
    assert not (tmp_path / "out").exists()


def test_what_another_run_left_is_refused(
    tiny_kit: Path, plan: Plan, file: Path, tmp_path: Path
) -> None:
    shutil.copy(file, tmp_path / "stats.gguf.partial")
    with pytest.raises(BenchError, match="another run left"):
        collect(tiny_kit, tmp_path / "stats.gguf", Plan(plan.bench, samples=3))


def test_parts_that_share_samples_are_refused(file: Path) -> None:
    with pytest.raises(BenchError, match="4 samples in common"):
        statistics_file.merge(
            [(file, statistics_file.load(file)), (file, statistics_file.load(file))]
        )


def test_a_split_of_other_data_is_refused(tiny_kit: Path, bench: Path, tmp_path: Path) -> None:
    split = {
        "key": "k",
        "share": 0.5,
        "calibration": {"ptb-test": ["x"]},
        "test": {},
        "content": "",
    }
    (tmp_path / "split.json").write_text(json.dumps(split))
    with pytest.raises(BenchError, match="none of the split's calibration ids"):
        collect(tiny_kit, tmp_path / "stats.gguf", Plan(bench, split=tmp_path / "split.json"))


def test_an_existing_file_is_kept(tiny_kit: Path, plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "stats.gguf").write_text("precious")
    with pytest.raises(BenchError, match="exists already"):
        collect(tiny_kit, tmp_path / "stats.gguf", plan)


def test_a_part_beyond_the_last_is_refused(bench: Path) -> None:
    with pytest.raises(UsageError, match="part 3 of 2"):
        choose(ecgbench.open_bench(bench), Plan(bench, part=(3, 2)))


def test_a_file_of_another_kind_is_refused(tiny_kit: Path) -> None:
    with pytest.raises(BenchError, match="not a file of `calibration collect`"):
        statistics_file.load(tiny_kit / "llm.gguf")


def test_an_older_manifest_without_quantization_is_its_own_base(tiny_kit: Path) -> None:
    raw = json.loads((tiny_kit / "manifest.json").read_text())
    del raw["quantization"]
    manifest = parse_manifest(json.dumps(raw))
    assert base_of(manifest)["language"] == manifest.files["llm.gguf"].sha256
