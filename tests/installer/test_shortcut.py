"""The entry in the desktop's list of programs."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pulse_edge.installer.home import Home, default_home
from pulse_edge.installer.shortcut import remove_shortcut, shortcut_path, write_shortcut

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="looks at a Linux desktop's entry"
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A user's installation in its usual place, below a folder with an awkward name."""
    data = tmp_path / 'a "b" $c `d` \\e %f'
    monkeypatch.setenv("XDG_DATA_HOME", str(data))
    monkeypatch.setenv("HOME", str(tmp_path))
    place = Home(default_home(user_only=True))
    place.path.mkdir(parents=True)
    return place


def entry(home: Home) -> configparser.SectionProxy:
    path = shortcut_path(home)
    assert path is not None
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(path.read_text("utf-8"))
    return parser["Desktop Entry"]


def command(home: Home) -> str:
    """The entry's command: field codes and escapes of a string value are undone, and its quotes are
    those of a shell."""
    return re.sub(r"\\(.)", r"\1", entry(home)["Exec"]).replace("%%", "%")


def test_the_entry_starts_the_launcher_whatever_its_folder_is_called(home: Home) -> None:
    write_shortcut(home)
    done = subprocess.run(
        ["sh", "-c", f"printf '%s\\n' {command(home)}"], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [str(home.launcher()), "serve", "--open"]


def test_a_terminal_shows_what_the_program_says(home: Home) -> None:
    write_shortcut(home)
    assert entry(home)["Terminal"] == "true"


def test_the_entry_goes_with_its_installation(home: Home) -> None:
    write_shortcut(home)
    path = shortcut_path(home)
    assert path is not None
    assert path.is_file()
    remove_shortcut(home)
    assert not os.path.lexists(path)


def test_somebody_elses_entry_stays(home: Home) -> None:
    path = shortcut_path(home)
    assert path is not None
    path.parent.mkdir(parents=True)
    path.write_text("[Desktop Entry]\nName=other\n")
    write_shortcut(home)
    remove_shortcut(home)
    assert path.read_text() == "[Desktop Entry]\nName=other\n"


def test_an_update_writes_its_own_entry_again(home: Home) -> None:
    write_shortcut(home)
    path = shortcut_path(home)
    assert path is not None
    path.write_text(path.read_text().replace("serve --open", "old"))
    write_shortcut(home)
    assert "serve --open" in path.read_text()


def test_a_place_that_a_person_chose_gets_no_entry(home: Home, tmp_path: Path) -> None:
    assert shortcut_path(Home(tmp_path / "chosen")) is None
    write_shortcut(Home(tmp_path / "chosen"))
    assert not list(tmp_path.rglob("*.desktop"))


def test_the_launcher_of_the_entry_runs(home: Home) -> None:
    launcher = home.launcher()
    launcher.write_text('#!/bin/sh\necho "$@"\n')
    launcher.chmod(0o755)
    write_shortcut(home)
    done = subprocess.run(["sh", "-c", command(home)], capture_output=True, text=True, check=True)
    assert done.stdout == "serve --open\n"
