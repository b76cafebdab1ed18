"""Make a bundle: kits, wheels, installer and documents in one folder, listed in bundle.json and signed. For the workstation.

The same inputs give the same bytes: every date in a bundle is that of its newest kit, and Ed25519 signatures hold no
chance. Keys and signatures are minisign's files, so that `minisign -Vm bundle.json -p bundle.pub` verifies them too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pulse_edge.common import installation
from pulse_edge.deploy import documents, installer_archive, wheelhouse
from pulse_edge.deploy.signing import SecretKey
from pulse_edge.deploy.wheelhouse import Target, Wheel
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
from pulse_edge.installer.files import sha256_of
from pulse_edge.installer.home import Home
from pulse_edge.installer.minisign import PublicKey, read_public_key
from pulse_edge.installer.refusal import Refused
from pulse_edge.kit import locate
from pulse_edge.kit.kit import Kit, open_kit
from pulse_edge.kit.manifest import MANIFEST, File, Manifest
from pulse_edge.machine import memory

FAT32_BYTES = (4 << 30) - (4 << 20)
"""The largest piece of a file: a little below what FAT32 can hold (2**32 - 1 bytes)."""
_READ_BYTES = 1 << 22
Progress = Callable[[str, int, int], None]


# --- packing ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Order:
    """What is to be packed."""

    kits: tuple[Path, ...]
    out: Path
    targets: tuple[Target, ...]
    constraints: Path
    wheels: tuple[Path, ...] = ()
    """Wheel files to take before any other."""
    key: SecretKey | None = None
    since: Path | None = None
    """The bundle.json of an earlier bundle: what it listed is not carried again."""
    piece_bytes: int = FAT32_BYTES
    without: tuple[str, ...] = ()
    """Names in `wheelhouse.EXTRAS` that are left out."""

    @property
    def extras(self) -> tuple[str, ...]:
        """Parts of the program that are packed beside what it always needs."""
        return tuple(name for name in wheelhouse.EXTRAS if name not in self.without)


def pack(
    order: Order,
    progress: Progress = lambda _stage, _done, _of: None,
    say: Callable[[str], None] = lambda _text: None,
) -> PublicKey | None:
    """Write the bundle `order.out`; the key that signed it. Everything is looked at first, the folder renamed last.

    `say` gets a line for each step that takes time, `progress` bytes of kits done and of how many.
    Raises KitError naming what is missing or broken; then nothing is left.
    """
    if os.path.lexists(order.out):
        raise KitError(f"{order.out}: exists. Name a new folder, on the USB drive or elsewhere.")
    opened = {locate.folder_name(k.manifest.id): k for k in map(open_kit, order.kits)}
    if len(opened) != len(order.kits):
        raise KitError(
            f"{order.out}: two kits of one name ({', '.join(opened)}). Pack one of them."
        )
    if inside := [k.path for k in opened.values() if k.path in order.out.resolve().parents]:
        raise KitError(
            f"{order.out}: lies in the kit {inside[0]}, which would be broken by it. Name a folder elsewhere."
        )
    earlier = _earlier(order.since)
    wheels = wheelhouse.gather(order.targets, order.wheels, order.constraints, order.extras, say)
    with _writing(order.out) as work:
        say("copying and hashing the kits")
        listed = _carry_kits(opened, work, order.piece_bytes, earlier, progress)
        say("copying the program, and writing the documents")
        carried = _carry_wheels(wheels, work, earlier)
        created = max(k.manifest.created for k in opened.values())
        public = None if order.key is None else order.key.public()
        manifests = [k.manifest for k in opened.values()]
        documents.write(
            work, manifests, carried, list(order.targets), public, created, order.extras
        )
        installer_archive.write(work / INSTALLER)
        data = _manifest(work, listed, wheels, created, order.extras)
        (work / BUNDLE_MANIFEST).write_bytes(data)
        if order.key is not None:
            comment = f"pulse-edge bundle of {created}: {', '.join(opened)}"
            (work / SIGNATURE).write_text(order.key.sign(data, comment), "utf-8", newline="\n")
            (work / PUBLIC_KEY).write_text(order.key.public().text(), "utf-8", newline="\n")
    return public


@contextlib.contextmanager
def _writing(target: Path) -> Iterator[Path]:
    """A folder beside `target`, renamed to it at the end, removed if anything is raised."""
    target.parent.mkdir(parents=True, exist_ok=True)
    work = target.parent / f".{target.name}.unfinished-{secrets.token_hex(4)}"
    try:
        work.mkdir(mode=0o755)
        yield work
        os.rename(work, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _earlier(path: Path | None) -> set[str]:
    """The sha256 of everything that an earlier bundle installed: whole kit files, and wheels."""
    if path is None:
        return set()
    try:
        raw = json.loads(path.read_text("utf-8"))
        files = {f["sha256"] for kit in raw["kits"].values() for f in kit["files"].values()}
        return files | {sha256 for target in raw["targets"] for sha256 in target["wheels"].values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise KitError(
            f"{path}: not a bundle's {BUNDLE_MANIFEST} ({e}). Name the one of the bundle before."
        ) from None


def _carry_kits(
    opened: dict[str, Kit], work: Path, piece_bytes: int, earlier: set[str], progress: Progress
) -> dict[str, dict[str, Any]]:
    """Copy the kits, checked against their manifests; what bundle.json says of them."""
    manifests = {n: File(k.file(MANIFEST).stat().st_size, k.sha256) for n, k in opened.items()}
    inside = {n: {**k.manifest.files, MANIFEST: manifests[n]} for n, k in opened.items()}
    total = sum(
        f.bytes for files in inside.values() for f in files.values() if f.sha256 not in earlier
    )
    listed: dict[str, dict[str, Any]] = {}
    done, wrong = 0, []

    def step(piece: int) -> None:
        nonlocal done
        done += piece
        progress("pack", done, total)

    for folder, kit in opened.items():
        files: dict[str, Any] = {}
        for name, file in inside[folder].items():
            pieces: list[str] = []
            if file.sha256 not in earlier:
                pieces, sha256 = _split(
                    kit.file(name), work, f"kits/{folder}/{name}", piece_bytes, step
                )
                if sha256 != file.sha256:
                    wrong.append(str(kit.path / name))
            files[name] = {"bytes": file.bytes, "sha256": file.sha256, "pieces": pieces}
        listed[folder] = {"id": kit.manifest.id, "memory": _memory(kit.manifest), "files": files}
    if wrong:
        raise KitError(
            f"altered since the kit was made: {', '.join(wrong)}. Do not use it; make the kit again."
        )
    return listed


def _memory(m: Manifest) -> int:
    """Bytes of memory that a kit takes when it answers: its weights, the cache of keys and values, the program."""
    cache = 2 * 2 * m.language.layers * m.language.key_value_length * m.language.context_length
    return sum(f.bytes for f in m.files.values()) + cache + 350 * memory.MIB


def _split(
    source: Path, work: Path, name: str, piece_bytes: int, step: Callable[[int], None]
) -> tuple[list[str], str]:
    """Copy a file in pieces that a bundle can hold; the pieces' names, and the sha256 of the whole."""
    count = -(-source.stat().st_size // piece_bytes)
    names = [name] if count <= 1 else [f"{name}.{i:03d}" for i in range(1, count + 1)]
    digest = hashlib.sha256()
    with open(source, "rb", buffering=0) as f:
        for each in names:
            path = work / each
            path.parent.mkdir(parents=True, exist_ok=True)
            left = piece_bytes
            with open(path, "wb", buffering=0) as out:
                while left and (piece := f.read(min(_READ_BYTES, left))):
                    digest.update(piece)
                    out.write(piece)
                    left -= len(piece)
                    step(len(piece))
    return names, digest.hexdigest()


def _carry_wheels(wheels: dict[Target, list[Wheel]], work: Path, earlier: set[str]) -> list[Wheel]:
    """Copy every wheel once; all of them, by file name."""
    every = {wheel.path.name: wheel for found in wheels.values() for wheel in found}
    (work / "wheels").mkdir()
    for name, wheel in every.items():
        if wheel.sha256 not in earlier:
            shutil.copyfile(wheel.path, work / "wheels" / name)
    return [every[name] for name in sorted(every)]


def _manifest(
    work: Path,
    listed: dict[str, Any],
    wheels: dict[Target, list[Wheel]],
    created: str,
    extras: tuple[str, ...],
) -> bytes:
    """bundle.json: every file of the folder, the kits, and what each kind of laptop installs."""
    names = sorted(p.relative_to(work).as_posix() for p in work.rglob("*") if p.is_file())
    folded = [n.casefold() for n in names]
    if bad := [n for n in names if not name_fits(n) or folded.count(n.casefold()) > 1]:
        raise KitError(f"{', '.join(bad)}: no name that FAT32 and NTFS take. Rename it in the kit.")
    targets = [
        dataclasses.asdict(target)
        | {
            "glibc": max((w.glibc for w in found), default=[]),
            "unpacked": sum(w.unpacked for w in found),
            "wheels": {w.path.name: w.sha256 for w in found},
        }
        for target, found in wheels.items()
    ]
    files = {n: {"bytes": (work / n).stat().st_size, "sha256": sha256_of(work / n)} for n in names}
    raw = {
        "bundle_version": BUNDLE_VERSION,
        "pulse_edge": next(
            w.version for found in wheels.values() for w in found if w.name == "pulse-edge"
        ),
        "created": created,
        "extras": list(extras),
        "default_kit": next(iter(listed)),
        "kits": listed,
        "targets": targets,
        "files": files,
    }
    return (json.dumps(raw, indent=1, ensure_ascii=False) + "\n").encode()


def targets(platforms: Sequence[str], pythons: Sequence[str], device: str) -> tuple[Target, ...]:
    """Every platform with every Python."""
    return tuple(Target(platform, python, device) for platform in platforms for python in pythons)


# --- verifying --------------------------------------------------------------------------------------------------------


def verify(path: Path, key: Path | None, progress: Progress) -> str:
    """Check a bundle's signature and every byte of it, as the installer does; who vouches for it. Raises KitError."""
    try:
        bundle = open_bundle(path)
        named = None if key is None else read_public_key(key.read_text("utf-8"), str(key))
        home = installation.home()
        assessed = trust.assess(
            bundle, [] if home is None else Home(home).pinned(), key=named, accept=[]
        )
        refuse_faults(bundle, shape_faults(bundle))
        refuse_faults(bundle, content_faults(bundle, list(bundle.files), progress))
    except Refused as e:
        raise KitError("; ".join(e.lines)) from None
    known = (
        "the bundle's own, which nobody has pinned here"
        if assessed.first and named is None
        else "trusted here"
    )
    return f"{path}: {len(bundle.files)} files are as they were made, signed by key {assessed.key.id if assessed.key else ''} ({known})"
