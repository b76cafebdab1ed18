"""`pulse-edge check`: the verdict rests on the trace as well, like that of the other commands."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import measured_pages
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from calibration.synthetic import draw
from pulse_edge.cli.main import cli


@pytest.fixture(scope="module")
def flat_line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page whose leads are all flat."""
    recording = measured_pages.synthetic().recording
    silent = replace(recording, signal=np.zeros(recording.signal.shape, np.float32))
    path = tmp_path_factory.mktemp("pages") / "flat.png"
    Image.fromarray(draw(silent, measured_pages.STYLE).image).save(path)
    return path


def test_page_without_a_heartbeat_is_usable_and_says_so(flat_line: Path) -> None:
    done = CliRunner().invoke(cli, ["check", str(flat_line)])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0].startswith("usable")
    assert "No heartbeat in the trace: asystole, or the leads were off." in lines[1]


def test_json_names_the_check(flat_line: Path) -> None:
    done = CliRunner().invoke(cli, ["check", "--json", str(flat_line)])
    page = json.loads(done.output.splitlines()[0])
    assert page["verdict"] == "usable"
    assert (page["reasons"][0]["check"], page["reasons"][0]["value"]) == ("flat", 12.0)
    assert page["leads"] == 12
