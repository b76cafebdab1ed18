"""A `ModelSpec` in, the directory that holds its checkpoint out: files from the Hugging Face hub, at the pinned commit.

Interrupted fetches resume. Nothing is trusted because it arrived: every file's size and hash is checked against what
the hub states for the commit (sha256 of Git LFS files, git's own hash of the small ones), at each call. A hub is not
trusted either: names and hashes that it states are looked at before they become names of files, and no more bytes are
read than it stated. Addresses, directories and tokens are those of huggingface_hub, and so is the form of the cache:
HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_HUB_OFFLINE. The files come by plain HTTP, which resumes; not by
huggingface_hub's own download, which names files by whatever ETag the server sends, and stores whatever follows.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pulse_edge.common.files import file_sha256
from pulse_edge.errors import FetchError

from .models import ModelSpec

if TYPE_CHECKING:
    from requests import HTTPError, Response

# huggingface_hub is imported inside the functions: it takes its time, and `--help` must not wait for it.

_WANTED = (
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "preprocessor_config.json",
    "processor_config.json",
    "README.md",
    "LICENSE*",
)
_SAFETENSORS = ("*.safetensors", "*.safetensors.index.json")
_PICKLES = ("pytorch_model*.bin", "pytorch_model*.bin.index.json")
"""Only where there are no safetensors."""

_LIST_SECONDS = 30
"""Until the hub answers, and between two pieces of an answer."""
_LIST_BYTES = 32 << 20
"""Of the hub's list of files at most; a repository of a thousand files has some 300 kB."""
_OTHER_BYTES = 256 << 20
"""Of tokenizer, licences and the like, on top of the weights."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ +@=-]{0,150}")
"""Of a file that is fetched: a name on every system, and no path."""
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_AGAIN = "Run the same command again: it resumes."


def fetch(
    spec: ModelSpec,
    into: Path | None = None,
    *,
    endpoint: str | None = None,
    retries: int = 4,
    note: Callable[[str], None] = lambda _line: None,
) -> Path:
    """Bring the checkpoint, and return the directory that holds its files, all of them verified.

    `into`: where to put the files, replacing what has their names; None: huggingface_hub's own cache.
    `endpoint`: the hub's address; None: HF_ENDPOINT, or the public hub. `retries`: how often a file's transfer that
    breaks off is taken up again within this call. `note` gets a line at each step that takes time.

    With HF_HUB_OFFLINE=1 nothing is asked for: the files must be there, and are checked against the hashes that
    huggingface_hub wrote down when it fetched them.

    Raises FetchError, one line with the next step: no such repository or revision, no access, hub out of reach or gone
    mid-way, too little free disk, files missing, damaged files (each is named and removed, so that a repeat brings it).
    """
    from huggingface_hub import constants

    _settle_library()
    place = _place(spec, into)
    hub = (endpoint or constants.ENDPOINT).rstrip("/")
    offline = constants.HF_HUB_OFFLINE
    if offline:
        files = _recorded(spec, place)
    else:
        with _one_line(spec, hub):
            files = _stated(spec, hub)
            _refuse_full_disk(spec, place, files)
            _refuse_other_size(spec, hub, files)
        for file in files:
            with _one_line(spec, hub, file.name):
                _bring(spec, file, place, hub, retries, note)
    note(
        f"{spec.name}: checking the hashes of {len(files)} files, {_gigabytes(sum(f.bytes for f in files))}"
    )
    with _one_line(spec, hub):
        _refuse_damaged(spec, place, files, keep=offline)
    return place.directory


def _settle_library() -> None:
    """Telemetry off.

    Set at the library's constants, which it reads at every call: its environment variables count only before its first
    import, and transformers may have imported it long ago.
    """
    from huggingface_hub import constants

    constants.HF_HUB_DISABLE_TELEMETRY = True


# --- which files, and where ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _File:
    """One file of the commit."""

    name: str
    bytes: int
    hash: str
    """Git LFS file: sha256, 64 digits; any other: git's blob hash, 40 digits. The hub sends it as ETag."""


@dataclass(frozen=True)
class _Place:
    """Where huggingface_hub keeps a commit's files."""

    directory: Path
    """Holds the files under their names."""
    blobs: Path
    """Holds unfinished files, `...{hash}.incomplete`; in the cache also the finished ones, that `directory` links to."""
    own: bool
    """True: a directory of the caller's; False: the cache."""
    locks: Path
    """Holds the locks of files that are being fetched, where huggingface_hub looks for them too."""


def _place(spec: ModelSpec, into: Path | None) -> _Place:
    from huggingface_hub import constants

    if into is not None:
        notes = into / ".cache" / "huggingface" / "download"
        return _Place(into, notes, own=True, locks=notes)
    cache, name = Path(constants.HF_HUB_CACHE), f"models--{spec.hub.replace('/', '--')}"
    locks = cache / ".locks" / name
    return _Place(
        cache / name / "snapshots" / spec.revision, cache / name / "blobs", own=False, locks=locks
    )


def _stated(spec: ModelSpec, hub: str) -> list[_File]:
    """What the hub says about the files that are needed, the smallest first."""
    said = _listing(spec, hub)
    if said.get("sha") != spec.revision:
        raise FetchError(
            f"{spec.name}: {hub} answered with commit {str(said.get('sha'))[:80]!r} of {spec.hub} instead of "
            f"{spec.revision}. Ask another hub: set HF_ENDPOINT."
        )
    siblings = {sibling["rfilename"]: sibling for sibling in said["siblings"]}
    files = [
        _stated_file(spec, hub, siblings[name])
        for name in _needed(spec, siblings, f"{hub}/{spec.hub}")
    ]
    return sorted(files, key=lambda file: file.bytes)


def _listing(spec: ModelSpec, hub: str) -> dict[str, Any]:
    """The hub's description of the commit, with a list of named `siblings`."""
    url = f"{hub}/api/models/{spec.hub}/revision/{spec.revision}"
    pieces, size = [], 0
    with _asked(url, params={"blobs": "True"}) as answer:
        for piece in answer.iter_content(1 << 16):
            pieces.append(piece)
            size += len(piece)
            if size > _LIST_BYTES:
                raise ValueError(f"its list of files is longer than {_LIST_BYTES >> 20} MiB")
    try:
        said = json.loads(b"".join(pieces))
    except RecursionError:
        raise ValueError("its list of files is nested too deep") from None
    siblings = said.get("siblings") if isinstance(said, dict) else None
    if not isinstance(siblings, list) or not all(
        isinstance(sibling, dict) and isinstance(sibling.get("rfilename"), str)
        for sibling in siblings
    ):
        raise ValueError("its answer is no list of files")
    return dict(said)


@contextlib.contextmanager
def _asked(
    url: str, headers: dict[str, str] | None = None, params: dict[str, str] | None = None
) -> Iterator[Response]:
    """The answer to a GET, its body not read yet. Raises huggingface_hub's errors for an HTTP status of failure."""
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    asked = build_hf_headers() | (headers or {})
    with get_session().get(
        url, headers=asked, params=params, timeout=_LIST_SECONDS, stream=True
    ) as answer:
        hf_raise_for_status(answer)
        yield answer


def _stated_file(spec: ModelSpec, hub: str, sibling: dict[str, Any]) -> _File:
    name, large = sibling["rfilename"], sibling.get("lfs")
    size, digest = (
        (large.get("size"), large.get("sha256")) if isinstance(large, dict) else (None, None)
    )
    if not isinstance(large, dict):
        size, digest = sibling.get("size"), sibling.get("blobId")
    if not _NAME.fullmatch(name):
        raise FetchError(
            f"{spec.name}: {hub} names a file {name[:80]!r}, which is no name for a file here. Ask another hub: set "
            "HF_ENDPOINT."
        )
    if (
        type(size) is not int
        or size < 0
        or not isinstance(digest, str)
        or not _HASH.fullmatch(digest)
    ):
        raise FetchError(
            f"{spec.name}: {hub} states no size or no hash for {name}, so that it could not be verified. "
            "Ask another hub: set HF_ENDPOINT."
        )
    return _File(name, size, digest)


def _needed(spec: ModelSpec, names: Collection[str], where: str) -> list[str]:
    """Those of `names` that a conversion reads; FetchError if they are no checkpoint. Files in folders never count."""

    def matching(patterns: tuple[str, ...]) -> list[str]:
        top = [name for name in names if "/" not in name and "\\" not in name]
        return [
            name for name in top if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
        ]

    weights = matching(_SAFETENSORS)
    if not fnmatch.filter(weights, "*.safetensors"):
        weights = matching(_PICKLES)
    if "config.json" not in names or not weights:
        lacking = "weights" if "config.json" in names else "config.json"
        raise FetchError(
            f"{spec.name}: {where} holds no {lacking}. Correct `hub` and `revision` in models.yaml."
        )
    return [*matching(_WANTED), *weights]


# --- bringing --------------------------------------------------------------------------------------------------------


def _refuse_full_disk(spec: ModelSpec, place: _Place, files: list[_File]) -> None:
    lacking = sum(file.bytes - _held(place, file) for file in files)
    existing = next(
        path for path in (place.directory, *place.directory.absolute().parents) if path.exists()
    )
    free = shutil.disk_usage(existing).free
    if lacking > free:
        elsewhere = (
            "name another directory"
            if place.own
            else "name a directory, or set HF_HOME to another disk"
        )
        raise FetchError(
            f"{place.directory}: {spec.name} needs {_gigabytes(lacking)} more there, and {_gigabytes(free)} are free. "
            f"Make room, or {elsewhere}."
        )


def _refuse_other_size(spec: ModelSpec, hub: str, files: list[_File]) -> None:
    """A hub that states far more than models.yaml does is not believed, or it could fill the disk."""
    stated = sum(file.bytes for file in files)
    if stated > 2 * spec.bytes + _OTHER_BYTES:
        raise FetchError(
            f"{spec.name}: {hub} states {_gigabytes(stated)}, and models.yaml {_gigabytes(spec.bytes)}. Correct `bytes` "
            "in models.yaml, or ask another hub: set HF_ENDPOINT."
        )


def _held(place: _Place, file: _File) -> int:
    """Bytes of the file that are there already, finished or not."""
    there = [
        path
        for path in (place.directory / file.name, *place.blobs.glob(f"*{file.hash}*"))
        if path.is_file()
    ]
    return min(file.bytes, max((path.stat().st_size for path in there), default=0))


def _bring(
    spec: ModelSpec, file: _File, place: _Place, hub: str, retries: int, note: Callable[[str], None]
) -> None:
    """Download one file, unless it is there."""
    from huggingface_hub.utils import WeakFileLock
    from requests.exceptions import ChunkedEncodingError, ConnectionError, Timeout

    target = place.directory / file.name
    if target.is_file():
        return
    for folder in (place.blobs, place.locks, place.directory):
        folder.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(place.locks / f"{file.hash}.lock"):
        partial = place.blobs / f"{file.hash}.incomplete"
        if not (place.blobs / file.hash).is_file() and not _copied(spec, file, place, partial):
            for more in range(retries, -1, -1):
                try:
                    _download(_address(spec, file, hub), partial, file, hub)
                    break
                except (
                    ChunkedEncodingError,
                    ConnectionError,
                    Timeout,
                ):  # closed, reset or silent mid-file
                    if not more or not partial.is_file():
                        raise
                    note(f"{spec.name}: the connection broke in {file.name}, taking it up again")
        _settle(spec, file, place, partial)


def _address(spec: ModelSpec, file: _File, hub: str) -> str:
    from huggingface_hub import hf_hub_url

    return str(hf_hub_url(spec.hub, file.name, revision=spec.revision, endpoint=hub))


def _copied(spec: ModelSpec, file: _File, place: _Place, partial: Path) -> bool:
    """Whether a file that goes to a directory of the caller's was in the cache, and now lies in `partial`."""
    cached = _place(spec, None).directory / file.name
    if not place.own or not cached.is_file() or cached.stat().st_size != file.bytes:
        return False
    shutil.copyfile(cached, partial)
    return True


def _download(url: str, partial: Path, file: _File, hub: str) -> None:
    """Bring the rest of `partial`. Raises FetchError once more arrives than the hub stated; nothing of that is kept."""
    from huggingface_hub import constants

    start = partial.stat().st_size if partial.is_file() else 0
    if start > file.bytes:
        partial.unlink()
        start = 0
    if start == file.bytes and partial.is_file():
        return
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with _asked(url, headers) as answer:
        if start and answer.status_code != 206:  # the whole file, although a part was asked for
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
            f"{hub} sends more than the {file.bytes} bytes that it states. Ask another hub: set HF_ENDPOINT."
        )


def _settle(spec: ModelSpec, file: _File, place: _Place, partial: Path) -> None:
    """Give a file that has arrived its name, in the form of huggingface_hub's cache or of its local directories."""
    target = place.directory / file.name
    if place.own:
        os.replace(partial, target)
        note = f"{spec.revision}\n{file.hash}\n{time.time()}\n"
        (place.blobs / f"{file.name}.metadata").write_text(note, "utf-8")
        return
    blob = place.blobs / file.hash
    if not blob.is_file():
        os.replace(partial, blob)
    target.unlink(missing_ok=True)
    try:
        target.symlink_to(os.path.relpath(blob, target.parent))
    except OSError:  # Windows without the right to make links
        shutil.copyfile(blob, target)


# --- checking --------------------------------------------------------------------------------------------------------


def _refuse_damaged(spec: ModelSpec, place: _Place, files: list[_File], *, keep: bool) -> None:
    """FetchError that names each file that is not what it should be.

    They are removed, or a repeat would take them for done; `keep` them where nothing can be brought in their stead.
    """
    wrong = []
    for file in files:
        if not (fault := _fault(place.directory / file.name, file)):
            continue
        wrong.append(f"{file.name} ({fault})")
        # The library copies from its cache into a directory, so a damaged file in the cache would come back.
        for holder in () if keep else {place, _place(spec, None)}:
            _discard(holder, file)
    if wrong:
        told = (
            "Fetch with HF_HUB_OFFLINE unset"
            if keep
            else "They are removed. Run the same command again"
        )
        raise FetchError(
            f"{place.directory}: {len(wrong)} of {len(files)} files of {spec.name} are damaged or missing: "
            f"{', '.join(wrong)}. {told}: it brings only these."
        )


def _fault(path: Path, file: _File) -> str | None:
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


def _discard(place: _Place, file: _File) -> None:
    path = place.directory / file.name
    if _fault(path, file) in (None, "missing"):
        return
    blob = path.resolve()
    path.unlink()
    if blob.parent == place.blobs.resolve():
        blob.unlink(missing_ok=True)


# --- offline ---------------------------------------------------------------------------------------------------------


def _recorded(spec: ModelSpec, place: _Place) -> list[_File]:
    """The commit's files that are there, with the hashes that huggingface_hub wrote down; FetchError if one lacks."""
    present = [path for path in place.directory.glob("*") if path.is_file()]
    hashes = {
        path.name: digest for path in present if (digest := _recorded_hash(spec, place, path))
    }
    advice = "Fetch it with HF_HUB_OFFLINE unset."
    try:
        names = _needed(spec, hashes, str(place.directory))
    except FetchError:
        raise FetchError(
            f"{place.directory}: {spec.name} at {spec.revision} is not there, and HF_HUB_OFFLINE is set. {advice}"
        ) from None
    lacking = set().union(
        *(_indexed(place.directory / name) for name in names if name.endswith(".index.json"))
    )
    if lacking := lacking - hashes.keys():
        raise FetchError(
            f"{place.directory}: {', '.join(sorted(lacking))} missing, and HF_HUB_OFFLINE is set. {advice}"
        )
    return [_File(name, (place.directory / name).stat().st_size, hashes[name]) for name in names]


def _recorded_hash(spec: ModelSpec, place: _Place, path: Path) -> str | None:
    """In the cache a blob is named by its hash; beside one's own files lies a note: commit, hash, time."""
    if not place.own:
        return path.resolve().name if path.is_symlink() else None
    with contextlib.suppress(OSError, ValueError):
        commit, digest, _time = (place.blobs / f"{path.name}.metadata").read_text().split()
        return digest if commit == spec.revision else None
    return None


def _indexed(index: Path) -> set[str]:
    """The shards that an index names; none if it cannot be read, which its hash will show."""
    with contextlib.suppress(OSError, ValueError, KeyError, AttributeError, TypeError):
        return set(json.loads(index.read_bytes())["weight_map"].values())
    return set()


# --- telling what went wrong -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def _one_line(spec: ModelSpec, hub: str, file: str | None = None) -> Iterator[None]:
    """Whatever huggingface_hub raises becomes a FetchError of one line."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError) as e:  # requests' errors are OSErrors
        about = f"{spec.name}, {file}" if file else spec.name
        raise FetchError(f"{about}: {_told(e, spec, hub)}") from e


def _told(error: BaseException, spec: ModelSpec, hub: str) -> str:
    from huggingface_hub.errors import FileMetadataError, LocalEntryNotFoundError
    from requests.exceptions import HTTPError, RequestException

    if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__  # the library's wrapper: "check your connection", whatever happened
    if isinstance(error, HTTPError):
        return _told_refusal(error, spec, hub)
    if isinstance(
        error, FileMetadataError | ValueError | KeyError | TypeError
    ):  # no JSON, no ETag, no such address
        return f"{hub} does not answer as a hub does ({_first_line(error)}). Check HF_ENDPOINT, and any proxy between."
    if isinstance(error, RequestException):
        return (
            f"no connection to {hub}, or it broke off ({_innermost(error)}). {_AGAIN} "
            "If all files are there already, HF_HUB_OFFLINE=1 uses them."
        )
    if isinstance(error, OSError) and error.errno is not None:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}. Put that right. {_AGAIN}"
    return f"the transfer broke off ({_first_line(error)}). {_AGAIN}"


def _told_refusal(error: HTTPError, spec: ModelSpec, hub: str) -> str:
    """For a hub that answered with an HTTP status of failure."""
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    status = getattr(error.response, "status_code", None)
    if isinstance(error, RevisionNotFoundError):
        return f"{hub}/{spec.hub} has no commit {spec.revision}. Correct `revision` in models.yaml."
    if isinstance(error, GatedRepoError):
        return (
            f"{hub}/{spec.hub} is gated (HTTP {status}). Accept its terms in a browser, set HF_TOKEN to a token of that "
            "account, and run the same command again."
        )
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"{hub} has no repository {spec.hub}, or hides it from you. Correct `hub` in models.yaml; "
            "a private repository needs HF_TOKEN."
        )
    if status in (401, 403):
        return f"{hub} refuses access to {spec.hub} (HTTP {status}). Set HF_TOKEN to a token that may read it."
    if status == 404:
        return f"{hub} has no such file in {spec.hub} at {spec.revision} (HTTP 404). Ask another hub: set HF_ENDPOINT."
    return f"{hub} answered with HTTP {status}. Wait a little. {_AGAIN}"


def _innermost(error: BaseException) -> str:
    """The system's own words at the bottom of a connection error: "Connection refused", not three layers of repr."""
    reason: BaseException = error
    while (inner := reason.__cause__ or reason.__context__) is not None:
        reason = inner
    return getattr(reason, "strerror", None) or _first_line(reason)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB"
