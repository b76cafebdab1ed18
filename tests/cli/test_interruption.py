"""Ctrl-C, SIGTERM and SIGHUP: a prompt end, the right code, no traceback, no half-written file."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from waiting import wait_until

from pulse_edge import PulseModel, measure
from pulse_edge.common import paths
from pulse_edge.inference.model import EngineOptions
from pulse_edge.inference.vision_encoder import _interruptible
from pulse_edge.kit.write import writing
from pulse_edge.report.confirmation import UNCONFIRMED
from pulse_edge.report.report import DEMONSTRATION, NOT_PROVEN
from pulse_edge.report.text import measurement_lines

PAGE = paths.EXAMPLE_PAGE
QUESTION = "Is the rhythm regular?"
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
WIDTH = 256
"""Of a token in the tiny model."""
STAGES = ("verify", "load", "encode", "prefill")


def ended(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send the signal; then the process ends with its code and one line."""
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == CODES[number], errors
    assert errors.decode().splitlines()[-1] == "interrupted"
    assert b"Traceback" not in errors


@pytest.mark.parametrize(
    ("number", "file"),
    [
        (signal.SIGTERM, "."),
        (signal.SIGINT, "."),
        (signal.SIGHUP, "llm.gguf"),
        (signal.SIGTERM, "vision.onnx"),
    ],
)
def test_interrupted_conversion_leaves_no_file(
    tiny_checkpoint: Path, tmp_path: Path, number: signal.Signals, file: str
) -> None:
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "export",
        "convert",
        str(tiny_checkpoint),
        "-o",
        str(out / "kit"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_until(lambda: list(out.glob(f".kit.unfinished-*/kit/{file}")), process)
    ended(process, number)
    assert list(out.iterdir()) == []


LOST = """
import signal, time, click
from pulse_edge.cli.run import run

class Odd:
    def __del__(self):
        signal.raise_signal(signal.SIGTERM)

@click.command()
def command():
    Odd()
    time.sleep(20)
    print("went on")

run(command)
"""


def test_signal_in_a_destructor_is_not_lost() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOST], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr.strip()) == (143, "", "interrupted")


def test_second_signal_does_not_stop_the_cleanup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove, calls = shutil.rmtree, []

    def interrupted_once(path: Path, **how: bool) -> None:
        calls.append(path)
        if len(calls) == 1:
            raise KeyboardInterrupt
        remove(path, **how)

    def write() -> None:
        with writing(tmp_path / "kit") as work:
            (work / "llm.gguf").write_bytes(b"half")
            raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", interrupted_once)
    with pytest.raises(KeyboardInterrupt):
        write()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("at", [0, 1], ids=["before", "between"])
def test_interrupted_replacement_keeps_the_old_kit(
    tiny_kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    target = Path(shutil.copytree(tiny_kit, tmp_path / "kit"))
    rename, calls = os.rename, []

    def interrupted(old: Path, new: Path) -> None:
        calls.append(old)
        if len(calls) == at + 1:
            raise KeyboardInterrupt
        rename(old, new)

    monkeypatch.setattr(os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), writing(target, force=True) as work:
        (work / "manifest.json").write_text("new")
    assert [p.name for p in tmp_path.iterdir()] == ["kit"]
    assert (target / "manifest.json").read_text() == (tiny_kit / "manifest.json").read_text()


@pytest.mark.parametrize("number", list(CODES))
def test_signal_ends_an_answer(tiny_kit: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "pulse_edge", "interpret", str(PAGE), "--kit", str(tiny_kit)]
    process = subprocess.Popen(  # a measured report would be held back until the answer ends
        [*command, "--max-tokens", "3900", "--no-measure"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert any(line.startswith(b"Page:") for line in process.stdout)
    assert process.stdout.read(1)
    ended(process, number)


# The command as it is, but for a signal that it sends itself when it reaches a stage.
STAGED = """
import os, signal, sys
from pulse_edge.cli import main as cli
from pulse_edge.inference.model import PulseModel

stage, number = sys.argv.pop(1), int(sys.argv.pop(1))
load = PulseModel.load
def staged(*arguments, progress, **more):
    def seen(at, done, of):
        progress(at, done, of)
        if at == stage:
            signal.raise_signal(number)
    return load(*arguments, progress=seen, **more)
PulseModel.load = staged
cli.main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("stage", STAGES)
def test_signal_ends_every_stage(
    tiny_kit: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    number: signal.Signals,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # so that kit and page are new
    monkeypatch.setenv("PULSE_EDGE_CACHE", str(tmp_path / "pages"))
    command = [
        sys.executable,
        "-c",
        STAGED,
        stage,
        str(int(number)),
        "interpret",
        str(PAGE),
        "--kit",
        str(tiny_kit),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == CODES[number], done.stderr
    heading = {DEMONSTRATION, NOT_PROVEN, UNCONFIRMED, "Page: good, 12 leads, layout 3x4+1."}
    heading |= set(measurement_lines(measure(PAGE).measurements))
    assert set(done.stdout.splitlines()) <= heading  # and no word of an answer
    assert done.stderr.splitlines()[-1] == "interrupted"
    assert "Traceback" not in done.stderr


class Switch:
    """A progress callback and an observer that interrupt once, where `at` says, when turned on."""

    def __init__(
        self, act: Callable[[], None] = lambda: signal.raise_signal(signal.SIGINT)
    ) -> None:
        self.at = ""
        self._act = act

    def reached(self, place: str) -> None:
        if place == self.at:
            self.at = ""
            self._act()

    def __call__(self, stage: str, _done: int, _of: int) -> None:
        self.reached(stage)

    def wants(self, name: str) -> bool:
        return name == "l_out-0"

    def see(self, name: str, values: np.ndarray) -> None:
        self.reached("token" if len(values) == WIDTH else "batch")


@pytest.mark.parametrize("place", ["encode", "prefill", "batch", "token"])
def test_interrupted_model_still_gives_the_same_answer(tiny_kit: Path, place: str) -> None:
    switch = Switch()
    with PulseModel.load(
        tiny_kit, device="cpu", threads=1, progress=switch, engine=EngineOptions(observer=switch)
    ) as model:
        switch.at = place
        with pytest.raises(KeyboardInterrupt):
            model.interpret(PAGE, QUESTION, 12)
        assert switch.at == ""
        after = model.interpret(PAGE, QUESTION, 12)
    with PulseModel.load(tiny_kit, device="cpu", threads=1) as model:
        assert model.interpret(PAGE, QUESTION, 12).answers == after.answers


@pytest.mark.parametrize("place", ["load", "batch"])
def test_error_of_a_callback_leaves_llama_cpp(tiny_kit: Path, place: str) -> None:
    def act() -> None:
        raise LookupError("mine")

    switch = Switch(act)
    switch.at = place
    with (
        pytest.raises(LookupError, match="mine"),
        PulseModel.load(
            tiny_kit, device="cpu", progress=switch, engine=EngineOptions(observer=switch)
        ) as model,
    ):
        model.interpret(PAGE, QUESTION, 2)


def test_signal_handler_of_a_program_stays_in_force(tiny_kit: Path) -> None:
    def handler(_number: int, _frame: object) -> None:
        raise LookupError("mine")

    switch = Switch(lambda: signal.raise_signal(signal.SIGTERM))
    old = signal.signal(signal.SIGTERM, handler)
    try:
        with PulseModel.load(
            tiny_kit, device="cpu", engine=EngineOptions(observer=switch)
        ) as model:
            switch.at = "batch"
            with pytest.raises(LookupError, match="mine"):
                model.interpret(PAGE, QUESTION, 2)
            assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, old)


def test_interrupted_encoder_is_stopped_and_waited_for() -> None:
    stopped, left = threading.Event(), threading.Event()

    def call() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        assert stopped.wait(10)
        time.sleep(0.1)
        left.set()

    with pytest.raises(KeyboardInterrupt):
        _interruptible(call, stopped.set)
    assert left.is_set()
