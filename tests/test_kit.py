from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pulse_edge import kit as kits
from pulse_edge import memory
from pulse_edge.errors import KitError, MemoryShortage


@pytest.fixture
def copy(tiny_kit: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_kit, tmp_path / "kit"))


def rewrite(kit: Path, **fields: object) -> None:
    raw = json.loads((kit / "manifest.json").read_text()) | fields
    (kit / "manifest.json").write_text(json.dumps(raw))


def test_a_newer_manifest_asks_for_an_update(copy: Path) -> None:
    rewrite(copy, manifest_version=kits.MANIFEST_VERSION + 1)
    with pytest.raises(KitError, match="Update pulse-edge"):
        kits.open_kit(copy)


def test_unknown_fields_are_refused_by_name(copy: Path) -> None:
    rewrite(copy, surprise=1)
    with pytest.raises(KitError, match="surprise"):
        kits.open_kit(copy)


def test_missing_and_foreign_files_are_named_at_once(copy: Path) -> None:
    (copy / "vision.onnx").unlink()
    (copy / "extra.bin").write_bytes(b"x")
    with pytest.raises(KitError, match=r"vision.onnx is missing.*extra.bin does not belong"):
        kits.open_kit(copy)


def test_a_directory_without_manifest_is_unfinished(tmp_path: Path) -> None:
    with pytest.raises(KitError, match="unfinished"):
        kits.open_kit(tmp_path)


def test_too_little_memory_is_said_with_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 2 << 30)
    with pytest.raises(MemoryShortage, match=r"needs 7\.3 GiB.*2\.0 GiB are free"):
        memory.require("kit", language=5 << 30, key_values=1 << 30, encoder=1 << 30)
