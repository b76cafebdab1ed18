"""Roll back and uninstall."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from installations import run, says

from pulse_edge.cli.main import cli
from pulse_edge.errors import KitError
from pulse_edge.installer.home import MARK

pytest.importorskip("cryptography", reason="signing needs the package cryptography")


def test_rollback_goes_back_and_forth(home: Path, bundles: dict[str, Path]) -> None:
    run(bundles["two"], home)
    versions = []
    for _ in range(2):
        assert run(bundles["two"], home, "--rollback").returncode == 0
        versions.append(says(home))
    assert versions == ["1.0", "2.0"]


def test_without_an_earlier_version_rollback_says_so(home: Path, bundles: dict[str, Path]) -> None:
    done = run(bundles["one"], home, "--rollback")
    assert (done.returncode, done.stderr) == (
        1,
        f"error: {home}: there is no earlier version to go back to.\n",
    )


def test_uninstall_leaves_nothing(home: Path, bundles: dict[str, Path]) -> None:
    run(bundles["two"], home)
    (home / ".current.x1y2").touch()  # of an installer that was killed while it wrote
    done = subprocess.run(
        [sys.executable, str(home / "install.pyz"), "--to", str(home), "--uninstall"],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0
    assert not home.exists()


def test_uninstall_leaves_files_of_others(home: Path, bundles: dict[str, Path]) -> None:
    (home / "notes.txt").write_text("mine")
    assert run(bundles["one"], home, "--uninstall").returncode == 0
    assert [p.name for p in home.iterdir()] == ["notes.txt"]


def test_uninstall_of_a_place_where_nothing_is_touches_nothing(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert run(bundles["one"], tmp_path, "--uninstall").returncode == 1
    assert (tmp_path / "notes.txt").exists()


def test_a_version_that_was_half_removed_goes_with_the_next_installation(
    home: Path, bundles: dict[str, Path]
) -> None:
    assert run(bundles["two"], home).returncode == 0
    current = (home / "current").read_text().strip()
    (old,) = (p for p in (home / "versions").iterdir() if p.name != current)
    for path in old.iterdir():
        if path.name not in (MARK, "kits"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert run(bundles["more"], home).returncode == 0
    assert not old.exists()


def test_rollback_of_a_program_that_no_bundle_brought_says_so() -> None:
    with pytest.raises(KitError, match="not installed from a bundle"):
        cli.main(["bundle", "rollback"], standalone_mode=False)
