"""The installer touches no folder but its own."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from installations import contents, run, says

from pulse_edge.installer.bundle import open_bundle
from pulse_edge.installer.home import MARK, default_home

pytest.importorskip("cryptography", reason="signing needs the package cryptography")


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """Another program's folder, which has versions too, and files with our names."""
    folder = tmp_path / "foreign"
    for name, text in {
        "versions/3.11.7/bin/python": "python",
        "versions/backup/thesis.txt": "mine",
        "install.pyz": "mine",
        "current": "3.11.7",
        "pulse-edge": "mine",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    "words", [(), ("--uninstall",), ("--rollback",), ("--uninstall", "--remove-cache")]
)
def test_a_folder_of_another_program_is_not_touched(
    bundles: dict[str, Path], foreign: Path, words: tuple[str, ...]
) -> None:
    before = contents(foreign)
    done = run(bundles["one"], foreign, *words)
    assert words[1:] or (done.returncode == 1 and f"error: {foreign}: " in done.stderr)
    assert contents(foreign) == before


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"format": 1, "kind": "audit-log", "id": "1"}', '{"format": 1}']
)
def test_a_mark_that_is_not_ours_is_none(
    bundles: dict[str, Path], foreign: Path, text: str
) -> None:
    (foreign / MARK).write_text(text)
    before = contents(foreign)
    assert [
        run(bundles["one"], foreign, *words).returncode for words in ((), ("--uninstall",))
    ] == [
        1,
        1,
    ]
    assert contents(foreign) == before


@pytest.mark.parametrize("name", ["", "sub/folder"])
def test_nothing_is_installed_into_the_bundle_itself(
    bundles: dict[str, Path], tmp_path: Path, name: str
) -> None:
    copy = Path(shutil.copytree(bundles["one"], tmp_path / "bundle"))
    before = contents(copy)
    done = run(copy, copy / name)
    assert "lies in the bundle itself" in done.stderr
    assert contents(copy) == before


def test_an_empty_folder_is_taken_and_left_as_it_was(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "empty"
    folder.mkdir(mode=0o750)
    assert run(bundles["one"], folder).returncode == 0
    assert run(bundles["one"], folder, "--uninstall").returncode == 0
    assert contents(folder) == {str(folder): (0o040750, b"")}


def test_folders_of_others_among_the_versions_stay(
    home: Path, bundles: dict[str, Path], tmp_path: Path
) -> None:
    version = home / "versions" / (home / "current").read_text().strip()
    plain, copied, link = (
        home / "versions" / name for name in ("backup", "9.9-aaaaaaaaaaaa", "9.9-bbbbbbbbbbbb")
    )
    for folder in (plain, copied, tmp_path / "elsewhere"):
        shutil.copytree(version / "kits", folder)
    (copied / MARK).write_text((version / MARK).read_text().replace('"id": "', '"id": "0'))
    shutil.copy(version / MARK, tmp_path / "elsewhere")
    link.symlink_to(tmp_path / "elsewhere")
    before = [contents(folder) for folder in (plain, copied, tmp_path / "elsewhere")]
    assert run(bundles["two"], home).returncode == 0
    assert run(bundles["more"], home).returncode == 0
    done = run(bundles["two"], home, "--uninstall")
    assert done.returncode == 0
    assert [contents(folder) for folder in (plain, copied, tmp_path / "elsewhere")] == before
    assert f"left: {plain} (not made by the installer)" in done.stderr
    assert sorted(p.name for p in home.rglob("*") if p.parent.name in ("versions", home.name)) == [
        "9.9-aaaaaaaaaaaa",
        "9.9-bbbbbbbbbbbb",
        "backup",
        "versions",
    ]


def test_a_folder_in_the_place_of_the_new_version_is_not_overwritten(
    home: Path, bundles: dict[str, Path]
) -> None:
    name = open_bundle(bundles["two"]).version
    (home / "versions" / name / "kits").mkdir(parents=True)
    (home / "versions" / name / "kits/mine.txt").write_text("mine")
    before = contents(home / "versions" / name)
    done = run(bundles["two"], home)
    assert "was not made by this installation" in done.stderr
    assert contents(home / "versions" / name) == before
    assert says(home) == "1.0"


@pytest.mark.parametrize("kind", ["file", "broken link"])
def test_a_place_that_is_no_folder_is_refused(
    bundles: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "place"
    path.write_text("mine") if kind == "file" else path.symlink_to(tmp_path / "nothing" / "there")
    done = run(bundles["one"], path)
    assert done.returncode == (1 if kind == "file" else 0)
    assert kind != "file" or ("is not a folder" in done.stderr and path.read_text() == "mine")


def test_a_folder_that_everybody_may_change_is_refused(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    assert "everybody may write there" in run(bundles["one"], tmp_path / "open").stderr
    assert list((tmp_path / "open").iterdir()) == []


def test_remains_of_killed_installers_do_not_stop_the_next(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    version = home / "versions" / open_bundle(bundles["one"]).version
    version.mkdir(parents=True)
    for folder in (home, version):
        (folder / f".{MARK}.x1y2z3w4").write_text("{")  # killed before the mark had its name
    (home / ".lock").touch()
    version.rename(home / "later")  # the home is marked before there are versions
    version.parent.rmdir()
    (home / "later").rename(tmp_path / "later")
    assert run(bundles["one"], home).returncode == 0
    (tmp_path / "later").rename(home / "versions/9.9-cccccccccccc")
    assert run(bundles["one"], home, "--uninstall").returncode == 0
    assert list(home.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has one place")
@pytest.mark.parametrize(
    ("user", "user_only", "place"),
    [(0, False, "/opt"), (0, True, "/data"), (1000, False, "/data"), (1000, True, "/data")],
)
def test_an_administrator_installs_for_everybody_unless_asked_otherwise(
    monkeypatch: pytest.MonkeyPatch, user: int, user_only: bool, place: str
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert default_home(user_only=user_only) == Path(place) / "pulse-edge"
