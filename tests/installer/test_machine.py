"""What the machine must have."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from installations import direct

from pulse_edge.installer import machine
from pulse_edge.installer.refusal import Refused

pytest.importorskip("cryptography", reason="signing needs the package cryptography")


def test_too_little_disk_is_refused_with_figures(
    bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(1, 1, 1 << 20))
    with pytest.raises(Refused, match=r"needs 0\.3 GiB of disk, and 0\.0 GiB are free"):
        direct(bundles["one"], tmp_path / "home")
    assert not (tmp_path / "home").exists()


def test_too_little_memory_is_refused_with_figures(
    bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "installed_memory", lambda: 1 << 28)
    with pytest.raises(Refused, match=r"needs 0\.3 GiB of memory, and this machine has 0\.2 GiB"):
        direct(bundles["one"], tmp_path / "home")


def test_a_bundle_for_another_machine_says_for_which(
    bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "this_platform", lambda: "windows-x86_64")
    with pytest.raises(
        Refused, match=r"made for linux-.* with Python 3\.\d+; this is windows-x86_64"
    ):
        direct(bundles["one"], tmp_path / "home")
