"""Who may use the local page: the user who can read the token file, alone on this machine.

`token` in the folder is for programs (`Authorization: Bearer`). `link` holds the address that opens
the page in a browser: it works once, gives the browser a session cookie, and is replaced. Both
files are their owner's alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pulse_edge.common.files import write_text
from pulse_edge.errors import ServeError

TOKEN, LINK = "token", "link"
COOKIE = "pulse_edge_session"
_BYTES = 32
_LONGEST = 200
"""Characters of a token or cookie that are looked at."""


@dataclass(frozen=True)
class Identity:
    """Who sends a request."""

    kind: Literal["local", "api", "phone"]
    """A browser with a session, a program with the token, or a paired phone."""
    session: str = ""
    """The session's or phone's cookie."""

    @property
    def csrf(self) -> str:
        """The token that this session's forms carry."""
        return csrf_token(self.session)


def csrf_token(session: str) -> str:
    """Return the token of a session's forms. It says nothing about the cookie."""
    return hmac.new(session.encode(), b"csrf", hashlib.sha256).hexdigest()


class Access:
    """The tokens of one folder, and the sessions that were opened with them."""

    cookie = COOKIE
    """Name of the session's cookie."""
    open_paths = ("/static/",)
    """Beginnings of the paths that need no session: files of the package."""
    file_paths = ("/upload",)
    """Paths that take files in a form."""
    stranger = (
        "This browser has no session. Start `pulse-edge serve --open` again, or open the link that "
        "`pulse-edge serve` shows: it works once."
    )
    """What a browser without a session reads."""

    def __init__(self, folder: Path, sessions: list[str]) -> None:
        """Read the token file, or write it the first time. `sessions`: SHA-256 of valid cookies.

        Raises ServeError where the folder cannot be written.
        """
        self._folder = folder
        self._sessions = set(sessions)
        self._link = ""
        self._address = ""
        try:
            self.token = self._stored_token()
        except OSError as e:
            raise ServeError(
                f"{folder / TOKEN}: cannot be read or written ({e.strerror}). Give yourself the "
                "right, or choose another folder with --folder."
            ) from None

    def _stored_token(self) -> str:
        path = self._folder / TOKEN
        with contextlib.suppress(FileNotFoundError):
            text = path.read_text("ascii", "replace").strip()
            if len(text) >= _BYTES and not path.is_symlink():
                path.chmod(0o600)
                return text
        token = secrets.token_urlsafe(_BYTES)
        write_text(path, token + "\n")
        return token

    def new_link(self, address: str | None = None) -> str:
        """Return an address that opens the page once, and write it to the file `link`."""
        self._address = address or self._address
        self._link = secrets.token_urlsafe(_BYTES)
        link = f"{self._address}/?token={self._link}"
        write_text(self._folder / LINK, link + "\n")
        return link

    def open_session(self, token: str) -> str | None:
        """Return a new cookie for the token of the link, which is then used up; None for any
        other."""
        if not self._link or not _same(token, self._link):
            return None
        cookie = secrets.token_urlsafe(_BYTES)
        self._sessions.add(_digest(cookie))
        self.new_link()
        return cookie

    def of_cookie(self, cookie: str) -> Identity | None:
        """Return the identity of a session cookie; None for an unknown one."""
        valid = 0 < len(cookie) <= _LONGEST and _digest(cookie) in self._sessions
        return Identity("local", cookie) if valid else None

    def of_bearer(self, authorization: str) -> Identity | None:
        """Return the identity of an `Authorization` header; None for a wrong one."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() == "bearer" and _same(token.strip(), self.token):
            return Identity("api")
        return None

    def close(self) -> None:
        """Remove the link of a server that has ended."""
        (self._folder / LINK).unlink(missing_ok=True)


def read_link(folder: Path) -> str | None:
    """Return the link of the server that has the folder; None where there is none."""
    try:
        return (folder / LINK).read_text("ascii").strip() or None
    except (OSError, ValueError):
        return None


def _same(given: str, expected: str) -> bool:
    """Compare in a time that does not depend on where the texts differ."""
    return len(given) <= _LONGEST and hmac.compare_digest(given.encode(), expected.encode())


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
