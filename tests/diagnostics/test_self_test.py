"""The self-test: threads, and the cost of a verification step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from checkout import ROOT
from golden_kits import altered, by_name

from pulse_edge import PulseModel
from pulse_edge.diagnostics import doctor, self_test
from pulse_edge.machine import cpu, profile

pytestmark = pytest.mark.usefixtures("one_core_and_own_cache")
PAGE = ROOT / "pulse_edge" / "assets" / "example_page.png"
SPEED = profile.Speed(10.0, 4.0, 8.0, 2.5, 4, 2)


@pytest.mark.parametrize(
    ("seconds", "threads"),
    [({1: 8.0, 2: 4.1, 4: 4.05}, 2), ({4: 3.0, 8: 3.5}, 4), ({2: 5.0, 4: 4.0, 8: 2.0}, 8)],
)
def test_the_fewest_threads_that_are_fast_enough_are_taken(
    seconds: dict[int, float], threads: int
) -> None:
    assert self_test.best(seconds) == threads


@pytest.mark.parametrize(
    ("shares", "threads"),
    [
        ([0.05], cpu.Threads(1, 1)),
        ([0.9, 0.9, 0.0], cpu.Threads(1, 1)),
        ([None], cpu.Threads(1, 1)),
        ([0.9] * 3, None),
    ],
    ids=["quiet", "quiet at last", "not told", "busy"],
)
def test_threads_are_compared_in_a_quiet_moment_only(
    monkeypatch: pytest.MonkeyPatch, shares: list[float | None], threads: cpu.Threads | None
) -> None:
    remaining = list(shares)
    monkeypatch.setattr(cpu, "candidates", lambda: [1, 2])
    monkeypatch.setattr(cpu.Others, "share", lambda _self: remaining.pop(0))
    monkeypatch.setattr(self_test, "_compare_threads", lambda *_about: cpu.Threads(1, 1))
    anything: Any = None
    assert self_test.fastest(anything, anything) == threads
    assert remaining == []


def test_a_busy_moment_does_not_change_the_stored_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit = altered(tmp_path / "kit", offset=0.0)
    monkeypatch.setattr(self_test, "fastest", lambda *_about: None)
    monkeypatch.setattr(cpu, "threads", lambda: cpu.Threads(2, 1))
    for before, expected in ((None, (2, 1)), (SPEED, (4, 2))):
        if before is not None:
            profile.store(kit, profile.MachineProfile(before))
        results = by_name(list(doctor.examine(kit.path)))
        speed = profile.recall(kit).speed
        assert speed is not None
        assert (speed.prefill_threads, speed.decode_threads) == expected
        assert results["threads"].state == "warning"
        assert "Run pulse-edge doctor again when the machine is quiet" in results["threads"].text


@pytest.mark.parametrize(
    ("slower", "state", "words"),
    [(2.5, "ok", "save time"), (4.5, "warning", "without its draft table")],
)
def test_the_cost_of_a_verification_step_is_measured(
    slower: float, state: str, words: str, tiny_kit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with PulseModel.load(tiny_kit, device="cpu", threads=1) as model:
        scan, language = model.encode(PAGE, admit=False), model.language
        assert self_test._verification_step(model, scan) == []
        language.step_width = 4
        (real,) = self_test._verification_step(model, scan)
        assert real.figures["cost"] > 0
        assert language.has(scan.image_tokens_sha256)
        monkeypatch.setattr(
            self_test.benchmark, "step", lambda _model, _scan, width: slower if width == 4 else 1.0
        )
        (check,) = self_test._verification_step(model, scan)
    assert (check.state, check.figures) == (state, {"width": 4, "cost": slower})
    assert words in check.text
