"""Which wheels are packed, and how they are built."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import small_bundle

from pulse_edge.deploy import bundle, wheelhouse
from pulse_edge.errors import KitError

pytest.importorskip("cryptography", reason="signing needs the package cryptography")


def test_everything_missing_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(wheelhouse, "_fetched", lambda *_: None)
    more = "Requires-Dist: numpy\nRequires-Dist: colorama; sys_platform == 'win32'\nRequires-Dist: llama-cpp-python\n"
    needing = small_bundle.wheel(tmp_path, "pulse-edge", "1.0", {}, small_bundle.EXTRAS + more)
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("numpy==1.0 ; python_version < '3.12'\nllama-cpp-python==9.9\n")
    targets = bundle.targets(["windows-x86_64"], ["3.11", "3.12"], "cpu")
    with pytest.raises(KitError) as e:
        wheelhouse.gather(targets, [needing, small_bundle.pip_wheel()], constraints)
    for line in (
        "numpy==1.0 for windows-x86_64 with Python 3.11",
        "numpy for windows-x86_64 with Python 3.12 (no version of it in constraints.txt)",
        "colorama for windows-x86_64 with Python 3.11 (no version",
        "llama-cpp-python==9.9 for windows-x86_64 with Python 3.12",
        "--wheel",
    ):
        assert line in str(e.value)


def test_a_program_that_lacks_a_part_is_not_packed_in_silence(tmp_path: Path) -> None:
    own = small_bundle.wheel(
        tmp_path, "pulse-edge", "1.0", {}, "Provides-Extra: cpu\nProvides-Extra: pdf\n"
    )
    (tmp_path / "constraints.txt").write_text("")
    with pytest.raises(KitError, match="has no part dicom, heic, report"):
        wheelhouse.gather(
            [small_bundle.here()], [own, small_bundle.pip_wheel()], tmp_path / "constraints.txt"
        )


NATIVE = {"llama_cpp/lib/libggml-cpu.so": b"", "llama_cpp/lib/libllama.so": b""}


NEWER = {"llama_cpp/lib/libggml-cpu-haswell.so": b""}


@pytest.mark.parametrize("files", [NATIVE, NEWER, {}], ids=["native", "without the oldest", "none"])
def test_a_llama_cpp_of_one_processor_is_refused(tmp_path: Path, files: dict[str, bytes]) -> None:
    path = small_bundle.wheel(
        tmp_path, "llama-cpp-python", "1.0", files, tag="py3-none-manylinux_2_28_x86_64"
    )
    with pytest.raises(
        KitError,
        match=r"llama_cpp_python-1\.0.*was built for the processor of one machine.*GGML_NATIVE=OFF",
    ):
        wheelhouse.read_wheel(path)


@pytest.mark.parametrize(
    "file",
    ["libggml-cpu-x64.so", "ggml-cpu-x64.dll", "libggml-cpu-armv8.0_1.so"],
    ids=["Linux", "Windows", "ARM"],
)
def test_a_llama_cpp_of_every_processor_is_taken(tmp_path: Path, file: str) -> None:
    path = small_bundle.wheel(tmp_path, "llama-cpp-python", "1.0", {f"llama_cpp/lib/{file}": b""})
    assert wheelhouse.read_wheel(path).name == "llama-cpp-python"


def test_a_wheel_that_was_built_for_its_builder_is_refused(tmp_path: Path) -> None:
    path = small_bundle.wheel(tmp_path, "numpy", "1.0", {}, tag="cp311-cp311-linux_x86_64")
    with pytest.raises(KitError, match="was built for the machine that built it"):
        wheelhouse.read_wheel(path)


def test_what_packing_starts_is_isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip and auditwheel do not see the current folder, PYTHON and PIP variables, or the user's settings for pip."""
    for name in (
        "PYTHONPATH",
        "PYTHONHOME",
        "PIP_TARGET",
        "PIP_CONFIG_FILE",
        "XDG_CONFIG_DIRS",
        "XDG_CONFIG_HOME",
    ):
        monkeypatch.setenv(name, str(tmp_path))
    seen: list[tuple[list[str], dict[str, str]]] = []

    def failing(command: list[str], **how: Any) -> subprocess.CompletedProcess[str]:
        seen.append((command, how["env"]))
        return subprocess.CompletedProcess(command, 1, "", "")

    monkeypatch.setattr(subprocess, "run", failing)
    assert wheelhouse._fetched("numpy==1.0", small_bundle.here(), tmp_path) is None
    for start in (
        lambda: wheelhouse._pip_wheel(tmp_path, tmp_path, {}),
        lambda: wheelhouse.portable("1.0", tmp_path),
        lambda: wheelhouse.repair(tmp_path / "x.whl", tmp_path),
    ):
        with pytest.raises(KitError):
            start()
    assert len(seen) == 4
    for command, variables in seen:
        assert command[:2] == [sys.executable, "-I"]
        assert "pip" not in command or "--isolated" in command
        assert not [n for n in variables if n.startswith(("PYTHON", "PIP_", "XDG_CONFIG"))]


def test_a_slimmed_wheel_lists_what_it_holds(tmp_path: Path) -> None:
    held = ["llama_cpp/llama.py", "llama_cpp/lib/libllama.so", "llama_cpp-1.dist-info/METADATA"]
    needless = [
        "llama_cpp/include/llama.h",
        "include/ggml.h",
        "llama_cpp/lib/libmtmd.so",
        "bin/llama-server",
    ]
    record = "llama_cpp-1.dist-info/RECORD"
    with zipfile.ZipFile(tmp_path / "llama_cpp-1-py3-none-any.whl", "w") as wheel:
        for name in held + needless:
            wheel.writestr(name, name)
        wheel.writestr(
            record,
            "".join(f"{name},sha256=x,{len(name)}\n" for name in held + needless) + f"{record},,\n",
        )
    slim = wheelhouse.slimmed(tmp_path / "llama_cpp-1-py3-none-any.whl", tmp_path / "slim")
    with zipfile.ZipFile(slim) as wheel:
        listed = [row.split(",")[0] for row in wheel.read(record).decode().splitlines()]
        assert sorted(listed) == sorted(wheel.namelist()) == sorted([*held, record])
