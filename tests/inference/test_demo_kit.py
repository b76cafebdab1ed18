"""The kit that the package carries."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from checkout import ROOT

from pulse_edge import PulseModel
from pulse_edge.kit import locate
from pulse_edge.kit.kit import open_kit
from pulse_edge.kit.verify import verify
from pulse_edge.report.report import DEMONSTRATION, NOT_PROVEN

KIT = ROOT / "pulse_edge" / "assets" / "kits" / "miniature"
CASES = json.loads((KIT / "golden.json").read_text("utf-8"))["cases"]


def test_the_demo_kit_is_intact_small_and_marked() -> None:
    kit = open_kit(KIT)
    verify(kit)
    assert kit.manifest.demonstration
    assert sum(file.bytes for file in kit.manifest.files.values()) <= 16_000_000
    assert "PTB-XL" in (KIT / "MODEL_CARD.md").read_text("utf-8")


def test_the_demo_kit_is_found_where_no_other_is_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("PULSE_EDGE_KIT", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert locate.find(None).path == KIT


def test_the_demo_kits_golden_cases_come_back() -> None:
    with PulseModel.load(KIT, device="cpu") as model:
        scan = model.encode(ROOT / "pulse_edge" / "assets" / "example_page.png")
        for case in CASES:
            answering = model.ask(scan, case["question"])
            assert "".join(answering) == case["text"]
            assert answering.ids == case["tokens"]
            (logits,) = model.score(scan, case["question"], [case["tokens"][:1]])
            assert np.abs(logits[0] - np.array(case["first_logits"])).max() < 0.05


def test_the_demo_kits_answers_carry_its_notice() -> None:
    with PulseModel.load(KIT, device="cpu") as model:
        report = model.interpret(
            ROOT / "pulse_edge" / "assets" / "example_page.png", CASES[0]["question"]
        )
    assert report.kit.demonstration
    assert report.notice.splitlines() == [DEMONSTRATION, NOT_PROVEN]
    assert json.loads(report.to_json())["kit"]["demonstration"] is True
