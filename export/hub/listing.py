"""What the hub states about the files of a commit: names, sizes and hashes."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from export.hub.files import FILE_NAME, HASH, CheckpointFile, needed
from export.models import ModelSpec
from pulse_edge.errors import FetchError

if TYPE_CHECKING:
    from requests import Response

_LIST_SECONDS = 30
"""Longest time until the hub answers, and between two pieces of an answer."""
_LIST_BYTES = 32 << 20
"""Largest list of files that is read; a repository of a thousand files has some 300 kB."""


def stated_files(spec: ModelSpec, hub: str) -> list[CheckpointFile]:
    """Return the needed files as the hub states them, the smallest first."""
    listing = _listing(spec, hub)
    if listing.get("sha") != spec.revision:
        raise FetchError(
            f"{spec.name}: {hub} answered with commit {str(listing.get('sha'))[:80]!r} of "
            f"{spec.hub} instead of {spec.revision}. Ask another hub: set HF_ENDPOINT."
        )
    siblings = {sibling["rfilename"]: sibling for sibling in listing["siblings"]}
    files = [
        _stated_file(spec, hub, siblings[name])
        for name in needed(spec, siblings, f"{hub}/{spec.hub}")
    ]
    return sorted(files, key=lambda file: file.bytes)


def _listing(spec: ModelSpec, hub: str) -> dict[str, Any]:
    """Return the hub's description of the commit, with a list of named `siblings`."""
    url = f"{hub}/api/models/{spec.hub}/revision/{spec.revision}"
    pieces, size = [], 0
    with get(url, params={"blobs": "True"}) as answer:
        for piece in answer.iter_content(1 << 16):
            pieces.append(piece)
            size += len(piece)
            if size > _LIST_BYTES:
                raise ValueError(f"its list of files is longer than {_LIST_BYTES >> 20} MiB")
    try:
        listing = json.loads(b"".join(pieces))
    except RecursionError:
        raise ValueError("its list of files is nested too deep") from None
    siblings = listing.get("siblings") if isinstance(listing, dict) else None
    if not isinstance(siblings, list) or not all(
        isinstance(sibling, dict) and isinstance(sibling.get("rfilename"), str)
        for sibling in siblings
    ):
        raise ValueError("its answer is no list of files")
    return dict(listing)


@contextlib.contextmanager
def get(
    url: str, headers: dict[str, str] | None = None, params: dict[str, str] | None = None
) -> Iterator[Response]:
    """Send a GET request, and yield the answer with its body unread.

    Raises huggingface_hub's errors for an HTTP status of failure.
    """
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    sent = build_hf_headers() | (headers or {})
    with get_session().get(
        url, headers=sent, params=params, timeout=_LIST_SECONDS, stream=True
    ) as answer:
        hf_raise_for_status(answer)
        yield answer


def _stated_file(spec: ModelSpec, hub: str, sibling: dict[str, Any]) -> CheckpointFile:
    """Return one file of the list. Raises FetchError for a bad name and a missing size or hash."""
    name, large = sibling["rfilename"], sibling.get("lfs")
    size, digest = (
        (large.get("size"), large.get("sha256")) if isinstance(large, dict) else (None, None)
    )
    if not isinstance(large, dict):
        size, digest = sibling.get("size"), sibling.get("blobId")
    if not FILE_NAME.fullmatch(name):
        raise FetchError(
            f"{spec.name}: {hub} names a file {name[:80]!r}, which is no name for a file here. "
            "Ask another hub: set HF_ENDPOINT."
        )
    if (
        type(size) is not int
        or size < 0
        or not isinstance(digest, str)
        or not HASH.fullmatch(digest)
    ):
        raise FetchError(
            f"{spec.name}: {hub} states no size or no hash for {name}, so that it could not be "
            "verified. Ask another hub: set HF_ENDPOINT."
        )
    return CheckpointFile(name, size, digest)
