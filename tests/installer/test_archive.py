"""install.pyz: the same bytes from the same sources, and nothing else is imported when it runs."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from installations import TRUSTED

import pulse_edge.installer
from pulse_edge.deploy import installer_archive

HOSTILE = ("os", "json", "argparse", "venv", "pulse_edge", "runpy", "zipimport", "__future__")
"""Modules that a file in the current folder, next to the archive or in PYTHONPATH could stand in
for."""


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder of modules that leave a trace when they are imported."""
    folder = tmp_path / "hostile"
    folder.mkdir()
    trace = tmp_path / "TRACE"
    for name in HOSTILE:
        (folder / f"{name}.py").write_text(f"open({str(trace)!r}, 'a').write(__name__)\n")
    return folder


def test_the_same_sources_give_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installer_archive.write(tmp_path / "one.pyz")
    monkeypatch.setattr("time.time", lambda: 2e9)
    monkeypatch.setattr(sys, "platform", "win32")
    installer_archive.write(tmp_path / "two.pyz")
    assert (tmp_path / "one.pyz").read_bytes() == (tmp_path / "two.pyz").read_bytes()


def test_the_archive_has_sorted_names_fixed_dates_and_no_compression(tmp_path: Path) -> None:
    installer_archive.write(tmp_path / "install.pyz")
    with zipfile.ZipFile(tmp_path / "install.pyz") as archive:
        entries = archive.infolist()
    names = [entry.filename for entry in entries]
    assert names == sorted(names)
    assert {"__main__.py", "pulse_edge/installer/install.py"} <= set(names)
    assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}
    assert {entry.compress_type for entry in entries} == {zipfile.ZIP_STORED}


def test_line_ends_of_windows_do_not_change_the_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = installer_archive.contents()
    source = Path(pulse_edge.installer.__file__).parent
    copy = Path(shutil.copytree(source, tmp_path / "installer"))
    for path in copy.glob("*.py"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    monkeypatch.setattr(pulse_edge.installer, "__file__", str(copy / "__init__.py"))
    assert installer_archive.contents() == expected


@pytest.mark.parametrize("flags", [[], ["-I"]], ids=["plain", "isolated"])
def test_nothing_is_imported_from_the_current_folder(
    whole_bundle: Path, hostile: Path, tmp_path: Path, flags: list[str]
) -> None:
    command = [sys.executable, *flags, str(whole_bundle / "install.pyz"), "--help"]
    done = subprocess.run(command, cwd=hostile, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Install pulse-edge from this bundle" in done.stdout
    assert not (tmp_path / "TRACE").exists()


def test_nothing_is_imported_from_the_folder_of_the_archive(
    whole_bundle: Path, hostile: Path, tmp_path: Path
) -> None:
    shutil.copy(whole_bundle / "install.pyz", hostile)
    command = [sys.executable, str(hostile / "install.pyz"), "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "TRACE").exists()


def test_the_archive_runs_isolated_modules_of_its_own(
    whole_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PYTHONPATH with another pulse_edge: the archive's own modules are imported."""
    other = tmp_path / "other/pulse_edge"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("raise SystemExit('the wrong package')\n")
    monkeypatch.setenv("PYTHONPATH", str(other.parent))
    command = [sys.executable, str(whole_bundle / "install.pyz"), "--to", str(tmp_path / "home")]
    done = subprocess.run(
        [*command, "--rollback"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.stderr.startswith(f"error: {tmp_path / 'home'}: nothing is installed there.")


def test_an_old_python_gets_a_line(tmp_path: Path) -> None:
    """`__main__.py` says so before it imports what an old Python cannot parse."""
    source = installer_archive.contents()["__main__.py"].decode()
    code = "import sys; sys.version_info = (3, 8, 1); exec(compile(sys.argv[1], 'x', 'exec'))"
    done = subprocess.run(
        [sys.executable, "-c", code, source], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "error: Python 3.8 is too old. Run install.pyz with Python 3.10 or newer."
    )


def test_the_installer_outside_of_a_bundle_says_so(tmp_path: Path) -> None:
    installer_archive.write(tmp_path / "install.pyz")
    command = [sys.executable, str(tmp_path / "install.pyz"), "--to", str(tmp_path / "home")]
    done = subprocess.run([*command, *TRUSTED], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path / 'bundle.json'}: missing.")
