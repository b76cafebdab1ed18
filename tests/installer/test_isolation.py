"""The umask, variables, settings, the current folder and odd paths change nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from installations import TRUSTED, run, says

from pulse_edge.installer import program

pytest.importorskip("cryptography", reason="signing needs the package cryptography")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other permissions")
@pytest.mark.parametrize("umask", ["000", "077"])
def test_modes_do_not_depend_on_the_umask(
    bundles: dict[str, Path], tmp_path: Path, umask: str
) -> None:
    home = tmp_path / "place/home"
    shell = f'umask {umask}; exec "$@"'
    command = [
        "sh",
        "-c",
        shell,
        "sh",
        sys.executable,
        str(bundles["one"] / "install.pyz"),
        "--to",
        str(home),
        *TRUSTED,
    ]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    modes = {p: p.lstat().st_mode for p in [home, *home.rglob("*")] if not p.is_symlink()}
    assert [p for p, mode in modes.items() if mode & 0o022] == []
    assert [
        p for p, mode in modes.items() if not mode & 0o004 or (p.is_dir() and not mode & 0o001)
    ] == []


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the current one and in every variable; what Python or pip take from it
    writes the file MARK.
    """
    folder = tmp_path / "hostile"
    (folder / "pip").mkdir(parents=True)
    code = f"open({str(folder / 'MARK')!r}, 'a').write(__file__)\n"
    for name in (
        "json.py",
        "venv.py",
        "argparse.py",
        "sitecustomize.py",
        "usercustomize.py",
        "pulse_edge.py",
    ):
        (folder / name).write_text(code)
    (folder / "evil-python").write_text(f"#!/bin/sh\necho evil-python > '{folder}/MARK'\nexit 1\n")
    (folder / "evil-python").chmod(0o755)
    settings = f"[global]\npython = {folder}/evil-python\n[install]\ntarget = {folder}/target\n"
    (folder / "pip/pip.conf").write_text(settings)
    for name in (
        "PYTHONPATH",
        "PYTHONUSERBASE",
        "XDG_CONFIG_DIRS",
        "XDG_CONFIG_HOME",
        "PIP_TARGET",
        "PIP_PREFIX",
    ):
        monkeypatch.setenv(name, str(folder))
    monkeypatch.setenv("PYTHONSTARTUP", str(folder / "sitecustomize.py"))
    monkeypatch.setenv("PIP_CONFIG_FILE", str(folder / "pip/pip.conf"))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/")
    monkeypatch.setenv("PIP_REQUIRE_VIRTUALENV", "1")
    monkeypatch.chdir(folder)
    return folder


def test_variables_settings_and_the_current_folder_change_nothing(
    hostile: Path, bundles: dict[str, Path], tmp_path: Path
) -> None:
    before = sorted(hostile.iterdir())
    home = tmp_path / "home"
    done = subprocess.run(
        ["sh", str(bundles["one"] / "install.sh"), "--to", str(home), *TRUSTED],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert says(home, "interpret") == "1.0 interpret"
    assert sorted(hostile.iterdir()) == before


@pytest.mark.parametrize("name", ["json.py", "argparse.py", "venv.py"])
def test_a_file_beside_the_installer_is_not_run(
    bundles: dict[str, Path], tmp_path: Path, name: str
) -> None:
    copy = Path(shutil.copytree(bundles["one"], tmp_path / "bundle"))
    (copy / name).write_text(f"open({str(tmp_path / 'MARK')!r}, 'w')\n")
    done = run(copy, tmp_path / "home")
    assert f"error: {name}: does not belong to this bundle" in done.stderr
    assert not (tmp_path / "MARK").exists()


def test_what_is_installed_is_started_without_telemetry_and_settings(
    home: Path, hostile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_PRELOAD", "")
    monkeypatch.setenv("PULSE_EDGE_KIT", "x")
    version = home / "versions" / (home / "current").read_text().strip()
    variables = json.loads(program.run(version, ["-m", "pulse_edge", "variables"], "variables"))
    assert variables["ORT_DISABLE_TELEMETRY"] == "1"
    assert variables["PIP_CONFIG_FILE"] == os.devnull
    foreign = ("PYTHON", "PIP_", "XDG_CONFIG", "LD_", "PULSE_EDGE")
    assert [n for n in variables if n.startswith(foreign) and n != "PIP_CONFIG_FILE"] == []
    assert json.loads(says(home, "variables"))["ORT_DISABLE_TELEMETRY"] == "1"


@pytest.mark.parametrize(
    "name",
    ["with space", "quo'te", 'dou"ble', "dol$lar`id`", "semi;rm", "star*[1]", "-dash", "\u00fc"],
)
def test_odd_paths_work(bundles: dict[str, Path], tmp_path: Path, name: str) -> None:
    source = Path(shutil.copytree(bundles["one"], tmp_path / "bundles" / name))
    home = tmp_path / name
    done = subprocess.run(
        ["sh", "--", f"{name}/install.sh", f"--to={home}", *TRUSTED],
        capture_output=True,
        text=True,
        check=False,
        cwd=source.parent,
    )
    assert done.returncode == 0, done.stderr
    command = done.stdout.removeprefix("installed. Read a page: ").strip()
    assert (
        subprocess.run(command, shell=True, capture_output=True, check=True).stdout
        == b"1.0 interpret scan.jpg\n"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other names")
@pytest.mark.parametrize(
    "name", [b"new\nline", b"tab\tx", b"a:b", b"trailing\n", b"latin-\xfc", b"esc\x1b[31m"]
)
def test_paths_that_no_environment_can_have_are_refused(
    bundles: dict[str, Path], tmp_path: Path, name: bytes
) -> None:
    home = os.fsencode(tmp_path) + b"/" + name
    command: list[str | bytes] = [
        sys.executable,
        str(bundles["one"] / "install.pyz"),
        b"--to",
        home,
        *TRUSTED,
    ]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: ")
    assert done.stderr.count(b"\n") == 1
    assert b"which a Python environment cannot have. Name another with --to." in done.stderr
    assert os.listdir(tmp_path) == []


def test_install_sh_finds_a_python_and_passes_everything_on(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    done = subprocess.run(
        ["sh", str(bundles["one"] / "install.sh"), "--to", str(tmp_path), "--rollback"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.startswith(f"error: {tmp_path}: nothing is installed there.")


def test_install_sh_without_python_says_what_to_do(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    for name in ("sh", "dirname"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    done = subprocess.run(
        [str(tmp_path / "sh"), str(bundles["one"] / "install.sh")],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "no Python 3.10 or newer was found" in done.stderr
