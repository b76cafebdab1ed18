"""Which wheels are packed, and how they are built."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import small_bundle

from pulse_edge.deploy import builds, targets, wheelhouse, wheels
from pulse_edge.deploy.locks import Pin
from pulse_edge.deploy.wheelhouse import Supply
from pulse_edge.errors import KitError

pytest.importorskip("cryptography", reason="signing needs the package cryptography")


def test_everything_missing_is_named_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(wheelhouse, "fetch", lambda *_: None)
    more = "Requires-Dist: numpy\nRequires-Dist: colorama; sys_platform == 'win32'\n"
    more += "Requires-Dist: llama-cpp-python\n"
    needing = small_bundle.wheel(tmp_path, "pulse-edge", "1.0", {}, small_bundle.EXTRAS + more)
    given = (needing, small_bundle.pip_wheel())
    older, newer = targets.targets(["windows-x86_64"], ["3.11", "3.12"])
    locks = tmp_path / "locks"
    small_bundle.write_lock(locks, older, given, "numpy==1.0", "llama-cpp-python==9.9")
    small_bundle.write_lock(locks, newer, given, "llama-cpp-python==9.9")
    with pytest.raises(KitError) as e:
        wheelhouse.gather((older, newer), Supply(given, locks))
    for line in (
        "numpy==1.0 for windows-x86_64 with Python 3.11",
        "numpy for windows-x86_64 with Python 3.12 (no version of it in "
        "windows-x86_64-py312-cpu.txt)",
        "colorama for windows-x86_64 with Python 3.11 (no version",
        "llama-cpp-python==9.9 for windows-x86_64 with Python 3.12",
        "--wheel",
    ):
        assert line in str(e.value)


def test_a_program_that_lacks_a_part_is_refused(tmp_path: Path) -> None:
    own = small_bundle.wheel(
        tmp_path, "pulse-edge", "1.0", {}, "Provides-Extra: cpu\nProvides-Extra: pdf\n"
    )
    given = (own, small_bundle.pip_wheel())
    locks = small_bundle.write_lock(tmp_path / "locks", small_bundle.here(), given)
    with pytest.raises(KitError, match="has no part dicom, heic, report"):
        wheelhouse.gather([small_bundle.here()], Supply(given, locks))


def test_a_wheel_that_is_not_in_the_lock_file_is_refused(tmp_path: Path) -> None:
    other = small_bundle.wheel(tmp_path / "other", "numpy", "1.0", {"x.py": b"other"})
    numpy = small_bundle.wheel(tmp_path, "numpy", "1.0", {"x.py": b"reviewed"})
    about = small_bundle.EXTRAS + "Requires-Dist: numpy\n"
    own = small_bundle.wheel(tmp_path, "pulse-edge", "1.0", {}, about)
    given, pip = (own, other), small_bundle.pip_wheel()
    locks = small_bundle.write_lock(tmp_path / "locks", small_bundle.here(), (numpy, pip))
    with pytest.raises(KitError, match=r"numpy-1\.0-.*is not in .*locks") as e:
        wheelhouse.gather([small_bundle.here()], Supply((*given, pip), locks))
    assert wheels.read_wheel(other).sha256 in str(e.value)
    assert wheelhouse.gather([small_bundle.here()], Supply((own, numpy, pip), locks))


def test_a_cached_wheel_that_is_not_in_the_lock_file_is_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    target, pip = small_bundle.here(), small_bundle.pip_wheel()
    cache = tmp_path / f"cache/pulse-edge/wheels/{target.platform}-{target.python}"
    small_bundle.wheel(cache, "numpy", "1.0", {"x.py": b"other"})
    numpy = small_bundle.wheel(tmp_path, "numpy", "1.0", {"x.py": b"reviewed"})
    about = small_bundle.EXTRAS + "Requires-Dist: numpy\n"
    own = small_bundle.wheel(tmp_path, "pulse-edge", "1.0", {}, about)
    locks = small_bundle.write_lock(tmp_path / "locks", target, (numpy, pip))
    monkeypatch.setattr(wheelhouse, "fetch", lambda *_: wheels.read_wheel(numpy))
    gathered = wheelhouse.gather([target], Supply((own, pip), locks))
    assert numpy in [wheel.path for wheel in gathered[target]]


def test_fetching_and_building_check_the_hashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pip gets the hashes, so that it refuses a source before it runs any of it."""
    requirements: list[str] = []

    def failing(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        assert "--require-hashes" in command
        requirements.append(Path(command[command.index("-r") + 1]).read_text())
        stderr = "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE."
        return subprocess.CompletedProcess(command, 1, "", stderr)

    monkeypatch.setattr(subprocess, "run", failing)
    pin = Pin("llama-cpp-python", "1.0", frozenset(["a" * 64, "b" * 64]))
    with pytest.raises(KitError, match="serves a file whose hash is not in the lock file"):
        wheelhouse.fetch(pin, small_bundle.here(), tmp_path)
    with pytest.raises(KitError, match="fetching the source"):
        builds.portable_llama(pin, tmp_path)
    line = f"llama-cpp-python==1.0 --hash=sha256:{'a' * 64} --hash=sha256:{'b' * 64}\n"
    assert requirements == [line, line]


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
        wheels.read_wheel(path)


@pytest.mark.parametrize(
    "file",
    ["libggml-cpu-x64.so", "ggml-cpu-x64.dll", "libggml-cpu-armv8.0_1.so"],
    ids=["Linux", "Windows", "ARM"],
)
def test_a_llama_cpp_of_every_processor_is_taken(tmp_path: Path, file: str) -> None:
    path = small_bundle.wheel(tmp_path, "llama-cpp-python", "1.0", {f"llama_cpp/lib/{file}": b""})
    assert wheels.read_wheel(path).name == "llama-cpp-python"


def test_a_wheel_that_was_built_for_its_builder_is_refused(tmp_path: Path) -> None:
    path = small_bundle.wheel(tmp_path, "numpy", "1.0", {}, tag="cp311-cp311-linux_x86_64")
    with pytest.raises(KitError, match="was built for the machine that built it"):
        wheels.read_wheel(path)


def test_child_processes_of_packing_are_isolated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pip and auditwheel do not see the current folder, PYTHON and PIP variables, or the user's
    settings for pip.
    """
    for name in (
        "PYTHONPATH",
        "PYTHONHOME",
        "PIP_TARGET",
        "PIP_CONFIG_FILE",
        "XDG_CONFIG_DIRS",
        "XDG_CONFIG_HOME",
    ):
        monkeypatch.setenv(name, str(tmp_path))
    calls: list[tuple[list[str], dict[str, str]]] = []

    def failing(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        calls.append((command, options["env"]))
        return subprocess.CompletedProcess(command, 1, "", "")

    monkeypatch.setattr(subprocess, "run", failing)
    pin = Pin("numpy", "1.0", frozenset(["0" * 64]))
    assert wheelhouse.fetch(pin, small_bundle.here(), tmp_path) is None
    with pytest.raises(KitError):
        builds.build_wheel(tmp_path, tmp_path, {})
    with pytest.raises(KitError):
        builds.portable_llama(pin, tmp_path)
    with pytest.raises(KitError):
        builds.repair(tmp_path / "x.whl", tmp_path)
    assert len(calls) == 4
    for command, variables in calls:
        assert command[:2] == [sys.executable, "-I"]
        assert "pip" not in command or "--isolated" in command
        assert not [n for n in variables if n.startswith(("PYTHON", "PIP_", "XDG_CONFIG"))]


def test_a_slim_wheel_lists_exactly_its_files(tmp_path: Path) -> None:
    retained = ["llama_cpp/llama.py", "llama_cpp/lib/libllama.so", "llama_cpp-1.dist-info/METADATA"]
    needless = [
        "llama_cpp/include/llama.h",
        "include/ggml.h",
        "llama_cpp/lib/libmtmd.so",
        "bin/llama-server",
    ]
    record = "llama_cpp-1.dist-info/RECORD"
    with zipfile.ZipFile(tmp_path / "llama_cpp-1-py3-none-any.whl", "w") as wheel:
        for name in retained + needless:
            wheel.writestr(name, name)
        wheel.writestr(
            record,
            "".join(f"{name},sha256=x,{len(name)}\n" for name in retained + needless)
            + f"{record},,\n",
        )
    slim = builds.slim(tmp_path / "llama_cpp-1-py3-none-any.whl", tmp_path / "slim")
    with zipfile.ZipFile(slim) as wheel:
        listed = [row.split(",")[0] for row in wheel.read(record).decode().splitlines()]
        assert sorted(listed) == sorted(wheel.namelist()) == sorted([*retained, record])
