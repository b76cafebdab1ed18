"""Write, hash, link and lock files."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from .refusal import Refused

_READ_BYTES = 1 << 22
_LOCK_SECONDS = 60
Progress = Callable[[str, int, int], None]
"""Gets the name of the stage, the bytes done, and the bytes in all."""
Say = Callable[[str], None]
"""Gets a line for the person."""


def chunks(path: Path) -> Iterator[bytes]:
    """Read a file piece by piece."""
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(_READ_BYTES):
            yield chunk


def sha256_of(path: Path) -> str:
    """Return the SHA-256 hash of a file in hexadecimal digits."""
    digest = hashlib.sha256()
    for chunk in chunks(path):
        digest.update(chunk)
    return digest.hexdigest()


def write_atomically(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a small file so that it has all its bytes or stays as it was. Raises OSError."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, mode)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def link_or_copy(source: Path, path: Path) -> None:
    """Give a file a second name; copy it where the file system has no hard links."""
    path.unlink(missing_ok=True)
    try:
        os.link(source, path)
    except OSError:
        part = path.with_name(path.name + ".part")
        shutil.copyfile(source, part)
        os.replace(part, path)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one installer at a time work in a folder. Raises Refused after a minute.

    The system gives the lock back when the process and its children are gone.
    """
    path = folder / ".lock"
    for attempt in range(_LOCK_SECONDS + 1):
        if attempt:
            time.sleep(1)
        with open(path, "a+b") as file:
            # pip of an installer that was killed goes on for a while.
            os.set_inheritable(file.fileno(), True)
            if _acquire(file.fileno(), path):
                yield
                return
    raise Refused(f"{folder}: another installer is at work there. Wait for it to end.")


def _acquire(handle: int, path: Path) -> bool:
    """Take the lock; False if another process has it, or has removed the file meanwhile."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except OSError:
        return False
