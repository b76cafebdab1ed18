"""Find, fetch or build the wheels that a bundle needs, for each platform and Python.

Dependencies are resolved here: pip evaluates markers for the Python that it runs on, and a bundle
is packed for others. Every version is the one of the target's lock file, and every fetched wheel
has a hash that stands there.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pulse_edge.common import child_process, paths
from pulse_edge.deploy import builds
from pulse_edge.deploy.locks import Lock, Pin, lock_file, read_lock, refuse_unlocked
from pulse_edge.deploy.targets import EXTRAS, Target
from pulse_edge.deploy.wheels import Wheel, normalized, read_wheel
from pulse_edge.errors import KitError
from pulse_edge.installer.machine import this_platform

if TYPE_CHECKING:
    from packaging.requirements import Requirement

Say = Callable[[str], None]


@dataclass(frozen=True)
class Supply:
    """Where wheels come from."""

    given: tuple[Path, ...]
    """Wheel files that are taken before any other."""
    locks: Path
    """Folder of the lock files."""
    checkout: Path = paths.PACKAGE.parent
    """Source of pulse-edge's own wheel."""


def gather(
    targets: Iterable[Target],
    supply: Supply,
    extras: Iterable[str] = tuple(EXTRAS),
    say: Say = lambda _text: None,
) -> dict[Target, list[Wheel]]:
    """Return the wheels of each target, by name: those that are given, else fetched, or built for
    llama.cpp.

    `extras` are names in EXTRAS. `say` gets a line for each wheel that takes time. Raises KitError
    that names everything that is missing, for all targets at once.
    """
    given = [read_wheel(path) for path in supply.given]
    parts = tuple(extras)
    missing: list[str] = []
    gathered: dict[Target, list[Wheel]] = {}
    for target in targets:
        lock_path = lock_file(supply.locks, target)
        resolver = _Resolver(target, given, read_lock(lock_path), lock_path, supply.checkout, say)
        gathered[target] = sorted(resolver.closure(parts), key=lambda wheel: wheel.name)
        missing += resolver.missing
    if missing:
        raise KitError(
            f"the wheels: {'; '.join(missing)}. Build or fetch each, and name it with --wheel."
        )
    used = {wheel.path for wheels in gathered.values() for wheel in wheels}
    if unused := [wheel.path.name for wheel in given if wheel.path not in used]:
        raise KitError(
            f"--wheel: of no use for these platforms and Pythons: {', '.join(unused)}. Leave them "
            "out."
        )
    return gathered


class _Resolver:
    """Follows the dependencies of the program on one target, and supplies a wheel for each."""

    def __init__(
        self,
        target: Target,
        given: list[Wheel],
        lock: Lock,
        lock_path: Path,
        checkout: Path,
        say: Say,
    ) -> None:
        self._target, self._given, self._say = target, given, say
        self._lock, self._lock_path, self._checkout = lock, lock_path, checkout
        self._cache = paths.user_cache() / "wheels"
        self._folder = self._cache / f"{target.platform}-{target.python}"
        self.missing: list[str] = []
        """Wheels that cannot be had, in words."""

    def closure(self, extras: tuple[str, ...]) -> Iterator[Wheel]:
        """Yield the wheels of pulse-edge with its extras, of pip, and of all that they need."""
        from packaging.requirements import Requirement

        parts = ",".join((self._target.device, *extras))
        open_requirements = [Requirement(f"pulse-edge[{parts}]"), Requirement("pip")]
        resolved: set[str] = set()
        while open_requirements:
            requirements = {normalized(r.name): r for r in open_requirements}
            open_requirements = []
            for name, requirement in requirements.items():
                if name in resolved:
                    continue
                resolved.add(name)
                if (wheel := self._supply(name)) is None:
                    continue
                refuse_unlocked(wheel, self._lock, self._lock_path)
                absent = requirement.extras - set(wheel.metadata.get_all("Provides-Extra", []))
                if absent:
                    raise KitError(
                        f"{wheel.path}: has no part {', '.join(sorted(absent))}. Use a newer wheel."
                    )
                yield wheel
                open_requirements += _dependencies(wheel, requirement, self._target)

    def _supply(self, name: str) -> Wheel | None:
        """Return a wheel that was given, is cached, or can be fetched or built; None if it is
        `missing`.
        """
        pin = self._lock.get(name)
        version = None if pin is None else pin.version
        if wheel := _fitting(name, version, self._given, self._target):
            return wheel
        self._folder.mkdir(parents=True, exist_ok=True)
        if name == "pulse-edge":
            self._say(f"building pulse-edge's own wheel for {self._target}")
            return builds.own_wheel(self._checkout, self._folder)
        if pin is None:
            where = self._lock_path.name
            self.missing.append(f"{name} for {self._target} (no version of it in {where})")
            return None
        if name == "llama-cpp-python":
            return self._llama(pin)
        wheel = _fitting(name, version, self._cached(name, pin), self._target)
        if wheel is None:
            self._say(f"fetching {name}=={version} for {self._target}")
            wheel = fetch(pin, self._target, self._folder)
        if wheel is None:
            self.missing.append(f"{name}=={version} for {self._target}, {self._target.device}")
        return wheel

    def _cached(self, name: str, pin: Pin) -> list[Wheel]:
        """List the wheels of a package that were fetched before, and still have a hash of the lock
        file.
        """
        files = [p for p in self._folder.glob("*.whl") if normalized(p.name.split("-")[0]) == name]
        return [wheel for wheel in map(read_wheel, files) if wheel.sha256 in pin.hashes]

    def _llama(self, pin: Pin) -> Wheel | None:
        """Return the llama-cpp-python that was built before, for whatever Python, or build one.

        It is published as source only, and wheels from elsewhere may hold their builder's
        instruction set.
        """
        here = (this_platform(), "cpu")
        if (self._target.platform, self._target.device) != here:
            what = f"{pin.name}=={pin.version}"
            self.missing.append(f"{what} for {self._target}, {self._target.device}")
            return None
        folder = self._cache / "portable"
        folder.mkdir(parents=True, exist_ok=True)
        built = [read_wheel(path) for path in folder.glob("*.whl")]
        if wheel := _fitting(pin.name, pin.version, built, self._target):
            return wheel
        self._say(
            "building llama.cpp for every processor of this kind, once (a quarter of an hour or "
            "more)"
        )
        return read_wheel(builds.portable_llama(pin, folder))


def _dependencies(wheel: Wheel, requirement: Requirement, target: Target) -> Iterator[Requirement]:
    """Yield what a wheel needs on the target, with the extras that are required of it."""
    from packaging.requirements import Requirement

    extras = requirement.extras or {""}
    for line in wheel.metadata.get_all("Requires-Dist", []):
        needed = Requirement(line)
        if needed.marker is None or any(
            needed.marker.evaluate(target.markers | {"extra": extra}) for extra in extras
        ):
            yield needed


def _fitting(
    name: str, version: str | None, wheels: Iterable[Wheel], target: Target
) -> Wheel | None:
    """Return the wheel of this name that the target can install; version None: any."""
    from packaging.utils import parse_wheel_filename

    tags = target.tags()
    for wheel in wheels:
        if (
            wheel.name == name
            and version in (None, wheel.version)
            and parse_wheel_filename(wheel.path.name)[3] & tags
        ):
            return wheel
    return None


def fetch(pin: Pin, target: Target, folder: Path) -> Wheel | None:
    """Fetch a wheel from the registry into `folder`; None if the registry has none for the target.

    Raises KitError if the registry serves other bytes than those of the lock file.
    """
    with tempfile.TemporaryDirectory(dir=folder) as work:
        requirements = Path(work) / "requirements.txt"
        requirements.write_text(pin.requirement + "\n")
        options = ["--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes", "-d", work]
        options += ["--python-version", target.python, "--implementation", "cp"]
        for tag in target.platform_tags():
            options += ["--platform", tag]
        command = child_process.pip("download", *options, "-r", str(requirements))
        environment = child_process.environment()
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if "DO NOT MATCH THE HASHES" in done.stderr:
            raise KitError(
                f"{pin.name}=={pin.version}: the registry serves a file whose hash is not in the "
                "lock file. Do not pack it; find out why it was replaced."
            )
        if done.returncode:
            return None
        path = next(Path(work).glob("*.whl"))
        return read_wheel(Path(shutil.move(path, folder / path.name)))
