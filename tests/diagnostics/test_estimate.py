"""The estimate of `interpret --dry-run`."""

from __future__ import annotations

import pytest
from checkout import ROOT
from golden_kits import MINIATURE

from pulse_edge.cli.main import cli
from pulse_edge.machine import profile

pytestmark = pytest.mark.usefixtures("one_core_and_own_cache")
PAGE = ROOT / "pulse_edge" / "assets" / "example_page.png"
SPEED = profile.Speed(10.0, 4.0, 8.0, 2.5, 4, 2)


def test_an_estimate_without_a_machine_profile_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(
            ["interpret", str(PAGE), "--kit", str(MINIATURE), "--dry-run"], standalone_mode=False
        )
    out = capsys.readouterr().out
    assert "720 image tokens; how long it takes is not known yet: run pulse-edge doctor" in out
    assert "memory: at most" in out


def test_an_estimate_adds_up_the_measured_speeds() -> None:
    assert SPEED.seconds(5, 2880, [(40, 100), (16, 50)]) == pytest.approx(
        5 * 4 + (2880 + 56) / 8 + 150 / 2.5
    )
