"""Check every byte of a kit against its manifest, and remember on this machine which files passed.

Standard library only.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import secrets
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pulse_edge.common import files, folders, json_input, paths
from pulse_edge.errors import FolderError, KitError
from pulse_edge.kit.kit import Kit

IDLE_DAYS = 7
"""Days without use after which a kit is read whole again."""
WHOLE_DAYS = 30
"""Days after which any kit is read whole again."""
SAMPLES = 48
"""Samples of a file, drawn when it was read whole: a change of a twentieth of it is found with 91 %
at each start."""
SAMPLE_BYTES = 1 << 16
"""Bytes of a sample. All samples of a file have 3 MiB, which a laptop's disk reads in some tenths
of a second at most."""
_DAY = 86400.0


def verify(
    kit: Kit,
    *,
    remembered: bool = False,
    again: bool = False,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> None:
    """Check every file's SHA-256 against the manifest; KitError names each file that differs.

    With `remembered`, only the samples of a file that passed before are read if

    - its path, file system, size, times and inode are those that it passed with,
    - it lies on the file system of this user's cache or of this program: a USB drive, which
      another machine may have written to, is always read whole,
    - it was used in the last IDLE_DAYS and read whole in the last WHOLE_DAYS.

    With `again` every file is read whole and then remembered. `progress` gets the bytes done and
    in total.
    """
    total, done = sum(file.bytes for file in kit.manifest.files.values()), 0

    def step(piece: int) -> None:
        nonlocal done
        done += piece
        progress(done, total)

    memory = _VerifiedFiles() if remembered or again else None
    altered = []
    for name, file in kit.manifest.files.items():
        path = kit.file(name)
        if memory is not None and not again and memory.contains(path, file.sha256):
            step(file.bytes)
            continue
        stamp = _stamp(path)
        if files.file_sha256(path, step) != file.sha256:
            altered.append(name)
            if memory is not None:
                memory.drop(path)
        elif memory is not None:
            memory.add(path, stamp, file.sha256)
    if memory is not None:
        memory.save()
    if altered:
        raise KitError(
            f"{kit.path}: altered since it was made: {', '.join(altered)}. Do not use it; "
            "copy the kit again."
        )


def _stamp(path: Path) -> tuple[int, ...]:
    s = path.stat()
    system = os.statvfs(path).f_fsid if hasattr(os, "statvfs") else 0
    return s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino, s.st_dev, system


def _own_file_systems() -> set[int]:
    """Devices of the file systems with this user's cache and this program: who can change those
    needs no kit."""
    places = [paths.user_cache(), Path(sys.prefix)]
    while not places[0].exists() and places[0] != places[0].parent:
        places[0] = places[0].parent
    return {place.stat().st_dev for place in places if place.exists()}


@dataclass
class _VerifiedFile:
    """A file at the time when it passed."""

    stamp: tuple[int, ...]
    sha256: str
    read: float
    """Time when it was read whole, in seconds since 1970."""
    used: float
    samples: dict[str, str]
    """Offset -> hash of the SAMPLE_BYTES there. Only this list, which its owner alone can read,
    says which they are."""


class _VerifiedFiles:
    """The list of files that passed, in the user's cache directory, readable by the owner alone."""

    def __init__(self) -> None:
        self._folder = paths.user_cache() / "verified"
        self._files: dict[str, _VerifiedFile] = {}
        self._changed = False
        try:
            if folders.check(self._folder, "verified-files"):
                raw = json.loads((self._folder / "verified.json").read_text("utf-8"))
                self._files = {
                    path: json_input.build(_VerifiedFile, file, path) for path, file in raw.items()
                }
        except (OSError, ValueError, AttributeError, FolderError, RecursionError):
            self._files = {}  # all files are read whole again, which is always right

    def contains(self, path: Path, sha256: str) -> bool:
        file, now = self._files.get(str(path)), time.time()
        if file is None or file.stamp != _stamp(path) or file.sha256 != sha256:
            return False
        fresh = 0 <= now - file.used < IDLE_DAYS * _DAY and 0 <= now - file.read < WHOLE_DAYS * _DAY
        if not fresh or file.stamp[4] not in _own_file_systems() or not file.samples:
            return False
        if file.samples != _hash_samples(path, [int(at) for at in file.samples]):
            self.drop(path)
            return False
        if now - file.used > _DAY / 24:  # a start in the same hour does not rewrite the list
            file.used, self._changed = now, True
        return True

    def add(self, path: Path, stamp: tuple[int, ...], sha256: str) -> None:
        now = time.time()
        samples = _hash_samples(path, draw_samples(stamp[0]))
        self._files[str(path)] = _VerifiedFile(stamp, sha256, now, now, samples)
        self._changed = True

    def drop(self, path: Path) -> None:
        self._changed |= self._files.pop(str(path), None) is not None

    def save(self) -> None:
        if not self._changed:
            return
        now = time.time()
        recent = {
            path: dataclasses.asdict(file)
            for path, file in self._files.items()
            if now - file.read < WHOLE_DAYS * _DAY
        }
        try:
            folders.claim(self._folder, "verified-files")
            files.write_text(self._folder / "verified.json", json.dumps(recent))
        except (OSError, FolderError):
            pass  # a read-only home only costs the next start its time


def draw_samples(size: int) -> list[int]:
    """Offsets of samples in a file of `size` bytes: the first, the last, and others that cannot be
    foreseen."""
    last = max(0, size - SAMPLE_BYTES)
    return sorted({0, last, *(secrets.randbelow(last + 1) for _ in range(SAMPLES - 2))})


def _hash_samples(path: Path, offsets: list[int]) -> dict[str, str]:
    with open(path, "rb", buffering=0) as file:
        digests = {}
        for at in offsets:
            file.seek(at)
            digests[str(at)] = hashlib.sha256(file.read(SAMPLE_BYTES)).hexdigest()
    return digests
