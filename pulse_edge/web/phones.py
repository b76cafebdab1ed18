"""Phones that may photograph pages for this laptop: pairing codes, paired phones, and their limits.

A pairing code works once, for some minutes, and lives in memory alone. A paired phone has a cookie
that expires; the file `phones.json` holds its hash, and is its owner's alone. The phone's id owns
what the phone uploads. Standard library only.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import secrets
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pulse_edge.common import times
from pulse_edge.common.files import write_text
from pulse_edge.common.text import one_line
from pulse_edge.errors import ServeError
from pulse_edge.web.access import Identity

FILE = "phones.json"
CODE_SECONDS = 600.0
"""A pairing code is valid for ten minutes: long enough to fetch the phone."""
PHONE_SECONDS = 12 * 3600.0
"""A phone stays paired for a shift."""
MAX_PHONES = 20
MAX_NAME = 40
"""Characters of a phone's name."""
_BYTES = 32
_LONGEST = 200
"""Characters of a code or cookie that are looked at."""


@dataclass(frozen=True)
class Phone:
    """A paired phone."""

    id: str
    """Owner of what it uploads."""
    name: str
    """What its browser says about it, such as `iPhone`."""
    hash: str
    """SHA-256 of its cookie."""
    created: str
    """UTC, ISO 8601."""
    expires: float
    """Unix time in seconds."""


class RateLimit:
    """At most `count` events of one key in `seconds`."""

    def __init__(
        self, count: int, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._count, self._seconds, self._clock = count, seconds, clock
        self._events: dict[str, deque[float]] = {}

    def allows(self, key: str) -> bool:
        """Count an event; return whether it is within the limit."""
        now = self._clock()
        for other in [k for k, v in self._events.items() if v[-1] < now - self._seconds]:
            del self._events[other]
        events = self._events.setdefault(key, deque(maxlen=self._count))
        if len(events) == self._count and events[0] > now - self._seconds:
            return False
        events.append(now)
        return True


class Phones:
    """The pairing code that waits, and the phones that are paired."""

    cookie = "pulse_edge_phone"
    """Name of the cookie."""
    open_paths = ("/static/", "/p/pair")
    """Beginnings of the paths that need no cookie."""
    file_paths = ("/p/upload",)
    """Paths that take files in a form."""
    stranger = (
        "This phone is not connected, or its time is over. Scan the code on the laptop's screen."
    )
    """What a phone without a valid cookie reads."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        """Read the paired phones. Raises ServeError where the file is broken."""
        self._path, self._clock = folder / FILE, clock
        self._code, self._code_expires = "", 0.0
        self._phones = {phone.hash: phone for phone in self._stored()}

    def _stored(self) -> list[Phone]:
        try:
            rows = json.loads(self._path.read_text("utf-8"))
            return [Phone(**row) for row in rows]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError) as e:
            raise ServeError(
                f"{self._path}: cannot be read ({e}). Remove it: phones are then paired again."
            ) from None

    def _save(self) -> None:
        rows = [dataclasses.asdict(phone) for phone in self._phones.values()]
        try:
            write_text(self._path, json.dumps(rows, indent=1) + "\n")
        except OSError as e:
            raise ServeError(
                f"{self._path}: cannot be written ({e.strerror}). Free space on the disk."
            ) from None

    # --- pairing ----------------------------------------------------------------------------------

    def new_code(self) -> str:
        """Return a new pairing code; an earlier one that was not used becomes invalid."""
        self._code = secrets.token_urlsafe(_BYTES)
        self._code_expires = self._clock() + CODE_SECONDS
        return self._code

    @property
    def code(self) -> str:
        """The pairing code that waits; empty where there is none."""
        if self._clock() >= self._code_expires:
            self._code = ""
        return self._code

    def valid_code(self, code: str) -> bool:
        """Whether the code would pair a phone now."""
        return bool(self.code) and _same(code, self.code)

    def pair(self, code: str, user_agent: str) -> str | None:
        """Return the cookie of a new phone, and use the code up; None for a wrong code.

        Raises ServeError where there are too many phones, or the disk does not take it.
        """
        if not self.valid_code(code):
            return None
        if len(self.paired()) >= MAX_PHONES:
            raise ServeError(
                f"{MAX_PHONES} phones are connected already. Disconnect one on the laptop's page."
            )
        self._code = ""
        cookie = secrets.token_urlsafe(_BYTES)
        phone = Phone(
            secrets.token_urlsafe(16),
            phone_name(user_agent),
            _digest(cookie),
            times.now("seconds").utc,
            self._clock() + PHONE_SECONDS,
        )
        self._phones[phone.hash] = phone
        self._save()
        return cookie

    def paired(self) -> list[Phone]:
        """Return the phones that may upload now, oldest first."""
        now = self._clock()
        if expired := [key for key, phone in self._phones.items() if now >= phone.expires]:
            for key in expired:
                del self._phones[key]
            self._save()
        return list(self._phones.values())

    def revoke(self, id: str) -> bool:
        """Disconnect a phone at once; return whether there was one."""
        for key, phone in list(self._phones.items()):
            if phone.id == id:
                del self._phones[key]
                self._save()
                return True
        return False

    # --- requests ---------------------------------------------------------------------------------

    def of(self, identity: Identity) -> Phone | None:
        """Return the phone that sends a request; None where it was revoked meanwhile."""
        return self._valid(identity.session)

    def of_cookie(self, cookie: str) -> Identity | None:
        """Return the identity of a phone's cookie; None for an unknown or expired one."""
        return None if self._valid(cookie) is None else Identity("phone", cookie)

    def of_bearer(self, _authorization: str) -> Identity | None:
        """Return None: a phone's port takes no token of a program."""
        return None

    def open_session(self, _token: str) -> str | None:
        """Return None: the laptop's link opens nothing on the phone's port."""
        return None

    def _valid(self, cookie: str) -> Phone | None:
        phone = self._phones.get(_digest(cookie)) if 0 < len(cookie) <= _LONGEST else None
        return phone if phone is not None and self._clock() < phone.expires else None


def phone_name(user_agent: str) -> str:
    """Return the device that a browser's User-Agent names, such as `iPhone` or `Android 15`."""
    inside = re.search(r"\(([^)]{1,200})\)", user_agent)
    parts = [part.strip() for part in (inside.group(1) if inside else "").split(";")]
    named = [part for part in parts if re.match(r"(?i)(iphone|ipad|android)", part)]
    return one_line((named or [part for part in parts if part] or ["phone"])[0])[:MAX_NAME]


def _same(given: str, expected: str) -> bool:
    """Compare in a time that does not depend on where the texts differ."""
    return len(given) <= _LONGEST and secrets.compare_digest(given.encode(), expected.encode())


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
