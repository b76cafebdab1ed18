"""Install pulse-edge and its kits from a bundle, offline: `python3 install.py`. Python 3.10 up, standard library only.

    python3 install.py [--to DIR] [--user-only] [--key FILE] [--accept WORD]... | --rollback | --uninstall

A bundle holds `bundle.json`, which lists every other file with its sha256, and `bundle.json.minisig`, its signature. Both
are checked before anything is unpacked or imported. DIR holds one folder a version with its own virtual environment
and kits, and the file `current`, which names the version in use: it is written when the new one has passed.

DIR and each version's folder carry a mark, the file `pulse-edge-folder.json`. Nothing is overwritten or removed in a folder
without it.

This file stands alone, because it is carried on the bundle; pulse-edge imports it to make, verify and undo what it does.
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and not sys.flags.isolated:
    # `python3 install.py` searches the bundle's own folder and PYTHONPATH before the standard library: a file there would
    # run before it was checked. os is loaded already, so that this import reads nothing.
    import os

    if os.name == "posix" and sys.executable:
        os.execv(sys.executable, [sys.executable, "-I", os.path.abspath(__file__), *sys.argv[1:]])
    sys.path[:] = [part for part in sys.path if part.startswith((sys.prefix, sys.base_prefix))]

import argparse
import base64
import binascii
import contextlib
import datetime
import hashlib
import json
import os
import platform
import re
import secrets
import shlex
import shutil
import signal
import stat
import subprocess
import tempfile
import time
import unicodedata
import venv
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

BUNDLE, SIGNATURE, PUBLIC_KEY = "bundle.json", "bundle.json.minisig", "bundle.pub"
BUNDLE_VERSION = 1
INSTALLED = "install.json"
MARK = "pulse-edge-folder.json"
"""Says that a folder is ours: format, kind of folder, and an id."""
DEFAULT_KIT = "default-kit.json"
"""Beside a folder of kits: which of them answers when none is named."""
_MARK_FORMAT, _DEFAULT_FORMAT = 1, "pulse-edge default kit"
_HOME, _VERSION = "installation", "installed-version"
"""Kinds of our folders. A version's mark has its installation's id."""
_READ_BYTES = 1 << 22
_TEXT_BYTES = 32 << 20  # far above any manifest; a larger one is not read into memory
_UNPACKED_BYTES = 8 << 30
_SPARE_BYTES = 256 << 20
_LOCK_SECONDS = 60
Progress = Callable[[str, int, int], None]
"""Gets the stage, bytes done, and of how many."""


def visible(text: str) -> str:
    """Text on one line, with what a terminal would act on as escapes, as `pulse_edge.common.text.one_line` has it."""
    bad = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    shown = {"\n": "\\n", "\t": "\\t", "\u200c": "\u200c", "\u200d": "\u200d"}
    escapes = ((2, "x"), (4, "u"), (8, "U"))

    def escape(number: int) -> str:
        digits, letter = next(pair for pair in escapes if number < 16 ** pair[0])
        return f"\\{letter}{number:0{digits}x}"

    return "".join(
        shown.get(c) or (escape(ord(c)) if unicodedata.category(c) in bad else c) for c in text
    )


class Refused(Exception):
    """What stops the installer. Each line names the file, what is wrong, and the next step."""

    def __init__(self, *lines: str, exit_code: int = 1) -> None:
        self.lines = tuple(map(visible, lines))
        super().__init__("\n".join(self.lines))
        self.exit_code = exit_code


# --- Ed25519, verification only (RFC 8032, section 5.1) ---------------------------------------------------------------
# A bare laptop has no cryptographic library. Nothing here is secret, so that it need not run in constant time.

_P = 2**255 - 19
_L = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, -1, _P) % _P
Point = tuple[int, int, int, int]
"""Extended homogeneous coordinates (X, Y, Z, T): x = X/Z, y = Y/Z, xy = T/Z."""


def _added(p: Point, q: Point) -> Point:
    """Section 5.1.4."""
    a = (p[1] - p[0]) * (q[1] - q[0]) % _P
    b = (p[1] + p[0]) * (q[1] + q[0]) % _P
    c = 2 * p[3] * q[3] * _D % _P
    d = 2 * p[2] * q[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _times(n: int, p: Point) -> Point:
    total = (0, 1, 1, 0)
    while n:
        if n & 1:
            total = _added(total, p)
        p = _added(p, p)
        n >>= 1
    return total


def _point(raw: bytes) -> Point | None:
    """Section 5.1.3; None for 32 bytes that are no point."""
    y = int.from_bytes(raw, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    if y >= _P:
        return None
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * pow(2, (_P - 1) // 4, _P) % _P
    if (x * x - square) % _P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = _P - x
    return x, y, 1, x * y % _P


_BASE = _point((4 * pow(5, -1, _P) % _P).to_bytes(32, "little"))


def ed25519_verifies(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` (64 bytes) of `message` was made with the key whose public half (32 bytes) is given.

    RFC 8032, section 5.1.7, with the equation that has no cofactor.
    """
    if len(public) != 32 or len(signature) != 64:
        return False
    a, r = _point(public), _point(signature[:32])
    s = int.from_bytes(signature[32:], "little")
    if a is None or r is None or _BASE is None or s >= _L:
        return False
    k = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little") % _L
    left, right = _times(s, _BASE), _added(r, _times(k, a))
    return (
        (left[0] * right[2] - right[0] * left[2]) % _P
        == 0
        == (left[1] * right[2] - right[1] * left[2]) % _P
    )


# --- minisign's files -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PublicKey:
    """A minisign public key."""

    number: bytes
    """8 bytes; minisign prints them as a little-endian number."""
    key: bytes
    """32 bytes, Ed25519."""

    @property
    def id(self) -> str:
        """As minisign prints it: 16 hexadecimal digits."""
        return f"{int.from_bytes(self.number, 'little'):016X}"

    def text(self) -> str:
        """The file's text."""
        line = base64.b64encode(b"Ed" + self.number + self.key).decode()
        return f"untrusted comment: minisign public key {self.id}\n{line}\n"


def read_public_key(text: str, where: str) -> PublicKey:
    """The key in a minisign public key file's text. Raises Refused."""
    raw = _base64(text.strip().splitlines()[-1] if text.strip() else "")
    if len(raw) != 42 or raw[:2] != b"Ed":
        raise Refused(
            f"{where}: not a minisign public key. Ask the maker of the bundle for it again."
        )
    return PublicKey(raw[2:10], raw[10:])


@dataclass(frozen=True)
class Signature:
    """A minisign signature file."""

    algorithm: bytes
    """`ED`: of the BLAKE2b-512 of the data; `Ed`: of the data itself."""
    number: bytes
    signature: bytes
    comment: bytes
    """The trusted comment, which the second signature covers."""
    whole: bytes
    """64 bytes: of `signature` and `comment`."""

    def verifies(self, key: PublicKey, data: bytes) -> bool:
        """Whether both signatures are right and of this key."""
        signed = hashlib.blake2b(data).digest() if self.algorithm == b"ED" else data
        return (
            key.number == self.number
            and ed25519_verifies(key.key, signed, self.signature)
            and ed25519_verifies(key.key, self.signature + self.comment, self.whole)
        )


def read_signature(text: str, where: str) -> Signature:
    """A minisign signature file. Raises Refused."""
    lines = text.splitlines()
    if len(lines) == 4 and lines[2].startswith("trusted comment: "):
        raw, whole = _base64(lines[1]), _base64(lines[3])
        if len(raw) == 74 and raw[:2] in (b"ED", b"Ed") and len(whole) == 64:
            comment = lines[2].removeprefix("trusted comment: ").encode()
            return Signature(raw[:2], raw[2:10], raw[10:], comment, whole)
    raise Refused(f"{where}: not a minisign signature. Copy the bundle again.")


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


# --- the bundle --------------------------------------------------------------------------------------------------------

_JUNK = re.compile(
    r"System Volume Information|\$RECYCLE\.BIN|\.Trash.*|\.fseventsd|\.Spotlight-V100|\.DS_Store|\._.*|Thumbs\.db"
    r"|desktop\.ini",
    re.IGNORECASE,
)
"""What systems leave on every bundle; never read, so it does no harm."""
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def name_fits(name: str) -> bool:
    """Whether a relative path stays below its folder, and can be written on FAT32 and NTFS."""
    parts = name.split("/")
    return (
        0 < len(name) <= 180
        and not re.search(r'[\\:*?"<>|\x00-\x1f]', name)
        and all(
            p not in ("", ".", "..") and p[-1] not in ". " and not _RESERVED.fullmatch(p)
            for p in parts
        )
    )


_PROGRAM = re.compile(
    r"([0-9]{1,9}(?:\.[0-9]{1,9}){0,5})(?:(a|b|rc)([0-9]{1,9}))?(?:\.post([0-9]{1,9}))?(?:\.dev([0-9]{1,9}))?"
    r"(?:\+[a-z0-9]+(?:\.[a-z0-9]+){0,5})?"
)
"""A version as wheels write it (PEP 440, normalized, without an epoch)."""


def version_order(text: str) -> tuple[list[int], tuple[int, int], int, int]:
    """What versions are ordered by, as PEP 440 has it; local parts do not count. Raises ValueError for no version."""
    match = _PROGRAM.fullmatch(text) if len(text) <= 40 else None
    if match is None:
        raise ValueError(f"{text!r} is no version of a program")
    release, phase, stage, post, dev = match.groups()
    numbers = [int(number) for number in release.split(".")]
    while numbers and not numbers[-1]:
        numbers.pop()
    # 1.0.dev1 comes before 1.0a1, and 1.0 after 1.0rc1.
    before = (
        (("a", "b", "rc").index(phase), int(stage)) if phase else (-1 if dev and not post else 3, 0)
    )
    return numbers, before, int(post) if post else -1, int(dev) if dev else 10**9


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: its folder and its manifest. What the manifest says is to be trusted after `judged`."""

    path: Path
    data: bytes
    """Of bundle.json."""
    files: dict[str, tuple[int, str]]
    """Everything carried but the manifest, its signature and its key: bytes and sha256."""
    kits: dict[str, dict[str, Any]]
    """By folder name: id, memory (bytes), sha256 (of the kit's manifest), files (bytes, sha256, pieces on the bundle)."""
    targets: list[dict[str, Any]]
    """platform, python, device, glibc, unpacked (bytes), wheels (name: sha256)."""
    program: str
    """pulse-edge's version."""
    created: datetime.datetime
    """When the newest of its kits was made."""
    default: str | None
    """The kit that its maker named first; None: it brings no kits."""

    @property
    def version(self) -> str:
        """Name of its folder when installed."""
        return f"{self.program}-{hashlib.sha256(self.data).hexdigest()[:12]}"


def open_bundle(path: Path) -> Bundle:
    """Read a bundle's manifest. Raises Refused for anything that this version does not understand."""
    where = path / BUNDLE
    data = _read(where)
    try:
        raw = _object(json.loads(data), "the manifest")
        if raw["bundle_version"] != BUNDLE_VERSION:
            raise Refused(
                f"{where}: version {raw['bundle_version']}, this program reads {BUNDLE_VERSION}. Use its install.py."
            )
        files = {
            _name(n): (_number(f["bytes"], f"bytes of {n}"), _sha256(f["sha256"], n))
            for n, f in _object(raw["files"], "files").items()
        }
        if len({n.casefold() for n in files}) != len(files):
            raise ValueError("files holds one name twice")
        kits = _object(raw["kits"], "kits")
        for name, kit in kits.items():
            _check_kit(_name(name, plain=True), _object(kit, name), files)
        targets = _list(raw["targets"], "targets")
        for target in targets:
            _check_target(_object(target, "a target"))
        program, default = (
            _text(raw["pulse_edge"], "pulse_edge"),
            raw.get("default_kit", next(iter(kits), None)),
        )
        version_order(program)
        if kits and default not in kits:
            raise ValueError(f"default_kit {default!r} is none of its kits")
        return Bundle(path, data, files, kits, targets, program, _moment(raw["created"]), default)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        # A KeyError's text is the quoted name of what was looked for.
        reason = f"{e} is missing" if isinstance(e, KeyError) else str(e)
        raise Refused(
            f"{where}: not a bundle's manifest ({reason}). Copy the bundle again."
        ) from None


def _check_kit(name: str, kit: dict[str, Any], files: dict[str, tuple[int, str]]) -> None:
    """A kit's entry in the manifest. Raises ValueError."""
    _text(kit["id"], f"id of {name}")
    _number(kit["memory"], f"memory of {name}")
    for inside, file in _object(kit["files"], f"files of {name}").items():
        where = f"{name}/{_name(inside)}"
        size, _ = _number(file["bytes"], f"bytes of {where}"), _sha256(file["sha256"], where)
        pieces = _list(file["pieces"], f"pieces of {where}")
        if absent := [piece for piece in pieces if piece not in files]:
            raise ValueError(
                f"{where} has the piece {absent[0]!r}, which is not listed under files"
            )
        if pieces and sum(files[piece][0] for piece in pieces) != size:
            raise ValueError(f"{where} has not the bytes of its pieces")


def _check_target(target: dict[str, Any]) -> None:
    """A target's entry in the manifest. Raises ValueError."""
    for field in ("platform", "python", "device"):
        _text(target[field], f"{field} of a target")
    _number(target["unpacked"], "unpacked of a target")
    for part in _list(target["glibc"], "glibc of a target"):
        _number(part, "glibc of a target")
    wheels = _object(target["wheels"], "wheels of a target")
    for name, sha256 in wheels.items():
        _sha256(sha256, _name(name, plain=True))
        if not name.endswith(".whl"):
            raise ValueError(f"{name} is no wheel")
    if sum(name.startswith("pip-") for name in wheels) != 1:
        raise ValueError("a target has not one wheel of pip")


def _name(value: Any, *, plain: bool = False) -> str:
    """A relative path below the bundle or a kit; `plain`: one part of a path."""
    if not isinstance(value, str) or not name_fits(value) or (plain and "/" in value):
        raise ValueError(f"name {value!r} is not allowed")
    return value


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str) or len(value) > 200:
        raise ValueError(f"{what} is {value!r}")
    return value


def _number(value: Any, what: str) -> int:
    if type(value) is not int or not 0 <= value < 1 << 50:
        raise ValueError(f"{what} is {value!r}")
    return value


def _sha256(value: Any, what: str) -> str:
    if not isinstance(value, str) or not re.fullmatch("[0-9a-f]{64}", value):
        raise ValueError(f"sha256 of {what} is {value!r}")
    return value


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{what} is not a list")
    return value


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} is not an object")
    return value


def _moment(value: Any) -> datetime.datetime:
    """A time of ISO 8601; without a zone it is UTC."""
    moment = datetime.datetime.fromisoformat(_text(value, "created").replace("Z", "+00:00"))
    return moment if moment.tzinfo else moment.replace(tzinfo=datetime.timezone.utc)


def _read(path: Path) -> bytes:
    """A small plain file's bytes."""
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
    """What is missing, foreign, of another size, or no plain file; one line a file. Reads no contents."""
    faults = []
    present = set()
    for folder, folders, names in os.walk(bundle.path):
        here = Path(folder).relative_to(bundle.path)
        top = here == Path(".")
        folders[:] = [f for f in folders if not (top and _JUNK.fullmatch(f))]
        for name in [*names, *(f for f in folders if os.path.islink(os.path.join(folder, f)))]:
            if not _JUNK.fullmatch(name):
                present.add((here / name).as_posix())
    for name in sorted(present - bundle.files.keys() - {BUNDLE, SIGNATURE, PUBLIC_KEY}):
        faults.append(f"{name}: does not belong to this bundle")
    for name, (size, _sha256) in bundle.files.items():
        if name not in present:
            faults.append(f"{name}: missing")
            continue
        status = os.lstat(bundle.path / name)
        if not stat.S_ISREG(status.st_mode):
            faults.append(f"{name}: not a plain file")
        elif status.st_size != size:
            faults.append(f"{name}: {status.st_size} bytes instead of {size}")
    return faults


def checked_bytes(bundle: Bundle, name: str) -> bytes:
    """A small file's bytes, read once and checked: whoever can write the bundle may change it after a check. Raises Refused."""
    data = _read(bundle.path / name)
    if name not in bundle.files or hashlib.sha256(data).hexdigest() != bundle.files[name][1]:
        refuse_broken(bundle, [f"{name}: altered"])
    return data


def content_faults(bundle: Bundle, names: list[str], progress: Progress) -> list[str]:
    """Which of these files have other bytes than the manifest says; one line a file."""
    total, done, faults = sum(bundle.files[n][0] for n in names), 0, []
    for name in names:
        digest = hashlib.sha256()
        with open(bundle.path / name, "rb", buffering=0) as f:
            while piece := f.read(_READ_BYTES):
                digest.update(piece)
                done += len(piece)
                progress("check", done, total)
        if digest.hexdigest() != bundle.files[name][1]:
            faults.append(f"{name}: altered")
    return faults


def refuse_broken(bundle: Bundle, faults: list[str]) -> None:
    """Raise Refused if there are faults."""
    if faults:
        number = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise Refused(
            *faults, f"{bundle.path}: {number}. Nothing was installed. Copy the bundle again."
        )


# --- whom to trust ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trust:
    """Who vouches for a bundle."""

    key: PublicKey | None
    """Whose signature is right; None: unsigned."""
    pinned: bool
    """Whether this key is trusted here, or is to be from now on."""
    first: bool = False
    """Nothing was trusted here before: the key is pinned by this installation."""

    @property
    def warning(self) -> str | None:
        """What every answer must say."""
        if self.key is None:
            return "UNSIGNED BUNDLE - NOBODY VOUCHES FOR THIS PROGRAM AND ITS KITS"
        return (
            None
            if self.pinned
            else f"BUNDLE SIGNED BY A KEY THAT IS NOT TRUSTED HERE ({self.key.id})"
        )


def judged(
    bundle: Bundle, pinned: list[PublicKey], *, key: PublicKey | None = None, accept: list[str]
) -> Trust:
    """Who vouches for the bundle, by the pinned keys, or `key` where it was named, or the bundle's own the first time.

    `accept` holds what the person has said explicitly: `unsigned`, or the id of a foreign key. Raises Refused.
    """
    known = [key] if key is not None else pinned
    if not (bundle.path / SIGNATURE).exists():
        if "unsigned" not in accept:
            raise Refused(
                f"{bundle.path / SIGNATURE}: missing, so nobody vouches for this bundle. Ask for a signed one; "
                "--accept unsigned installs it all the same, and every answer will say so."
            )
        return Trust(None, pinned=False)
    signature = read_signature(
        _read(bundle.path / SIGNATURE).decode("utf-8", "replace"), str(bundle.path / SIGNATURE)
    )
    own = read_public_key(
        _read(bundle.path / PUBLIC_KEY).decode("utf-8", "replace"), str(bundle.path / PUBLIC_KEY)
    )
    for candidate in [*known, own]:
        if candidate.number == signature.number:
            if not signature.verifies(candidate, bundle.data):
                raise Refused(
                    f"{bundle.path / BUNDLE}: does not agree with its signature by key {candidate.id}. Do not use it; "
                    "copy the bundle again."
                )
            if candidate in known or not known:
                return Trust(candidate, pinned=True, first=not known or candidate not in pinned)
            return _foreign(bundle, candidate, known, accept)
    raise Refused(
        f"{bundle.path / PUBLIC_KEY}: not the key of the signature. Do not use it; copy the bundle again."
    )


def _foreign(bundle: Bundle, key: PublicKey, known: list[PublicKey], accept: list[str]) -> Trust:
    if key.id not in accept:
        raise Refused(
            f"{bundle.path / SIGNATURE}: by key {key.id}, and trusted here: {', '.join(k.id for k in known)}. Ask "
            f"who made it; --accept {key.id} installs it all the same, and every answer will say so."
        )
    return Trust(key, pinned=False)


# --- where it is installed --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Home:
    """The folder of an installation.

    `versions/NAME/{venv,kits,wheels,bundle.json,default-kit.json,install.json}`, `current`, `trusted.pub`, `pulse-edge`,
    `install.py`. The folder and each version have a mark. A version without install.json is unfinished.
    """

    path: Path

    def mark(self) -> dict[str, Any] | None:
        """What the folder's mark says; None where it has none, so that nothing there is ours."""
        return read_mark(self.path, _HOME)

    def version(self, name: str) -> Path:
        return self.path / "versions" / name

    def ours(self) -> list[Path]:
        """Folders of versions, unfinished ones too; what else lies in `versions` is somebody else's."""
        mark = self.mark()
        if mark is None:
            return []
        return sorted(
            p
            for p in self.path.glob("versions/*")
            if (read_mark(p, _VERSION) or {}).get("id") == mark["id"]
        )

    def complete(self) -> list[str]:
        """Versions that have passed, newest first."""
        done = [p for p in self.ours() if (p / INSTALLED).is_file()]
        return [
            p.name
            for p in sorted(done, key=lambda p: (p / INSTALLED).stat().st_mtime_ns, reverse=True)
        ]

    def current(self) -> str | None:
        """The version in use."""
        try:
            name = (self.path / "current").read_text("utf-8").strip()
        except (OSError, ValueError):
            return None
        return name if name in self.complete() else None

    def pinned(self) -> list[PublicKey]:
        """The keys trusted here."""
        path = self.path / "trusted.pub"
        if self.mark() is None or not path.exists():
            return []
        lines = [
            line
            for line in path.read_text("utf-8").splitlines()
            if not line.startswith("untrusted comment")
        ]
        return [read_public_key(line, str(path)) for line in lines]


def read_mark(folder: Path, kind: str) -> dict[str, Any] | None:
    """The mark of a folder: `format`, `kind`, `id`. None where there is none of this kind."""
    path = folder / MARK
    try:
        if (
            folder.is_symlink()
            or not stat.S_ISREG(os.lstat(path).st_mode)
            or path.stat().st_size > 4096
        ):
            return None
        raw = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    fits = isinstance(raw, dict) and raw.get("format") == _MARK_FORMAT and raw.get("kind") == kind
    return raw if fits and isinstance(raw.get("id"), str) else None


def _write_mark(folder: Path, kind: str, number: str, **more: str) -> None:
    about = {"format": _MARK_FORMAT, "kind": kind, "id": number, **more}
    write_whole(folder / MARK, json.dumps(about).encode() + b"\n")


_NEIGHBOURS = {"kits", "audit-log", "cache", "lost+found", DEFAULT_KIT}
"""What else the program keeps in its usual place on some systems (pulse_edge.kit.kit, pulse_edge.audit_log.log), and disks at their top."""


def _others(folder: Path) -> list[str]:
    """What lies in a folder without a mark, but for what systems and a killed installer leave."""
    ours = re.compile(rf"\.lock|\.{re.escape(MARK)}\..{{1,20}}")
    return sorted(
        p.name
        for p in folder.iterdir()
        if not (
            _JUNK.fullmatch(p.name)
            or (ours.fullmatch(p.name) and p.is_file() and p.stat().st_size <= 4096)
        )
    )


def refuse_place(home: Home, bundle: Bundle) -> None:
    """Raise Refused where nothing can be installed, or where it would touch what is somebody else's."""
    path = home.path
    if bad := _bad_path(str(path)):
        raise Refused(
            f"{str(path)!a}: has {bad} in its path, which a Python environment cannot have. Name another with --to."
        )
    if bundle.path in (path, *path.parents):
        raise Refused(
            f"{path}: lies in the bundle itself, which would be broken by it. Name another place with --to."
        )
    if not os.path.lexists(path):
        return
    if not path.is_dir():
        raise Refused(f"{path}: is not a folder. Name a new or an empty one with --to.")
    if home.mark() is None and (others := [n for n in _others(path) if n not in _NEIGHBOURS]):
        shown = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        raise Refused(
            f"{path}: holds other files ({shown}) and no installation of pulse-edge. Nothing was touched. Name a new or "
            "an empty folder with --to."
        )
    status = path.stat()
    if os.name == "posix" and status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        raise Refused(
            f"{path}: everybody may write there, and so change the program. Forbid that (chmod o-w), or name another "
            "place with --to."
        )


def _bad_path(text: str) -> str | None:
    """What a path holds that a virtual environment or a shell script cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "bytes that are not UTF-8"
    if any(ord(c) < 32 or ord(c) == 127 for c in text):
        return "a line break or another control character"
    return f"a {os.pathsep!r}" if os.pathsep in text else None


def default_home(*, user_only: bool = False) -> Path:
    """For everybody when an administrator installs, else for this user."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local") / "pulse-edge"
    if os.geteuid() == 0 and not user_only:
        return Path("/opt/pulse-edge")
    if sys.platform == "darwin":
        return Path.home() / "Library/Application Support/pulse-edge"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "pulse-edge"


def write_whole(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a small file so that it is there with all its bytes, or as it was before."""
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.chmod(name, mode)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


@contextlib.contextmanager
def locked(home: Home) -> Iterator[None]:
    """One installer at a time; the system gives the lock back when the process and its children are gone."""
    path = home.path / ".lock"
    for attempt in range(_LOCK_SECONDS + 1):
        if attempt:
            time.sleep(1)
        with open(path, "a+b") as f:
            os.set_inheritable(f.fileno(), True)  # pip of a killed installer goes on for a while
            if _taken(f.fileno(), path):
                yield
                return
    raise Refused(f"{home.path}: another installer is at work there. Wait for it to end.")


def _taken(fd: int, path: Path) -> bool:
    """Whether the lock is ours now, and still the one that others would find."""
    try:
        _lock(fd)
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except OSError:
        return False


def _lock(fd: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


# --- installing -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wishes:
    """What the person asked for."""

    to: Path
    key: PublicKey | None = None
    accept: tuple[str, ...] = ()
    """Words of --accept: `unsigned`, `older`, `little-memory`, or the id of a key."""


def install(
    bundle: Bundle,
    wishes: Wishes,
    progress: Progress,
    say: Callable[[str], None],
    ask: Callable[[str], bool] = lambda _question: False,
) -> Path:
    """Install the bundle's program and kits, prove them, and make them the version in use; its folder.

    An interrupted run is continued by the next. Raises Refused; the version in use before is then still in use.
    """
    home = Home(wishes.to)
    refuse_place(home, bundle)
    target = _target(bundle)
    trust = judged(bundle, home.pinned(), key=wishes.key, accept=list(wishes.accept))
    _agree(bundle, trust, wishes, say, ask)
    refuse_broken(bundle, shape_faults(bundle))
    big = {p for kit in bundle.kits.values() for f in kit["files"].values() for p in f["pieces"]}
    refuse_broken(
        bundle, content_faults(bundle, [n for n in bundle.files if n not in big], progress)
    )
    installer = checked_bytes(bundle, "install.py")
    _check_memory(bundle, wishes)
    found = home.path.is_dir()
    home.path.mkdir(parents=True, exist_ok=True)
    with locked(home):
        refuse_place(home, bundle)  # once more: another installer may have been at work
        _refuse_older(bundle, home, wishes)
        if (mark := home.mark()) is None:
            mark = {"id": secrets.token_hex(16)}
            _write_mark(home.path, _HOME, mark["id"], made_by="others" if found else "installer")
        folder = home.version(bundle.version)
        if bundle.version not in home.complete():
            _begin(folder, mark["id"])
            try:
                _check_disk(bundle, target, home)
                _bring(bundle, target, home, folder, progress)
                _program(bundle, target, folder, say)
                _prove(folder, list(bundle.kits), say)
                _complete(bundle, trust, home, say)
            except Refused:
                _remove(folder)
                _leave_if_empty(home)
                raise
        before = home.current()
        _switch(home, bundle, trust, installer)
        keep = (
            set(home.complete()) if before in (None, bundle.version) else {before, bundle.version}
        )
        for other in home.ours():  # unfinished ones too
            if other.name not in keep:
                _remove(other)
    return folder


def _agree(
    bundle: Bundle,
    trust: Trust,
    wishes: Wishes,
    say: Callable[[str], None],
    ask: Callable[[str], bool],
) -> None:
    """Say who vouches for the bundle; the first key that is to be trusted here needs a yes. Raises Refused."""
    if trust.warning or trust.key is None:
        say(f"warning: {trust.warning}")
        return
    say(f"signed by key {trust.key.id}")
    if not trust.first or wishes.key is not None or trust.key.id in wishes.accept:
        return
    question = (
        "No key is trusted here yet. Compare this number with the one that the bundle's maker gave you by another way "
        "(on paper, by telephone).\nTrust this key from now on, and install? yes or no:"
    )
    if not ask(question):
        raise Refused(
            f"{bundle.path / SIGNATURE}: by key {trust.key.id}, which is not trusted here yet. Nothing was installed. Compare "
            f"the number with the one that its maker gave you; --accept {trust.key.id} then installs it without a question."
        )


def _refuse_older(bundle: Bundle, home: Home, wishes: Wishes) -> None:
    """Raise Refused where the version in use is newer: an old bundle, signed long ago, brings old faults back."""
    if (name := home.current()) is None or name == bundle.version or "older" in wishes.accept:
        return
    current = open_bundle(home.version(name))
    ours, theirs = version_order(current.program), version_order(bundle.program)
    if (theirs, bundle.created) >= (ours, current.created):
        return
    raise Refused(
        f"{bundle.path}: has pulse-edge {bundle.program} with kits of {bundle.created:%Y-%m-%d}, and in use is the newer "
        f"{current.program} with kits of {current.created:%Y-%m-%d}. Nothing was changed. --rollback goes back to the version "
        "before; --accept older installs this one all the same."
    )


def _begin(folder: Path, number: str) -> None:
    """Make a version's folder with its mark, or go on with one. Raises Refused for somebody else's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    if (read_mark(folder, _VERSION) or {}).get("id") == number:
        return
    if folder.is_symlink() or _others(folder):
        raise Refused(
            f"{folder}: was not made by this installation. Nothing was touched. Move it away, and try again."
        )
    _write_mark(folder, _VERSION, number)


def _target(bundle: Bundle) -> dict[str, Any]:
    """The bundle's wheels for this machine and this Python."""
    here, python = this_platform(), f"{sys.version_info[0]}.{sys.version_info[1]}"
    for target in bundle.targets:
        if (target["platform"], target["python"]) == (here, python):
            name, version = platform.libc_ver()
            have = [int(part) for part in version.split(".")[:2]] if name == "glibc" else [0, 0]
            if target["glibc"] and have < target["glibc"]:
                wanted = ".".join(map(str, target["glibc"]))
                raise Refused(
                    f"{here}: needs glibc {wanted}, and this system has {version or 'none'}. Use a newer system."
                )
            return target
    carried = ", ".join(f"{t['platform']} with Python {t['python']}" for t in bundle.targets)
    raise Refused(
        f"{bundle.path}: made for {carried}; this is {here} with Python {python}. Ask for a bundle made for it."
    )


def this_platform() -> str:
    """Such as linux-x86_64."""
    machine = platform.machine().lower()
    system = {"win32": "windows", "darwin": "macos"}.get(sys.platform, "linux")
    names = {"amd64": "x86_64", "arm64": "aarch64"} if system != "macos" else {}
    return f"{system}-{names.get(machine, machine)}"


def _check_disk(bundle: Bundle, target: dict[str, Any], home: Home) -> None:
    kits = sum(f["bytes"] for kit in bundle.kits.values() for f in kit["files"].values())
    wheels = sum(
        bundle.files[f"wheels/{n}"][0] for n in target["wheels"] if f"wheels/{n}" in bundle.files
    )
    needed, free = (
        kits + wheels + target["unpacked"] + _SPARE_BYTES,
        shutil.disk_usage(home.path).free,
    )
    have = sum(p.stat().st_size for p in home.version(bundle.version).rglob("*") if p.is_file())
    if needed > free + have:
        raise Refused(
            f"{home.path}: needs {needed / 2**30:.1f} GiB of disk, and {(free + have) / 2**30:.1f} GiB are free. Free "
            "some, or name another place with --to."
        )


def _check_memory(bundle: Bundle, wishes: Wishes) -> None:
    have = installed_memory()
    least = min((kit["memory"] for kit in bundle.kits.values()), default=0)
    if have is not None and least > have and "little-memory" not in wishes.accept:
        raise Refused(
            f"{bundle.path}: its smallest kit needs {least / 2**30:.1f} GiB of memory, and this machine has "
            f"{have / 2**30:.1f} GiB. Use a smaller kit; --accept little-memory installs it all the same."
        )


def installed_memory() -> int | None:
    """Bytes of memory that this machine has; None where the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _bring(
    bundle: Bundle, target: dict[str, Any], home: Home, folder: Path, progress: Progress
) -> None:
    """Copy wheels and kits into the version's folder, checking every byte on its way."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / BUNDLE, bundle.data)
    jobs = [
        (
            folder / "wheels" / name,
            [f"wheels/{name}"] if f"wheels/{name}" in bundle.files else [],
            -1,
            sha256,
        )
        for name, sha256 in target["wheels"].items()
    ]
    for kit, about in bundle.kits.items():
        for name, file in about["files"].items():
            jobs.append(
                (folder / "kits" / kit / name, file["pieces"], file["bytes"], file["sha256"])
            )
    total = sum(bundle.files[p][0] for _, pieces, _, _ in jobs for p in pieces)
    done = 0
    faults: list[str] = []

    def step(piece: int) -> None:
        nonlocal done
        done += piece
        progress("copy", done, total)

    present = _Present(home)
    for path, pieces, size, sha256 in jobs:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file() and size in (-1, path.stat().st_size) and sha256_of(path) == sha256:
            step(sum(bundle.files[p][0] for p in pieces))
        elif pieces:
            faults += _joined(bundle, pieces, path, sha256, step)
        elif (source := present.find(path.suffix, size, sha256)) is not None:
            _link(source, path)
        else:
            faults.append(
                f"{path.name}: not carried by this bundle, and not installed here. Use the whole bundle"
            )
    refuse_broken(bundle, faults)
    _keep_other_kits(bundle, home, folder)


def _joined(
    bundle: Bundle, pieces: list[str], path: Path, sha256: str, step: Callable[[int], None]
) -> list[str]:
    """Write a file from its pieces on the bundle; faults of the pieces."""
    part, faults = path.with_name(path.name + ".part"), []
    whole = hashlib.sha256()
    with open(part, "wb", buffering=0) as out:
        for name in pieces:
            digest = hashlib.sha256()
            with open(bundle.path / name, "rb", buffering=0) as f:
                while piece := f.read(_READ_BYTES):
                    digest.update(piece)
                    if len(pieces) > 1:
                        whole.update(piece)
                    out.write(piece)
                    step(len(piece))
            if digest.hexdigest() != bundle.files[name][1]:
                faults.append(f"{name}: altered")
        os.fsync(out.fileno())
    if not faults and sha256 != (
        whole.hexdigest() if len(pieces) > 1 else bundle.files[pieces[0]][1]
    ):
        faults.append(f"{path.name}: its pieces are not the file that the manifest names")
    if not faults:
        os.replace(part, path)
    return faults


class _Present:
    """What installed versions hold, by content: a file may have another name than on the bundle."""

    def __init__(self, home: Home) -> None:
        folders = [
            home.version(name) / inside for name in home.complete() for inside in ("wheels", "kits")
        ]
        self._files = [
            p for folder in folders for p in folder.rglob("*") if p.is_file() and not p.is_symlink()
        ]
        self._hashes: dict[Path, str] = {}

    def find(self, suffix: str, size: int, sha256: str) -> Path | None:
        """A file with this hash; `size` -1: not known, and then its name ends in `suffix`."""
        for path in self._files:
            if path.stat().st_size == size if size >= 0 else path.suffix == suffix:
                if path not in self._hashes:
                    self._hashes[path] = sha256_of(path)
                if self._hashes[path] == sha256:
                    return path
        return None


def _link(source: Path, path: Path) -> None:
    """The same bytes under another name: no copy where the file system can do it."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    try:
        os.link(source, path)
    except OSError:
        part = path.with_name(path.name + ".part")
        shutil.copyfile(source, part)
        os.replace(part, path)


def _keep_other_kits(bundle: Bundle, home: Home, folder: Path) -> None:
    """Kits of the version in use that this bundle does not bring stay beside the new ones, and so do results of self-tests:
    a kit that was refused on this machine is refused after an update too (pulse_edge.machine.self_test_results).
    """
    if (name := home.current()) is None or name == bundle.version:
        return
    before = home.version(name)
    for source in [kit for kit in _kits_of(before) if kit.name not in bundle.kits] + [
        before / "self-tests"
    ]:
        for file in (p for p in source.rglob("*") if p.is_file()):
            path = folder / file.relative_to(before)
            path.parent.mkdir(parents=True, exist_ok=True)
            _link(file, path)


def _kits_of(folder: Path) -> list[Path]:
    """The folders of a version's kits."""
    return sorted(p for p in (folder / "kits").glob("*") if p.is_dir())


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as f:
        while piece := f.read(_READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def archive_faults(path: Path) -> list[str]:
    """What must not be unpacked from a wheel: paths outside, links, devices, doubles, bombs; one line each."""
    faults = []
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError) as e:
        return [f"{path.name}: not a wheel ({e})"]
    for entry in entries:
        kind = stat.S_IFMT(entry.external_attr >> 16)
        pure = PurePosixPath(entry.filename)
        if pure.is_absolute() or ".." in pure.parts or re.search(r"[\\:\x00]", entry.filename):
            faults.append(f"{path.name}: {entry.filename!r} would leave its folder")
        elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            faults.append(f"{path.name}: {entry.filename!r} is a link or a device")
    if len({e.filename.casefold() for e in entries}) != len(entries):
        faults.append(f"{path.name}: holds two files of one name")
    if sum(e.file_size for e in entries) > _UNPACKED_BYTES:
        faults.append(f"{path.name}: would unpack to more than {_UNPACKED_BYTES >> 30} GiB")
    return faults


def _program(
    bundle: Bundle, target: dict[str, Any], folder: Path, say: Callable[[str], None]
) -> None:
    """Make the version's virtual environment, from its wheels alone."""
    wheels = [folder / "wheels" / name for name in target["wheels"]]
    refuse_broken(bundle, [fault for wheel in wheels for fault in archive_faults(wheel)])
    ready = folder / "venv" / "ready"
    if ready.exists():
        return
    say("installing the program")
    venv.EnvBuilder(clear=True, symlinks=os.name == "posix").create(folder / "venv")
    pip = next(
        w for w in wheels if w.name.startswith("pip-")
    )  # Debian's Python has no ensurepip: pip runs from its wheel
    options = [
        "--no-index",
        "--no-deps",
        "--no-cache-dir",
        "--no-input",
        "--disable-pip-version-check",
        "--quiet",
    ]
    names = [
        f"wheels/{w.name}" for w in wheels if w != pip
    ]  # below the folder: a ";" in its path would begin a marker
    # pip asks the rustc of the search path for its version, which may write into the home folder.
    path = str(python_of(folder).parent)
    _run(folder, [str(pip / "pip"), "--isolated", "install", *options, *names], "pip", PATH=path)
    ready.touch()


def python_of(folder: Path) -> Path:
    """The Python of a version's virtual environment."""
    return folder / "venv" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


_LEFT_OUT = (
    "PYTHON",
    "PIP_",
    "XDG_CONFIG_",
    "PULSE_EDGE",
    "LD_",
    "DYLD_",
    "VIRTUAL_ENV",
    "GGML_",
    "LLAMA_",
    "OPENSSL_",
)
"""Beginnings of variables that make Python, pip, the loader or an engine read code or settings from elsewhere."""


def _run(folder: Path, arguments: list[str], what: str, **more: str) -> str:
    """Run a version's Python in isolated mode, without anything that this shell has set for Python or pip; its output."""
    variables = {k: v for k, v in os.environ.items() if not k.startswith(_LEFT_OUT)}
    # ONNX Runtime posts to its maker unless this is set before its import; and pip's --isolated reads the settings of
    # the machine all the same.
    variables |= {"ORT_DISABLE_TELEMETRY": "1", "PIP_CONFIG_FILE": os.devnull, **more}
    done = subprocess.run(
        [str(python_of(folder)), "-I", "-B", *arguments],
        env=variables,
        cwd=folder,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        stdin=subprocess.DEVNULL,
        close_fds=False,
    )
    if done.returncode:
        last = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()][-3:]
        raise Refused(
            *last,
            f"{what}: failed ({done.returncode}). Nothing was changed. Mend that, and run install.py again.",
        )
    return done.stdout


def _prove(folder: Path, kits: list[str], say: Callable[[str], None]) -> None:
    """What must pass before a version is used: every byte of every kit, and each new one's golden cases.

    `doctor` reads a page either way, keeps this machine's speed, and says so where a kit has no golden cases.
    """
    program = ["-m", "pulse_edge"]
    for kit in _kits_of(folder):
        if kit.name not in kits:
            say(f"verifying {kit.name}")
            _run(folder, [*program, "kit", "verify", str(kit)], f"verifying {kit.name}")
            continue
        say(f"verifying {kit.name}, and reading pages with it (minutes on a slow machine)")
        told = _run(folder, [*program, "doctor", "--kit", str(kit)], f"reading with {kit.name}")
        for line in told.splitlines():
            if "golden cases" in line:
                say(f"{kit.name}: {' '.join(line.split())}")


def _complete(bundle: Bundle, trust: Trust, home: Home, say: Callable[[str], None]) -> None:
    """Choose the kit that answers when none is named, and write install.json, the last file of a version: what it is, and what
    answers must say of the program and kits.
    """
    folder = home.version(bundle.version)
    kits = {kit.name: trust.warning for kit in _kits_of(folder)}
    current = home.current()
    if current is not None:
        earlier = json.loads((home.version(current) / INSTALLED).read_text("utf-8"))["kits"]
        kits |= {
            name: trust.warning or warning
            for name, warning in earlier.items()
            if name not in bundle.kits
        }
    if (
        default := _default(
            bundle, None if current is None else home.version(current), list(kits), say
        )
    ) is not None:
        write_default(folder, default)
    key = None if trust.key is None else trust.key.id
    about = {"program": bundle.program, "key": key, "warning": trust.warning, "kits": kits}
    write_whole(folder / INSTALLED, json.dumps(about, indent=1).encode() + b"\n")


@dataclass(frozen=True)
class DefaultKit:
    """Which kit answers when none is named."""

    kit: str
    """Name of its folder."""
    chosen: bool
    """By a person, so that an update leaves it."""


def read_default(folder: Path) -> DefaultKit | None:
    """The choice beside a folder of kits; None where there is none. Raises ValueError for a file that is no choice."""
    try:
        raw = json.loads((folder / DEFAULT_KIT).read_text("utf-8"))
    except FileNotFoundError:
        return None
    if (
        not isinstance(raw, dict)
        or raw.get("format") != _DEFAULT_FORMAT
        or not isinstance(raw.get("kit"), str)
    ):
        raise ValueError("not the choice of a kit")
    return DefaultKit(raw["kit"], raw.get("chosen") is True)


def write_default(folder: Path, default: DefaultKit) -> None:
    """Replace the choice beside a folder of kits."""
    about = {"format": _DEFAULT_FORMAT, "kit": default.kit, "chosen": default.chosen}
    write_whole(folder / DEFAULT_KIT, json.dumps(about).encode() + b"\n")


def _default(
    bundle: Bundle, before: Path | None, kits: list[str], say: Callable[[str], None]
) -> DefaultKit | None:
    """What the person chose before, else the bundle's own, or one of it that needs less memory than this machine has."""
    earlier = None
    if before is not None:
        with contextlib.suppress(
            OSError, ValueError
        ):  # broken: the bundle's own then, and it is said
            earlier = read_default(before)
    if earlier is not None and earlier.kit in kits and (earlier.chosen or bundle.default is None):
        default = earlier
    elif bundle.default is not None:
        default = DefaultKit(_fitting(bundle, bundle.default, say), chosen=False)
    else:
        return None
    if len(kits) > 1:
        how = ", as you chose" if default.chosen else ""
        say(
            f"kits: {', '.join(sorted(kits))}. {default.kit} answers{how}; `pulse-edge kit use NAME` chooses another"
        )
    return default


def _fitting(bundle: Bundle, first: str, say: Callable[[str], None]) -> str:
    """The first kit, or where it is too large for this machine the next that is not, or the smallest."""
    have = installed_memory()
    if have is None or bundle.kits[first]["memory"] <= have:
        return first
    fits = [name for name, kit in bundle.kits.items() if kit["memory"] <= have]
    other = fits[0] if fits else min(bundle.kits, key=lambda name: int(bundle.kits[name]["memory"]))
    if other != first:
        needed = bundle.kits[first]["memory"] / 2**30
        say(
            f"{first} needs {needed:.1f} GiB of memory, and this machine has {have / 2**30:.1f} GiB"
        )
    return other


_LAUNCHER = """#!/bin/sh
here=$(dirname -- "$(readlink -f -- "$0")")
export ORT_DISABLE_TELEMETRY=1
exec "$here/versions/$(cat "$here/current")/venv/bin/python" -I -m pulse_edge "$@"
"""
_LAUNCHER_CMD = (
    '@setlocal\r\n@set ORT_DISABLE_TELEMETRY=1\r\n@set /p VERSION=<"%~dp0current"\r\n'
    '@"%~dp0versions\\%VERSION%\\venv\\Scripts\\python.exe" -I -m pulse_edge %*\r\n'
)


def launcher(home: Home) -> Path:
    """The command that runs the version in use."""
    return home.path / ("pulse-edge.cmd" if sys.platform == "win32" else "pulse-edge")


def _switch(home: Home, bundle: Bundle, trust: Trust, installer: bytes) -> None:
    """Make the version that has passed the one in use. `current` is the one pointer, and written last."""
    keys = home.pinned()
    if trust.key is not None and trust.pinned and trust.key not in keys:
        write_whole(
            home.path / "trusted.pub", "".join(k.text() for k in [*keys, trust.key]).encode()
        )
    text = _LAUNCHER_CMD if sys.platform == "win32" else _LAUNCHER
    write_whole(launcher(home), text.encode(), mode=0o755)
    write_whole(home.path / "install.py", installer)
    write_whole(home.path / "current", f"{bundle.version}\n".encode())
    link = _shell_link(home)
    if link is not None and not os.path.lexists(link):
        with contextlib.suppress(OSError):  # a convenience: the launcher's own path always works
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(launcher(home))


def _shell_link(home: Home) -> Path | None:
    """Where shells look for commands; None when the person chose the place, which then holds everything."""
    if sys.platform == "win32" or home.path not in (default_home(), default_home(user_only=True)):
        return None
    return (
        Path("/usr/local/bin/pulse-edge")
        if home.path == Path("/opt/pulse-edge")
        else Path.home() / ".local/bin/pulse-edge"
    )


# --- going back, and leaving ------------------------------------------------------------------------------------------


def rollback(home: Home) -> str:
    """Make the version before the one in use; its name. Raises Refused when there is none."""
    _refuse_foreign(home)
    with locked(home):
        current = home.current()
        others = [name for name in home.complete() if name != current]
        if not others:
            raise Refused(f"{home.path}: there is no earlier version to go back to.")
        write_whole(home.path / "current", f"{others[0]}\n".encode())
    return others[0]


def _refuse_foreign(home: Home) -> None:
    if home.mark() is None:
        raise Refused(
            f"{home.path}: nothing is installed there. Nothing was touched. Name the place with --to."
        )


def uninstall(home: Home) -> list[Path]:
    """Remove everything that installations put there, and nothing else; what stays there because it is somebody else's.

    Raises Refused where nothing was installed.
    """
    _refuse_foreign(home)
    link = _shell_link(home)
    if link is not None and link.is_symlink() and Path(os.readlink(link)) == launcher(home):
        link.unlink()
    with locked(home):
        (home.path / "current").unlink(
            missing_ok=True
        )  # first: what is half removed is not to be run
        for version in home.ours():
            _remove(version)
        if stuck := home.ours():
            raise Refused(
                f"{stuck[0]}: could not be removed. Close what still uses it, and uninstall again."
            )
        for name in ("current", launcher(home).name, "trusted.pub", "install.py"):
            for path in [
                home.path / name,
                *home.path.glob(f".{name}.*"),
            ]:  # the second: of a killed `write_whole`
                path.unlink(missing_ok=True)
        _leave_if_empty(home)
    if not home.path.is_dir():
        return []
    return [
        p
        for p in sorted([*home.path.iterdir(), *home.path.glob("versions/*")])
        if p.name != "versions"
    ]


def _leave_if_empty(home: Home) -> None:
    """Take the mark away when nothing is installed any more, and the folder where an installer made it and it is empty."""
    mark = home.mark()
    if mark is None or home.ours() or (home.path / "current").exists():
        return
    for folder in home.path.glob("versions/*"):
        if folder.is_dir() and not folder.is_symlink() and not _others(folder):
            _remove(folder)  # of an installer that was killed before it had marked it
    with contextlib.suppress(OSError):
        (home.path / "versions").rmdir()
    for path in [*home.path.glob(f".{MARK}.*"), home.path / MARK, home.path / ".lock"]:
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        if mark.get("made_by") == "installer":
            home.path.rmdir()


def _remove(folder: Path) -> None:
    """Remove a version: install.json first, so that what is half removed does not count as a version, and the mark last.

    A folder without a mark is left alone, unless it is empty.
    """
    if folder.is_symlink() or (read_mark(folder, _VERSION) is None and _others(folder)):
        return  # somebody else's
    (folder / INSTALLED).unlink(missing_ok=True)
    for path in folder.iterdir():
        if path.name == MARK:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()
    with contextlib.suppress(OSError):
        if [p.name for p in folder.iterdir()] == [MARK]:
            (folder / MARK).unlink()
        folder.rmdir()


# --- what the program has written for this user -----------------------------------------------------------------------


@dataclass(frozen=True)
class Trace:
    """A folder outside the installation that the program has written to for this user."""

    path: Path
    kind: str | None
    """As its mark says; None: without a mark, so that it is not removed."""

    @property
    def is_log(self) -> bool:
        """Whether it is an audit log, which rules may require to keep."""
        return self.kind == "audit-log" or (self.kind is None and self.path == _user_folders()[1])

    def __str__(self) -> str:
        what = (
            "audit log: what was answered and when"
            if self.is_log
            else (self.kind or "cache").replace("-", " ")
        )
        return f"{self.path} ({what})"


def _user_folders() -> tuple[Path, Path]:
    """The cache and the audit log of this user, as pulse_edge.kit.kit and pulse_edge.audit_log.log have them."""
    if sys.platform == "win32":
        local = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local") / "pulse-edge"
        return local / "cache", local / "audit-log"
    if sys.platform == "darwin":
        library = Path.home() / "Library"
        return library / "Caches/pulse-edge", library / "Application Support/pulse-edge/audit-log"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state")
    return cache / "pulse-edge", state / "pulse-edge/audit-log"


def traces() -> list[Trace]:
    """What the program has written for this user: folders with a mark, and the usual places where they have none."""
    cache, log = _user_folders()
    named = [
        Path(os.environ[name])
        for name in ("PULSE_EDGE_CACHE", "PULSE_EDGE_AUDIT_LOG")
        if os.environ.get(name)
    ]
    state = Path(os.environ.get("PULSE_EDGE_STATE") or log.parent)
    places = [cache, *_folders(cache), *_folders(log.parent), *_folders(state), *named]
    found: dict[Path, Trace] = {}
    for path in places:
        kind = _kind(path)
        if kind not in (None, _HOME, _VERSION):
            found[path.resolve()] = Trace(path, kind)
    for path in (cache, log):
        if path.is_dir() and not any(path.resolve() in (p, *p.parents) for p in found):
            found[path.resolve()] = Trace(path, None)
    return list(found.values())


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("*") if p.is_dir() and not p.is_symlink())


def _kind(folder: Path) -> str | None:
    """The kind of a folder's mark."""
    try:
        kind = json.loads((folder / MARK).read_bytes())["kind"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return kind if isinstance(kind, str) and read_mark(folder, kind) else None


_WRITTEN = re.compile(
    r"entries\.log|lock|head(\.new)?|verified.*|[0-9a-f]{16,64}(-[0-9a-f]{16,64})?\.(tokens|kv|json|png)(\.new)?"
    rf"|\.unfinished-.+|tmp.{{8}}|\.{re.escape(MARK)}.+"
)
"""Files that the program writes into its folders; what else lies there is somebody else's."""


def remove_trace(trace: Trace) -> list[Path]:
    """Remove what the program has written into a folder with a mark, and the folder; what stays."""
    if trace.kind is None or read_mark(trace.path, trace.kind) is None:
        return [trace.path]
    for folder, folders, names in os.walk(trace.path, topdown=False):
        for name in names:
            if _WRITTEN.fullmatch(name):
                os.unlink(os.path.join(folder, name))
        for name in folders:
            with contextlib.suppress(OSError):  # holds what is not ours
                os.rmdir(os.path.join(folder, name))
    others = sorted(p for p in trace.path.iterdir() if p.name != MARK)
    if not others:
        (trace.path / MARK).unlink()
        with contextlib.suppress(OSError):
            trace.path.rmdir()
            trace.path.parent.rmdir()
    return others


# --- the command ------------------------------------------------------------------------------------------------------


class _Bar:
    """Percent and time left, on a terminal."""

    def __init__(self) -> None:
        self._stage, self._start = "", 0.0

    def __call__(self, stage: str, done: int, of: int) -> None:
        if not sys.stderr.isatty():
            return
        if stage != self._stage:
            self._stage, self._start = stage, time.monotonic()
        left = (time.monotonic() - self._start) * (of - done) / max(done, 1)
        print(
            f"\r{stage} {100 * done // max(of, 1):3d} %, {left:5.0f} s left ",
            end="",
            file=sys.stderr,
            flush=True,
        )
        if done >= of:
            print(file=sys.stderr)


def _say(text: str) -> None:
    print(visible(text), file=sys.stderr, flush=True)


def _ask(question: str) -> bool:
    """Whether the person says yes; no answer is a no."""
    print(question, end=" ", file=sys.stderr, flush=True)
    try:
        answer = sys.stdin.readline() if sys.stdin else ""
    except (OSError, ValueError):
        answer = ""
    if not answer.endswith("\n"):
        print(file=sys.stderr)
    return answer.strip().casefold() in ("yes", "y")


_WORDS = ("unsigned", "older", "little-memory")


def _word(text: str) -> str:
    """A word of --accept; a mistyped one is not passed over."""
    if text in _WORDS:
        return text
    if re.fullmatch("[0-9A-Fa-f]{16}", text):
        return text.upper()
    raise argparse.ArgumentTypeError(
        f"{text!r} is neither {', '.join(_WORDS)} nor the id of a key (16 digits)"
    )


def _folder(text: str) -> Path:
    """A folder named on the command line. `--to "$UNSET"` does not mean the current one."""
    try:
        if text:
            return Path(text).expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as e:
        raise argparse.ArgumentTypeError(f"{text!a} is no folder: {e}") from None
    raise argparse.ArgumentTypeError("no folder is named")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Install pulse-edge from this bundle, without a network."
    )
    parser.add_argument(
        "--to", type=_folder, metavar="DIR", help="where to; default: the usual place"
    )
    parser.add_argument(
        "--user-only",
        action="store_true",
        help="for this user, also when an administrator installs",
    )
    parser.add_argument(
        "--key", type=Path, metavar="FILE", help="the minisign public key that must have signed it"
    )
    parser.add_argument(
        "--accept",
        action="append",
        default=[],
        type=_word,
        metavar="WORD",
        help="the id of a key that is not trusted here yet, unsigned, older, or little-memory",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--rollback", action="store_true", help="go back to the version before")
    what.add_argument(
        "--uninstall", action="store_true", help="remove everything that was installed"
    )
    parser.add_argument(
        "--remove-cache",
        action="store_true",
        help="with --uninstall: remove this user's caches and results of self-tests too",
    )
    parser.add_argument(
        "--remove-log",
        action="store_true",
        help="with --uninstall: remove this user's audit log too",
    )
    options = parser.parse_args()
    if (options.remove_cache or options.remove_log) and not options.uninstall:
        parser.error("--remove-cache and --remove-log go with --uninstall")
    return options


def _uninstall(home: Home, *, cache: bool, log: bool) -> None:
    """Uninstall, and say what stays; what the program has written for this user goes where that was asked for."""
    if home.mark() is not None or not (cache or log):
        others = uninstall(home)
        print(f"{home.path}: uninstalled")
        for path in others:
            _say(f"left: {path} (not made by the installer)")
    for trace in traces():
        wanted = log if trace.is_log else cache
        if trace.kind is not None and not wanted and sys.stdin and sys.stdin.isatty():
            wanted = _ask(f"{trace}: remove it too? yes or no:")
        left = remove_trace(trace) if wanted else [trace.path]
        if not left:
            print(f"removed: {trace}")
        elif not wanted:
            option = "--remove-log" if trace.is_log else "--remove-cache"
            how = (
                f"--uninstall {option} removes it"
                if trace.kind
                else "Remove it yourself if nobody needs it"
            )
            _say(f"left: {trace}. {how}")
        else:
            _say(
                f"left: {', '.join(map(str, left))} (without a mark of pulse-edge, or not written by it)"
            )
    if home.path == Path("/opt/pulse-edge"):
        _say(
            "Others who have used it have a cache and an audit log of their own in their home folders."
        )


def _quoted(path: Path) -> str:
    """A command's path as a shell takes it."""
    return f'& "{path}"' if sys.platform == "win32" and " " in str(path) else shlex.quote(str(path))


def main() -> int:
    """Entry point; 0 done, 1 refused or failed, 2 wrong usage, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # names of any bytes can be said
    options = _arguments()
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.default_int_handler)
    os.umask(
        0o022
    )  # an installation is for everybody to read and for its owner to change, whatever the shell says
    home = Home(options.to or default_home(user_only=options.user_only).expanduser().resolve())
    try:
        if sys.version_info < (3, 10):  # noqa: UP036 (whoever has an older one never saw pyproject.toml)
            raise Refused(
                f"Python {platform.python_version()}: too old. Run install.py with Python 3.10 or newer."
            )
        if options.rollback:
            print(f"in use now: {rollback(home)}")
        elif options.uninstall:
            _uninstall(home, cache=options.remove_cache, log=options.remove_log)
        else:
            key = options.key and read_public_key(
                _read(options.key).decode("utf-8", "replace"), str(options.key)
            )
            wishes = Wishes(home.path, key, tuple(options.accept))
            install(open_bundle(Path(__file__).resolve().parent), wishes, _Bar(), _say, _ask)
            print(f"installed. Read a page: {_quoted(launcher(home))} interpret scan.jpg")
    except Refused as e:
        print(*(f"error: {line}" for line in e.lines), sep="\n", file=sys.stderr)
        return e.exit_code
    except KeyboardInterrupt:
        print("interrupted. Run install.py again: it goes on from here.", file=sys.stderr)
        return 130
    except OSError as e:
        print(
            f"error: {e.filename or home.path}: {e.strerror}. Mend that, and run install.py again.",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
