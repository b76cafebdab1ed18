"""Mark the folders that belong to pulse-edge; only a marked folder is ever changed.

`pulse-edge-folder.json` in a folder says which kind of folder it is and gives it a random id. In a
folder without the mark no file is deleted or overwritten, and no rights change. A folder that is
absent is made for its owner alone; one that is empty is marked and keeps its rights. Standard
library only.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pulse_edge.common import files
from pulse_edge.errors import FolderError

MARKER = "pulse-edge-folder.json"
FORMAT = 1
KINDS = {
    "audit-log": "audit log",
    "batch": "batch",
    "machine-profile": "machine profile",
    "page-cache": "page cache",
    "self-test-results": "self-test results",
    "verified-files": "list of verified files",
    "web": "local page's store",
}
"""Kind in the marker -> name for people."""
_LARGEST_MARKER = 4096


@dataclass(frozen=True)
class Mark:
    """The content of a folder's marker."""

    kind: str
    id: str
    """32 random hexadecimal digits."""


def read(folder: Path) -> Mark | None:
    """Return the mark of a folder, or None if it has none that can be trusted. Nothing is changed.

    A marker is trusted if it is a plain file that belongs to this user and is small, valid and of a
    known format.
    """
    try:
        handle = os.open(
            folder / MARKER,
            os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0),
        )
        with os.fdopen(handle, "rb") as file:
            about = os.fstat(handle)
            if not stat.S_ISREG(about.st_mode) or not files.is_mine(about):
                return None
            raw = json.loads(file.read(_LARGEST_MARKER))
        if raw["format"] == FORMAT and isinstance(raw["kind"], str) and isinstance(raw["id"], str):
            return Mark(raw["kind"], raw["id"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    return None


def check(folder: Path, kind: str, adopted: Callable[[], bool] = lambda: False) -> Mark | None:
    """Return the folder's mark, or None if `claim` would set one. Raises FolderError for a foreign
    folder.

    `adopted` looks at an unmarked folder that is not empty, and is True if its content shows that
    pulse-edge made it. Nothing is changed. Raises OSError where the folder cannot be read.
    """
    what = KINDS[kind]
    if not os.path.lexists(folder):
        return None
    if not folder.is_dir():
        raise FolderError(f"{folder}: is no folder, so it cannot hold the {what}. {_advice(kind)}")
    if not files.is_mine(folder.stat()):
        raise FolderError(
            f"{folder}: belongs to another user, so it is left alone. {_advice(kind)}"
        )
    if mark := read(folder):
        if mark.kind != kind:
            other = KINDS.get(mark.kind, mark.kind)
            raise FolderError(
                f"{folder}: is a folder of pulse-edge for its {other}, not its {what}. "
                f"{_advice(kind)}"
            )
        return mark
    others = [
        name for name in os.listdir(folder) if name != MARKER and not name.startswith(f".{MARKER}-")
    ]
    if others and not adopted():
        if (
            mark := read(folder)
        ) and mark.kind == kind:  # another process of ours has claimed it just now
            return mark
        raise FolderError(
            f"{folder}: holds files and has no {MARKER} that says it is the {what}, so nothing is "
            "changed there. "
            f"{_advice(kind)}"
        )
    if os.name == "posix" and folder.stat().st_mode & 0o022:
        raise FolderError(
            f"{folder}: other users may write there, so it cannot hold the {what}. {_advice(kind)} "
            "Or take that right "
            "away (chmod go-w)."
        )
    return None


def claim(folder: Path, kind: str, adopted: Callable[[], bool] = lambda: False) -> Mark:
    """Return the mark of a folder, after making and marking it if it is absent, empty, or
    `adopted`.

    A new folder is its owner's alone (0700); the rights of one that exists stay. Raises FolderError
    for a foreign folder, OSError where the disk refuses it.
    """
    if mark := check(folder, kind, adopted):
        return mark
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    mark = Mark(kind, secrets.token_hex(16))
    text = json.dumps({"format": FORMAT, "kind": mark.kind, "id": mark.id}) + "\n"
    try:
        with files.replacing(folder / MARKER, overwrite=False, prefix=f".{MARKER}-") as file:
            file.write(text.encode("ascii"))
    except FileExistsError:  # another process of ours was faster, or the marker cannot be trusted
        if mark_of_other := check(folder, kind):
            return mark_of_other
        raise FolderError(
            f"{folder / MARKER}: is not a marker that pulse-edge wrote. {_advice(kind)}"
        ) from None
    return mark


def require(folder: Path, kind: str) -> Mark:
    """Return the mark of a folder that must carry one. Raises FolderError where it does not.
    Nothing is changed."""
    mark = check(folder, kind) if os.path.lexists(folder) else None
    if mark is None:
        raise FolderError(f"{folder}: is not the {KINDS[kind]} of pulse-edge. {_advice(kind)}")
    return mark


def _advice(kind: str) -> str:
    named = {
        "audit-log": "Set PULSE_EDGE_AUDIT_LOG to an empty folder of yours, or to one that does "
        "not exist yet.",
        "page-cache": "Set PULSE_EDGE_CACHE to an empty folder of yours, or to one that does not "
        "exist yet.",
        "web": "Choose an empty folder, or one that does not exist yet, with --folder.",
        "batch": "Choose an empty folder, or one that does not exist yet, with -o.",
    }
    return named.get(kind, "Move it away; pulse-edge makes its own.")
