"""Check fetched files against their hashes, and find the files of a commit offline."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path

from export.hub.files import CheckpointFile, Location, location_of, needed
from export.models import ModelSpec
from pulse_edge.common.files import file_sha256
from pulse_edge.errors import FetchError


def refuse_damaged(
    spec: ModelSpec, location: Location, files: list[CheckpointFile], *, keep: bool
) -> None:
    """Raise FetchError that names each file that is missing or damaged.

    Such files are removed, or a repeat would take them for complete. `keep` leaves them where they
    cannot be fetched again.
    """
    wrong = []
    for file in files:
        if not (fault := _fault(location.directory / file.name, file)):
            continue
        wrong.append(f"{file.name} ({fault})")
        # The library copies from its cache into a directory: a damaged file in the cache would come
        # back.
        for holder in () if keep else {location, location_of(spec, None)}:
            _discard(holder, file)
    if wrong:
        advice = (
            "Fetch with HF_HUB_OFFLINE unset"
            if keep
            else "They are removed. Run the same command again"
        )
        raise FetchError(
            f"{location.directory}: {len(wrong)} of {len(files)} files of {spec.name} are damaged "
            f"or missing: {', '.join(wrong)}. {advice}: it brings only these."
        )


def _fault(path: Path, file: CheckpointFile) -> str | None:
    """Return what is wrong with the file, or None."""
    if not path.is_file():
        return "missing"
    if (size := path.stat().st_size) != file.bytes:
        return f"{size} bytes instead of {file.bytes}"
    if len(file.hash) == hashlib.sha256().digest_size * 2:
        kind, actual = "sha256", file_sha256(path)
    else:
        kind, actual = "git hash", _git_hash(path)
    return (
        None if actual == file.hash else f"{kind} {actual[:12]}... instead of {file.hash[:12]}..."
    )


def _git_hash(path: Path) -> str:
    content = path.read_bytes()  # the hub keeps files above 10 MB in LFS
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _discard(location: Location, file: CheckpointFile) -> None:
    """Remove a damaged file, and the cache's blob that it links to."""
    path = location.directory / file.name
    if _fault(path, file) in (None, "missing"):
        return
    blob = path.resolve()
    path.unlink()
    if blob.parent == location.blobs.resolve():
        blob.unlink(missing_ok=True)


def recorded_files(spec: ModelSpec, location: Location) -> list[CheckpointFile]:
    """Return the commit's files that are there, with the hashes that huggingface_hub wrote down.

    Raises FetchError if a needed file is missing.
    """
    present = [path for path in location.directory.glob("*") if path.is_file()]
    hashes = {
        path.name: digest for path in present if (digest := _recorded_hash(spec, location, path))
    }
    advice = "Fetch it with HF_HUB_OFFLINE unset."
    try:
        names = needed(spec, hashes, str(location.directory))
    except FetchError:
        raise FetchError(
            f"{location.directory}: {spec.name} at {spec.revision} is not there, and "
            f"HF_HUB_OFFLINE is set. {advice}"
        ) from None
    lacking = set().union(
        *(_indexed(location.directory / name) for name in names if name.endswith(".index.json"))
    )
    if lacking := lacking - hashes.keys():
        raise FetchError(
            f"{location.directory}: {', '.join(sorted(lacking))} missing, and HF_HUB_OFFLINE is "
            f"set. {advice}"
        )
    return [
        CheckpointFile(name, (location.directory / name).stat().st_size, hashes[name])
        for name in names
    ]


def _recorded_hash(spec: ModelSpec, location: Location, path: Path) -> str | None:
    """Return the hash that was noted for a file, or None.

    In the cache a blob is named by its hash; a file in another directory has a note with commit,
    hash and time.
    """
    if not location.own:
        return path.resolve().name if path.is_symlink() else None
    with contextlib.suppress(OSError, ValueError):
        commit, digest, _time = (location.blobs / f"{path.name}.metadata").read_text().split()
        return digest if commit == spec.revision else None
    return None


def _indexed(index: Path) -> set[str]:
    """Return the shards that an index names; none if it is unreadable, which its hash will show."""
    with contextlib.suppress(OSError, ValueError, KeyError, AttributeError, TypeError):
        return set(json.loads(index.read_bytes())["weight_map"].values())
    return set()
