from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from export.convert import Options, convert
from pulse_edge.common import paths
from pulse_edge.errors import CheckpointError, EngineError, KitError, ScanError, UsageError
from pulse_edge.inference.decoding import generate

SHARD = "model-00001-of-00001.safetensors"
INDEX = "model.safetensors.index.json"


@pytest.fixture
def source(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "source"))


def refused(source: Path, tmp_path: Path, words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        convert(source, tmp_path / "out" / "kit", Options())
    left = list((tmp_path / "out").iterdir()) if (tmp_path / "out").exists() else []
    assert left == []


def test_the_manifest_tells_packing_parity_and_source(tiny_kit: Path) -> None:
    manifest = json.loads((tiny_kit / "manifest.json").read_text())
    assert manifest["packing"]["merge"] == "flat"
    assert manifest["parity"]["vision"]["cosine_min"] > 0.9999
    assert manifest["parity"]["language"]["same_top_token"]
    assert manifest["parity"]["prompt"]["equal"]
    assert SHARD in manifest["source"]["files"]


def test_the_manifest_lists_every_file_that_was_read(tiny_kit: Path) -> None:
    listed = json.loads((tiny_kit / "manifest.json").read_text())["source"]["files"]
    read = {
        "config.json",
        "generation_config.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "special_tokens_map.json",
    }
    assert listed.keys() == read | {
        "vision_tower/config.json",
        "vision_tower/preprocessor_config.json",
        SHARD,
    }


def test_impossible_settings_of_tokenizer_and_config_are_refused_before_any_work(
    source: Path, tmp_path: Path
) -> None:
    (source / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 400]}))
    steps: list[str] = []
    with pytest.raises(CheckpointError, match="eos_token_id 400 is beyond the vocabulary of 400"):
        convert(source, tmp_path / "kit", Options(), steps.append)
    assert not steps
    config = json.loads((source / "config.json").read_text()) | {"rms_norm_eps": "1e-05"}
    (source / "config.json").write_text(json.dumps(config))
    refused(source, tmp_path, "rms_norm_eps is '1e-05', expected a number above 0")


def test_a_kit_ends_its_answers_on_each_stated_id_after_quantizing_too(
    source: Path, tmp_path: Path
) -> None:
    from export import quantize
    from pulse_edge import PulseModel

    (source / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 117]}))
    convert(source, tmp_path / "kit", Options(vision="fp32"))
    quantize.quantize(tmp_path / "kit", tmp_path / "small", quantize.Options(llm="Q8_0"))
    for kit in (tmp_path / "kit", tmp_path / "small"):
        with PulseModel.load(kit, device="cpu", threads=1) as model:
            logits = np.zeros(400, np.float32)
            logits[117] = 1
            assert list(generate(model.language, logits, 1)) == []


def test_missing_and_unexpected_tensors_are_listed_at_once(source: Path, tmp_path: Path) -> None:
    tensors = load_file(source / SHARD)
    tensors["model.extra.weight"] = tensors.pop("model.norm.weight")
    del tensors["lm_head.weight"]
    save_file(tensors, source / SHARD)
    refused(
        source,
        tmp_path,
        "missing: lm_head.weight; missing: model.norm.weight; unexpected: model.extra.weight",
    )


def test_wrong_shapes_are_listed_at_once_with_what_the_config_says(
    source: Path, tmp_path: Path
) -> None:
    tensors = load_file(source / SHARD)
    tensors["model.norm.weight"] = tensors["model.norm.weight"][:-1]
    tensors["lm_head.weight"] = np.ascontiguousarray(tensors["lm_head.weight"].T)
    save_file(tensors, source / SHARD)
    head = r"shape of lm_head.weight is \[256, 400\], the config says \[400, 256\]"
    refused(
        source, tmp_path, rf"{head}; shape of model.norm.weight is \[255\], the config says \[256\]"
    )


def test_a_tensor_in_two_shards_is_refused(source: Path, tmp_path: Path) -> None:
    tensors = load_file(source / SHARD)
    save_file(
        {n: tensors[n] for n in ("lm_head.weight", "model.norm.weight")},
        source / "more.safetensors",
    )
    index = json.loads((source / INDEX).read_text())
    index["weight_map"]["lm_head.weight"] = "more.safetensors"
    (source / INDEX).write_text(json.dumps(index))
    refused(source, tmp_path, "doubled: lm_head.weight; doubled: model.norm.weight")


def test_a_tensor_under_two_layouts_names_is_refused(source: Path, tmp_path: Path) -> None:
    tensors = load_file(source / SHARD)
    tensors["language_model.model.norm.weight"] = tensors["model.norm.weight"]
    save_file(tensors, source / SHARD)
    refused(source, tmp_path, "doubled: model.norm.weight")


def test_shards_that_an_index_names_and_that_are_absent_are_listed(
    source: Path, tmp_path: Path
) -> None:
    (source / INDEX).write_text(
        json.dumps({"weight_map": {"a": SHARD, "b": "two.safetensors", "c": "x.safetensors"}})
    )
    refused(source, tmp_path, "two.safetensors; x.safetensors, which are not there")


def test_too_little_room_on_the_disk_is_said_before_any_work(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=10**7))
    refused(source, tmp_path, r"needs 0\.1 GB of disk, and 0\.0 GB are free")


def test_a_broken_installation_of_onnx_runtime_is_said_before_any_work(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.metadata.distribution", lambda _name: None)
    with pytest.raises(EngineError, match="both onnxruntime and onnxruntime-gpu are installed"):
        convert(source, tmp_path / "kit", Options())


@pytest.mark.parametrize(
    "bad", ["not JSON", "[1]", '{"weight_map": [1]}', '{"weight_map": {"a": 1}}', "\xff"]
)
def test_an_index_that_is_none_is_refused(source: Path, tmp_path: Path, bad: str) -> None:
    (source / INDEX).write_bytes(bad.encode("latin-1"))
    refused(source, tmp_path, INDEX)


def test_the_command_ends_with_one_line_and_code_1(source: Path, tmp_path: Path) -> None:
    with open(source / SHARD, "r+b") as f:
        f.truncate(1 << 20)
    command = [sys.executable, "-m", "export", "convert", str(source), "-o", str(tmp_path / "kit")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    (error,) = done.stderr.splitlines()
    assert error.startswith(f"error: {source}: {SHARD}: truncated")
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


def test_steps_and_bytes_are_reported_to_the_end(tiny_checkpoint: Path, tmp_path: Path) -> None:
    steps: dict[str, list[tuple[int, int]]] = {}

    def say(text: str) -> None:
        if text == "writing the vision encoder":
            raise LookupError("enough")
        steps[text] = []

    with pytest.raises(LookupError, match="enough"):
        convert(
            tiny_checkpoint,
            tmp_path / "kit",
            Options(),
            say,
            progress=lambda *step: list(steps.values())[-1].append(step),
        )
    for step in ("reading the source files", "writing the language model"):
        assert steps[step] == sorted(steps[step])
        assert steps[step][-1][0] == steps[step][-1][1] > 5e6


def test_a_terminal_gets_a_bar_and_a_file_gets_lines() -> None:
    code = "from export.progress import display\nwith display() as (say, progress):\n"
    code += "    say('writing [1]'); progress(3_000_000, 6_000_000); say('proving [2]')"
    command = [sys.executable, "-c", code]
    ours, theirs = pty.openpty()
    subprocess.run(
        command, stderr=theirs, env=os.environ | {"TERM": "xterm", "COLUMNS": "99"}, check=True
    )
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    os.close(theirs)
    assert "writing [1]" in shown
    assert "━" in shown
    plain = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=True)
    assert plain.stderr == "writing [1]\nproving [2]\n"


def test_weights_that_are_not_numbers_leave_nothing_behind(source: Path, tmp_path: Path) -> None:
    tensors = load_file(source / SHARD)
    tensors["model.norm.weight"][3] = np.nan
    save_file(tensors, source / SHARD)
    refused(source, tmp_path, "model.norm.weight has NaN")


def test_a_truncated_shard_is_refused(source: Path, tmp_path: Path) -> None:
    with open(source / SHARD, "r+b") as f:
        f.truncate(1 << 20)
    refused(source, tmp_path, "truncated")


def test_a_config_that_asks_for_more_than_llava_is_refused_by_name(
    source: Path, tmp_path: Path
) -> None:
    config = json.loads((source / "config.json").read_text())
    config |= {"mm_projector_type": "linear", "mm_surprise": 3}
    (source / "config.json").write_text(json.dumps(config))
    refused(source, tmp_path, r"mm_projector_type is 'linear'.*mm_surprise")


def test_an_existing_target_stays_unless_forced(source: Path, tmp_path: Path) -> None:
    (tmp_path / "kit").mkdir()
    (tmp_path / "kit" / "letter.txt").write_text("mine")
    for force in (False, True):
        with pytest.raises(KitError, match="exists"):
            convert(source, tmp_path / "kit", Options(force=force))
    assert (tmp_path / "kit" / "letter.txt").read_text() == "mine"


def test_golden_pages_go_into_a_kit_and_into_its_quantized_kit(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    from export import quantize
    from pulse_edge import PulseModel
    from pulse_edge.diagnostics import golden
    from pulse_edge.kit.kit import open_kit
    from pulse_edge.kit.verify import verify

    page = Path(shutil.copy(paths.EXAMPLE_PAGE, tmp_path / "page.png"))
    whole, small = tmp_path / "whole", tmp_path / "small"
    with pytest.raises(UsageError, match="at most"):
        convert(tiny_checkpoint, whole, Options(golden=(page,) * 5))
    with pytest.raises(UsageError, match="no such file"):
        convert(tiny_checkpoint, whole, Options(golden=(tmp_path / "none.png",)))
    (tmp_path / "words.png").write_text("no picture")
    steps: list[str] = []
    with pytest.raises(ScanError, match=r"words\.png"):
        convert(tiny_checkpoint, whole, Options(golden=(tmp_path / "words.png",)), steps.append)
    assert not steps  # before anything long begins
    progress: list[tuple[int, int]] = []
    convert(
        tiny_checkpoint,
        whole,
        Options(vision="fp32", golden=(page,)),
        steps.append,
        None,
        lambda *step: progress.append(step),
    )
    assert steps[-3:] == [
        "golden cases: loading the new kit",
        "golden cases: 3 questions about page.png, page 1 of 1",
        "golden cases: measuring how far right answers of other machines may differ",
    ]
    assert progress[-3:] == [(0, 3), (1, 3), (2, 3)]
    quantize.quantize(whole, small, quantize.Options(llm="Q8_0", golden=(page,)))
    for kit in (whole, small):
        assert (kit / "golden-1.png").read_bytes() == page.read_bytes()
        verify(open_kit(kit))
        with PulseModel.load(kit, device="cpu", threads=1) as model:
            outcomes = golden.check(
                model, lambda path: model.encode(path, force=True), lambda _done, _of: None
            )
        assert len(outcomes) == 3
        assert all(outcome.passed for outcome in outcomes)
