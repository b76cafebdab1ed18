"""Nothing of the current directory, of the shell's Python variables or of library search paths runs
in our processes."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import ROOT
from PIL import Image

from pulse_edge.common import child_process
from pulse_edge.common.worker_pool import Workers
from pulse_edge.diagnostics import checks
from pulse_edge.errors import EngineError, KitError
from pulse_edge.kit.kit import open_kit
from pulse_edge.page import reader

PAGE = ROOT / "pulse_edge" / "assets" / "example_page.png"
NAMES = (
    "json",
    "typing",
    "struct",
    "dataclasses",
    "signal",
    "contextlib",
    "multiprocessing",
    "numpy",
    "click",
    "PIL",
)
COMMAND = [sys.executable, "-m", "pulse_edge"]


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory with modules of the names that ours import; each leaves a trace when it
    runs."""
    folder = tmp_path / "usb drive"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.py").write_text(_trace(folder, name))
    (folder / "pulse_edge").mkdir()
    (folder / "pulse_edge" / "__init__.py").write_text(_trace(folder, "pulse_edge"))
    Image.open(PAGE).convert("RGB").save(tmp_path / "scan.pdf")
    monkeypatch.chdir(folder)
    return folder


def _trace(folder: Path, name: str) -> str:
    note = f"open({str(folder / 'RAN')!r}, 'a').write({name + ' '!r})"
    return f"{note}\nraise SystemExit({name + ' of the current directory ran'!r})\n"


def ran(folder: Path) -> str:
    trace = folder / "RAN"
    return trace.read_text() if trace.exists() else ""


def test_the_traps_are_run_where_they_are_not_avoided(hostile: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import json"], cwd=hostile, capture_output=True, check=False
    )
    assert done.returncode == 1
    assert ran(hostile) == "json "


def test_reading_a_pdf_runs_nothing_of_the_current_directory(hostile: Path) -> None:
    assert len(reader.read_all(hostile.parent / "scan.pdf")) == 1
    assert ran(hostile) == ""


def test_doctor_runs_nothing_of_the_current_directory(hostile: Path) -> None:
    check = checks.engine()
    assert check.state == "ok", check.text
    assert ran(hostile) == ""


def test_workers_run_nothing_of_the_current_directory(hostile: Path) -> None:
    with Workers(2) as workers:
        paths = workers.call(eval, "__import__('sys').path")
        assert workers.call(eval, "__import__('sys').flags.isolated") == 1
    assert (
        str(ROOT / "pulse_edge") not in paths
    )  # whose modules would stand in for others of their names
    assert str(hostile) not in paths
    assert "" not in paths
    assert ran(hostile) == ""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["cache", "info"], ["check", "../scan.pdf"]], ids=lambda a: a[0]
)
def test_a_command_started_by_m_takes_no_module_of_the_current_directory(
    hostile: Path, arguments: list[str]
) -> None:
    (hostile / "pulse_edge" / "__init__.py").unlink()
    (
        hostile / "pulse_edge"
    ).rmdir()  # `python -m` itself would take that one: only `pulse-edge` and `python -P` do not
    environment = os.environ | {"PULSE_EDGE_AUDIT_LOG": str(hostile.parent / "log")}
    done = subprocess.run(
        [*COMMAND, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert ran(hostile) == ""


def test_the_command_takes_no_module_of_the_current_directory(hostile: Path) -> None:
    code = "import sys; sys.path.insert(0, ''); sys.path.append(sys.argv.pop(1)); "
    code += "from pulse_edge.__main__ import main; main()"
    # As the script that pip makes, with a search path that an empty entry in PYTHONPATH leaves.
    (hostile / "pulse_edge" / "__init__.py").unlink()
    (hostile / "pulse_edge").rmdir()
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, str(ROOT), "check", "../scan.pdf"],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert ran(hostile) == ""


def test_a_child_gets_no_variable_that_loads_foreign_code(monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = {
        "PYTHONPATH": "/x",
        "PYTHONSTARTUP": "/x.py",
        "PYTHONHOME": "/x",
        "PIP_INDEX_URL": "http://x",
        "XDG_CONFIG_HOME": "/x",
        "LD_PRELOAD": "./x.so",
        "GGML_BACKEND_PATH": "./x.so",
        "LLAMA_CPP_LIB_PATH": "/x",
        "ORT_DISABLE_TELEMETRY": "0",
    }
    for name, value in foreign.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", os.pathsep.join(["", "bin", "/usr/bin", "."]))
    monkeypatch.setenv(
        "LD_LIBRARY_PATH", os.pathsep.join(["", "/cuda"])
    )  # as OpenCV's import leaves it
    monkeypatch.setenv("DYLD_LIBRARY_PATH", os.pathsep)
    assert child_process.environment(PATH=os.pathsep.join(["/bin", "x"]))["PATH"] == "/bin"
    given = child_process.environment(OMP_NUM_THREADS="1")
    assert foreign.keys() & given.keys() == {"ORT_DISABLE_TELEMETRY"}
    assert given["ORT_DISABLE_TELEMETRY"] == "1"
    assert (given["PATH"], given["LD_LIBRARY_PATH"], given["OMP_NUM_THREADS"]) == (
        "/usr/bin",
        "/cuda",
        "1",
    )
    assert "DYLD_LIBRARY_PATH" not in given


def test_a_child_has_our_package_and_no_other_folder(tmp_path: Path) -> None:
    """Where the package is not installed, as in a folder of its own, only the package is taken from
    there."""
    done = subprocess.run(
        child_process.command("site"),
        env=child_process.environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "ENABLE_USER_SITE: False" in done.stdout
    assert str(tmp_path) not in done.stdout


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the loader of Linux")
@pytest.mark.parametrize(
    "library",
    ["libggml-base.so.0", "libggml.so.0", "libllama.so.0", "libstdc++.so.6", "libgomp.so.1"],
)
def test_no_library_of_the_current_directory_is_loaded(tmp_path: Path, library: str) -> None:
    """An empty entry in LD_LIBRARY_PATH is the current directory; a library there that is none ends
    whatever loads it."""
    (tmp_path / library).write_bytes(b"\x7fELF, or nearly")
    environment = os.environ | {"LD_LIBRARY_PATH": ":", "PYTHONPATH": str(ROOT)}
    trap = subprocess.run(
        [sys.executable, "-c", f"import ctypes; ctypes.CDLL({library!r})"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert trap.returncode == 1
    words = ["interpret", str(PAGE), "--max-tokens", "1", "--no-cache"]
    done = subprocess.run(
        [*COMMAND, *words],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the loader of Linux")
def test_a_program_that_imports_the_package_gets_llama_cpps_own_libraries(tmp_path: Path) -> None:
    for name in ("libggml-base.so.0", "libggml-cpu.so.0", "libggml.so.0", "libllama.so.0"):
        (tmp_path / name).write_bytes(b"\x7fELF, or nearly")
    environment = os.environ | {
        "LD_LIBRARY_PATH": ":",
        "PYTHONPATH": str(ROOT),
        "LLAMA_CPP_LIB_PATH": str(tmp_path),
    }
    code = "from pulse_edge.inference import llama_cpp; llama_cpp.system()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


# --- workers --------------------------------------------------------------------------------------


def test_workers_keep_the_order_and_pass_errors_on() -> None:
    with Workers(3) as workers:
        assert list(workers.map(abs, range(-20, 0))) == list(range(20, 0, -1))
        with pytest.raises(ValueError, match="invalid literal"):
            workers.call(int, "x")
        assert workers.call(abs, -1) == 1  # an error does not end its worker
        with pytest.raises(KitError, match="no such kit directory"):
            workers.call(open_kit, Path("nowhere"))
        with pytest.raises(ModuleNotFoundError, match="tests"):
            workers.call(ran, Path())  # a function that it does not find
        with pytest.raises(EngineError, match="unexpected module"):
            workers.call(__import__, "json")  # a result that cannot be sent
        assert workers.call(abs, -2) == 2


def test_a_dead_worker_is_an_error() -> None:
    with Workers(1) as workers, pytest.raises(EngineError, match="worker process"):
        workers.call(os._exit, 3)


# --- one way to start a process -------------------------------------------------------------------

STARTERS = {
    "subprocess.run",
    "subprocess.Popen",
    "subprocess.check_output",
    "subprocess.call",
    "subprocess.check_call",
}
FORBIDDEN = {"multiprocessing", "concurrent.futures.process", "pty"}
"""Their children import from the current directory."""


@pytest.mark.parametrize(
    "file",
    [
        f
        for room in ("pulse_edge", "export", "calibration")
        for f in sorted((ROOT / room).rglob("*.py"))
        if f.parent.name != "installer"
    ],
    ids=lambda p: f"{p.parent.name}/{p.name}",
)
def test_every_child_process_is_started_isolated(file: Path) -> None:
    """The installer runs alone, from a drive, and has its own rule (tests/installer)."""
    text = file.read_text("utf-8")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {getattr(node, "module", None) or ""} | {alias.name for alias in node.names}
            assert not names & (FORBIDDEN | {"ProcessPoolExecutor"}), f"{file}:{node.lineno}"
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in (
                "os.system",
                "os.popen",
                "os.fork",
                "os.spawnv",
                "os.posix_spawn",
            ), f"{file}:{node.lineno}"
            if called in STARTERS:
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert "env" in given, (
                    f"{file}:{node.lineno} starts a process with the shell's variables"
                )
                assert "child_process." in text, f"{file}:{node.lineno}"
    if file.name != "child_process.py":
        assert '"-m"' not in re.sub(r'"-I",\s+"-m"', "", text), (
            f"{file}: child_process.command starts modules"
        )
