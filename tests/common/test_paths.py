"""The per-user directories of each system."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pulse_edge.common import paths

VARIABLES = ("XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "LOCALAPPDATA")


@pytest.mark.parametrize(
    ("system", "cache", "data", "state"),
    [
        (
            "linux",
            ".cache/pulse-edge",
            ".local/share/pulse-edge",
            ".local/state/pulse-edge",
        ),
        (
            "darwin",
            "Library/Caches/pulse-edge",
            "Library/Application Support/pulse-edge",
            "Library/Application Support/pulse-edge",
        ),
        (
            "win32",
            "AppData/Local/pulse-edge/cache",
            "AppData/Local/pulse-edge",
            "AppData/Local/pulse-edge",
        ),
    ],
)
def test_user_directories_follow_the_systems_rules(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, system: str, cache: str, data: str, state: str
) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", system)
    directories = (paths.user_cache(), paths.user_data(), paths.user_state())
    assert directories == (tmp_path / cache, tmp_path / data, tmp_path / state)


def test_xdg_variables_move_the_user_directories(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    for variable in VARIABLES:
        monkeypatch.setenv(variable, str(tmp_path / variable))
    assert paths.user_cache() == tmp_path / "XDG_CACHE_HOME" / "pulse-edge"
    assert paths.user_data() == tmp_path / "XDG_DATA_HOME" / "pulse-edge"
    assert paths.user_state() == tmp_path / "XDG_STATE_HOME" / "pulse-edge"
