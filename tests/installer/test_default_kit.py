"""Which kit answers after an installation."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import small_bundle
from installations import KEY, answering, run

from pulse_edge.installer import machine
from pulse_edge.installer.bundle import BundledKit, open_bundle
from pulse_edge.installer.default_kit import DefaultKit, select
from pulse_edge.kit import locate

pytest.importorskip("cryptography", reason="signing needs the package cryptography")


def test_after_an_update_with_another_kit_the_new_one_answers(
    home: Path, bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert answering(home, monkeypatch) == "kit-a"
    done = run(bundles["more"], home)
    assert (
        "kits: kit-a, kit-b. kit-b answers; `pulse-edge kit use NAME` chooses another"
        in done.stderr
    )
    assert answering(home, monkeypatch) == "kit-b"
    assert run(bundles["more"], home, "--rollback").returncode == 0
    assert answering(home, monkeypatch) == "kit-a"


def test_a_kit_that_a_person_chose_stays_through_updates(
    home: Path, bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(home, monkeypatch)
    locate.choose("kit-a")
    assert "kit-a answers, as you chose" in run(bundles["more"], home).stderr
    assert answering(home, monkeypatch) == "kit-a"


def test_the_kit_that_was_packed_first_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = [small_bundle.kit(tmp_path / name, name) for name in ("z", "a")]
    bundle_of_two = small_bundle.make(
        tmp_path / "bundle", *packed, wheel=small_bundle.program(tmp_path), key=KEY
    )
    assert run(bundle_of_two, tmp_path / "home").returncode == 0
    assert answering(tmp_path / "home", monkeypatch) == "z"


@pytest.mark.parametrize(("mebibytes", "name"), [(2000, "first"), (900, "small"), (100, "small")])
def test_a_kit_that_is_too_large_for_the_machine_does_not_answer(
    bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch, mebibytes: int, name: str
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(machine, "installed_memory", lambda: mebibytes << 20)
    opened = open_bundle(bundles["one"])
    memory = {"first": 1 << 30, "large": 2 << 30, "small": 400 << 20}
    opened = dataclasses.replace(
        opened, kits={kit: BundledKit(kit, n, {}) for kit, n in memory.items()}, default="first"
    )
    default = select(opened, None, list(memory), lines.append)
    assert default == DefaultKit(name, chosen=False)
    assert (name == "first") == (not any("first needs 1.0 GiB of memory" in line for line in lines))
