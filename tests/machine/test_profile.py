"""The machine profile on disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from golden_kits import MINIATURE

from pulse_edge.kit.kit import open_kit
from pulse_edge.machine import cpu, profile

pytestmark = pytest.mark.usefixtures("one_core_and_own_cache")
SPEED = profile.Speed(10.0, 4.0, 8.0, 2.5, 4, 2)


def test_a_machine_profile_belongs_to_one_kit_and_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit = open_kit(MINIATURE)
    assert profile.store(kit, profile.MachineProfile(SPEED)) is None
    assert profile.recall(kit) == profile.MachineProfile(SPEED)
    assert profile.file(kit).stat().st_mode & 0o077 == 0
    assert profile.recall(replace(kit, sha256="0" * 64)) == profile.MachineProfile()
    monkeypatch.setattr(cpu, "allowed", lambda: frozenset({0, 1}))
    assert profile.recall(kit) == profile.MachineProfile()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"speed": {"load_seconds": 0}}'])
def test_a_damaged_machine_profile_is_empty(content: str) -> None:
    kit = open_kit(MINIATURE)
    profile.store(kit, profile.MachineProfile())
    profile.file(kit).write_text(content)
    assert profile.recall(kit) == profile.MachineProfile()
