"""The folders outside an installation that the program has written to for this user: caches and the
audit log.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from .home import HOME_KIND, MARK, VERSION_KIND, read_mark


@dataclass(frozen=True)
class UserFolder:
    """A folder that the program has written to for this user."""

    path: Path
    kind: str | None
    """The kind that its mark gives; None without a mark, and then it is never removed."""

    @property
    def is_audit_log(self) -> bool:
        """Whether it holds an audit log, which clinics may be obliged to retain."""
        return self.kind == "audit-log" or (self.kind is None and self.path == usual_folders()[1])

    @property
    def is_record(self) -> bool:
        """Whether it cannot be made again: an audit log, or the pages of the local page."""
        return self.is_audit_log or self.kind == "web"

    def __str__(self) -> str:
        contents = (self.kind or "cache").replace("-", " ")
        if self.is_audit_log:
            contents = "audit log: what was answered and when"
        elif self.kind == "web":
            contents = "local page: uploads, answers, confirmations"
        return f"{self.path} ({contents})"


def usual_folders() -> tuple[Path, Path]:
    """Return this user's cache and audit log, where pulse_edge.kit and pulse_edge.audit_log place
    them.
    """
    if sys.platform == "win32":
        local = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local") / "pulse-edge"
        return local / "cache", local / "audit-log"
    if sys.platform == "darwin":
        library = Path.home() / "Library"
        return library / "Caches/pulse-edge", library / "Application Support/pulse-edge/audit-log"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state")
    return cache / "pulse-edge", state / "pulse-edge/audit-log"


def user_folders() -> list[UserFolder]:
    """List the marked folders of the program, and the usual places if they have no mark."""
    cache, log = usual_folders()
    named = [
        Path(os.environ[name])
        for name in ("PULSE_EDGE_CACHE", "PULSE_EDGE_AUDIT_LOG")
        if os.environ.get(name)
    ]
    state = Path(os.environ.get("PULSE_EDGE_STATE") or log.parent)
    places = [cache, *_subfolders(cache), *_subfolders(log.parent), *_subfolders(state), *named]
    folders: dict[Path, UserFolder] = {}
    for path in places:
        kind = _kind(path)
        if kind not in (None, HOME_KIND, VERSION_KIND):
            folders[path.resolve()] = UserFolder(path, kind)
    for path in (cache, log):
        inside = any(path.resolve() in (p, *p.parents) for p in folders)
        if path.is_dir() and not inside:
            folders[path.resolve()] = UserFolder(path, None)
    return list(folders.values())


def _subfolders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("*") if p.is_dir() and not p.is_symlink())


def _kind(folder: Path) -> str | None:
    """Return the kind that a folder's mark gives; None without a mark."""
    try:
        kind = json.loads((folder / MARK).read_bytes())["kind"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return kind if isinstance(kind, str) and read_mark(folder, kind) else None


_WRITTEN_BY_US = re.compile(
    r"entries\.log|lock|head(\.new)?|verified.*|[0-9a-f]{16,64}(-[0-9a-f]{16,64})?\.(tokens|kv|json|png)(\.new)?"
    r"|web\.sqlite(-wal|-shm)?|token|link|open\.html|phones\.json|phone-(key|certificate)\.pem"
    rf"|\.unfinished-.+|tmp.{{8}}|\.{re.escape(MARK)}.+"
)
"""Names of the files that the program writes into its folders; other files there are somebody
else's."""
_OF_A_PAGE = re.compile(r"[\w-]{22}(-\w+\.\w+)?")
"""Names of files in the local page's folders `uploads` and `pictures`."""
_PAGE_FOLDERS = ("uploads", "pictures")


def remove_user_folder(folder: UserFolder) -> list[Path]:
    """Remove what the program has written into a marked folder, and the folder if it is then empty.

    Returns the paths that stay.
    """
    if folder.kind is None or read_mark(folder.path, folder.kind) is None:
        return [folder.path]
    for place, folders, names in os.walk(folder.path, topdown=False):
        for name in names:
            of_a_page = os.path.basename(place) in _PAGE_FOLDERS and _OF_A_PAGE.fullmatch(name)
            if of_a_page or _WRITTEN_BY_US.fullmatch(name):
                os.unlink(os.path.join(place, name))
        for name in folders:
            with contextlib.suppress(OSError):  # it holds somebody else's files
                os.rmdir(os.path.join(place, name))
    others = sorted(path for path in folder.path.iterdir() if path.name != MARK)
    if not others:
        (folder.path / MARK).unlink()
        with contextlib.suppress(OSError):
            folder.path.rmdir()
            folder.path.parent.rmdir()
    return others
