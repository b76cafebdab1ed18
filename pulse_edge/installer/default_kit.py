"""Which kit answers when none is named: the file `default-kit.json` in the parent of a `kits`
folder.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from . import machine
from .bundle import Bundle
from .files import Say, write_atomically
from .home import DEFAULT_KIT

_FORMAT = "pulse-edge default kit"
_GIB = 1 << 30


@dataclass(frozen=True)
class DefaultKit:
    """The kit that answers when none is named."""

    kit: str
    """Name of its folder."""
    chosen: bool
    """True if a person chose it, so that an update leaves the choice alone."""


def read_default(folder: Path) -> DefaultKit | None:
    """Read the default kit; None if none is set. Raises OSError or ValueError for a broken file."""
    try:
        raw = json.loads((folder / DEFAULT_KIT).read_text("utf-8"))
    except FileNotFoundError:
        return None
    if not isinstance(raw, dict) or raw.get("format") != _FORMAT:
        raise ValueError("not the choice of a kit")
    if not isinstance(raw.get("kit"), str):
        raise ValueError("not the choice of a kit")
    return DefaultKit(raw["kit"], raw.get("chosen") is True)


def write_default(folder: Path, default: DefaultKit) -> None:
    """Replace the default kit. Raises OSError."""
    about = {"format": _FORMAT, "kit": default.kit, "chosen": default.chosen}
    write_atomically(folder / DEFAULT_KIT, json.dumps(about).encode() + b"\n")


def select(
    bundle: Bundle, before: Path | None, kits: Collection[str], say: Say
) -> DefaultKit | None:
    """Select the default kit of a new version with these kits; `before` is the folder of the
    version in use.

    A person's choice stays. Else it is the bundle's first kit, or the next one that this machine
    has the memory for.
    """
    earlier = None
    if before is not None:
        with contextlib.suppress(
            OSError, ValueError
        ):  # a broken choice is replaced by the bundle's
            earlier = read_default(before)
    if earlier is not None and earlier.kit in kits and (earlier.chosen or bundle.default is None):
        default = earlier
    elif bundle.default is not None:
        default = DefaultKit(_first_that_fits(bundle, bundle.default, say), chosen=False)
    else:
        return None
    if len(kits) > 1:
        how = ", as you chose" if default.chosen else ""
        say(
            f"kits: {', '.join(sorted(kits))}. {default.kit} answers{how}; `pulse-edge kit use "
            "NAME` chooses another"
        )
    return default


def _first_that_fits(bundle: Bundle, first: str, say: Say) -> str:
    """Return the first kit that this machine has the memory for, else the smallest."""
    have = machine.installed_memory()
    if have is None or bundle.kits[first].memory <= have:
        return first
    fitting = [name for name, kit in bundle.kits.items() if kit.memory <= have]
    smallest = min(bundle.kits, key=lambda name: bundle.kits[name].memory)
    other = fitting[0] if fitting else smallest
    if other != first:
        needed = bundle.kits[first].memory
        say(
            f"{first} needs {needed / _GIB:.1f} GiB of memory, and this machine has "
            f"{have / _GIB:.1f} GiB"
        )
    return other
