"""Read wheel files: what they are, what they need, and whether other machines can run them."""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesParser
from pathlib import Path

from pulse_edge.errors import KitError
from pulse_edge.installer.files import sha256_of
from pulse_edge.installer.program import archive_faults

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
"""CMake options of a llama-cpp-python that starts on any CPU of its architecture, and loads the
library for the CPU that it finds. Its own install rules do not handle loadable backends; those of
ggml do, with these directories."""
_BASELINE = re.compile(r"llama_cpp/lib/(lib)?ggml-cpu-(x64|armv8\.0_1)\.(so|dll)")
"""llama.cpp's kernels for the oldest CPU of an architecture; a library for each newer one lies next
to them."""
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
"""Trove classifier or common name of a licence -> SPDX identifier."""


@dataclass(frozen=True)
class Wheel:
    """A wheel file."""

    path: Path
    name: str
    """Normalized name of the package."""
    version: str
    sha256: str
    unpacked: int
    """Bytes of its files."""
    metadata: Message

    @property
    def licence(self) -> str:
        """An SPDX expression if the package gives one, else the package's own words."""
        if expression := self.metadata.get("License-Expression"):
            return str(expression)
        classifiers = [
            c.split(" :: ")[-1]
            for c in self.metadata.get_all("Classifier", [])
            if c.startswith("License ::")
        ]
        identifiers = [_SPDX[c] for c in classifiers if c in _SPDX]
        text = str(self.metadata.get("License", "")).strip()
        short = text if text and len(text) < 40 and "\n" not in text else ""
        return " AND ".join(dict.fromkeys(identifiers)) or _SPDX.get(short, short) or "NOASSERTION"

    @property
    def glibc(self) -> list[int]:
        """The oldest glibc that its file name promises to run on, as [major, minor]; [] if it needs
        none.
        """
        versions = re.findall(r"manylinux_(\d+)_(\d+)_", self.path.name)
        oldest = [[int(major), int(minor)] for major, minor in versions]
        if "manylinux2014" in self.path.name:
            oldest.append([2, 17])
        return min(oldest, default=[])


def normalized(name: str) -> str:
    """Return the normalized name of a package: lower case, with hyphens."""
    from packaging.utils import canonicalize_name

    return str(canonicalize_name(name))


def read_wheel(path: Path) -> Wheel:
    """Read a wheel's name, metadata and hash. Raises KitError for a file that is none, or that must
    not be unpacked.
    """
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    try:
        name, version, _build, _tags = parse_wheel_filename(path.name)
    except InvalidWheelFilename as e:
        raise KitError(f"{path}: {e}. Give the wheel the name that it was built with.") from None
    if not path.is_file():
        raise KitError(f"{path}: no such file. Name a wheel that is there.")
    if faults := archive_faults(path):
        raise KitError(f"{'; '.join(faults)}. Build the wheel again.")
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        if fault := _native_fault(path.name, str(name), names):
            raise KitError(f"{path}: {fault}")
        inside = [n for n in names if re.fullmatch(r"[^/]+\.dist-info/METADATA", n)]
        if not inside:
            raise KitError(f"{path}: has no METADATA. Build the wheel again.")
        metadata = BytesParser().parsebytes(archive.read(inside[0]))
    size = sum(entry.file_size for entry in entries)
    return Wheel(path, str(name), str(version), sha256_of(path), size, metadata)


def _native_fault(file: str, name: str, inside: list[str]) -> str | None:
    """Return why a wheel must not go to other machines: it was built for the CPU of the machine
    that built it.
    """
    if re.search(r"-linux_\w+\.whl$", file):
        return (
            "was built for the machine that built it (its tag linux promises nothing about "
            "processor and C library). Let auditwheel repair a wheel that was built for every "
            "processor, or leave it out: pack fetches or builds its own."
        )
    if name == "llama-cpp-python" and not any(map(_BASELINE.fullmatch, inside)):
        options = " ".join(f"-D{k}={v}" for k, v in PORTABLE.items())
        return (
            "was built for the processor of one machine, and would die on an older one. Leave it "
            "out, and pack builds one for every processor; or build it with "
            f"CMAKE_ARGS={options!r}."
        )
    return None
