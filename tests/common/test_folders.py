"""Only folders that carry our mark are changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import ROOT

from pulse_edge.audit_log.log import AuditLog
from pulse_edge.common import files, folders
from pulse_edge.common.files import write_set, write_whole
from pulse_edge.errors import AuditLogError, FolderError

PAGE = ROOT / "pulse_edge" / "assets" / "example_page.png"
posix = pytest.mark.skipif(os.name != "posix", reason="rights of POSIX")


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def snapshot(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every path below a folder and itself, with rights, time of change and content."""
    return {
        str(path): (
            mode(path),
            path.stat().st_mtime_ns,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in (folder, *folder.rglob("*"))
    }


@posix
def test_a_new_folder_is_private_and_an_empty_one_keeps_its_rights(
    tmp_path: Path,
) -> None:
    old = os.umask(0)
    try:
        first = folders.claim(tmp_path / "a" / "new", "audit-log")
        (tmp_path / "empty").mkdir(mode=0o755)
        folders.claim(tmp_path / "empty", "audit-log")
    finally:
        os.umask(old)
    assert (mode(tmp_path / "a" / "new"), mode(tmp_path / "empty")) == (0o700, 0o755)
    assert mode(tmp_path / "empty" / folders.MARKER) == 0o600
    assert (
        folders.claim(tmp_path / "a" / "new", "audit-log")
        == folders.require(tmp_path / "a" / "new", "audit-log")
        == first
    )
    assert json.loads((tmp_path / "a" / "new" / folders.MARKER).read_text()) == {
        "format": 1,
        "kind": "audit-log",
        "id": first.id,
    }


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"file.txt": "x"}, "holds files and has no"),
        (
            {folders.MARKER: '{"format": 1, "kind": "page-cache", "id": "1"}'},
            "for its page cache, not its audit log",
        ),
        (
            {folders.MARKER: '{"format": 2, "kind": "audit-log", "id": "1"}'},
            "not a marker that pulse-edge wrote",
        ),
        ({folders.MARKER: "[" * 5000}, "not a marker that pulse-edge wrote"),
    ],
)
def test_a_foreign_folder_is_refused_and_keeps_its_content(
    tmp_path: Path, content: dict[str, str], words: str
) -> None:
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    before = snapshot(tmp_path)
    with pytest.raises(FolderError, match=words) as raised:
        folders.claim(tmp_path, "audit-log")
    assert str(raised.value).startswith(str(tmp_path))
    with pytest.raises(FolderError):
        folders.require(tmp_path, "audit-log")
    after = snapshot(tmp_path)
    assert {path: (rights, data) for path, (rights, _, data) in after.items()} == {
        path: (rights, data) for path, (rights, _, data) in before.items()
    }


@posix
def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    with pytest.raises(FolderError, match=r"other users may write.*chmod go-w"):
        folders.claim(tmp_path, "audit-log")
    assert (mode(tmp_path), list(tmp_path.iterdir())) == (0o1777, [])


@posix
def test_a_linked_marker_is_ignored(tmp_path: Path) -> None:
    folders.claim(tmp_path / "ours", "audit-log")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / folders.MARKER).symlink_to(tmp_path / "ours" / folders.MARKER)
    assert folders.read(tmp_path / "other") is None


def test_two_processes_agree_on_one_mark(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from pulse_edge.common import folders\n"
    code += f"print(folders.claim(Path({str(tmp_path / 'x')!r}), 'batch').id)"
    begun = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    assert len({process.communicate()[0] for process in begun}) == 1
    assert [path.name for path in (tmp_path / "x").iterdir()] == [folders.MARKER]


def run(*words: object, **env: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pulse_edge", *map(str, words)]
    changed = os.environ | {name: str(value) for name, value in env.items()}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=changed)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Somebody's folder with names that ours have too."""
    folder = tmp_path / "site"
    (folder / "retained" / "1999-01-01").mkdir(parents=True)
    (folder / "retained" / "1999-01-01" / ("0" * 64 + ".png")).write_text("photo")
    (folder / "entries.log").write_text("GET / 200\n")
    (folder / "lock").write_text("")
    (folder / "photo.rows").write_text("photo")
    (folder / ".unfinished-thesis").write_text("chapter")
    (folder / "batch.sqlite").write_text("mine")
    if os.name == "posix":
        for path in (folder, folder / "entries.log", folder / "lock"):
            path.chmod(0o755)
    return folder


@pytest.mark.parametrize(
    "command",
    [
        ("audit", "list", "--audit-log", "{site}"),
        ("audit", "show", "1", "--audit-log", "{site}"),
        ("audit", "verify", "--audit-log", "{site}"),
        ("audit", "export", "--audit-log", "{site}"),
        ("audit", "forget", "--audit-log", "{site}"),
        ("cache", "info"),
        ("cache", "clear"),
        ("interpret", "{page}", "--max-tokens", "1"),
        ("ask", "{page}", "--max-tokens", "1"),
    ],
    ids=" ".join,
)
def test_no_command_changes_a_folder_that_is_not_ours(site: Path, command: tuple[str, ...]) -> None:
    before = snapshot(site)
    words = [word.format(site=site, page=PAGE) for word in command]
    done = run(*words, PULSE_EDGE_CACHE=site)
    assert done.returncode == 1
    assert str(site) in done.stderr
    assert snapshot(site) == before


def test_batch_and_the_audit_log_refuse_a_folder_that_is_not_ours(
    site: Path, tmp_path: Path
) -> None:
    (site / "batch.sqlite").unlink()
    before = snapshot(site)
    assert run("batch", PAGE, "-o", site).returncode == 1
    done = run("interpret", PAGE, "--max-tokens", 1, PULSE_EDGE_AUDIT_LOG=site)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Set PULSE_EDGE_AUDIT_LOG to an empty folder" in done.stderr
    assert snapshot(site) == before


def test_folder_without_its_marker_is_left_alone(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "log")
    log.append({"n": 1})
    (tmp_path / "log" / folders.MARKER).unlink()
    with pytest.raises(AuditLogError, match="so nothing is changed there"):
        log.append({"n": 2})
    assert log.verify().entries == 1


# --- output files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "folder", "link", "broken link", "hard link"])
@pytest.mark.parametrize("hard_links", [True, False], ids=["hard links", "as on USB drives"])
def test_an_existing_file_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, hard_links: bool
) -> None:
    target, precious = tmp_path / "out.txt", tmp_path / "precious.txt"
    precious.write_text("precious")
    {
        "file": lambda: target.write_text("old"),
        "folder": target.mkdir,
        "link": lambda: target.symlink_to(precious),
        "broken link": lambda: target.symlink_to(tmp_path / "gone"),
        "hard link": lambda: os.link(precious, target),
    }[kind]()
    if not hard_links:
        monkeypatch.setattr(
            files.os, "link", lambda *_a, **_k: (_ for _ in ()).throw(PermissionError(1, "no"))
        )
    with pytest.raises(FileExistsError):
        write_whole(target, [b"new"])
    assert write_set(tmp_path, "out", {".txt": b"new", ".json": b"{}"}) == [
        tmp_path / "out-2.txt",
        tmp_path / "out-2.json",
    ]
    if kind != "folder":
        write_whole(target, [b"new"], overwrite=True)
        assert target.read_bytes() == b"new"
        assert not target.is_symlink()
    assert precious.read_text() == "precious"
    assert not list(tmp_path.glob(".unfinished-*"))
    assert not (tmp_path / "gone").exists()


def test_a_set_of_files_gets_one_free_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = files.place_new, []

    def late(source: Path, target: Path) -> None:
        calls.append(target.name)
        if target.name == "page.json":
            target.write_text("somebody else's")
        real(source, target)

    monkeypatch.setattr("pulse_edge.common.files.place_new", late)
    paths = write_set(tmp_path, "page", {".txt": b"a", ".json": b"b"})
    assert [path.name for path in paths] == ["page-2.txt", "page-2.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "page-2.json",
        "page-2.txt",
        "page.json",
    ]
    assert (tmp_path / "page.json").read_text() == "somebody else's"


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.json").write_text("before")

    def full(_file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_text(tmp_path / "a.json", "after")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.json", "before")]
