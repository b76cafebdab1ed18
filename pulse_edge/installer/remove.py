"""Go back to the version before, and remove what the installer has written, without touching
anything else.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from .bundle import INSTALLER
from .files import locked, write_atomically
from .home import (
    INSTALL_RECORD,
    MARK,
    VERSION_KIND,
    Home,
    foreign_names,
    read_mark,
    refuse_unmarked,
)
from .refusal import Refused
from .shortcut import remove_shortcut


def rollback(home: Home) -> str:
    """Put the version before the one in use into use; return its name. Raises Refused if there is
    none.
    """
    refuse_unmarked(home)
    with locked(home.path):
        current = home.current()
        others = [name for name in home.complete() if name != current]
        if not others:
            raise Refused(f"{home.path}: there is no earlier version to go back to.")
        write_atomically(home.path / "current", f"{others[0]}\n".encode())
    return others[0]


def uninstall(home: Home) -> list[Path]:
    """Remove everything that installations have put there; return the paths of others, which stay.

    Raises Refused if nothing is installed there, or if a version is still in use by a program.
    """
    refuse_unmarked(home)
    link = home.shell_link()
    if link is not None and link.is_symlink() and Path(os.readlink(link)) == home.launcher():
        link.unlink()
    remove_shortcut(home)
    with locked(home.path):
        # First the pointer: a version that is half removed must not be run.
        (home.path / "current").unlink(missing_ok=True)
        for version in home.ours():
            remove_version(version)
        if remaining := home.ours():
            raise Refused(
                f"{remaining[0]}: could not be removed. Close the programs that use it, and "
                "uninstall again."
            )
        for name in ("current", home.launcher().name, "trusted.pub", INSTALLER):
            # The second: left by an installer that was killed while it wrote.
            for path in [home.path / name, *home.path.glob(f".{name}.*")]:
                path.unlink(missing_ok=True)
        remove_mark_if_empty(home)
    if not home.path.is_dir():
        return []
    remaining = sorted([*home.path.iterdir(), *home.path.glob("versions/*")])
    return [path for path in remaining if path.name != "versions"]


def remove_version(folder: Path) -> None:
    """Remove a version's folder. A folder without a mark is left alone, unless it is empty.

    install.json goes first, so that a version that is half removed does not count as one, and the
    mark goes last.
    """
    if folder.is_symlink() or (read_mark(folder, VERSION_KIND) is None and foreign_names(folder)):
        return  # somebody else's
    (folder / INSTALL_RECORD).unlink(missing_ok=True)
    for path in folder.iterdir():
        if path.name == MARK:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()
    with contextlib.suppress(OSError):
        if [path.name for path in folder.iterdir()] == [MARK]:
            (folder / MARK).unlink()
        folder.rmdir()


def remove_mark_if_empty(home: Home) -> None:
    """Remove the mark of an installation that has no version left, and its folder if an installer
    made it.
    """
    mark = home.mark()
    if mark is None or home.ours() or (home.path / "current").exists():
        return
    for folder in home.path.glob("versions/*"):
        # Made by an installer that was killed before it had marked it.
        if folder.is_dir() and not folder.is_symlink() and not foreign_names(folder):
            remove_version(folder)
    with contextlib.suppress(OSError):
        (home.path / "versions").rmdir()
    for path in [*home.path.glob(f".{MARK}.*"), home.path / MARK, home.path / ".lock"]:
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        if mark.get("made_by") == "installer":
            home.path.rmdir()
