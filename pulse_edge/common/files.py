"""Write files that are complete or absent, lock them, and hash them. Standard library only.

A file is written under another name in its own folder and renamed when every byte has reached the
disk, so that a power cut or a full disk leaves the old file or none.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

UNFINISHED = ".unfinished-"
"""Beginning of the name of a file that is still being written."""
_PIECE_BYTES = 1 << 22


def file_sha256(path: Path, progress: Callable[[int], None] = lambda _size: None) -> str:
    """Return the SHA-256 of a file in hexadecimal. `progress` gets the bytes of each piece. Raises
    OSError."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
            progress(len(piece))
    return digest.hexdigest()


# --- atomic writes --------------------------------------------------------------------------------


@contextlib.contextmanager
def replacing(
    path: Path, *, rights: int = 0o600, overwrite: bool = True, prefix: str = UNFINISHED
) -> Iterator[BinaryIO]:
    """Open a new file that becomes `path` when the block ends; an exception removes it and leaves
    `path` as it was.

    The folder must exist. Without `overwrite` it raises FileExistsError where `path` exists at the
    end, even as a broken link. A link at `path` is replaced itself, and its target stays. `prefix`
    begins the unfinished file's name. Raises OSError.
    """
    handle, name = tempfile.mkstemp(prefix=prefix, dir=path.parent)  # mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            sync(file.fileno())
        if rights != 0o600:
            os.chmod(name, rights)
        if overwrite:
            os.replace(name, path)
        else:
            place_new(Path(name), path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str, *, rights: int = 0o600) -> None:
    """Replace a file by UTF-8 text, with line ends as they are in `text`. Raises OSError."""
    with replacing(path, rights=rights) as file:
        file.write(text.encode("utf-8"))


def write_whole(path: Path, pieces: Iterable[bytes], *, overwrite: bool = False) -> None:
    """Write a file that only its owner may read (mode 0600), and make its folder if that is absent.

    Raises FileExistsError if `path` exists, even as a broken link, unless `overwrite`, which
    replaces a link itself. Raises OSError: NotADirectoryError where a file stands in the folder's
    place.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError:  # no other file name would help: a file or a broken link stands there
        raise NotADirectoryError(
            errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path.parent)
        ) from None
    if not overwrite and os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    with replacing(path, overwrite=overwrite) as file:
        for piece in pieces:
            file.write(piece)


def write_set(
    folder: Path, stem: str, contents: Mapping[str, bytes], *, overwrite: bool = False
) -> list[Path]:
    """Write a file named `stem` + ending for each ending of `contents`; return their paths.

    If one of them exists, all get the first free number: `stem-2`, `stem-3`, ... With `overwrite`
    they are replaced instead. Raises OSError.
    """
    return write_named_set(folder, stem, lambda _name: contents, overwrite=overwrite)


def write_named_set(
    folder: Path,
    stem: str,
    contents_of: Callable[[str], Mapping[str, bytes]],
    *,
    overwrite: bool = False,
) -> list[Path]:
    """Write a set of files whose contents name one another, as `write_set` does.

    `contents_of` gets the name without an ending that the files will have. Raises OSError.
    """
    for number in itertools.count(1):
        name = stem if number == 1 else f"{stem}-{number}"
        contents = contents_of(name)
        paths = [folder / f"{name}{ending}" for ending in contents]
        if not overwrite and any(map(os.path.lexists, paths)):
            continue
        written = []
        try:
            for path, content in zip(paths, contents.values(), strict=True):
                write_whole(path, (content,), overwrite=overwrite)
                written.append(path)
        except FileExistsError:  # another process took the name in between
            for path in written:
                path.unlink(missing_ok=True)
            continue
        break
    return paths


def place_new(source: Path, target: Path) -> None:
    """Rename a file within its folder. Raises FileExistsError if `target` exists, even as a broken
    link; OSError."""
    if os.name == "nt":
        os.rename(source, target)
        return
    try:
        os.link(source, target, follow_symlinks=False)
    except FileExistsError:
        raise
    except (OSError, NotImplementedError):  # no hard links, as on most USB drives
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "File exists", str(target)) from None
        os.rename(source, target)
        return
    os.unlink(source)


def sync(handle: int) -> None:
    """Wait until the content of an open file is on the disk. Raises OSError."""
    if sys.platform == "darwin":
        import fcntl

        fcntl.fcntl(handle, fcntl.F_FULLFSYNC)  # fsync alone leaves it in the drive's cache
    else:
        os.fsync(handle)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk. Windows has no call for it. Raises
    OSError."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# --- locks and owners -----------------------------------------------------------------------------


def try_lock(handle: int) -> bool:
    """Take the lock of an open file, or of a folder, if it is free; return whether this process
    holds it now.

    Closing the handle or the end of the process releases it.
    """
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def open_private(path: Path) -> int:
    """Open a file for reading and writing, made if absent, for its owner alone (0600); return its
    handle.

    Raises OSError, also for a link.
    """
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(path, flags | getattr(os, "O_CLOEXEC", 0), 0o600)
    if hasattr(os, "fchmod"):
        os.fchmod(handle, 0o600)
    return handle


def is_mine(about: os.stat_result) -> bool:
    """Whether a file or folder belongs to this user; always True where the system knows no owners
    (Windows)."""
    return not hasattr(os, "getuid") or about.st_uid == os.getuid()
