"""An entry in the desktop's list of programs, which opens the local page with a double click.

It is written where the installation is in its usual place and the bundle holds the local page, and
removed with the installation. Somebody else's file of that name stays as it is.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from .files import write_atomically
from .home import EVERYBODYS_HOME, Home, default_home

SERVE_WHEEL = "starlette-"
"""Beginning of a wheel's name that only the local page needs."""
_DESKTOP = """[Desktop Entry]
Type=Application
Version=1.5
Name=pulse-edge
GenericName=ECG reader
Comment=Read photographed and printed ECGs on this computer
Exec={launcher} serve --open
Icon=applications-science
Terminal=true
Categories=Science;MedicalSoftware;
X-Pulse-Edge={home}
"""
"""Desktop Entry Specification 1.5. The terminal shows why nothing opens, and ends the page."""
_COMMAND = "#!/bin/sh\n# X-Pulse-Edge={home}\nexec {launcher} serve --open\n"
_COMMAND_CMD = "@rem X-Pulse-Edge={home}\r\n@call {launcher} serve --open\r\n"


def shortcut_path(home: Home) -> Path | None:
    """Return where the entry belongs; None if a person chose the place of the installation, which
    then holds everything.
    """
    if sys.platform == "win32":
        if home.path != default_home():
            return None
        roaming = Path(os.environ.get("APPDATA") or Path.home() / "AppData/Roaming")
        return roaming / "Microsoft/Windows/Start Menu/Programs/pulse-edge.cmd"
    if home.shell_link() is None:
        return None
    for_everybody = home.path == EVERYBODYS_HOME
    if sys.platform == "darwin":
        place = Path("/Applications") if for_everybody else Path.home() / "Applications"
        return place / "pulse-edge.command"
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share")
    place = Path("/usr/local/share") if for_everybody else data
    return place / "applications/pulse-edge.desktop"


def write_shortcut(home: Home) -> None:
    """Write the entry, unless somebody else's file has its name. It is a convenience: where it
    cannot be written, the launcher still works.
    """
    path = shortcut_path(home)
    if path is None or (os.path.lexists(path) and not _is_ours(path, home)):
        return
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = 0o644 if path.suffix == ".desktop" else 0o755
        write_atomically(path, _text(path, home).encode(), mode=mode)


def remove_shortcut(home: Home) -> None:
    """Remove the entry if it is this installation's."""
    path = shortcut_path(home)
    if path is not None and _is_ours(path, home):
        with contextlib.suppress(OSError):
            path.unlink()


def _text(path: Path, home: Home) -> str:
    launcher = str(home.launcher())
    if path.suffix == ".desktop":
        return _DESKTOP.format(launcher=_desktop_quoted(launcher), home=home.path)
    if path.suffix == ".command":
        quoted = "'" + launcher.replace("'", "'\\''") + "'"
        return _COMMAND.format(launcher=quoted, home=home.path)
    percent = launcher.replace("%", "%%")
    return _COMMAND_CMD.format(launcher=f'"{percent}"', home=home.path)


def _desktop_quoted(word: str) -> str:
    """Quote a word of `Exec`: quoting rules first, then those of string values, then field codes."""
    for character in '\\"`$':
        word = word.replace(character, f"\\{character}")
    return '"' + word.replace("\\", "\\\\").replace("%", "%%") + '"'


def _is_ours(path: Path, home: Home) -> bool:
    """Whether a file names this installation."""
    try:
        if path.is_symlink() or path.stat().st_size > 4096:
            return False
        lines = path.read_text("utf-8").splitlines()
        return any(line.endswith(f"X-Pulse-Edge={home.path}") for line in lines)
    except (OSError, ValueError):
        return False
