"""The curve of a training as a drawing."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from export.miniature.curve import main, spaced


def exam(pages: int, f1: float) -> str:
    scores = {"f1": {"AF": f1, "LBBB": 0.5}, "rate_within_5": 0.25}
    return json.dumps({"pages": pages, "stage": "tower", "exam": scores}) + "\n"


def test_the_drawing_names_every_score_and_is_the_same_every_time(tmp_path: Path) -> None:
    (tmp_path / "curve.jsonl").write_text(exam(10, 0.1) + exam(20, 0.9))
    for name in ("a.svg", "b.svg"):
        arguments = [str(tmp_path / "curve.jsonl"), str(tmp_path / name)]
        assert CliRunner().invoke(main, arguments).exit_code == 0
    svg = (tmp_path / "a.svg").read_text()
    assert svg == (tmp_path / "b.svg").read_text()
    assert all(f">{name}<" in svg for name in ("AF", "LBBB", "rate within 5 bpm"))


def test_a_training_without_an_exam_has_no_curve(tmp_path: Path) -> None:
    (tmp_path / "curve.jsonl").write_text('{"pages": 1}\n')
    done = CliRunner().invoke(main, [str(tmp_path / "curve.jsonl"), str(tmp_path / "out.svg")])
    assert done.exit_code == 1
    assert "has no exam yet" in done.output


@pytest.mark.parametrize("heights", [[0.5, 0.5, 0.5], [1.0, 0.99, 0.98], [0.1, 0.9, 0.5]])
def test_labels_keep_their_distance_and_stay_below_the_top(heights: list[float]) -> None:
    moved = sorted(spaced(heights, 0.1))
    assert moved[-1] <= 1
    assert all(b - a >= 0.1 - 1e-9 for a, b in itertools.pairwise(moved))
