"""A kit: a directory that explains itself by its manifest. Open one and list its files. Standard
library only."""

from __future__ import annotations

import hashlib
import json
import stat
from dataclasses import dataclass
from pathlib import Path

from pulse_edge.common import json_input
from pulse_edge.errors import KitError
from pulse_edge.kit.manifest import MANIFEST, Manifest
from pulse_edge.kit.manifest_reader import parse_manifest

KIT_VARIABLE = "PULSE_EDGE_KIT"
_DOCUMENTS = ("golden", "accuracy/", "findings.json", "README.md", "MODEL_CARD.md")
"""Beginnings of the names of files that no engine reads."""


@dataclass(frozen=True)
class Kit:
    """An opened kit: its directory, its manifest, and the SHA-256 of manifest.json, which covers
    every other file."""

    path: Path
    manifest: Manifest
    sha256: str

    def file(self, name: str) -> Path:
        """Path of one of the kit's files."""
        return self.path / name


def open_kit(path: Path) -> Kit:
    """Read a kit's manifest, and check that exactly the listed files are there with their sizes.

    The content of the files is not read: see `verify`. Raises KitError that names every fault.
    """
    if not path.is_dir():
        raise KitError(f"{path}: no such kit directory. Name one with --kit or {KIT_VARIABLE}.")
    try:
        raw = json_input.read(path / MANIFEST)
    except OSError as e:
        reason = (
            "has no manifest.json, so it is unfinished or no kit"
            if isinstance(e, FileNotFoundError)
            else str(e)
        )
        raise KitError(f"{path}: {reason}. Make one with `python -m export convert`.") from None
    except ValueError as e:
        raise KitError(f"{path / MANIFEST}: {e}, so this is no kit. Copy the kit again.") from None
    manifest = parse_manifest(raw.decode("utf-8", "replace"), str(path / MANIFEST))
    if faults := _file_faults(path, manifest):
        raise KitError(f"{path}: {'; '.join(faults)}. Copy the kit again.")
    return Kit(path.resolve(), manifest, hashlib.sha256(raw).hexdigest())


def _file_faults(path: Path, manifest: Manifest) -> list[str]:
    """Files that are missing, of another size, outside the kit, or not listed."""
    faults = []
    for name, file in manifest.files.items():
        try:
            about = (path / name).stat()
        except OSError:
            faults.append(f"{name} is missing")
            continue
        if not stat.S_ISREG(about.st_mode):
            faults.append(f"{name} is no regular file")
        elif not (path / name).resolve().is_relative_to(path.resolve()):
            faults.append(f"{name} is a link to a file outside the kit")
        elif about.st_size != file.bytes:
            faults.append(f"{name} has {about.st_size} bytes instead of {file.bytes}")
    present = {p.relative_to(path).as_posix() for p in path.rglob("*") if not p.is_dir()}
    foreign = sorted(present - manifest.files.keys() - {MANIFEST})
    return faults + [f"{name} does not belong to it" for name in foreign]


def encoder_files(manifest: Manifest) -> list[str]:
    """Names of the files that the encoder may read, sorted: its graph, and every file without
    another known purpose.

    ONNX lets a graph keep its weights in files of any name.
    """
    others = (manifest.language.file, manifest.packing.newline_file, manifest.draft_table_file)
    return sorted(
        name for name in manifest.files if name not in others and not name.startswith(_DOCUMENTS)
    )


def base_of(manifest: Manifest) -> dict[str, str]:
    """SHA-256 of the unquantized `language` model and `vision` encoder that a kit comes from.

    An unquantized kit is its own base. The encoder's hash covers all its files, because weights may
    lie next to the graph.
    """
    if manifest.quantization is not None:
        return manifest.quantization.base
    parts = [(name, manifest.files[name].sha256) for name in encoder_files(manifest)]
    encoder = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    return {"language": manifest.files[manifest.language.file].sha256, "vision": encoder}
