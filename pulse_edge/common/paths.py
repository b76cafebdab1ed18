"""Where files lie: those that the package carries, and the per-user directories of each system.
Standard library only.

Linux follows the XDG base directory specification. macOS and Windows have no directory for state:
they keep it with the data.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
ASSETS = PACKAGE / "assets"
EXAMPLE_PAGE = ASSETS / "example_page.png"


def user_cache() -> Path:
    """The directory for what can be made again: cached image tokens, machine profiles, downloaded
    wheels."""
    if sys.platform == "win32":
        return user_data() / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches/pulse-edge"
    return _xdg("XDG_CACHE_HOME", ".cache")


def user_data() -> Path:
    """The directory for what the user installed: kits."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local") / "pulse-edge"
    if sys.platform == "darwin":
        return Path.home() / "Library/Application Support/pulse-edge"
    return _xdg("XDG_DATA_HOME", ".local/share")


def user_state() -> Path:
    """The directory for what must outlive a cleared cache: the audit log, self-test results."""
    return (
        user_data()
        if sys.platform in ("win32", "darwin")
        else _xdg("XDG_STATE_HOME", ".local/state")
    )


def _xdg(variable: str, default: str) -> Path:
    return Path(os.environ.get(variable) or Path.home() / default) / "pulse-edge"
