from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pulse_edge.audit_log.log import AuditLog

# A shell's background starts programs with SIGINT ignored, and nohup with SIGHUP; the children of
# tests must not inherit it.
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


@pytest.fixture
def one_core_and_own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with one core, and a user's cache of the test's own."""
    from pulse_edge.machine import cpu

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cpu, "allowed", lambda: frozenset({0}))


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip("needs the folder of real pages and golden numbers next to the checkout")
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


@pytest.fixture(scope="session")
def bundle_parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two kits and a wheel that stands in for the program."""
    import small_bundle

    folder = tmp_path_factory.mktemp("parts")
    small_bundle.kit(folder / "a", "kit a", seed=1)
    small_bundle.kit(folder / "b", "kit b", seed=2)
    small_bundle.program(folder)
    return folder


@pytest.fixture(scope="session")
def whole_bundle(bundle_parts: Path) -> Path:
    """A signed bundle of both kits, with files cut in pieces."""
    import small_bundle
    from installations import KEY

    kits = (bundle_parts / "a", bundle_parts / "b")
    wheel = next(bundle_parts.glob("*.whl"))
    return small_bundle.make(bundle_parts / "bundle", *kits, wheel=wheel, key=KEY, piece_bytes=3000)


@pytest.fixture
def bundle_copy(whole_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle, to be damaged."""
    return Path(shutil.copytree(whole_bundle, tmp_path / "bundle"))


@pytest.fixture
def small(tmp_path: Path) -> AuditLog:
    """An audit log of five entries."""
    from pulse_edge.audit_log.log import AuditLog

    log = AuditLog(tmp_path / "log")
    for n in range(5):
        log.append({"n": n})
    return log


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """Three pages, and one file that is none."""
    from PIL import Image

    folder = tmp_path / "pages"
    folder.mkdir()
    for n, name in enumerate(("a.png", "b.png", "c.png")):
        Image.new("RGB", (60 + n, 60), "white").save(folder / name)
    (folder / "d.png").write_bytes(b"no picture")
    return folder
