"""The commands that README and quickstarts show."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

PROGRAMS = {
    "pulse-edge": "pulse_edge.cli.main",
    "export": "export.__main__",
    "calibration": "calibration.__main__",
}
"""Program, as documents call it -> the module that has its click group `cli`."""


def commands(document: Path) -> list[list[str]]:
    """Return the words of each command in a document's code blocks, as program, command, ..."""
    blocks = re.findall(r"^```\n(.*?)^```", document.read_text("utf-8"), re.M | re.S)
    lines = []
    for text in "".join(blocks).splitlines():
        line = re.sub(r"^\.venv/bin/", "", text).removeprefix("python -m ")
        if line.split(" ")[0] in PROGRAMS:
            lines.append(shlex.split(line, comments=True))
    return lines
