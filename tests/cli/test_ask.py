"""A conversation about one page."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from PIL import Image

import pulse_edge
from pulse_edge import PulseModel
from pulse_edge.audit_log.log import AuditLog
from pulse_edge.report.confirmation import UNCONFIRMED
from pulse_edge.report.report import DEMONSTRATION, FORCED, INTENDED_USE, NOT_PROVEN
from pulse_edge.report.text import measurement_lines

PAGE = Path(pulse_edge.__file__).parent / "assets" / "example_page.png"
FIRST, SECOND = "Is the rhythm regular?", "Why?"
NOTICES = f"{DEMONSTRATION}\n{NOT_PROVEN}\n"


def ask(kit: Path, log: Path, *more: str, page: Path = PAGE) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "pulse_edge",
        "ask",
        str(page),
        "--kit",
        str(kit),
        "--threads",
        "1",
        *more,
    ]
    env = os.environ | {"PULSE_EDGE_AUDIT_LOG": str(log)}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=env)


def test_answer_follows_earlier_turns_and_new_forgets_them(tiny_kit: Path, tmp_path: Path) -> None:
    talk = ask(tiny_kit, tmp_path, "--max-tokens", "12")
    out, errors = talk.communicate(f"{FIRST}\n{SECOND}\n\n/new\n{SECOND}\n/quit\nnever asked\n")
    assert talk.returncode == 0, errors
    with PulseModel.load(tiny_kit, device="cpu", threads=1) as model:
        scan = model.encode(PAGE)
        first = model.ask(scan, FIRST, 12).answer().text
        second = model.ask(scan, SECOND, 12, [(FIRST, first)]).answer().text
        alone = model.ask(scan, SECOND, 12).answer().text
    assert scan.measured is not None
    measured = "".join(f"{line}\n" for line in measurement_lines(scan.measured.measurements))
    page = f"{UNCONFIRMED}\nPage: good, 12 leads, layout 3x4+1.\n{measured}{INTENDED_USE}\n"
    assert out == f"{NOTICES}{page}{first}\n{NOTICES}{second}\n{NOTICES}{alone}\n"
    assert AuditLog(tmp_path).verify().entries == 3


def test_conversation_about_a_forced_page_says_and_logs_that(
    tiny_kit: Path, tmp_path: Path
) -> None:
    blank = tmp_path / "blank.png"
    Image.new("RGB", (800, 600), "white").save(blank)
    refused = ask(tiny_kit, tmp_path / "log", page=blank)
    assert "Check that the right file" in refused.communicate(FIRST)[1]
    assert refused.returncode == 3
    talk = ask(
        tiny_kit, tmp_path / "log", "--max-tokens", "2", "--force", "--no-rectify", page=blank
    )
    out, errors = talk.communicate(FIRST)
    assert talk.returncode == 0, errors
    assert out.startswith(
        f"{NOTICES}{FORCED}\n{UNCONFIRMED}\nPage: refused, and answered all the same"
    )
    (entry,) = AuditLog(tmp_path / "log").entries()
    assert (
        entry.fields["settings"]["page"]["force"],
        entry.fields["settings"]["page"]["rectify"],
    ) == (
        True,
        False,
    )
    assert entry.fields["quality"]["forced"] is True


def test_ctrl_c_stops_the_answer_but_not_the_program(tiny_kit: Path, tmp_path: Path) -> None:
    talk = ask(tiny_kit, tmp_path)
    assert talk.stdin is not None
    assert talk.stdout is not None
    talk.stdin.write(f"{FIRST}\n{SECOND}\n")
    talk.stdin.close()
    for last in (INTENDED_USE, NOTICES.splitlines()[-1]):
        assert any(last in line for line in talk.stdout)
        assert talk.stdout.read(1)
        talk.send_signal(signal.SIGINT)
    assert talk.stderr is not None
    assert "stopped" in talk.stderr.read()
    assert talk.wait(60) == 0
    assert [e.fields["ended"] for e in AuditLog(tmp_path).entries()] == ["broken off"] * 2


def test_the_page_stays_in_the_context_when_an_answer_is_stopped(tiny_kit: Path) -> None:
    stages: list[str] = []
    with PulseModel.load(
        tiny_kit, device="cpu", threads=1, progress=lambda stage, _d, _o: stages.append(stage)
    ) as model:
        scan = model.encode(PAGE)
        answering = model.ask(scan, FIRST, 50)
        next(answering)
        stages.clear()
        old = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            pass
        finally:
            signal.signal(signal.SIGINT, old)
        again = model.ask(scan, FIRST, 12).answer().text
    assert "prefill" not in stages
    with PulseModel.load(tiny_kit, device="cpu", threads=1) as model:
        assert model.interpret(PAGE, FIRST, 12).answers[0].text == again


def test_sigterm_ends_the_program(tiny_kit: Path, tmp_path: Path) -> None:
    talk = ask(tiny_kit, tmp_path)
    assert talk.stdin is not None
    assert talk.stdout is not None
    talk.stdin.write(f"{FIRST}\n")
    talk.stdin.flush()
    assert any(INTENDED_USE in line for line in talk.stdout)
    assert talk.stdout.read(1)
    talk.send_signal(signal.SIGTERM)
    _, errors = talk.communicate(timeout=60)
    assert talk.returncode == 143
    assert errors.splitlines()[-1] == "interrupted"


def test_mistyped_command_is_no_question(tiny_kit: Path, tmp_path: Path) -> None:
    talk = ask(tiny_kit, tmp_path, "--max-tokens", "2")
    out, errors = talk.communicate(f"/help\n/hlep me\n{FIRST}\n")
    assert talk.returncode == 0, errors
    assert (
        errors.count("/new begins a new conversation, /help shows this, /quit or Ctrl-D ends") == 2
    )
    assert "error: /hlep: no such command." in errors
    assert out.count(DEMONSTRATION) == 1
    assert AuditLog(tmp_path).verify().entries == 1
