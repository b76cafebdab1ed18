"""Write files and folders atomically: under a temporary name that is renamed last.

Standard library only.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from pulse_edge.common import files
from pulse_edge.errors import BenchError


@contextmanager
def fresh_folder(target: Path, force: bool, ours: Callable[[Path], bool]) -> Iterator[Path]:
    """A folder to fill, which becomes `target` at the end and is removed if the block fails.

    BenchError where `target` exists and is not an empty folder, or cannot be written. `force`
    replaces a folder if `ours` recognises it as a result of the same command without other files.
    """
    _refuse_replacing(target, force, ours)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise BenchError(
            f"{target}: cannot be made ({error.strerror}); choose another place"
        ) from error
    try:
        yield work
        work.chmod(0o777 & ~_umask())
        _refuse_replacing(
            target, force, ours
        )  # hours may have passed: somebody may have put files there
        if target.is_dir() and not target.is_symlink():
            _exchange(work, target)
        else:
            os.replace(work, target)
    except OSError as error:
        raise BenchError(
            f"{target}: cannot be written ({error.strerror or error}); nothing was kept"
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _refuse_replacing(target: Path, force: bool, ours: Callable[[Path], bool]) -> None:
    if not force:
        refuse_existing(target)
    elif not os.path.lexists(target) or (
        target.is_dir() and not target.is_symlink() and not any(target.iterdir())
    ):
        return
    elif target.is_symlink() or not target.is_dir() or not ours(target):
        raise BenchError(
            f"{target}: holds other files than those of this command; choose another name"
        )


def refuse_existing(target: Path) -> None:
    """BenchError where a file or a filled folder would be overwritten."""
    if target.is_dir() and not any(target.iterdir()):
        return
    if target.exists():
        raise BenchError(
            f"{target}: exists already; choose another name, or replace it with --force"
        )


def _exchange(work: Path, target: Path) -> None:
    """Put the new folder in the old one's place; the old one comes back if that fails."""
    old = work.with_name(f"{work.name}.old")
    os.replace(target, old)
    try:
        os.replace(work, target)
    except OSError:
        os.replace(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def lock(file: IO[Any], path: Path) -> None:
    """Lock `path` while `file` is open. BenchError where another process has the lock."""
    if not files.try_lock(file.fileno()):
        raise BenchError(f"{path}: another process works on it; wait for its end")


def write_json(path: Path, content: Any) -> None:
    """Write `content` as JSON, atomically; BenchError where it cannot be written."""
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_text(path, text, rights=0o666 & ~_umask())
    except OSError as error:
        raise BenchError(
            f"{path}: cannot be written ({error.strerror}); choose another place"
        ) from error


def link(source: Path, target: Path) -> None:
    """Give a file a second name without a copy, where the disk can: weights are many gigabytes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)
