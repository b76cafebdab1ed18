"""The page about the commands says what --help says."""

from __future__ import annotations

import subprocess
import sys

import pytest
from checkout import ROOT

pytest.importorskip("yaml", reason="the workstation's programs need their dependencies")


def test_reference_of_commands_is_up_to_date() -> None:
    """In a process of its own: click stores the names of a command's help option at first use."""
    command = [sys.executable, "-m", "scripts.cli_reference", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
