"""Replace a kit by one with additional files.

At any moment either the old or the new kit is there, whole.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calibration.files import link
from pulse_edge.kit.kit import open_kit
from pulse_edge.kit.write import listing, write_manifest, writing


def put(path: Path, files: Mapping[str, bytes], instead: str, **changes: Any) -> None:
    """Replace the kit by one with these `files` and manifest fields.

    They take the place of files whose names begin with `instead`.

    Its other files are linked, not copied, where the file system can.
    """
    old = open_kit(path)
    others = {
        name: file for name, file in old.manifest.files.items() if not name.startswith(instead)
    }
    with writing(old.path, force=True) as work:
        for name, content in files.items():
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            (work / name).write_bytes(content)
        new = listing(work)
        for name in others:
            link(old.file(name), work / name)
        write_manifest(work, dataclasses.replace(old.manifest, files={**others, **new}, **changes))
