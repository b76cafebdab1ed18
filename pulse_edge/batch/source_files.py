"""Find the files that a batch names: folders, patterns, lists and single pages.

In: what a person names. Out: (absolute path, bytes, time of change in ns) of each file. Folders
that cannot be read are listed too and fail later, so that no page is skipped without a word.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

from pulse_edge.common.text import one_line
from pulse_edge.errors import ScanError, UsageError

SourceFile: TypeAlias = tuple[str, int, int]
"""Absolute path, bytes, and time of the last change in nanoseconds."""
UNREADABLE_FOLDER = -2
"""Size of a folder that cannot be read or is a link; -1 is the size of a file that is absent."""
_NO_PAGES = frozenset({"thumbs.db", "desktop.ini"})


def files(
    sources: Sequence[str], batch_folder: Path, *, may_be_empty: bool = False
) -> Iterator[SourceFile]:
    """List every file that the sources name, except those below the batch's own folder.

    A source is a folder (with everything below it that is not hidden), a pattern, a `.txt` file
    with one path a line (or with NUL characters between the paths), or a page. An absent file is
    listed with -1 bytes, a folder that cannot be read or is a link with UNREADABLE_FOLDER. Raises
    UsageError where a source names no file, unless it `may_be_empty`.
    """
    own = os.path.abspath(batch_folder)
    for source in sources:
        empty = True
        for path in _paths(source):
            absolute = os.path.abspath(path)
            if absolute == own or absolute.startswith(own + os.sep):
                continue
            empty = False
            yield _described(absolute)
        if empty and not may_be_empty:
            raise UsageError(
                f"{one_line(source)}: names no file. Check the name; a pattern needs quotes."
            )


def _described(path: str) -> SourceFile:
    if folder_error(path) is not None:
        return path, UNREADABLE_FOLDER, 0
    try:
        about = os.stat(path)
    except (OSError, ValueError):
        return path, -1, -1
    return path, about.st_size, about.st_mtime_ns


def folder_error(path: str) -> ScanError | None:
    """Return why a folder on the list was not read; None for anything else."""
    name = one_line(path)
    if not os.path.isdir(path):
        return None
    if os.path.islink(path):
        return ScanError(
            f"{name}: is a link to a folder, and links are not followed. Name that folder as well."
        )
    try:
        os.scandir(path).close()
    except OSError as e:
        return ScanError(
            f"{name}: is a folder that cannot be read ({e.strerror}). Ask for the right to read it."
        )
    return None


def _paths(source: str) -> Iterator[str]:
    if os.path.isdir(source):
        yield from _below(source)
    elif source.lower().endswith(".txt") and os.path.isfile(source):
        yield from _listed(source)
    elif not os.path.lexists(source) and glob.has_magic(source):
        yield from sorted(glob.glob(source, recursive=True))
        if "**" in source:  # glob skips folders that it cannot read, and follows links
            before = os.path.dirname(source[: source.index("**")])
            yield from _unreadable_below(before or os.curdir)
    else:
        yield source


def _below(folder: str) -> Iterator[str]:
    """Give every file below a folder, unreadable folders, and links to folders elsewhere."""
    unreadable: list[str] = []
    top = os.path.realpath(folder)
    for parent, folders, names in os.walk(folder, onerror=lambda e: unreadable.append(_path(e))):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in folders:
            path = os.path.join(parent, name)
            target = f"{os.path.realpath(path)}{os.sep}"
            if os.path.islink(path) and not target.startswith(top + os.sep):
                yield path  # a link into the same folder leads to files that are read anyway
        for name in sorted(names):
            if not name.startswith(".") and name.lower() not in _NO_PAGES:
                yield os.path.join(parent, name)
    yield from unreadable


def _unreadable_below(folder: str) -> Iterator[str]:
    unreadable: list[str] = []
    for _parent, folders, _names in os.walk(folder, onerror=lambda e: unreadable.append(_path(e))):
        folders[:] = [name for name in folders if not name.startswith(".")]
    yield from unreadable


def _path(error: OSError) -> str:
    return str(error.filename)


def _listed(path: str) -> Iterator[str]:
    with open(path, "rb") as file:
        raw = file.read()
    lines = raw.split(b"\0") if b"\0" in raw else raw.removeprefix(b"\xef\xbb\xbf").splitlines()
    yield from (os.fsdecode(line) for line in lines if line.strip())


class Settled:
    """Holds back files that are still being written.

    A file passes when it has not changed since the last look.
    """

    def __init__(self) -> None:
        self._last_look: dict[str, tuple[int, int]] = {}

    def __call__(self, listed: Iterator[SourceFile]) -> Iterator[SourceFile]:
        now = {path: (size, changed) for path, size, changed in listed}
        before, self._last_look = self._last_look, now
        return ((path, *about) for path, about in now.items() if before.get(path) == about)
