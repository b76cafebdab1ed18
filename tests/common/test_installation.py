"""The program reads what the installer writes; the two share no code."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from pulse_edge.audit_log import log
from pulse_edge.common import installation, paths
from pulse_edge.installer import bundle, default_kit, home, user_data


def test_the_names_of_the_files_are_those_of_the_installer() -> None:
    assert installation.BUNDLE_MANIFEST == bundle.BUNDLE_MANIFEST
    assert installation.INSTALL_RECORD == home.INSTALL_RECORD
    assert installation.DEFAULT_KIT == home.DEFAULT_KIT


def test_the_installers_default_kit_is_read(tmp_path: Path) -> None:
    default_kit.write_default(tmp_path, default_kit.DefaultKit("kit-a", chosen=False))
    assert installation.read_default(tmp_path) == installation.DefaultKit("kit-a", chosen=False)


def test_a_chosen_kit_is_read_by_the_installer(tmp_path: Path) -> None:
    installation.write_default(tmp_path, installation.DefaultKit("kit-b", chosen=True))
    assert default_kit.read_default(tmp_path) == default_kit.DefaultKit("kit-b", chosen=True)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other permissions")
def test_every_user_may_read_the_default_kit(tmp_path: Path) -> None:
    installation.write_default(tmp_path, installation.DefaultKit("kit-b", chosen=True))
    assert (tmp_path / "default-kit.json").stat().st_mode & 0o777 == 0o644


def test_a_program_that_no_bundle_installed_has_no_home() -> None:
    assert installation.home() is None


@pytest.mark.parametrize(
    "record", ["[]", "{", '{"kits": {}}', '{"warning": 1, "kits": {}}', '{"warning": null}']
)
def test_a_broken_record_is_an_error(tmp_path: Path, record: str) -> None:
    (tmp_path / "install.json").write_text(record)
    with pytest.raises(ValueError, match=r"."):
        installation.read_record(tmp_path)


def test_the_record_holds_a_warning_for_each_kit(tmp_path: Path) -> None:
    text = {"program": "1.0", "key": None, "warning": "UNSIGNED", "kits": {"kit-a": None}}
    (tmp_path / "install.json").write_text(json.dumps(text))
    assert installation.read_record(tmp_path) == installation.InstallRecord(
        "UNSIGNED", {"kit-a": None}
    )


def test_the_installer_removes_the_folders_that_the_program_writes_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME", "PULSE_EDGE_AUDIT_LOG"):
        monkeypatch.delenv(name, raising=False)
    assert user_data.usual_folders() == (paths.user_cache(), log.default_folder())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "b"))
    assert user_data.usual_folders() == (paths.user_cache(), log.default_folder())
