"""Where the files lie that the package carries."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
ASSETS = PACKAGE / "assets"
EXAMPLE_PAGE = ASSETS / "example_page.png"
