from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """Three pages, and one file that is none."""
    folder = tmp_path / "pages"
    folder.mkdir()
    for n, name in enumerate(("a.png", "b.png", "c.png")):
        Image.new("RGB", (60 + n, 60), "white").save(folder / name)
    (folder / "d.png").write_bytes(b"no picture")
    return folder
