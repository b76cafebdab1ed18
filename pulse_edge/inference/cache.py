"""Two caches on disk: image tokens (T, d) float32 of encoded pages, and the KV cache of prefilled
pages.

Image tokens have a file each, `KEY.tokens`: a line of JSON (key, shape, sha256 of the rest), then
float32, little-endian. The KV cache of a page is a file that llama.cpp writes, `KEY-SHA256.kv`.
Only its owner may read an entry. Entries that were not used for the longest time make room; an
entry that is broken, or another user's, is removed. The folder carries the mark of a page cache
(see `folders`): no other folder is written to, and only entries are removed from it.
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

from pulse_edge.common import files, folders, paths
from pulse_edge.common.arrays import Float
from pulse_edge.common.files import UNFINISHED

KIND = "page-cache"
LIMIT = 512 << 20
"""Bytes of all image tokens together: ten pages of PULSE-7B."""
_FORMAT = 1
_BEGINNING = b'{"pulse_edge_image_tokens": '
_PREFIX = re.compile(r".+-[0-9a-f]{64}\.kv")
_ENTRY = re.compile(
    r"[0-9a-f]{64}(-attention)?\.tokens|[0-9a-f]{64}-[0-9a-f]{64}\.kv|\.unfinished-[a-z0-9_]{8}"
)
"""Names that the caches give; the last one is from `tempfile`."""
_HEADER_BYTES = 4096
_PIECE_BYTES = 1 << 20
_STALE = 3600.0
"""Age in seconds from which an unfinished file belongs to a process that was killed."""


def key_of(pixels: Float, parts: Mapping[str, Any]) -> str:
    """Return the name of an entry: a hash of the encoder's tiles (n, 3, S, S) and of all that image
    tokens depend on."""
    digest = hashlib.sha256(json.dumps({"shape": pixels.shape, **parts}, sort_keys=True).encode())
    digest.update(np.ascontiguousarray(pixels, "<f4").tobytes())
    return digest.hexdigest()


class _Cache:
    """A folder of entries of one kind. A full or write-protected disk raises nothing, because a
    cache only saves time.

    Raises FolderError for a folder that is not a page cache of this user.
    """

    suffix: str

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit

    def info(self) -> tuple[int, int]:
        """Number of entries, and their bytes together."""
        sizes = [size for _, size, _ in self._entries()]
        return len(sizes), sum(sizes)

    def clear(self) -> int:
        """Remove everything that this cache wrote; return the number of entries."""
        entries = self._entries()
        unfinished = self._unfinished(0) if self.check() else ()
        for path in (*(path for path, _, _ in entries), *unfinished):
            _remove(path)
        return len(entries)

    def check(self) -> bool:
        """Whether the folder is there. Raises FolderError where it is not a page cache of this
        user."""
        try:
            mark = folders.check(self.folder, KIND, self._is_unmarked_cache)
            return mark is not None or self._is_unmarked_cache()
        except OSError:
            return False

    def _claim_folder(self) -> None:
        folders.claim(self.folder, KIND, self._is_unmarked_cache)

    def _is_unmarked_cache(self) -> bool:
        """Whether the folder has no mark and holds nothing but entries, so that it may be
        marked."""
        names = os.listdir(self.folder) if self.folder.is_dir() else []
        return bool(names) and all(map(_ENTRY.fullmatch, names))

    def _is_entry(self, path: Path) -> bool:
        """Whether this cache wrote a file, by its name and, where entries have one, its first
        line."""
        raise NotImplementedError

    def _entries(self) -> list[tuple[Path, int, float]]:
        """Path, bytes and time of last use of each entry, the least recently used first."""
        entries: list[tuple[Path, int, float]] = []
        if not self.check():
            return entries
        for path in self.folder.glob(f"*{self.suffix}"):
            with contextlib.suppress(OSError):  # another process may have removed it
                about = path.lstat()
                if stat.S_ISREG(about.st_mode) and self._is_entry(path):
                    entries.append((path, about.st_size, about.st_mtime))
        return sorted(entries, key=lambda entry: entry[2])

    def _unfinished(self, older_than: float) -> Iterator[Path]:
        for path in self.folder.glob(f"{UNFINISHED}*"):
            with contextlib.suppress(OSError):
                if not _ENTRY.fullmatch(path.name):
                    continue
                if time.time() - path.lstat().st_mtime >= older_than:
                    yield path

    def _make_room(self, size: int) -> None:
        for path in self._unfinished(_STALE):
            _remove(path)
        entries = self._entries()
        total = sum(entry_size for _, entry_size, _ in entries) + size
        for path, entry_size, _ in entries:
            if total <= self.limit:
                return
            _remove(path)
            total -= entry_size

    def _write(self, size: int, fill: Callable[[Path], Path]) -> None:
        """Make an entry of `size` bytes: `fill` writes the file and returns its final path.

        An entry larger than the limit, or than half of the disk's free space, is not stored.
        """
        with contextlib.suppress(OSError):
            self._claim_folder()
            if size > self.limit or 2 * size > shutil.disk_usage(self.folder).free:
                return
            self._make_room(size)
            # llama.cpp opens the file by its name, so `files.replacing` does not serve here.
            handle, name = tempfile.mkstemp(prefix=UNFINISHED, dir=self.folder)  # mode 0600
            os.close(handle)
            try:
                os.replace(name, fill(Path(name)))
            except BaseException:
                _remove(Path(name))
                raise


class ImageTokenCache(_Cache):
    """Image tokens by a hash of everything that they depend on."""

    suffix = ".tokens"

    def __init__(self, folder: Path, limit: int = LIMIT) -> None:
        super().__init__(folder, limit)

    def get(self, key: str) -> Float | None:
        """Return the array as it was put, bit for bit; None if there is none that can be
        trusted."""
        path = self._path(key)
        if not self.check():
            return None
        try:
            with _open_own(path) as file:
                array = _read(file, key)
            os.utime(path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            _remove(path)
            return None
        return array

    def put(self, key: str, array: Float) -> None:
        """Store an array; older entries make room. One larger than the limit or half the free disk
        is not stored."""
        raw = np.ascontiguousarray(array, "<f4").tobytes()
        head = {
            "pulse_edge_image_tokens": _FORMAT,
            "key": key,
            "shape": array.shape,
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


class PrefixCache(_Cache):
    """KV caches of prefilled pages: files that the language model writes and reads itself."""

    suffix = ".kv"

    def load(self, key: str, read: Callable[[Path], bool]) -> bool:
        """Whether there is an entry and `read` took it. An entry that is broken or refused is
        removed."""
        for path in self.folder.glob(f"{key}-*{self.suffix}") if self.check() else ():
            with contextlib.suppress(OSError):
                if path == self._path(key, path) and read(path):
                    os.utime(path)
                    return True
            _remove(path)
        return False

    def save(self, key: str, size: int, write: Callable[[Path], None]) -> None:
        """Store the file of about `size` bytes that `write` makes; older entries make room."""

        def fill(file: Path) -> Path:
            write(file)
            return self._path(key, file)

        self._write(size, fill)

    def _is_entry(self, path: Path) -> bool:
        return _PREFIX.fullmatch(path.name) is not None

    def _path(self, key: str, file: Path) -> Path:
        """The name of an entry with the content of `file`. Raises OSError."""
        digest = hashlib.sha256(key.encode())
        with _open_own(file) as content:
            while piece := content.read(_PIECE_BYTES):
                digest.update(piece)
        return self.folder / f"{key}-{digest.hexdigest()}{self.suffix}"


@contextlib.contextmanager
def _open_own(path: Path) -> Iterator[BinaryIO]:
    """Open a plain file of this user. Raises PermissionError for another user's, OSError for a
    link."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(handle, "rb") as file:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode) or not files.is_mine(about):
            raise PermissionError(path)
        yield file


def _read(file: BinaryIO, key: str) -> Float:
    head = json.loads(file.readline(_HEADER_BYTES))
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


# --- this user's caches ---------------------------------------------------------------------------

CACHE_VARIABLE = "PULSE_EDGE_CACHE"


def user_image_tokens() -> ImageTokenCache:
    """Return the cache in $PULSE_EDGE_CACHE, else in the user's own folder.

    Raises FolderError at once where the folder is not a cache of this user, before a page is
    encoded for it.
    """
    variable = os.environ.get(CACHE_VARIABLE)
    folder = Path(variable) if variable else paths.user_cache() / "image-tokens"
    cache = ImageTokenCache(folder)
    cache.check()
    return cache


def user_kv_caches(limit: int) -> PrefixCache:
    """Return the store of KV caches in the same folder, of at most `limit` bytes."""
    return PrefixCache(user_image_tokens().folder, limit)
