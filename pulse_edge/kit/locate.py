"""Find the kit to use: by path, by name, the chosen default, or the one that the package carries.
Standard library only."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from pulse_edge.common import installation, paths
from pulse_edge.errors import KitError
from pulse_edge.kit.kit import KIT_VARIABLE, Kit, open_kit
from pulse_edge.kit.manifest import MANIFEST


def installed_dir() -> Path:
    """The directory of installed kits, one directory a kit: with the program that a bundle
    installed, or for this user."""
    if (version := installation.version_folder()) is not None:
        return version / "kits"
    return paths.user_data() / "kits"


def bundle_warning(kit: Kit) -> str | None:
    """Return what every answer must say about the bundle that the kit, or the program, came from.
    Raises KitError."""
    version = installation.version_folder()
    if version is None:
        return None
    try:
        record = installation.read_record(version)
    except (OSError, ValueError) as e:
        raise KitError(
            f"{version / installation.INSTALL_RECORD}: cannot be read ({e}). "
            "Run the bundle's installer again."
        ) from None
    if record is None:
        return None
    inside = kit.path.parent == installed_dir().resolve()
    return record.kits.get(kit.path.name, record.warning) if inside else record.warning


def find(named: Path | None) -> Kit:
    """Open the kit to use: `named` (a directory, or an installed kit's name), or without it the
    first that is set of

    - $PULSE_EDGE_KIT, a directory or a name too,
    - the kit that `choose` made the default,
    - the only kit that is installed,
    - the only kit that the package carries.

    Raises KitError when there is none, or when several are installed and none was named or chosen.
    """
    if named is None and (variable := os.environ.get(KIT_VARIABLE)):
        named = Path(variable)
    if named is not None:
        return open_kit(_by_name(named, kits_by_name()) or named)
    if (name := default_name()) is not None:
        if name not in (kits := _kits_in(installed_dir())):
            raise KitError(
                f"{installed_dir()}: {name} was chosen as the default, and is not installed any "
                "more. "
                f"Choose another with `pulse-edge kit use NAME`{_listed(kits)}."
            )
        return open_kit(kits[name])
    for folder in (installed_dir(), _carried_dir()):
        kits = _kits_in(folder)
        if len(kits) > 1:
            raise KitError(
                f"{folder}: several kits ({', '.join(kits)}). Name one with --kit or "
                f"{KIT_VARIABLE}, "
                "or choose one for good with `pulse-edge kit use NAME`."
            )
        if kits:
            return open_kit(next(iter(kits.values())))
    raise KitError(
        f"no kit: none named, none in {installed_dir()}, none carried by the package. Name one "
        "with "
        f"--kit or {KIT_VARIABLE}; `python -m export convert` makes one from a checkpoint."
    )


def kits_by_name() -> dict[str, Path]:
    """Name and directory of every kit that can be named without its path; installed kits hide
    carried ones."""
    installed, carried = _kits_in(installed_dir()), _kits_in(_carried_dir())
    return installed | {name: path for name, path in carried.items() if name not in installed}


def folder_name(kit_id: str) -> str:
    """A kit's id as a folder name that every file system takes."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", kit_id).strip("-.")[:60] or "kit"


def default_name() -> str | None:
    """Name of the installed kit that answers when none is named; None if none was chosen. Raises
    KitError."""
    folder = installed_dir().parent
    try:
        default = installation.read_default(folder)
    except (OSError, ValueError) as e:
        raise KitError(
            f"{folder / installation.DEFAULT_KIT}: cannot be read ({e}). Choose a kit again with "
            "`pulse-edge kit use NAME`."
        ) from None
    return None if default is None else default.kit


def choose(named: str) -> Kit:
    """Make an installed kit the default for everybody who uses this installation, and return it.

    `named` is its name or the beginning of it. Raises KitError.
    """
    kits = _kits_in(installed_dir())
    listed = _listed(kits) or ": none"
    if named in _kits_in(_carried_dir()) and named not in kits:
        raise KitError(
            f"{named}: comes with the program, so it cannot be chosen: it answers while no kit is "
            f"installed. Name it with --kit, or set {KIT_VARIABLE}={named}. Installed in "
            f"{installed_dir()}{listed}."
        )
    path = kits.get(named) or _by_name(Path(named), kits)
    if path is None:
        raise KitError(f"{named}: is not an installed kit. Installed in {installed_dir()}{listed}.")
    kit = open_kit(path)
    folder = installed_dir().parent
    try:
        installation.write_default(folder, installation.DefaultKit(path.name, chosen=True))
    except OSError as e:
        raise KitError(
            f"{folder}: the choice cannot be written ({e.strerror}). Ask whoever installed "
            f"pulse-edge; for yourself alone, set {KIT_VARIABLE}={path.name}."
        ) from None
    return kit


def _carried_dir() -> Path:
    return paths.ASSETS / "kits"


def _kits_in(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        return {}
    return {path.parent.name: path.parent for path in sorted(folder.glob(f"*/{MANIFEST}"))}


def _listed(names: Iterable[str]) -> str:
    return f": {', '.join(names)}" if names else ""


def _by_name(named: Path, kits: Mapping[str, Path]) -> Path | None:
    """The kit of this name or id, or the only one whose name begins so; None if `named` is a path.

    A directory of that name in the current folder comes first. Raises KitError if no kit, or
    several, begin so.
    """
    if len(named.parts) != 1 or named.exists():
        return None
    word = folder_name(named.name)
    if word in kits:
        return kits[word]
    alike = [name for name in kits if name.casefold().startswith(word.casefold())]
    if len(alike) > 1:
        raise KitError(
            f"{named}: several kits begin so ({', '.join(alike)}). Write more of the name."
        )
    if not alike:
        raise KitError(
            f"{named}: no such kit directory, and no kit of this name is installed{_listed(kits)}."
        )
    return kits[alike[0]]
