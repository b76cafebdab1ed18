"""What a terminal shows while something runs: tried on a pseudo-terminal."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

pty = pytest.importorskip("pty")

SHOW = """
import sys, time
from pulse_edge.screen import Screen, say
screen = Screen()
with screen.progress() as progress:
    for n in range(3):
        progress("encode", n, 2)
    say("half a line")
    time.sleep(60)
"""


def test_an_answer_is_not_held_back_until_its_line_ends(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", SHOW], stdout=slave, stderr=slave, env=os.environ | {"TERM": "xterm"}
    )
    os.close(slave)
    seen, end = b"", time.monotonic() + 40
    while b"half a line" not in seen and time.monotonic() < end:
        if select.select([master], [], [], 0.2)[0]:
            seen += os.read(master, 65536)
    process.kill()
    process.wait()
    os.close(master)
    assert b"Encoding" in seen
    assert seen.endswith(b"half a line")
