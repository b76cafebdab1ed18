"""Installing and reading a page need no network and open no connection."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from installations import TRUSTED, reading, sockets

pytest.importorskip("cryptography", reason="signing needs the package cryptography")


@pytest.fixture
def namespace() -> list[str]:
    """A command prefix that runs without any network interface."""
    command = ["unshare", "-rn"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*command, "true"], check=False, capture_output=True).returncode
    ):
        pytest.skip("no network namespaces here")
    return command


def test_the_installer_works_without_any_network_interface(
    bundles: dict[str, Path], tmp_path: Path, namespace: list[str]
) -> None:
    command = [
        *namespace,
        sys.executable,
        str(bundles["one"] / "install.pyz"),
        "--to",
        str(tmp_path / "home"),
        *TRUSTED,
    ]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0


def test_a_page_is_read_without_any_network_interface(tiny_kit: Path, namespace: list[str]) -> None:
    assert (
        subprocess.run(
            [*namespace, *reading(tiny_kit)], check=False, capture_output=True
        ).returncode
        == 0
    )


def test_the_installer_connects_to_nothing(bundles: dict[str, Path], tmp_path: Path) -> None:
    """pip's copy of urllib3 opens a socket when imported, to see whether there is IPv6; it goes
    nowhere.
    """
    command = [
        sys.executable,
        str(bundles["one"] / "install.pyz"),
        "--to",
        str(tmp_path / "home"),
        *TRUSTED,
    ]
    assert [c for c in sockets(command, tmp_path) if "connect(" in c or "send" in c] == []


def test_reading_a_page_opens_no_socket(tiny_kit: Path, tmp_path: Path) -> None:
    assert sockets(reading(tiny_kit), tmp_path) == []
