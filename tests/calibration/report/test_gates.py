"""Gates of a recipe, and the exit code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from given_results import two_kits

from calibration.__main__ import cli
from calibration.report.gates import load_gates
from pulse_edge.errors import UsageError

RECIPES = "recipes:\n  q4:\n    gates: {same_top: 0.9, lost_answers: 0.1}\n  odd:\n    gates: {beauty: 1}\n  bare: {}\n  kld: {kld: 0.1}\n"


@pytest.fixture
def recipes(tmp_path: Path) -> Path:
    (tmp_path / "recipes.yaml").write_text(RECIPES)
    return tmp_path / "recipes.yaml"


def run(folder: Path, recipes: Path, *more: str) -> Any:
    arguments = [
        "report",
        str(folder),
        "-o",
        str(folder.parent / "report"),
        "--gates",
        "q4",
        "--recipes",
        str(recipes),
    ]
    return CliRunner().invoke(cli, [*arguments, *more])


@pytest.mark.parametrize(
    ("answers", "code"), [("A" * 10, 0), ("A" * 9 + "B", 0), ("A" * 8 + "BB", 1)]
)
def test_the_exit_code_is_1_when_a_gate_does_not_pass(
    tmp_path: Path, recipes: Path, answers: str, code: int
) -> None:
    done = run(two_kits(tmp_path, "A" * 10, answers, kld=[0.1], same=[1]), recipes)
    assert done.exit_code == code, done.output
    assert ("not passed: q4: lost_answers" in done.stderr) == bool(code)
    assert (tmp_path / "report" / "report.html").exists()


def test_a_gate_that_was_not_measured_does_not_pass(tmp_path: Path, recipes: Path) -> None:
    done = run(two_kits(tmp_path, "AA", "AA"), recipes)
    assert done.exit_code == 1
    assert "not passed: q4: same_top" in done.stderr


@pytest.mark.parametrize(
    ("recipe", "why"),
    [("odd", "unknown gates beauty"), ("bare", "has no gates"), ("none", "has no recipe none")],
)
def test_gates_that_are_not_known_are_refused(recipes: Path, recipe: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        load_gates(recipes, recipe)


def test_a_recipes_kld_is_a_gate_for_the_mean(recipes: Path) -> None:
    assert load_gates(recipes, "kld") == {"mean_kld": 0.1}
