"""A `ModelSpec` in, the directory that holds its checkpoint out: files from the Hugging Face hub, at the pinned commit.

Interrupted fetches resume. Nothing is trusted because it arrived: every file's size and hash is checked against what
the hub states for the commit (sha256 of Git LFS files, git's own hash of the small ones), at each call. A hub is not
trusted either: names and hashes that it states are looked at before they become names of files, and no more bytes are
read than it stated. Addresses, directories and tokens are those of huggingface_hub, and so is the form of the cache:
HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_HUB_OFFLINE. The files come by plain HTTP, which resumes; not by
huggingface_hub's own download, which names files by whatever ETag the server sends, and stores whatever follows.
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

# huggingface_hub is imported inside the functions: it takes its time, and `--help` must not wait for it.


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
        f"{spec.name}: checking the hashes of {len(files)} files, {gigabytes(sum(f.bytes for f in files))}"
    )
    with fetch_errors(spec, hub):
        refuse_damaged(spec, location, files, keep=offline)
    return location.directory


def _turn_telemetry_off() -> None:
    """Telemetry off.

    Set at the library's constants, which it reads at every call: its environment variables count only before its first
    import, and transformers may have imported it long ago.
    """
    from huggingface_hub import constants

    constants.HF_HUB_DISABLE_TELEMETRY = True
