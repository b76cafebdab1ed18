"""Compare what a bundle needs with what this machine has."""

from __future__ import annotations

import os
import platform
import shutil
import sys

from .bundle import Bundle, Target
from .home import Home
from .refusal import Refused

_GIB = 1 << 30
_SPARE_BYTES = 256 << 20
"""Disk space that must remain free."""


def this_platform() -> str:
    """Return the name of this platform, such as linux-x86_64."""
    machine = platform.machine().lower()
    system = {"win32": "windows", "darwin": "macos"}.get(sys.platform, "linux")
    names = {"amd64": "x86_64", "arm64": "aarch64"} if system != "macos" else {}
    return f"{system}-{names.get(machine, machine)}"


def matching_target(bundle: Bundle) -> Target:
    """Return the bundle's target for this machine and this Python. Raises Refused."""
    here, python = this_platform(), f"{sys.version_info[0]}.{sys.version_info[1]}"
    for target in bundle.targets:
        if (target.platform, target.python) == (here, python):
            _refuse_old_glibc(target)
            return target
    raise Refused(
        f"{bundle.path}: made for {', '.join(map(str, bundle.targets))}; this is {here} with "
        f"Python {python}. Ask for a bundle made for it."
    )


def _refuse_old_glibc(target: Target) -> None:
    name, version = platform.libc_ver()
    have = tuple(int(part) for part in version.split(".")[:2]) if name == "glibc" else (0, 0)
    if target.glibc and have < target.glibc:
        raise Refused(
            f"{target.platform}: needs glibc {'.'.join(map(str, target.glibc))}, and this system "
            f"has {version or 'none'}. Use a newer system."
        )


def installed_memory() -> int | None:
    """Return the bytes of memory that this machine has; None where the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def refuse_little_memory(bundle: Bundle) -> None:
    """Raise Refused if this machine has less memory than the bundle's smallest kit takes."""
    have = installed_memory()
    least = min((kit.memory for kit in bundle.kits.values()), default=0)
    if have is not None and least > have:
        raise Refused(
            f"{bundle.path}: its smallest kit needs {least / _GIB:.1f} GiB of memory, and this "
            f"machine has {have / _GIB:.1f} GiB. Use a smaller kit; --accept little-memory "
            "installs it all the same."
        )


def refuse_little_disk(bundle: Bundle, target: Target, home: Home) -> None:
    """Raise Refused if the disk cannot take the kits, the wheels and the unpacked program."""
    kits = sum(file.bytes for kit in bundle.kits.values() for file in kit.files.values())
    carried = [f"wheels/{name}" for name in target.wheels if f"wheels/{name}" in bundle.files]
    wheels = sum(bundle.files[name][0] for name in carried)
    needed = kits + wheels + target.unpacked + _SPARE_BYTES
    folder = home.version(bundle.version)
    copied = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    free = shutil.disk_usage(home.path).free + copied
    if needed > free:
        raise Refused(
            f"{home.path}: needs {needed / _GIB:.1f} GiB of disk, and {free / _GIB:.1f} GiB are "
            "free. Free some, or name another place with --to."
        )
