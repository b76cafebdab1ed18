"""Golden cases: when a kit's stored answers count as the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from golden_kits import altered

from pulse_edge.diagnostics import golden, self_test
from pulse_edge.errors import KitError


@pytest.mark.parametrize(
    ("figures", "passed"),
    [((0.04, 0, 0), True), ((0.06, 0, 0), False), ((0, 0.09, 0.09), True), ((0, 0, 0.2), False)],
)
def test_a_case_comes_back_within_the_tolerance(
    figures: tuple[float, float, float], passed: bool
) -> None:
    assert golden.Outcome("?", *figures, 0.05).passed == passed


def test_golden_cases_that_cannot_be_read_are_an_error(tmp_path: Path) -> None:
    kit = altered(tmp_path / "kit", offset=0.0)
    kit.file(golden.FILE).write_text('[{"page": 1}]')
    with pytest.raises(KitError, match=r"golden\.json: its golden cases cannot be read"):
        golden.read(kit)


def test_a_kit_without_golden_cases_has_none(tmp_path: Path) -> None:
    kit = altered(tmp_path / "kit", offset=None)
    assert golden.read(kit)[1] == ()
    assert golden.read(kit)[0] == golden.TOLERANCE
    language = replace(kit.manifest.language, type="Q4_K_M")
    coarse = replace(kit, manifest=replace(kit.manifest, language=language))
    assert golden.read(coarse)[0] == golden.TOLERANCE_QUANTIZED
    check = self_test.golden_check([])
    assert (check.state, "compared with nothing" in check.text) == ("warning", True)


@pytest.mark.parametrize(
    ("tolerance", "rms_tolerance"),
    [(1e9, 0.1), ("inf", 0.1), ("nan", 0.1), (0, 0.1), (-1, 0.1), (0.05, "nan"), (0.05, -1)],
)
def test_a_tolerance_that_proves_nothing_is_refused(
    tmp_path: Path, tolerance: object, rms_tolerance: object
) -> None:
    kit = altered(tmp_path / "kit", offset=0.0)
    stated = json.loads(kit.file(golden.FILE).read_text()) | {
        "tolerance": tolerance,
        "rms_tolerance": rms_tolerance,
    }
    kit.file(golden.FILE).write_text(json.dumps(stated))
    with pytest.raises(KitError, match="cannot prove a kit"):
        golden.read(kit)
