"""Reading and writing the files of the audit log so that they survive a power cut."""

from __future__ import annotations

import os
from pathlib import Path

from pulse_edge.common.files import replacing, sync, sync_folder


def append(file: int, data: bytes) -> None:
    """Write all of `data` behind the end of the file, down to the disk."""
    os.lseek(file, 0, os.SEEK_END)
    while data:
        data = data[os.write(file, data) :]
    sync(file)


def replace(path: Path, data: bytes) -> None:
    """Give a file its new content, down to the disk, or leave the old one.

    A failure leaves no half: it may be a patient's.
    """
    with replacing(path) as file:
        file.write(data)
    sync_folder(path.parent)


def bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def read_from(file: int, at: int, size: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(file, size, at)
    os.lseek(file, at, os.SEEK_SET)
    return os.read(file, size)


def names(folder: Path) -> list[str]:
    """Return the names in a folder; none where it is absent or a link."""
    try:
        return [] if folder.is_symlink() else os.listdir(folder)
    except OSError:
        return []
