"""Download the files of a checkpoint one at a time; a broken transfer resumes."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from export.hub.files import CheckpointFile, Location, gigabytes, location_of
from export.hub.listing import get
from export.models import ModelSpec
from pulse_edge.errors import FetchError

_OTHER_BYTES = 256 << 20
"""Largest size of tokenizer, licences and the like, on top of the weights."""


def refuse_full_disk(spec: ModelSpec, location: Location, files: list[CheckpointFile]) -> None:
    """Raise FetchError where the disk has too little room for what is missing."""
    lacking = sum(file.bytes - _present_bytes(location, file) for file in files)
    existing = next(
        path
        for path in (location.directory, *location.directory.absolute().parents)
        if path.exists()
    )
    free = shutil.disk_usage(existing).free
    if lacking > free:
        elsewhere = (
            "name another directory"
            if location.own
            else "name a directory, or set HF_HOME to another disk"
        )
        raise FetchError(
            f"{location.directory}: {spec.name} needs {gigabytes(lacking)} more there, and "
            f"{gigabytes(free)} are free. Make room, or {elsewhere}."
        )


def refuse_other_size(spec: ModelSpec, hub: str, files: list[CheckpointFile]) -> None:
    """Raise FetchError where the hub states far more bytes than models.yaml.

    Such a hub could fill the disk.
    """
    stated = sum(file.bytes for file in files)
    if stated > 2 * spec.bytes + _OTHER_BYTES:
        raise FetchError(
            f"{spec.name}: {hub} states {gigabytes(stated)}, and models.yaml "
            f"{gigabytes(spec.bytes)}. Correct `bytes` in models.yaml, or ask another hub: set "
            "HF_ENDPOINT."
        )


def _present_bytes(location: Location, file: CheckpointFile) -> int:
    """Return the bytes of the file that are already there, finished or not."""
    there = [
        path
        for path in (location.directory / file.name, *location.blobs.glob(f"*{file.hash}*"))
        if path.is_file()
    ]
    return min(file.bytes, max((path.stat().st_size for path in there), default=0))


def fetch_file(
    spec: ModelSpec,
    file: CheckpointFile,
    location: Location,
    hub: str,
    retries: int,
    note: Callable[[str], None],
) -> None:
    """Download one file unless it is there, and give it its name."""
    from huggingface_hub.utils import WeakFileLock
    from requests.exceptions import ChunkedEncodingError, ConnectionError, Timeout

    target = location.directory / file.name
    if target.is_file():
        return
    for folder in (location.blobs, location.locks, location.directory):
        folder.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(location.locks / f"{file.hash}.lock"):
        partial = location.blobs / f"{file.hash}.incomplete"
        if not (location.blobs / file.hash).is_file() and not _copy_from_cache(
            spec, file, location, partial
        ):
            for more in range(retries, -1, -1):
                try:
                    _download(_address(spec, file, hub), partial, file, hub)
                    break
                except (
                    ChunkedEncodingError,
                    ConnectionError,
                    Timeout,
                ):  # The connection was closed, reset or silent mid-file.
                    if not more or not partial.is_file():
                        raise
                    note(f"{spec.name}: the connection broke in {file.name}, taking it up again")
        _name_file(spec, file, location, partial)


def _address(spec: ModelSpec, file: CheckpointFile, hub: str) -> str:
    from huggingface_hub import hf_hub_url

    return str(hf_hub_url(spec.hub, file.name, revision=spec.revision, endpoint=hub))


def _copy_from_cache(
    spec: ModelSpec, file: CheckpointFile, location: Location, partial: Path
) -> bool:
    """Copy the file from the cache to `partial`; return whether it was done.

    Only the caller's own directory gets copies, and only of files with the right size.
    """
    cached = location_of(spec, None).directory / file.name
    if not location.own or not cached.is_file() or cached.stat().st_size != file.bytes:
        return False
    shutil.copyfile(cached, partial)
    return True


def _download(url: str, partial: Path, file: CheckpointFile, hub: str) -> None:
    """Download the rest of `partial`.

    Raises FetchError once more bytes arrive than the hub stated, and discards them.
    """
    from huggingface_hub import constants

    start = partial.stat().st_size if partial.is_file() else 0
    if start > file.bytes:
        partial.unlink()
        start = 0
    if start == file.bytes and partial.is_file():
        return
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with get(url, headers) as answer:
        if start and answer.status_code != 206:  # the server sent the whole file
            start = 0
        size = start
        with open(partial, "r+b" if start else "wb") as f:
            f.seek(start)
            for piece in answer.iter_content(constants.DOWNLOAD_CHUNK_SIZE):
                size += len(piece)
                if size > file.bytes:
                    break
                f.write(piece)
    if size > file.bytes:
        partial.unlink()
        raise FetchError(
            f"{hub} sends more than the {file.bytes} bytes that it states. Ask another hub: set "
            "HF_ENDPOINT."
        )


def _name_file(spec: ModelSpec, file: CheckpointFile, location: Location, partial: Path) -> None:
    """Give a complete file its name, in the form of huggingface_hub's cache or directories."""
    target = location.directory / file.name
    if location.own:
        os.replace(partial, target)
        note = f"{spec.revision}\n{file.hash}\n{time.time()}\n"
        (location.blobs / f"{file.name}.metadata").write_text(note, "utf-8")
        return
    blob = location.blobs / file.hash
    if not blob.is_file():
        os.replace(partial, blob)
    target.unlink(missing_ok=True)
    try:
        target.symlink_to(os.path.relpath(blob, target.parent))
    except OSError:  # Windows without the right to make links
        shutil.copyfile(blob, target)
