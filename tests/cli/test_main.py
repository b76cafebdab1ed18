"""What every command has in common: the installation that it looks at, and how errors end."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

import pulse_edge
from pulse_edge.cli.main import cli
from pulse_edge.errors import EngineError

COMMANDS = [
    ("interpret", "page.png"),
    ("ask", "page.png"),
    ("batch", "pages", "-o", "out"),
    ("kit", "info", "kit"),
    ("kit", "verify", "kit"),
]
HELP = [
    ("--help",),
    ("--version",),
    ("interpret", "--help"),
    ("ask", "-h"),
    ("batch", "-h"),
    ("audit", "show", "-h"),
    ("kit", "--help"),
    ("kit", "info", "-h"),
    ("bundle", "pack", "-h"),
]


@pytest.fixture
def both_runtimes(tmp_path: Path) -> dict[str, str]:
    """An environment in which onnxruntime-gpu is installed next to onnxruntime."""
    about = tmp_path / "onnxruntime_gpu-1.23.0.dist-info" / "METADATA"
    about.parent.mkdir()
    about.write_text("Metadata-Version: 2.1\nName: onnxruntime-gpu\nVersion: 1.23.0\n")
    return os.environ | {"PYTHONPATH": str(tmp_path)}


def run(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, env=env
    )


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_two_onnx_runtimes_are_refused_with_the_cure(
    both_runtimes: dict[str, str], command: tuple[str, ...]
) -> None:
    done = run("-m", "pulse_edge", *command, env=both_runtimes)
    assert done.returncode == 1
    assert done.stderr.startswith(
        "error: both onnxruntime and onnxruntime-gpu are installed. Install exactly one: pip"
    )
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", HELP, ids=" ".join)
def test_help_does_not_depend_on_the_installation(
    both_runtimes: dict[str, str], command: tuple[str, ...]
) -> None:
    done = run("-m", "pulse_edge", *command, env=both_runtimes)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_missing_onnx_runtime_is_refused(
    monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    real = importlib.metadata.distribution

    def distribution(name: str) -> importlib.metadata.Distribution:
        if name.startswith("onnxruntime"):
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "distribution", distribution)
    with pytest.raises(EngineError, match="neither onnxruntime nor onnxruntime-gpu is installed"):
        cli.main(list(command), standalone_mode=False)


FAILING = """
import sys, click
from pulse_edge import errors
from pulse_edge.cli.run import Program, run

def fail():
    {failure}

program = Program(invoke_without_command=True, callback=fail)
run(program)
"""


@pytest.mark.parametrize(
    ("failure", "code", "line"),
    [
        ("raise errors.KitError('kit: broken. Copy it.')", 1, "error: kit: broken. Copy it."),
        ("raise errors.PageRefused('page: no. Again.')", 3, "error: page: no. Again."),
        ("open('/nowhere/file')", 1, "error: /nowhere/file: No such file or directory. "),
        (
            "1 / 0",
            1,
            "error: unexpected ZeroDivisionError: division by zero. Run again with --debug",
        ),
        ("raise SystemExit(3)", 3, ""),
        ("raise KeyboardInterrupt", 130, "interrupted"),
    ],
)
def test_error_is_one_line_and_a_code(failure: str, code: int, line: str) -> None:
    done = run("-c", FAILING.format(failure=failure))
    assert done.returncode == code
    assert done.stderr.strip().startswith(line)
    assert len(done.stderr.strip().splitlines()) <= 1


def test_wrong_usage_is_code_2_and_says_what_is_wrong() -> None:
    done = run("-m", "pulse_edge", "interpret", "--colour")
    assert done.returncode == 2
    assert "--colour" in done.stderr.splitlines()[-1]


def test_debug_shows_the_traceback() -> None:
    done = run("-c", FAILING.format(failure="raise errors.KitError('broken')"), "--debug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "in fail" in done.stderr


def test_closed_pipe_is_no_traceback() -> None:
    code = FAILING.format(failure="[click.echo('word ' * 20) for _ in range(10000)]")
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(20) == 1


@pytest.mark.skipif(os.name != "posix", reason="shells of Windows do not close streams")
def test_first_opened_file_is_never_a_standard_stream(tmp_path: Path) -> None:
    """What a library prints would go into it, were it the audit log."""
    target = tmp_path / "file"
    code = FAILING.format(
        failure=f"import os; file = open({str(target)!r}, 'w'); os.write(2, b'noise'); print(file.fileno())"
    )
    line = f"{sys.executable} -c '{code.replace(chr(39), chr(34))}'"
    done = subprocess.run(
        ["sh", "-c", f"{line} <&- 2>&-"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, target.read_text()) == (0, "")
    assert int(done.stdout) > 2


@pytest.mark.skipif(os.name != "posix", reason="shells of Windows do not close streams")
@pytest.mark.parametrize(
    ("where", "why"), [(">&-", "Bad file descriptor"), (">/dev/full", "No space left on device")]
)
def test_unwritable_output_is_no_fault_of_the_page(where: str, why: str, tmp_path: Path) -> None:
    if "full" in where and not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    page = Path(pulse_edge.__file__).parent / "assets" / "example_page.png"
    for arguments in (f"check {page}", f"interpret {page} --dry-run"):
        command = f"{sys.executable} -m pulse_edge {arguments} {where}"
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert done.stderr.startswith(f"error: standard output: cannot be written ({why})")
        assert len(done.stderr.splitlines()) == 1
