"""Lock files: the version of every package of a target, and the SHA-256 hashes that its files may
have.

`locks/PLATFORM-pyXY-DEVICE.txt` in the checkout; `make locks` writes them with uv. A registry that
serves other bytes, or a version that was replaced there, does not get into a bundle. Format: pip's
requirement files with hashes, one version of each package, no markers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pulse_edge.deploy.targets import Target
from pulse_edge.deploy.wheels import Wheel, normalized
from pulse_edge.errors import KitError

UNLOCKED = ("pulse-edge", "llama-cpp-python")
"""Packages whose wheels are built here, so that no lock file can hold their hashes. The source of
llama-cpp-python is locked: the build fetches it by its hash."""


@dataclass(frozen=True)
class Pin:
    """The version of a package in a lock file."""

    name: str
    version: str
    hashes: frozenset[str]
    """SHA-256 hashes of all files of this version: wheels of every platform, and the source."""

    @property
    def requirement(self) -> str:
        """A line of a requirements file by which pip accepts these files alone."""
        hashes = " ".join(f"--hash=sha256:{value}" for value in sorted(self.hashes))
        return f"{self.name}=={self.version} {hashes}"


Lock = Mapping[str, Pin]
"""Normalized name of a package -> its pin."""
_LINE = re.compile(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.+!_-]+)((?:\s+--hash=sha256:[0-9a-f]{64})+)")


def lock_file(folder: Path, target: Target) -> Path:
    """Return the path of a target's lock file."""
    return folder / f"{target.platform}-py{target.python.replace('.', '')}-{target.device}.txt"


def read_lock(path: Path) -> Lock:
    """Read a lock file. Raises KitError."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise KitError(
            f"{path}: missing, so the packages of this target are not locked. Pack from the "
            "checkout, make the file with `make locks`, or name its folder with --locks."
        ) from None
    except (OSError, ValueError) as e:
        raise KitError(f"{path}: cannot be read ({e}). Make it again with `make locks`.") from None
    lock: dict[str, Pin] = {}
    for line in text.replace("\\\n", " ").splitlines():
        line = line.partition("#")[0].strip()
        if not line:
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise KitError(
                f"{path}: {line[:60]!r} is no package==version with hashes. Make it again with "
                "`make locks`."
            )
        pin = Pin(normalized(match[1]), match[2], frozenset(re.findall(r"[0-9a-f]{64}", match[3])))
        if pin.name in lock:
            raise KitError(f"{path}: has {pin.name} twice. Make it again with `make locks`.")
        lock[pin.name] = pin
    return lock


def refuse_unlocked(wheel: Wheel, lock: Lock, where: Path) -> None:
    """Raise KitError for a wheel whose bytes are not in the lock file."""
    if wheel.name in UNLOCKED:
        return
    pin = lock.get(wheel.name)
    if pin is None or wheel.sha256 not in pin.hashes:
        raise KitError(
            f"{wheel.path}: its SHA-256 {wheel.sha256} is not in {where}, so these bytes were "
            "never reviewed. Do not pack it; take the file that the lock file names, or update "
            "the lock files with `make locks` and review the change."
        )
