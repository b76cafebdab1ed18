"""Check fetched files against their hashes, also offline."""

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
    """FetchError that names each file that is not what it should be.

    They are removed, or a repeat would take them for done; `keep` them where nothing can be brought in their stead.
    """
    wrong = []
    for file in files:
        if not (fault := _fault(location.directory / file.name, file)):
            continue
        wrong.append(f"{file.name} ({fault})")
        # The library copies from its cache into a directory, so a damaged file in the cache would come back.
        for holder in () if keep else {location, location_of(spec, None)}:
            _discard(holder, file)
    if wrong:
        told = (
            "Fetch with HF_HUB_OFFLINE unset"
            if keep
            else "They are removed. Run the same command again"
        )
        raise FetchError(
            f"{location.directory}: {len(wrong)} of {len(files)} files of {spec.name} are damaged or missing: "
            f"{', '.join(wrong)}. {told}: it brings only these."
        )


def _fault(path: Path, file: CheckpointFile) -> str | None:
    """What is wrong with the file, None if nothing."""
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
    content = path.read_bytes()  # the hub keeps whatever exceeds 10 MB in LFS
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _discard(location: Location, file: CheckpointFile) -> None:
    path = location.directory / file.name
    if _fault(path, file) in (None, "missing"):
        return
    blob = path.resolve()
    path.unlink()
    if blob.parent == location.blobs.resolve():
        blob.unlink(missing_ok=True)


def recorded_files(spec: ModelSpec, location: Location) -> list[CheckpointFile]:
    """The commit's files that are there, with the hashes that huggingface_hub wrote down; FetchError if one lacks."""
    present = [path for path in location.directory.glob("*") if path.is_file()]
    hashes = {
        path.name: digest for path in present if (digest := _recorded_hash(spec, location, path))
    }
    advice = "Fetch it with HF_HUB_OFFLINE unset."
    try:
        names = needed(spec, hashes, str(location.directory))
    except FetchError:
        raise FetchError(
            f"{location.directory}: {spec.name} at {spec.revision} is not there, and HF_HUB_OFFLINE is set. {advice}"
        ) from None
    lacking = set().union(
        *(_indexed(location.directory / name) for name in names if name.endswith(".index.json"))
    )
    if lacking := lacking - hashes.keys():
        raise FetchError(
            f"{location.directory}: {', '.join(sorted(lacking))} missing, and HF_HUB_OFFLINE is set. {advice}"
        )
    return [
        CheckpointFile(name, (location.directory / name).stat().st_size, hashes[name])
        for name in names
    ]


def _recorded_hash(spec: ModelSpec, location: Location, path: Path) -> str | None:
    """In the cache a blob is named by its hash; beside one's own files lies a note: commit, hash, time."""
    if not location.own:
        return path.resolve().name if path.is_symlink() else None
    with contextlib.suppress(OSError, ValueError):
        commit, digest, _time = (location.blobs / f"{path.name}.metadata").read_text().split()
        return digest if commit == spec.revision else None
    return None


def _indexed(index: Path) -> set[str]:
    """The shards that an index names; none if it cannot be read, which its hash will show."""
    with contextlib.suppress(OSError, ValueError, KeyError, AttributeError, TypeError):
        return set(json.loads(index.read_bytes())["weight_map"].values())
    return set()
