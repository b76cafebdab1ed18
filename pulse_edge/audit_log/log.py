"""The record of every answer: append-only, hash-chained, synced to the disk, for its owner's eyes alone.

In: an entry, a JSON object (page, kit, settings, hashes of question and answer; never a name or a text).
Out: a line `HASH JSON` of `entries.log`, where HASH is the SHA-256 of the hash before it, a space, and the object's bytes.

`head` says how many lines and bytes there are and what the last hash is, so that lines missing at the end are missed too.
Whoever may write both files can write a whole new record: the hash that `verify` gives, noted elsewhere, tells it apart.
Texts and pictures lie in `retained/DAY`, only where they were asked to be kept. They are shown up to that day, and removed by
the next command that answers, or by `audit forget`. Reading changes nothing. Only a folder with the mark of an audit log (see
`owned`) is written to. Standard library only.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import hmac
import json
import os
import re
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pulse_edge.common import folders
from pulse_edge.errors import AuditLogError, FolderError

AUDIT_LOG_VARIABLE = "PULSE_EDGE_AUDIT_LOG"
ENTRIES = "entries.log"
"""File of the entries, a line each."""
FIRST = "0" * 64
"""Stands before the first entry's hash."""
PATIENCE = 60.0
"""Seconds to wait for another process's turn."""
MAX_LINE = 1 << 20
"""Bytes of an entry's line at most, its end included: longer ones are not written. Ours have some 2,000."""
MAX_READ = 1 << 26
"""Bytes of a line that are read: earlier versions wrote longer ones, and a record with one of them is not altered."""
MAX_TEXT = 500
"""Characters of a text in an entry that comes from a kit or the system; what tells kits apart is their hash."""
_FILES = frozenset({ENTRIES, "head", "head.new", "lock", "retained"})
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_KEPT = re.compile(r"[0-9a-f]{64}\.(json|png)(\.new)?")


@dataclass(frozen=True)
class Head:
    """Where the chain ends."""

    entries: int = 0
    size: int = 0
    """Bytes."""
    hash: str = FIRST

    def line(self) -> bytes:
        """As it stands in the file `head`."""
        return f"{self.entries} {self.size} {self.hash}\n".encode()

    def after(self, line: bytes) -> Head:
        """The head behind one more line."""
        return Head(self.entries + 1, self.size + len(line), line[:64].decode("ascii", "replace"))


@dataclass(frozen=True)
class Entry:
    """One line of the record."""

    number: int
    """From 1."""
    hash: str
    fields: dict[str, Any]


@dataclass(frozen=True)
class Retained:
    """What is to be kept beside an entry, and for how long."""

    days: int
    texts: dict[str, Any]
    picture: bytes | None
    """A PNG file's bytes."""


def default_dir() -> Path:
    """$PULSE_EDGE_AUDIT_LOG, else the user's directory for records."""
    if variable := os.environ.get(AUDIT_LOG_VARIABLE):
        return Path(variable)
    if sys.platform == "win32":
        return (
            Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local")
            / "pulse-edge"
            / "audit-log"
        )
    if sys.platform == "darwin":
        return Path.home() / "Library/Application Support/pulse-edge/audit-log"
    return (
        Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state")
        / "pulse-edge"
        / "audit-log"
    )


def now() -> dict[str, str]:
    """Return `time`, UTC to the millisecond, and `local_time` with its offset, of one moment; ISO 8601."""
    moment = datetime.datetime.now(datetime.timezone.utc)
    utc = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"time": utc, "local_time": moment.astimezone().isoformat(timespec="seconds")}


def base_name(file: str) -> str:
    """Return a page's file name without its folder and the number of its sheet, in Unicode's composed form."""
    name = re.sub(r"#\d+$", "", file).replace("\\", "/").rpartition("/")[2]
    return unicodedata.normalize("NFC", name)


def sha256(text: str) -> str:
    """Of a text's UTF-8 bytes."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def entry(
    report: Mapping[str, Any],
    answer: Mapping[str, Any],
    settings: Mapping[str, Any],
    ended: str = "whole",
) -> dict[str, Any]:
    """What is recorded of one answer of a report (both as JSON objects): hashes and figures, no name and no text.

    `AuditLog.append` replaces `file` by a hash of its name.
    """
    return _about(report, settings) | {
        "question_sha256": sha256(answer["question"]),
        "answer_sha256": sha256(answer["text"]),
        "tokens": answer["tokens"],
        "complete": answer["complete"],
        "ended": ended,
    }


def findings_entry(report: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What is recorded of a report's findings and contradictions: verdicts, probabilities, and their hash."""
    texts = json.dumps([report["findings"], report["contradictions"]], sort_keys=True)
    verdicts = {
        f["statement"]: [f["verdict"], f["probability"], f["calibrated"]]
        for f in report["findings"]
    }
    contradictions = [[c["kind"], *c["statements"]] for c in report["contradictions"]]
    return _about(report, settings) | {
        "question_sha256": sha256("findings"),
        "answer_sha256": sha256(texts),
        "tokens": 0,
        "complete": True,
        "ended": "whole",
        "findings": verdicts,
        "contradictions": contradictions,
    }


def _about(report: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    about = {name: report[name] for name in ("page_sha256", "kit", "device", "versions")}
    if quality := report.get("quality"):  # without the file's name, which may be a patient's
        about["quality"] = {
            name: quality[name] for name in ("verdict", "forced", "changed", "facts")
        }
    about = {name: _shortened(value) for name, value in about.items()}
    return about | now() | {"file": report["file"], "settings": dict(settings)}


def _shortened(value: Any) -> Any:
    """A value of an entry with no text longer than MAX_TEXT."""
    if isinstance(value, str):
        return value if len(value) <= MAX_TEXT else f"{value[: MAX_TEXT - 1]}\u2026"
    if isinstance(value, Mapping):
        return {_shortened(key): _shortened(item) for key, item in value.items()}
    return [_shortened(item) for item in value] if isinstance(value, list | tuple) else value


class AuditLog:
    """A record in `folder`, which is made when something is written. `note` hears why it takes long."""

    def __init__(
        self, folder: Path | None = None, note: Callable[[str], None] = lambda _text: None
    ) -> None:
        self.folder = folder or default_dir()
        self._log = self.folder / ENTRIES
        self._head = self.folder / "head"
        self._note = note

    # --- writing ------------------------------------------------------------------------------------------------------

    def append(self, fields: Mapping[str, Any], retained: Retained | None = None) -> Entry:
        """Write an entry and wait until the disk has it. Raises AuditLogError; then the entry is not in the record.

        The name in `file` is not written, but a hash of it as `file_hash`, keyed with the folder's id: who has the record
        without the folder cannot find names by trying.
        """
        fields = dict(fields)
        with self._turn() as file:
            head = self._end_of(file)
            if (name := fields.pop("file", None)) is not None:
                fields["file_hash"] = self.file_hash(name)
            if retained is not None:
                fields["retained"] = self._keep(retained)
            text = json.dumps(fields, ensure_ascii=True, sort_keys=True, separators=(",", ":"))
            digest = _chained(head.hash, text.encode())
            line = f"{digest} {text}\n".encode()
            if len(line) > MAX_LINE:
                raise AuditLogError(
                    f"{self._log}: an entry of {len(line):,} bytes is not written; {MAX_LINE:,} is the limit. The answer "
                    "is not on record: do not use it. Look at the kit with `pulse-edge kit info`."
                )
            try:
                _write(file, line)
                self._set_head(head.after(line))
            except OSError as e:
                with contextlib.suppress(OSError):
                    os.ftruncate(file, head.size)
                raise AuditLogError(
                    f"{self._log}: cannot be written ({e.strerror}). Free space on the disk."
                ) from None
        return Entry(head.entries + 1, digest, fields)

    def file_hash(self, file: str) -> str | None:
        """Hash of a page's file name as this record has it, 64 hexadecimal digits; None without the folder's mark."""
        mark = folders.read(self.folder)
        if mark is None:
            return None
        name = base_name(file).encode("utf-8", "surrogatepass")
        return hmac.new(mark.id.encode(), name, hashlib.sha256).hexdigest()

    def ready(self) -> None:
        """Raise AuditLogError now if an answer could not be recorded later; remove what need not be kept any longer."""
        with self._turn() as file:
            self._end_of(file)
        self.forget()

    def forget(self) -> int:
        """Remove texts and pictures whose last day is over, and return how many. Their entries stay.

        Raises AuditLogError where the folder is not an audit log of this user. Files that we did not write stay.
        """
        try:
            folders.require(self.folder, "audit-log")
            self._refuse_link()
        except FolderError as e:
            raise AuditLogError(str(e)) from None
        today, removed = datetime.date.today().isoformat(), 0
        for day in _names(self.folder / "retained"):
            if not _DAY.fullmatch(day) or day >= today:
                continue
            folder = self.folder / "retained" / day
            for name in _names(folder):
                if _KEPT.fullmatch(name):
                    with contextlib.suppress(OSError):
                        (folder / name).unlink()
                        removed += 1
            with contextlib.suppress(OSError):
                folder.rmdir()
        return removed

    def _end_of(self, file: int) -> Head:
        """The head, after mending what a power cut left: a line that `head` does not know, or half a line."""
        head, size = self._read_head(), os.fstat(file).st_size
        if size < head.size:
            raise AuditLogError(
                f"{self._log}: has {size} bytes, and {self._head.name} says {head.size}: something was removed. "
                f"Look with `pulse-edge audit verify`, and move the folder away to begin a new record."
            )
        if size == head.size:
            return head
        tail = _read_from(file, head.size, min(size - head.size, MAX_READ))
        if b"\n" not in tail:
            os.ftruncate(file, head.size)
            return head
        if tail.count(b"\n") > 1 or not tail.endswith(b"\n") or _fault(tail, head.hash):
            raise AuditLogError(
                f"{self._log}: something was added behind entry {head.entries} that pulse-edge did not write. "
                f"Look with `pulse-edge audit verify`, and move the folder away to begin a new record."
            )
        head = head.after(tail)
        self._set_head(head)
        return head

    def _read_head(self) -> Head:
        raw = _bytes_of(self._head)
        if not raw:
            return Head()
        try:
            entries, size, digest = raw.decode("ascii").split()
            head = Head(int(entries), int(size), digest)
        except ValueError:
            head = None
        if head is None or head.line() != raw:
            raise AuditLogError(
                f"{self._head}: was altered. Look with `pulse-edge audit verify`, and move {self.folder} away to begin a "
                "new record."
            )
        return head

    def _set_head(self, head: Head) -> None:
        _replace(self._head, head.line())

    def _keep(self, retained: Retained) -> dict[str, str]:
        """Write texts and picture below the last day; their hashes for the entry. Raises AuditLogError."""
        until = (datetime.date.today() + datetime.timedelta(days=retained.days)).isoformat()
        folder = self.folder / "retained" / until
        texts = json.dumps(retained.texts, ensure_ascii=False, indent=1).encode(
            "utf-8", "surrogatepass"
        )
        result = {"until": until}
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for kind, data, ending in (
                ("texts", texts, "json"),
                ("picture", retained.picture, "png"),
            ):
                if data is not None:
                    result[kind] = f"{hashlib.sha256(data).hexdigest()}.{ending}"
                    if not (folder / result[kind]).exists():
                        _replace(folder / result[kind], data)
        except OSError as e:
            raise AuditLogError(
                f"{folder}: cannot be written ({e.strerror}). Free space on the disk."
            ) from None
        return result

    @contextlib.contextmanager
    def _turn(self) -> Iterator[int]:
        """The record, open for writing, by one process at a time. Its files are the owner's alone."""
        try:
            folders.claim(self.folder, "audit-log", self._is_older)
            self._refuse_link()
            (self.folder / "retained").mkdir(exist_ok=True, mode=0o700)
            lock, file = open_owned(self.folder / "lock"), open_owned(self._log)
        except FolderError as e:
            raise AuditLogError(str(e)) from None
        except OSError as e:
            raise AuditLogError(
                f"{self.folder}: answers cannot be recorded here ({e.strerror}). Give {AUDIT_LOG_VARIABLE} a folder of yours."
            ) from None
        try:
            self._wait(lock)
            yield file
        finally:
            os.close(file)
            os.close(lock)  # which gives it back

    def _refuse_link(self) -> None:
        """Raise FolderError where `retained` leads out of the folder: texts would be written and removed somewhere else."""
        if (self.folder / "retained").is_symlink():
            raise FolderError(
                f"{self.folder / 'retained'}: is a link, and texts are kept in a folder only. Remove the link."
            )

    def _is_older(self) -> bool:
        """Whether a version before the marks made this folder: nothing else is in it, and the chain begins as ours does."""
        names = os.listdir(self.folder)
        if (
            not _FILES.issuperset(names)
            or not {ENTRIES, "lock"}.issubset(names)
            or self._log.is_symlink()
        ):
            return False
        with open(self._log, "rb") as file:
            line = file.readline(MAX_READ)
        return (
            not _fault(line, FIRST)
            if line
            else not (_bytes_of(self._head) or _names(self.folder / "retained"))
        )

    def _wait(self, lock: int) -> None:
        start, said = time.monotonic(), False
        while not try_lock(lock):
            waited = time.monotonic() - start
            if waited > PATIENCE:
                raise AuditLogError(
                    f"{self.folder}: another pulse-edge has been writing the record for {PATIENCE:.0f} s. "
                    "End it, and run again."
                )
            if waited > 0.5 and not said:
                said = True
                self._note(f"another pulse-edge is writing the record in {self.folder}: waiting")
            time.sleep(0.02)

    # --- reading ------------------------------------------------------------------------------------------------------

    def entries(self) -> Iterator[Entry]:
        """Every entry, oldest first. Raises AuditLogError at the first line that is not as it was written."""
        return (item for item, _line in self._chain(*self._now()))

    def verify(self, expect: str | None = None) -> Head:
        """Check every line, the head, and what was kept. `expect` is a hash noted earlier that must be in the chain.

        Returns where the chain ends. Raises AuditLogError saying where it is broken.
        """
        raw, size = self._now()
        before = head = Head()
        found = expect in (None, FIRST)
        wrong: list[str] = []
        for item, line in self._chain(raw, size):
            before, head = head, head.after(line)
            found = found or item.hash == expect
            wrong += self._kept_faults(item)
        # A power cut between the two files leaves `head` one entry behind; the next answer mends it.
        if raw not in (head.line(), before.line()) and (raw or head.entries > 1):
            told = raw.decode("ascii", "replace").split()[:1] or ["none"]
            wrong.append(
                f"{head.entries} entries, and {self._head.name} says {told[0]}: the last ones were removed, or "
                f"{self._head.name} was altered"
            )
        if not found:
            wrong.append(
                f"no entry has the hash {expect}: this is not the record that it was noted from"
            )
        if wrong:
            raise AuditLogError(
                f"{self._log}: {'; '.join(wrong)}. Keep the folder as it is, and find out who did it."
            )
        return head

    def retained(self, item: Entry) -> dict[str, Path]:
        """Paths of an entry's `texts` and `picture`, up to their last day and as far as they are still there."""
        where, today = item.fields.get("retained") or {}, datetime.date.today().isoformat()
        if (
            not isinstance(where, dict)
            or not _DAY.fullmatch(day := str(where.get("until")))
            or day < today
        ):
            return {}
        names = {kind: str(where[kind]) for kind in ("texts", "picture") if kind in where}
        paths = {
            kind: self.folder / "retained" / day / name
            for kind, name in names.items()
            if _KEPT.fullmatch(name)
        }
        return {kind: path for kind, path in paths.items() if path.is_file()}

    def _kept_faults(self, item: Entry) -> Iterator[str]:
        where = item.fields.get("retained") or {}
        there = self.retained(item)
        for kind in ("texts", "picture"):
            if kind not in where:
                continue
            if kind not in there:
                if where["until"] >= datetime.date.today().isoformat():
                    yield f"the {kind} kept with entry {item.number} is missing"
            elif hashlib.sha256(there[kind].read_bytes()).hexdigest() != where[kind].split(".")[0]:
                yield f"the {kind} kept with entry {item.number} was altered"

    def _now(self) -> tuple[bytes, int]:
        """The bytes of `head` and the size of `log` at one moment, without a lock: a reader changes nothing.

        A writer lengthens `log` before it replaces `head`: between two looks at the same `head` that is one line at most.
        Raises AuditLogError where there is no record.
        """
        try:
            end = time.monotonic() + PATIENCE
            head = _bytes_of(self._head)
            while True:
                size = self._log.stat().st_size
                before, head = head, _bytes_of(self._head)
                if head == before or time.monotonic() > end:
                    return head, size
        except (FileNotFoundError, NotADirectoryError):
            if self._head.exists() or folders.read(self.folder):
                raise AuditLogError(
                    f"{self._log}: is missing. Keep the folder as it is, and find out who removed it; or move the folder "
                    "away to begin a new record."
                ) from None
            raise AuditLogError(
                f"{self.folder}: there is no audit log. Nothing was answered yet, or its folder is another one: name it "
                f"with --audit-log or {AUDIT_LOG_VARIABLE}."
            ) from None
        except OSError as e:
            raise AuditLogError(
                f"{self._log}: cannot be read ({e.strerror}). Ask its owner."
            ) from None

    def _chain(self, raw_head: bytes, size: int) -> Iterator[tuple[Entry, bytes]]:
        """Entries with their lines, checked, in the first `size` bytes.

        Half a line behind what `head` knows is a power cut's, and no entry.
        """
        if not size:
            return
        known = raw_head.split()
        confirmed = int(known[1]) if len(known) == 3 and known[1].isdigit() else 0
        previous, at, number = FIRST, 0, 0
        with self._open() as file:
            while at < size and (line := file.readline(MAX_READ)):
                if not line.endswith(b"\n") and at >= confirmed:
                    return
                number += 1
                fault = _fault(line, previous)
                if fault and number == 1 and not known and folders.read(self.folder) is None:
                    raise AuditLogError(
                        f"{self._log}: is no audit log of pulse-edge. Name another folder with --audit-log."
                    )
                if fault:
                    raise AuditLogError(
                        f"{self._log}: entry {number} {fault}. Keep the folder as it is, and find out who did it."
                    )
                previous, at = line[:64].decode(), at + len(line)
                yield Entry(number, previous, json.loads(line[65:])), line

    def _open(self) -> BinaryIO:
        try:
            return open(self._log, "rb")
        except OSError as e:
            raise AuditLogError(
                f"{self._log}: cannot be read ({e.strerror}). Ask its owner."
            ) from None


def _chained(previous: str, text: bytes) -> str:
    return hashlib.sha256(previous.encode() + b" " + text).hexdigest()


def _fault(line: bytes, previous: str) -> str:
    """What is wrong with a line that follows the hash `previous`; empty if nothing."""
    if line[64:65] != b" " or not line.endswith(b"\n"):
        return "is no line of this record"
    if line[:64] != _chained(previous, line[65:-1]).encode():
        return "was altered, or one before it was removed, added or moved"
    try:
        return "" if isinstance(json.loads(line[65:]), dict) else "is no JSON object"
    except (ValueError, RecursionError):
        return "is no JSON"


@dataclass(frozen=True)
class AnswerLogger:
    """Records the answers of one run."""

    log: AuditLog
    settings: Mapping[str, Any]
    """What was asked for that can change an answer."""
    retain_days: int | None = None
    """Keep texts and picture so long; None: hashes only."""

    def __call__(
        self, report: Mapping[str, Any], picture: Callable[[], bytes], ended: str = "whole"
    ) -> None:
        """Every answer of a report (as a JSON object) of a page (PNG bytes, asked for only where they are retained)."""
        for answer in report["answers"]:
            retained = None
            if self.retain_days is not None:
                texts = {
                    "file": report["file"],
                    "question": answer["question"],
                    "answer": answer["text"],
                }
                retained = Retained(self.retain_days, texts, picture())
            self.log.append(entry(report, answer, self.settings, ended), retained)

    def findings(self, report: Mapping[str, Any]) -> None:
        """The findings of a report, where it has any."""
        if report["findings"]:
            self.log.append(findings_entry(report, self.settings))


# --- files that survive a power cut, and locks ------------------------------------------------------------------------


def open_owned(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    file = os.open(path, flags | getattr(os, "O_CLOEXEC", 0), 0o600)
    if hasattr(os, "fchmod"):
        os.fchmod(file, 0o600)
    return file


def _write(file: int, data: bytes) -> None:
    """Behind the end of the file, all of it, down to the disk."""
    os.lseek(file, 0, os.SEEK_END)
    while data:
        data = data[os.write(file, data) :]
    _sync(file)


def _replace(path: Path, data: bytes) -> None:
    """The file's new content, or its old one: never half of it. A failure leaves no half either: it may be a patient's."""
    new = path.with_name(path.name + ".new")
    file = open_owned(new)
    try:
        try:
            os.ftruncate(file, 0)
            _write(file, data)
        finally:
            os.close(file)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    os.replace(new, path)
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _sync(file: int) -> None:
    if sys.platform == "darwin":
        import fcntl

        fcntl.fcntl(file, fcntl.F_FULLFSYNC)  # fsync alone leaves it in the drive's cache
    else:
        os.fsync(file)


def try_lock(file: int) -> bool:
    """Take the lock if it is free; closing the file, or the end of the process, gives it back."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _read_from(file: int, at: int, size: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(file, size, at)
    os.lseek(file, at, os.SEEK_SET)
    return os.read(file, size)


def _names(folder: Path) -> list[str]:
    """Names in a folder that is no link; none where there is no such folder."""
    try:
        return [] if folder.is_symlink() else os.listdir(folder)
    except OSError:
        return []
