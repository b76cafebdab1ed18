"""Pack kits, wheels, installer and documents into one signed folder, and verify such a folder. For
the workstation.

The same inputs give the same bytes: every date in a bundle is that of its newest kit, and Ed25519
signatures are not random. Keys and signatures are minisign's files, so that `minisign -Vm
bundle.json -p bundle.pub` verifies them too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pulse_edge.common import installation
from pulse_edge.deploy import documents, installer_archive, wheelhouse
from pulse_edge.deploy.signing import SecretKey
from pulse_edge.deploy.targets import EXTRAS, Target
from pulse_edge.deploy.wheelhouse import Say, Supply
from pulse_edge.deploy.wheels import Wheel
from pulse_edge.errors import KitError
from pulse_edge.installer import trust
from pulse_edge.installer.bundle import (
    BUNDLE_MANIFEST,
    BUNDLE_VERSION,
    INSTALLER,
    PUBLIC_KEY,
    SIGNATURE,
    content_faults,
    open_bundle,
    refuse_faults,
    shape_faults,
)
from pulse_edge.installer.fields import name_fits
from pulse_edge.installer.files import Progress, sha256_of
from pulse_edge.installer.home import Home
from pulse_edge.installer.minisign import PublicKey, read_public_key
from pulse_edge.installer.refusal import Refused
from pulse_edge.kit import locate
from pulse_edge.kit.kit import Kit, open_kit
from pulse_edge.kit.manifest import MANIFEST, File
from pulse_edge.machine import memory_plan

FAT32_BYTES = (4 << 30) - (4 << 20)
"""Size of the largest piece of a file: a little below what FAT32 can hold (2**32 - 1 bytes)."""
_READ_BYTES = 1 << 22


@dataclass(frozen=True)
class Order:
    """What is to be packed."""

    kits: tuple[Path, ...]
    """The first one answers when none is named."""
    out: Path
    """Folder to make."""
    targets: tuple[Target, ...]
    supply: Supply
    key: SecretKey | None = None
    """The key that signs; None: the bundle stays unsigned."""
    since: Path | None = None
    """bundle.json of an earlier bundle, whose files are not carried again."""
    piece_bytes: int = FAT32_BYTES
    without: tuple[str, ...] = ()
    """Names in `targets.EXTRAS` that are left out."""

    @property
    def extras(self) -> tuple[str, ...]:
        """Parts of the program that are packed in addition to what it always needs."""
        return tuple(name for name in EXTRAS if name not in self.without)


def pack(
    order: Order,
    progress: Progress = lambda _stage, _done, _total: None,
    say: Say = lambda _text: None,
) -> PublicKey | None:
    """Write the bundle `order.out`, and return the public half of the key that signed it.

    Everything is checked first, and the folder gets its name last. `say` gets a line for each step
    that takes time, `progress` the bytes of kits. Raises KitError that names what is missing or
    broken; then no folder remains.
    """
    opened = _open_kits(order)
    earlier = _hashes_of_earlier(order.since)
    wheels = wheelhouse.gather(order.targets, order.supply, order.extras, say)
    with _writing(order.out) as work:
        say("copying and hashing the kits")
        kits = _copy_kits(opened, work, order.piece_bytes, earlier, progress)
        say("copying the program, and writing the documents")
        copied = _copy_wheels(wheels, work, earlier)
        created = max(kit.manifest.created for kit in opened.values())
        contents = documents.Contents(
            kits=[kit.manifest for kit in opened.values()],
            wheels=copied,
            targets=order.targets,
            key=None if order.key is None else order.key.public(),
            created=created,
            extras=order.extras,
        )
        documents.write(work, contents)
        installer_archive.write(work / INSTALLER)
        manifest = _manifest(work, kits, wheels, created, order.extras)
        (work / BUNDLE_MANIFEST).write_bytes(manifest)
        if order.key is not None:
            comment = f"pulse-edge bundle of {created}: {', '.join(opened)}"
            signature = order.key.sign(manifest, comment)
            (work / SIGNATURE).write_text(signature, "utf-8", newline="\n")
            (work / PUBLIC_KEY).write_text(order.key.public().text(), "utf-8", newline="\n")
    return contents.key


def _open_kits(order: Order) -> dict[str, Kit]:
    """Open the kits, by folder name. Raises KitError, also where the bundle's folder cannot be
    made.
    """
    out = order.out
    if os.path.lexists(out):
        raise KitError(f"{out}: exists. Name a new folder, on the USB drive or elsewhere.")
    opened = {locate.folder_name(kit.manifest.id): kit for kit in map(open_kit, order.kits)}
    if len(opened) != len(order.kits):
        raise KitError(f"{out}: two kits of one name ({', '.join(opened)}). Pack one of them.")
    if around := [kit.path for kit in opened.values() if kit.path in out.resolve().parents]:
        raise KitError(
            f"{out}: lies in the kit {around[0]}, which would be broken by it. Name a folder "
            "elsewhere."
        )
    return opened


@contextlib.contextmanager
def _writing(target: Path) -> Iterator[Path]:
    """Make a folder that is renamed to `target` at the end, and removed if anything is raised."""
    target.parent.mkdir(parents=True, exist_ok=True)
    work = target.parent / f".{target.name}.unfinished-{secrets.token_hex(4)}"
    try:
        work.mkdir(mode=0o755)
        yield work
        os.rename(work, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _hashes_of_earlier(path: Path | None) -> set[str]:
    """Return the hashes of everything that an earlier bundle installed: whole files of kits, and
    wheels.
    """
    if path is None:
        return set()
    try:
        raw = json.loads(path.read_text("utf-8"))
        files = {f["sha256"] for kit in raw["kits"].values() for f in kit["files"].values()}
        return files | {sha256 for target in raw["targets"] for sha256 in target["wheels"].values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise KitError(
            f"{path}: not a bundle's {BUNDLE_MANIFEST} ({e}). Name that of the bundle before."
        ) from None


def _copy_kits(
    opened: dict[str, Kit], work: Path, piece_bytes: int, earlier: set[str], progress: Progress
) -> dict[str, dict[str, Any]]:
    """Copy the kits, checked against their manifests; return their entries in bundle.json."""
    files = {
        folder: {
            **kit.manifest.files,
            MANIFEST: File(kit.file(MANIFEST).stat().st_size, kit.sha256),
        }
        for folder, kit in opened.items()
    }
    every = [file for of_kit in files.values() for file in of_kit.values()]
    total = sum(file.bytes for file in every if file.sha256 not in earlier)
    done, altered = 0, []

    def step(size: int) -> None:
        nonlocal done
        done += size
        progress("pack", done, total)

    entries: dict[str, dict[str, Any]] = {}
    for folder, kit in opened.items():
        listed: dict[str, Any] = {}
        for name, file in files[folder].items():
            pieces: list[str] = []
            if file.sha256 not in earlier:
                place = f"kits/{folder}/{name}"
                pieces, sha256 = _split(kit.file(name), work, place, piece_bytes, step)
                if sha256 != file.sha256:
                    altered.append(str(kit.path / name))
            listed[name] = {"bytes": file.bytes, "sha256": file.sha256, "pieces": pieces}
        entries[folder] = {
            "id": kit.manifest.id,
            "memory": least_memory(kit),
            "files": listed,
        }
    if altered:
        raise KitError(
            f"altered since the kit was made: {', '.join(altered)}. Do not use it; make the kit "
            "again."
        )
    return entries


def least_memory(kit: Kit) -> int:
    """Return the bytes of memory that one page takes at least: the peak of the smallest memory
    plan.

    The installer refuses machines that have less. The figure holds for every processor, so that it
    does not depend on the machine that packs. Raises KitError for a broken GGUF header.
    """
    workload = memory_plan.Workload(pages=1)
    plans = memory_plan.ladder(kit, workload, None, frozenset(), exact_int8=False)
    return min(plan.peak for plan in plans)


def _split(
    source: Path, work: Path, name: str, piece_bytes: int, step: Callable[[int], None]
) -> tuple[list[str], str]:
    """Copy a file in pieces that FAT32 can hold; return the names of the pieces, and the hash of
    the whole file.
    """
    count = -(-source.stat().st_size // piece_bytes)
    names = [name] if count <= 1 else [f"{name}.{i:03d}" for i in range(1, count + 1)]
    digest = hashlib.sha256()
    with open(source, "rb", buffering=0) as file:
        for each in names:
            path = work / each
            path.parent.mkdir(parents=True, exist_ok=True)
            room = piece_bytes
            with open(path, "wb", buffering=0) as out:
                while room and (chunk := file.read(min(_READ_BYTES, room))):
                    digest.update(chunk)
                    out.write(chunk)
                    room -= len(chunk)
                    step(len(chunk))
    return names, digest.hexdigest()


def _copy_wheels(wheels: dict[Target, list[Wheel]], work: Path, earlier: set[str]) -> list[Wheel]:
    """Copy each wheel once; return all of them, by file name."""
    every = {wheel.path.name: wheel for of_target in wheels.values() for wheel in of_target}
    (work / "wheels").mkdir()
    for name, wheel in every.items():
        if wheel.sha256 not in earlier:
            shutil.copyfile(wheel.path, work / "wheels" / name)
    return [every[name] for name in sorted(every)]


def _manifest(
    work: Path,
    kits: dict[str, Any],
    wheels: dict[Target, list[Wheel]],
    created: str,
    extras: tuple[str, ...],
) -> bytes:
    """Return bundle.json: every file of the folder, the kits, and what each kind of laptop
    installs.
    """
    names = sorted(p.relative_to(work).as_posix() for p in work.rglob("*") if p.is_file())
    folded = [name.casefold() for name in names]
    if bad := [n for n in names if not name_fits(n) or folded.count(n.casefold()) > 1]:
        raise KitError(f"{', '.join(bad)}: no name that FAT32 and NTFS take. Rename it in the kit.")
    program = [w for of_target in wheels.values() for w in of_target if w.name == "pulse-edge"]
    raw = {
        "bundle_version": BUNDLE_VERSION,
        "pulse_edge": program[0].version,
        "created": created,
        "extras": list(extras),
        "default_kit": next(iter(kits)),
        "kits": kits,
        "targets": [_target(target, of_target) for target, of_target in wheels.items()],
        "files": {
            name: {"bytes": (work / name).stat().st_size, "sha256": sha256_of(work / name)}
            for name in names
        },
    }
    return (json.dumps(raw, indent=1, ensure_ascii=False) + "\n").encode()


def _target(target: Target, wheels: list[Wheel]) -> dict[str, Any]:
    """Return a target's entry in bundle.json."""
    return dataclasses.asdict(target) | {
        "glibc": max((wheel.glibc for wheel in wheels), default=[]),
        "unpacked": sum(wheel.unpacked for wheel in wheels),
        "wheels": {wheel.path.name: wheel.sha256 for wheel in wheels},
    }


def verify(path: Path, key: Path | None, progress: Progress) -> str:
    """Check a bundle's signature and every byte of it, as the installer does; say who vouches for
    it. Raises KitError.
    """
    try:
        bundle = open_bundle(path)
        named = None if key is None else read_public_key(key.read_text("utf-8"), str(key))
        home = installation.home()
        pinned = [] if home is None else Home(home).pinned()
        assessed = trust.assess(bundle, pinned, key=named)
        refuse_faults(bundle, shape_faults(bundle))
        refuse_faults(bundle, content_faults(bundle, list(bundle.files), progress))
    except Refused as e:
        raise KitError("; ".join(e.lines)) from None
    standing = "trusted here"
    if assessed.first and named is None:
        standing = "the bundle's own, which is not trusted here yet"
    key_id = "" if assessed.key is None else assessed.key.id
    return f"{path}: {len(bundle.files)} files are unchanged, signed by key {key_id} ({standing})"
