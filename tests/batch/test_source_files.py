"""Which files a batch reads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from batches import Desk, lines, run

from pulse_edge.batch import source_files
from pulse_edge.batch.store import Store
from pulse_edge.errors import (
    UsageError,
)


def test_lists_patterns_and_folders_name_the_same_pages(pages: Path, tmp_path: Path) -> None:
    names = sorted(str(p) for p in pages.iterdir())
    (tmp_path / "list.txt").write_text("\n".join(names))
    (tmp_path / "list0.txt").write_bytes(b"\0".join(map(os.fsencode, names)))
    for source in (pages, tmp_path / "list.txt", tmp_path / "list0.txt", f"{pages}/*.png"):
        assert [path for path, *_ in source_files.files([str(source)], tmp_path / "out")] == names


def test_hidden_files_and_the_batch_itself_are_not_pages(pages: Path) -> None:
    (pages / ".hidden.png").write_bytes(b"")
    (pages / "Thumbs.db").write_bytes(b"")
    (pages / "out").mkdir()
    (pages / "out" / "page.png").write_bytes(b"")
    matches = [Path(path).name for path, *_ in source_files.files([str(pages)], pages / "out")]
    assert matches == ["a.png", "b.png", "c.png", "d.png"]


def test_unreadable_folders_are_listed_and_count(
    pages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (pages / "linked").symlink_to(tmp_path / "elsewhere")
    (pages / "within").symlink_to(pages)  # all of it is read anyway
    (pages / "closed").mkdir()
    (pages / "d.png").unlink()
    real = os.scandir

    def scandir(path: Any = ".") -> Any:  # root, as tests may run, could look into it
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert run(pages, tmp_path / "out", Desk()) == (0, 3, 2)
    text = {Path(line["file"]).name: line.get("error") for line in lines(tmp_path / "out")}
    assert "cannot be read (Permission denied)" in text["closed"]
    assert "links are not followed" in text["linked"]
    assert "within" not in text
    with Store(tmp_path / "out", {"kit": "k"}) as store:
        assert store.exit_code() == 1
    monkeypatch.undo()  # the right was given
    (pages / "linked").unlink()
    assert run(pages, tmp_path / "out", Desk()) == (0, 3, 0)
    with Store(tmp_path / "out", {"kit": "k"}) as store:
        assert store.exit_code() == 0


def test_pattern_lists_the_folders_that_it_cannot_read(
    pages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pages / "closed").mkdir()
    real = os.scandir

    def scandir(path: Any = ".") -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    matches = list(source_files.files([f"{pages}/**/*.png"], tmp_path / "out"))
    assert (str(pages / "closed"), source_files.UNREADABLE_FOLDER, 0) in matches
    assert len(matches) == 5


def test_source_without_files_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="names no file"):
        list(source_files.files([str(tmp_path)], tmp_path / "out"))


def test_growing_file_waits(pages: Path) -> None:
    settled = source_files.Settled()
    matches = [("a", 10, 1), ("b", 10, 1)]
    assert list(settled(iter(matches))) == []
    assert list(settled(iter([("a", 10, 1), ("b", 20, 2)]))) == [("a", 10, 1)]
