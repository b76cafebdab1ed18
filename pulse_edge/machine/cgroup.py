"""Read the limits of Linux control groups (v2 and v1) that bind this process.

No library of the laptop reads them, and a container or a systemd slice grants less memory and
processor time than the machine has. Source: the kernel's admin-guide/cgroup-v2.rst and cgroup-v1.
Standard library only.
"""

from __future__ import annotations

from pathlib import Path


def folders(controller: str, root: Path = Path("/")) -> list[Path]:
    """Return this process's group for `controller` (`cpu`, `memory`) and all above it; any of them
    may hold the limit."""
    top = root / "sys/fs/cgroup"
    groups = [top, top / controller]
    for line in lines(root / "proc/self/cgroup"):
        _, controllers, path = ([*line.split(":", 2), "", ""])[:3]
        if controllers and controller not in controllers.split(","):
            continue
        start = top / controller if controllers else top
        group = start / path.strip("/")
        groups += [p for p in (group, *group.parents) if p.is_relative_to(start)]
    return list(dict.fromkeys(groups))


def lines(path: Path) -> list[str]:
    """Return the lines of a file of the kernel; none if it is absent."""
    try:
        return path.read_text("utf-8", "replace").splitlines()
    except (OSError, ValueError):
        return []


def number(path: Path) -> int | None:
    """Return the number in a file; None for `max`, another word, or no file."""
    words = " ".join(lines(path)).split()
    return int(words[0]) if words and words[0].isdigit() else None
