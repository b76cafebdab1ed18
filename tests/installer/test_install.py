"""The installer, with a program that stands in for pulse-edge's wheel: fresh, again, killed, upgraded, back, and away."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import small_bundle
from checkout import ROOT

from pulse_edge.cli.main import cli
from pulse_edge.common import folders
from pulse_edge.deploy import signing
from pulse_edge.errors import KitError
from pulse_edge.installer import install
from pulse_edge.kit import locate
from pulse_edge.kit.kit import KIT_VARIABLE

pytest.importorskip("cryptography", reason="signing needs the package cryptography")
KEY = signing.SecretKey(b"ourclin1", bytes(range(32)))
OTHER = signing.SecretKey(b"stranger", bytes(range(1, 33)))


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`one` and `two` are versions with kit a, `broken` cannot read pages, `more` brings another kit, `foreign` a key."""
    folder = tmp_path_factory.mktemp("bundles")
    a, b = (
        small_bundle.kit(folder / "a", "kit a", seed=1),
        small_bundle.kit(folder / "b", "kit b", seed=2),
    )
    one, two = small_bundle.program(folder, "1.0"), small_bundle.program(folder, "2.0")
    broken = small_bundle.program(folder, "3.0", broken=True)
    return {
        "one": small_bundle.make(folder / "one", a, wheel=one, key=KEY, piece_bytes=3000),
        "two": small_bundle.make(folder / "two", a, wheel=two, key=KEY),
        "broken": small_bundle.make(folder / "broken", a, wheel=broken, key=KEY),
        "more": small_bundle.make(folder / "more", b, wheel=two, key=KEY),
        "foreign": small_bundle.make(folder / "foreign", b, wheel=two, key=OTHER),
        "delta": small_bundle.make(
            folder / "delta", a, b, wheel=one, key=KEY, since=folder / "one/bundle.json"
        ),
    }


TRUSTED = ("--accept", KEY.public().id)


def run(
    folder: Path, home: Path, *words: str, trusted: bool = True, **how: object
) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        str(folder / "install.py"),
        "--to",
        str(home),
        *words,
        *(TRUSTED if trusted else ()),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False, **how)  # type: ignore[call-overload, no-any-return]


def direct(folder: Path, home: Path, *accept: str) -> list[str]:
    """Install in this process; what it said."""
    said: list[str] = []
    wishes = install.Wishes(home, accept=(KEY.public().id, *accept))
    install.install(install.open_bundle(folder), wishes, lambda *_: None, said.append)
    return said


def says(home: Path, *arguments: str) -> str:
    """What the installed program prints."""
    launcher = str(home / "pulse-edge")
    return subprocess.run(
        [launcher, *arguments], capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture(scope="module")
def first(bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("first") / "home"
    done = run(bundles["one"], home)
    assert (done.returncode, done.stdout) == (
        0,
        f"installed. Read a page: {home}/pulse-edge interpret scan.jpg\n",
    )
    return home


@pytest.fixture
def home(first: Path, tmp_path: Path) -> Path:
    """A copy of a finished installation of `one`; its virtual environment is good enough for its launcher."""
    return Path(shutil.copytree(first, tmp_path / "home", symlinks=True))


def test_the_installed_program_runs(first: Path) -> None:
    assert says(first, "interpret", "scan.jpg") == "1.0 interpret scan.jpg"


def test_kits_arrive_byte_for_byte_from_their_pieces(first: Path, bundles: dict[str, Path]) -> None:
    kit = next(first.glob("versions/*/kits/kit-a"))
    source = bundles["one"].parent / "a"
    assert {p.name: p.read_bytes() for p in kit.iterdir()} == {
        p.name: p.read_bytes() for p in source.iterdir()
    }


def test_installing_again_changes_nothing(home: Path, bundles: dict[str, Path]) -> None:
    before = sorted(home.rglob("*"))
    assert run(bundles["one"], home).returncode == 0
    assert sorted(home.rglob("*")) == before


def test_a_broken_bundle_installs_nothing(bundles: dict[str, Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundles["one"], tmp_path / "bundle"))
    (copy / "kits/kit-a/llm.gguf.001").write_bytes(bytes(3000))
    done = run(copy, tmp_path / "home")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-2] == "error: kits/kit-a/llm.gguf.001: altered"
    assert not (tmp_path / "home").exists()


def test_an_upgrade_is_in_use_when_it_has_passed(home: Path, bundles: dict[str, Path]) -> None:
    assert run(bundles["two"], home).returncode == 0
    assert says(home) == "2.0"


def test_an_upgrade_that_fails_leaves_the_version_before(
    home: Path, bundles: dict[str, Path]
) -> None:
    done = run(bundles["broken"], home)
    assert done.returncode == 1
    assert "broken on purpose" in done.stderr
    assert "reading with kit-a: failed" in done.stderr
    assert says(home) == "1.0"
    assert len(list(home.glob("versions/*"))) == 1


def test_rollback_goes_back_and_forth(home: Path, bundles: dict[str, Path]) -> None:
    run(bundles["two"], home)
    seen = []
    for _ in range(2):
        assert run(bundles["two"], home, "--rollback").returncode == 0
        seen.append(says(home))
    assert seen == ["1.0", "2.0"]


def test_the_version_in_use_before_an_upgrade_is_kept_and_no_other(
    home: Path, bundles: dict[str, Path]
) -> None:
    run(bundles["two"], home)
    run(bundles["two"], home, "--rollback")
    run(bundles["more"], home)
    run(bundles["more"], home, "--rollback")
    assert says(home) == "1.0"
    assert len(list(home.glob("versions/*"))) == 2


def test_without_an_earlier_version_rollback_says_so(home: Path, bundles: dict[str, Path]) -> None:
    done = run(bundles["one"], home, "--rollback")
    assert (done.returncode, done.stderr) == (
        1,
        f"error: {home}: there is no earlier version to go back to.\n",
    )


def test_a_second_kit_stands_beside_the_first(home: Path, bundles: dict[str, Path]) -> None:
    assert run(bundles["more"], home).returncode == 0
    current = home / "versions" / (home / "current").read_text().strip()
    assert sorted(p.name for p in (current / "kits").iterdir()) == ["kit-a", "kit-b"]


def test_what_self_tests_found_stays_through_an_update(
    home: Path, bundles: dict[str, Path]
) -> None:
    results = home / "versions" / (home / "current").read_text().strip() / "self-tests"
    folders.claim(results, "self-test-results")
    (results / "kit-processor.json").write_text("refused")
    assert run(bundles["more"], home).returncode == 0
    updated = home / "versions" / (home / "current").read_text().strip() / "self-tests"
    assert updated != results
    assert (updated / "kit-processor.json").read_text() == "refused"
    assert folders.read(updated) == folders.read(results)


def test_a_foreign_bundle_needs_a_word_and_stays_marked(
    home: Path, bundles: dict[str, Path]
) -> None:
    assert run(bundles["foreign"], home).returncode == 1
    assert run(bundles["foreign"], home, "--accept", OTHER.public().id).returncode == 0
    current = home / "versions" / (home / "current").read_text().strip()
    assert OTHER.public().id in json.loads((current / "install.json").read_text())["kits"]["kit-b"]
    assert install.Home(home).pinned() == [KEY.public()]


def test_a_delta_takes_from_the_installed_version_what_it_does_not_carry(
    home: Path, bundles: dict[str, Path]
) -> None:
    assert run(bundles["delta"], home).returncode == 0
    current = home / "versions" / (home / "current").read_text().strip()
    for name in ("a", "b"):
        source = bundles["one"].parent / name / "llm.gguf"
        assert (current / f"kits/kit-{name}/llm.gguf").read_bytes() == source.read_bytes()


def test_a_delta_alone_says_what_is_missing(bundles: dict[str, Path], tmp_path: Path) -> None:
    done = run(bundles["delta"], tmp_path / "home")
    assert (
        "error: llm.gguf: not carried by this bundle, and not installed here. Use the whole bundle"
        in done.stderr
    )
    assert not (tmp_path / "home").exists()


def test_uninstall_leaves_nothing(home: Path, bundles: dict[str, Path]) -> None:
    run(bundles["two"], home)
    (home / ".current.x1y2").touch()  # of an installer that was killed while it wrote
    done = subprocess.run(
        [sys.executable, str(home / "install.py"), "--to", str(home), "--uninstall"],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0
    assert not home.exists()


def test_uninstall_leaves_what_is_somebody_elses(home: Path, bundles: dict[str, Path]) -> None:
    (home / "notes.txt").write_text("mine")
    assert run(bundles["one"], home, "--uninstall").returncode == 0
    assert [p.name for p in home.iterdir()] == ["notes.txt"]


def test_uninstall_of_a_place_where_nothing_is_touches_nothing(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert run(bundles["one"], tmp_path, "--uninstall").returncode == 1
    assert (tmp_path / "notes.txt").exists()


# --- nothing of others is touched -------------------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Mode and bytes of everything below a folder."""
    every = [folder, *sorted(folder.rglob("*"))]
    return {str(p): (p.lstat().st_mode, p.read_bytes() if p.is_file() else b"") for p in every}


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """Another program's folder, which has versions too, and files with our names."""
    folder = tmp_path / "foreign"
    for name, text in {
        "versions/3.11.7/bin/python": "python",
        "versions/backup/thesis.txt": "mine",
        "install.py": "mine",
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
    (foreign / install.MARK).write_text(text)
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
    (copied / install.MARK).write_text(
        (version / install.MARK).read_text().replace('"id": "', '"id": "0')
    )
    shutil.copy(version / install.MARK, tmp_path / "elsewhere")
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
    name = install.open_bundle(bundles["two"]).version
    (home / "versions" / name / "kits").mkdir(parents=True)
    (home / "versions" / name / "kits/mine.txt").write_text("mine")
    before = contents(home / "versions" / name)
    done = run(bundles["two"], home)
    assert "was not made by this installation" in done.stderr
    assert contents(home / "versions" / name) == before
    assert says(home) == "1.0"


@pytest.mark.parametrize("kind", ["file", "broken link"])
def test_what_is_no_folder_is_refused(bundles: dict[str, Path], tmp_path: Path, kind: str) -> None:
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


def test_what_killed_installers_leave_does_not_stop_the_next(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    version = home / "versions" / install.open_bundle(bundles["one"]).version
    version.mkdir(parents=True)
    for folder in (home, version):
        (folder / f".{install.MARK}.x1y2z3w4").write_text(
            "{"
        )  # killed before the mark had its name
    (home / ".lock").touch()
    version.rename(home / "later")  # the home is marked before there are versions
    version.parent.rmdir()
    (home / "later").rename(tmp_path / "later")
    assert run(bundles["one"], home).returncode == 0
    (tmp_path / "later").rename(home / "versions/9.9-cccccccccccc")
    assert run(bundles["one"], home, "--uninstall").returncode == 0
    assert list(home.iterdir()) == []


def test_a_version_that_was_half_removed_goes_with_the_next_installation(
    home: Path, bundles: dict[str, Path]
) -> None:
    assert run(bundles["two"], home).returncode == 0
    current = (home / "current").read_text().strip()
    (old,) = (p for p in (home / "versions").iterdir() if p.name != current)
    for path in old.iterdir():
        if path.name not in (install.MARK, "kits"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert run(bundles["more"], home).returncode == 0
    assert not old.exists()


# --- umask, variables, odd paths --------------------------------------------------------------------------------------


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
        str(bundles["one"] / "install.py"),
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
    """A folder that is the current one and in every variable; what Python or pip take from it writes the file MARK."""
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
    variables = json.loads(install._run(version, ["-m", "pulse_edge", "variables"], "variables"))
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
    command = [sys.executable, str(bundles["one"] / "install.py"), b"--to", home, *TRUSTED]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: ")
    assert done.stderr.count(b"\n") == 1
    assert b"which a Python environment cannot have. Name another with --to." in done.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "words", [["--to", ""], ["--accept", "unsinged"], ["--remove-log"], ["--remove-cache"]]
)
def test_a_mistyped_wish_is_not_passed_over(
    bundles: dict[str, Path], tmp_path: Path, words: list[str]
) -> None:
    command = [
        sys.executable,
        str(bundles["one"] / "install.py"),
        "--to",
        str(tmp_path / "home"),
        *words,
    ]
    assert subprocess.run(command, capture_output=True, check=False, cwd=tmp_path).returncode == 2
    assert list(tmp_path.iterdir()) == []


# --- whom to trust, and what is newer ---------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", ["", "no\n", "\n", "yess\n"])
def test_the_first_key_is_not_trusted_without_a_yes(
    bundles: dict[str, Path], tmp_path: Path, answer: str
) -> None:
    done = run(bundles["one"], tmp_path / "home", trusted=False, input=answer)
    assert done.returncode == 1
    assert f"signed by key {KEY.public().id}" in done.stderr
    assert f"--accept {KEY.public().id}" in done.stderr
    assert not (tmp_path / "home").exists()


def test_the_first_key_is_trusted_after_a_yes_and_is_not_asked_about_again(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    assert run(bundles["one"], home, trusted=False, input="yes\n").returncode == 0
    assert install.Home(home).pinned() == [KEY.public()]
    assert run(bundles["two"], home, trusted=False, input="").returncode == 0


def test_a_key_that_was_named_is_trusted_without_a_question(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "key.pub").write_text(KEY.public().text())
    done = run(
        bundles["one"],
        tmp_path / "home",
        "--key",
        str(tmp_path / "key.pub"),
        trusted=False,
        input="",
    )
    assert done.returncode == 0, done.stderr
    assert install.Home(tmp_path / "home").pinned() == [KEY.public()]


def test_the_id_of_another_key_trusts_nobody(bundles: dict[str, Path], tmp_path: Path) -> None:
    done = run(
        bundles["one"], tmp_path / "home", "--accept", OTHER.public().id, trusted=False, input=""
    )
    assert done.returncode == 1
    assert not (tmp_path / "home").exists()


def test_an_older_bundle_needs_a_word(home: Path, bundles: dict[str, Path]) -> None:
    assert run(bundles["two"], home).returncode == 0
    done = run(bundles["one"], home)
    assert done.returncode == 1
    assert "has pulse-edge 1.0" in done.stderr
    assert "in use is the newer 2.0" in done.stderr
    assert says(home) == "2.0"
    assert run(bundles["one"], home, "--accept", "older").returncode == 0
    assert says(home) == "1.0"


def test_older_kits_of_the_same_program_need_a_word(home: Path, tmp_path: Path) -> None:
    wheel = small_bundle.program(tmp_path, "1.0")
    older = small_bundle.kit(tmp_path / "kit", "kit a", created="2025-12-31T23:59:59+00:00")
    done = run(small_bundle.make(tmp_path / "bundle", older, wheel=wheel, key=KEY), home)
    assert (
        "with kits of 2025-12-31, and in use is the newer 1.0 with kits of 2026-01-02"
        in done.stderr
    )


def test_what_is_installed_is_what_was_checked(bundles: dict[str, Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundles["one"], tmp_path / "bundle"))
    signed = (copy / "install.py").read_bytes()

    def changing(text: str) -> None:
        if "installing the program" in text:
            (copy / "install.py").write_text("print('not what was signed')")

    wishes = install.Wishes(tmp_path / "home", accept=(KEY.public().id,))
    install.install(install.open_bundle(copy), wishes, lambda *_: None, changing)
    assert (tmp_path / "home/install.py").read_bytes() == signed


def test_a_kit_that_is_not_what_its_manifest_says_is_not_installed(
    tmp_path: Path, bundles: dict[str, Path]
) -> None:
    copy = Path(shutil.copytree(bundles["one"], tmp_path / "bundle"))
    raw = json.loads((copy / "bundle.json").read_text())
    raw["kits"]["kit-a"]["files"]["llm.gguf"]["sha256"] = "0" * 64
    (copy / "bundle.json").write_text(json.dumps(raw))
    (copy / "bundle.json.minisig").write_text(KEY.sign((copy / "bundle.json").read_bytes(), "c"))
    assert (
        "llm.gguf: its pieces are not the file that the manifest names"
        in run(copy, tmp_path / "home").stderr
    )
    assert not (tmp_path / "home").exists()


# --- which kit answers ------------------------------------------------------------------------------------------------


def answering(home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of the kit that the installed program takes when none is named, with the program that is tested here."""
    version = home / "versions" / (home / "current").read_text().strip()
    monkeypatch.setattr(sys, "prefix", str(version / "venv"))
    monkeypatch.delenv(KIT_VARIABLE, raising=False)
    return locate.find(None).path.name


def test_after_an_update_with_another_kit_the_new_one_answers(
    home: Path, bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert answering(home, monkeypatch) == "kit-a"
    done = run(bundles["more"], home)
    assert (
        "kits: kit-a, kit-b. kit-b answers; `pulse-edge kit use NAME` chooses another"
        in done.stderr
    )
    assert answering(home, monkeypatch) == "kit-b"
    assert run(bundles["more"], home, "--rollback").returncode == 0
    assert answering(home, monkeypatch) == "kit-a"


def test_a_kit_that_a_person_chose_stays_through_updates(
    home: Path, bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(home, monkeypatch)
    locate.choose("kit-a")
    assert "kit-a answers, as you chose" in run(bundles["more"], home).stderr
    assert answering(home, monkeypatch) == "kit-a"


def test_the_kit_that_was_packed_first_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = [small_bundle.kit(tmp_path / name, name) for name in ("z", "a")]
    bundle_of_two = small_bundle.make(
        tmp_path / "bundle", *packed, wheel=small_bundle.program(tmp_path), key=KEY
    )
    assert run(bundle_of_two, tmp_path / "home").returncode == 0
    assert answering(tmp_path / "home", monkeypatch) == "z"


@pytest.mark.parametrize(("mebibytes", "name"), [(2000, "first"), (900, "small"), (100, "small")])
def test_a_kit_that_is_too_large_for_the_machine_does_not_answer(
    bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch, mebibytes: int, name: str
) -> None:
    said: list[str] = []
    monkeypatch.setattr(install, "installed_memory", lambda: mebibytes << 20)
    opened = install.open_bundle(bundles["one"])
    memory = {"first": 1 << 30, "large": 2 << 30, "small": 400 << 20}
    opened = dataclasses.replace(
        opened, kits={kit: {"memory": n} for kit, n in memory.items()}, default="first"
    )
    default = install._default(opened, None, list(memory), said.append)
    assert default == install.DefaultKit(name, chosen=False)
    assert (name == "first") == (not any("first needs 1.0 GiB of memory" in line for line in said))


def test_a_delta_finds_what_is_installed_under_another_name(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    """A file was renamed, one has a name with brackets, and the bundle before had the same bytes in another kit."""
    before = small_bundle.kit(
        tmp_path / "before", "kit a", seed=1, files=("llm[1].gguf", "vision.onnx")
    )
    after = small_bundle.kit(
        tmp_path / "after", "kit z", seed=1, files=("model.gguf", "vision.onnx")
    )
    wheel = small_bundle.program(tmp_path)
    whole = small_bundle.make(tmp_path / "whole", before, wheel=wheel, key=KEY)
    delta = small_bundle.make(
        tmp_path / "delta", after, before, wheel=wheel, key=KEY, since=whole / "bundle.json"
    )
    assert not list(delta.rglob("*.gguf"))
    for folder in (whole, delta):
        assert run(folder, tmp_path / "home").returncode == 0
    current = tmp_path / "home/versions" / (tmp_path / "home/current").read_text().strip()
    assert (current / "kits/kit-z/model.gguf").read_bytes() == (after / "model.gguf").read_bytes()
    assert (current / "kits/kit-a/llm[1].gguf").read_bytes() == (after / "model.gguf").read_bytes()


# --- what stays after an uninstallation -------------------------------------------------------------------------------


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with a cache and an audit log, marked as the program marks them, and files of others in both."""
    folder = tmp_path / "user"
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / ".cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / ".local/state"))
    for name in ("PULSE_EDGE_CACHE", "PULSE_EDGE_AUDIT_LOG"):
        monkeypatch.delenv(name, raising=False)
    rows, log = folder / ".cache/pulse-edge/rows", folder / ".local/state/pulse-edge/audit-log"
    tests = folder / ".local/state/pulse-edge/self-tests"
    files = [
        *(
            folder / ".cache/pulse-edge/machine" / f"{'d' * 20}-{'e' * 20}.json",
            tests / f"{'d' * 20}-{'e' * 20}.json",
        ),
        folder / ".cache/pulse-edge/verified/verified.json",
        *(rows / f"{'a' * 64}.tokens", rows / f"{'a' * 64}-{'b' * 64}.kv", rows / ".unfinished-x"),
        *(
            log / "entries.log",
            log / "head",
            log / "lock",
            log / "retained/2026-01-02" / f"{'c' * 64}.png",
        ),
    ]
    for path in files:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    kinds = {"page-cache": rows, "audit-log": log, "self-test-results": tests}
    kinds |= {
        "machine-profile": rows.with_name("machine"),
        "verified-files": rows.with_name("verified"),
    }
    for kind, path in kinds.items():
        assert kind in folders.KINDS
        folders.claim(path, kind, lambda: True)
    return folder


def test_uninstalling_says_what_stays_and_how_to_remove_it(home: Path, user: Path) -> None:
    before = contents(user)
    done = run(home, home, "--uninstall")
    rows, log = user / ".cache/pulse-edge/rows", user / ".local/state/pulse-edge/audit-log"
    assert f"left: {rows} (page cache). --uninstall --remove-cache removes it" in done.stderr
    assert (
        f"left: {log} (audit log: what was answered and when). --uninstall --remove-log removes it"
        in done.stderr
    )
    assert contents(user) == before


@pytest.mark.parametrize("at_once", [True, False])
def test_caches_and_the_audit_log_go_when_that_is_asked_for(
    home: Path, bundles: dict[str, Path], user: Path, at_once: bool
) -> None:
    if not at_once:
        run(bundles["one"], home, "--uninstall")
    done = run(bundles["one"], home, "--uninstall", "--remove-cache")
    assert f"removed: {user / '.cache/pulse-edge/rows'} (page cache)" in done.stdout
    assert not (user / ".cache/pulse-edge").exists()
    assert (user / ".local/state/pulse-edge/audit-log/entries.log").exists()
    run(bundles["one"], home, "--uninstall", "--remove-log")
    assert not (user / ".local/state/pulse-edge").exists()


def test_files_of_others_in_caches_and_the_log_stay(home: Path, user: Path) -> None:
    rows, log = user / ".cache/pulse-edge/rows", user / ".local/state/pulse-edge/audit-log"
    (rows / "thesis.txt").write_text("mine")
    (log / "retained/letters").mkdir()
    (log / "retained/letters/letter.pdf").write_text("mine")
    done = run(home, home, "--uninstall", "--remove-cache", "--remove-log")
    assert sorted(p.name for p in user.rglob("*") if p.is_file() and p.name != install.MARK) == [
        "letter.pdf",
        "thesis.txt",
    ]
    assert f"left: {rows / 'thesis.txt'} (" in done.stderr


@pytest.mark.parametrize("answers", [["yes", "no"], ["no", "yes"], ["", ""]])
def test_on_a_terminal_each_is_asked_about(
    home: Path, user: Path, monkeypatch: pytest.MonkeyPatch, answers: list[str]
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(
        install.sys, "stdin", Terminal("".join(f"{answer}\n" for answer in answers))
    )
    install._uninstall(install.Home(home), cache=False, log=False)
    names = (".cache/pulse-edge/machine", ".cache/pulse-edge/rows")
    assert [(user / name).exists() for name in names] == [answer != "yes" for answer in answers]
    assert (user / ".local/state/pulse-edge/audit-log/entries.log").exists()


def test_a_cache_without_a_mark_is_left_and_named(home: Path, user: Path) -> None:
    for path in user.rglob(install.MARK):
        path.unlink()
    before = contents(user)
    done = run(home, home, "--uninstall", "--remove-cache", "--remove-log")
    assert contents(user) == before
    for name in (".cache/pulse-edge", ".local/state/pulse-edge/audit-log"):
        assert f"left: {user / name} (without a mark" in done.stderr


# --- what the machine must have ----------------------------------------------------------------------------------------


def test_too_little_disk_is_said_with_figures(
    bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        install.shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(1, 1, 1 << 20)
    )
    with pytest.raises(install.Refused, match=r"needs 0\.3 GiB of disk, and 0\.0 GiB are free"):
        direct(bundles["one"], tmp_path / "home")
    assert not (tmp_path / "home").exists()


def test_too_little_memory_is_said_with_figures(
    bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "installed_memory", lambda: 1 << 28)
    with pytest.raises(
        install.Refused, match=r"needs 0\.3 GiB of memory, and this machine has 0\.2 GiB"
    ):
        direct(bundles["one"], tmp_path / "home")


def test_a_bundle_for_another_machine_says_for_which(
    bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "this_platform", lambda: "windows-x86_64")
    with pytest.raises(
        install.Refused, match=r"made for linux-.* with Python 3\.\d+; this is windows-x86_64"
    ):
        direct(bundles["one"], tmp_path / "home")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "ended"])
def test_an_interrupted_upgrade_leaves_the_version_before_and_the_next_run_finishes(
    home: Path, bundles: dict[str, Path], number: int
) -> None:
    chance = random.Random(number)
    for _ in range(2):
        command = [sys.executable, str(bundles["two"] / "install.py"), "--to", str(home), *TRUSTED]
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            time.sleep(chance.uniform(0.05, 1.5))
            os.kill(process.pid, number)
        assert says(home) in ("1.0", "2.0")
    done = run(bundles["two"], home)
    assert done.returncode == 0, done.stderr
    assert says(home) == "2.0"


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
    assert install.default_home(user_only=user_only) == Path(place) / "pulse-edge"


def test_rollback_of_a_program_that_no_bundle_brought_says_so() -> None:
    with pytest.raises(KitError, match="not installed from a bundle"):
        cli.main(["bundle", "rollback"], standalone_mode=False)


def test_bundle_verify_checks_as_the_installer_does(
    bundles: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "key.pub").write_text(KEY.public().text())
    cli.main(
        ["bundle", "verify", str(bundles["one"]), "--key", str(tmp_path / "key.pub")],
        standalone_mode=False,
    )
    assert f"signed by key {KEY.public().id} (trusted here)" in capsys.readouterr().out


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
        str(bundles["one"] / "install.py"),
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


def reading(kit: Path) -> list[str]:
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


def test_the_installer_connects_to_nothing(bundles: dict[str, Path], tmp_path: Path) -> None:
    """pip's copy of urllib3 opens a socket when imported, to see whether there is IPv6; it goes nowhere."""
    command = [
        sys.executable,
        str(bundles["one"] / "install.py"),
        "--to",
        str(tmp_path / "home"),
        *TRUSTED,
    ]
    assert [c for c in sockets(command, tmp_path) if "connect(" in c or "send" in c] == []


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


def test_reading_a_page_opens_no_socket(tiny_kit: Path, tmp_path: Path) -> None:
    assert sockets(reading(tiny_kit), tmp_path) == []
