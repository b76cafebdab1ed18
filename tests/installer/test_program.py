"""Which wheels are not unpacked."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pulse_edge.installer.program import archive_faults

pytest.importorskip("cryptography", reason="signing needs the package cryptography")


def bad_wheel(path: Path, change: Callable[[zipfile.ZipFile], None]) -> list[str]:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/__init__.py", b"")
        change(archive)
    return archive_faults(path)


def linked(archive: zipfile.ZipFile, kind: int) -> None:
    entry = zipfile.ZipInfo("x/link")
    entry.external_attr = (kind | 0o777) << 16
    archive.writestr(entry, "/etc/passwd")


@pytest.mark.parametrize(
    "name", ["../../evil.py", "/evil.py", "x/../../evil.py", "C:/evil.py", "..\\evil.py"]
)
def test_an_archive_with_a_path_outside_is_refused(tmp_path: Path, name: str) -> None:
    assert (
        "would leave its folder"
        in bad_wheel(tmp_path / "w.whl", lambda a: a.writestr(name, b""))[0]
    )


@pytest.mark.parametrize(
    "kind", [0o120000, 0o020000, 0o060000, 0o010000], ids=["link", "character", "block", "pipe"]
)
def test_an_archive_with_a_link_or_device_is_refused(tmp_path: Path, kind: int) -> None:
    assert "link or a device" in bad_wheel(tmp_path / "w.whl", lambda a: linked(a, kind))[0]


def test_an_archive_that_would_fill_the_disk_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(2 << 20))
    assert path.stat().st_size < 1 << 20
    assert archive_faults(path) == []
    assert archive_faults(path, most_bytes=1 << 20) == ["w.whl: would unpack to more than 0.0 GiB"]
