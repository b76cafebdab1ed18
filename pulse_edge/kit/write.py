"""Write a kit: a new directory that takes its target's place when it is complete. A kit is
never edited in place.

Standard library only.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import json
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pulse_edge.common import files
from pulse_edge.errors import KitError
from pulse_edge.kit.manifest import MANIFEST, MANIFEST_VERSION, File, Manifest
from pulse_edge.kit.manifest_reader import parse_manifest

_UNFINISHED = ".pulse-edge-unfinished"
"""Marks a folder of ours next to a target, in which a kit is being made."""
_UNFINISHED_TEXT = "pulse-edge unfinished kit 1\n"
_LARGEST_MANIFEST = 64 << 20


@contextlib.contextmanager
def writing(target: Path, *, force: bool = False) -> Iterator[Path]:
    """Yield a directory to build a kit in, next to `target`; it is renamed to `target` when the
    block ends.

    An exception removes it. `force` replaces a kit or an empty directory at `target` once the new
    kit is complete, and nothing else: a mistyped target does not cost somebody's files. Directories
    with our mark that a killed process has left are removed. Raises KitError if `target` exists
    without `force`.
    """
    refuse_target(target, force=force)
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target)
    outer = target.parent / f".{target.name}.unfinished-{secrets.token_hex(4)}"
    work = outer / "kit"
    try:  # from here on: a signal may come as soon as the folder is there
        outer.mkdir(mode=0o755)
        with _locked(outer):
            (outer / _UNFINISHED).write_text(_UNFINISHED_TEXT, "utf-8")
            work.mkdir(mode=0o755)
            yield work
            if not (work / MANIFEST).is_file():
                raise KitError(f"{target}: no manifest was written, so there is no kit.")
            # onnx writes weights for their owner alone, and a kit is for everybody.
            for path in work.rglob("*"):
                path.chmod(0o755 if path.is_dir() else 0o644)
            # Hours may have passed: somebody may have put files there.
            refuse_target(target, force=force)
            _replace(work, target)
    finally:
        _remove(outer)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Lock a folder while this process lives; yield False if another one holds it, or on Windows,
    which cannot."""
    if sys.platform == "win32":
        yield False
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        yield files.try_lock(handle)
    finally:
        os.close(handle)


def _sweep(target: Path) -> None:
    """Remove what a killed process left next to `target`; folders of that name without our mark
    stay."""
    for old in target.parent.glob(f".{glob.escape(target.name)}.unfinished-*"):
        mark = old / _UNFINISHED
        with contextlib.suppress(OSError), _locked(old) as abandoned:
            ours = mark.is_file() and mark.read_text("utf-8", "replace") == _UNFINISHED_TEXT
            if abandoned and ours:
                _remove(old)


def refuse_target(target: Path, *, force: bool) -> None:
    """Raise KitError when a kit cannot be written at `target`.

    `force` allows an empty folder, and a kit that is recognized by its content and holds nothing
    else.
    """
    if not os.path.lexists(target):
        return
    if not force:
        raise KitError(f"{target}: exists. Choose another target, or replace it with --force.")
    if reason := _why_no_kit(target):
        raise KitError(
            f"{target}: {reason}, so --force does not replace it. Choose another target."
        )


def _why_no_kit(folder: Path) -> str | None:
    """Why a folder is no kit of ours that may be replaced; None for a kit, also a damaged one, and
    an empty folder."""
    if folder.is_symlink() or not folder.is_dir():
        return "exists and is no folder"
    manifest = folder / MANIFEST
    try:
        present = _present(folder)
        if not present:
            return None
        if not manifest.is_file() or manifest.stat().st_size > _LARGEST_MANIFEST:
            return "exists and is no kit (it has no manifest.json of ours)"
        listed = _manifest_files(json.loads(manifest.read_text("utf-8")))
    except OSError as e:
        return f"cannot be looked at ({e.strerror})"
    except (ValueError, RecursionError) as e:
        return f"exists and is no kit (manifest.json: {str(e)[:100]})"
    if foreign := sorted(present - listed - {MANIFEST}):
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        return f"holds what is not the kit's ({', '.join(foreign[:3])}{more})"
    return None


def _present(folder: Path) -> set[str]:
    """Relative paths of all files below `folder`; a link to a folder counts as a file. Raises
    OSError."""

    def refuse(error: OSError) -> None:
        raise error

    present = set()
    for place, folders, names in os.walk(folder, onerror=refuse):
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        present |= {
            (Path(place) / name).relative_to(folder).as_posix() for name in [*names, *links]
        }
    return present


def _manifest_files(manifest: Any) -> set[str]:
    """The files that a kit's manifest lists. Looser than `parse_manifest`: an older or damaged kit
    may be replaced.

    Raises ValueError for JSON that is no manifest of ours, such as a browser extension's.
    """
    version = manifest.get("manifest_version") if isinstance(manifest, dict) else None
    if type(version) is not int or not 1 <= version <= MANIFEST_VERSION:
        raise ValueError(f"manifest_version is {version!r}, which no kit has")
    listed = manifest.get("files")
    if not isinstance(listed, dict) or not all(
        isinstance(file, dict)
        and type(file.get("bytes")) is int
        and isinstance(file.get("sha256"), str)
        for file in listed.values()
    ):
        raise ValueError("files are not listed with bytes and sha256")
    for part in ("language", "vision"):
        engine = manifest.get(part)
        if not isinstance(engine, dict) or engine.get("file") not in listed:
            raise ValueError(f"{part} names no file that is listed")
    return set(listed)


def _replace(work: Path, target: Path) -> None:
    """Rename `work` to `target`; an old kit is moved aside first, and put back should the rename
    fail."""
    if not target.exists():
        os.rename(work, target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.replaced-", dir=target.parent))
    try:
        os.rename(target, old / "kit")
        os.rename(work, target)
    finally:
        if not target.exists():
            os.rename(old / "kit", target)
        _remove(old)


def _remove(folder: Path) -> None:
    """Remove a directory, also when a second signal comes meanwhile: `timeout` sends two."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def listing(path: Path) -> dict[str, File]:
    """Every file below `path` but the manifest, with size and SHA-256, for a manifest about to be
    written."""
    return {
        p.relative_to(path).as_posix(): File(p.stat().st_size, files.file_sha256(p))
        for p in sorted(path.rglob("*"))
        if p.is_file() and p.name != MANIFEST
    }


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write `manifest` into the kit directory `path`: the last file of every kit. Raises KitError
    if it is invalid."""
    raw = dataclasses.asdict(manifest)
    text = json.dumps(raw, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    if parse_manifest(text) != manifest:
        raise KitError(f"{path / MANIFEST}: would not read back as it was written.")
    with open(path / MANIFEST, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        files.sync(file.fileno())
