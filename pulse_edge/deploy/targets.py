"""The kinds of laptop that a bundle can be packed for, and the parts of the program that it can
hold.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from packaging.tags import Tag

PYTHONS = ("3.10", "3.11", "3.12", "3.13")
DEVICES = ("cpu", "cuda")
EXTRAS = {
    "pdf": "reads PDF files",
    "heic": "reads HEIC pictures",
    "dicom": "reads DICOM files",
    "report": "writes PDF reports",
    "serve": "serves the local page (<code>pulse-edge serve</code>)",
}
"""Parts of the program (extras in pyproject.toml) that a bundle holds unless they are left out ->
what each does."""
_GLIBC = range(5, 36)
"""Minor versions of the manylinux_2_x tags that are accepted: up to glibc 2.35, that of Ubuntu
22.04."""
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
"""Name of a platform -> the values of environment markers there."""


@dataclass(frozen=True)
class Target:
    """A kind of laptop."""

    platform: str
    """A name in PLATFORMS."""
    python: str
    """Version of Python, such as 3.11."""
    device: str
    """`cpu` or `cuda`."""

    @property
    def markers(self) -> dict[str, str]:
        """The environment in which the markers of dependencies are evaluated."""
        return PLATFORMS[self.platform] | {
            "python_version": self.python,
            "python_full_version": f"{self.python}.0",
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
        }

    def tags(self) -> set[Tag]:
        """Return the tags that a wheel for this laptop may have."""
        from packaging import tags

        version = tuple(int(part) for part in self.python.split("."))
        names = self.platform_tags()
        return {
            *tags.cpython_tags(version, platforms=names),
            *tags.compatible_tags(version, f"cp{version[0]}{version[1]}", names),
        }

    def platform_tags(self) -> list[str]:
        """List the platform tags, newest first.

        Plain `linux_*` is none of them: such a wheel promises nothing about processor and C
        library.
        """
        system, machine = self.platform.split("-")
        if system == "windows":
            return ["win_amd64"]
        old = ["manylinux2014", "manylinux2010", "manylinux1"]
        newer = [f"manylinux_2_{minor}" for minor in reversed(_GLIBC)]
        return [f"{name}_{machine}" for name in (*newer, *old)]

    def __str__(self) -> str:
        return f"{self.platform} with Python {self.python}"


def targets(
    platforms: Iterable[str], pythons: Iterable[str], device: str = "cpu"
) -> tuple[Target, ...]:
    """Combine every platform with every Python."""
    versions = tuple(pythons)
    return tuple(Target(platform, python, device) for platform in platforms for python in versions)
