"""Small checkpoints that several tests convert."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small checkpoint in each layout."""
    root = tmp_path_factory.mktemp("config")
    return {
        "llava": tiny.checkpoint(root / "llava"),
        "llava_next": tiny.checkpoint(root / "hub", "--hub-names"),
    }
