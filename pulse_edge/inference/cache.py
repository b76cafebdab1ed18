"""Image tokens (T, d) float32 of pages that were encoded before, kept on disk by what they were made of.

A file for each: a line of JSON (key, shape, sha256 of what follows), then the rows, little-endian. Only its owner may read
it. Least recently used ones make room. An entry that is broken, or somebody else's, is removed. The folder carries the mark
of a page cache (see `owned`): no other folder is written to, and in it only entries are removed.

Also, when asked: what the language model made of those rows (`PrefixCache`), as llama.cpp writes it, `KEY-SHA256.kv`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from pulse_edge.common import folders

Float = npt.NDArray[np.float32]
KIND = "page-cache"
LIMIT = 512 << 20
"""Bytes of all entries together: ten pages of PULSE-7B."""
_FORMAT, _UNFINISHED = 1, ".unfinished-"
_BEGINNING = b'{"pulse_edge_image_tokens": '
_PREFIX = re.compile(r".+-[0-9a-f]{64}\.kv")
_ENTRY = re.compile(
    r"[0-9a-f]{64}(-attention)?\.tokens|[0-9a-f]{64}-[0-9a-f]{64}\.kv|\.unfinished-[a-z0-9_]{8}"
)
"""Names that this cache gives: of `tempfile` the last."""
_HEADER = 4096
_PIECE = 1 << 20
_STALE = 3600.0
"""Seconds after which an unfinished file is one of a process that was killed."""


def key_of(pixels: Float, made_by: Mapping[str, Any]) -> str:
    """The entry's name: hash of the tiles (n, 3, S, S) that the encoder gets, and of everything else that makes rows."""
    digest = hashlib.sha256(json.dumps({"shape": pixels.shape, **made_by}, sort_keys=True).encode())
    digest.update(np.ascontiguousarray(pixels, "<f4").tobytes())
    return digest.hexdigest()


class _Folder:
    """A folder of entries of one kind. Nothing here raises for a disk that is full or not writable: a cache only saves time.

    Raises FolderError for a folder that is not a page cache of this user.
    """

    suffix: str

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit

    def info(self) -> tuple[int, int]:
        """Entries, and their bytes together."""
        sizes = [size for _, size, _ in self._entries()]
        return len(sizes), sum(sizes)

    def clear(self) -> int:
        """Remove everything that this cache wrote; how many entries there were."""
        entries = self._entries()
        for path in (
            *(path for path, _, _ in entries),
            *(self._unfinished(0) if self.check() else ()),
        ):
            _remove(path)
        return len(entries)

    def check(self) -> bool:
        """Whether the folder is there. Raises FolderError where it is not a page cache of this user."""
        try:
            return folders.check(self.folder, KIND, self._is_older) is not None or self._is_older()
        except OSError:
            return False

    def _own_folder(self) -> None:
        folders.claim(self.folder, KIND, self._is_older)

    def _is_older(self) -> bool:
        """Whether a version before the marks made this folder: it holds entries and nothing else."""
        names = os.listdir(self.folder) if self.folder.is_dir() else []
        return bool(names) and all(map(_ENTRY.fullmatch, names))

    def _is_entry(self, path: Path) -> bool:
        """Whether a file is one that this cache wrote, by its name and, where it has one, its first line."""
        raise NotImplementedError

    def _entries(self) -> list[tuple[Path, int, float]]:
        """Path, bytes, time of last use, the least recently used first."""
        found: list[tuple[Path, int, float]] = []
        if not self.check():
            return found
        for path in self.folder.glob(f"*{self.suffix}"):
            with contextlib.suppress(OSError):  # another process may have removed it
                about = path.lstat()
                if stat.S_ISREG(about.st_mode) and self._is_entry(path):
                    found.append((path, about.st_size, about.st_mtime))
        return sorted(found, key=lambda entry: entry[2])

    def _unfinished(self, older_than: float) -> Iterator[Path]:
        for path in self.folder.glob(f"{_UNFINISHED}*"):
            with contextlib.suppress(OSError):
                if not _ENTRY.fullmatch(path.name):
                    continue
                if time.time() - path.lstat().st_mtime >= older_than:
                    yield path

    def _make_room(self, size: int) -> None:
        for path in self._unfinished(_STALE):
            _remove(path)
        entries = self._entries()
        total = sum(bytes_ for _, bytes_, _ in entries) + size
        for path, bytes_, _ in entries:
            if total <= self.limit:
                return
            _remove(path)
            total -= bytes_

    def _write(self, size: int, fill: Callable[[Path], Path]) -> None:
        """Make an entry of `size` bytes: `fill` writes the file, and says what it is called when it is whole.

        One larger than the limit, or than half the disk's room, is not kept.
        """
        with contextlib.suppress(OSError):
            self._own_folder()
            if size > self.limit or 2 * size > shutil.disk_usage(self.folder).free:
                return
            self._make_room(size)
            fd, name = tempfile.mkstemp(prefix=_UNFINISHED, dir=self.folder)  # 0600
            os.close(fd)
            try:
                os.replace(name, fill(Path(name)))
            except BaseException:
                _remove(Path(name))
                raise


class ImageTokenCache(_Folder):
    """Image tokens by what they were made of."""

    suffix = ".tokens"

    def __init__(self, folder: Path, limit: int = LIMIT) -> None:
        super().__init__(folder, limit)

    def get(self, key: str) -> Float | None:
        """The rows as they were put, bit for bit; None where there are none that can be trusted."""
        path = self._path(key)
        if not self.check():
            return None
        try:
            with _open_own(path) as file:
                rows = _read(file, key)
            os.utime(path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            _remove(path)
            return None
        return rows

    def put(self, key: str, rows: Float) -> None:
        """Keep rows; older entries make room. Rows larger than the limit, or than half the disk's room, are not kept."""
        raw = np.ascontiguousarray(rows, "<f4").tobytes()
        head = {
            "pulse_edge_image_tokens": _FORMAT,
            "key": key,
            "shape": rows.shape,
            "sha256": hashlib.sha256(raw).hexdigest(),
        }
        line = json.dumps(head).encode() + b"\n"

        def fill(file: Path) -> Path:
            with file.open("wb") as out:
                out.write(line)
                out.write(raw)
            return self._path(key)

        self._write(len(line) + len(raw), fill)

    def _is_entry(self, path: Path) -> bool:
        if _ENTRY.fullmatch(path.name):
            return True
        with _open_own(path) as file:
            return file.read(len(_BEGINNING)) == _BEGINNING

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{self.suffix}"


class PrefixCache(_Folder):
    """What a language model made of a page's rows: files that it writes and reads itself, by what they were made of."""

    suffix = ".kv"

    def load(self, key: str, read: Callable[[Path], bool]) -> bool:
        """Whether there is an entry and `read` took it. One that is broken or that it does not take is removed."""
        for path in self.folder.glob(f"{key}-*{self.suffix}") if self.check() else ():
            with contextlib.suppress(OSError):
                if path == self._path(key, path) and read(path):
                    os.utime(path)
                    return True
            _remove(path)
        return False

    def save(self, key: str, size: int, write: Callable[[Path], None]) -> None:
        """Keep what `write` puts into a file, of about `size` bytes; older entries make room."""

        def fill(file: Path) -> Path:
            write(file)
            return self._path(key, file)

        self._write(size, fill)

    def _is_entry(self, path: Path) -> bool:
        return _PREFIX.fullmatch(path.name) is not None

    def _path(self, key: str, file: Path) -> Path:
        """What an entry with the content of `file` is called. Raises OSError."""
        digest = hashlib.sha256(key.encode())
        with _open_own(file) as content:
            while piece := content.read(_PIECE):
                digest.update(piece)
        return self.folder / f"{key}-{digest.hexdigest()}{self.suffix}"


@contextlib.contextmanager
def _open_own(path: Path) -> Iterator[BinaryIO]:
    """A plain file of this user. Raises PermissionError for somebody else's, OSError for a link."""
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(fd, "rb") as file:
        about = os.fstat(fd)
        if not stat.S_ISREG(about.st_mode) or (
            hasattr(os, "getuid") and about.st_uid != os.getuid()
        ):
            raise PermissionError(path)
        yield file


def _read(file: BinaryIO, key: str) -> Float:
    head = json.loads(file.readline(_HEADER))
    raw = file.read()
    if (
        head["pulse_edge_image_tokens"] != _FORMAT
        or head["key"] != key
        or hashlib.sha256(raw).hexdigest() != head["sha256"]
    ):
        raise ValueError(key)
    return np.frombuffer(raw, "<f4").astype(np.float32, copy=False).reshape(head["shape"])


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
