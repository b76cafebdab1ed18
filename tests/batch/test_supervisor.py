"""The supervisor starts a crashed worker again, and ends with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import pulse_edge
from pulse_edge.batch import supervisor
from pulse_edge.errors import BatchError

PAGE = Path(pulse_edge.__file__).parent / "assets" / "example_page.png"
posix = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


def worker(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Make the worker run `code` with the words of its command line."""

    def command(_module: str, *words: str) -> list[str]:
        return [sys.executable, "-c", f"import os, signal, sys\n{code}", *words]

    monkeypatch.setattr(supervisor.child_process, "command", command)


@posix
def test_crashed_worker_is_started_again(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    code = "if sys.argv[1] == 'first': os.kill(os.getpid(), signal.SIGSEGV)\nraise SystemExit(3)"
    worker(monkeypatch, code)
    assert supervisor.run(lambda start: [start], lambda: 0) == 3
    assert "crashed (SIGSEGV). It continues" in capfd.readouterr().err


@posix
def test_crashes_without_a_finished_page_end_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    worker(monkeypatch, "os.kill(os.getpid(), signal.SIGABRT)")
    with pytest.raises(BatchError, match="6 times in a row"):
        supervisor.run(lambda start: [start], lambda: 0)


@posix
def test_requested_end_is_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "signal.signal(signal.SIGTERM, signal.SIG_DFL); os.kill(os.getpid(), signal.SIGTERM)"
    worker(monkeypatch, code)
    assert supervisor.run(lambda start: [start], lambda: 0) == -signal.SIGTERM


def test_variable_of_the_environment_makes_no_worker(tmp_path: Path) -> None:
    env = os.environ | {"PULSE_EDGE_WORKER": "first"}
    words = ["batch", str(PAGE), "-o", str(tmp_path / "out"), "--kit", "nowhere"]
    done = subprocess.run(
        [sys.executable, "-m", "pulse_edge", *words],
        capture_output=True,
        text=True,
        check=False,
        env=env,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 1
    assert "nowhere" in done.stderr
