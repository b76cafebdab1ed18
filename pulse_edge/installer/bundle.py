"""Open an offline bundle and check that its files are the ones that its manifest lists.

`bundle.json` lists every other file with its size and SHA-256 hash; `bundle.json.minisig` is its
signature and `bundle.pub` the key. Large files of kits are cut in pieces that FAT32 can hold.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import fields
from .files import Progress, chunks
from .refusal import Refused

BUNDLE_MANIFEST, SIGNATURE, PUBLIC_KEY = "bundle.json", "bundle.json.minisig", "bundle.pub"
INSTALLER = "install.pyz"
BUNDLE_VERSION = 1
_TEXT_BYTES = 32 << 20
"""Far above the size of any manifest: a larger file is not read into memory."""
JUNK = re.compile(
    r"System Volume Information|\$RECYCLE\.BIN|\.Trash.*|\.fseventsd|\.Spotlight-V100|\.DS_Store"
    r"|\._.*|Thumbs\.db|desktop\.ini",
    re.IGNORECASE,
)
"""Files that operating systems leave on USB drives. They are never read, so that they do no harm.
"""


@dataclass(frozen=True)
class KitFile:
    """A file of a kit."""

    bytes: int
    sha256: str
    pieces: tuple[str, ...]
    """Names of its pieces in the bundle; empty if an earlier bundle carried the file."""


@dataclass(frozen=True)
class BundledKit:
    """A kit that a bundle installs."""

    id: str
    memory: int
    """Bytes of memory that it takes at least, by the memory plan of the runtime."""
    files: dict[str, KitFile]
    """By name inside the kit."""


@dataclass(frozen=True)
class Target:
    """A kind of laptop that a bundle is made for."""

    platform: str
    """As `machine.this_platform` gives it, such as linux-x86_64."""
    python: str
    """Version of Python, such as 3.11."""
    device: str
    glibc: tuple[int, ...]
    """Oldest glibc that the wheels run on; empty where there is none."""
    unpacked: int
    """Bytes of the wheels' files."""
    wheels: dict[str, str]
    """File name -> SHA-256 hash."""

    def __str__(self) -> str:
        return f"{self.platform} with Python {self.python}"


@dataclass(frozen=True)
class Bundle:
    """An opened bundle. Its statements may be trusted once `trust.assess` has accepted its
    signature.
    """

    path: Path
    data: bytes
    """Bytes of bundle.json."""
    files: dict[str, tuple[int, str]]
    """Size in bytes and SHA-256 hash of every file but the manifest, its signature and its key."""
    kits: dict[str, BundledKit]
    """By folder name."""
    targets: tuple[Target, ...]
    program: str
    """Version of pulse-edge."""
    created: datetime.datetime
    """When the newest of its kits was made."""
    default: str | None
    """Folder name of the kit that its maker put first; None if it brings no kits."""

    @property
    def version(self) -> str:
        """Name of the folder that it is installed in."""
        return f"{self.program}-{hashlib.sha256(self.data).hexdigest()[:12]}"


def open_bundle(path: Path) -> Bundle:
    """Read the manifest of a bundle. Raises Refused for anything that this version does not
    understand.
    """
    where = path / BUNDLE_MANIFEST
    data = read_small(where)
    try:
        raw = fields.mapping(json.loads(data), "the manifest")
        if raw["bundle_version"] != BUNDLE_VERSION:
            raise Refused(
                f"{where}: version {raw['bundle_version']}, and this program reads "
                f"{BUNDLE_VERSION}. Use the {INSTALLER} of the bundle."
            )
        return _parse(path, data, raw)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        # The text of a KeyError is the quoted name of the field.
        reason = f"{e} is missing" if isinstance(e, KeyError) else str(e)
        raise Refused(
            f"{where}: not a bundle's manifest ({reason}). Copy the bundle again."
        ) from None


def _parse(path: Path, data: bytes, raw: dict[str, Any]) -> Bundle:
    """Build a bundle from its manifest. Raises ValueError or KeyError."""
    files = {
        fields.name(name): (
            fields.number(file["bytes"], f"bytes of {name}"),
            fields.sha256(file["sha256"], name),
        )
        for name, file in fields.mapping(raw["files"], "files").items()
    }
    if len({name.casefold() for name in files}) != len(files):
        raise ValueError("files holds one name twice")
    kits = {
        fields.name(name, plain=True): _kit(name, fields.mapping(kit, name), files)
        for name, kit in fields.mapping(raw["kits"], "kits").items()
    }
    targets = tuple(
        _target(fields.mapping(target, "a target"))
        for target in fields.array(raw["targets"], "targets")
    )
    program = fields.text(raw["pulse_edge"], "pulse_edge")
    fields.version_order(program)
    default = raw.get("default_kit", next(iter(kits), None))
    if kits and default not in kits:
        raise ValueError(f"default_kit {default!r} is none of its kits")
    created = fields.moment(raw["created"], "created")
    return Bundle(path, data, files, kits, targets, program, created, default)


def _kit(name: str, kit: dict[str, Any], files: dict[str, tuple[int, str]]) -> BundledKit:
    """Check a kit's entry in the manifest. Raises ValueError or KeyError."""
    checked: dict[str, KitFile] = {}
    for inside, file in fields.mapping(kit["files"], f"files of {name}").items():
        where = f"{name}/{fields.name(inside)}"
        size = fields.number(file["bytes"], f"bytes of {where}")
        sha256 = fields.sha256(file["sha256"], where)
        pieces = tuple(fields.array(file["pieces"], f"pieces of {where}"))
        if absent := [piece for piece in pieces if piece not in files]:
            raise ValueError(
                f"{where} has the piece {absent[0]!r}, which is not listed under files"
            )
        if pieces and sum(files[piece][0] for piece in pieces) != size:
            raise ValueError(f"{where} has not the bytes of its pieces")
        checked[inside] = KitFile(size, sha256, pieces)
    memory = fields.number(kit["memory"], f"memory of {name}")
    return BundledKit(fields.text(kit["id"], f"id of {name}"), memory, checked)


def _target(target: dict[str, Any]) -> Target:
    """Check a target's entry in the manifest. Raises ValueError or KeyError."""
    wheels = {
        fields.name(name, plain=True): fields.sha256(sha256, name)
        for name, sha256 in fields.mapping(target["wheels"], "wheels of a target").items()
    }
    if foreign := [name for name in wheels if not name.endswith(".whl")]:
        raise ValueError(f"{foreign[0]} is no wheel")
    if sum(name.startswith("pip-") for name in wheels) != 1:
        raise ValueError("a target has not one wheel of pip")
    glibc = fields.array(target["glibc"], "glibc of a target")
    return Target(
        platform=fields.text(target["platform"], "platform of a target"),
        python=fields.text(target["python"], "python of a target"),
        device=fields.text(target["device"], "device of a target"),
        glibc=tuple(fields.number(part, "glibc of a target") for part in glibc),
        unpacked=fields.number(target["unpacked"], "unpacked of a target"),
        wheels=wheels,
    )


def read_small(path: Path) -> bytes:
    """Read a small plain file. Raises Refused if it is missing, a link, a device or very large."""
    try:
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _TEXT_BYTES:
            raise Refused(f"{path}: not a plain file of a sensible size. Copy the bundle again.")
        return path.read_bytes()
    except FileNotFoundError:
        raise Refused(
            f"{path}: missing. Name the bundle's own folder, or copy the bundle again."
        ) from None


def shape_faults(bundle: Bundle) -> list[str]:
    """List the files that are missing, foreign, of another size, or no plain files; a line for
    each.

    Reads no contents.
    """
    present = _present(bundle.path)
    own = {BUNDLE_MANIFEST, SIGNATURE, PUBLIC_KEY}
    faults = [
        f"{name}: does not belong to this bundle"
        for name in sorted(present - bundle.files.keys() - own)
    ]
    for name, (size, _) in bundle.files.items():
        if name not in present:
            faults.append(f"{name}: missing")
            continue
        status = os.lstat(bundle.path / name)
        if not stat.S_ISREG(status.st_mode):
            faults.append(f"{name}: not a plain file")
        elif status.st_size != size:
            faults.append(f"{name}: {status.st_size} bytes instead of {size}")
    return faults


def _present(path: Path) -> set[str]:
    """Names of everything in a bundle's folder, links to folders included, without JUNK."""
    names = set()
    for folder, folders, files in os.walk(path):
        here = Path(folder).relative_to(path)
        folders[:] = [f for f in folders if here.parts or not JUNK.fullmatch(f)]
        links = [f for f in folders if os.path.islink(os.path.join(folder, f))]
        names |= {(here / f).as_posix() for f in [*files, *links] if not JUNK.fullmatch(f)}
    return names


def content_faults(bundle: Bundle, names: list[str], progress: Progress) -> list[str]:
    """List those of the named files whose bytes are not the manifest's; a line for each."""
    total, done, faults = sum(bundle.files[n][0] for n in names), 0, []
    for name in names:
        digest = hashlib.sha256()
        for chunk in chunks(bundle.path / name):
            digest.update(chunk)
            done += len(chunk)
            progress("check", done, total)
        if digest.hexdigest() != bundle.files[name][1]:
            faults.append(f"{name}: altered")
    return faults


def checked_bytes(bundle: Bundle, name: str) -> bytes:
    """Read a small file once and check it: whoever can write to the drive may change it after a
    check.

    Raises Refused.
    """
    data = read_small(bundle.path / name)
    if name not in bundle.files or hashlib.sha256(data).hexdigest() != bundle.files[name][1]:
        refuse_faults(bundle, [f"{name}: altered"])
    return data


def refuse_faults(bundle: Bundle, faults: list[str]) -> None:
    """Raise Refused if there are faults."""
    if faults:
        number = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise Refused(
            *faults, f"{bundle.path}: {number}. Nothing was installed. Copy the bundle again."
        )
