"""Linux control groups (v2 and v1): the folders whose limits bind this process."""

from __future__ import annotations

from pathlib import Path


def folders(controller: str, root: Path = Path("/")) -> list[Path]:
    """This process's group for `controller` (`cpu`, `memory`) and all above it; any of them may hold the limit."""
    top = root / "sys/fs/cgroup"
    found = [top, top / controller]
    for line in lines(root / "proc/self/cgroup"):
        _, controllers, path = ([*line.split(":", 2), "", ""])[:3]
        if controllers and controller not in controllers.split(","):
            continue
        start = top / controller if controllers else top
        group = start / path.strip("/")
        found += [p for p in (group, *group.parents) if p.is_relative_to(start)]
    return list(dict.fromkeys(found))


def lines(path: Path) -> list[str]:
    """Of a file of the kernel's; none where it is not there."""
    try:
        return path.read_text("utf-8", "replace").splitlines()
    except (OSError, ValueError):
        return []


def number(path: Path) -> int | None:
    """The number in a file; None for `max`, another word, or no file."""
    words = " ".join(lines(path)).split()
    return int(words[0]) if words and words[0].isdigit() else None
