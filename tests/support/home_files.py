"""Which files a command leaves in the home folder."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path

from checkout import ROOT


def documented() -> list[str]:
    """Patterns of the paths below HOME that docs/security.md lists."""
    text = (ROOT / "docs" / "security.md").read_text("utf-8")
    section = text.split("## What is written below HOME")[1].split("\n## ")[0]
    return re.findall(r"^\| `~/([^`]+)` \|", section, re.MULTILINE)


def files(home: Path) -> set[str]:
    return {path.relative_to(home).as_posix() for path in home.rglob("*") if not path.is_dir()}


def undocumented(home: Path) -> set[str]:
    return {
        name
        for name in files(home)
        if not any(fnmatch.fnmatchcase(name, expected) for expected in documented())
    }
