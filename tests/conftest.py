from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

# A shell's background starts programs with SIGINT ignored, and nohup with SIGHUP; the children of tests must not inherit it.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]


@pytest.fixture(scope="session", autouse=True)
def _record_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Answers of tests do not go into the user's own record, nor their pages into the user's cache."""
    os.environ["PULSE_EDGE_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ["PULSE_EDGE_AUDIT_LOG"] = str(tmp_path_factory.mktemp("log"))
    os.environ["PULSE_EDGE_STATE"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip("needs the folder of real pages and golden numbers beside the checkout")
    return SHARED


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import tiny

    return tiny.checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint")


@pytest.fixture(scope="session")
def tiny_kit(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from export.convert import Options, convert

    kit = tmp_path_factory.mktemp("kits") / "tiny"
    convert(tiny_checkpoint, kit, Options(vision="fp32", demonstration=True))
    return kit
