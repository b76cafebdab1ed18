"""The folder of an installation, and the marks that say which folders the installer may change.

    HOME/versions/NAME/{venv,kits,wheels,self-tests,bundle.json,default-kit.json,install.json}
    HOME/current       name of the version in use
    HOME/trusted.pub   keys that are trusted here
    HOME/pulse-edge    launcher of the version in use
    HOME/install.pyz   the installer, for rollback and removal

HOME and each version's folder carry a mark, the file `pulse-edge-folder.json`. Nothing is
overwritten or removed in a folder without it. A version without `install.json`, which is written
last, is unfinished.
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .bundle import JUNK, Bundle
from .files import write_atomically
from .minisign import PublicKey, read_public_key
from .refusal import Refused

INSTALL_RECORD = "install.json"
DEFAULT_KIT = "default-kit.json"
MARK = "pulse-edge-folder.json"
"""Says that a folder is pulse-edge's: `format`, `kind` of folder, and an `id`."""
MARK_FORMAT = 1
HOME_KIND, VERSION_KIND = "installation", "installed-version"
"""Kinds of the installer's folders. The mark of a version has the id of its installation."""
_MARK_BYTES = 4096
_NEIGHBOURS = {"kits", "audit-log", "cache", "lost+found", DEFAULT_KIT}
"""Names that may lie in HOME without a mark: the program keeps them in its usual place on some
systems (pulse_edge.kit, pulse_edge.audit_log), and disks have lost+found at their top."""
EVERYBODYS_HOME = Path("/opt/pulse-edge")


@dataclass(frozen=True)
class Home:
    """The folder of an installation."""

    path: Path

    def mark(self) -> dict[str, Any] | None:
        """Return the folder's mark; None if the folder is not an installation."""
        return read_mark(self.path, HOME_KIND)

    def version(self, name: str) -> Path:
        """Return the folder of a version."""
        return self.path / "versions" / name

    def ours(self) -> list[Path]:
        """List the folders of versions, unfinished ones too. Other folders in `versions` are
        somebody else's.
        """
        mark = self.mark()
        if mark is None:
            return []
        return sorted(
            p
            for p in self.path.glob("versions/*")
            if (read_mark(p, VERSION_KIND) or {}).get("id") == mark["id"]
        )

    def complete(self) -> list[str]:
        """List the finished versions, newest first."""
        records = [p / INSTALL_RECORD for p in self.ours() if (p / INSTALL_RECORD).is_file()]
        records.sort(key=lambda record: record.stat().st_mtime_ns, reverse=True)
        return [record.parent.name for record in records]

    def current(self) -> str | None:
        """Return the name of the version in use."""
        try:
            name = (self.path / "current").read_text("utf-8").strip()
        except (OSError, ValueError):
            return None
        return name if name in self.complete() else None

    def pinned(self) -> list[PublicKey]:
        """List the keys that are trusted here."""
        path = self.path / "trusted.pub"
        if self.mark() is None or not path.exists():
            return []
        lines = path.read_text("utf-8").splitlines()
        return [
            read_public_key(line, str(path))
            for line in lines
            if not line.startswith("untrusted comment")
        ]

    def launcher(self) -> Path:
        """Return the command that runs the version in use."""
        return self.path / ("pulse-edge.cmd" if sys.platform == "win32" else "pulse-edge")

    def shell_link(self) -> Path | None:
        """Return where shells look for the command; None if a person chose the place, which then
        holds everything.
        """
        usual = (default_home(), default_home(user_only=True))
        if sys.platform == "win32" or self.path not in usual:
            return None
        if self.path == EVERYBODYS_HOME:
            return Path("/usr/local/bin/pulse-edge")
        return Path.home() / ".local/bin/pulse-edge"


def default_home(*, user_only: bool = False) -> Path:
    """Return the usual place: for everybody if an administrator installs, else for this user."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local") / "pulse-edge"
    if os.geteuid() == 0 and not user_only:
        return EVERYBODYS_HOME
    if sys.platform == "darwin":
        return Path.home() / "Library/Application Support/pulse-edge"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "pulse-edge"


def read_mark(folder: Path, kind: str) -> dict[str, Any] | None:
    """Return the mark of a folder of this kind (`format`, `kind`, `id`); None if it has none."""
    path = folder / MARK
    try:
        if folder.is_symlink() or not stat.S_ISREG(os.lstat(path).st_mode):
            return None
        if path.stat().st_size > _MARK_BYTES:
            return None
        raw = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(raw, dict) or raw.get("format") != MARK_FORMAT or raw.get("kind") != kind:
        return None
    return raw if isinstance(raw.get("id"), str) else None


def write_mark(folder: Path, kind: str, mark_id: str, **more: str) -> None:
    """Mark a folder as the installer's."""
    mark = {"format": MARK_FORMAT, "kind": kind, "id": mark_id, **more}
    write_atomically(folder / MARK, json.dumps(mark).encode() + b"\n")


def foreign_names(folder: Path) -> list[str]:
    """List the contents of an unmarked folder, without remains of systems and installers."""
    remains = re.compile(rf"\.lock|\.{re.escape(MARK)}\..{{1,20}}")

    def is_ours(path: Path) -> bool:
        small = path.is_file() and path.stat().st_size <= _MARK_BYTES
        return bool(JUNK.fullmatch(path.name) or (remains.fullmatch(path.name) and small))

    return sorted(p.name for p in folder.iterdir() if not is_ours(p))


def refuse_unmarked(home: Home) -> None:
    """Raise Refused where nothing is installed."""
    if home.mark() is None:
        raise Refused(
            f"{home.path}: nothing is installed there. Nothing was touched. Name the place with "
            "--to."
        )


def refuse_place(home: Home, bundle: Bundle) -> None:
    """Raise Refused where nothing can be installed, or where that would touch somebody else's
    files.
    """
    path = home.path
    if fault := _path_fault(str(path)):
        raise Refused(
            f"{str(path)!a}: has {fault} in its path, which a Python environment cannot have. Name "
            "another with --to."
        )
    if bundle.path in (path, *path.parents):
        raise Refused(
            f"{path}: lies in the bundle itself, which would be broken by it. Name another place "
            "with --to."
        )
    if not os.path.lexists(path):
        return
    if not path.is_dir():
        raise Refused(f"{path}: is not a folder. Name a new or an empty one with --to.")
    if home.mark() is None:
        others = [name for name in foreign_names(path) if name not in _NEIGHBOURS]
        if others:
            shown = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
            raise Refused(
                f"{path}: holds other files ({shown}) and no installation of pulse-edge. Nothing "
                "was touched. Name a new or an empty folder with --to."
            )
    status = path.stat()
    if os.name == "posix" and status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        raise Refused(
            f"{path}: everybody may write there, and so change the program. Forbid that (chmod "
            "o-w), or name another place with --to."
        )


def _path_fault(path: str) -> str | None:
    """Return what a virtual environment or a shell script cannot have in a path; else None."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return "bytes that are not UTF-8"
    if any(ord(c) < 32 or ord(c) == 127 for c in path):
        return "a line break or another control character"
    return f"a {os.pathsep!r}" if os.pathsep in path else None
