from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from export.convert import Options, convert
from pulse_edge.errors import CheckpointError, KitError

SHARD = "model-00001-of-00001.safetensors"


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


def test_missing_and_unexpected_tensors_are_listed_at_once(source: Path, tmp_path: Path) -> None:
    tensors = load_file(source / SHARD)
    tensors["model.extra.weight"] = tensors.pop("model.norm.weight")
    save_file(tensors, source / SHARD)
    refused(source, tmp_path, "missing: model.norm.weight; unexpected: model.extra.weight")


def test_weights_that_are_not_numbers_leave_nothing_behind(source: Path, tmp_path: Path) -> None:
    tensors = load_file(source / SHARD)
    tensors["model.norm.weight"][3] = np.nan
    save_file(tensors, source / SHARD)
    refused(source, tmp_path, "model.norm.weight has NaN")


def test_a_truncated_shard_is_refused(source: Path, tmp_path: Path) -> None:
    with open(source / SHARD, "r+b") as f:
        f.truncate(1 << 20)
    refused(source, tmp_path, "truncated")


def test_what_the_config_asks_for_beyond_llava_is_refused_by_name(source: Path, tmp_path: Path) -> None:
    config = json.loads((source / "config.json").read_text())
    config |= {"mm_projector_type": "linear", "mm_surprise": 3}
    (source / "config.json").write_text(json.dumps(config))
    refused(source, tmp_path, r"mm_projector_type is 'linear'.*mm_surprise")


def test_an_existing_target_is_kept_unless_forced(source: Path, tmp_path: Path) -> None:
    (tmp_path / "kit").mkdir()
    (tmp_path / "kit" / "letter.txt").write_text("mine")
    for force in (False, True):
        with pytest.raises(KitError, match="exists"):
            convert(source, tmp_path / "kit", Options(force=force))
    assert (tmp_path / "kit" / "letter.txt").read_text() == "mine"
