"""Bytes of memory: what the machine has free, what a kit will take, what this process took at most."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from pathlib import Path

from .errors import MemoryShortage

MIB = 1 << 20
_PROGRAM = 350 * MIB
"""Python, NumPy, both engines' code and small buffers; measured on the micro kit."""


def available() -> int | None:
    """Bytes that can be taken without swapping, container limits respected; None where the system does not tell."""
    if sys.platform == "win32":
        return _windows_available()
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return None
    return min(free, _cgroup_available(free))


def _cgroup_available(otherwise: int) -> int:
    """Room below the control group's limit (cgroup v2); page cache counts as free, since the kernel drops it."""
    root = Path("/sys/fs/cgroup")
    try:
        limit = (root / "memory.max").read_text().strip()
        if limit == "max":
            return otherwise
        stat = dict(line.split() for line in (root / "memory.stat").read_text().splitlines())
        used = int((root / "memory.current").read_text()) - int(stat["inactive_file"]) - int(stat["active_file"])
        return int(limit) - used
    except (OSError, ValueError, KeyError):
        return otherwise


def _windows_available() -> int | None:
    class Status(ctypes.Structure):
        _fields_ = (
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            *((name, ctypes.c_ulonglong) for name in ("total", "free", "pages", "pages_free", "v", "v_free", "x")),
        )

    status = Status(length=ctypes.sizeof(Status))
    kernel = getattr(ctypes, "windll").kernel32  # noqa: B009 (mypy runs on Linux, where ctypes has no windll)
    return int(status.free) if kernel.GlobalMemoryStatusEx(ctypes.byref(status)) else None


def peak() -> int:
    """Largest resident set of this process so far, in bytes; 0 where the system does not tell."""
    if sys.platform == "win32":
        return 0
    with contextlib.suppress(OSError, StopIteration, ValueError):  # Linux hands ru_maxrss on from the starting process
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def require(kit: str, *, language: int, key_values: int, encoder: int) -> None:
    """Raise MemoryShortage, with the figures, when the parts' bytes and the program exceed what is available."""
    free = available()
    needed = language + key_values + encoder + _PROGRAM
    if free is not None and needed > free:
        raise MemoryShortage(
            f"{kit}: needs {needed / 2**30:.1f} GiB of memory (language model {language / 2**30:.1f}, its context "
            f"{key_values / 2**30:.1f}, encoder {encoder / 2**30:.1f}, program {_PROGRAM / 2**30:.1f}), and "
            f"{free / 2**30:.1f} GiB are free. Close other programs, or use a smaller kit."
        )
