"""Read what the installer has written about the installation that this program runs from.

The installer shares no code with the program, because it travels alone; the files between them are
this contract:

    HOME/current             name of the version in use, one line
    HOME/versions/NAME/
        bundle.json          manifest of the bundle that was installed
        install.json         {"program": version, "key": id of the key or null,
                             "warning": text or null, "kits": {folder: text or null}};
                             each text is printed with every answer
        default-kit.json     {"format": "pulse-edge default kit", "kit": folder,
                             "chosen": true if a person chose it}
        kits/FOLDER/         one kit each
        venv/                the program

Without an installation, `default-kit.json` and `kits/` lie in the user's data directory. Standard
library only.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from pulse_edge.common import files

BUNDLE_MANIFEST = "bundle.json"
INSTALL_RECORD = "install.json"
DEFAULT_KIT = "default-kit.json"
_DEFAULT_FORMAT = "pulse-edge default kit"


def version_folder() -> Path | None:
    """Return the folder of the installed version that this program runs from; None if no bundle
    installed it.
    """
    folder = Path(sys.prefix).parent
    if (folder / BUNDLE_MANIFEST).is_file() and folder.parent.name == "versions":
        return folder
    return None


def home() -> Path | None:
    """Return the folder of the installation that this program runs from; None if no bundle
    installed it.
    """
    folder = version_folder()
    return None if folder is None else folder.parent.parent


@dataclass(frozen=True)
class InstallRecord:
    """What install.json says about a version."""

    warning: str | None
    """Text that every answer carries, such as that the bundle was unsigned; None: its signature is
    trusted."""
    kits: dict[str, str | None]
    """The same for each kit, by folder name: kits may have come with an earlier bundle."""


def read_record(folder: Path) -> InstallRecord | None:
    """Read a version's install.json; None if it is absent. Raises OSError or ValueError for one
    that is broken.
    """
    try:
        raw = json.loads((folder / INSTALL_RECORD).read_text("utf-8"))
    except FileNotFoundError:
        return None
    if not isinstance(raw, dict) or "warning" not in raw or not isinstance(raw.get("kits"), dict):
        raise ValueError("not the record of an installation")
    texts = [raw["warning"], *raw["kits"].values()]
    if not all(text is None or isinstance(text, str) for text in texts):
        raise ValueError("a warning is not a text")
    return InstallRecord(raw["warning"], raw["kits"])


@dataclass(frozen=True)
class DefaultKit:
    """The kit that answers when none is named."""

    kit: str
    """Name of its folder."""
    chosen: bool
    """True if a person chose it, so that an update leaves the choice alone."""


def read_default(folder: Path) -> DefaultKit | None:
    """Read the default kit from the parent of a `kits` folder; None if none is set. Raises OSError
    or ValueError.
    """
    try:
        raw = json.loads((folder / DEFAULT_KIT).read_text("utf-8"))
    except FileNotFoundError:
        return None
    if (
        not isinstance(raw, dict)
        or raw.get("format") != _DEFAULT_FORMAT
        or not isinstance(raw.get("kit"), str)
    ):
        raise ValueError("not the choice of a kit")
    return DefaultKit(raw["kit"], raw.get("chosen") is True)


def write_default(folder: Path, default: DefaultKit) -> None:
    """Replace the default kit in the parent of a `kits` folder. Raises OSError."""
    about = {"format": _DEFAULT_FORMAT, "kit": default.kit, "chosen": default.chosen}
    files.write_text(folder / DEFAULT_KIT, json.dumps(about) + "\n", rights=0o644)
