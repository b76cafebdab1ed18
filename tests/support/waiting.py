"""Wait for a condition, with a deadline."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import Any

DEADLINE = 120.0
"""Seconds: far more than any condition takes on a loaded machine."""


def wait_until(condition: Callable[[], object], process: subprocess.Popen[Any]) -> None:
    """Wait until `condition` holds while `process` runs.

    Fails where the process ends before, or after DEADLINE seconds.
    """
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert process.poll() is None, f"the process ended with {process.returncode}"
        assert time.monotonic() < deadline, f"no result after {DEADLINE:.0f} s"
        time.sleep(0.01)
