from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def synthetic_bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve synthetic pages with the questions of all tasks."""
    from calibration.synthesize import Plan, synthesize

    folder = tmp_path_factory.mktemp("bench") / "bench"
    synthesize(folder, Plan(12, 3))
    return folder
