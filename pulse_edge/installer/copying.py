"""Copy wheels and kits from a bundle into a version's folder, checking every byte on its way."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .bundle import BUNDLE_MANIFEST, Bundle, Target, refuse_faults
from .files import Progress, chunks, link_or_copy, sha256_of, write_atomically
from .home import Home


@dataclass(frozen=True)
class _Job:
    """A file to write."""

    path: Path
    pieces: tuple[str, ...]
    """Names in the bundle; empty if an earlier bundle brought the file."""
    bytes: int | None
    """Size of the file; None where the manifest does not say it."""
    sha256: str


def copy(bundle: Bundle, target: Target, home: Home, folder: Path, progress: Progress) -> None:
    """Write the bundle's wheels and kits into `folder`. Raises Refused that names every fault.

    Files that are there already with the right bytes stay, so that an interrupted run is continued.
    Files that the bundle does not carry are taken from the installed versions.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / BUNDLE_MANIFEST, bundle.data)
    jobs = _jobs(bundle, target, folder)
    total = sum(bundle.files[piece][0] for job in jobs for piece in job.pieces)
    done = 0

    def step(size: int) -> None:
        nonlocal done
        done += size
        progress("copy", done, total)

    installed = _InstalledFiles(home)
    faults: list[str] = []
    for job in jobs:
        job.path.parent.mkdir(parents=True, exist_ok=True)
        if _is_written(job):
            step(sum(bundle.files[piece][0] for piece in job.pieces))
        elif job.pieces:
            faults += _join(bundle, job, step)
        elif (source := installed.find(job)) is not None:
            link_or_copy(source, job.path)
        else:
            faults.append(
                f"{job.path.name}: not carried by this bundle, and not installed here. Use the "
                "whole bundle"
            )
    refuse_faults(bundle, faults)


def _jobs(bundle: Bundle, target: Target, folder: Path) -> list[_Job]:
    """List every file of a version but the program's own."""
    jobs = []
    for name, sha256 in target.wheels.items():
        piece = f"wheels/{name}"
        pieces = (piece,) if piece in bundle.files else ()
        jobs.append(_Job(folder / "wheels" / name, pieces, None, sha256))
    for kit, about in bundle.kits.items():
        for name, file in about.files.items():
            path = folder / "kits" / kit / name
            jobs.append(_Job(path, file.pieces, file.bytes, file.sha256))
    return jobs


def _is_written(job: _Job) -> bool:
    """Return whether an earlier run has written the file."""
    return (
        job.path.is_file()
        and job.bytes in (None, job.path.stat().st_size)
        and sha256_of(job.path) == job.sha256
    )


def _join(bundle: Bundle, job: _Job, step: Callable[[int], None]) -> list[str]:
    """Write a file from its pieces; list the pieces' faults. The file gets its name if there is
    none.
    """
    part, faults = job.path.with_name(job.path.name + ".part"), []
    whole = hashlib.sha256()
    with open(part, "wb", buffering=0) as out:
        for name in job.pieces:
            digest = hashlib.sha256()
            for chunk in chunks(bundle.path / name):
                digest.update(chunk)
                if len(job.pieces) > 1:
                    whole.update(chunk)
                out.write(chunk)
                step(len(chunk))
            if digest.hexdigest() != bundle.files[name][1]:
                faults.append(f"{name}: altered")
        os.fsync(out.fileno())
    joined = whole.hexdigest() if len(job.pieces) > 1 else bundle.files[job.pieces[0]][1]
    if not faults and joined != job.sha256:
        faults.append(f"{job.path.name}: its pieces are not the file that the manifest names")
    if not faults:
        os.replace(part, job.path)
    return faults


class _InstalledFiles:
    """Wheels and files of kits in the installed versions, found by content: names may differ
    between bundles.
    """

    def __init__(self, home: Home) -> None:
        folders = [home.version(name) / part for name in home.complete() for part in _PARTS]
        self._files = [
            p for folder in folders for p in folder.rglob("*") if p.is_file() and not p.is_symlink()
        ]
        self._hashes: dict[Path, str] = {}

    def find(self, job: _Job) -> Path | None:
        """Return a file with the bytes of a job."""
        for path in self._files:
            if job.bytes not in (None, path.stat().st_size):
                continue
            if job.bytes is None and path.suffix != job.path.suffix:
                continue
            if path not in self._hashes:
                self._hashes[path] = sha256_of(path)
            if self._hashes[path] == job.sha256:
                return path
        return None


_PARTS = ("wheels", "kits")


def carry_over(bundle: Bundle, home: Home, folder: Path) -> None:
    """Link into `folder` the kits of the version in use that the bundle does not bring, and the
    self-test results.

    A kit that was refused on this machine stays refused after an update
    (pulse_edge.machine.self_test_results).
    """
    current = home.current()
    if current is None or current == bundle.version:
        return
    before = home.version(current)
    sources = [kit for kit in kits_of(before) if kit.name not in bundle.kits]
    for source in [*sources, before / "self-tests"]:
        for file in (p for p in source.rglob("*") if p.is_file()):
            path = folder / file.relative_to(before)
            path.parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(file, path)


def kits_of(folder: Path) -> list[Path]:
    """List the folders of a version's kits."""
    return sorted(p for p in (folder / "kits").glob("*") if p.is_dir())
