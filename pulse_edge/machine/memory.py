"""Bytes of memory: free on this machine, taken by this process, and its peak. Standard library
only."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import sys
from pathlib import Path

from pulse_edge.errors import UsageError
from pulse_edge.machine import cgroup

MIB = 1 << 20


def available(root: Path = Path("/")) -> int | None:
    """Return the bytes that can be taken without swapping, within container limits; None where the
    system does not say."""
    if sys.platform == "win32":
        return _windows_available()
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        free = next(
            int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")
        )
    except (OSError, StopIteration, ValueError):
        return None
    return min([free, *filter(None, map(_room, cgroup.folders("memory", root)))])


def _room(group: Path) -> int | None:
    """Bytes below a control group's limit; page cache counts as free, since the kernel drops it.
    None: no limit."""
    for limit, used, cache in (
        ("memory.max", "memory.current", ("inactive_file", "active_file")),
        (
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            ("total_inactive_file", "total_active_file"),
        ),
    ):
        most, now = cgroup.number(group / limit), cgroup.number(group / used)
        if most is not None and now is not None:
            stat = dict(line.split()[:2] for line in cgroup.lines(group / "memory.stat"))
            return max(1, most - now + sum(int(stat.get(name, 0)) for name in cache))
    return None


def _windows_available() -> int | None:
    class Status(ctypes.Structure):
        _fields_ = (
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            *(
                (name, ctypes.c_ulonglong)
                for name in ("total", "free", "pages", "pages_free", "v", "v_free", "x")
            ),
        )

    status = Status(length=ctypes.sizeof(Status))
    kernel = getattr(ctypes, "windll").kernel32  # noqa: B009 (mypy runs on Linux, where ctypes has no windll)
    return int(status.free) if kernel.GlobalMemoryStatusEx(ctypes.byref(status)) else None


def resident() -> int:
    """Return the bytes that this process has in memory now; 0 where the system does not say."""
    if sys.platform != "linux":
        return 0
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def peak() -> int:
    """Return the largest resident set of this process so far, in bytes; 0 where the system does not
    say."""
    if sys.platform == "win32":
        return 0
    with contextlib.suppress(
        OSError, StopIteration, ValueError
    ):  # Linux hands ru_maxrss on from the starting process
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def give_back() -> None:
    """Return freed memory to the system where the C library holds it back (glibc)."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):  # musl has no such call and needs none
            ctypes.CDLL(None).malloc_trim(0)


def parse(text: str) -> int:
    """Return the bytes of `8GiB`, `500 MB`, `6000000000`. Raises UsageError."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:([KMGT])(i?)B?|B)?\s*", text, re.IGNORECASE)
    if match is None:
        raise UsageError(f"{text!r}: is no amount of memory. Write for example 8GiB or 6500MB.")
    power = " kmgt".index((match[2] or " ").lower())
    return int(float(match[1]) * (1024 if match[3] else 1000) ** power)


def shown(size: int) -> str:
    """Return a size as `5.6 GiB` or `212 MiB`."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / MIB:.0f} MiB"
