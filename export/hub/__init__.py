"""Fetch a model's checkpoint from the Hugging Face hub at its pinned commit, and verify it.

Interrupted fetches resume. Files are not trusted because they arrived: at each call the size and
hash of every file are checked against what the hub states for the commit (sha256 of Git LFS files,
git's own hash of the small ones). The hub is not trusted either: names and hashes that it states
are checked before they become file names, and no more bytes are read than it stated.

Addresses, directories and tokens are those of huggingface_hub, and so is the form of the cache:
HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_HUB_OFFLINE. The files come by plain HTTP, which
resumes. huggingface_hub's own download is not used: it names files by whatever ETag the server
sends, and stores whatever follows.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from export.hub.download import fetch_file, refuse_full_disk, refuse_other_size
from export.hub.files import gigabytes, location_of
from export.hub.listing import stated_files
from export.hub.refusals import fetch_errors
from export.hub.verification import recorded_files, refuse_damaged
from export.models import ModelSpec

# huggingface_hub is imported inside the functions: its import takes time, and `--help` must not
# wait.


def fetch(
    spec: ModelSpec,
    into: Path | None = None,
    *,
    endpoint: str | None = None,
    retries: int = 4,
    note: Callable[[str], None] = lambda _line: None,
) -> Path:
    """Fetch the checkpoint, and return the directory that holds its verified files.

    `into` is the directory for the files; files with the same names are replaced. None stands for
    huggingface_hub's own cache. `endpoint` is the hub's address; None stands for HF_ENDPOINT, or
    the public hub. `retries` says how often a broken transfer of a file is resumed within this
    call. `note` gets a line at each step that takes time.

    With HF_HUB_OFFLINE=1 nothing is requested: the files must be there, and are checked against the
    hashes that huggingface_hub wrote down when it fetched them.

    Raises FetchError, one line with the next step: no such repository or revision, no access, hub
    out of reach or gone mid-way, too little free disk, missing files, damaged files (each is named
    and removed, so that a repeat fetches it).
    """
    from huggingface_hub import constants

    _turn_telemetry_off()
    location = location_of(spec, into)
    hub = (endpoint or constants.ENDPOINT).rstrip("/")
    offline = constants.HF_HUB_OFFLINE
    if offline:
        files = recorded_files(spec, location)
    else:
        with fetch_errors(spec, hub):
            files = stated_files(spec, hub)
            refuse_full_disk(spec, location, files)
            refuse_other_size(spec, hub, files)
        for file in files:
            with fetch_errors(spec, hub, file.name):
                fetch_file(spec, file, location, hub, retries, note)
    note(
        f"{spec.name}: checking the hashes of {len(files)} files, "
        f"{gigabytes(sum(f.bytes for f in files))}"
    )
    with fetch_errors(spec, hub):
        refuse_damaged(spec, location, files, keep=offline)
    return location.directory


def _turn_telemetry_off() -> None:
    """Turn off huggingface_hub's telemetry.

    The library reads its constants at every call. Its environment variables count only before its
    first import, and transformers may have imported it long ago.
    """
    from huggingface_hub import constants

    constants.HF_HUB_DISABLE_TELEMETRY = True
