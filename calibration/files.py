"""Files and folders that are complete or not there: written beside, renamed last.

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

from pulse_edge.errors import BenchError


@contextmanager
def fresh_folder(target: Path, force: bool, ours: Callable[[Path], bool]) -> Iterator[Path]:
    """A folder to fill, which becomes `target` at the end; whatever ends the block early removes
    it.

    BenchError where `target` exists and is not an empty folder, or where nothing can be written.
    `force` replaces a folder of which `ours` says that the same command made it, and that it holds
    nothing else.
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
            f"{target}: holds something else than what this command makes; choose another name"
        )


def refuse_existing(target: Path) -> None:
    """BenchError where something would be overwritten."""
    if target.is_dir() and not any(target.iterdir()):
        return
    if target.exists():
        raise BenchError(
            f"{target}: exists already; choose another name, or replace it with --force"
        )


def _exchange(work: Path, target: Path) -> None:
    """The new folder takes the old one's place; the old one comes back where that fails."""
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
    """Keep other processes away from `path` while `file` is open.

    BenchError where one is there already.
    """
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise BenchError(f"{path}: another process works on it; wait for its end") from error


def write_json(path: Path, content: Any) -> None:
    """`content` as JSON, all of it or nothing; BenchError where it cannot be written."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(
            json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n",
            encoding="utf-8",
        )
        os.replace(beside, path)
    except OSError as error:
        raise BenchError(
            f"{path}: cannot be written ({error.strerror}); choose another place"
        ) from error
    finally:
        beside.unlink(missing_ok=True)


def link(source: Path, target: Path) -> None:
    """The same file under a second name: weights are many gigabytes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)
