"""Install test bundles, and look at what was installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import ROOT

from pulse_edge.deploy import signing
from pulse_edge.installer.bundle import open_bundle
from pulse_edge.installer.install import Request, install
from pulse_edge.kit import locate
from pulse_edge.kit.kit import KIT_VARIABLE

KEY = signing.SecretKey(b"ourclin1", bytes(range(32)))
OTHER = signing.SecretKey(b"stranger", bytes(range(1, 33)))

TRUSTED = ("--accept", KEY.public().id)


def run(
    folder: Path, home: Path, *words: str, trusted: bool = True, **how: object
) -> subprocess.CompletedProcess[str]:
    """Run the installer of a bundle."""
    command = [
        sys.executable,
        str(folder / "install.pyz"),
        "--to",
        str(home),
        *words,
        *(TRUSTED if trusted else ()),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False, **how)  # type: ignore[call-overload, no-any-return]


def direct(folder: Path, home: Path, *accept: str) -> list[str]:
    """Install in this process; return the lines that it printed."""
    lines: list[str] = []
    request = Request(home, accept=(KEY.public().id, *accept))
    install(open_bundle(folder), request, lambda *_: None, lines.append)
    return lines


def says(home: Path, *arguments: str) -> str:
    """Return what the installed program prints."""
    launcher = str(home / "pulse-edge")
    return subprocess.run(
        [launcher, *arguments], capture_output=True, text=True, check=True
    ).stdout.strip()


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Mode and bytes of everything below a folder."""
    every = [folder, *sorted(folder.rglob("*"))]
    return {str(p): (p.lstat().st_mode, p.read_bytes() if p.is_file() else b"") for p in every}


def answering(home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of the kit that answers in an installation when none is named."""
    version = home / "versions" / (home / "current").read_text().strip()
    monkeypatch.setattr(sys, "prefix", str(version / "venv"))
    monkeypatch.delenv(KIT_VARIABLE, raising=False)
    return locate.find(None).path.name


def reading(kit: Path) -> list[str]:
    """Return the command that reads the example page with a kit."""
    page = ROOT / "pulse_edge/assets/example_page.png"
    return [
        sys.executable,
        "-m",
        "pulse_edge",
        "interpret",
        str(page),
        "--kit",
        str(kit),
        "--max-tokens",
        "2",
    ]


def sockets(command: list[str], folder: Path) -> list[str]:
    """Every socket call of a command and its children."""
    trace = folder / "trace"
    watched = [
        "strace",
        "-f",
        "-qq",
        "-e",
        "trace=socket,connect,sendto,sendmsg,bind",
        "-o",
        str(trace),
    ]
    if (
        shutil.which("strace") is None
        or subprocess.run([*watched, "true"], check=False, capture_output=True).returncode
    ):
        pytest.skip("strace cannot trace here")
    done = subprocess.run([*watched, *command], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [line for line in trace.read_text().splitlines() if "(" in line and "SIG" not in line]


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
