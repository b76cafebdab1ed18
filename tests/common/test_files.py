"""Files that are complete or absent, locks and hashes."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import pytest

from pulse_edge.common import files


def test_a_hash_covers_every_piece_of_a_file(tmp_path: Path) -> None:
    content = os.urandom(9 << 20)
    (tmp_path / "file").write_bytes(content)
    pieces: list[int] = []
    assert (
        files.file_sha256(tmp_path / "file", pieces.append) == hashlib.sha256(content).hexdigest()
    )
    assert sum(pieces) == len(content)
    assert len(pieces) > 1


def test_an_exception_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")

    def interrupted() -> None:
        with files.replacing(tmp_path / "file") as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("file", b"old")]


@pytest.mark.skipif(os.name != "posix", reason="rights of POSIX")
@pytest.mark.parametrize("rights", [0o600, 0o644])
def test_a_written_file_has_the_rights_that_were_named(tmp_path: Path, rights: int) -> None:
    files.write_text(tmp_path / "file", "line\n", rights=rights)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == rights
    assert (tmp_path / "file").read_bytes() == b"line\n"


def test_a_lock_is_held_until_its_handle_is_closed(tmp_path: Path) -> None:
    first = files.open_private(tmp_path / "lock")
    second = files.open_private(tmp_path / "lock")
    assert files.try_lock(first)
    assert not files.try_lock(second)
    os.close(first)
    assert files.try_lock(second)
    os.close(second)


@pytest.mark.skipif(os.name != "posix", reason="links of POSIX")
def test_a_private_file_is_never_opened_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="lock"):
        files.open_private(tmp_path / "lock")
