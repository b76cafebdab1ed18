"""The audit log: append-only, hash-chained, synced to the disk, for its owner's eyes alone.

In: entries (see entries.py). Out: the lines of `entries.log`; `head`, which says how many lines and
bytes there are and what the last hash is, so that missing lines at the end are noticed;
`retained/DAY`, which holds texts and pictures where that was asked for. They are shown up to that
day and removed by the next command that answers, or by `audit forget`.

Whoever may write both files can write a whole new log: the hash that `verify` gives, noted
elsewhere, tells it apart. Reading changes no file. Only a folder with the marker of an audit log
(see common/folders.py) is written to. Standard library only.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import hmac
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from pulse_edge.audit_log import storage
from pulse_edge.audit_log.entries import (
    FIRST_HASH,
    HASH_LENGTH,
    Entry,
    Head,
    Retained,
    base_name,
    chained_hash,
    fault,
    json_of,
)
from pulse_edge.common import folders, paths
from pulse_edge.common.files import (
    UNFINISHED,
    open_private,
    try_lock,
)
from pulse_edge.errors import AuditLogError, FolderError

AUDIT_LOG_VARIABLE = "PULSE_EDGE_AUDIT_LOG"
KIND = "audit-log"
"""Kind of the folder in its marker."""
ENTRIES, HEAD, LOCK, RETAINED = "entries.log", "head", "lock", "retained"
FILES = frozenset({ENTRIES, HEAD, LOCK, RETAINED})
"""Names in the folder, besides the marker."""
PATIENCE = 60.0
"""Seconds to wait while another process writes."""
QUIET_WAIT, WAIT_STEP = 0.5, 0.02
"""Seconds until a note says that it waits, and between two attempts."""
MAX_LINE = 1 << 20
"""Bytes of an entry's line: longer ones are not written. An answer's entry has some 2,000."""
MAX_READ = 1 << 26
"""Bytes of a line that are read: the log of another version may hold longer lines than this one
writes."""
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_RETAINED_FILE = re.compile(r"[0-9a-f]{64}\.(json|png)")
_LOOK = "Look with `pulse-edge audit verify`, and move {} away to begin a new log."
_INVESTIGATE = "Keep the folder as it is, and find out who did it."


def default_folder() -> Path:
    """Return $PULSE_EDGE_AUDIT_LOG, else the folder in this user's state directory."""
    variable = os.environ.get(AUDIT_LOG_VARIABLE)
    return Path(variable) if variable else paths.user_state() / "audit-log"


class AuditLog:
    """The audit log in a folder.

    The folder is made with the first entry. `note` gets a line when appending takes long.
    """

    def __init__(
        self, folder: Path | None = None, note: Callable[[str], None] = lambda _text: None
    ) -> None:
        self.folder = folder or default_folder()
        self._log = self.folder / ENTRIES
        self._head = self.folder / HEAD
        self._retained = self.folder / RETAINED
        self._note = note

    # --- writing ----------------------------------------------------------------------------------

    def append(
        self,
        fields: Mapping[str, Any] | Callable[[], Mapping[str, Any]],
        retained: Retained | None = None,
    ) -> Entry:
        """Append an entry and wait until the disk has it.

        Raises AuditLogError; then the entry is not in the log. Fields that depend on other entries
        come from a function, which is called while no other process can append.

        The name in the field `file` is replaced by its hash, `file_hash`, keyed with the folder's
        id: without the folder, names cannot be found by trying.
        """
        with self.locked() as file:
            head = self._end_of(file)
            fields = dict(fields() if callable(fields) else fields)
            if (name := fields.pop("file", None)) is not None:
                fields["file_hash"] = self.file_hash(name)
            if retained is not None:
                fields["retained"] = self._retain(retained)
            text = json.dumps(fields, ensure_ascii=True, sort_keys=True, separators=(",", ":"))
            digest = chained_hash(head.hash, text.encode())
            line = f"{digest} {text}\n".encode()
            if len(line) > MAX_LINE:
                raise AuditLogError(
                    f"{self._log}: an entry of {len(line):,} bytes is not written; {MAX_LINE:,} is "
                    "the limit. The answer "
                    "is not in the log: do not use it. Look at the kit with `pulse-edge kit info`."
                )
            try:
                storage.append(file, line)
                self._set_head(head.after(line))
            except OSError as e:
                with contextlib.suppress(OSError):
                    os.ftruncate(file, head.size)
                raise AuditLogError(
                    f"{self._log}: cannot be written ({e.strerror}). Free space on the disk."
                ) from None
        return Entry(head.entries + 1, digest, fields)

    def file_hash(self, file: str) -> str | None:
        """Return the hash of a page's file name as this log has it, 64 hexadecimal digits.

        It is None without the marker.
        """
        marker = folders.read(self.folder)
        if marker is None:
            return None
        name = base_name(file).encode("utf-8", "surrogatepass")
        return hmac.new(marker.id.encode(), name, hashlib.sha256).hexdigest()

    def ready(self) -> None:
        """Check that answers can be logged, and remove texts whose days are over.

        Raises AuditLogError.
        """
        with self.locked() as file:
            self._end_of(file)
            for path in self.folder.glob(f"{UNFINISHED}*"):  # a power cut left it
                path.unlink(missing_ok=True)
        self.forget()

    def forget(self) -> int:
        """Remove texts and pictures whose last day is over, and return how many.

        Their entries stay, and so do files that this program did not write. Raises AuditLogError
        where the folder is not this user's log.
        """
        try:
            folders.require(self.folder, KIND)
            self._refuse_link()
        except FolderError as e:
            raise AuditLogError(str(e)) from None
        today, removed = datetime.date.today().isoformat(), 0
        for day in storage.names(self._retained):
            if not _DAY.fullmatch(day) or day >= today:
                continue
            folder = self._retained / day
            for name in storage.names(folder):
                if _RETAINED_FILE.fullmatch(name) or name.startswith(UNFINISHED):
                    with contextlib.suppress(OSError):
                        (folder / name).unlink()
                        removed += 1
            with contextlib.suppress(OSError):
                folder.rmdir()
        return removed

    def _end_of(self, file: int) -> Head:
        """Return the head, after repairing what a power cut left.

        That is a line which `head` does not count, or half a line.
        """
        head, size = self._read_head(), os.fstat(file).st_size
        if size < head.size:
            raise AuditLogError(
                f"{self._log}: has {size} bytes, and {self._head.name} says {head.size}: something "
                "was removed. " + _LOOK.format("the folder")
            )
        if size == head.size:
            return head
        tail = storage.read_from(file, head.size, min(size - head.size, MAX_READ))
        if b"\n" not in tail:
            os.ftruncate(file, head.size)
            return head
        if tail.count(b"\n") > 1 or not tail.endswith(b"\n") or fault(tail, head.hash):
            raise AuditLogError(
                f"{self._log}: something was added behind entry {head.entries} that pulse-edge did "
                "not write. " + _LOOK.format("the folder")
            )
        head = head.after(tail)
        self._set_head(head)
        return head

    def _read_head(self) -> Head:
        raw = storage.bytes_of(self._head)
        if not raw:
            return Head()
        try:
            entries, size, digest = raw.decode("ascii").split()
            head = Head(int(entries), int(size), digest)
        except ValueError:
            head = None
        if head is None or head.line() != raw:
            raise AuditLogError(f"{self._head}: was altered. " + _LOOK.format(self.folder))
        return head

    def _set_head(self, head: Head) -> None:
        storage.replace(self._head, head.line())

    def _retain(self, retained: Retained) -> dict[str, str]:
        """Write texts and picture below their last day; return the entry's field.

        Raises AuditLogError.
        """
        until = (datetime.date.today() + datetime.timedelta(days=retained.days)).isoformat()
        folder = self._retained / until
        texts = json.dumps(retained.texts, ensure_ascii=False, indent=1)
        contents = {"texts": (texts.encode("utf-8", "surrogatepass"), "json")}
        if retained.picture is not None:
            contents["picture"] = (retained.picture, "png")
        field = {"until": until}
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for kind, (content, ending) in contents.items():
                field[kind] = f"{hashlib.sha256(content).hexdigest()}.{ending}"
                if not (folder / field[kind]).exists():
                    storage.replace(folder / field[kind], content)
        except OSError as e:
            raise AuditLogError(
                f"{folder}: cannot be written ({e.strerror}). Free space on the disk."
            ) from None
        return field

    @contextlib.contextmanager
    def locked(self) -> Iterator[int]:
        """Open the entries for writing, by one process at a time; gives the file's handle.

        Raises AuditLogError.
        """
        try:
            folders.claim(self.folder, KIND)
            self._refuse_link()
            self._retained.mkdir(exist_ok=True, mode=0o700)
            lock, file = open_private(self.folder / LOCK), open_private(self._log)
        except FolderError as e:
            raise AuditLogError(str(e)) from None
        except OSError as e:
            raise AuditLogError(
                f"{self.folder}: answers cannot be logged here ({e.strerror}). Set "
                f"{AUDIT_LOG_VARIABLE} to a folder of "
                "yours."
            ) from None
        try:
            self._wait(lock)
            yield file
        finally:
            os.close(file)
            os.close(lock)  # releases it

    def _refuse_link(self) -> None:
        """Raise FolderError where `retained` leads out of the folder.

        Texts would be written and removed elsewhere.
        """
        if self._retained.is_symlink():
            raise FolderError(
                f"{self._retained}: is a link, and texts are retained in a folder only. Remove the "
                "link."
            )

    def _wait(self, lock: int) -> None:
        start, noted = time.monotonic(), False
        while not try_lock(lock):
            waited = time.monotonic() - start
            if waited > PATIENCE:
                raise AuditLogError(
                    f"{self.folder}: another pulse-edge has been writing the audit log for "
                    f"{PATIENCE:.0f} s. "
                    "End it, and run again."
                )
            if waited > QUIET_WAIT and not noted:
                noted = True
                self._note(f"another pulse-edge is writing the audit log in {self.folder}: waiting")
            time.sleep(WAIT_STEP)

    # --- reading ----------------------------------------------------------------------------------

    def entries(self) -> Iterator[Entry]:
        """Give every entry, oldest first.

        Raises AuditLogError at the first line that is not as it was written.
        """
        return (entry for entry, _line in self._chain(*self._snapshot()))

    def verify(self, expect: str | None = None) -> Head:
        """Check every line, the head, and what is retained; return where the chain ends.

        `expect` is a hash noted earlier that must be in the chain. Raises AuditLogError saying
        where the log is broken.
        """
        raw, size = self._snapshot()
        before = head = Head()
        expected = expect in (None, FIRST_HASH)
        faults: list[str] = []
        for entry, line in self._chain(raw, size):
            before, head = head, head.after(line)
            expected = expected or entry.hash == expect
            faults += self._retained_faults(entry)
        # A power cut between the two files leaves `head` one entry behind; the next answer
        # repairs it.
        if raw not in (head.line(), before.line()) and (raw or head.entries > 1):
            number = raw.decode("ascii", "replace").split()[:1] or ["none"]
            faults.append(
                f"{head.entries} entries, and {HEAD} says {number[0]}: the last ones were removed, "
                f"or {HEAD} was altered"
            )
        if not expected:
            faults.append(
                f"no entry has the hash {expect}: this is not the log that it was noted from"
            )
        if faults:
            raise AuditLogError(f"{self._log}: {'; '.join(faults)}. {_INVESTIGATE}")
        return head

    def retained(self, entry: Entry) -> dict[str, Path]:
        """Return the paths of an entry's `texts` and `picture` that exist, up to their last day."""
        field, today = entry.fields.get("retained") or {}, datetime.date.today().isoformat()
        if not isinstance(field, dict) or not _DAY.fullmatch(day := str(field.get("until"))):
            return {}
        if day < today:
            return {}
        names = {kind: str(field[kind]) for kind in ("texts", "picture") if kind in field}
        stored = {
            kind: self._retained / day / name
            for kind, name in names.items()
            if _RETAINED_FILE.fullmatch(name)
        }
        return {kind: path for kind, path in stored.items() if path.is_file()}

    def _retained_faults(self, entry: Entry) -> Iterator[str]:
        field = entry.fields.get("retained") or {}
        stored = self.retained(entry)
        for kind in ("texts", "picture"):
            if kind not in field:
                continue
            if kind not in stored:
                if field["until"] >= datetime.date.today().isoformat():
                    yield f"the {kind} retained with entry {entry.number} is missing"
                continue
            digest = hashlib.sha256(stored[kind].read_bytes()).hexdigest()
            if digest != field[kind].split(".")[0]:
                yield f"the {kind} retained with entry {entry.number} was altered"

    def _snapshot(self) -> tuple[bytes, int]:
        """Return the bytes of `head` and the size of the entries at one moment, without a lock.

        A reader changes no file.

        A writer lengthens the entries before it replaces `head`, by one line at most between two
        equal looks at `head`. Raises AuditLogError where there is no log.
        """
        try:
            end = time.monotonic() + PATIENCE
            head = storage.bytes_of(self._head)
            while True:
                size = self._log.stat().st_size
                before, head = head, storage.bytes_of(self._head)
                if head == before or time.monotonic() > end:
                    return head, size
        except (FileNotFoundError, NotADirectoryError):
            if self._head.exists() or folders.read(self.folder):
                raise AuditLogError(
                    f"{self._log}: is missing. Keep the folder as it is, and find out who removed "
                    "the file; or move the "
                    "folder away to begin a new log."
                ) from None
            raise AuditLogError(
                f"{self.folder}: there is no audit log. Either no answer was given yet, or the log "
                "is in another folder: "
                f"name that with --audit-log or {AUDIT_LOG_VARIABLE}."
            ) from None
        except OSError as e:
            raise self._unreadable(e) from None

    def _chain(self, raw_head: bytes, size: int) -> Iterator[tuple[Entry, bytes]]:
        """Give the entries in the first `size` bytes with their lines, checked.

        Half a line behind what `head` counts comes from a power cut, and is no entry.
        """
        if not size:
            return
        words = raw_head.split()
        confirmed = int(words[1]) if len(words) == 3 and words[1].isdigit() else 0
        previous, at, number = FIRST_HASH, 0, 0
        with self._open() as file:
            while at < size and (line := file.readline(MAX_READ)):
                if not line.endswith(b"\n") and at >= confirmed:
                    return
                number += 1
                problem = fault(line, previous)
                if problem and number == 1 and not words and folders.read(self.folder) is None:
                    raise AuditLogError(
                        f"{self._log}: is no audit log of pulse-edge. Name another folder with "
                        "--audit-log."
                    )
                if problem:
                    raise AuditLogError(f"{self._log}: entry {number} {problem}. {_INVESTIGATE}")
                previous, at = line[:HASH_LENGTH].decode(), at + len(line)
                yield Entry(number, previous, json_of(line)), line

    def _open(self) -> BinaryIO:
        try:
            return open(self._log, "rb")
        except OSError as e:
            raise self._unreadable(e) from None

    def _unreadable(self, error: OSError) -> AuditLogError:
        return AuditLogError(f"{self._log}: cannot be read ({error.strerror}). Ask its owner.")
