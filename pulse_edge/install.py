"""Install pulse-edge and its kits from a stick, offline: `python3 install.py`. Python 3.10 up, standard library only.

    python3 install.py [--to DIR] [--user-only] [--key FILE] [--accept WORD]... | --rollback | --uninstall

A stick holds `stick.json`, which lists every other file with its sha256, and `stick.json.minisig`, its signature. Both
are checked before anything is unpacked or imported. DIR holds one folder a version with its own virtual environment
and kits, and the file `current`, which names the version in use: it is written when the new one has passed.

This file stands alone, because it is carried on the stick; pulse-edge imports it to make, verify and undo what it does.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import unicodedata
import venv
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

STICK, SIGNATURE, PUBLIC_KEY = "stick.json", "stick.json.minisig", "stick.pub"
STICK_VERSION = 1
INSTALLED = "install.json"
_READ_BYTES = 1 << 22
_TEXT_BYTES = 32 << 20  # far above any manifest; a larger one is not read into memory
_UNPACKED_BYTES = 8 << 30
_SPARE_BYTES = 256 << 20
_LOCK_SECONDS = 60
Progress = Callable[[str, int, int], None]
"""Gets the stage, bytes done, and of how many."""


def visible(text: str) -> str:
    """Text on one line, with what a terminal would act on as escapes, as `pulse_edge.text.one_line` has it."""
    bad = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    shown = {"\n": "\\n", "\t": "\\t", "\u200c": "\u200c", "\u200d": "\u200d"}
    escapes = ((2, "x"), (4, "u"), (8, "U"))

    def escape(number: int) -> str:
        digits, letter = next(pair for pair in escapes if number < 16 ** pair[0])
        return f"\\{letter}{number:0{digits}x}"

    return "".join(shown.get(c) or (escape(ord(c)) if unicodedata.category(c) in bad else c) for c in text)


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
    return (left[0] * right[2] - right[0] * left[2]) % _P == 0 == (left[1] * right[2] - right[1] * left[2]) % _P


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
        raise Refused(f"{where}: not a minisign public key. Ask the maker of the stick for it again.")
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
    raise Refused(f"{where}: not a minisign signature. Copy the stick again.")


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


# --- the stick --------------------------------------------------------------------------------------------------------

_JUNK = re.compile(
    r"System Volume Information|\$RECYCLE\.BIN|\.Trash.*|\.fseventsd|\.Spotlight-V100|\.DS_Store|\._.*|Thumbs\.db"
    r"|desktop\.ini",
    re.IGNORECASE,
)
"""What systems leave on every stick; never read, so it does no harm."""
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def name_fits(name: str) -> bool:
    """Whether a relative path stays below its folder, and can be written on FAT32 and NTFS."""
    parts = name.split("/")
    return (
        0 < len(name) <= 180
        and not re.search(r'[\\:*?"<>|\x00-\x1f]', name)
        and all(p not in ("", ".", "..") and p[-1] not in ". " and not _RESERVED.fullmatch(p) for p in parts)
    )


@dataclass(frozen=True)
class Stick:
    """An opened stick: its folder and its manifest. What the manifest says is to be trusted after `judged`."""

    path: Path
    data: bytes
    """Of stick.json."""
    files: dict[str, tuple[int, str]]
    """Everything carried but the manifest, its signature and its key: bytes and sha256."""
    kits: dict[str, dict[str, Any]]
    """By folder name: id, memory (bytes), sha256 (of the kit's manifest), files (bytes, sha256, pieces on the stick)."""
    targets: list[dict[str, Any]]
    """platform, python, device, glibc, unpacked (bytes), wheels (name: sha256)."""
    program: str
    """pulse-edge's version."""

    @property
    def version(self) -> str:
        """Name of its folder when installed."""
        return f"{self.program}-{hashlib.sha256(self.data).hexdigest()[:12]}"


def open_stick(path: Path) -> Stick:
    """Read a stick's manifest. Raises Refused for anything that this version does not understand."""
    where = path / STICK
    data = _read(where)
    try:
        raw = json.loads(data)
        if raw["stick_version"] != STICK_VERSION:
            raise Refused(
                f"{where}: version {raw['stick_version']}, this program reads {STICK_VERSION}. Use its install.py."
            )
        files = {str(n): (int(f["bytes"]), str(f["sha256"])) for n, f in raw["files"].items()}
        stick = Stick(path, data, files, dict(raw["kits"]), list(raw["targets"]), str(raw["pulse_edge"]))
        names = [*files, *stick.kits, *(f"{k}/{n}" for k, kit in stick.kits.items() for n in kit["files"])]
        names += [wheel for target in stick.targets for wheel in target["wheels"]]
        if bad := [n for n in names if not name_fits(n)]:
            raise ValueError(f"name {bad[0]!r} is not allowed")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise Refused(f"{where}: not a stick's manifest ({type(e).__name__}: {e}). Copy the stick again.") from None
    return stick


def _read(path: Path) -> bytes:
    """A small plain file's bytes."""
    try:
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _TEXT_BYTES:
            raise Refused(f"{path}: not a plain file of a sensible size. Copy the stick again.")
        return path.read_bytes()
    except FileNotFoundError:
        raise Refused(f"{path}: missing. Name the stick's own folder, or copy the stick again.") from None


def shape_faults(stick: Stick) -> list[str]:
    """What is missing, foreign, of another size, or no plain file; one line a file. Reads no contents."""
    faults = []
    present = set()
    for folder, folders, names in os.walk(stick.path):
        here = Path(folder).relative_to(stick.path)
        top = here == Path(".")
        folders[:] = [f for f in folders if not (top and _JUNK.fullmatch(f))]
        for name in [*names, *(f for f in folders if os.path.islink(os.path.join(folder, f)))]:
            if not _JUNK.fullmatch(name):
                present.add((here / name).as_posix())
    for name in sorted(present - stick.files.keys() - {STICK, SIGNATURE, PUBLIC_KEY}):
        faults.append(f"{name}: does not belong to this stick")
    for name, (size, _sha256) in stick.files.items():
        if name not in present:
            faults.append(f"{name}: missing")
            continue
        status = os.lstat(stick.path / name)
        if not stat.S_ISREG(status.st_mode):
            faults.append(f"{name}: not a plain file")
        elif status.st_size != size:
            faults.append(f"{name}: {status.st_size} bytes instead of {size}")
    return faults


def content_faults(stick: Stick, names: list[str], progress: Progress) -> list[str]:
    """Which of these files have other bytes than the manifest says; one line a file."""
    total, done, faults = sum(stick.files[n][0] for n in names), 0, []
    for name in names:
        digest = hashlib.sha256()
        with open(stick.path / name, "rb", buffering=0) as f:
            while piece := f.read(_READ_BYTES):
                digest.update(piece)
                done += len(piece)
                progress("check", done, total)
        if digest.hexdigest() != stick.files[name][1]:
            faults.append(f"{name}: altered")
    return faults


def refuse_broken(stick: Stick, faults: list[str]) -> None:
    """Raise Refused if there are faults."""
    if faults:
        raise Refused(*faults, f"{stick.path}: {len(faults)} faults. Nothing was installed. Copy the stick again.")


# --- whom to trust ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trust:
    """Who vouches for a stick."""

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
            return "UNSIGNED STICK - NOBODY VOUCHES FOR THIS PROGRAM AND ITS KITS"
        return None if self.pinned else f"STICK SIGNED BY A KEY THAT IS NOT TRUSTED HERE ({self.key.id})"


def judged(stick: Stick, pinned: list[PublicKey], *, key: PublicKey | None = None, accept: list[str]) -> Trust:
    """Who vouches for the stick, by the pinned keys, or `key` where it was named, or the stick's own the first time.

    `accept` holds what the person has said explicitly: `unsigned`, or the id of a foreign key. Raises Refused.
    """
    known = [key] if key is not None else pinned
    if not (stick.path / SIGNATURE).exists():
        if "unsigned" not in accept:
            raise Refused(
                f"{stick.path / SIGNATURE}: missing, so nobody vouches for this stick. Ask for a signed one; "
                "--accept unsigned installs it all the same, and every answer will say so."
            )
        return Trust(None, pinned=False)
    signature = read_signature(_read(stick.path / SIGNATURE).decode("utf-8", "replace"), str(stick.path / SIGNATURE))
    own = read_public_key(_read(stick.path / PUBLIC_KEY).decode("utf-8", "replace"), str(stick.path / PUBLIC_KEY))
    for candidate in [*known, own]:
        if candidate.number == signature.number:
            if not signature.verifies(candidate, stick.data):
                raise Refused(
                    f"{stick.path / STICK}: does not agree with its signature by key {candidate.id}. Do not use it; "
                    "copy the stick again."
                )
            if candidate in known or not known:
                return Trust(candidate, pinned=True, first=not known or candidate not in pinned)
            return _foreign(stick, candidate, known, accept)
    raise Refused(f"{stick.path / PUBLIC_KEY}: not the key of the signature. Do not use it; copy the stick again.")


def _foreign(stick: Stick, key: PublicKey, known: list[PublicKey], accept: list[str]) -> Trust:
    if key.id not in accept:
        raise Refused(
            f"{stick.path / SIGNATURE}: by key {key.id}, and trusted here: {', '.join(k.id for k in known)}. Ask "
            f"who made it; --accept {key.id} installs it all the same, and every answer will say so."
        )
    return Trust(key, pinned=False)


# --- where it is installed --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Home:
    """The folder of an installation.

    `versions/NAME/{venv,kits,wheels,stick.json,install.json}`, `current`, `trusted.pub`, `pulse-edge`, `install.py`.
    A version without install.json is unfinished.
    """

    path: Path

    def version(self, name: str) -> Path:
        return self.path / "versions" / name

    def complete(self) -> list[str]:
        """Versions that have passed, newest first."""
        done = [p.parent for p in self.path.glob(f"versions/*/{INSTALLED}")]
        return [p.name for p in sorted(done, key=lambda p: (p / INSTALLED).stat().st_mtime_ns, reverse=True)]

    def current(self) -> str | None:
        """The version in use."""
        try:
            name = (self.path / "current").read_text("utf-8").strip()
        except FileNotFoundError:
            return None
        return name if name in self.complete() else None

    def pinned(self) -> list[PublicKey]:
        """The keys trusted here."""
        path = self.path / "trusted.pub"
        if not path.exists():
            return []
        lines = [line for line in path.read_text("utf-8").splitlines() if not line.startswith("untrusted comment")]
        return [read_public_key(line, str(path)) for line in lines]


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
    home.path.mkdir(parents=True, exist_ok=True)
    with open(home.path / ".lock", "a+b") as f:
        os.set_inheritable(f.fileno(), True)  # pip of a killed installer goes on for a while
        for left in range(_LOCK_SECONDS, -1, -1):
            try:
                _lock(f.fileno())
                break
            except OSError:
                if not left:
                    raise Refused(f"{home.path}: another installer is at work there. Wait for it to end.") from None
                time.sleep(1)
        yield


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


def install(stick: Stick, wishes: Wishes, progress: Progress, say: Callable[[str], None]) -> Path:
    """Install the stick's program and kits, prove them, and make them the version in use; its folder.

    An interrupted run is continued by the next. Raises Refused; the version in use before is then still in use.
    """
    home = Home(wishes.to)
    target = _target(stick)
    trust = judged(stick, home.pinned(), key=wishes.key, accept=list(wishes.accept))
    _tell_trust(trust, say)
    refuse_broken(stick, shape_faults(stick))
    big = {p for kit in stick.kits.values() for f in kit["files"].values() for p in f["pieces"]}
    refuse_broken(stick, content_faults(stick, [n for n in stick.files if n not in big], progress))
    _check_memory(stick, wishes)
    with locked(home):
        folder = home.version(stick.version)
        if stick.version not in home.complete():
            try:
                _check_disk(stick, target, home)
                _bring(stick, target, home, folder, progress)
                _program(stick, target, folder, say)
                _prove(folder, list(stick.kits), say)
                _complete(stick, trust, home)
            except Refused:
                _remove(folder)
                _leave_if_empty(home)
                raise
        before = home.current()
        _switch(home, stick, trust)
        keep = set(home.complete()) if before in (None, stick.version) else {before, stick.version}
        for other in (home.path / "versions").iterdir():  # unfinished ones too
            if other.name not in keep:
                _remove(other)
    return folder


def _tell_trust(trust: Trust, say: Callable[[str], None]) -> None:
    if trust.warning:
        say(f"warning: {trust.warning}")
    elif trust.key is not None:
        say(
            f"signed by key {trust.key.id}"
            + (", trusted here from now on: compare it with what its maker told you" if trust.first else "")
        )


def _target(stick: Stick) -> dict[str, Any]:
    """The stick's wheels for this machine and this Python."""
    here, python = this_platform(), f"{sys.version_info[0]}.{sys.version_info[1]}"
    for target in stick.targets:
        if (target["platform"], target["python"]) == (here, python):
            name, version = platform.libc_ver()
            have = [int(part) for part in version.split(".")[:2]] if name == "glibc" else [0, 0]
            if target["glibc"] and have < target["glibc"]:
                wanted = ".".join(map(str, target["glibc"]))
                raise Refused(
                    f"{here}: needs glibc {wanted}, and this system has {version or 'none'}. Use a newer system."
                )
            return target
    carried = ", ".join(f"{t['platform']} with Python {t['python']}" for t in stick.targets)
    raise Refused(
        f"{stick.path}: made for {carried}; this is {here} with Python {python}. Ask for a stick made for it."
    )


def this_platform() -> str:
    """Such as linux-x86_64."""
    machine = platform.machine().lower()
    system = {"win32": "windows", "darwin": "macos"}.get(sys.platform, "linux")
    names = {"amd64": "x86_64", "arm64": "aarch64"} if system != "macos" else {}
    return f"{system}-{names.get(machine, machine)}"


def _check_disk(stick: Stick, target: dict[str, Any], home: Home) -> None:
    kits = sum(f["bytes"] for kit in stick.kits.values() for f in kit["files"].values())
    wheels = sum(stick.files[f"wheels/{n}"][0] for n in target["wheels"] if f"wheels/{n}" in stick.files)
    needed, free = kits + wheels + target["unpacked"] + _SPARE_BYTES, shutil.disk_usage(home.path).free
    have = sum(p.stat().st_size for p in home.version(stick.version).rglob("*") if p.is_file())
    if needed > free + have:
        raise Refused(
            f"{home.path}: needs {needed / 2**30:.1f} GiB of disk, and {(free + have) / 2**30:.1f} GiB are free. Free "
            "some, or name another place with --to."
        )


def _check_memory(stick: Stick, wishes: Wishes) -> None:
    have = installed_memory()
    least = min((kit["memory"] for kit in stick.kits.values()), default=0)
    if have is not None and least > have and "little-memory" not in wishes.accept:
        raise Refused(
            f"{stick.path}: its smallest kit needs {least / 2**30:.1f} GiB of memory, and this machine has "
            f"{have / 2**30:.1f} GiB. Use a smaller kit; --accept little-memory installs it all the same."
        )


def installed_memory() -> int | None:
    """Bytes of memory that this machine has; None where the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _bring(stick: Stick, target: dict[str, Any], home: Home, folder: Path, progress: Progress) -> None:
    """Copy wheels and kits into the version's folder, checking every byte on its way."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / STICK, stick.data)
    jobs = [
        (folder / "wheels" / name, [f"wheels/{name}"] if f"wheels/{name}" in stick.files else [], -1, sha256)
        for name, sha256 in target["wheels"].items()
    ]
    for kit, about in stick.kits.items():
        for name, file in about["files"].items():
            jobs.append((folder / "kits" / kit / name, file["pieces"], file["bytes"], file["sha256"]))
    total = sum(stick.files[p][0] for _, pieces, _, _ in jobs for p in pieces)
    done = 0
    faults: list[str] = []

    def step(piece: int) -> None:
        nonlocal done
        done += piece
        progress("copy", done, total)

    for path, pieces, size, sha256 in jobs:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file() and size in (-1, path.stat().st_size) and sha256_of(path) == sha256:
            step(sum(stick.files[p][0] for p in pieces))
        elif pieces:
            faults += _joined(stick, pieces, path, step)
        else:
            faults += _from_here(home, path, sha256)
    refuse_broken(stick, faults)
    _keep_other_kits(stick, home, folder)


def _joined(stick: Stick, pieces: list[str], path: Path, step: Callable[[int], None]) -> list[str]:
    """Write a file from its pieces on the stick; faults of the pieces."""
    part, faults = path.with_name(path.name + ".part"), []
    with open(part, "wb", buffering=0) as out:
        for name in pieces:
            digest = hashlib.sha256()
            with open(stick.path / name, "rb", buffering=0) as f:
                while piece := f.read(_READ_BYTES):
                    digest.update(piece)
                    out.write(piece)
                    step(len(piece))
            if digest.hexdigest() != stick.files[name][1]:
                faults.append(f"{name}: altered")
        os.fsync(out.fileno())
    if not faults:
        os.replace(part, path)
    return faults


def _from_here(home: Home, path: Path, sha256: str) -> list[str]:
    """Link or copy a file that the stick does not carry from a version that is installed."""
    for folder in map(home.version, home.complete()):
        for found in [*folder.glob(f"wheels/{path.name}"), *folder.glob(f"kits/**/{path.name}")]:
            if found.is_file() and sha256_of(found) == sha256:
                _link(found, path)
                return []
    return [f"{path.name}: not carried by this stick, and not installed here. Use the whole stick"]


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


def _keep_other_kits(stick: Stick, home: Home, folder: Path) -> None:
    """Kits of the version in use that this stick does not bring stay beside the new ones."""
    if (name := home.current()) is None or name == stick.version:
        return
    for kit in (home.version(name) / "kits").iterdir():
        if kit.name not in stick.kits:
            for source in (p for p in kit.rglob("*") if p.is_file()):
                path = folder / "kits" / kit.name / source.relative_to(kit)
                path.parent.mkdir(parents=True, exist_ok=True)
                _link(source, path)


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


def _program(stick: Stick, target: dict[str, Any], folder: Path, say: Callable[[str], None]) -> None:
    """Make the version's virtual environment, from its wheels alone."""
    wheels = [folder / "wheels" / name for name in target["wheels"]]
    refuse_broken(stick, [fault for wheel in wheels for fault in archive_faults(wheel)])
    ready = folder / "venv" / "ready"
    if ready.exists():
        return
    say("installing the program")
    venv.EnvBuilder(clear=True, symlinks=os.name == "posix").create(folder / "venv")
    pip = next(
        w for w in wheels if w.name.startswith("pip-")
    )  # Debian's Python has no ensurepip: pip runs from its wheel
    options = ["--no-index", "--no-deps", "--no-cache-dir", "--no-input", "--disable-pip-version-check", "--quiet"]
    names = [str(w) for w in wheels if w != pip]
    _run([str(python_of(folder)), str(pip / "pip"), "--isolated", "install", *options, *names], "pip")
    ready.touch()


def python_of(folder: Path) -> Path:
    """The Python of a version's virtual environment."""
    return folder / "venv" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def _run(command: list[str], what: str) -> str:
    """Run one of the program's own steps, without anything that this shell has set for Python or pip; its output."""
    clean = {
        k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PIP_", "PULSE_EDGE", "LD_", "VIRTUAL"))
    }
    done = subprocess.run(
        command, env=clean, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, close_fds=False
    )
    if done.returncode:
        last = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()][-3:]
        raise Refused(
            *last, f"{what}: failed ({done.returncode}). Nothing was changed. Mend that, and run install.py again."
        )
    return done.stdout


def _prove(folder: Path, kits: list[str], say: Callable[[str], None]) -> None:
    """What must pass before a version is used: every byte of every kit, and each new one's golden cases.

    `doctor` reads a page either way, keeps this machine's speed, and says so where a kit has no golden cases.
    """
    program = [str(python_of(folder)), "-I", "-m", "pulse_edge"]
    for kit in sorted(p for p in (folder / "kits").iterdir()):
        if kit.name not in kits:
            say(f"verifying {kit.name}")
            _run([*program, "kit", "verify", str(kit)], f"verifying {kit.name}")
            continue
        say(f"verifying {kit.name}, and reading pages with it (minutes on a slow machine)")
        told = _run([*program, "doctor", "--kit", str(kit)], f"reading with {kit.name}")
        for line in told.splitlines():
            if "golden cases" in line:
                say(f"{kit.name}: {' '.join(line.split())}")


def _complete(stick: Stick, trust: Trust, home: Home) -> None:
    """Write install.json, the last file of a version: what it is, and what answers must say of the program and kits."""
    folder = home.version(stick.version)
    kits = {kit.name: trust.warning for kit in (folder / "kits").iterdir()}
    if (current := home.current()) is not None:
        earlier = json.loads((home.version(current) / INSTALLED).read_text("utf-8"))["kits"]
        kits |= {name: trust.warning or warning for name, warning in earlier.items() if name not in stick.kits}
    key = None if trust.key is None else trust.key.id
    about = {"program": stick.program, "key": key, "warning": trust.warning, "kits": kits}
    write_whole(folder / INSTALLED, json.dumps(about, indent=1).encode() + b"\n")


_LAUNCHER = """#!/bin/sh
here=$(dirname -- "$(readlink -f -- "$0")")
exec "$here/versions/$(cat "$here/current")/venv/bin/python" -I -m pulse_edge "$@"
"""
_LAUNCHER_CMD = (
    '@set /p VERSION=<"%~dp0current"\r\n@"%~dp0versions\\%VERSION%\\venv\\Scripts\\python.exe" -I -m pulse_edge %*\r\n'
)


def launcher(home: Home) -> Path:
    """The command that runs the version in use."""
    return home.path / ("pulse-edge.cmd" if sys.platform == "win32" else "pulse-edge")


def _switch(home: Home, stick: Stick, trust: Trust) -> None:
    """Make the version that has passed the one in use. `current` is the one pointer, and written last."""
    keys = home.pinned()
    if trust.key is not None and trust.pinned and trust.key not in keys:
        write_whole(home.path / "trusted.pub", "".join(k.text() for k in [*keys, trust.key]).encode())
    text = _LAUNCHER_CMD if sys.platform == "win32" else _LAUNCHER
    write_whole(launcher(home), text.encode(), mode=0o755)
    write_whole(home.path / "install.py", _read(stick.path / "install.py"))
    write_whole(home.path / "current", f"{stick.version}\n".encode())
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
    with locked(home):
        current = home.current()
        others = [name for name in home.complete() if name != current]
        if not others:
            raise Refused(f"{home.path}: there is no earlier version to go back to.")
        write_whole(home.path / "current", f"{others[0]}\n".encode())
    return others[0]


def uninstall(home: Home) -> None:
    """Remove everything that installations put there, and nothing else. Raises Refused where nothing was installed."""
    if not (home.path / "versions").is_dir():
        raise Refused(f"{home.path}: nothing is installed there. Name the place with --to.")
    link = _shell_link(home)
    if link is not None and link.is_symlink() and Path(os.readlink(link)) == launcher(home):
        link.unlink()
    with locked(home):
        (home.path / "current").unlink(missing_ok=True)  # first: what is half removed is not to be run
        _remove(home.path / "versions")
        for name in ("current", launcher(home).name, "trusted.pub", "install.py"):
            for path in [home.path / name, *home.path.glob(f".{name}.*")]:  # the second: of a killed `write_whole`
                path.unlink(missing_ok=True)
        _leave_if_empty(home)


def _leave_if_empty(home: Home) -> None:
    """Remove the folder itself when nothing is installed any more; somebody else's files stay, and so does it then."""
    if not home.complete():
        with contextlib.suppress(OSError):
            if (home.path / "versions").exists():
                (home.path / "versions").rmdir()
            (home.path / ".lock").unlink(missing_ok=True)
            home.path.rmdir()


def _remove(folder: Path) -> None:
    """Remove a version; its install.json first, so that what is half removed does not count as a version."""
    for path in folder.glob(f"**/{INSTALLED}" if folder.name == "versions" else INSTALLED):
        path.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


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
        print(f"\r{stage} {100 * done // max(of, 1):3d} %, {left:5.0f} s left ", end="", file=sys.stderr, flush=True)
        if done >= of:
            print(file=sys.stderr)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Install pulse-edge from this stick, without a network.")
    parser.add_argument("--to", type=Path, metavar="DIR", help="where to; default: the usual place")
    parser.add_argument("--user-only", action="store_true", help="for this user, also when an administrator installs")
    parser.add_argument("--key", type=Path, metavar="FILE", help="the minisign public key that must have signed it")
    parser.add_argument(
        "--accept", action="append", default=[], metavar="WORD", help="unsigned, the id of a foreign key, little-memory"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--rollback", action="store_true", help="go back to the version before")
    what.add_argument("--uninstall", action="store_true", help="remove everything that was installed")
    return parser.parse_args()


def main() -> int:
    """Entry point; 0 done, 1 refused or failed, 2 wrong usage, 130 interrupted."""
    options = _arguments()
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.default_int_handler)
    home = Home((options.to or default_home(user_only=options.user_only)).expanduser().resolve())
    try:
        if sys.version_info < (3, 10):  # noqa: UP036 (whoever has an older one never saw pyproject.toml)
            raise Refused(f"Python {platform.python_version()}: too old. Run install.py with Python 3.10 or newer.")
        if options.rollback:
            print(f"in use now: {rollback(home)}")
        elif options.uninstall:
            uninstall(home)
            print(f"{home.path}: uninstalled")
        else:
            key = options.key and read_public_key(_read(options.key).decode("utf-8", "replace"), str(options.key))
            wishes = Wishes(home.path, key, tuple(options.accept))
            install(open_stick(Path(__file__).resolve().parent), wishes, _Bar(), _say)
            print(f"installed. Read a page: {launcher(home)} interpret scan.jpg")
    except Refused as e:
        print(*(f"error: {line}" for line in e.lines), sep="\n", file=sys.stderr)
        return e.exit_code
    except KeyboardInterrupt:
        print("interrupted. Run install.py again: it goes on from here.", file=sys.stderr)
        return 130
    except OSError as e:
        print(f"error: {e.filename or home.path}: {e.strerror}. Mend that, and run install.py again.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
