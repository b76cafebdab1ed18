"""Results of a kit's self-test on this machine: its golden cases came back, or the kit is refused.

A result is stored in the user's state directory ($PULSE_EDGE_STATE) and, where a bundle installed
the program and this user may write there, in the installation, so that it holds for everybody who
uses it. Neither is a cache: clearing caches forgets no refusal. A result belongs to a kit (its
manifest's hash), a processor and the engines' versions. The number of cores does not matter: a kit
that is refused on eight cores is refused on one. Standard library only.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from pulse_edge.common import files, installation, json_input, paths
from pulse_edge.common import folders as owned
from pulse_edge.errors import FolderError
from pulse_edge.kit.kit import Kit
from pulse_edge.machine import cpu, profile

FORMAT = "pulse-edge self-test 1"
STATE_VARIABLE = "PULSE_EDGE_STATE"


@dataclass(frozen=True)
class Result:
    """The result of one self-test."""

    kit: str
    """SHA-256 of the kit's manifest."""
    refused: str | None
    """Why the kit must not answer here; None: its golden cases came back."""
    time: str
    """UTC, ISO 8601."""
    format: str = FORMAT


def processor() -> str:
    """Return a hash of everything about this machine that can change the numbers of an answer:
    processor and engines."""
    parts = [platform.machine(), cpu.name(), sorted(cpu.flags()), profile.engines()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def folders() -> list[Path]:
    """Return where results are stored: the user's state directory first, then the installation that
    a bundle made."""
    variable = os.environ.get(STATE_VARIABLE)
    state = Path(variable) if variable else paths.user_state()
    version = installation.version_folder()
    own = [] if version is None else [version]
    return [folder / "self-tests" for folder in (state, *own)]


def recall(kit: Kit) -> Result | None:
    """Return the stored result for a kit on this machine; None: not proven here. A refusal in any
    folder outweighs a pass."""
    results = list(_stored(kit))
    return next((r for r in results if r.refused), results[0] if results else None)


def _stored(kit: Kit) -> Iterator[Result]:
    for folder in folders():
        with contextlib.suppress(OSError, ValueError, TypeError):
            result = Result(**json_input.parse(json_input.read(_file(folder, kit))))
            if (
                result.format == FORMAT
                and result.kit == kit.sha256
                and isinstance(result.refused, str | None)
            ):
                yield result


def store(kit: Kit, refused: str | None) -> list[str]:
    """Store a result in every folder that this user may write; return why others could not be
    written."""
    time = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    text = json.dumps(asdict(Result(kit.sha256, refused, time)), indent=1) + "\n"
    problems = []
    for n, folder in enumerate(folders()):
        path = _file(folder, kit)
        try:
            if (
                n and not folder.exists()
            ):  # of an installation: everybody who uses it must see a refusal
                folder.mkdir()
                folder.chmod(0o755)
            owned.claim(folder, "self-test-results")
            files.write_text(path, text, rights=0o644)  # holds no secret
        except FolderError as e:
            problems.append(str(e))
        except OSError as e:
            # Another user's installation: it only matters that a refusal stored there is not out of
            # date.
            if n == 0 or path.exists():
                problems.append(f"{path}: cannot be written ({e.strerror or e})")
    return problems


def _file(folder: Path, kit: Kit) -> Path:
    return folder / f"{kit.sha256[:20]}-{processor()[:20]}.json"
