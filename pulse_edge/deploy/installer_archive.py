"""Write the installer as one archive that a bare Python runs: `python3 install.pyz`.

The same sources give the same bytes: names are sorted, dates fixed, line ends those of Unix, and
nothing is compressed, because compressors differ between systems.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import pulse_edge.installer

_DATE = (1980, 1, 1, 0, 0, 0)
"""The oldest date that a zip archive can hold."""


def contents() -> dict[str, bytes]:
    """Return the files of the archive by name.

    The package keeps its name, so that its modules are the same inside the archive and outside.
    Python runs the `__main__.py` at the root; it is the package's own, which knows both places.
    """
    folder = Path(pulse_edge.installer.__file__).parent
    sources = {p.name: p.read_bytes().replace(b"\r\n", b"\n") for p in folder.glob("*.py")}
    package = {f"pulse_edge/installer/{name}": data for name, data in sources.items()}
    return {"__main__.py": sources["__main__.py"], "pulse_edge/__init__.py": b"", **package}


def write(path: Path) -> None:
    """Write the archive to `path`."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in sorted(contents().items()):
            entry = zipfile.ZipInfo(name, _DATE)
            entry.create_system = 3  # Unix, whatever this machine is
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, data)
