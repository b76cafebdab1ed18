"""The page about the commands says what --help says."""

from __future__ import annotations

import pytest
from checkout import ROOT

pytest.importorskip("yaml", reason="the workstation's programs need their dependencies")


def test_reference_of_commands_is_up_to_date() -> None:
    from scripts import cli_reference

    written = (ROOT / "docs" / "cli.md").read_text("utf-8")
    assert written == cli_reference.reference(), "run `make docs`"
