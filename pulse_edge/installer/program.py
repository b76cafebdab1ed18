"""Make a version's virtual environment from its wheels, and run the program in it."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import venv
import zipfile
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from .bundle import Bundle, Target, refuse_faults
from .copying import kits_of
from .files import Say
from .refusal import Refused

_UNPACKED_BYTES = 8 << 30
_PIP_OPTIONS = (
    "--no-index",
    "--no-deps",
    "--no-cache-dir",
    "--no-input",
    "--disable-pip-version-check",
    "--quiet",
)
_DROPPED_VARIABLES = (
    "PYTHON",
    "PIP_",
    "XDG_CONFIG_",
    "PULSE_EDGE",
    "LD_",
    "DYLD_",
    "VIRTUAL_ENV",
    "GGML_",
    "LLAMA_",
    "OPENSSL_",
)
"""Beginnings of variables that make Python, pip, the loader or an engine read code or settings from
elsewhere."""


def archive_faults(path: Path, most_bytes: int = _UNPACKED_BYTES) -> list[str]:
    """List the reasons why a wheel must not be unpacked; a line for each.

    These are paths outside its folder, links, devices, two files of one name, and more than
    `most_bytes` of files.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError) as e:
        return [f"{path.name}: not a wheel ({e})"]
    faults = []
    for entry in entries:
        kind = stat.S_IFMT(entry.external_attr >> 16)
        pure = PurePosixPath(entry.filename)
        if pure.is_absolute() or ".." in pure.parts or re.search(r"[\\:\x00]", entry.filename):
            faults.append(f"{path.name}: {entry.filename!r} would leave its folder")
        elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            faults.append(f"{path.name}: {entry.filename!r} is a link or a device")
    if len({e.filename.casefold() for e in entries}) != len(entries):
        faults.append(f"{path.name}: holds two files of one name")
    if sum(e.file_size for e in entries) > most_bytes:
        faults.append(f"{path.name}: would unpack to more than {most_bytes / 2**30:.1f} GiB")
    return faults


def make_environment(bundle: Bundle, target: Target, folder: Path, say: Say) -> None:
    """Make a version's virtual environment from its wheels alone. Raises Refused."""
    wheels = [folder / "wheels" / name for name in target.wheels]
    refuse_faults(bundle, [fault for wheel in wheels for fault in archive_faults(wheel)])
    ready = folder / "venv" / "ready"
    if ready.exists():
        return
    say("installing the program")
    venv.EnvBuilder(clear=True, symlinks=os.name == "posix").create(folder / "venv")
    # Debian's Python has no ensurepip, so that pip runs from its wheel.
    pip = next(wheel for wheel in wheels if wheel.name.startswith("pip-"))
    # Names are relative to the folder: pip would read a ";" in its path as the beginning of a
    # marker.
    names = [f"wheels/{wheel.name}" for wheel in wheels if wheel != pip]
    command = [str(pip / "pip"), "--isolated", "install", *_PIP_OPTIONS, *names]
    # pip asks the rustc of the search path for its version, which may write into the home folder.
    run(folder, command, "pip", PATH=str(python_of(folder).parent))
    ready.touch()


def python_of(folder: Path) -> Path:
    """Return the Python of a version's virtual environment."""
    return folder / "venv" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def run(folder: Path, arguments: list[str], task: str, **variables: str) -> str:
    """Run a version's Python in isolated mode and return its output; `task` is its name for
    messages.

    The environment holds nothing that this shell has set for Python or pip, and `variables`. Raises
    Refused.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith(_DROPPED_VARIABLES)}
    # ONNX Runtime posts to its maker unless this is set before its import. pip reads the settings
    # of the machine in spite of --isolated.
    environment |= {"ORT_DISABLE_TELEMETRY": "1", "PIP_CONFIG_FILE": os.devnull, **variables}
    done = subprocess.run(
        [str(python_of(folder)), "-I", "-B", *arguments],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        stdin=subprocess.DEVNULL,
        close_fds=False,
    )
    if done.returncode:
        last = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()][-3:]
        raise Refused(
            *last,
            f"{task}: failed ({done.returncode}). Nothing was changed. Repair that, and run "
            "install.pyz again.",
        )
    return done.stdout


def prove(folder: Path, new: Collection[str], say: Say) -> None:
    """Check every byte of every kit, and the golden cases of the `new` kits, with the installed
    program.

    `doctor` reads a page in any case, saves this machine's speed, and says if a kit has no golden
    cases. Raises Refused.
    """
    program = ["-m", "pulse_edge"]
    for kit in kits_of(folder):
        if kit.name not in new:
            say(f"verifying {kit.name}")
            run(folder, [*program, "kit", "verify", str(kit)], f"verifying {kit.name}")
            continue
        say(f"verifying {kit.name}, and reading pages with it (minutes on a slow machine)")
        output = run(folder, [*program, "doctor", "--kit", str(kit)], f"reading with {kit.name}")
        for line in output.splitlines():
            if "golden cases" in line:
                say(f"{kit.name}: {' '.join(line.split())}")
