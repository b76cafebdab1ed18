"""Check the fields of a bundle's manifest. Each function returns the value, or raises ValueError
that names the field.
"""

from __future__ import annotations

import datetime
import re
from typing import Any

_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""Names of devices, which Windows takes for no file."""
_VERSION = re.compile(
    r"([0-9]{1,9}(?:\.[0-9]{1,9}){0,5})(?:(a|b|rc)([0-9]{1,9}))?(?:\.post([0-9]{1,9}))?"
    r"(?:\.dev([0-9]{1,9}))?(?:\+[a-z0-9]+(?:\.[a-z0-9]+){0,5})?"
)
"""A version as wheels write it (PEP 440, normalized, without an epoch)."""


def name_fits(name: str) -> bool:
    """Return whether a relative path stays below its folder, and FAT32 and NTFS take it."""
    parts = name.split("/")
    return (
        0 < len(name) <= 180
        and not re.search(r'[\\:*?"<>|\x00-\x1f]', name)
        and all(
            p not in ("", ".", "..") and p[-1] not in ". " and not _RESERVED.fullmatch(p)
            for p in parts
        )
    )


def name(value: Any, *, plain: bool = False) -> str:
    """Check a relative path below the bundle or a kit; `plain`: a path of one part."""
    if not isinstance(value, str) or not name_fits(value) or (plain and "/" in value):
        raise ValueError(f"name {value!r} is not allowed")
    return value


def text(value: Any, field: str) -> str:
    """Check a text of at most 200 characters."""
    if not isinstance(value, str) or len(value) > 200:
        raise ValueError(f"{field} is {value!r}")
    return value


def number(value: Any, field: str) -> int:
    """Check a whole number from 0 to 2**50 - 1."""
    if type(value) is not int or not 0 <= value < 1 << 50:
        raise ValueError(f"{field} is {value!r}")
    return value


def sha256(value: Any, file: str) -> str:
    """Check 64 hexadecimal digits."""
    if not isinstance(value, str) or not re.fullmatch("[0-9a-f]{64}", value):
        raise ValueError(f"sha256 of {file} is {value!r}")
    return value


def array(value: Any, field: str) -> list[Any]:
    """Check a JSON array."""
    if not isinstance(value, list):
        raise ValueError(f"{field} is not a list")
    return value


def mapping(value: Any, field: str) -> dict[str, Any]:
    """Check a JSON object."""
    if not isinstance(value, dict):
        raise ValueError(f"{field} is not an object")
    return value


def moment(value: Any, field: str) -> datetime.datetime:
    """Parse a time of ISO 8601; without a zone it is UTC."""
    time = datetime.datetime.fromisoformat(text(value, field).replace("Z", "+00:00"))
    return time if time.tzinfo else time.replace(tzinfo=datetime.timezone.utc)


def version_order(version: str) -> tuple[list[int], tuple[int, int], int, int]:
    """Return the key by which versions are ordered (PEP 440); local parts do not count."""
    match = _VERSION.fullmatch(version) if len(version) <= 40 else None
    if match is None:
        raise ValueError(f"{version!r} is no version of a program")
    release, phase, stage, post, dev = match.groups()
    numbers = [int(part) for part in release.split(".")]
    while numbers and not numbers[-1]:
        numbers.pop()
    # 1.0.dev1 comes before 1.0a1, and 1.0 after 1.0rc1.
    before = (
        (("a", "b", "rc").index(phase), int(stage)) if phase else (-1 if dev and not post else 3, 0)
    )
    return numbers, before, int(post) if post else -1, int(dev) if dev else 10**9
