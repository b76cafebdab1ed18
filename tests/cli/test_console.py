"""What a terminal shows while something runs: tried on a pseudo-terminal."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.progress import Progress

from pulse_edge.cli.console import Console, time_left
from pulse_edge.machine.profile import Speed

pty = pytest.importorskip("pty")

SPEED = Speed(
    load_seconds=5,
    tile_seconds=2,
    image_tokens_per_second=8,
    tokens_per_second=4,
    prefill_threads=2,
    decode_threads=1,
)
SHOW = """
import sys, time
from pulse_edge.cli.console import Console, say
console = Console()
with console.progress() as progress:
    for n in range(3):
        progress("encode", n, 2)
    say("half a line")
    time.sleep(60)
"""


def test_answer_is_shown_before_its_line_ends(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", SHOW], stdout=slave, stderr=slave, env=os.environ | {"TERM": "xterm"}
    )
    os.close(slave)
    visited, end = b"", time.monotonic() + 40
    while b"half a line" not in visited and time.monotonic() < end:
        if select.select([master], [], [], 0.2)[0]:
            visited += os.read(master, 65536)
    process.kill()
    process.wait()
    os.close(master)
    assert b"Encoding" in visited
    assert visited.endswith(b"half a line")


def test_time_left_comes_from_the_machine_profile_until_a_stage_has_its_own_pace() -> None:
    console, clock = Console(), [100.0]
    assert console.expected("prefill", 720) is None
    console.expect(SPEED)
    assert console.expected("prefill", 720) == 90
    assert console.expected("encode", 5) == 10
    assert console.expected("load", 1000) == 5
    assert console.expected("verify", 5) is None
    bars = Progress(get_time=lambda: clock[0], disable=True)
    bar = bars.add_task("", total=720, expected=console.expected("prefill", 720))
    unknown = bars.add_task("", total=720, expected=None)
    clock[0] += 30
    assert time_left(bars.tasks[bar]) == "60 s"
    assert time_left(bars.tasks[unknown]) == ""
    clock[0] += 90
    assert time_left(bars.tasks[bar]) == "0 s"  # never less
    bars.update(bar, completed=180)
    clock[0] += 10
    bars.update(bar, completed=360)
    assert time_left(bars.tasks[bar]) == "20 s"
