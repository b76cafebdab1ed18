"""The commands of README and quickstarts run, as they stand or as an equivalent on a small kit."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import ROOT
from guides import commands

ASSETS = ROOT / "pulse_edge" / "assets"
"""The example page and the demo kit."""


def run(folder: Path, program: str, *words: str, answers: str = "") -> str:
    """Run a command of the documents in a folder; return what it printed, and fail where it failed."""
    module = {"pulse-edge": "pulse_edge"}.get(program, program)
    done = subprocess.run(
        [sys.executable, "-m", module, *words],
        cwd=folder,
        input=answers,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        # A kit that doctor proves here must not count as proven for other tests.
        env=os.environ | {"PYTHONPATH": str(ROOT), "PULSE_EDGE_STATE": str(folder / "state")},
    )
    assert done.returncode == 0, f"{program} {' '.join(words)}: {done.stderr}"
    return done.stdout


@pytest.fixture
def clinic(tmp_path: Path) -> Path:
    """A folder with a page and a kit, as the guides call them."""
    folder = tmp_path
    shutil.copy(ASSETS / "example_page.png", folder / "scan.jpg")
    (folder / "DIR").mkdir()
    shutil.copy(ASSETS / "example_page.png", folder / "DIR" / "page.png")
    (folder / "KIT").symlink_to(ASSETS / "kits" / "miniature")
    return folder


def confirm_a_report(clinic: Path) -> None:
    """Answer about the page and confirm the report, so that there is something to compare."""
    run(
        clinic,
        "pulse-edge",
        "interpret",
        "scan.jpg",
        "--kit",
        "KIT",
        "--format",
        "json",
        "-o",
        "OUT",
    )
    (report,) = (clinic / "OUT").glob("*.json")
    words = ["audit", "confirm", str(report), "--reader", "Dr A. Diallo", "--agree"]
    run(clinic, "pulse-edge", *words)


READERS = ["README.md", "docs/quickstart-clinician.md"]
CLINIC = [words for name in READERS for words in commands(ROOT / name)]


@pytest.mark.parametrize("words", CLINIC, ids=" ".join)
def test_commands_for_readers_run_on_the_demo_kit(clinic: Path, words: list[str]) -> None:
    if words[1] == "serve":
        words = [*words, "--help"]  # it runs until Ctrl-C: see tests/web/test_serve_command.py
    if words[1] in ("interpret", "ask", "batch") and "--kit" not in words:
        words = [*words, "--kit", "KIT"]
    if words[1] == "audit":
        confirm_a_report(clinic)
    assert run(clinic, *words, answers="Is the rhythm regular?\n/quit\n")


def test_commands_for_engineers_make_and_measure_a_kit(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """The chain of the quickstart, with a checkpoint of a few MB and twelve pages."""
    shutil.copytree(tiny_checkpoint, tmp_path / "export" / "miniature" / "checkpoint")
    shutil.copytree(ASSETS, tmp_path / "pulse_edge" / "assets")
    small = {"40": "12"}
    shorter = {"evaluate": ["--limit", "1"]}
    chain = commands(ROOT / "docs" / "quickstart-engineer.md")
    assert [words[1] for words in chain] == [
        "convert", "synthesize", "split", "collect", "quantize", "evaluate", "report", "interpret",
    ]  # fmt: skip
    for words in chain:
        run(tmp_path, *(small.get(word, word) for word in words), *shorter.get(words[1], []))
    assert (tmp_path / "report" / "report.html").is_file()
